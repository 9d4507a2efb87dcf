"""``taskd demo``: what happens, in order.

One event loop: the acts follow one another, and beside them everything is shown, the tasks are
followed and the daemon is pinged. Ctrl-C, SIGTERM and a closed terminal cancel the act at hand.
Whatever ends the demo, the daemon is stopped and its directory removed (unless it is to be kept).
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from pathlib import Path

import taskd
from taskd.cli import outcome
from taskd.cli.output import progress
from taskd.cli.output.progress import Bar
from taskd.cli.output.text import Look
from taskd.cli.verbs.tasks import why
from taskd.demo import plain, plan, verdict
from taskd.demo.daemon import Daemon
from taskd.demo.plan import NEW, OLD
from taskd.demo.stage import Stage
from taskd.demo.verdict import Figures, Told, Work

# All in seconds.
DEPLOY_AFTER = 8.0  # for which the tasks run before the pings and the deploy
PINGED_AFTER = 1.0  # for which the daemon is pinged before the deploy begins, and after it
PING_PAUSE = 0.01  # between two pings
FRAME = 0.1  # between two drawings
LIMIT = 150.0  # after which the demo gives up


async def main(keep: bool, plain: bool) -> int:
    """Show it, ``plain`` without drawing, and ``keep`` the directory; the exit status."""
    daemon = Daemon(Path(tempfile.mkdtemp(prefix="taskd-demo-")))
    try:
        show = asyncio.create_task(Demo(daemon, plain).run())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP is under nohup
                asyncio.get_running_loop().add_signal_handler(number, show.cancel, number)
        return await show
    except asyncio.CancelledError as ended:
        by: signal.Signals = ended.args[0] if ended.args else signal.SIGINT
        outcome.say(f"ended by {by.name}: stopping the daemon", "taskd demo")
        return 128 + by
    except BrokenPipeError:
        raise  # the reader of the output went away: the daemon is not to blame
    except (taskd.Error, OSError, ValueError) as error:
        outcome.say(f"{error}\n{daemon.log_tail()}", "taskd demo")
        return outcome.FAILED
    finally:
        daemon.stop()
        if keep:
            print(f"kept: {daemon.folder}", flush=True)
        else:
            shutil.rmtree(daemon.folder, ignore_errors=True)


class Demo:
    """One showing. ``_works``, ``_bars`` and ``_streams`` have every task that was submitted: what
    it is to do, what is shown of it, and what follows it and returns its events' numbers."""

    def __init__(self, daemon: Daemon, plain: bool) -> None:
        self._daemon = daemon
        self._first, self._fresh = plan.works(str(daemon.folder))
        self._works: dict[int, Work] = {}
        self._bars: dict[int, Bar] = {}
        self._streams: dict[int, asyncio.Task[list[int]]] = {}
        self._pings: list[float] = []
        self._beside = asyncio.TaskGroup()
        self._client = taskd.AsyncClient(daemon.sockets)
        self._follower = taskd.AsyncClient(daemon.sockets)
        title = "taskd demo: Python's own files are indexed while the code is replaced"
        self._stage = Stage(title, self._bars, plain)

    async def run(self) -> int:
        """From nothing to the last page; the exit status."""
        try:
            async with asyncio.timeout(LIMIT), self._beside:
                showing = self._beside.create_task(self._show())
                pid = await self._start()
                pause = await self._deploy()
                await asyncio.wait(self._streams.values())
                self._stage.say("all have ended; now the same computations without taskd")
                self._stage.show()
                showing.cancel()
        except TimeoutError:
            raise TimeoutError(f"this is not done after {LIMIT:.0f} s: giving up") from None
        except ExceptionGroup as group:
            self._daemon.check()  # if it has ended, all else that failed did so because of that
            raise group.exceptions[0] from None
        return await self._sum_up(pid, pause)

    async def _start(self) -> int:
        """Start the daemon and, once it serves, the tasks; the daemon's pid."""
        self._daemon.start(OLD)
        pid = 0
        while not pid:
            try:
                pid = (await self._client.status())["pid"]
            except taskd.NoDaemon:
                await asyncio.sleep(FRAME)
        self._stage.say(f"a daemon (pid {pid}) with release {OLD} runs in {self._daemon.folder}")
        for work in self._first:
            await self._submit(work)
        tasks = f"{len(self._first) - 1} tasks and a shell command"
        self._stage.say(f"{tasks} run on {OLD}, each paced to 20 to 40 s")
        await self._until_each_is_on(0)
        await asyncio.sleep(DEPLOY_AFTER)
        return pid

    async def _deploy(self) -> float:
        """What ``taskctl reload`` does, under pings; the daemon's pause in seconds."""
        pinging = self._beside.create_task(self._ping())
        await asyncio.sleep(PINGED_AFTER)
        command = f"ln -sfn releases/{NEW} current && taskctl reload"
        self._stage.say(f"deploy {NEW} while they run: {command}")
        self._daemon.point_to(NEW)
        answer = await self._client.reload()
        pause: float = answer["pause"]
        self._stage.say(f"{answer['revision']} serves; clients waited {1000 * pause:.0f} ms")
        await self._submit(self._fresh)
        await self._until_each_is_on(-1)
        moved = sum(NEW in work.revisions for work in self._first)
        stayed = f"{len(self._first) - moved} finish on {OLD}, a new one runs on {NEW}"
        self._stage.say(f"{moved} moved to {NEW} at their next file, {stayed}")
        await asyncio.sleep(PINGED_AFTER)
        pinging.cancel()
        return pause

    async def _submit(self, work: Work) -> None:
        task = (await self._client.submit(work.name, work.args)).id
        self._works[task] = work
        self._bars[task] = Bar(task, work.name, "queued")
        self._streams[task] = self._beside.create_task(self._follow(task))

    async def _until_each_is_on(self, which: int) -> None:
        """Wait until each task runs on the first (0) or last (-1) release that it should run on,
        or has ended without: then the verdict says so."""
        for task, work in self._works.items():
            has_ended = self._streams[task].done
            while self._bars[task].revision != work.revisions[which] and not has_ended():
                await asyncio.sleep(FRAME)

    async def _show(self) -> None:
        while True:
            self._daemon.check()
            self._stage.show()
            await asyncio.sleep(FRAME)

    async def _follow(self, task: int) -> list[int]:
        """Follow the task until it has ended; the numbers of its events."""
        seen = []
        async for item in self._follower.follow([task], progress=True):
            if about := item.get("progress"):
                self._bars[task] = progress.progressed(self._bars[task], about)
            else:
                seen.append(item["event"])
                self._bars[task] = progress.moved(self._bars[task], item)
                self._stage.changed(self._bars[task])
        return seen

    async def _ping(self) -> None:
        while True:
            began = time.monotonic()
            await self._client.status()
            self._pings.append(time.monotonic() - began)
            await asyncio.sleep(PING_PAUSE)

    async def _sum_up(self, pid: int, pause: float) -> int:
        """Judge and show what was counted; the exit status."""
        tally = verdict.parse((self._daemon.folder / "tally").read_text(encoding="utf-8"))
        rows = []
        for task, work in self._works.items():
            should = plain.result(work.name, plan.LIBRARY, work.files)
            rows.append(verdict.judge(task, work, should, tally, await self._told(task)))
        figures = Figures(
            pids=(pid, (await self._client.status())["pid"]),
            pause=pause,
            pings=self._pings,
            connections_lost=self._client.connections_lost + self._follower.connections_lost,
            events=sum(len(stream.result()) for stream in self._streams.values()),
            took=time.monotonic() - self._stage.began,
        )
        wrong = verdict.problems(rows, figures, tally)
        print("", *verdict.page(rows, figures, wrong, Look.of()), sep="\n", flush=True)
        if wrong:
            outcome.say(self._daemon.log_tail(), "taskd demo")
        return outcome.FAILED if wrong else outcome.DONE

    async def _told(self, task: int) -> Told:
        info = await self._client.task(task)
        result = info.result or f"{info.state}: {why(info)}".removesuffix(": ")
        if self._works[task].is_command and info.state == "succeeded":
            printed: bytes = (await self._client.log(task))["data"]
            result = dict.fromkeys(printed.decode().splitlines(), "printed")
        history = [event["event"] async for event in self._client.follow([task])]
        return Told(result, self._streams[task].result(), history)
