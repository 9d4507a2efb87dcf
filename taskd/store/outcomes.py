"""What came of the operations of one batch, in few bytes: what a commit keeps of them.

Runs in the writer thread. They are written in the batch's own transaction, so that a writer whose
commit lost its answer asks what came of it and guesses at no operation. Only the process that
applied the batch asks, so that the form may change from version to version.

One flat list in Python's own form (the cheapest: each commit pays for it), in the caller's order:
for each operation a number of ``_TOLD`` and as many values as that takes. Of what is large
(arguments, saved states, results) nothing is kept: an operation that answers with such values keeps
ids, and reads the values from the tables when it is told.
"""

from __future__ import annotations

import itertools
import marshal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from taskd import errors
from taskd.model.task import State
from taskd.store.api import (
    Alter,
    Applied,
    Cancel,
    CancelExpired,
    Cancelled,
    Ended,
    Forget,
    GoOn,
    HoldKind,
    NoteSilence,
    NoteTimeout,
    Operation,
    Pause,
    Prepare,
    Purge,
    Recheck,
    Resume,
    Retry,
    Settle,
    Shift,
    Submit,
    SubmitAll,
    Submitted,
    Take,
    Wake,
)
from taskd.store.concurrency_api import SetConcurrency
from taskd.store.limit_api import Block, Release, TakeUpLimits
from taskd.store.schedule_api import Due, PauseSchedule, ResumeSchedule, RunNow, TakeUp
from taskd.store.values import Taken

_Values = Iterator[Any]


def packed(operations: Sequence[Operation], applied: Sequence[Applied]) -> bytes:
    """``applied``, which came of ``operations``."""
    flat: list[Any] = []
    for operation, each in zip(operations, applied, strict=True):
        if isinstance(each.result, errors.Refused):
            flat += (_REFUSED, each.result.code, str(each.result))
            continue
        if each.also:
            flat += (_ALSO, len(each.also), *each.also)
        if each.asked:
            flat += (_ASKED, len(each.asked), *each.asked)
        flat += _KEPT[type(operation)](each)
    return marshal.dumps(flat)


def unpacked(raw: bytes, taken: Callable[[int], Taken]) -> list[Applied]:
    """What was ``packed``. ``taken`` reads a task that was taken from the tables."""
    values = iter(marshal.loads(raw))
    found = []
    others: dict[str, Any] = {}
    for number in values:
        if number in (_ALSO, _ASKED):
            some = tuple(next(values) for _ in range(next(values)))
            others["also" if number == _ALSO else "asked"] = some
            continue
        applied, others = _TOLD[number](values)._replace(**others), {}
        if number == _TAKEN:
            applied = applied._replace(result=[taken(task) for task in applied.result])
        found.append(applied)
    return found


# How each is kept, and told again. A task that has got an event is not kept twice.

_REFUSED, _SUBMITTED, _ALL, _PLAIN, _ENDED, _CANCELLED, _STATE, _TASKS, _TAKEN, _ALSO = range(10)
_ASKED = 10

_KEPT: dict[type, Callable[[Applied], tuple[Any, ...]]] = {
    Submit: lambda each: (_SUBMITTED, *each.result),
    SubmitAll: lambda each: (_ALL, len(each.result), *itertools.chain(*each.result)),
    Take: lambda each: (_TAKEN, len(each.result), *[taken.task for taken in each.result]),
    Settle: lambda each: (
        (_PLAIN, each.task, each.result)
        if each.end is None
        else (_ENDED, each.task, each.result, each.end.state.value, each.end.reason)
    ),
    Cancel: lambda each: (_CANCELLED, each.task, *[state.value for state in each.result]),
    Alter: lambda each: (_STATE, each.task, each.result.value),
    Retry: lambda each: (_STATE, each.task, each.result.value),
    HoldKind: lambda each: (_TASKS, len(each.result), *each.result),
    Wake: lambda each: (_TASKS, len(each.result), *each.result),
    CancelExpired: lambda each: (_TASKS, len(each.result), *each.result),
    GoOn: lambda each: (_TASKS, len(each.result), *each.result),
    Recheck: lambda each: (_PLAIN, each.task, each.result),
    NoteSilence: lambda each: (_PLAIN, each.task, each.result),
    NoteTimeout: lambda each: (_PLAIN, each.task, each.result),
    Shift: lambda each: (_PLAIN, each.task, each.result),
    SetConcurrency: lambda each: (_PLAIN, each.task, each.result),
    Prepare: lambda each: (_PLAIN, each.task, each.result),
    Purge: lambda each: (_TASKS, len(each.result), *each.result),
    Forget: lambda each: (_TASKS, len(each.result), *each.result),
    Pause: lambda each: (_PLAIN, each.task, each.result),
    Resume: lambda each: (_PLAIN, each.task, each.result),
    TakeUpLimits: lambda each: (_PLAIN, each.task, each.result),
    Release: lambda each: (_PLAIN, each.task, each.result),
    Block: lambda each: (_TASKS, len(each.result), *each.result),
    TakeUp: lambda each: (_PLAIN, each.task, each.result),
    Due: lambda each: (_PLAIN, each.task, each.result),
    RunNow: lambda each: (_SUBMITTED, *each.result),
    PauseSchedule: lambda each: (_PLAIN, each.task, each.result),
    ResumeSchedule: lambda each: (_PLAIN, each.task, each.result),
}


def _refused(values: _Values) -> Applied:
    return Applied(errors.refusal(next(values), next(values)), None)


def _submitted(values: _Values) -> Applied:
    submitted = Submitted(next(values), next(values), next(values))
    return Applied(submitted, submitted.task if submitted.created else None)


def _all(values: _Values) -> Applied:
    count = next(values)
    return Applied([Submitted(*(next(values) for _ in range(3))) for _ in range(count)], None)


def _plain(values: _Values) -> Applied:
    task = next(values)
    return Applied(next(values), task)


def _ended(values: _Values) -> Applied:
    task, answer = next(values), next(values)
    return Applied(answer, task, Ended(State(next(values)), next(values)))


def _cancelled(values: _Values) -> Applied:
    task = next(values)
    return Applied(Cancelled(State(next(values)), State(next(values))), task)


def _state(values: _Values) -> Applied:
    task = next(values)
    return Applied(State(next(values)), task)


def _tasks(values: _Values) -> Applied:
    return Applied([next(values) for _ in range(next(values))], None)


_TOLD = (_refused, _submitted, _all, _plain, _ended, _cancelled, _state, _tasks, _tasks)
"""By the numbers above."""
