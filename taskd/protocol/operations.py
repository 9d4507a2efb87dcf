"""The fields that each request of the client protocol may have: one table, and the check by it.

Pure; used by both ends. ``control`` describes the operations. The daemon checks the requests that
it receives, where other fields are a breach of the protocol; the client library checks those that
it is about to send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskd.model.duration import LONGEST, SHORTEST
from taskd.model.moment import LATEST
from taskd.model.order import MOST_AFTER, IfFailed
from taskd.model.retrying import MOST_RETRIES
from taskd.model.task import OnDeploy, State
from taskd.protocol import fields, submission
from taskd.protocol.data import ARGUMENTS_LIMIT
from taskd.protocol.fields import Field, Fields

MAX_BATCH = 1000
"""Tasks in one submit request."""

MAX_WATCHED = 10_000
"""Tasks in one follow or wait request."""

MOST_REMOVED = 100
"""Tasks in one remove request."""

MAX_LISTED = 1000
"""Tasks that one list request may ask for."""

MOST_CHANGED = 100
"""Tasks in one change request."""

_ID_MAX = 2**63 - 1
_PRIORITY_MAX = 2**31 - 1


_TASK_ID = Field(int, 1, _ID_MAX, required=True)
_TASK_IDS = Field(list, 1, MAX_WATCHED, required=True, each=_TASK_ID)
_NAME = Field(str, 1, 200)
_STATE = Field(str, among=frozenset(each.value for each in State))
_PRIORITY = Field(int, -_PRIORITY_MAX, _PRIORITY_MAX)

_SUBMISSION = Field(bytes, submission.SIZE, submission.SIZE, required=True)
_SCHEDULE: Fields = {"name": _NAME._replace(required=True)}

_PLACE = Field(int, 0, MAX_BATCH, required=True)

_NEW_TASK: Fields = {
    "submission": _SUBMISSION,
    "submission_kind": Field(str, among=frozenset((submission.TIMED, submission.NAMED))),
    "named_for": Field(float, SHORTEST, LONGEST, since=4),
    "name": _NAME._replace(required=True),
    "args": Field(bytes, 1, ARGUMENTS_LIMIT, required=True),
    "key": Field(str, 1, 500),
    "if_exists": Field(str, among=submission.IF_EXISTS, since=4),
    "key_for": Field(float, SHORTEST, LONGEST, since=4),
    "at_most": Field(float, SHORTEST, LONGEST, since=4),
    "queue": _NAME,
    "priority": _PRIORITY,
    "delay": Field(float, 0, 100 * 366 * 86400.0),
    "due": Field(float, 0, LATEST, since=4),
    "expires": Field(float, SHORTEST, LONGEST, since=4),
    "timeout": Field(float, SHORTEST, LONGEST, since=4),
    "retries": Field(int, 0, MOST_RETRIES, since=4),
    "after": Field(list, 1, MOST_AFTER, each=_TASK_ID, since=4),
    "after_new": Field(list, 1, MAX_BATCH, each=_PLACE, since=4),
    "parent": Field(int, 1, _ID_MAX, since=4),
    "parent_attempt": Field(int, 1, _ID_MAX, since=4),
    "child": Field(str, 1, 200, since=4),
    "detached": Field(bool, since=4),
    "if_failed": Field(str, among=frozenset(each.value for each in IfFailed), since=4),
    "options": Field(
        dict, each={"on_deploy": Field(str, among=frozenset(each.value for each in OnDeploy))}
    ),
}

_SCOPE: Fields = {"queue": _NAME, "task": _NAME}

_DEPLOY: Fields = {"plan": Field(bool), "allow_held": Field(bool)}

OPERATIONS: dict[str, Fields] = {
    "submit": {
        "tasks": Field(list, 1, MAX_BATCH, required=True, each=Field(dict, each=_NEW_TASK)),
    },
    "show": {"task": _TASK_ID},
    "list": {
        "state": _STATE,
        "queue": _NAME,
        "name": _NAME,
        "owner": Field(int, 0, 2**32 - 1, since=4),
        "key": Field(str, 1, 500, since=4),
        "revision": Field(str, 1, 200, since=4),
        "since": Field(float, since=4),
        "until": Field(float, since=4),
        "text": Field(str, 1, 200, since=4),
        "limit": Field(int, 1, MAX_LISTED),
        "results": Field(bool),
        "before": Field(int, 1, _ID_MAX),
    },
    "status": {},
    "wait": {"tasks": _TASK_IDS, "within": Field(str, 1, 4096)},
    "follow": {
        "tasks": _TASK_IDS,
        "after": Field(int, 0, _ID_MAX),
        "token": Field(str, 0, 4096),
        "progress": Field(bool),
    },
    "log": {
        "task": _TASK_ID,
        "offset": Field(int, 0, _ID_MAX),
        "limit": Field(int, 1, 1024 * 1024),
        "skips": Field(bool),
    },
    "attempts": {"task": _TASK_ID},
    "why": {"task": _TASK_ID},
    "cancel": {"task": _TASK_ID},
    "retry": {
        "task": _TASK_ID,
        "from_start": Field(bool, since=4),
        "step": Field(str, 1, 1000, since=4),
    },
    "change": {
        "tasks": _TASK_IDS._replace(high=MOST_CHANGED),
        "do": Field(str, among=frozenset(("cancel", "retry", "alter")), required=True),
        "only": _STATE,
        "from_start": Field(bool),
        "step": Field(str, 1, 1000),
        "queue": _NAME,
        "priority": _PRIORITY,
        "delay": Field(float, 0, LONGEST),
        "due": Field(float, 0, LATEST),
    },
    "checkpoint": {"task": _TASK_ID},
    "pause": {**_SCOPE, "seconds": Field(float, 0, 100 * 366 * 86400.0), "why": Field(str, 0, 500)},
    "resume": _SCOPE,
    "set_concurrency": {
        "queue": _NAME._replace(required=True),
        "concurrency": Field(int, 1, 100_000),
        "seconds": Field(float, 0, 100 * 366 * 86400.0),
        "why": Field(str, 0, 500),
    },
    "remove": {"tasks": _TASK_IDS._replace(high=MOST_REMOVED)},
    "compact": {},
    "schedules": {},
    "pause_schedule": _SCHEDULE,
    "resume_schedule": {**_SCHEDULE, "catch_up": Field(str, among=frozenset(("once",)))},
    "run_schedule": {**_SCHEDULE, "submission": _SUBMISSION, "force": Field(bool)},
    "revisions": {},
    "reload": {"release": Field(str, 1, 4096), **_DEPLOY},
    "rollback": _DEPLOY,
    "drain": {
        "revision": Field(str, 1, 4096, required=True),
        "how": Field(str, among=frozenset(("finish", "checkpoint", "now"))),
    },
    "shutdown": {"plan": Field(bool), "keep": Field(bool)},
    "stop": {"stream": _TASK_ID},
}

STREAMS = frozenset(("follow", "wait"))
"""Operations that answer with a stream."""

SINCE: dict[str, int] = {
    "attempts": 4,
    "why": 4,
    "pause": 4,
    "resume": 4,
    "change": 4,
    "set_concurrency": 4,
    "checkpoint": 4,
    "remove": 4,
    "compact": 4,
    **dict.fromkeys(("schedules", "pause_schedule", "resume_schedule", "run_schedule"), 4),
}
"""The version of the protocol that brought an operation, where not every one that is spoken has it.
"""


def needs(op: str, message: dict[str, Any]) -> tuple[int, str]:
    """The version of the protocol that a request takes, and what of it does, in words.

    A daemon that does not know a field does the rest of the request: where the field asks for less
    than that, it must not be sent.
    """
    found = [(SINCE.get(op, 0), op)]
    for name, value in message.items():
        field = OPERATIONS[op][name]
        found.append((field.since, f"{op} with {name}"))
        if isinstance(field.each, Field) and isinstance(field.each.each, Mapping):
            inner = field.each.each
            found += [(inner[each].since, f"{op} with {each}") for item in value for each in item]
    return max(found, key=lambda each: each[0])


def check(op: str, message: dict[str, Any]) -> dict[str, Any]:
    """The known fields of ``message``, each as the table wants it.

    Unknown fields are left out, as is an optional one that is null. ``op`` is in the table.
    Raises errors.ProtocolError naming the operation and the field.
    """
    return fields.check(message, OPERATIONS[op], f"{op}: ")
