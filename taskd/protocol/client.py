"""The protocol of ``control.sock`` and ``submit.sock``: version 3, its specification and both ends.

Version 2 added ``rollback``, ``drain``, and ``plan`` and ``allow_held`` in ``reload``. A client
sends them only once the daemon's hello says 2 or more: an older daemon would do a deploy where it
is asked for its plan. Version 3 added ``Secret`` to plain data, and ``secrets`` in ``submit``, by
which a client says that there is one: an older daemon could not read it. Replies only ever get more
fields, in every version.

Pure. ``ServerSide``, here, runs in the master; ``client_side.ClientSide`` is the other end.

A connection carries frames (see ``frames``) both ways. A frame's body is one CBOR map with text
keys and without tags; whatever users save or pass (arguments, results) travels inside as a byte
string in plain-data encoding (see ``data``), so that a frame can be read without building it.
Unknown fields are ignored; an optional field that is null counts as absent.

Who the peer is, its socket says (SO_PEERCRED), never a message.

Longer than 400 lines because the specification stands in it, beside the daemon's end of it.

Hello
    The client sends ``{"hello": {"low": 1, "high": 3}}``: the versions it speaks. The daemon
    answers ``{"hello": {"version": 3, "taskd": "0.2.0", "uid": 1000, "control": false}}`` with
    the highest that both speak, or ``{"error": …}`` and closes. A first frame that is not a hello
    closes the connection. The client may send requests without waiting for the answer, but for
    those that take more than the first version.

Requests and replies
    The client sends ``{"id": n, "op": "show", …}`` with n growing by one from 1; it may send
    more before a reply comes (at most MAX_PENDING; past that, or with more than HELD_BOUND bytes
    of replies that must wait for an earlier one, the daemon stops reading).
    Replies come in the order of the requests: ``{"id": n, "ok": {…}}`` or
    ``{"id": n, "error": {"code": "unknown-task", "message": "…"}}`` (codes: ``errors.REFUSALS``).
    Requests take effect in their order too: one that reads sees what those before it wrote.
    An operation that the daemon does not know is refused; a field of a wrong type or out of its
    bounds (see ``operations``), like any other breach, ends the connection, after a last
    ``{"error": {"code": "protocol", "message": "…"}}`` that belongs to no request.
    A peer that takes too much is told ``busy``: of a request that is refused; or, in such a last
    error, of the connection, in place of the hello if there is no room for it at all.
    ``limit-reached`` refuses a ``submit`` or ``retry`` on submit.sock that is beyond what its user
    may have. Both pass: the same request later may be accepted, with the same ``submission``.

Streams
    ``follow`` and ``wait`` answer ``ok`` at once, in order, and then send ``{"id": n, "item":
    {…}}`` at any time between other replies, and last ``{"id": n, "end": {…}}`` or, if the stream
    cannot go on, ``{"id": n, "error": {…}}``. The client ends one early with the request ``stop``
    ``{"stream": n}``, once that stream's ``ok`` has come; nothing of the stream comes after the
    reply to ``stop``. To stop a stream that is over is no error. A connection has at most
    MAX_STREAMS open; one more is refused. An item of ``follow`` is either a numbered event
    ``{"event": 17, "task": 3, "at": 1.5, "state": "running", "attempt": 1, "revision": "r41",
    "reason": null}``, every one once and in order of their numbers, also over a deploy, or
    unnumbered progress ``{"progress": {"task": 3, "done": 5, "total": 9, "note": ""}}``, of which
    only the latest matters. After a lost connection the client asks again with ``after`` = the
    last number it saw; after a lost ``wait``, for the tasks whose item has not come.

Operations (fields beside ``id`` and ``op``; ``?`` marks optional ones)
    submit    tasks: [{submission: bytes16, name, args: bytes, key?, queue?, priority?, delay?,
              options?}] (1 to MAX_BATCH), secrets? (whether an ``args`` holds a Secret)
              → {tasks: [{id: 17, created: true}]}; all or none.
              ``submission`` is random, made by the client; sending one again returns the same
              task. ``delay`` is in seconds. ``options`` is for the built-in ``command`` task:
              {"on_deploy": "checkpoint"}.
    show      task → {task: TASK}
    list      state?, queue?, name?, limit? (100), before?, results? (false) → {tasks: [TASK…]}
              newest first, with ids below ``before``; without results, unless ``results`` asks for
              them. It may hold fewer than ``limit`` asks for, if they would not fit in a frame; an
              empty one is the end.
    status    → {pid, revision, release, confirmed, symlink, link, states: {…}, queues: {name:
              {running, queued, concurrency}}, more_queues, taskd, note, problems, checks: [{name,
              ok, text}…], stopping, control}; ``confirmed``: the same as ``release`` (a daemon
              serves what it has confirmed, and ``taskd confirm`` is refused beside it); ``queues``:
              those that the daemon's file or a task names, and on control.sock others in which a
              task is ready or runs, 500 at most;
              ``more_queues``: whether there are more of them; ``link``: the path that ``[app]
              release`` names, ``symlink``: what it points to; ``stopping``: whether a stop is
              under way; ``control``: whether one may do what is for operators;
              ``problems``: a sentence for each thing that does not go on just now; ``checks``:
              what is in force of what a machine may or may not offer
    wait      tasks: [id…], within? → stream of {"task": TASK}, one as each is settled; end {}.
              ``within``: $TASKD_SCRATCH of the task whose code waits, for however long, and does
              nothing else meanwhile. Where no task of its queue could ever go on, it is refused
    follow    tasks: [id…], after? (0), progress? (false) → stream as above; end {} once every
              one is settled and its events are sent
    log       task, offset? (0), limit?, skips? → {data: bytes, offset, size, ended}: what stands
              in the log from ``offset`` on, where the data ends (and the next request begins), the
              file's size, and whether the task is settled. ``skips``: where the log's middle was
              cut out, go on behind it; without, that is read as zeros
    cancel    task → {state, was}; the wish is on disk before the reply
    retry     task → {state}
    revisions → {revisions: [{revision, path, hash, state, workers, running, waiting, age: seconds,
              memory: bytes or null, holds: [{task, name}…] (at most 10)}…], rejected: [{revision,
              path, reason, at}…] (the latest last)}
    reload    release?, plan? (false), allow_held? (false) → {revision, previous, pause: seconds,
              plan: PLAN, hook: text}; control.sock only; the reply comes from the new master.
              Where it would not fit in a frame, ``plan`` is null and ``hook`` empty.
              With ``plan`` nothing is changed: → {plan: PLAN}
    rollback  plan?, allow_held? → as reload, of the release that was confirmed before this one
    drain     revision (its name, or how its path ends), how? ("finish", "checkpoint" or "now") →
              {running, asked}: what keeps that
              draining revision alive; "checkpoint" asks its tasks to leave at their next safe
              point, "now" ends them (they continue from what is saved); control.sock only
    shutdown  plan? (false), keep? → {asked, ended: [task…], kept: [task…], counts: {ended, kept}}:
              the daemon stops; the reply comes when all is over: how many tasks were asked to
              leave, and those that did not in time, which were ended or, with ``keep``, go on for
              the next daemon. Default: as at a SIGTERM. With ``plan`` nothing is done: → {tasks:
              [{task, name, revision, started, saved}…], running: how many, limit: seconds},
              ``saved`` being when it saved something last, or null; control.sock only. Each list
              has the first thousand
    stop      stream → {}

    TASK is {id: 17, name, queue, state, shown, reason, attempt, revision, progress, result:
    bytes or null, error: {type, message, traceback} or null, submitted, started, ended, ran,
    owner, priority, key, run_at}; times are Unix seconds; ``ran``: the seconds that its attempts
    ran so far, or null before the first; ``shown`` is the state with ``retrying`` and ``resuming``
    told apart.

    PLAN is {target, running: [{task, name, revision, verdict, why}…], waiting: [{name, version,
    shape, count, verdict, why}…], warnings: [text…], counts: {verdict: tasks}, on: {revision: how
    many run there}}; verdict is "finishes" (on its revision), "moves" (now), "continues" (of what
    waits), "held" (would be, with why; it refuses the deploy) or "accepted" (would be, as with
    what serves now: it refuses nothing). The lists have the first hundred rows of each verdict, and
    of the warnings, with their texts cut; ``counts`` and ``on`` count all.

Limits
    A frame is at most frames.LIMIT bytes, nested at most data.DEPTH deep. On submit.sock a peer
    sees and changes its own tasks alone; another's id answers like one that does not exist. What
    could name others' tasks is left out there: ``holds`` has the peer's own, ``rejected`` is empty
    and ``note`` and ``problems`` too. Of others it sees how many there are, in ``status`` and
    ``revisions``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from taskd.errors import Error, ProtocolError, Refused
from taskd.protocol import frames
from taskd.protocol.operations import MAX_BATCH as MAX_BATCH
from taskd.protocol.operations import OPERATIONS, STREAMS, check

VERSION = 3
"""The newest version this code speaks; it also speaks every one from LOWEST on."""

LOWEST = 1

MAX_PENDING = 1024
"""Requests of one connection that may wait for their replies."""

MAX_STREAMS = 256
"""Streams that one connection may have open."""

HELD_BOUND = 1024 * 1024
"""Bytes of replies waiting for an earlier one above which nothing more is read."""


MESSAGE = 64 * 1024
"""Characters of an error that are told."""


class Phase(Enum):
    """How far a connection is."""

    NEW = "new"
    GREETED = "greeted"
    OPEN = "open"


class Step(Enum):
    """What happens to a connection."""

    HELLO = "hello"
    WELCOME = "welcome"
    REQUEST = "request"


CONNECTION: dict[tuple[Phase, Step], Phase] = {
    (Phase.NEW, Step.HELLO): Phase.GREETED,
    (Phase.GREETED, Step.WELCOME): Phase.OPEN,
    (Phase.OPEN, Step.REQUEST): Phase.OPEN,
}
"""The daemon's view; whatever is not listed is a breach of the protocol."""


