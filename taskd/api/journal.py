"""The state machine of steps and loops: what each move of a task saves, and what is saved already.

Pure: each method returns the records to write (``Move``); the contexts, sync and async, write them
and then call ``apply``. Runs in workers and in tests.

Scopes. A name belongs to a scope: the task itself, or one item of the loop around it. Steps, loops
and named sleeps share one set of names per scope. The open loops form a stack; the scope is the
current item of the innermost. When that loop goes on to its next item, what was saved for the item
is dropped, and its names are free again.

Invariants
    * ``saved`` changes by ``apply`` alone, that is by the records themselves: the state that the
      worker holds is the state that a reader of its records gets.
    * ``ctx.state`` is written in the same record as the move that found it changed, never apart.
    * A loop over a sequence has the sequence's length and first fingerprint written before any
      record of its first item (``Loop.entry``), so that a changed sequence is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from taskd.api.checks import check_count
from taskd.api.interrupt import Held
from taskd.api.source import REMEDY, Source, pair
from taskd.errors import NotPlainData
from taskd.protocol import data
from taskd.protocol.saved import Kind, Mark, Saved, mark_fields
from taskd.record import Record


class Move(Record):
    """One record to write; ``durable``: it must be on disk before the task goes on."""

    kind: Kind
    fields: dict[str, Any]
    durable: bool = False


class Journal:
    """What one attempt has saved and may save next.

    ``rebase``: the stored state is of an older version, so that records of this attempt mean
    nothing on top of it: the full state must be written before the first of them. A full state
    without a record behind it does not replace the stored one.
    """

    def __init__(self, saved: Saved, rebase: bool = False) -> None:
        self.saved = saved
        self.rebase = rebase
        self._state_raw = data.encode(saved.state)
        self.state: dict[str, Any] = data.decode(self._state_raw)  # the user's own copy
        self.loops: list[Loop] = []
        self.inside: str | None = None  # the step or loop's source that runs: it may not save
        self.moves = 0  # records written
        self._seen: set[str] = set()

    # ── names ────────────────────────────────────────────────────────────────────────────────

    def reserve(self, what: str, name: str) -> str:
        """The path of a step, loop or sleep that begins here. Raises if the name is not free."""
        self.check_not_inside(f"{what} '{name}'")
        _check_name(what, name)
        loop = self.loops[-1] if self.loops else None
        seen = self._seen if loop is None else loop.seen
        if name in seen:
            where = (
                "in one run of the task" if loop is None else f"for one item of loop '{loop.name}'"
            )
            raise RuntimeError(
                f"{what} '{name}': that name is used twice {where}. Steps, loops and named sleeps "
                "are kept by their names, so that each needs its own; where they are made in a "
                "plain Python loop, use ctx.each, or put what each is about into its name"
            )
        seen.add(name)
        return name if loop is None else f"{loop.path}/{name}"

    def release(self, path: str) -> None:
        """Free the name of a step that raised: it has saved nothing and may be called again."""
        above, _, name = path.rpartition("/")
        if not self.loops:
            self._seen.discard(name)
        elif self.loops[-1].path == above:
            self.loops[-1].seen.discard(name)

    def check_not_inside(self, what: str) -> None:
        """Raise RuntimeError if ``what`` is called by a step's function or a loop's source."""
        if self.inside is not None:
            raise RuntimeError(
                f"{what} within {self.inside}: only what is outside of it can be saved. Let "
                f"{self.inside} do its work without the context, or take it apart"
            )

    @contextmanager
    def within(self, what: str) -> Iterator[None]:
        """Mark the block as code of the task's that may not save: a step's function, a source."""
        self.inside = what
        try:
            yield
        finally:
            self.inside = None

    # ── steps, sleeps and checkpoints ────────────────────────────────────────────────────────

    def is_kept(self, path: str) -> bool:
        """Whether a step's result is saved at ``path``. Raises Held if a loop is saved there."""
        if path in self.saved.cursors:
            raise Held(f"'{path}' was saved as a loop and is now something else. {REMEDY}")
        return path in self.saved.steps

    def result(self, path: str) -> Any:
        """A copy of the result saved at ``path``, which the caller may change."""
        return data.decode(data.encode(self.saved.steps[path]))

    def wake_time(self, path: str) -> float:
        """When a named sleep ends (Unix seconds). Raises Held if a step's result is saved there."""
        wake = self.saved.steps[path]
        if type(wake) is not float:
            raise Held(f"'{path}' was saved as a step and is now a sleep. {REMEDY}")
        return wake

    def step(self, path: str, raw: bytes) -> list[Move]:
        """What to write once a step has returned; ``raw``: its result, encoded."""
        return self._moves(Kind.STEP, {"path": path, "value": raw}, len(raw))

    def checkpoint(self) -> list[Move]:
        """What to write at a checkpoint: nothing if the state has not changed."""
        return self._moves(Kind.CHECKPOINT, {})

    # ── writing ──────────────────────────────────────────────────────────────────────────────

    def apply(self, move: Move) -> None:
        """Take ``move``, which is written, into ``saved``."""
        self.moves += 1
        self.saved.apply(move.kind, move.fields)
        self._state_raw = move.fields.get("state", self._state_raw)
        if move.kind is Kind.LOOP:
            for loop in self.loops:
                if loop.path == move.fields["path"]:
                    loop.entry = None

    def loop_move(self, loop: Loop, mark: Mark, raw: bytes) -> list[Move]:
        """What to write for a loop that is at ``mark``; ``raw``: its cursor, encoded."""
        return self._moves(
            Kind.LOOP, {"path": loop.path, "mark": mark_fields(mark, raw)}, len(raw), loop
        )

    def _moves(
        self, kind: Kind, fields: dict[str, Any], size: int = 0, of: Loop | None = None
    ) -> list[Move]:
        """What to write to save ``fields``, and ``ctx.state`` if it has changed since the last
        record: first the entries of open loops that are still to be written, but for ``of``, the
        loop of this record. Nothing if there are neither fields nor a change.

        ``size``: bytes that are saved at the path in ``fields``. Raises NotPlainData if the whole
        saved state would pass its limit.
        """
        state = data.encode(self.state, "ctx.state", data.SAVED_LIMIT)
        if state != self._state_raw:
            fields["state"] = state
        if not fields:
            return []
        saved, path = self.saved, fields.get("path")
        after = saved.size
        if path is not None:
            after += size + len(path) - saved.size_at(path)
        if "state" in fields:
            after += len(state) - saved.size_at("")
        if after > data.SAVED_LIMIT and kind is Kind.LOOP:
            after -= saved.size_below(fields["path"])
        if after > data.SAVED_LIMIT:
            raise NotPlainData(
                f"all that this task has saved (steps, cursors and ctx.state) would take "
                f"{after:,} bytes; the limit is {data.SAVED_LIMIT:,}. Put large data into files "
                "below ctx.scratch and keep their paths instead"
            )
        return [
            *[
                Move(Kind.LOOP, {"path": loop.path, "mark": mark_fields(loop.entry)})
                for loop in self.loops
                if loop.entry is not None and loop is not of
            ],
            Move(kind, fields, durable=kind is Kind.STEP),
        ]


