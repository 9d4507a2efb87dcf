"""The protocol of ``worker.sock``: version 3, between the master and its zygotes and workers.

Version 3 is the oldest that is spoken: taskd 0.2 speaks it. What a later version adds to what the
master sends is sent only to a zygote or worker whose hello says that version or more.

Frames as in ``frames``, each body one CBOR map without tags whose ``type`` says which message it
is; unknown fields are ignored, so that old workers and new masters live together. User values
travel as byte strings in plain-data encoding. The daemon alone owns the socket (mode 0600); who
connects is proven by SO_PEERCRED's pid together with the random id that the master gave out.

Boot
    A zygote finds its configuration (``protocol.boot``) as one CBOR map in a memory file on
    descriptor 0. A forked worker inherits what it needs; a worker that is spawned afresh gets the
    zygote's map and its own id the same way.

Messages
    Each is written ``type(fields)`` below; a field with ``?`` is optional. The others are always
    sent.

Zygote → master
    hello(role, version, id, pid, start, workers)
        role "zygote"; id: bytes16; start: clock ticks since boot; workers: [[worker, pid,
        start]…]: its workers; start 0: that worker is dead, and its exit not noted yet
    identity(hash, changed?)
        hash: of the files of the release that can be imported (see ``revision.content``): sent
        before any import, and again when asked (empty: they cannot be read); changed: [path…], when
        asked and if they can be read: the first files that have changed since the start
    manifest(taskd, python, forks, warnings, tasks)
        forks: bool; warnings: [str]; tasks: {name: task} (see below)
    broken(message, traceback, imports)
        message: one line: why the app cannot be used; the zygote exits. imports: whether it has
        been imported (0.2 does not send it: it was not)
    forked(worker, pid, start)
    unforked(worker, message)
        the fork failed
    exited(worker, pid, status)
        the worker is dead and its tree gone; status: as of waitpid; sent again on each new
        connection until ``noted`` comes. The master does not believe it of a living worker
    pong()

Master → zygote
    fork(worker, group)
        worker: bytes16; group: path of the control group that the worker is to join; empty: none
    noted(worker)
        the exit is recorded: the zygote forgets that worker
    ping()
    keep()
        the revision serves: leave a record on disk for the next master (``revision.record``)
    identify()
        say ``identity`` again, as the files are now
    cut(log, size)
        log: path; size: bytes: cut the middle out of that log if it takes more
    retire()
        exit once the last worker is gone

Worker → master
    hello(role, version, id, pid, start, slot, busy, reads_slots, begun?, ungrouped?)
        role "worker"; id: bytes16; slot: file name; busy: null or, from a worker that has lost its
        master, [task, attempt]: ``waiting`` and ``ended`` follow once more, if they still hold;
        reads_slots: true: a master of 0.2 sends ``plan`` to no other worker; begun: with busy, when
        that attempt began, by CLOCK_MONOTONIC (0.2 does not tell); ungrouped: why it could not join
        the control group of ``fork``
    unready(worker, pid, message)
        in place of ``hello``: it cannot begin (no room for its slot, say), and exits; worker:
        bytes16
    idle(reusable)
        reusable: bool: ready for a task (after hello, and after each ``noted``)
    progress(task, attempt, done, total, note)
        the latest only, at most ten a second
    waiting(task, attempt, message)
        cannot save (disk full) and waits; message: empty when over
    ended(task, attempt, offset, next)
        the ``end`` record stands in the slot at that offset; next: ``idle(true)`` will follow
        ``noted``, so that a task can be claimed for it already (a worker of 0.2 does not tell)
    planned(checked, migrated, refused, mistyped, probe)
        checked: int; migrated: int; refused: [[ref, why]…]; mistyped: [[ref, why]…]: an argument is
        not of its parameter's type, which refuses nothing (0.2 does not tell); probe: null or why
        the app's own probe failed: the answer to one ``plan``; then ``idle``

Master → worker
    run(task, attempt, at, name, version, args, saved, load?, log, log_limit, scratch, failures,
        slot?)
        at: when it was sent, in Unix seconds; version: of the task function that saved ``saved``,
        or, where nothing is saved, the one at submission (a migration may rewrite the arguments);
        args: bytes; saved: bytes or null; load: path of a file that args and saved stand in
        instead, being large: a CBOR map {args, saved}, the worker's to remove; log: path;
        log_limit: bytes of room that the log may take; null: without a limit; scratch: path;
        failures: int: how many of the task's failures have used a retry (0.2 does not tell);
        slot: of its schedule, that the task is for, in Unix seconds
    plan(path)
        answer for each item in that file whether this revision can take it. The file is a CBOR map
        {probe: null or "module:function", items: [question…]} (see below); it is the worker's to
        remove. It holds copies, which the worker may migrate. Sent at ``idle``, once for each piece
        of a plan; the last one names the probe
    leave(task, attempt, why)
        leave at the next safe point
    cancel(task, attempt, why, timeout?)
        leave at the next safe point; the task is cancelled; timeout: true: its time is over, and
        the try fails for that (a worker of 0.2 says that it is cancelled, all the same)
    noted(task, attempt, answer)
        answer: "recorded", "already recorded" or "superseded": the end is in the store (or refused
        as stale); the worker resets its slot
    retire()
        exit as soon as no task runs

Inside
    task(version, queue, retries, on_deploy, params, any, types, unresolved, reads, names,
        retry, timeout, silent_after, schedule, limits)
        params: [[name, required]…]; any: bool; types: {name: form}: what each parameter that is
        checked takes (``model.arguments``); unresolved: {name: why}: annotations that cannot be
        looked up (0.2 tells neither); reads: [version…]: versions of saved state that it
        can take, by a whole chain of migrations; names: [str…], of the steps and loops that the
        function's source names, null where that cannot be told; retry: {retries, delays,
        max_backoff, jitter, function, gives_up}: ``model.retrying.Policy``, whether the delays are
        a function's, and whether the code gives up on a timeout; timeout: seconds that one try may
        run, or null (0.2 tells neither); silent_after: seconds that it may report nothing, or null
        (0.2 does not tell); schedule: null, or what ``@task`` says: {cron?, every?, tz?, late?,
        catch_up?, overlap?, spread?} (0.2 does not tell); limits: null, or
        {keys: [text…], defaults: {name: value}, own, numbers: {name: […]}}: the templates of the
        keys that a task carries, the defaults of the arguments in them, the numbers of the task's
        own limit and of those that the code declares, each [concurrency, every, burst]; own may
        be null (0.2 does not tell)
    question(ref, name, args, saved, version, slot, task, attempt)
        ref: int; args: bytes; saved: bytes or null; version: int; slot: null or the file name,
        beside that file, of the worker that runs this attempt of the task: the slot has what that
        attempt has saved on top of ``saved``; task: null or int; attempt: int
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskd.errors import ProtocolError
from taskd.model.duration import LONGEST, SHORTEST
from taskd.protocol import fields
from taskd.protocol.fields import Field, Fields
from taskd.protocol.records import RETRY, TEXT_LIMIT

VERSION = 3
"""What this code speaks, as a worker and as a master."""

_INT, _TEXT, _BYTES, _FLAG, _LIST, _MAP = (
    Field(kind, required=True) for kind in (int, str, bytes, bool, list, dict)
)
_COUNT = Field(float, required=True, null=True)
_SHOWN = Field(str, required=True, size=TEXT_LIMIT)
"""A text that clients are told, among more that must fit in a frame."""

TO_MASTER: dict[str, Fields] = {
    "hello": {"role": _TEXT, "version": _INT, "id": _BYTES, "pid": _INT, "start": _INT},
    "identity": {"hash": _TEXT},
    "manifest": {"taskd": _TEXT, "forks": _FLAG, "warnings": _LIST, "tasks": _MAP},
    "broken": {"message": _TEXT},
    "forked": {"worker": _BYTES, "pid": _INT, "start": _INT},
    "unforked": {"worker": _BYTES, "message": _TEXT},
    "exited": {"worker": _BYTES, "pid": _INT, "status": _INT},
    "unready": {"worker": _BYTES, "pid": _INT, "message": _TEXT},
    "pong": {},
    "idle": {"reusable": _FLAG},
    "progress": {"task": _INT, "attempt": _INT, "done": _COUNT, "total": _COUNT, "note": _SHOWN},
    "waiting": {"task": _INT, "attempt": _INT, "message": _SHOWN},
    "ended": {"task": _INT, "attempt": _INT, "offset": _INT},
    "planned": {
        "refused": Field(list, required=True, each=Field(list, 2, 2)),
        "mistyped": Field(list, each=Field(list, 2, 2)),
        "probe": Field(str, required=True, null=True),
    },
}
"""What the master needs of each message: user code may have got hold of a worker's channel."""