class Stage(Enum):
    """How far one request is; ``stop`` on its way leaves a stream STOPPING until its reply."""

    ASKED = "asked"
    STREAMING = "streaming"
    STOPPING = "stopping"
    DONE = "done"


class Turn(Enum):
    """What happens to one request."""

    OK = "ok"
    OPEN = "open"
    ERROR = "error"
    ITEM = "item"
    END = "end"
    STOP = "stop"
    STOPPED = "stopped"


REQUEST: dict[tuple[Stage, Turn], Stage] = {
    (Stage.ASKED, Turn.OK): Stage.DONE,
    (Stage.ASKED, Turn.OPEN): Stage.STREAMING,
    (Stage.ASKED, Turn.ERROR): Stage.DONE,
    (Stage.STREAMING, Turn.ITEM): Stage.STREAMING,
    (Stage.STREAMING, Turn.END): Stage.DONE,
    (Stage.STREAMING, Turn.ERROR): Stage.DONE,
    (Stage.STREAMING, Turn.STOP): Stage.STOPPING,
    (Stage.STOPPING, Turn.STOP): Stage.STOPPING,
    (Stage.STOPPING, Turn.ITEM): Stage.STOPPING,
    (Stage.STOPPING, Turn.END): Stage.DONE,
    (Stage.STOPPING, Turn.ERROR): Stage.DONE,
    (Stage.STOPPING, Turn.STOPPED): Stage.DONE,
}
"""Both ends' view of one request; ``stop`` itself is an ordinary request too."""


