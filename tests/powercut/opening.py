"""What a new master makes of the state directory that a power cut has left.

The fast way, for thousands of states: the master's own parts in this process (its store and
writer thread, its recovery with the slot reader, and for what is to be continued the worker's
``run_attempt`` with the recorded app), without sockets, zygotes and workers. The only thing that
is put in place of the real one is the boot id, since the machine has not really been restarted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from recording import Said
from runs import AFTER_DRAIN, APP, STATE, WANTED, Run
from support.answers import Reading

from taskd import config, paths, tasks
from taskd.errors import Error
from taskd.master.master import Master
from taskd.model.task import ENDED, State
from taskd.paths import Places
from taskd.posix import process
from taskd.protocol import data
from taskd.protocol.saved import Outcome, Saved
from taskd.revision import confirmed, marker, rejected
from taskd.store.values import Row
from taskd.worker.attempt import run_attempt
from taskd.worker.memory_recorder import MemoryRecorder

NEXT_BOOT = "the boot after the power cut"

RUNS = 5
"""Attempts that a task may need after a cut: it sleeps, and fails once."""


def lay_out(directory: str, left: Mapping[str, bytes | None]) -> None:
    """Make a directory hold exactly that."""
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
    for path, content in left.items():
        target = os.path.join(directory, path)
        if content is None:
            os.mkdir(target, 0o700)
            continue
        with open(target, "wb", opener=_private) as file:
            file.write(content)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class App:
    """The recorded app's tasks in this process; what they do is noted in ``done``."""

    def __init__(self) -> None:
        self.done: list[tuple[int, str]] = []
        self._task = 0
        self._known: dict[tuple[int, bytes, bytes | None], tuple[Any, list[tuple[int, str]]]] = {}
        side = types.ModuleType("side")
        vars(side).update(
            mark=lambda item: self.done.append((self._task, str(item))),
            attempt=lambda: 2,
            gate=lambda _: None,
            until_asked=lambda _: None,
        )
        modules = mock.patch.dict(sys.modules, {"side": side})
        with modules, mock.patch.dict(tasks.registered, clear=True):
            exec(compile(APP, "app.py", "exec"), {"__name__": "app"})
            self._tasks = dict(tasks.registered)

    def finish(self, row: Row, args: bytes, saved: bytes | None) -> Any:
        """Run the task to its end from what is saved; its result. Raises AssertionError.

        Nothing else counts for it than what it is given, so that the same is not run again.
        """
        if (row.id, args, saved) not in self._known:
            before, self.done, self._task = self.done, [], row.id
            result = self._run(row, args, saved)
            self._known[row.id, args, saved] = result, self.done
            self.done = before
        result, done = self._known[row.id, args, saved]
        self.done += done
        return result

    def _run(self, row: Row, args: bytes, saved: bytes | None) -> Any:
        kept = None if saved is None else Saved.decode(saved)
        for number in range(RUNS):
            late = 4e9 + 1000 * number  # whatever sleeps is due by the next attempt
            recorder = MemoryRecorder()
            ending = run_attempt(
                self._tasks[row.name], data.decode(args), kept, recorder, clock=lambda t=late: t
            )
            kept = ending.saved
            if ending.outcome is Outcome.SUCCEEDED:
                assert ending.result is not None
                return data.decode(ending.result)
        raise AssertionError(f"task {row.id} does not come to its end: {ending}")


class Found(Exception):
    """Something that must not be after a power cut."""


