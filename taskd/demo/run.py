"""``taskd demo``: what happens, in order.

One event loop: the acts follow one another, and beside them the tasks are followed, the daemon is
pinged and the deploy is waited for. Ctrl-C, SIGTERM and a closed terminal cancel the act at hand.
Whatever ends the demo, the daemon is stopped and its directory removed (unless it is to be kept).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import taskd
from taskd import errors
from taskd.cli import outcome
from taskd.cli.output import progress
from taskd.cli.output.progress import Bar
from taskd.cli.output.text import Look
from taskd.cli.verbs.tasks import why
from taskd.demo import judge, plain, plan, summary
from taskd.demo.daemon import Daemon, DemoFailed
from taskd.demo.judge import Ended, Work
from taskd.demo.plan import CHECKPOINT, NEW, OLD
from taskd.demo.stage import FRAME, Stage

T = TypeVar("T")

# All in seconds.
START_WITHIN = 30.0  # for the daemon to import the first release and serve
DEPLOY_AFTER = 9.0  # for which the tasks run before the deploy
PINGED_AFTER = 1.0  # for which the daemon is pinged before the deploy begins, and after it
PING_PAUSE = 0.01  # between two pings
LIMIT = 150.0  # after which the demo gives up

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(*, keep: bool = False, plain: bool = False) -> int:
    """Show it; the exit status: 0, or 1 if anything was lost, repeated or wrong.

    ``keep``: leave the directory behind. ``plain``: lines instead of a drawing.
    """
    return asyncio.run(_main(keep, plain))


async def _main(keep: bool, plain: bool) -> int:
    came = _cancel_at_signals()
    daemon = Daemon(tempfile.mkdtemp(prefix="taskd-demo-"))
    try:
        return await Demo(daemon, plain).run()
    except asyncio.CancelledError:
        _say(f"ended by {came[0].name}: stopping the daemon")
        return 128 + came[0]
    except BrokenPipeError:
        raise  # the reader of the output went away: the daemon is not to blame
    except (DemoFailed, taskd.Error, OSError, ValueError) as error:
        _say(f"{error}\n{daemon.log_tail()}")
        return outcome.FAILED
    finally:
        daemon.stop()
        if keep:
            print(f"kept: {daemon.folder}", flush=True)
        else:
            shutil.rmtree(daemon.folder, ignore_errors=True)


def _cancel_at_signals() -> list[signal.Signals]:
    """Cancel this task at the first signal; the list of those that came. One that is ignored, as
    under nohup, stays so."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    came: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        came.append(number)
        if len(came) == 1:
            task.cancel()

    for number in _ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, on_signal, number)
    return came


def _say(message: str) -> None:
    outcome.say(message, "taskd demo")