class Call:
    """One request that is not over. ``target``: of a ``stop``, the stream it stops."""

    __slots__ = ("op", "stage", "target")

    def __init__(self, op: str, target: int | None = None) -> None:
        self.op = op
        self.stage = Stage.ASKED
        self.target = target


class Calls(dict[int, Call]):
    """The requests of one connection that are not over, by id; drops those that are done."""

    def advance(self, id: int, turn: Turn) -> None:
        """Move one on. Raises LookupError for a turn that is not its."""
        call = self.get(id)
        if call is None:
            raise LookupError(f"request {id} is over or was never made: {turn.value}")
        stage = REQUEST.get((call.stage, turn))
        if stage is None:
            raise LookupError(f"request {id} ({call.op}) is {call.stage.value}: no {turn.value}")
        call.stage = stage
        if stage is Stage.DONE:
            del self[id]

    def answer(self, id: int) -> None:
        """The ``ok`` of one: a stream opens, a ``stop`` is done and its stream with it."""
        call = self.get(id)
        self.advance(id, Turn.OPEN if call and call.op in STREAMS else Turn.OK)
        if call is not None and call.target is not None and call.target in self:
            self.advance(call.target, Turn.STOPPED)

    def stop(self, stream: int) -> None:
        if stream in self:
            self.advance(stream, Turn.STOP)

    @property
    def streams(self) -> int:
        return sum(call.op in STREAMS for call in self.values())


class Hello(NamedTuple):
    """The peer said hello; ``version`` is what both speak. Answer with ``welcome``."""

    version: int


