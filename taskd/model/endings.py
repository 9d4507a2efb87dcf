"""What becomes of a task when an attempt is over: the three budgets, and where it goes next.

Pure: facts in, one ``Verdict`` out. The cancel wish is not looked at here; the store applies it in
the transaction that records the verdict, so that no wish can slip in between.
"""

from __future__ import annotations

import signal
from typing import Any

from taskd.model.task import Budgets, State
from taskd.record import Record

CRASHES = 3
"""Deaths in a row without anything newly saved, after which a task is held."""

LONGEST_DELAY = 600.0
"""Seconds: backoff doubles from one second up to this."""

OWN_FAULT = 70
"""EX_SOFTWARE: a worker's exit status for a fault of its own machinery (which a task may break)."""

_DOUBLINGS = 10
"""Enough to reach LONGEST_DELAY; the count itself may be any, also too large for a float."""


class Facts(Record):
    """How the attempt ended.

    ``outcome``: of its END record ("succeeded", "failed", "left", "cancelled", "sleeping",
    "held", "yielded"), "unfit" if that revision cannot take its state and another one can,
    "unbegun" if none of the task's code has run in it, or None if it died without one.
    ``progressed``: it saved something new.
    ``asked``: why we ended it ourselves, or None. ``death``: how the process ended, in words.
    """

    outcome: str | None
    progressed: bool
    asked: str | None = None
    death: str = ""
    reason: str | None = None
    wake: float | None = None
    error: dict[str, Any] | None = None


class Verdict(Record):
    """The next stored state; ``run_at`` in Unix seconds where that is ``scheduled``."""

    state: State
    budgets: Budgets
    reason: str | None = None
    run_at: float | None = None
    error: dict[str, Any] | None = None


def backoff(count: int) -> float:
    """Seconds to wait before try number ``count`` + 1."""
    return float(min(LONGEST_DELAY, 2.0 ** min(count - 1, _DOUBLINGS)))


def death_in_words(status: int | None) -> str:
    """How a process ended, from its wait status (None: nobody knows)."""
    if status is None:
        return "its process died; nobody saw how"
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


def judge(facts: Facts, budgets: Budgets, retries_allowed: int, now: float) -> Verdict:
    """Where the task goes next."""
    match facts.outcome:
        case "succeeded":
            return Verdict(State.SUCCEEDED, budgets)
        case "failed":
            return _failed(facts, budgets, retries_allowed, now)
        case "cancelled":
            return Verdict(State.CANCELLED, budgets, facts.reason)
        case "unfit" | "unbegun":
            return Verdict(State.QUEUED, budgets, facts.reason)
        case "held":
            return Verdict(State.HELD, budgets, facts.reason)
        case "sleeping":
            left = _after_progress(budgets) if facts.progressed else budgets
            return Verdict(State.SCHEDULED, left, "sleeping", run_at=facts.wake)
        case "yielded":
            return _yielded(facts, budgets, now)
        case "left":
            return _left(facts, budgets)
        case _:
            return _left(facts, budgets) if facts.asked else _died(facts, budgets, now)


def if_cancelled(facts: Facts, why: str | None) -> str:
    """The reason of a task that is to be cancelled, and whose attempt did not end so by itself.

    ``why``: who wished it; None: a daemon before this one was told."""
    wish = why or "cancelled"
    how = (facts.asked or facts.death) if facts.outcome is None else ""
    return f"{wish}; {how}" if how else wish


def _failed(facts: Facts, budgets: Budgets, allowed: int, now: float) -> Verdict:
    used = budgets.retries + 1
    error = facts.error or {"type": "Error", "message": facts.reason or "", "traceback": ""}
    what = f"{error['type']}: {error['message']}" if error["message"] else str(error["type"])
    if used > allowed:
        return Verdict(State.FAILED, budgets, what, error=error)
    left = budgets._replace(retries=used, crashes=0, interruptions=0)
    reason = f"retry {used} of {allowed} after {what}"
    return Verdict(State.SCHEDULED, left, reason, run_at=now + backoff(used), error=error)


def _after_progress(budgets: Budgets) -> Budgets:
    """It is at another place now: what was counted 'in a row' begins anew."""
    return budgets._replace(crashes=0, interruptions=0)


def _interrupted(facts: Facts, budgets: Budgets) -> Budgets:
    if facts.progressed:
        return _after_progress(budgets)
    return budgets._replace(interruptions=budgets.interruptions + 1)


def _left(facts: Facts, budgets: Budgets) -> Verdict:
    why = facts.asked or facts.reason or "asked to leave"
    return Verdict(State.QUEUED, _interrupted(facts, budgets), f"interrupted: {why}")


def _yielded(facts: Facts, budgets: Budgets, now: float) -> Verdict:
    left = _interrupted(facts, budgets)
    again = now + backoff(max(1, left.interruptions))
    reason = facts.reason or "asked to be continued later"
    return Verdict(State.SCHEDULED, left, reason, run_at=again)


def _died(facts: Facts, budgets: Budgets, now: float) -> Verdict:
    before = _after_progress(budgets) if facts.progressed else budgets
    crashes = before.crashes + 1
    left = before._replace(crashes=crashes)
    if crashes >= CRASHES:
        reason = f"died {crashes} times at the same place; the last time {facts.death}"
        return Verdict(State.HELD, left, reason)
    reason = f"crashed: {facts.death}"
    if crashes == 1:
        return Verdict(State.QUEUED, left, reason)
    return Verdict(State.SCHEDULED, left, reason, run_at=now + backoff(crashes - 1))
