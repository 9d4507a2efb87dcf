"""What each request of a client does: one handler an operation.

A handler answers by ``client.reply``, or raises Refused; one that writes calls
``client.written`` once its operation is on disk. The operations are those of
``protocol.control``; their fields are checked already.

Longer than 400 lines because every operation has its handler here, beside the table of them all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import taskd
from taskd.errors import (
    BadArguments,
    DeployRefused,
    NotAllowed,
    ProtocolError,
    Refused,
    StoreError,
    UnknownTask,
)
from taskd.master.clients import programs, queues, shares, wait_cycles
from taskd.master.clients.listing import list_tasks
from taskd.master.clients.taskview import view
from taskd.master.deploy.verdict import Caller, How
from taskd.master.service import stop as stop_of_daemon
from taskd.master.service.checks import checks
from taskd.model.binding import SECRET_SIGN, bind
from taskd.model.revision import LIVE
from taskd.model.routing import Held, route
from taskd.model.task import COMMAND, SETTLED, OnDeploy, State
from taskd.posix import files, growing, memory
from taskd.protocol import data, secret
from taskd.protocol.server_side import Request
from taskd.revision import confirmed, naming
from taskd.store.api import Applied, Cancel, Operation, Retry, Row, Share, Submit, SubmitAll

if TYPE_CHECKING:
    from taskd.master.clients.clients import Client
    from taskd.master.fleet.revision import Revision
    from taskd.master.master import Master

Handler = Callable[["Master", "Client", Request], None]

LOG_CHUNK = 256 * 1024
"""Bytes of a task's log in one reply, unless less was asked for."""

HOLDS = 10
"""Tasks named as keeping a revision alive."""


# ── submitting ───────────────────────────────────────────────────────────────────────────────


def submit(master: Master, client: Client, request: Request) -> None:
    _need_whole_store(master)
    now, share = time.time(), shares.of(master, client)
    shares.check(master, client, request.fields["tasks"])
    new = [_new_task(master, client, task, now, share) for task in request.fields["tasks"]]
    operation: Operation = new[0] if len(new) == 1 else SubmitAll(tuple(new))

    def done(outcome: Applied | StoreError) -> None:
        result = outcome.result if isinstance(outcome, Applied) else outcome
        if isinstance(result, Refused):
            client.written(request, result)
            return
        made = result if isinstance(result, list) else [result]
        ids = [{"id": each.task, "created": each.created} for each in made]
        client.written(request, {"tasks": ids})
        for task in new:
            master.dispatch.on_scheduled(task.run_at)
        master.dispatch.kick()

    master.write(operation, done)


def _need_whole_store(master: Master) -> None:
    """Raises StoreError: what is put into a damaged file may be lost, or harm what is in it."""
    if master.damage is not None:
        raise master.damage


def _new_task(
    master: Master, client: Client, task: dict[str, Any], now: float, share: Share | None
) -> Submit:
    name = task["name"]
    entry = _entry(master, name)
    args = _arguments(task["args"])
    if (why := bind(entry, args)) is not None:
        raise BadArguments(f"{name}: {why}")
    if name == COMMAND:
        programs.check(client, args)
    secrets = _secrets(master, name, task["args"], args)
    queue = task.get("queue") or entry["queue"]
    if queue != entry["queue"]:
        queues.check(master, client, queue)
    delay = task.get("delay")
    wish = (task.get("options") or {}).get("on_deploy")
    return Submit(
        submission=task["submission"],
        owner=client.uid,
        name=name,
        version=entry["version"],
        args=task["args"],
        shape=",".join(arg + SECRET_SIGN * (arg in secrets) for arg in sorted(args)),
        queue=queue,
        priority=task.get("priority") or 0,
        key=task.get("key"),
        run_at=now + delay if delay else None,
        retries=entry["retries"],
        on_deploy=OnDeploy(wish) if wish else None,
        at=now,
        share=share,
    )


