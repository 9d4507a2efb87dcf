"""Retries: whether a failed try is followed by another one, and after how long.

Pure. A *try* lasts from a start until the task succeeds or fails: attempts that were interrupted,
crashed or slept are parts of the same try. The policy is that of the code which ran the failed try:
its worker writes it into END (``retry`` in ``protocol.saved``), so that a deploy with another
policy helps what waits. Only a number of retries that was said at submission goes before it.

Invariants: a delay depends on the number of failures that were counted, and on nothing else that
has happened to the task; it is finite, and at most ``max_backoff``, for any number. Jitter makes it
shorter, in proportion, so that it tells tasks apart at the cap as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from taskd.record import Record

FIRST = 1.0
"""Seconds before the first retry of an exponential backoff, which doubles with each further one."""

USUAL_MAX = 600.0
"""``max_backoff`` of an exponential backoff that says none."""

FUNCTION_MAX = 86400.0
"""``max_backoff`` of a function that says none."""

USUAL_JITTER = 0.25
"""``jitter`` of an exponential backoff that says none. Whoever writes numbers means them: 0."""

LONGEST = 366 * 86400.0
"""The longest delay that can be asked for."""

MOST_RETRIES = 10**9
MOST_DELAYS = 100

PUT_OFFS = 1000
"""Times in a row that a task may put itself off; one more is a failure."""

_DOUBLINGS = 64
"""More than lead from FIRST to LONGEST: 2 to the power of a large count is no float."""


class Policy(Record):
    """How often and when a failed task is tried again.

    ``delays``: before each retry, the last one before all further ones; None: exponential.
    ``max_backoff``: no delay is longer. ``jitter``: the part of a delay, up to 1, that chance may
    take away.
    """

    retries: int = 0
    delays: tuple[float, ...] | None = None
    max_backoff: float = USUAL_MAX
    jitter: float = USUAL_JITTER


class Failure(Record):
    """What the code that ran a failed try says of it, as its worker told.

    ``after``: seconds that the task asked for, in place of the backoff. ``final``: why it is not
    tried again, in words. ``note``: what was wrong with the policy. ``counts``: False if the task
    has put itself off instead, which uses no retry.
    """

    policy: Policy
    after: float | None = None
    final: str | None = None
    note: str | None = None
    counts: bool = True


def failure(told: Mapping[str, Any]) -> Failure:
    """From the map in END, which ``protocol.records`` has checked."""
    delays = told.get("delays")
    policy = Policy(
        told["retries"],
        tuple(map(float, delays)) if delays else None,
        float(told["max_backoff"]),
        float(told["jitter"]),
    )
    return Failure(
        policy, told.get("after"), told.get("final"), told.get("note"), told.get("counts", True)
    )


def after_timeout(manifest: Mapping[str, Any] | None) -> Failure | None:
    """Of a try that was ended for its timeout, where no worker could say what its code makes of it:
    from ``retry`` in the manifest. None: the manifest of 0.2 tells nothing."""
    if manifest is None:
        return None
    told = failure(manifest)
    if manifest.get("gives_up"):
        return told._replace(final="give_up_on names TimedOut")
    if manifest.get("function"):
        return told._replace(note="its backoff function could not be asked")
    return told


def allowed(said: int | None, told: Failure | None, stored: int) -> int:
    """How many retries a task may use. ``said``: at its submission; ``told``: by the worker of the
    try that failed, None if that is of 0.2; ``stored``: what the code said at submission."""
    if said is not None:
        return said
    return stored if told is None else told.policy.retries


def delay(policy: Policy, number: int, drawn: float) -> float:
    """Seconds before retry ``number`` (from 1 on); ``drawn``: by chance, from 0 to below 1."""
    if policy.delays is not None:
        base = policy.delays[min(number, len(policy.delays)) - 1]
    else:
        base = FIRST * 2.0 ** min(number - 1, _DOUBLINGS)
    return min(policy.max_backoff, base) * (1.0 - policy.jitter * drawn)


def planned(policy: Policy, retries: int) -> Iterator[float]:
    """The delays without chance, one after the other; up to MOST_DELAYS, as more cannot be read."""
    return (delay(policy, number, 0.0) for number in range(1, min(retries, MOST_DELAYS) + 1))
