"""The guard of a deploy's steps in the old master: any error in a step refuses the deploy.

An unforeseen error must not end the daemon, and a step that hangs must not hold it up for ever: a
step that takes too long is an error. The error is logged with the source line it came from. Runs in
the main thread only (see ``image.limited``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from taskd import log
from taskd.errors import DeployRefused, Error
from taskd.upgrade import image, steps

STEP_WITHIN = 10.0
"""Seconds that one step may keep the daemon from serving."""

EXEC_WITHIN = 30.0
"""Seconds for the last step: the store commits and closes, and the snapshot is written."""

_Given = ParamSpec("_Given")


class Guard:
    """``refuse`` is called with the reason, once the failed step has been left."""

    def __init__(self, refuse: Callable[[DeployRefused], None]) -> None:
        self._refuse = refuse
        self._is_inside = False

    def around(
        self, step: Callable[_Given, None], within: float = STEP_WITHIN
    ) -> Callable[_Given, None]:
        """``step``, guarded. Within a guarded step it runs under that step's guard and time."""

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
    innermost, where = error.__traceback__, ""
    while innermost is not None:
        where = f"{innermost.tb_frame.f_code.co_filename}:{innermost.tb_lineno}: "
        innermost = innermost.tb_next
    log.error("a step of the deploy failed", step=steps.here.step, why=where + told)
    return DeployRefused(f"the deploy failed at the step '{steps.here.step}': {told}")
