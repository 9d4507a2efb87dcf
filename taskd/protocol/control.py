"""The protocol of ``control.sock`` and ``submit.sock``: version 4, its specification and tables.

Version 3 is what taskd 0.2 speaks, and the oldest that is spoken. Version 4 is that of 0.3, and
open until 0.3.0 is released: so far it adds the tokens of events, and what is marked below ("since
4"). An operation or a field of a request that a version adds is sent only once the daemon's hello
says that version or more (see ``operations.needs``): a daemon that does not know a field does the
rest of the request. Replies only ever get more fields, in every version.

Pure. ``server_side.ServerSide`` is the daemon's end, ``client_side.ClientSide`` the client's.

A connection carries frames (see ``frames``) both ways. A frame's body is one CBOR map with text
keys and without tags; whatever users save or pass (arguments, results) travels inside as a byte
string in plain-data encoding (see ``data``), so that a frame can be read without building it.
Unknown fields are ignored; an optional field that is null counts as absent.

The socket tells who the peer is (SO_PEERCRED); no message does.

Hello
    The client sends ``{"hello": {"low": 3, "high": 4}}``: the versions it speaks. The daemon
    answers ``{"hello": {"version": 4, "taskd": "0.3.0", "uid": 1000, "control": false}}`` with
    the highest that both speak, or ``{"error": …}`` and closes. A first frame that is not a hello
    closes the connection. The client may send requests without waiting for the answer, but for
    those that take more than its lowest version.

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
    A peer that takes too much gets the code ``busy``: for a request, which is refused; or in such a
    last error, in place of the hello if there is no room for one more connection.
    ``limit-reached`` refuses a ``submit`` or ``retry`` on submit.sock that is beyond what its user
    may have. Both pass: the same request later may be accepted, with the same ``submission``.

Streams
    ``follow`` and ``wait`` answer ``ok`` at once, in order, and then send ``{"id": n, "item":
    {…}}`` at any time between other replies, and last ``{"id": n, "end": {…}}`` or, if the stream
    cannot go on, ``{"id": n, "error": {…}}``. The client ends one early with the request ``stop``
    ``{"stream": n}``, once that stream's ``ok`` has come; nothing of the stream comes after the
    reply to ``stop``. To stop a stream that is over is no error. A connection has at most
    MAX_STREAMS open; one more is refused. An item of ``follow`` is either a numbered event
    ``{"event": 17, "token": "17", "task": 3, "at": 1.5, "state": "running", "attempt": 1,
    "revision": "r41", "reason": null}``, every one once and each task's in order of their numbers,
    also over a deploy, or unnumbered progress ``{"progress": {"task": 3, "done": 5, "total": 9,
    "note": ""}}``, of which only the latest matters. After a lost connection the client asks again
    with the ``token`` of the last event it saw, which is opaque, and with ``after`` = its number
    for a daemon of version 3, which has no tokens; after a lost ``wait``, for the tasks whose item
    has not come.

Operations (fields beside ``id`` and ``op``; ``?`` marks optional ones)
    submit    tasks: [{submission: bytes16, submission_kind? ("timed" or, with
              named_for (since 4), "named"), name, args: bytes, key?,
              queue?, priority?, delay? or due? (since 4), retries? (since 4), expires? (since
              4), timeout? (since 4), if_exists? (since 4; "join", "refuse" or "replace-waiting"),
              key_for? (since 4), at_most? (since 4), after?: [id…], if_failed? ("hold", "cancel" or
              "run") (both since 4), after_new?: [place…] (since 4), parent?: id, parent_attempt?,
              child?: name, detached? (these four since 4), options?}] (1 to MAX_BATCH)
              → {tasks: [{id: 17, created: true}]}; all or none. ``created``: false if the task was
              there, by its submission or its key; then ``replaced``: true if it got these arguments
              and this time, and ``state``: "removed" if it is there no more and still has the key.
              ``if_exists``: what is done if a task has the key; ``key_for``: seconds for which the
              key is this task's also once it has succeeded; ``at_most``: seconds after which a task
              that is replaced again and again is due.
              ``submission`` is made by the client; sending one again returns the same task, which
              may have been removed meanwhile. ``submission_kind``: see ``submission``; a timed one
              that is sent again too late is refused with ``too-old``. An older daemon leaves it
              out. ``delay`` is in seconds, ``due`` a date in Unix seconds. ``retries`` goes before
              what the task's code says, now and later. ``expires``: seconds after which it is
              cancelled if it has not started; ``timeout``: seconds that one try may run.
              ``parent``: the running task that submits it, in this attempt, as its ``child`` of
              that name; submitting that again returns the same task. A cancel of the parent reaches
              it, unless it is ``detached``. ``after``: it runs once these have succeeded;
              ``after_new``: and these of the same request, by their places there, from 0 on, before
              its own; ``if_failed``: see ``model.order``.
              ``options`` is for the built-in ``command`` task: {"on_deploy": "checkpoint"}.
    show      task → {task: TASK}
    list      state?, queue?, name?, owner?, key?, revision?, since?, until?, text? (these six since
              4; see ``store.queries.Filter``), limit? (100), before?, results? (false) → {tasks:
              [TASK…]} newest first, with ids below ``before``; without results, unless ``results``
              asks for them. It may hold fewer than ``limit`` asks for, if they would not fit in a
              frame; an empty one is the end.
    status    → {paused: [{queue, task, by: uid, at, until or null, why, text, resume: command}…],
              pid, revision, release, confirmed, symlink, link, states: {…}, queues: {name:
              {running, queued, concurrency, said}}, more_queues, taskd, note, problems, checks:
              [{name, ok, text}…], stopping, control}; ``said``: {by, until, text} where an operator
              has set the concurrency for now, else null; ``confirmed``: as ``release`` (a daemon
              serves what it has confirmed, and ``taskd confirm`` is refused beside it); ``queues``:
              those that the daemon's file or a task names, and on control.sock others in which a
              task is ready or runs, 500 at most;
              ``more_queues``: whether there are more of them; ``link``: the path that ``[app]
              release`` names, ``symlink``: what it points to; ``stopping``: whether a stop is
              under way; ``control``: whether one may do what is for operators;
              ``problems``: a sentence for each part of the daemon that cannot work now; ``checks``:
              which of the machine's optional features are in use
    wait      tasks: [id…], within? → stream of {"task": TASK}, one as each is settled; end {}.
              ``within``: $TASKD_SCRATCH of the task whose code waits, for however long, and does
              nothing else meanwhile. Where no task of its queue could ever go on, it is refused
    follow    tasks: [id…], after? (0), token?, progress? (false) → stream as above; end {} once
              every one is settled and its events are sent; without ``token`` from ``after`` on
    log       task, offset? (0), limit?, skips? → {data: bytes, offset, size, ended}: what stands
              in the log from ``offset`` on, where the data ends (and the next request begins), the
              file's size, and whether the task is settled. ``skips``: where the log's middle was
              cut out, go on behind it; without, that is read as zeros
    attempts  task → {attempts: [ATTEMPT…]} (since 4): the first 5 and the last 50, and the one
              that runs, in order; what ran under 0.2 is not among them
    why       task → {id, state, kind, text, do, limit} (since 4): what it waits for: a word, a
              sentence, what can be done; ``limit``: the limit that keeps it, or null: {name, key,
              concurrency, every: seconds, burst, source, held: how many hold it, wait: seconds,
              holders: [{task, revision, moves, since}…] (ten at most)}, on submit.sock without
              key and holders
    cancel    task → {state, was}; the wish is on disk before the reply
    retry     task, from_start? (since 4), step? (since 4) → {state}; ``from_start``: what was
              saved is dropped; ``step``: that step or loop is, and what was kept after it
    change    (since 4) tasks (1 to 100), do ("cancel", "retry" or "alter"), only? (a state),
              from_start?, step?, queue?, priority?, delay? or due? → {done: [id…], passed: [id…],
              refused: [{task, why}…]}: each for itself. ``passed``: not in the state ``only``, or
              over already; "alter" moves what waits to that queue, priority or time
    checkpoint  (since 4) task → {asked}: it leaves at its next safe point, and goes on from there
    pause     (since 4) queue? or task? (neither: all), seconds?, why? → {was}: whether it was
              paused (that pause is replaced); nothing fresh of it is started, for so many seconds
              or until resume; control.sock only
    resume    (since 4) queue? or task? → {was}; ends the pause of exactly that; control.sock only
    set_concurrency  (since 4) queue, concurrency? (none: as taskd.toml says), seconds?, why? →
              {was}: whether one was set; so many tasks of the queue may run; control.sock only
    remove    tasks (1 to 100) → {removed: [id…]} (since 4): those that were over and are gone now;
              control.sock only
    compact   → {before, now} (since 4): bytes of the store's file, which is written anew; what
              writes waits meanwhile; control.sock only
    schedules → (since 4) {schedules: [{name, problem, task, source, cron, every, tz, overlap,
              catch_up, text, paused, dropped, waits, last_slot, last_task, last_state, skipped,
              why, running: [id…], next}…]}: dropped ones too, as long as they are remembered;
              of one that cannot run there are name and problem alone; control.sock only
    pause_schedule   (since 4) name → {was}; control.sock only, as are the next two
    resume_schedule  (since 4) name, catch_up? ("once") → {was}
    run_schedule     (since 4) name, submission: bytes16, force? → {id, created}
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
    owner, priority, key, run_at, expires, after: [{task, state or null}…] (those that it waits for
    first; at most ten), waits_for: how many, if_failed, parent, arguments: text, without secrets
    and cut}; of a single task also pid, memory: bytes, and log: a path, where there are these;
    times are Unix seconds;
    ``ran``: the seconds that its attempts ran so far, or null before the first; ``expires``: when
    it is cancelled, while it waits for its first start; ``shown`` is the state with ``retrying``,
    ``resuming`` and ``waiting`` (for other tasks) told apart.

    ``silent``: since when a running task has reported nothing, if that is longer than its code or
    its queue says (``silent_after``), else null. ``timeout``, of a single task that is not over
    and has one, else null: {limit, used: seconds of this try}.

    ``retries``, of a single task that is not over and may be tried again, else null: {used,
    allowed, waits: [seconds…] (the first ten, without jitter), by_function: whether they are made
    by a function of the app's}: as the revision that runs it says, else the current one.

    ATTEMPT is {attempt: its number, started, ended, revision, worker: text, pid, how, reason,
    error, delay}; of the one that runs, ``ended``, ``how``, ``reason``, ``error`` and ``delay`` are
    null; ``how``: "succeeded", "failed", "put off", "sleeping", "yielded", "interrupted",
    "crashed", "not begun", "held", "cancelled", or what a later version adds; ``error`` as in TASK,
    with its texts cut; ``delay``: seconds from ``ended`` to the next attempt, where it waited.

    PLAN is {target, running: [{task, name, revision, verdict, why}…], waiting: [{name, version,
    shape, count, verdict, why}…], warnings: [text…], counts: {verdict: tasks}, on: {revision: how
    many run there}, environment: {"new", "changed" or "gone": names of variables that differ from
    those of what serves}, schedules: [{name, change: "new", "changed" or "dropped",
    text}…]}; verdict is "finishes" (on its revision), "moves" (now), "continues" (of
    what waits), "held" (would be, with why; it refuses the deploy) or "accepted" (would be, as with
    what serves now: it refuses nothing). The lists have the first hundred rows of each verdict, and
    of the warnings and names, with their texts cut; ``counts`` and ``on`` count all.

Limits
    A frame is at most frames.LIMIT bytes, nested at most cbor.DEPTH deep. On submit.sock a peer
    sees and changes its own tasks alone; another's id answers like one that does not exist. What
    could name others' tasks is left out there: ``holds`` has the peer's own, ``rejected`` is empty
    and ``note`` and ``problems`` too. Of others it sees how many there are, in ``status`` and
    ``revisions``.
"""

from __future__ import annotations

from enum import Enum

from taskd.model.routing import is_older
from taskd.protocol.operations import MAX_BATCH as MAX_BATCH, STREAMS

NEWEST = 4
"""The newest version this code speaks; it also speaks every one from OLDEST on."""

OLDEST = 3

_BROUGHT_BY = "0.3"
"""The taskd that brought NEWEST."""

MAX_PENDING = 1024
"""Requests of one connection that may wait for their replies."""

MAX_STREAMS = 256
"""Streams that one connection may have open."""

HELD_BOUND = 1024 * 1024
"""Bytes of replies waiting for an earlier one above which nothing more is read."""


def newest_of(taskd: str) -> int:
    """The newest version that a daemon of that taskd speaks, as far as this one knows."""
    return NEWEST - 1 if is_older(taskd, _BROUGHT_BY) else NEWEST


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
"""The daemon's view; a pair that is not listed is a breach of the protocol."""


class Stage(Enum):
    """How far one request is. A stream is STOPPING from its ``stop`` until the reply to that."""

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
"""Both ends' view of one request; a ``stop`` is a request itself, beside the stream it ends."""


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
