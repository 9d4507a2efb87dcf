"""How a task ends its try by itself: ``raise ctx.retry(after=60)``, ``ctx.fail("…")``, ``Cancel``.

Used in workers and in tests. These are BaseExceptions: the task's own ``except Exception`` and its
``retry_on`` do not take them for an error. The error that they are raised in the face of is what
the task shows.
"""

from __future__ import annotations

from typing import NoReturn

from taskd.api.retry_rules import checked_seconds


class OwnEnd(BaseException):
    """The base of all. ``why``: in words, or empty."""

    def __init__(self, why: str = "", otherwise: str = "") -> None:
        super().__init__(why or otherwise)
        self.why = why

    @property
    def error(self) -> BaseException:
        """The error that it stands for: the one that it was raised from or in the handling of."""
        cause = self.__cause__
        if cause is None and not self.__suppress_context__:
            cause = self.__context__
        return self if cause is None else cause


class Cancel(OwnEnd):
    """``raise taskd.Cancel("the customer is gone")``: the task ends as cancelled."""


class Fail(OwnEnd):
    """What ``ctx.fail`` raises: the task has failed, and is not tried again."""

    @property
    def error(self) -> BaseException:
        return self if self.why else super().error


class Retry(OwnEnd):
    """What ``ctx.retry`` raises. ``after``: in so many seconds; None: as the backoff says.
    ``counts``: it is a failure that uses a retry."""

    def __init__(self, why: str = "", after: float | None = None, counts: bool = True) -> None:
        super().__init__(why, "the task asked to be tried again")
        self.after = after
        self.counts = counts


class OwnEnds:
    """The part of a context that ends the try."""

    def _check(self, what: str) -> None:
        """See ``context.Base``."""
        raise NotImplementedError

    def retry(self, after: float | None = None, why: str = "", *, counts: bool = True) -> NoReturn:
        """End this try; there is another one in ``after`` seconds, from what is saved.

        It uses one of the task's retries: without any left, the task has failed. ``after`` stands
        in place of the backoff, which it does not change. ``counts=False`` puts the task off: it
        uses no retry, and may be repeated 1,000 times in a row, that is without anything newly
        saved. Raises by itself; ``raise ctx.retry(…)`` shows readers that nothing follows.
        """
        self._check("ctx.retry")
        if after is not None:
            after = checked_seconds("after", after)
        elif not counts:
            raise ValueError("ctx.retry(counts=False): say when, with after=SECONDS")
        raise Retry(why, after, counts)

    def fail(self, why: str = "") -> NoReturn:
        """Fail for good: the task is not tried again, however many retries it has left.

        Without ``why``, the error is the one that is being handled. Raises by itself.
        """
        self._check("ctx.fail")
        raise Fail(why)
