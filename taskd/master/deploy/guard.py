"""The guard of a deploy's steps in the old master: whatever goes wrong refuses the deploy.

An unforeseen error must not end the daemon, and a step that hangs must not hold it up for ever:
taking too long is one thing that can go wrong. It is logged with the line that it came from. Runs
in the main thread alone (see ``image.limited``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from taskd import log
from taskd.errors import DeployRefused, Error
from taskd.upgrade import image, steps

STEP_WITHIN = 10.0
"""Seconds that one of our own steps may keep the daemon from anything else."""

_Given = ParamSpec("_Given")


class Guard:
    """``refuse`` is called with why, outside of the step that failed."""

    def __init__(self, refuse: Callable[[DeployRefused], None]) -> None:
        self._refuse = refuse
        self._is_inside = False

    def around(
        self, step: Callable[_Given, None], within: float = STEP_WITHIN
    ) -> Callable[_Given, None]:
        """``step``, guarded; called by a step that is guarded already, it is just called."""

        def bounded(*args: _Given.args, **kwargs: _Given.kwargs) -> None:
            if self._is_inside:
                step(*args, **kwargs)
                return
            self._is_inside = True
            try:
                with image.limited(within):
                    step(*args, **kwargs)
            except (Exception, SystemExit) as error:
                self._refuse(_refusal(error))
            finally:
                self._is_inside = False

        return bounded


def _refusal(error: BaseException) -> DeployRefused:
    if isinstance(error, DeployRefused):
        return error
    told = str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
    log.error("a step of the deploy failed", step=steps.here.step, why=_where(error) + told)
    return DeployRefused(f"the deploy failed at the step '{steps.here.step}': {told}")


def _where(error: BaseException) -> str:
    """The innermost line that the error came through."""
    found = error.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    return "" if found is None else f"{found.tb_frame.f_code.co_filename}:{found.tb_lineno}: "
