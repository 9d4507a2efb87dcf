"""``@task``: what may be one, its register, its arguments, its manifest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import taskd
import taskd.worker.command  # registers the built-in task
from taskd import BadArguments, Context, NotPlainData, task, tasks
from taskd.client import default
from taskd.model.binding import bind
from taskd.model.task import OnDeploy


@pytest.fixture(autouse=True)
def _own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "registered", dict(tasks.registered))


class FakeClient:
    """Stands for the client of this process; keeps what it was asked to submit."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    def submit(self, name: str, args: dict[str, Any], **how: Any) -> str:
        self.submitted.append((name, args, how))
        return "handle"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient()
    monkeypatch.setattr(default, "made", made)
    return made


def example() -> Any:
    @task(queue="imports", version=2, retries=5, on_deploy="checkpoint")
    def import_orders(ctx: Context, path: str, region: str = "eu", *, dry: bool = False) -> int:
        """Import them."""
        return len(path)

    return import_orders


# ── the decorator ────────────────────────────────────────────────────────────────────────────────


def test_a_bare_decorator_takes_the_functions_name_and_the_defaults() -> None:
    @task
    def bare(x: int) -> int:
        return x + 1

    assert (bare.name, bare.queue, bare.version, bare.retries) == ("bare", "default", 1, 0)
    assert bare.on_deploy is OnDeploy.FINISH
    assert tasks.registered["bare"] is bare


def test_a_task_is_still_the_plain_function() -> None:
    import_orders = example()
    assert import_orders(None, "abc") == 3
    assert import_orders.__name__ == "import_orders"
    assert import_orders.__doc__ == "Import them."
    assert "version 2" in repr(import_orders)


def test_options_are_kept() -> None:
    made = example()
    assert (made.queue, made.version, made.retries) == ("imports", 2, 5)
    assert made.on_deploy is OnDeploy.CHECKPOINT

    @task(name="other.name")
    def something() -> None: ...

    assert something.name == "other.name"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"version": 0}, ValueError, "version must be 1 or more, not 0"),
        ({"version": "2"}, TypeError, "version must be a whole number, not '2'"),
        ({"version": True}, TypeError, "version"),
        ({"retries": -1}, ValueError, "retries must be 0 or more"),
        ({"retries": 1.5}, TypeError, "retries"),
        ({"retries": True}, TypeError, "retries"),
        ({"retries": 10**9 + 1}, ValueError, "retries"),
        ({"backoff": "linear"}, TypeError, 'backoff must be "exponential", a number of seconds'),
        ({"backoff": ValueError}, TypeError, "backoff must be"),
        ({"backoff": -1}, ValueError, "backoff must be from 0"),
        ({"backoff": float("nan")}, ValueError, "backoff must be from 0"),
        ({"backoff": []}, ValueError, "1 to 100 numbers, not 0"),
        ({"backoff": [1, "2"]}, TypeError, r"backoff\[1\] must be a number"),
        ({"max_backoff": True}, TypeError, "max_backoff must be a number"),
        ({"max_backoff": 400 * 86400}, ValueError, r"366 days"),
        ({"jitter": 1.5}, ValueError, "from 0 to 1, not 1.5"),
        ({"retry_on": "ValueError"}, TypeError, "retry_on takes classes"),
        ({"give_up_on": (ValueError, 3)}, TypeError, "give_up_on takes classes"),
        ({"queue": ""}, ValueError, "queue"),
        ({"queue": 5}, TypeError, "queue must be a str"),
        ({"name": "two words"}, ValueError, "without spaces"),
        ({"name": "x" * 201}, ValueError, "1 to 200"),
        ({"on_deploy": "restart"}, ValueError, "'finish' or 'checkpoint', not 'restart'"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], error: type, says: str) -> None:
    with pytest.raises(error, match=says):

        @task(**options)
        def job() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> Any:
    yield 1


def starred(*paths: str) -> None: ...


def positional(path: str, /) -> None: ...


