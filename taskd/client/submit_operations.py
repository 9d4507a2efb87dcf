"""How a client submits a task; for ``Client`` and ``AsyncClient``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic

from taskd.client import new_task
from taskd.client.new_task import After
from taskd.client.operations import H, Operation, Steps, field, request
from taskd.errors import ProtocolError, Refused
from taskd.model.order import IfFailed
from taskd.protocol.operations import MAX_BATCH
from taskd.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from taskd.protocol.submission import Call


class Batch(Record, Generic[H]):
    """Handles on tasks that were submitted together. ``then``, ``on_end``: on what follows them."""

    tasks: list[H]
    then: H | None
    on_end: H | None


class SubmitOperations(Generic[H]):
    """``handle``: see ``Operations``."""

    if TYPE_CHECKING:
        handle: Callable[[int], H]

    @Operation
    def submit(
        self,
        name: str,
        args: dict[str, Any] | None = None,
        *,
        key: str | None = None,
        if_exists: str | None = None,
        key_for: float | str | None = None,
        at_most: float | str | None = None,
        priority: int = 0,
        queue: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        retries: int | None = None,
        expires: float | str | None = None,
        timeout: float | str | None = None,
        after: After = (),
        if_failed: str | None = None,
        child: tuple[int, int, str, bool] | None = None,
        options: dict[str, Any] | None = None,
        named: str | None = None,
        named_for: float | str | None = None,
    ) -> Steps[H]:
        """Queue a task; once this returns, it is on disk.

        ``args``: plain data by name, at most 1 MiB. ``key``: while a task of yours with that key
        lives, it is returned instead (``created`` of the handle is False then), or as ``if_exists``
        says: "join" (this), "refuse", or "replace-waiting": one that has not begun gets these
        arguments and this time, and beside one that runs a second waits. ``key_for``: seconds, or a
        text such as "1d", for which the key is the task's also once it has succeeded. ``at_most``:
        for how long a ``delay`` may put off one that is replaced again and again (ten delays).

        ``priority``: higher goes first. ``delay``: seconds before it may start, or ``at``: the
        time, a datetime with its zone. ``expires``: seconds, or a text, after which it is cancelled
        if it has not started; ``timeout``: how long one try may run, likewise. ``after``: tasks
        (ids or handles, 1,000 at most) that are to succeed before it runs; ``if_failed``: what
        happens if one fails or is cancelled: "hold" (it waits until that one has succeeded after
        all), "cancel" or "run". ``options``: for the built-in ``command`` task, {"on_deploy":
        "checkpoint"}. ``named``: what this submission is called where it comes from (a message's
        id, say): whoever of your user submits it again within ``named_for`` (30 days), has the same
        task, whatever became of that.
        Raises UnknownTask, BadArguments, NotPlainData, KeyConflict.
        """
        how = {
            name: value for name, value in locals().items() if name not in ("self", "name", "args")
        }
        (made,) = yield from self._submitted([new_task.made(name, args, **how)])
        return made

    @Operation
    def batch(
        self, calls: Iterable[Call], *, then: Call | None = None, on_end: Call | None = None
    ) -> Steps[Batch[H]]:
        """Submit calls of tasks (``task.call(…)``) in one transaction: all of them or none.

        ``then`` runs once, when all of them have succeeded, also if one had to be retried by hand;
        ``on_end`` once, when all have ended for the first time, however. Of none: at once. Together
        they are 1,000 at most. Raises as ``submit``.
        """
        some = list(calls)
        new = [new_task.made(name, args, **how) for name, args, how in some]
        for follower, if_failed in ((then, None), (on_end, IfFailed.RUN.value)):
            if follower is not None:
                made = new_task.made(follower.name, follower.arguments, **follower.how)
                if some:
                    made |= {"after_new": list(range(len(some)))}
                    made |= {} if if_failed is None else {"if_failed": if_failed}
                new.append(made)
        if len(new) > MAX_BATCH:
            raise Refused(
                f"batch: {len(new):,} tasks with what follows; {MAX_BATCH:,} at most are possible"
            )
        handles = (yield from self._submitted(new)) if new else []
        left = handles[len(some) :]
        return Batch(
            handles[: len(some)],
            None if then is None else left.pop(0),
            None if on_end is None else left.pop(0),
        )

    def _submitted(self, new: list[dict[str, Any]]) -> Steps[list[H]]:
        made = field((yield request("submit", tasks=new)), "tasks", list)
        if len(made) != len(new) or not all(isinstance(each, dict) for each in made):
            raise ProtocolError("an answer to submit that is about other tasks")
        handles = []
        for each in made:
            handle = self.handle(field(each, "id", int))
            handle.created = field(each, "created", bool)
            handle.replaced = each.get("replaced") is True
            handles.append(handle)
        return handles