class Request(NamedTuple):
    """One request; ``fields`` are checked, the unknown ones left out."""

    id: int
    op: str
    fields: dict[str, Any]


class Answer(NamedTuple):
    """Bytes that this side itself has to say: send them."""

    data: bytes


class Farewell(NamedTuple):
    """The connection cannot be: send the bytes, then close it."""

    data: bytes


ServerEvent = Hello | Request | Answer | Farewell


def farewell(error: Error) -> bytes:
    """The last frame of a connection that the daemon ends, for whatever reason."""
    return frames.encode({"error": {"code": error.code, "message": str(error)}})


class ServerSide:
    """The daemon's end of one connection: bytes in, events out; answers in, bytes out.

    ``feed`` what was read, then take events by ``next`` until it says None; after answers that
    made room (``is_full`` was True), call ``next`` again. ``next`` raises ProtocolError when the
    peer breaks the protocol: send ``farewell(error)`` and close. ``reply``, ``refuse``, ``item``
    and ``end`` return the bytes to send now, often none, since a reply waits here for those
    before it; a call that does not fit the request's stage is a bug of the caller (LookupError).

    Invariants: ids below ``_turn`` have had their reply sent; those from ``_turn`` to ``_next``
    are pending; ``_held`` has the bytes of pending ones that wait for their turn, and each id in
    it has its reply among them.
    """

    __slots__ = (
        "_calls",
        "_decoder",
        "_held",
        "_held_bytes",
        "_next",
        "_phase",
        "_turn",
        "_version",
    )

    def __init__(self) -> None:
        self._decoder = frames.Decoder()
        self._phase = Phase.NEW
        self._version = VERSION
        self._next = 1
        self._turn = 1
        self._held: dict[int, bytes] = {}
        self._held_bytes = 0
        self._calls = Calls()

    def feed(self, data: bytes) -> None:
        self._decoder.feed(data)

    def next(self) -> ServerEvent | None:
        """The next event, or None until more is fed or, if ``is_full``, answered."""
        if self.is_full:
            return None
        message = self._decoder.next()
        if message is None:
            return None
        return self._greet(message) if self._phase is Phase.NEW else self._ask(message)

    @property
    def pending(self) -> int:
        """How many requests have no reply sent yet."""
        return self._next - self._turn

    @property
    def is_full(self) -> bool:
        """Whether so much waits for replies that nothing more is to be read."""
        return self.pending >= MAX_PENDING or self._held_bytes > HELD_BOUND

    @property
    def unread(self) -> int:
        """How many bytes ``rest`` has."""
        return self._decoder.size

    @property
    def held(self) -> int:
        """Bytes that this side keeps: what came and is not taken, and replies that wait."""
        return self._decoder.size + self._held_bytes

    @property
    def is_new(self) -> bool:
        """Whether the peer has yet to say hello."""
        return self._phase is Phase.NEW

    @property
    def calls(self) -> Mapping[int, Call]:
        """The requests without an answer and the open streams, by id."""
        return self._calls

    def welcome(self, uid: int, control: bool, taskd: str) -> bytes:
        """The answer to Hello: who the peer is to the daemon, and the daemon's own version."""
        self._move(Step.WELCOME)
        return frames.encode(
            {"hello": {"version": self._version, "taskd": taskd, "uid": uid, "control": control}}
        )

    def reply(self, id: int, ok: dict[str, Any], short: dict[str, Any] | None = None) -> bytes:
        """The request is done (or, of ``follow`` and ``wait``, its stream is open).

        ``short``: what to say where ``ok`` does not fit in a frame. Something was done then, and an
        error in telling must not read as an error of the deed; who only asked is refused.
        """
        try:
            data = frames.encode({"id": id, "ok": ok})
        except ProtocolError as error:
            if short is not None:
                return self.reply(id, short)
            return self.refuse(id, Refused(f"the answer does not fit: {error}"))
        self._calls.answer(id)
        return self._in_turn(id, data)

    def refuse(self, id: int, error: Refused) -> bytes:
        """The request is refused, or its open stream cannot go on."""
        self._calls.advance(id, Turn.ERROR)
        fields = {"code": error.code, "message": str(error)[:MESSAGE]}
        return self._in_turn(id, frames.encode({"id": id, "error": fields}))

    def item(self, id: int, fields: dict[str, Any]) -> bytes:
        """One item of an open stream."""
        data = frames.encode({"id": id, "item": fields})
        self._calls.advance(id, Turn.ITEM)
        return self._in_turn(id, data)

    def end(self, id: int, fields: dict[str, Any]) -> bytes:
        """The open stream is over."""
        self._calls.advance(id, Turn.END)
        return self._in_turn(id, frames.encode({"id": id, "end": fields}))

    @property
    def rest(self) -> bytes:
        """Bytes that were fed and not yet returned as events."""
        return self._decoder.rest

    def export(self) -> dict[str, Any]:
        """All but ``rest``, as plain maps, lists, text, ints and bytes: for a handoff."""
        return {
            "phase": self._phase.value,
            "next": self._next,
            "turn": self._turn,
            "held": [[number, data] for number, data in self._held.items()],
            "calls": [
                [number, call.op, call.stage.value, call.target]
                for number, call in self._calls.items()
            ],
        }

    @classmethod
    def restore(cls, state: dict[str, Any], rest: bytes = b"") -> ServerSide:
        """The side that ``export`` and ``rest`` describe."""
        side = cls()
        side._phase = Phase(state["phase"])
        side._next, side._turn = state["next"], state["turn"]
        side._held = dict(state["held"])
        side._held_bytes = sum(map(len, side._held.values()))
        for number, op, stage, target in state["calls"]:
            call = side._calls[number] = Call(op, target)
            call.stage = Stage(stage)
        side.feed(rest)
        return side

    def _move(self, step: Step) -> None:
        phase = CONNECTION.get((self._phase, step))
        if phase is None:
            raise ProtocolError(f"a {step.value} on a connection that is {self._phase.value}")
        self._phase = phase

    def _greet(self, message: dict[str, Any]) -> Hello | Farewell:
        hello = message.get("hello")
        if type(hello) is not dict:
            raise ProtocolError("the first message must be a hello")
        low, high = hello.get("low"), hello.get("high")
        if type(low) is not int or type(high) is not int or low > high:
            raise ProtocolError("hello: low and high must be the versions that the client speaks")
        if high < LOWEST or low > VERSION:
            return Farewell(farewell(_no_common_version(low, high)))
        self._move(Step.HELLO)
        self._version = min(high, VERSION)
        return Hello(self._version)

    def _ask(self, message: dict[str, Any]) -> Request | Answer:
        self._move(Step.REQUEST)
        number, op = message.get("id"), message.get("op")
        if type(number) is not int or number != self._next:
            raise ProtocolError(f"request {str(number)[:30]} came where {self._next} was due")
        if type(op) is not str:
            raise ProtocolError(f"request {number}: op must be text")
        if op not in OPERATIONS:
            return self._refuse_at_once(op, f"this daemon has no operation {op[:60]!r}")
        fields = check(op, message)
        if op in STREAMS and self._calls.streams >= MAX_STREAMS:
            return self._refuse_at_once(op, f"{MAX_STREAMS} streams are open; end some first")
        return Request(self._open(op, fields), op, fields)

    def _open(self, op: str, fields: dict[str, Any]) -> int:
        target = fields.get("stream") if op == "stop" else None
        if target is not None:
            _stop_by_peer(self._calls, target)
        number = self._next
        self._calls[number] = Call(op, target)
        self._next += 1
        return number

    def _refuse_at_once(self, op: str, message: str) -> Answer:
        return Answer(self.refuse(self._open(op, {}), Refused(message)))

    def _in_turn(self, id: int, data: bytes) -> bytes:
        """``data`` and what waited for it; or nothing if ``id`` has to wait itself."""
        if id < self._turn:
            return data  # of a stream that is open
        if id > self._turn:
            self._held[id] = self._held.get(id, b"") + data
            self._held_bytes += len(data)
            return b""
        parts = [data]
        self._turn += 1
        while self._turn in self._held:
            parts.append(self._held.pop(self._turn))
            self._held_bytes -= len(parts[-1])
            self._turn += 1
        return b"".join(parts)


def _stop_by_peer(calls: Calls, stream: int) -> None:
    try:
        calls.stop(stream)
    except LookupError as error:
        raise ProtocolError(f"stop: {error}") from None


def _no_common_version(low: int, high: int) -> ProtocolError:
    return ProtocolError(
        f"the client speaks versions {low} to {high} of the protocol, this daemon {LOWEST} to "
        f"{VERSION}: use a client of the daemon's own version of taskd"
    )
