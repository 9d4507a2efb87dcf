"""The protocol of ``control.sock`` and ``submit.sock``: version 1, its specification and both ends.

A connection carries frames (see ``frames``) both ways. A frame's body is one CBOR map with text
keys and without tags; whatever users save or pass (arguments, results) travels inside as a byte
string in plain-data encoding (see ``data``), so that a frame can be read without building it.

Who the peer is, its socket says (SO_PEERCRED), never a message.

Hello
    The client sends ``{"hello": {"low": 1, "high": 1}}``: the versions it speaks. The daemon
    answers ``{"hello": {"version": 1, "taskd": "0.1.0", "uid": 1000, "control": false}}`` with
    the one version for this connection, or ``{"error": …}`` and closes. A first frame that is
    not a hello closes the connection.

Requests and replies
    The client sends ``{"id": n, "op": "show", …}`` with n growing by one from 1; it may send
    more before a reply comes (at most MAX_PENDING; past that the daemon stops reading).
    Replies come in the order of the requests: ``{"id": n, "ok": {…}}`` or
    ``{"id": n, "error": {"code": "unknown-task", "message": "…"}}`` (codes: ``errors.REFUSALS``).
    Requests take effect in their order too: one that reads sees what those before it wrote.

Streams
    ``follow`` and ``wait`` answer ``ok`` at once, in order, and then send ``{"id": n, "item":
    {…}}`` at any time between other replies, and last ``{"id": n, "end": {…}}``. The client ends
    one early with the request ``stop`` ``{"stream": n}``. An item of ``follow`` is either a
    numbered event ``{"event": 17, "task": 3, "at": 1.5, "state": "running", "attempt": 1,
    "revision": "r41", "reason": null}``, every one once and in order, also over a deploy, or
    unnumbered progress ``{"progress": {"task": 3, "done": 5, "total": 9, "note": ""}}``, of which
    only the latest matters. After a lost connection the client asks again with ``after`` = the
    last number it saw.

Operations (fields beside ``id`` and ``op``; ``?`` marks optional ones)
    submit    tasks: [{submission: bytes16, name, args: bytes, key?, queue?, priority?, delay?,
              options?}] (1 to MAX_BATCH) → {tasks: [{id: 17, created: true}]}; all or none.
              ``submission`` is random, made by the client; sending one again returns the same
              task. ``options`` is for the built-in ``command`` task: {"on_deploy": "checkpoint"}.
    show      task → {task: TASK}
    list      state?, queue?, name?, limit?, before? → {tasks: [TASK…]} newest first
    status    → {pid, revision, release, confirmed, symlink, states: {…}, queues: {name:
              {running, queued, concurrency}}, taskd, note}
    wait      tasks: [id…] → stream of {"task": TASK}, one as each is settled; end {}
    follow    tasks: [id…], after? (0), progress? (false) → stream as above; end {} once every
              one is settled and its events are sent
    log       task, offset?, limit? → {data: bytes, offset, size, ended}
    cancel    task → {state, was}; the wish is on disk before the reply
    retry     task → {state}
    revisions → {revisions: [{revision, path, hash, state, workers, running, waiting}…]}
    reload    release? → {revision, previous, pause: seconds}; control.sock only; the reply comes
              from the new master
    stop      stream → {}

    TASK is {id: 17, name, queue, state, shown, reason, attempt, revision, progress, result:
    bytes or null, error: {type, message, traceback} or null, submitted, started, ended, owner,
    priority, key, run_at}; times are Unix seconds; ``shown`` is the state with ``retrying`` and
    ``resuming`` told apart.

Limits
    A frame is at most frames.LIMIT bytes, nested at most data.DEPTH deep. On submit.sock a peer
    sees and changes its own tasks alone; another's id answers like one that does not exist.
"""

from __future__ import annotations

VERSION = 1
"""The newest version this code speaks; it also speaks every one from LOWEST on."""

LOWEST = 1

MAX_PENDING = 1024
"""Requests of one connection that may wait for their replies."""

MAX_BATCH = 1000
"""Tasks in one submit request."""