class Judge:
    """Opens states of one recorded run, each in ``directory``, and says what is wrong with them."""

    def __init__(self, run: Run, app: App, directory: str) -> None:
        self._run = run
        self._app = app
        self._disk = os.path.join(directory, "disk")
        self._state = os.path.join(self._disk, STATE)
        self._places = Places(self._state, directory, directory)
        self._config = config.load(run.daemon.path("taskd.toml"))
        self._wanted = dict(zip(run.tasks, WANTED, strict=True))

    def judge(self, cut: int, left: Mapping[str, bytes | None]) -> None:
        """Raises Found."""
        lay_out(self._disk, left)
        paths.ensure(self._places)
        told = self._run.recording.told(cut)
        self._check_release(told)
        self._check_deploys(cut, told)
        with _opened(self._config, self._places) as master:
            _check_whole(self._places.store)
            master.unowned.sweep()
            while master.attempts.all():
                master.loop.turn()
            self._check_promises(master, told)
            self._check_tasks(master, cut)

    def _check_release(self, told: list[Said]) -> None:
        """A deploy that was answered counts; one that was not may."""
        try:
            found = confirmed.read(self._places.confirmed)
        except Error as error:
            raise Found(str(error)) from error
        name = None if found is None else os.path.basename(found.release)
        names = {
            os.path.basename(str(s.message["ok"]["revision"])) for s in _answers(told, "reload")
        }
        if told and name is None:
            raise Found("nothing is confirmed, and the daemon had served")
        if names and name not in names:
            raise Found(f"{names} was deployed, {name} would be started")

    def _check_deploys(self, cut: int, told: list[Said]) -> None:
        """What is remembered of deploys: a crash in one, those refused, the hook that is due."""
        refused = any(s.asked and s.asked["op"] == "reload" and "error" in s.message for s in told)
        known = [each.revision for each in rejected.read(self._state)]
        if refused and "bad" not in known:
            raise Found("a deploy was refused, and that is forgotten")
        if not any(_answers(told, "reload")):
            return
        if (cut_off := marker.read(self._state)) is not None:
            raise Found(f"a deploy was answered, and seems to have been cut off: {cut_off}")
        if not any(e.item == AFTER_DRAIN for e in self._run.recording.done(cut)):
            try:
                with open(os.path.join(self._state, "after-drain"), encoding="utf-8") as file:
                    due = os.path.basename(file.read())
            except OSError:
                due = ""
            if due != "r1":
                raise Found(f"after_drain has not run, and what is due is {due!r}")

    def _check_promises(self, master: Master, told: list[Said]) -> None:
        """Every task and every event that a client was told of."""
        for said in _answers(told, "submit"):
            for task in said.message["ok"]["tasks"]:
                if Reading(master.storage.reader).task(task["id"]) is None:
                    raise Found(f"task {task['id']} was acknowledged and is lost")
        for said in _answers(told, "cancel"):
            assert said.asked is not None
            row = Reading(master.storage.reader).task(said.asked["task"])
            if row is None or row.state is not State.CANCELLED:
                raise Found(f"task {said.asked['task']} was cancelled and is {row and row.state}")
        for said in told:
            self._check_item(master, said.message.get("item") or said.message.get("ok") or {})

    def _check_item(self, master: Master, item: dict[str, Any]) -> None:
        if "event" in item:
            events = Reading(master.storage.reader).events([item["task"]], item["event"] - 1, 1)
            if not events or events[0].state != item["state"] or events[0].number != item["event"]:
                raise Found(f"event {item} was told to a client and is now {events}")
        elif isinstance(told := item.get("task"), dict) and told["state"] in ENDED:
            row = Reading(master.storage.reader).task(told["id"])
            if row is None or row.state != told["state"]:
                raise Found(f"task {told['id']} was {told['state']} and is {row and row.state}")

    def _check_tasks(self, master: Master, cut: int) -> None:
        """Each is where it can go on from, and when it does, it does what is still to be done."""
        self._app.done.clear()
        for number, wanted in self._wanted.items():
            row = Reading(master.storage.reader).task(number)
            if row is None:
                continue
            if row.state in (State.RUNNING, State.HELD):
                raise Found(f"task {number} is stuck: {row.state.value}, {row.reason}")
            if row.state is State.SUCCEEDED:
                raw = Reading(master.storage.reader).result(number)
                result = None if raw is None else data.decode(raw)
            elif row.state in ENDED or wanted.state != "succeeded":
                result = None
                if row.state in (State.FAILED, State.CANCELLED) and wanted.state != "cancelled":
                    raise Found(f"task {number} has {row.state.value}: {row.error}")
            else:
                result = self._app.finish(
                    row,
                    Reading(master.storage.reader).args(number),
                    Reading(master.storage.reader).saved(number),
                )
            if result != wanted.result:
                raise Found(f"the result of task {number} is {result!r}, not {wanted.result!r}")
        again = set(self._app.done) & self._run.recording.never_again(cut)
        if again:
            raise Found(f"kept and synced, and done again: {sorted(again)[:5]}")


def _answers(told: list[Said], op: str) -> Iterator[Said]:
    return (s for s in told if s.asked is not None and s.asked["op"] == op and "ok" in s.message)


@contextlib.contextmanager
def _opened(settings: config.Config, places: Places) -> Iterator[Master]:
    """A master with its store open, and nothing else of it."""
    master = Master(settings, places)
    with mock.patch.object(process, "boot_id", lambda: NEXT_BOOT):
        try:
            master.storage.open()
            yield master
        except Error as error:
            raise Found(str(error)) from error
        finally:
            _close(master)


def _close(master: Master) -> None:
    """What the end of its process would close."""
    master.storage.writer.stop(30)
    if hasattr(master.storage, "reader"):
        master.storage.reader.close()
    loop = master.loop
    for fd in (master.storage._committed, loop._awake, loop._waker):
        os.close(fd)
    loop._selector.close()


def _check_whole(path: str) -> None:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        found = connection.execute("pragma integrity_check").fetchall()
    finally:
        connection.close()
    if found != [("ok",)]:
        raise Found(f"the store is damaged: {found}")
