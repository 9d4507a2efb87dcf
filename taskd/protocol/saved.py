"""What a task keeps between attempts: the records a slot holds and the state they add up to.

Pure; runs in workers (which save), in the master (which adds up a dead worker's records) and in
tests. Both forms outlive every process; this module is their only definition, ``FORMAT`` their
version, and recorded samples stand in tests/golden.

Records (kind, and a CBOR map of fields; user values as byte strings in plain-data encoding):

    BEGIN       task, attempt, name, version, at, begun?   an attempt starts; all before is past
    STEP        path, value, state?                   a step's result is kept
    LOOP        path, mark, state?                    a loop's cursor moved, or it is finished
    CHECKPOINT  state                                 ctx.checkpoint()
    PROGRESS    done, total, note
    END         task, attempt, outcome, progressed, version, unfit?, result?, error?, reason?,
                wake?, snapshot?, retry?, ran?
    SNAPSHOT    saved, begin, saves, progress         ``saved``: the full state (``Saved.encode``);
                                                      it replaces all that was added up before it.
                                                      The others are the slot's (``slot.layout``)
    PAD         fill                                  brings the next record to a block boundary

``version`` in END is the version of the saved state: the attempt's own once it has saved something.
``begun`` is when the attempt began, by CLOCK_MONOTONIC, and ``ran`` how many of its seconds it ran.
``unfit`` says that this code cannot take the saved state (or the arguments), and has not begun.
``retry`` is what the code says of a failure, a map {retries, delays?, max_backoff, jitter, after?,
counts?, final?, note?}: the fields of ``model.retrying.Policy`` and ``Failure`` (0.2 neither writes
nor reads it). One with ``counts`` false is no failure: the outcome is SLEEPING, as 0.2 has it.

A *path* names a step or a loop: the names of the loops around it and its own, joined by "/"
(``rows/parse``). The paths in a loop's body begin with the loop's path and "/". What they name is
dropped when that loop's cursor moves: it belonged to the item that is now done.

In a record, ``value`` and ``state`` are byte strings in plain-data encoding, and ``mark`` is a map
of the fields of ``Mark``, those with their default left out, its ``cursor`` such a byte string. A
named sleep is kept as a step whose value is the time to wake, in Unix seconds.

The full state is plain data itself: a map ``{format: 1, version, steps: {path: bytes}, cursors:
{path: mark}, state: bytes, args?: bytes, order?: [path…]}``. ``order``: the steps and loops that
are in no loop, as they were first kept (0.2 neither writes nor reads it); only if there are both.
Unknown fields of both are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, IntEnum
from itertools import chain
from typing import Any, Self

from taskd.errors import ProtocolError
from taskd.protocol import data
from taskd.protocol.saved_sizes import EMPTY_STATE, Account
from taskd.record import Record

FORMAT = 1
"""The version of both forms; this code also reads every one from LOWEST on."""

LOWEST = 1


class SavedFromFuture(ProtocolError):
    """The state was saved by a newer taskd, in a format that this one cannot read."""


class Kind(IntEnum):
    """The kind of a slot record; the numbers are on disk and never reused."""

    BEGIN = 1
    STEP = 2
    LOOP = 3
    CHECKPOINT = 4
    PROGRESS = 5
    END = 6
    SNAPSHOT = 7
    PAD = 8


_KINDS = frozenset(Kind)


class Outcome(str, Enum):
    """How an attempt ended, as its END record says."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LEFT = "left"  # asked to leave (deploy, stop, operator); continues from what is saved
    CANCELLED = "cancelled"
    SLEEPING = "sleeping"  # ctx.sleep of a named sleep; continues at ``wake``
    HELD = "held"  # saved state and code do not fit; ``reason`` says why
    YIELDED = "yielded"  # a command's exit status 75: continue later, not asked by us


class Mark(Record):
    """How far one loop is.

    ``cursor``: what the source resumes from; ``done``: items done; ``total``: of how many, or
    None; ``length`` and ``fingerprint``: of a sequence and of its item at the cursor, to notice
    that it changed (None for callables); ``finished``: the loop is over and is not entered again;
    ``moved``: a migration has set the cursor, or put it under this path. The migration vouches that
    the source fits the cursor, whatever kind of source it is; only the fields that are there are
    checked.
    """

    cursor: Any
    done: int
    total: int | None = None
    length: int | None = None
    fingerprint: bytes | None = None
    finished: bool = False
    moved: bool = False


def mark_fields(mark: Mark, cursor: bytes | None = None) -> dict[str, Any]:
    """``mark`` as it stands in a record; ``cursor`` is its cursor's encoding, where at hand."""
    raw = data.encode(mark.cursor) if cursor is None else cursor
    optional = zip(Mark._fields[2:], mark[2:], strict=True)
    given = {name: value for name, value in optional if value is not None and value is not False}
    return {"cursor": raw, "done": mark.done, **given}