TASK: Fields = {
    "version": _INT,
    "queue": _TEXT,
    "retries": _INT,
    "on_deploy": _TEXT,
    "params": _LIST,
    "reads": _LIST,
    "types": Field(dict),
    "retry": Field(dict, each=RETRY),
    "timeout": Field(float, SHORTEST, LONGEST),
    "silent_after": Field(float, SHORTEST, LONGEST),
    "limits": Field(
        dict,
        each={
            "keys": Field(list, each=_TEXT),
            "defaults": Field(dict),
            "own": Field(list),
            "numbers": Field(dict),
        },
    ),
}
"""What the master needs of each task in a manifest."""


def check(message: Mapping[str, Any]) -> None:
    """Raises ProtocolError if a message to the master lacks what its type needs.

    A type that is not known here passes: it is a newer worker's, and is ignored.
    """
    kind = message.get("type")
    if not isinstance(kind, str):
        raise ProtocolError("a message without a type")
    fields.check(message, TO_MASTER.get(kind, {}), f"{kind}: ")
    for name in ("refused", "mistyped") if kind == "planned" else ():
        if any([*map(type, each)] != [int, str] for each in message.get(name) or ()):
            raise ProtocolError(f"planned: what is {name} is not given as [ref, why]")
    for name, entry in message["tasks"].items() if kind == "manifest" else ():
        if not isinstance(entry, dict):
            raise ProtocolError(f"manifest: task {name!r} is no map")
        fields.check(entry, TASK, f"task {name!r}: ")