def _entry(master: Master, name: str) -> dict[str, Any]:
    """What the current revision says of the task. Raises UnknownTask with near names."""
    current = master.revisions.current
    assert current is not None, "requests are read only once a revision serves"
    entry = current.tasks.get(name)
    if entry is not None:
        return dict(entry)
    import difflib

    near = difflib.get_close_matches(name, current.tasks, 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UnknownTask(f"{current.name} has no task {name!r}{hint}")


def _secrets(master: Master, name: str, raw: bytes, args: dict[str, Any]) -> set[str]:
    """The arguments that hold a Secret."""
    if secret.MARK not in raw:
        return set()
    return {arg for arg, value in args.items() if secret.found_in([arg, value])}


def _arguments(raw: bytes) -> dict[str, Any]:
    try:
        args = data.decode(raw)
    except ProtocolError as error:
        raise BadArguments(f"the arguments are not plain data: {error}") from None
    if not isinstance(args, dict) or not all(isinstance(name, str) for name in args):
        raise BadArguments("the arguments must be a dict with text keys")
    return args


# ── looking ──────────────────────────────────────────────────────────────────────────────────


def visible(master: Master, client: Client, task: int) -> Row:
    """The task's row, if this client may see it. Raises UnknownTask."""
    row = master.reader.task(task)
    if row is None or client.owner not in (None, row.owner):
        raise UnknownTask(f"no task {task}")
    return row


def show(master: Master, client: Client, request: Request) -> None:
    row = visible(master, client, request.fields["task"])
    client.reply(request.id, {"task": view(master, row)})


def status(master: Master, client: Client, request: Request) -> None:
    current = master.revisions.current
    assert current is not None
    client.reply(
        request.id,
        {
            "pid": os.getpid(),
            "taskd": taskd.__version__,
            "revision": current.name,
            "release": current.path,
            "confirmed": current.path,
            "link": master.config.app.release,
            "symlink": _shown(os.path.realpath(master.config.app.release)),
            "stopping": master.stopping,
            "control": client.is_control,
            **queues.in_status(master, client),
            "note": master.note if client.owner is None else "",
            "problems": master.loop.troubles.sentences() if client.owner is None else [],
            "checks": checks(master) if client.owner is None else [],
        },
    )


def _shown(path: str) -> str:
    """A path as a message can carry it: what is not valid text in it is escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")


def revisions(master: Master, client: Client, request: Request) -> None:
    live = [(r, r.name, r.tasks) for r in master.revisions.live()]
    waiting: dict[int, int] = {}
    for (name, _), count in master.reader.waiting().items():
        home = route(live, name, None)
        if not isinstance(home, Held):
            waiting[home.number] = waiting.get(home.number, 0) + count
    found = [
        _revision(master, client, r, waiting.get(r.number, 0))
        for r in sorted(master.revisions, key=lambda r: -r.number)
        if r.state in LIVE
    ]
    # Why a release was refused may name anybody's tasks.
    known = master.revisions.rejected if client.owner is None else []
    rejected = [each._asdict() for each in known]
    client.reply(request.id, {"revisions": found, "rejected": rejected})


def _revision(master: Master, client: Client, r: Revision, waiting: int) -> dict[str, Any]:
    workers = master.workers.of(r)
    busy = [worker.running for worker in workers if worker.running is not None]
    shown = [running for running in busy if client.owner in (None, running.owner)]
    pids = [worker.pid for worker in workers if worker.pid] + ([r.pid] if r.pid else [])
    return {
        "revision": r.name,
        "path": r.path,
        "hash": r.fingerprint or "",
        "state": r.state.value,
        "workers": len(workers),
        "running": len(busy),
        "waiting": waiting,
        "age": max(0.0, time.time() - r.since),
        "memory": memory.of(pids),
        "holds": [{"task": running.task, "name": running.name} for running in shown[:HOLDS]],
    }


def log(master: Master, client: Client, request: Request) -> None:
    task, offset = request.fields["task"], request.fields.get("offset") or 0
    limit = min(request.fields.get("limit") or LOG_CHUNK, LOG_CHUNK)
    row = visible(master, client, task)
    try:
        fd = files.open_own(master.places.task_log(task), os.O_RDONLY)
    except FileNotFoundError:  # it has not run yet
        start, chunk, size = offset, b"", 0
    except OSError as error:
        raise Refused(f"the log of task {task} cannot be read: {error.strerror}") from error
    else:
        with open(fd, "rb", buffering=0):
            if request.fields.get("skips"):
                start, chunk = growing.read(fd, offset, limit)
            else:
                start, chunk = offset, os.pread(fd, limit, offset)
            size = os.fstat(fd).st_size
    end, ended = start + len(chunk), row.state in SETTLED
    client.reply(request.id, {"data": chunk, "offset": end, "size": size, "ended": ended})


# ── watching ─────────────────────────────────────────────────────────────────────────────────


def _watched(master: Master, client: Client, tasks: list[int]) -> list[Row]:
    """The rows to watch. Raises UnknownTask, Busy."""
    master.clients.bounds.check_stream(client.uid, len(tasks))
    return [visible(master, client, task) for task in tasks]


def follow(master: Master, client: Client, request: Request) -> None:
    fields = request.fields
    rows = _watched(master, client, fields["tasks"])
    client.reply(request.id, {})
    after = fields.get("after") or 0
    master.streams.follow(client, request.id, rows, after, bool(fields.get("progress")))


def wait(master: Master, client: Client, request: Request) -> None:
    rows = _watched(master, client, request.fields["tasks"])
    within = wait_cycles.waiter(master, client, request.fields.get("within"))
    wait_cycles.check(master, within, rows)
    client.reply(request.id, {})
    master.streams.wait(client, request.id, rows, within)


def stop(master: Master, client: Client, request: Request) -> None:
    master.streams.stop(client, request.fields["stream"])
    client.reply(request.id, {})


# ── changing ─────────────────────────────────────────────────────────────────────────────────


def cancel(master: Master, client: Client, request: Request) -> None:
    task = request.fields["task"]

    def done(outcome: Applied | StoreError) -> None:
        result = outcome.result if isinstance(outcome, Applied) else outcome
        if isinstance(result, Refused):
            client.written(request, result)
            return
        if result.state is State.RUNNING:
            master.attempts.ask(task, "cancel", f"cancelled by user {client.uid}")
        client.written(request, {"state": result.state.value, "was": result.was.value})

    master.write(Cancel(task, client.owner, time.time()), done)


def retry(master: Master, client: Client, request: Request) -> None:
    _need_whole_store(master)

    def done(outcome: Applied | StoreError) -> None:
        result = outcome.result if isinstance(outcome, Applied) else outcome
        if isinstance(result, Refused):
            client.written(request, result)
            return
        client.written(request, {"state": result.value})
        master.dispatch.kick()

    share = shares.of(master, client)
    master.write(Retry(request.fields["task"], client.owner, time.time(), share), done)


def _operators_only(client: Client) -> None:
    if not client.is_control:
        raise NotAllowed("only an operator may do this (by control.sock)")


def _how(request: Request) -> How:
    fields = request.fields
    return How(bool(fields.get("plan")), bool(fields.get("allow_held")))


def reload(master: Master, client: Client, request: Request) -> None:
    _operators_only(client)
    caller = Caller(client.number, request.id)
    master.deploy.begin(request.fields.get("release"), caller, _how(request))


def rollback(master: Master, client: Client, request: Request) -> None:
    _operators_only(client)
    found = confirmed.read(master.places.confirmed)
    if found is None or found.previous is None:
        raise DeployRefused("there is no release before this one to go back to")
    how = _how(request)._replace(goes_back=True)
    master.deploy.begin(found.previous, Caller(client.number, request.id), how)


def _meant(master: Master, word: str) -> Revision:
    """The live revision that a user names by its name, its path or the end of that: of two at the
    same path the one that drains. Raises Refused if there is none, or more than one."""
    found = [r for r in master.revisions.live() if naming.is_meant(r.path, word)]
    if not found:
        raise Refused(f"no revision {word!r} is alive; see `taskctl revisions`")
    if len(paths := {r.path for r in found}) > 1:
        raise Refused(f"{word!r} may be {' or '.join(sorted(paths))}: say more of its path")
    return found[-1]


def drain(master: Master, client: Client, request: Request) -> None:
    """What keeps a draining revision alive, and asking it to go."""
    _operators_only(client)
    found, how = _meant(master, request.fields["revision"]), request.fields.get("how") or "finish"
    name = found.name
    if found is master.revisions.current:
        raise Refused(f"{name} is the current revision: deploy another one first, then drain it")
    busy = [w for w in master.workers.of(found) if w.running is not None and w.running.attempt]
    asked = 0
    for worker in busy:
        assert worker.running is not None
        asked += how != "finish"
        if how == "checkpoint":
            master.attempts.ask(worker.running.task, "leave", f"{name} is drained")
        elif how == "now":
            master.workers.kill(worker, f"{name} was drained at once")
    client.reply(request.id, {"running": len(busy), "asked": asked})


def shutdown(master: Master, client: Client, request: Request) -> None:
    """Answered at the very end, by ``stop``."""
    _operators_only(client)
    if request.fields.get("plan"):
        client.reply(request.id, stop_of_daemon.plan(master))
    else:
        master.stop.wish(client, request.id, request.fields.get("keep"))


HANDLERS: dict[str, Handler] = {
    "submit": submit,
    "show": show,
    "list": list_tasks,
    "status": status,
    "wait": wait,
    "follow": follow,
    "log": log,
    "cancel": cancel,
    "retry": retry,
    "revisions": revisions,
    "reload": reload,
    "rollback": rollback,
    "drain": drain,
    "shutdown": shutdown,
    "stop": stop,
}

WRITES = frozenset(("submit", "cancel", "retry"))
"""Operations that are answered once they are on disk."""

COUNTS = frozenset(("status", "revisions"))
"""Operations that count what everybody has."""
