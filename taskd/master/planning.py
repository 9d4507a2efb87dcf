"""The plan of a deploy: for all that waits or runs, can the new revision go on with it?

A worker of the new revision (its probe worker) answers for copies of the real arguments and saved
states: one item for each distinct (task, version, argument shape) that waits, one for each running
task. The cost grows with those, never with the backlog. Nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cbor2

from taskd.errors import DeployRefused
from taskd.master import secrecy
from taskd.master.loop import Timer
from taskd.master.worker import Probe, Worker
from taskd.model.binding import bind, names_in
from taskd.model.plan import Item, Plan, judge
from taskd.model.task import State
from taskd.model.worker import WorkerEvent
from taskd.posix import files
from taskd.protocol import secret
from taskd.store.api import Filter

if TYPE_CHECKING:
    from taskd.master.core import Master
    from taskd.master.revision import Revision
    from taskd.master.running import Running

PLAN_WITHIN = 60.0
"""Seconds that the new revision's worker has to come up, and to answer."""

Done = Callable[["Plan | DeployRefused"], None]


class Planning:
    """One plan under way; ``done`` is called exactly once, unless ``stop`` comes before."""

    def __init__(self, master: Master, target: Revision, done: Done) -> None:
        self._master = master
        self._target = target
        self._done: Done | None = done
        self._items: list[Item] = []
        self._worker: Worker | None = None
        self._deadline: Timer = master.loop.after(PLAN_WITHIN, self._overdue)
        bounded = master.deploy.bounded
        probe = Probe(bounded(self._ask), bounded(self._answered), bounded(self._died))
        master.workers.probe(target, probe)

    def stop(self) -> None:
        """Nobody wants to know any more."""
        self._done = None
        self._deadline.cancel()
        self._master.workers.forget_probes()

    def _finish(self, outcome: Plan | DeployRefused) -> None:
        done = self._done
        self.stop()
        if done is not None:
            done(outcome)

    def _overdue(self) -> None:
        what = "its migrations or its probe are" if self._worker else "its first worker is"
        why = f"{self._target.name}: {what} not done after {PLAN_WITHIN:.0f} s"
        self._finish(DeployRefused(why))

    def _died(self, how: str) -> None:
        what = "while it answered for the waiting tasks" if self._worker else "as it started"
        why = f"{self._target.name}: its probe worker died {what}: {how}"
        self._finish(DeployRefused(why))

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    def _ask(self, worker: Worker) -> None:
        """The probe worker is up."""
        self._worker = worker
        self._items = [*self._waiting(), *self._running()]
        if worker.version < 2:
            self._answer_by_manifest()
            return
        path = os.path.join(self._master.places.slots, f"{worker.id.hex()}.plan")
        try:
            self._write(path)
        except OSError as error:
            why = f"cannot write {path}: {error.strerror}"
            self._finish(DeployRefused(why))
            return
        worker.take(WorkerEvent.PLAN)
        self._master.workers.tell(worker, {"type": "plan", "path": path})

    def _write(self, path: str) -> None:
        items = [
            {"ref": ref, "name": i.name, "args": i.args, "saved": i.saved, "version": i.version}
            for ref, i in enumerate(self._items)
            if self._target.version >= secret.SINCE or not _holds_secret(i)
        ]
        with open(files.open_own(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(cbor2.dumps({"probe": self._target.app.probe, "items": items}))

    def _waiting(self) -> list[Item]:
        reader = self._master.reader
        found = []
        for group in reader.groups():
            if group.waiting:
                args, saved = reader.args(group.example), reader.saved(group.example)
                found.append(
                    Item(
                        name=group.name,
                        version=group.version,
                        args=args,
                        saved=saved,
                        shape=group.shape,
                        tasks=group.waiting,
                    )
                )
        return found

    def _running(self) -> list[Item]:
        return [self._running_item(attempt) for attempt in self._master.attempts.all()]

    def _running_item(self, running: Running) -> Item:
        worker = self._master.attempts.worker_of(running.task)
        row = self._master.reader.task(running.task)
        assert row is not None, f"task {running.task} runs and is not in the store"
        saved = self._master.salvage.saved_so_far(running)
        version = row.version if row.saved_version is None else row.saved_version
        if saved is not None:
            version = saved.version
        return Item(
            name=running.name,
            version=version,
            args=self._master.reader.args(running.task),
            saved=None if saved is None else saved.encode(),
            task=running.task,
            revision=worker.revision.name if worker is not None else row.revision,
            stays=worker is not None and worker.revision is self._target,
            on_deploy=running.on_deploy,
            interruptions=row.budgets.interruptions,
        )

    # ── the answer ───────────────────────────────────────────────────────────────────────────

    def _answer_by_manifest(self) -> None:
        """Its taskd is too old to be asked: names, versions and arguments must do."""
        refused = []
        for ref, item in enumerate(self._items):
            entry = self._target.tasks.get(item.name)
            if entry is None:
                refused.append([ref, f"there is no task {item.name!r}"])
            elif item.saved is not None and item.version not in entry["reads"]:
                refused.append([ref, f"cannot read state saved by version {item.version}"])
            elif item.shape is not None and item.saved is None:
                why = bind(entry, names_in(item.shape))
                refused += [[ref, why]] if why else []
        self._answered({"refused": refused, "probe": None})

    def _answered(self, message: dict[str, Any]) -> None:
        if message["probe"] is not None:
            what = f"[app] probe = {self._target.app.probe!r} failed"
            self._finish(DeployRefused(f"{self._target.name}: {what}: {message['probe']}"))
            return
        current = self._master.revisions.current
        assert current is not None
        refused = dict(message["refused"]) | self._cannot_read()
        others = [(r.name, r.tasks) for r in self._master.revisions.live() if r is not self._target]
        before = current.tasks if current is not self._target else {}
        target = (self._target.name, self._target.tasks)
        # What is held already waits for an operator as it is: no deploy changes that.
        mine = [
            ref for ref, item in enumerate(self._items) if not self._is_held(ref, item, refused)
        ]
        items = [self._items[ref] for ref in mine]
        why = {new: refused[ref] for new, ref in enumerate(mine) if ref in refused}
        self._finish(judge(items, why, target, others, before))

    def _cannot_read(self) -> dict[int, str]:
        """What holds a Secret, if its taskd knows none: it was not asked about those."""
        if self._target.version >= secret.SINCE:
            return {}
        why = secrecy.cannot_read(self._target)
        return {ref: why for ref, item in enumerate(self._items) if _holds_secret(item)}

    def _is_held(self, ref: int, item: Item, refused: dict[int, str]) -> bool:
        """Whether all that waits under this name, and is refused, is held already."""
        if ref not in refused or item.task is not None:
            return False
        ready = (State.QUEUED, State.SCHEDULED)
        wanted = [Filter(state=state, name=item.name, limit=1) for state in ready]
        return not any(self._master.reader.tasks(each) for each in wanted)


def _holds_secret(item: Item) -> bool:
    return secrecy.holds(item.args, item.saved)
