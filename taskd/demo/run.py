"""``taskd demo``: what happens, in order.

One thread, one queue: the threads of ``watching`` put what they learn into it, and the loop here
decides, draws, and checks that the daemon still lives. Whatever ends the demo, the daemon is
stopped and its directory removed (unless it is to be kept).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import taskd
from taskd.cli import outcome
from taskd.cli.output import progress
from taskd.cli.output.progress import Bar
from taskd.cli.output.text import Look
from taskd.cli.verbs.wait_follow import why
from taskd.demo import judge, signals, stage, summary, watching
from taskd.demo.daemon import Daemon, DemoFailed
from taskd.demo.judge import Ended, Expected, Row
from taskd.demo.plan import CHECKPOINT, NEW, OLD, Plan, Work, expected
from taskd.demo.signals import Note, Stopped
from taskd.demo.summary import Figures
from taskd.demo.watching import Deployed, News, Pings, Told, Trouble

DEPLOY_AFTER = 9.0
"""Seconds for which the tasks run before the deploy."""

PINGED_AFTER = 1.0
"""Seconds for which the daemon is pinged before the deploy begins, and after it."""

LIMIT = 150.0
"""Seconds after which the demo gives up."""


def main(*, keep: bool = False, plain: bool = False) -> int:
    """Show it; the exit status: 0, or 1 if anything was lost, repeated or wrong.

    ``keep``: leave the directory behind. ``plain``: lines instead of a drawing.
    """
    with signals.noted() as note:
        daemon = Daemon(tempfile.mkdtemp(prefix="taskd-demo-"), note.check)
        try:
            return Demo(daemon, note, plain).run()
        except Stopped as stopped:
            _say(f"{stopped}: stopping the daemon")
            return 128 + stopped.number
        except BrokenPipeError:
            raise  # who read the output went away: the daemon is not to blame
        except (DemoFailed, taskd.Error, OSError, ValueError) as error:
            _say(f"{error}\n{_log_tail(daemon)}")
            return outcome.FAILED
        finally:
            _clean_up(daemon, keep)


def _clean_up(daemon: Daemon, keep: bool) -> None:
    daemon.stop()
    if keep:
        print(f"kept: {daemon.folder}", flush=True)
    else:
        shutil.rmtree(daemon.folder, ignore_errors=True)


def _say(message: str) -> None:
    outcome.say("taskd demo", message)


def _log_tail(daemon: Daemon) -> str:
    return "\n".join(["the daemon's log ends so:", *daemon.log_tail()])


class Demo:
    """One showing. ``_bars`` has every task that was submitted, in the order of submission."""

    def __init__(self, daemon: Daemon, note: Note, plain: bool) -> None:
        self._daemon = daemon
        self._note = note
        self._began = time.monotonic()
        self._plan = Plan.of(daemon.folder)
        self._stage = stage.stage(self._title(), plain)
        self._follower = taskd.Client(daemon.sockets)
        self._pinger = taskd.Client(daemon.sockets)
        self._news: SimpleQueue[News] = SimpleQueue()
        self._works: dict[int, Work] = {}
        self._bars: dict[int, Bar] = {}
        self._events: list[tuple[int, int]] = []  # (task, number), as they came
        self._pinged_enough = threading.Event()
        self._pings = Pings([])
        self._answer: dict[str, Any] | None = None
        self._pid = 0

    def run(self) -> int:
        """From nothing to the summary; the exit status."""
        self._start()
        self._run_for(DEPLOY_AFTER)
        self._deploy()
        self._wait_for_the_end()
        self._stage.say("all have ended; now the same computations without taskd, to compare")
        self._stage.close(list(self._bars.values()))
        return self._sum_up()

    # ── the acts ─────────────────────────────────────────────────────────────────────────────

    def _title(self) -> str:
        return (
            f"taskd demo: {self._plan.files} of Python's own files are indexed while the code "
            "is replaced"
        )

    def _start(self) -> None:
        self._daemon.lay_out(OLD)
        self._daemon.start()
        self._pid = self._follower.status()["pid"]
        self._stage.say(
            f"a daemon (pid {self._pid}) with release {OLD} runs in {self._daemon.folder}"
        )
        self._submit(self._plan.first)
        self._stage.say(
            f"{len(self._works) - 1} tasks and a shell command run on {OLD}, each paced to "
            "20 to 40 s"
        )

    def _submit(self, works: list[Work]) -> None:
        ids = []
        for work in works:
            task = self._follower.submit(work.name, work.args).id
            self._works[task] = work
            self._bars[task] = Bar(task, work.name, "queued")
            ids.append(task)
        watching.follow(self._follower, ids, self._news)

    def _run_for(self, seconds: float) -> None:
        """Until all run, and then for so long, with pings in the last of it."""
        self._until(lambda: all(bar.state != "queued" for bar in self._bars.values()))
        self._pass(seconds - PINGED_AFTER)
        self._pings = watching.ping(self._pinger, self._pinged_enough, self._news)
        self._pass(PINGED_AFTER)

    def _deploy(self) -> None:
        self._stage.say(
            f"deploy {NEW} while they run: ln -sfn releases/{NEW} current && taskctl reload"
        )
        self._daemon.point_to(NEW)
        watching.deploy(self._follower, self._news)
        self._until(lambda: self._answer is not None)
        assert self._answer is not None
        pause = self._answer["pause"] * 1000
        self._stage.say(f"{self._answer['revision']} serves; clients waited {pause:.0f} ms")
        self._submit(self._plan.fresh)
        self._until(lambda: all(self._is_where_it_should_be(task) for task in self._works))
        self._stage.say(self._moved())
        self._pass(PINGED_AFTER)
        self._pinged_enough.set()

    def _is_where_it_should_be(self, task: int) -> bool:
        bar = self._bars[task]
        if bar.state == "running":
            return bar.revision == self._works[task].revisions[-1]
        return not self._is_open(bar)

    def _moved(self) -> str:
        first = self._plan.first
        moved = sum(work.on_deploy == CHECKPOINT for work in first)
        return (
            f"{moved} moved to {NEW} at their next file, {len(first) - moved} finish on {OLD}, "
            f"a new one runs on {NEW}"
        )

    def _wait_for_the_end(self) -> None:
        self._until(lambda: not any(self._is_open(bar) for bar in self._bars.values()))

    @staticmethod
    def _is_open(bar: Bar) -> bool:
        return bar.state in ("queued", "running", "scheduled")

    # ── the loop ─────────────────────────────────────────────────────────────────────────────

    def _pass(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._until(lambda: time.monotonic() >= until)

    def _until(self, condition: Callable[[], bool]) -> None:
        """Take the news as they come, and draw, until the condition holds."""
        while not condition():
            with contextlib.suppress(Empty):
                self._take(self._news.get(timeout=stage.FRAME))
                while True:
                    self._take(self._news.get_nowait())
            self._stage.show(list(self._bars.values()))
            self._note.check()
            self._daemon.check()
            if time.monotonic() - self._began > LIMIT:
                raise DemoFailed(f"this is not done after {LIMIT:.0f} s: giving up")

    def _take(self, news: News) -> None:
        if isinstance(news, Trouble):
            raise DemoFailed(f"{news.what} failed: {news.error}") from news.error
        if isinstance(news, Deployed):
            self._answer = news.answer
        else:
            self._take_item(news)

    def _take_item(self, told: Told) -> None:
        about = told.item.get("progress")
        if about is not None:
            self._bars[about["task"]] = progress.progressed(self._bars[about["task"]], about)
            return
        task = told.item["task"]
        self._events.append((task, told.item["event"]))
        bar = self._bars[task] = progress.moved(self._bars[task], told.item)
        self._stage.changed(bar)

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    def _sum_up(self) -> int:
        plans = [expected(task, work, self._plan.library) for task, work in self._works.items()]
        tally = judge.parse(self._read_tally())
        rows = [judge.judge(plan, tally, self._ended(plan)) for plan in plans]
        others = [*judge.strangers(plans, tally), *self._missed_events(), *self._other_pid()]
        figures = self._figures(others)
        look = Look.of(sys.stdout, os.environ)
        print("", *summary.lines(rows, figures, look), sep="\n", flush=True)
        return self._status(rows, figures)

    def _status(self, rows: list[Row], figures: Figures) -> int:
        if not summary.problems(rows, figures):
            return outcome.DONE
        _say(_log_tail(self._daemon))
        return outcome.FAILED

    def _figures(self, problems: list[str]) -> Figures:
        assert self._answer is not None
        return Figures(
            pid=self._pid,
            pause=self._answer["pause"],
            pings=len(self._pings.took),
            longest=self._pings.longest,
            usual=self._pings.usual,
            kept=4,  # that submitted, that followed, the pings', that waited for the deploy
            dropped=self._follower.connections_lost + self._pinger.connections_lost,
            events=len(self._events),
            took=time.monotonic() - self._began,
            problems=problems,
        )

    def _read_tally(self) -> str:
        with open(os.path.join(self._daemon.folder, "tally"), encoding="utf-8") as file:
            return file.read()

    def _missed_events(self) -> list[str]:
        """What the streams told, against the whole history as it is now."""
        history = [(e["task"], e["event"]) for e in self._follower.follow(list(self._works))]
        return [
            found
            for works in (self._plan.first, self._plan.fresh)  # one stream each
            for found in judge.missed(self._of(works, self._events), self._of(works, history))
        ]

    def _other_pid(self) -> list[str]:
        pid = self._follower.status()["pid"]
        return [] if pid == self._pid else [f"the daemon was process {self._pid}, now {pid}"]

    def _of(self, works: list[Work], events: list[tuple[int, int]]) -> list[int]:
        """The numbers of these tasks' events, in the order given."""
        return [number for task, number in events if self._works[task] in works]

    def _ended(self, plan: Expected) -> Ended:
        info = self._follower.task(plan.task)
        result = info.result
        if self._works[plan.task].is_command and info.state == "succeeded":
            result = self._printed(plan.task)
        return Ended(info.state, why(info), result)

    def _printed(self, task: int) -> dict[str, str]:
        """What the shell command wrote to its log: ``SUM  NAME`` lines."""
        printed: bytes = self._follower.log(task)["data"]
        pairs = (line.split(maxsplit=1) for line in printed.decode().splitlines())
        return {name: checksum for checksum, name in pairs}
