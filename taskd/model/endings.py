"""The end of an attempt: what it uses of the task's budgets, and the task's next state.

Pure: facts in, one ``Verdict`` out. A wish to cancel plays no part here: the store applies it in
the transaction that records the verdict, so that no wish can come between the two.
"""

from __future__ import annotations

import signal
from typing import Any

from taskd.model import retrying
from taskd.model.retrying import PUT_OFFS, Failure, Policy
from taskd.model.task import Budgets, How, State
from taskd.record import Record

CRASHES = 3
"""Deaths in a row without anything newly saved, after which a task is held."""

LONGEST_DELAY = 600.0
"""Seconds: backoff doubles from one second up to this."""

TIMED_OUT = "TimedOut"
"""The type of the error of a try whose time was over (``taskd.TimedOut``)."""

OWN_FAULT = 70
"""EX_SOFTWARE: a worker's exit status if taskd's own code in it fails (user code may break it)."""


class Facts(Record):
    """How the attempt ended.

    ``outcome``: that of its END record ("succeeded", "failed", "left", "cancelled", "sleeping",
    "held", "yielded"); "unfit" if its revision cannot take its state and another one can; "unbegun"
    if none of the task's code has run; None if its process died without an END record.
    ``progressed``: it saved something new. ``asked``: why the master asked it to leave or ended it,
    or None. ``death``: how the process ended, in words. ``failure``: what the code says of a failed
    try; None if its worker is of 0.2. ``timed_out``: why its time was over, if it was told so
    before it ended; ``if_timed_out``: what the code's manifest says of that.
    """

    outcome: str | None
    progressed: bool
    asked: str | None = None
    death: str = ""
    reason: str | None = None
    wake: float | None = None
    error: dict[str, Any] | None = None
    failure: Failure | None = None
    timed_out: str | None = None
    if_timed_out: Failure | None = None


class Verdict(Record):
    """The next stored state; ``delay`` in seconds where that is ``scheduled``. ``moves``: it was
    asked to go on elsewhere, which a pause does not stop; None: as before this attempt."""

    state: State
    budgets: Budgets
    reason: str | None = None
    delay: float | None = None
    error: dict[str, Any] | None = None
    moves: bool | None = False


def backoff(count: int) -> float:
    """Seconds to wait before try number ``count`` + 1."""
    # Ten doublings pass LONGEST_DELAY; 2 to the power of a large count is no float.
    return float(min(LONGEST_DELAY, 2.0 ** min(count - 1, 10)))


def death_in_words(status: int | None) -> str:
    """How a process ended, from its wait status (None: it is not known)."""
    if status is None:
        return "its process died; how is not known"
    if status & 0x7F:
        number = status & 0x7F
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"its process was killed by {name}"
    if status >> 8 == OWN_FAULT:
        return (
            f"its process ended by itself with exit status {OWN_FAULT}, as a worker does whose own "
            "part has failed: the daemon's log says where"
        )
    return f"its process ended by itself with exit status {status >> 8}"


def heeding_the_timeout(facts: Facts) -> Facts:
    """The facts of an attempt whose time was over: its end is a failure, unless it was another of
    the task's own. What the code has to say of it the worker has said already, if it could."""
    if facts.timed_out is None or facts.outcome not in (None, "left"):
        return facts
    message = facts.timed_out
    if facts.outcome is None:
        message = facts.asked or f"{message}; {facts.death}"
    error = {"type": TIMED_OUT, "message": message, "traceback": ""}
    return facts._replace(outcome="failed", error=error, failure=facts.if_timed_out)