class Phase(Enum):
    """The state of a loop."""

    NEW = "new"  # made, not yet asked for an item
    BETWEEN = "between"  # the last item is saved, the next not yet there. A loop whose source has
    #                      raised stays so: it is not finished, and cannot go on
    ITEM = "item"  # the body of an item runs
    OVER = "over"  # saved as finished
    LEFT = "left"  # by break, return or an exception


PHASES: dict[tuple[Phase, str], Phase] = {
    (Phase.NEW, "open"): Phase.BETWEEN,
    (Phase.NEW, "skip"): Phase.OVER,
    (Phase.BETWEEN, "arrive"): Phase.ITEM,
    (Phase.BETWEEN, "finish"): Phase.OVER,
    (Phase.ITEM, "save"): Phase.BETWEEN,
    (Phase.ITEM, "finish"): Phase.OVER,  # the item was a sequence's last
}
"""Besides, each phase but OVER may change to LEFT."""


class Loop:
    """One loop of one attempt, from ``ctx.each`` to its end.

    ``seen``: the names used in the current item. ``owner``: the asyncio task that runs the loop.
    ``entry``: what must be written before any record of the first item.
    """

    __slots__ = (
        "_around",
        "_cursor",
        "_journal",
        "done",
        "entry",
        "name",
        "owner",
        "path",
        "phase",
        "seen",
        "source",
        "total",
    )

    def __init__(self, journal: Journal, name: str, source: Source, total: int | None) -> None:
        check_count("total", total)
        self.path = journal.reserve("loop", name)
        self.name = name
        self.source = source
        self.total = source.length if total is None else total
        self.done = 0
        self.phase = Phase.NEW
        self.seen: set[str] = set()
        self.owner: object = None
        self.entry: Mark | None = None
        self._journal = journal
        self._around = journal.loops[-1] if journal.loops else None
        self._cursor: Any = None

    def open(self) -> Any:
        """Begin; returns the cursor to begin at. ``phase`` is OVER if the loop was saved as
        finished. Raises Held if what is saved is not of this loop."""
        loops, saved = self._journal.loops, self._journal.saved
        if (loops[-1] if loops else None) is not self._around:
            raise RuntimeError(_not_here(self.name))
        if self.path in saved.steps:
            raise Held(f"'{self.path}' was saved as a step and is now a loop. {REMEDY}")
        mark = saved.cursors.get(self.path)
        if mark is not None:
            self.done = mark.done
            if mark.finished:
                self._go("skip")
                return None
        cursor = self.source.resume(mark)
        if mark is None and self.source.length is not None:
            self.entry = self.source.mark(0, 0, self.source.length)
        loops.append(self)
        self._go("open")
        return cursor

    def arrive(self, given: Any) -> Any:
        """Take ``given``, the source's next pair; returns the item, whose body begins."""
        cursor, item = pair(self.name, given)
        raw = data.encode(cursor, f"the cursor of loop '{self.name}'", data.CURSOR_LIMIT)
        self._cursor = (cursor, raw)  # encoded now: it may be changed by the time it is saved
        self.seen.clear()
        self._go("arrive")
        return item

    def saving(self) -> tuple[list[Move], bool]:
        """What to write once the item's body is done, and whether that finishes the loop."""
        self._check_open()
        if self.phase is not Phase.ITEM:
            raise RuntimeError(_not_here(self.name))
        cursor, raw = self._cursor
        mark = self.source.mark(cursor, self.done + 1, self.total)
        return self._journal.loop_move(self, mark, raw), mark.finished

    def saved(self, finished: bool) -> None:
        """The moves of ``saving`` are written."""
        self.done += 1
        self._go("finish" if finished else "save")
        if finished:
            self._pop()

    def finishing(self) -> list[Move]:
        """What to write once the source has no more items."""
        self._check_open()
        mark = Mark(None, self.done, self.total, self.source.length, None, True)
        return self._journal.loop_move(self, mark, data.encode(None))

    def finished(self) -> None:
        """The moves of ``finishing`` are written."""
        self._go("finish")
        self._pop()

    def leave(self) -> None:
        """The loop's iterator is gone: its scope ends, the current item is not saved."""
        if self.phase is not Phase.OVER:
            self.phase = Phase.LEFT
        self._pop()

    def _check_open(self) -> None:
        """Raise RuntimeError unless the loop is open. Loops within it that were left, but whose
        iterators are still referenced, end here."""
        loops = self._journal.loops
        if self not in loops:
            raise RuntimeError(_not_here(self.name))
        while loops[-1] is not self:
            loops[-1].leave()

    def _pop(self) -> None:
        loops = self._journal.loops
        if self in loops:
            inner = loops[loops.index(self) + 1 :]
            del loops[loops.index(self) :]
            for loop in inner:
                loop.phase = Phase.LEFT

    def _go(self, event: str) -> None:
        try:
            self.phase = PHASES[self.phase, event]
        except KeyError:
            raise RuntimeError(_not_here(self.name)) from None


def _check_name(what: str, name: Any) -> None:
    if type(name) is not str:
        raise TypeError(f"the name of a {what} must be a str, not {type(name).__name__}")
    if not name or "/" in name or len(name) > 200:
        raise ValueError(
            f"{name[:200]!r} cannot be the name of a {what}: it must not be empty, contain '/' or "
            "be longer than 200 characters"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name {name!r} is not valid Unicode") from None


def _not_here(name: str) -> str:
    return (
        f"loop '{name}' is asked for an item where it cannot go on: it was left, its source "
        "raised, or it is used outside of the loop it was made in. Loops can stand one after the "
        "other or within each other; to go over two things in step, zip them in one source"
    )