def keyword_context(*, ctx: Any) -> None: ...


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (generator, TypeError, "yields"),
        (async_generator, TypeError, "yields"),
        (starred, TypeError, r"\*paths cannot be kept.*take a list"),
        (positional, TypeError, "'path' can only be given by position"),
        (keyword_context, TypeError, "ctx must be an ordinary first parameter"),
        (int, TypeError, "needs a plain function, not type"),
        (5, TypeError, "needs a plain function, not int"),
        (lambda: 1, ValueError, "a lambda has no name"),
    ],
)
def test_what_cannot_be_a_task_is_told_at_once(given: Any, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        task(given)


def test_two_functions_under_one_name_are_refused_with_both_places() -> None:
    @task(name="same")
    def one() -> None: ...

    with pytest.raises(ValueError, match="two tasks are named 'same'") as refused:

        @task(name="same")
        def two() -> None: ...

    assert str(refused.value).count("test_tasks.py:") == 2
    assert tasks.registered["same"] is one


def test_the_same_function_imported_again_takes_its_own_place() -> None:
    example()
    second = example()
    assert tasks.registered["import_orders"] is second


def test_the_name_of_the_built_in_task_is_taken() -> None:
    with pytest.raises(ValueError, match=r"cannot be named 'command'.*built-in"):

        @task
        def command() -> None: ...

    assert tasks.registered["command"].place.count("taskd/worker/command.py") == 1


# ── the manifest ─────────────────────────────────────────────────────────────────────────────────


def test_an_entry_says_what_the_master_needs_and_leaves_the_context_out() -> None:
    assert example().entry() == dict.fromkeys(("schedule", "limits", "silent_after")) | {
        "version": 2,
        "queue": "imports",
        "retries": 5,
        "on_deploy": "checkpoint",
        "params": [["path", True], ["region", False], ["dry", False]],
        "any": False,
        "types": {"path": "str", "region": "str", "dry": "bool"},
        "unresolved": {},
        "reads": [2],
        "names": [],
        "retry": {"retries": 5, "delays": None, "max_backoff": 600.0, "jitter": 0.25}
        | {"function": False, "gives_up": False},
        "timeout": None,
    }


def test_a_parameter_named_ctx_is_the_context_only_if_it_is_the_first() -> None:
    @task
    def odd(path: str, ctx: str, **more: Any) -> None: ...

    assert odd.takes_context is False
    assert odd.entry()["params"] == [["path", True], ["ctx", True]]
    assert odd.entry()["any"] is True


def test_the_manifest_has_the_built_in_task_too() -> None:
    made = example()
    manifest = tasks.manifest()
    assert manifest["import_orders"] == made.entry()
    params = [["argv", True]] + [[name, False] for name in ("cwd", "env", "umask", "nice", "stdin")]
    assert manifest["command"]["params"] == params


@pytest.mark.parametrize(
    ("options", "delays", "most", "jitter", "function"),
    [
        ({"backoff": 30}, [30.0], 366 * 86400.0, 0.0, False),
        ({"backoff": (1, 10, 60)}, [1.0, 10.0, 60.0], 366 * 86400.0, 0.0, False),
        ({"backoff": 30, "jitter": 0.5, "max_backoff": 9}, [30.0], 9.0, 0.5, False),
        ({"backoff": lambda number: number}, None, 86400.0, 0.0, True),
        ({"backoff": "exponential", "max_backoff": 60}, None, 60.0, 0.25, False),
    ],
)
def test_a_backoff_of_each_form_is_told_as_numbers(
    options: dict[str, Any], delays: Any, most: float, jitter: float, function: bool
) -> None:
    @task(retries=2, **options)
    def job() -> None: ...

    assert job.entry()["retry"] == {
        "retries": 2,
        "delays": delays,
        "max_backoff": most,
        "jitter": jitter,
        "function": function,
        "gives_up": False,
    }


# ── submitting ───────────────────────────────────────────────────────────────────────────────────


def test_submit_names_the_arguments_and_leaves_defaults_to_the_code_that_runs(
    client: FakeClient,
) -> None:
    made = example()
    assert made.submit("/a.csv", dry=True) == "handle"
    chosen = {"key": "k", "priority": 5, "queue": "q", "delay": 60, "at": None, "retries": 9}
    chosen |= {"expires": 600.0, "timeout": 5.0, "after": (7,), "if_failed": "run"}
    chosen |= {"if_exists": "join", "key_for": 86400.0, "at_most": 9.0}
    assert made.using(**chosen).submit(path="/b") == "handle"
    assert client.submitted == [
        ("import_orders", {"path": "/a.csv", "dry": True}, {}),
        ("import_orders", {"path": "/b"}, chosen),
    ]


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "missing argument 'path'"),
        (("a", "b", "c"), {}, "3 arguments without a name, and it takes 2"),
        (("a",), {"path": "b"}, "'path' is given twice"),
        ((), {"pth": "a"}, r"unexpected argument 'pth' \(did you mean 'path'\?\)"),
        (("a",), {"ctx": 1}, "unexpected argument 'ctx'"),
    ],
)
def test_arguments_that_do_not_bind_are_told_before_anything_is_sent(
    client: FakeClient, args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadArguments, match=says):
        example().submit(*args, **kwargs)
    assert client.submitted == []