def judge(
    facts: Facts, budgets: Budgets, retries_allowed: int, now: float, drawn: float = 0.0
) -> Verdict:
    """The task's next state. What was counted "in a row" begins anew once something was saved.
    ``drawn``: by chance, from 0 to below 1, for the jitter of a retry."""
    moved = budgets
    if facts.progressed:
        moved = budgets._replace(crashes=0, interruptions=0, put_off=0)
    left = moved
    if not facts.progressed:
        left = budgets._replace(interruptions=budgets.interruptions + 1)
    match facts.outcome:
        case "succeeded":
            return Verdict(State.SUCCEEDED, budgets)
        case "failed":
            return _failed(facts, budgets, retries_allowed, drawn)
        case "cancelled":
            return Verdict(State.CANCELLED, budgets, facts.reason)
        case "unfit":
            return Verdict(State.QUEUED, budgets, facts.reason, moves=True)
        case "unbegun":
            return Verdict(State.QUEUED, budgets, facts.reason, moves=None)
        case "held":
            return Verdict(State.HELD, budgets, facts.reason)
        case "sleeping" if facts.failure is not None:
            return _put_off(facts, moved, retries_allowed, now, drawn)
        case "sleeping":
            left_to_sleep = max(0.0, (facts.wake or 0.0) - now)
            return Verdict(State.SCHEDULED, moved, "sleeping", delay=left_to_sleep)
        case "yielded":
            again = backoff(max(1, left.interruptions))
            reason = facts.reason or "asked to be continued later"
            return Verdict(State.SCHEDULED, left, reason, delay=again)
        case outcome if outcome == "left" or facts.asked:
            why = facts.asked or facts.reason or "asked to leave"
            return Verdict(State.QUEUED, left, f"interrupted: {why}", moves=True)
        case _:
            return _died(facts, moved)


def how(facts: Facts, verdict: Verdict) -> How:
    """How the attempt ended, whatever became of the task."""
    match facts.outcome:
        case "sleeping" if facts.failure is not None:
            return How.PUT_OFF if verdict.error is None else How.FAILED
        case "unfit" | "unbegun":
            return How.NOT_BEGUN
        case "left":
            return How.INTERRUPTED
        case None:
            return How.INTERRUPTED if facts.asked else How.CRASHED
        case outcome:
            return How(outcome)


def if_cancelled(facts: Facts, why: str | None) -> str:
    """The reason shown of a cancelled task whose attempt ended otherwise than by cancelling.

    ``why``: the wish's reason, with who wished it; None: an earlier daemon was told."""
    wish = why or "cancelled"
    how = (facts.asked or facts.death) if facts.outcome is None else ""
    return f"{wish}; {how}" if how else wish


def in_words(error: dict[str, Any]) -> str:
    return f"{error['type']}: {error['message']}" if error["message"] else str(error["type"])


def _failed(facts: Facts, budgets: Budgets, allowed: int, drawn: float) -> Verdict:
    used = budgets.retries + 1
    error = facts.error or {"type": "Error", "message": facts.reason or "", "traceback": ""}
    what = in_words(error)
    if facts.timed_out is not None and error["type"] != TIMED_OUT:
        what = f"{facts.timed_out}; {what}"
    told = facts.failure or Failure(Policy())
    if used > allowed:
        return Verdict(State.FAILED, budgets, what, error=error)
    if told.final is not None:
        reason = f"{what}; not tried again: {told.final}"
        return Verdict(State.FAILED, budgets, reason, error=error)
    left = budgets._replace(retries=used, crashes=0, interruptions=0, put_off=0)
    reason = f"retry {used} of {allowed} after {what}" + (f" ({told.note})" if told.note else "")
    again = retrying.delay(told.policy, used, drawn) if told.after is None else told.after
    return Verdict(State.SCHEDULED, left, reason, delay=again, error=error)


def _put_off(facts: Facts, budgets: Budgets, allowed: int, now: float, drawn: float) -> Verdict:
    """The task asked to be tried again later, and not to be charged for it."""
    if budgets.put_off >= PUT_OFFS:
        error = facts.error or {"type": "Retry", "message": "", "traceback": ""}
        said = f"put off {PUT_OFFS:,} times in a row by itself; the last time: {error['message']}"
        return _failed(facts._replace(error=error | {"message": said}), budgets, allowed, drawn)
    left = budgets._replace(put_off=budgets.put_off + 1)
    times = "once" if left.put_off == 1 else f"{left.put_off:,} times"
    why = facts.reason or (in_words(facts.error) if facts.error else "")
    reason = f"put off {times}, by itself" + (f": {why}" if why else "")
    return Verdict(State.SCHEDULED, left, reason, delay=max(0.0, (facts.wake or 0.0) - now))


def _died(facts: Facts, budgets: Budgets) -> Verdict:
    crashes = budgets.crashes + 1
    left = budgets._replace(crashes=crashes)
    if crashes >= CRASHES:
        reason = f"died {crashes} times at the same place; the last time {facts.death}"
        return Verdict(State.HELD, left, reason)
    reason = f"crashed: {facts.death}"
    if crashes == 1:
        return Verdict(State.QUEUED, left, reason)
    return Verdict(State.SCHEDULED, left, reason, delay=backoff(crashes - 1))
