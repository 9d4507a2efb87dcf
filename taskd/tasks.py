"""``@task``: makes a function a task, which taskd can run; and the register of all tasks.

Used wherever an app's modules are imported: in zygotes and workers, which run the functions, and
in the app's own programs, which submit them.

Invariants
    * A name stands for one function: a second function of the same name is refused with an error
      that has both places. The same function may be imported again.
    * ``model.binding`` decides from ``Task.entry`` alone whether arguments bind, here as in the
      daemon.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack, overload

from taskd.api import checks, schedule_options
from taskd.api.annotations import Annotations, Reading
from taskd.api.limits import Limited, LimitOptions
from taskd.api.retry_rules import Backoff, Exceptions, RetryRules
from taskd.errors import BadArguments
from taskd.model.arguments import mistyped
from taskd.model.binding import bind
from taskd.model.routing import readable
from taskd.model.task import COMMAND, OnDeploy
from taskd.protocol.submission import Call

if TYPE_CHECKING:
    from datetime import datetime

    from taskd.api.async_context import AsyncContext
    from taskd.api.context import Context
    from taskd.api.saved_state import SavedState
    from taskd.client.blocking import TaskHandle
    from taskd.client.new_task import After

P = ParamSpec("P")
R = TypeVar("R")
Migration = Callable[["SavedState"], "SavedState | None"]
M = TypeVar("M", bound=Migration)


class Task(Generic[P, R]):
    """A function that taskd can run. Calling it calls the plain function, here and now.

    ``fn``: that function. ``takes_context``: its first parameter is ``ctx``. ``is_async``: it is
    an ``async def``. ``migrations``: by the version whose saved state each one takes. ``rules``:
    what follows a failure. ``limited``: which limits hold.
    """

    def __init__(
        self,
        fn: Callable[..., R],
        name: Any,
        queue: Any,
        version: Any,
        on_deploy: Any,
        check: Any,
        rules: RetryRules,
        timeout: Any,
        silent_after: Any,
        schedule: Mapping[str, Any],
        limited: LimitOptions,
    ) -> None:
        """The options are those of ``task``, and are checked here."""
        self.fn = fn
        self.name = checks.checked_name("name", name)
        self.queue = checks.checked_name("queue", queue)
        self.version = checks.checked_count("version", version, 1)
        self.rules = rules
        self.retries = rules.policy.retries
        self.timeout = checks.checked_limit("timeout", timeout)
        self.silent_after = checks.checked_limit("silent_after", silent_after)
        if on_deploy not in ("finish", "checkpoint"):
            raise ValueError(f"on_deploy must be 'finish' or 'checkpoint', not {on_deploy!r}")
        self.on_deploy = OnDeploy(on_deploy)
        self.is_async = inspect.iscoroutinefunction(fn)
        self.migrations: dict[int, Migration] = {}
        self.signature, self.takes_context = checks.signature(fn, self.name)
        self.limited = Limited(self.name, limited, self.signature)
        self._annotations = Reading(fn, self.signature, check)
        self.schedule = schedule_options.checked(self.name, schedule, self.unbound(()))
        self.__doc__ = fn.__doc__
        self.__name__ = getattr(fn, "__name__", self.name)
        self.__qualname__ = getattr(fn, "__qualname__", self.name)
        self.__module__ = fn.__module__
        self.__wrapped__ = fn

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task '{self.name}' version {self.version}, {self.place}>"

    @property
    def place(self) -> str:
        """Where the function is defined: file and line."""
        return checks.place(self.fn)

    @property
    def annotations(self) -> Annotations:
        """Those of its parameters; of none, if arguments are not to be checked."""
        return self._annotations.now()

    def entry(self) -> dict[str, Any]:
        """This task's entry in the manifest (see ``protocol.worker``)."""
        from taskd.api import manifest_entry

        return manifest_entry.entry(self)

    def unbound(self, names: Iterable[str]) -> str | None:
        """Why arguments of these ``names`` do not bind, in words; None if they bind."""
        given = set(names)
        why = bind(checks.takes(self.signature), given)
        if why is None and self.takes_context and "ctx" in given:
            why = "'ctx' is the task's context and not an argument"
        return why

    def chain(self, version: int) -> list[Migration] | None:
        """The migrations from the state of ``version`` to that of this function, in order.

        Empty if it is the same version; None if a migration is missing or ``version`` is later.
        """
        if version not in readable(self.version, self.migrations):
            return None
        return [self.migrations[number] for number in range(version, self.version)]

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call, by name, as plain data. Raises BadArguments if they do not bind,
        or are not of the types that the parameters say."""
        found = checks.by_name(self.name, self.signature, args, kwargs)
        found = self.annotations.plain(found)
        self.check_arguments(found)
        return found

    def check_arguments(self, args: Mapping[str, Any]) -> None:
        """Raises BadArguments if they do not bind, or are not of the types of the parameters."""
        if (why := self.unbound(args)) is not None:
            raise BadArguments(f"task '{self.name}': {why}")
        if (why := mistyped(self.annotations.forms, args)) is not None:
            raise BadArguments(f"{self.name}: {why}")

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle:
        """Have the daemon run it with these arguments; returns once the submission is on disk.

        Raises BadArguments, NotPlainData and whatever ``Client.submit`` raises.
        """
        return Submission(self).submit(*args, **kwargs)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call:
        """What ``submit`` would submit, for ``taskd.batch``. Raises BadArguments."""
        return Submission(self).call(*args, **kwargs)

    def using(
        self,
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
        name: str | None = None,
        detached: bool = False,
    ) -> Submission[P]:
        """How to submit: ``fn.using(key="orders:7", priority=5).submit(path=…)``.

        ``key``: a second submission with it finds the first task until it ends, or, with
        ``key_for`` ("1d"), for so long; ``if_exists``: "join" (this), "refuse" or
        "replace-waiting", with ``at_most`` (see ``Client.submit``). ``priority``:
        higher ones run first. ``queue``: instead of the task's own. ``delay``: seconds before it
        may run, or ``at``: the time, a datetime with its zone. ``retries``: instead of what the
        code says, whatever later code will say. ``expires``: seconds, or a text such as "10min",
        after which it is cancelled if it has not started; ``timeout``: how long a try may run.
        ``after``, ``if_failed``: see ``Client.submit``; ``name``, ``detached``: ``Context.submit``.
        """
        how = {name: value for name, value in locals().items() if name != "self"}
        return Submission(self, **checks.how(how))

    def migrate(self, version: int) -> Callable[[M], M]:
        """Make the decorated function the one that takes what ``version`` saved to the next.

            @import_orders.migrate(1)                       # saved by version 1 → version 2
            def _(saved):
                saved.args.setdefault("region", "eu")
                saved.rename("lines", "rows")

        It gets a ``taskd.SavedState`` of copies, which it changes and may return. It runs when a
        task with state of an older version begins its next attempt, and in the plan of a deploy,
        for each such task: it must have no effect but on its argument. The saved state is replaced
        only once the task saves again. Where nothing is saved, it may still rewrite the arguments.

        Raises ValueError for a version that it cannot have had, or that has one; or TypeError.
        """
        checks.migration_version(self.name, version, self.version)

        def decorate(fn: M) -> M:
            checks.check_migration(fn)
            earlier = self.migrations.get(version)
            if earlier is not None and checks.place(earlier) != checks.place(fn):
                raise ValueError(
                    f"task '{self.name}' has two migrations from version {version}: "
                    f"{checks.place(earlier)} and {checks.place(fn)}"
                )
            self.migrations[version] = fn
            return fn

        return decorate


class PlainTask(Task[P, R]):
    """Its function takes no context; for type checkers."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)