def read_mark(fields: dict[str, Any], decode: Callable[[bytes], Any] = data.decode) -> Mark:
    """The Mark that ``mark_fields`` wrote. Raises TypeError if a field is of another type."""
    mark = Mark(
        decode(fields["cursor"]),
        fields["done"],
        fields.get("total"),
        fields.get("length"),
        fields.get("fingerprint"),
        fields.get("finished", False),
        fields.get("moved", False),
    )
    if tuple(map(type, mark[1:])) not in _MARK_TYPES:
        raise TypeError("a loop's mark has a field of a wrong type")
    return mark


_MARK_TYPES = frozenset(
    (int, total, length, fingerprint, bool, bool)
    for total in (int, type(None))
    for length in (int, type(None))
    for fingerprint in (bytes, type(None))
)
"""Of all but the cursor; one look, since it is made for every item of every loop."""


class Saved:
    """The kept state of one task, as its next attempt begins with it.

    ``version``: of the task function that saved it. ``args``: None unless a migration rewrote
    them. ``steps``: path to result. ``cursors``: path to Mark. ``state``: ``ctx.state``.

    The fields may be changed by hand until ``apply`` or ``drop_below`` is called; from then on
    only these two change them, since they keep an account of what lies below each path (a loop
    drops what belonged to its last item without looking at all the rest) and of ``size``.
    """

    __slots__ = ("_account", "_order", "args", "cursors", "state", "steps", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.args: dict[str, Any] | None = None
        self.steps: dict[str, Any] = {}
        self.cursors: dict[str, Mark] = {}
        self.state: dict[str, Any] = self._decoded(EMPTY_STATE)
        self._account: Account | None = None
        self._order: dict[str, None] = {}

    @staticmethod
    def _decoded(raw: bytes) -> Any:
        """A value as it is kept here, from its bytes."""
        return data.decode(raw)

    @staticmethod
    def _encoded(value: Any, what: str = "value") -> bytes:
        return data.encode(value, what)

    @property
    def empty(self) -> bool:
        """Nothing is kept: a next attempt starts from the beginning."""
        return self == type(self)(self.version)

    @property
    def size(self) -> int:
        """Bytes of all kept values, encoded, with their paths."""
        return self._accounted().total

    def size_at(self, path: str) -> int:
        """Bytes kept at ``path``; 0 where nothing is; "" stands for ``state``."""
        return self._accounted().sizes.get(path, 0)

    def size_below(self, path: str) -> int:
        """Bytes kept below ``path``: what ``drop_below`` would give back."""
        account = self._accounted()
        return sum(account.sizes.get(each, 0) for each in account.below(path))

    def encode(self) -> bytes:
        """The full state as bytes. Raises errors.NotPlainData where it holds anything else."""
        fields: dict[str, Any] = {
            "format": FORMAT,
            "version": self.version,
            "steps": {path: self._encoded(value, path) for path, value in self.steps.items()},
            "cursors": {
                path: mark_fields(mark, self._encoded(mark.cursor, path))
                for path, mark in self.cursors.items()
            },
            "state": self._encoded(self.state, "ctx.state"),
        }
        if self.args is not None:
            fields["args"] = self._encoded(self.args, "args")
        if (order := self._in_order()) is not None and self.steps and self.cursors:
            fields["order"] = order
        return data.encode(fields, "saved state")

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """What ``encode`` wrote. Raises SavedFromFuture, or errors.ProtocolError if damaged."""
        fields = data.decode(raw)
        version = fields.get("format") if isinstance(fields, dict) else None
        if type(version) is not int or version < LOWEST:
            raise ProtocolError("not a saved state")
        if version > FORMAT:
            raise SavedFromFuture(
                f"saved by a newer taskd (format {version}); this one reads formats {LOWEST} to "
                f"{FORMAT}: continue the task on a revision with the newer taskd"
            )
        try:
            saved, decoded = cls(fields["version"]), cls._decoded
            kind = type(saved.state)
            saved.steps = {path: decoded(value) for path, value in fields["steps"].items()}
            marks = fields["cursors"].items()
            saved.cursors = {path: read_mark(mark, decoded) for path, mark in marks}
            saved.state = decoded(fields["state"])
            if "args" in fields:
                saved.args = decoded(fields["args"])
            order = fields.get("order")
            if type(order) is list and all(type(path) is str for path in order):
                saved._order = dict.fromkeys(order)
            elif not (saved.steps and saved.cursors):
                saved._order = dict.fromkeys(map(_top, (*saved.steps, *saved.cursors)))
            if type(saved.version) is not int or type(saved.state) is not kind:
                raise TypeError("the version is no int or the state no dict")
            if type(saved.args) not in (kind, type(None)):
                raise TypeError("the arguments are no dict")
            if not all(type(path) is str for path in (*saved.steps, *saved.cursors)):
                raise TypeError("a step or loop whose name is no text")
        except (KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(f"not a saved state: {error!r}") from None
        return saved

    def apply(self, kind: int, fields: dict[str, Any]) -> None:
        """Add up one more record. Raises errors.ProtocolError for a kind that does not exist, and
        for fields that are not what that kind has."""
        if kind not in _KINDS:
            raise ProtocolError(f"no kind of record has the number {kind}")
        try:
            match kind:
                case Kind.STEP | Kind.LOOP | Kind.CHECKPOINT:
                    self._add(kind, fields)
                case Kind.SNAPSHOT:
                    other = self.decode(fields["saved"])
                    for name in ("version", "args", "steps", "cursors", "state", "_order"):
                        setattr(self, name, getattr(other, name))
                    self._account = None
                case Kind.BEGIN if self.empty:
                    self.version = fields["version"]  # else the state's own version stands
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ProtocolError(
                f"a saved record of kind {kind} is not what it should be: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _add(self, kind: int, fields: dict[str, Any]) -> None:
        """A path is a step or a loop: the record that came last says which."""
        account = self._accounted()
        if kind != Kind.CHECKPOINT:
            self._order.setdefault(_top(fields["path"]))
        if kind == Kind.STEP:
            path, value = fields["path"], fields["value"]
            account.keep(path, len(value))
            self.steps[path] = self._decoded(value)
            self.cursors.pop(path, None)
        elif kind == Kind.LOOP:
            path, mark = fields["path"], fields["mark"]
            self.drop_below(path)
            account.keep(path, len(mark["cursor"]))
            self.cursors[path] = read_mark(mark, self._decoded)
            self.steps.pop(path, None)
        if (state := fields.get("state")) is not None:
            account.keep("", len(state))
            self.state = self._decoded(state)

    def drop_from(self, name: str) -> None:
        """Forget that step or loop and what was kept after it, but for ``state``. Raises ValueError
        if there is none, or it is not known what was after it."""
        order = self._in_order()
        here = list(dict.fromkeys(map(_top, (*self.steps, *self.cursors))))
        if name not in here:
            raise ValueError(f"no step or loop {name!r} is saved; there are {', '.join(here)}")
        if order is None:
            raise ValueError("in which order its steps and loops were kept is not known")
        gone = set(order[order.index(name) :])
        self.steps = {path: each for path, each in self.steps.items() if _top(path) not in gone}
        self.cursors = {path: each for path, each in self.cursors.items() if _top(path) not in gone}
        self._order = dict.fromkeys(each for each in order if each not in gone)
        self._account = None

    def _in_order(self) -> list[str] | None:
        """The steps and loops that are in no loop, as they were first kept; None: not known."""
        here = set(map(_top, (*self.steps, *self.cursors)))
        return (
            [each for each in self._order if each in here] if here <= self._order.keys() else None
        )

    def drop_below(self, path: str) -> None:
        """Forget the steps and loops of the item that the loop at ``path`` has done."""
        account = self._accounted()
        for each in account.below(path):
            self.steps.pop(each, None)
            self.cursors.pop(each, None)
            account.forget(each)

    def _accounted(self) -> Account:
        if self._account is None:
            encoded = self._encoded
            steps = ((path, len(encoded(value))) for path, value in self.steps.items())
            cursors = ((path, len(encoded(mark.cursor))) for path, mark in self.cursors.items())
            state = len(encoded(self.state) if self.state else EMPTY_STATE)
            self._account = Account(state, chain(steps, cursors))
        return self._account

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Saved):
            return NotImplemented
        mine = (self.version, self.args, self.steps, self.cursors, self.state)
        return mine == (other.version, other.args, other.steps, other.cursors, other.state)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return (
            f"Saved(version={self.version}, steps={self.steps!r}, cursors={self.cursors!r}, "
            f"state={self.state!r}, args={self.args!r})"
        )


def _top(path: str) -> str:
    """What is in no loop: the path's first name."""
    return path.partition("/")[0]


class RawSaved(Saved):
    """``Saved`` whose values stay the bytes that users saved: ``steps``, each mark's ``cursor``,
    ``state`` and ``args`` are in plain-data encoding.

    For the master, which adds up what a dead worker's records say and hands it on, and never builds
    a user's value to do so. Same records, same full state, byte for byte; the time it takes is that
    of copying them. What is wrong within a value is found by the worker that decodes it, and holds
    its task.
    """

    __slots__ = ()

    @staticmethod
    def _decoded(raw: Any) -> bytes:
        if type(raw) is not bytes:
            raise TypeError("a value is no byte string")
        return raw

    @staticmethod
    def _encoded(value: Any, what: str = "value") -> bytes:
        return RawSaved._decoded(value)