class Demo:
    """One showing.

    ``_works`` and ``_bars`` have every task that was submitted, in that order; ``_streams`` the
    tasks and the events' numbers of each stream, as they came.
    """

    def __init__(self, daemon: Daemon, plain: bool) -> None:
        self._daemon = daemon
        self._began = time.monotonic()
        self._first, self._fresh = plan.works(daemon.folder)
        self._works: dict[int, Work] = {}
        self._bars: dict[int, Bar] = {}
        self._streams: list[tuple[list[int], list[int]]] = []
        self._pings: list[float] = []
        self._is_pinging = True
        self._beside: list[asyncio.Task[Any]] = []
        self._client = taskd.AsyncClient(daemon.sockets)
        self._follower = taskd.AsyncClient(daemon.sockets)
        self._pinger = taskd.AsyncClient(daemon.sockets)
        files = len({name for work in [*self._first, self._fresh] for name in work.files})
        title = f"taskd demo: {files} of Python's own files are indexed while the code is replaced"
        self._stage = Stage(title, self._bars, plain)

    async def run(self) -> int:
        """From nothing to the summary; the exit status."""
        pid = await self._start()
        await self._submit(self._first)
        self._stage.say(
            f"{len(self._works) - 1} tasks and a shell command run on {OLD}, each paced to "
            "20 to 40 s"
        )
        await self._until(lambda: all(bar.state != "queued" for bar in self._bars.values()))
        await self._pass(DEPLOY_AFTER - PINGED_AFTER)
        self._start_beside("pinging the daemon", self._ping())
        await self._pass(PINGED_AFTER)
        pause = await self._deploy()
        await self._pass(PINGED_AFTER)
        self._is_pinging = False
        await self._until(lambda: not any(_is_open(bar) for bar in self._bars.values()))
        self._stage.say("all have ended; now the same computations without taskd, to compare")
        self._stage.draw()
        return await self._sum_up(pid, pause)

    # ── the acts ─────────────────────────────────────────────────────────────────────────────

    async def _start(self) -> int:
        """Start the daemon and wait until it answers; its pid."""
        self._daemon.start(OLD)
        deadline = time.monotonic() + START_WITHIN
        while True:
            self._daemon.check()
            try:
                pid: int = (await self._client.status())["pid"]
                break
            except errors.NoDaemon:
                if time.monotonic() > deadline:
                    raise DemoFailed(f"the daemon did not start in {START_WITHIN:g} s") from None
            await asyncio.sleep(0.02)
        self._stage.say(f"a daemon (pid {pid}) with release {OLD} runs in {self._daemon.folder}")
        return pid

    async def _submit(self, works: Sequence[Work]) -> None:
        ids = []
        for work in works:
            ids.append((await self._client.submit(work.name, work.args)).id)
            self._works[ids[-1]] = work
            self._bars[ids[-1]] = Bar(ids[-1], work.name, "queued")
        self._start_beside("following the tasks", self._follow(ids))

    async def _deploy(self) -> float:
        """What ``taskctl reload`` does; the daemon's pause in seconds."""
        self._stage.say(
            f"deploy {NEW} while they run: ln -sfn releases/{NEW} current && taskctl reload"
        )
        self._daemon.point_to(NEW)
        deploy = self._start_beside("the deploy", self._client.reload())
        await self._until(deploy.done)
        answer = deploy.result()
        pause: float = answer["pause"]
        self._stage.say(f"{answer['revision']} serves; clients waited {pause * 1000:.0f} ms")
        await self._submit([self._fresh])
        await self._until(lambda: all(map(self._is_where_it_should_be, self._works)))
        moved = sum(work.on_deploy == CHECKPOINT for work in self._first)
        self._stage.say(
            f"{moved} moved to {NEW} at their next file, {len(self._first) - moved} finish on "
            f"{OLD}, a new one runs on {NEW}"
        )
        return pause

    def _is_where_it_should_be(self, task: int) -> bool:
        bar = self._bars[task]
        if bar.state == "running":
            return bar.revision == self._works[task].revisions[-1]
        return not _is_open(bar)

    # ── beside them ──────────────────────────────────────────────────────────────────────────

    def _start_beside(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """``_until`` raises what goes wrong in it."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._beside.append(task)
        return task

    async def _pass(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        await self._until(lambda: time.monotonic() >= until)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Draw until the condition holds. Raises DemoFailed if that is in vain."""
        while True:
            self._daemon.check()
            for task in self._beside:
                error = task.exception() if task.done() else None
                if isinstance(error, OSError):
                    raise error  # it shows what it learns: the output takes no more
                if error is not None:
                    raise DemoFailed(f"{task.get_name()} failed: {error}") from error
            if time.monotonic() - self._began > LIMIT:
                raise DemoFailed(f"this is not done after {LIMIT:.0f} s: giving up")
            self._stage.show()
            if condition():
                return
            await asyncio.sleep(FRAME)

    async def _follow(self, tasks: list[int]) -> None:
        """Follow the tasks until all have ended."""
        seen: list[int] = []
        self._streams.append((tasks, seen))
        async for item in self._follower.follow(tasks, progress=True):
            if about := item.get("progress"):
                self._bars[about["task"]] = progress.progressed(self._bars[about["task"]], about)
            else:
                seen.append(item["event"])
                bar = self._bars[item["task"]] = progress.moved(self._bars[item["task"]], item)
                self._stage.changed(bar)

    async def _ping(self) -> None:
        """Ask for the status, again and again."""
        while self._is_pinging:
            began = time.monotonic()
            await self._pinger.status()
            self._pings.append(time.monotonic() - began)
            await asyncio.sleep(PING_PAUSE)

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    async def _sum_up(self, pid: int, pause: float) -> int:
        """Judge and show what was counted; the exit status."""
        with open(os.path.join(self._daemon.folder, "tally"), encoding="utf-8") as file:
            tally = judge.parse(file.read())
        rows = [
            judge.judge(
                task,
                work,
                plain.result(work.name, work.library, work.files),
                tally,
                await self._ended(task),
            )
            for task, work in self._works.items()
        ]
        problems = judge.strangers(self._works, tally)
        for tasks, seen in self._streams:
            history = [event["event"] async for event in self._client.follow(tasks)]
            problems += judge.missed(seen, history)
        now = (await self._client.status())["pid"]
        if now != pid:
            problems.append(f"the daemon was process {pid}, now {now}")
        clients = (self._client, self._follower, self._pinger)
        dropped = sum(client.connections_lost for client in clients)
        wrong = summary.problems(rows, problems, self._pings, dropped)
        page = summary.lines(
            rows,
            wrong,
            Look.of(sys.stdout, os.environ),
            pid=pid,
            pause=pause,
            pings=self._pings,
            kept=len(clients) + 1,  # theirs, and that which waited for the deploy
            dropped=dropped,
            events=sum(len(seen) for _, seen in self._streams),
            took=time.monotonic() - self._began,
        )
        print("", *page, sep="\n", flush=True)
        if wrong:
            _say(self._daemon.log_tail())
        return outcome.FAILED if wrong else outcome.DONE

    async def _ended(self, task: int) -> Ended:
        info = await self._client.task(task)
        result = info.result
        if self._works[task].is_command and info.state == "succeeded":
            printed: bytes = (await self._client.log(task))["data"]  # lines: SUM, two spaces, NAME
            pairs = (line.split(maxsplit=1) for line in printed.decode().splitlines())
            result = {name: checksum for checksum, name in pairs}
        return Ended(info.state, why(info), result)


def _is_open(bar: Bar) -> bool:
    return bar.state in ("queued", "running", "scheduled")