class ContextTask(Task[P, R]):
    """A task whose function takes the context first; for type checkers."""

    def __call__(self, ctx: Context, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(ctx, *args, **kwargs)


class AsyncContextTask(Task[P, R]):
    """The same for an ``async def``."""

    def __call__(self, ctx: AsyncContext, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(ctx, *args, **kwargs)


class Submission(Generic[P]):
    """A task and how to submit it, as ``Task.using``."""

    __slots__ = ("_how", "_task")

    def __init__(self, task: Task[P, Any], **how: Any) -> None:
        self._task = task
        self._how = how

    def of(self, parent: int, attempt: int) -> tuple[str, Submission[P]]:  # see Context.submit
        name = self._how.get("name") or self._task.name
        child = (parent, attempt, name, self._how.get("detached", False))
        return name, Submission(self._task, **self._how, child=child)

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle:
        """As ``Task.submit``."""
        from taskd.client import default

        name, arguments, how = self.call(*args, **kwargs)
        return default.client().submit(name, arguments, **how)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call:
        """As ``Task.call``."""
        how = {key: value for key, value in self._how.items() if key not in ("name", "detached")}
        return Call(self._task.name, self._task.arguments(args, kwargs), how)


class Decorator:
    """``@task(…)`` with options: takes the function."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @overload
    def __call__(self, fn: Callable[Concatenate[Context, P], R]) -> ContextTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[AsyncContext, P], R]) -> AsyncContextTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R]) -> PlainTask[P, R]: ...
    def __call__(self, fn: Callable[..., Any]) -> Task[..., Any]:
        made = make_task(fn, **self._options)
        register(made)
        return made


@overload
def task(fn: Callable[Concatenate[Context, P], R], /) -> ContextTask[P, R]: ...
@overload
def task(fn: Callable[Concatenate[AsyncContext, P], R], /) -> AsyncContextTask[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> PlainTask[P, R]: ...
@overload
def task(**options: Unpack[schedule_options.TaskOptions]) -> Decorator: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    version: int = 1,
    on_deploy: str = "finish",
    check: bool = True,
    retries: int = 0,
    backoff: Backoff = "exponential",
    max_backoff: float | None = None,
    jitter: float | None = None,
    retry_on: Exceptions | None = None,
    give_up_on: Exceptions = (),
    timeout: float | str | None = None,
    silent_after: float | str | None = None,
    **more: Unpack[schedule_options.MoreOptions],
) -> Any:
    """Make a function a task; bare, or with options.

    ``name``: the function's by default. ``queue``: where it waits. ``version``: to be raised when
    what the function saves no longer fits earlier code. ``on_deploy``: "finish" runs on on the old
    code, "checkpoint" leaves at the next safe point and continues on the new.
    ``check``: whether arguments must be of the types that the parameters are annotated with.

    ``retries``: tries after one that raised. ``backoff``: how long each of them waits:
    "exponential" (1 s, 2 s, 4 s …), a number of seconds, a list of them (the last one stands for
    all further ones), or a function of the retry's number. ``max_backoff``: no wait is longer (by
    default 10 minutes for "exponential", a day for a function). ``jitter``: the part of a wait, 0
    to 1, that chance may take away (0.25 for "exponential", else 0). ``retry_on``: only these
    exceptions are tried again; ``give_up_on``: these are not, whatever else is said.
    ``timeout``: how long a try may run (seconds, or "10min"); then it fails with ``TimedOut``.
    ``silent_after``: how long it may report nothing (progress, steps, its log) before that is told.

    ``concurrency``, ``rate``, ``burst``, ``limit``, ``limits``: see ``LimitOptions``.
    ``cron``, ``every`` and what goes with them: when it is run by itself, see ``ScheduleOptions``.

    Raises TypeError and ValueError for what cannot be a task.
    """
    options = {name: value for name, value in locals().items() if name != "fn"}
    options["schedule"], options["limited"] = schedule_options.apart(options.pop("more"))
    decorator = Decorator(options)
    return decorator if fn is None else decorator(fn)


def make_task(
    fn: Callable[..., Any],
    *,
    name: str | None = None,
    queue: str = "default",
    version: int = 1,
    on_deploy: str = "finish",
    check: bool = True,
    timeout: float | str | None = None,
    silent_after: float | str | None = None,
    schedule: Mapping[str, Any] = MappingProxyType({}),
    limited: LimitOptions | None = None,
    **rules: Any,
) -> Task[..., Any]:
    """The Task for ``fn``, not registered. ``rules``: as ``RetryRules`` takes them. Raises
    TypeError and ValueError as ``task``."""
    checks.check_task(fn)
    called = fn.__name__ if name is None else name
    if called == "<lambda>":
        raise ValueError("a lambda has no name that others could submit it by: use def")
    return Task(
        fn,
        called,
        queue,
        version,
        on_deploy,
        check,
        RetryRules(**rules),
        timeout,
        silent_after,
        schedule,
        limited or {},
    )


registered: dict[str, Task[..., Any]] = {}
"""Every task of this process by its name. The built-in one is there once ``worker.command`` is
imported."""


def register(made: Task[..., Any], *, built_in: bool = False) -> None:
    """Add a task. Raises ValueError, naming both places, if its name stands for another."""
    if made.name == COMMAND and not built_in:
        raise ValueError(
            f"a task cannot be named '{COMMAND}' ({made.place}): that is the built-in task which "
            "runs a program"
        )
    earlier = registered.get(made.name)
    if earlier is not None and earlier.place != made.place:
        raise ValueError(
            f"two tasks are named '{made.name}': {earlier.place} and {made.place}. Give one of "
            "them another name: @task(name=…)"
        )
    registered[made.name] = made


def manifest() -> dict[str, Any]:
    """The tasks as a revision tells them to the master (``tasks`` in ``protocol.worker``)."""
    return {name: each.entry() for name, each in registered.items()}