def test_the_context_is_no_argument_even_where_all_names_are_taken(client: FakeClient) -> None:
    @task
    def greedy(ctx: Context, **more: Any) -> None: ...

    greedy.submit(anything=1)
    with pytest.raises(BadArguments, match="'ctx' is the task's context"):
        greedy.arguments((), {"ctx": 1})


def test_one_client_is_made_when_it_is_first_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeClient] = []

    def make() -> FakeClient:
        made.append(FakeClient())
        return made[-1]

    monkeypatch.setattr(default, "made", None)
    monkeypatch.setattr("taskd.client.blocking.Client", make)
    example().submit("a")
    example().submit("b")
    assert len(made) == 1
    assert len(made[0].submitted) == 2


# ── binding ──────────────────────────────────────────────────────────────────────────────────────

ENTRY = {"params": [["path", True], ["region", False]], "any": False}


@pytest.mark.parametrize(
    ("entry", "names", "why"),
    [
        (ENTRY, ["path"], None),
        (ENTRY, ["region", "path"], None),
        (
            ENTRY,
            [],
            "missing argument 'path'; the task takes path, region (optional)",
        ),
        (
            ENTRY,
            ["path", "regoin", "x"],
            "unexpected arguments 'regoin', 'x' (did you mean 'region'?); the task takes path, "
            "region (optional)",
        ),
        (
            ENTRY,
            ["pth"],
            "missing argument 'path'; unexpected argument 'pth' (did you mean 'path'?); the task "
            "takes path, region (optional)",
        ),
        (ENTRY | {"any": True}, ["path", "whatever"], None),
        (
            {"params": [], "any": False},
            ["x"],
            "unexpected argument 'x'; the task takes no arguments",
        ),
    ],
)
def test_binding_names_what_is_missing_and_what_is_not_expected(
    entry: dict[str, Any], names: list[str], why: str | None
) -> None:
    assert bind(entry, names) == why


def test_a_wrong_argument_is_not_said_to_mean_one_that_was_given() -> None:
    assert "did you mean" not in str(bind(ENTRY, ["path", "pathh"]))


# ── types ────────────────────────────────────────────────────────────────────────────────────────

TYPED = """
from taskd import AsyncContext, Context, task

@task
def plain(path: str, region: str = "eu") -> int:
    return 1

@task(queue="q")
def with_context(ctx: Context, path: str) -> list[int]:
    total = ctx.step("count", len, path)
    reveal_type(total)
    for letter in ctx.each("letters", list(path)):
        reveal_type(letter)
    return []

@task
async def later(ctx: AsyncContext, path: str) -> None: ...

reveal_type(plain("a"))
plain.submit("a", region="b")
plain.submit(5)  # wrong
with_context.submit(path="a")
with_context.submit()  # wrong
with_context.using(key="k").submit(path=5)  # wrong
later.submit("a")
later.submit(ctx=None, path="a")  # wrong
"""


def test_submit_is_typed_by_the_function_without_its_context(tmp_path: Any) -> None:
    file = tmp_path / "typed.py"
    file.write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    found = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    said = [line for line in found.stdout.splitlines() if line.startswith(str(file))]
    wrong = {number for number, line in enumerate(TYPED.splitlines(), 1) if "# wrong" in line}
    errors = {int(line.split(":")[1]) for line in said if ": error:" in line}
    assert errors == wrong, found.stdout
    revealed = [line.split('"')[1] for line in said if "Revealed" in line]
    assert [name.replace("builtins.", "") for name in revealed] == ["int", "str", "int"]


def test_the_public_names_are_there() -> None:
    names: list[Callable[..., Any] | type] = [taskd.task, taskd.Context, taskd.AsyncContext]
    assert all(callable(name) for name in names)
    assert issubclass(taskd.Interrupted, BaseException)
    assert not issubclass(taskd.Interrupted, Exception)
    assert issubclass(NotPlainData, taskd.Error)
