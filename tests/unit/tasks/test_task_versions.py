"""What a task declares of its versions: migrations, and the names that saved state goes by."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskd import Context, task, tasks
from taskd.api.step_names import names_in
from taskd.tasks import make_task


@pytest.fixture(autouse=True)
def _own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "registered", dict(tasks.registered))


def example() -> Any:
    return make_task(lambda ctx, path: None, name="job", version=2)


# ── migrations ───────────────────────────────────────────────────────────────────────────────────


def test_migrations_are_kept_by_the_version_they_take() -> None:
    made = example()

    @made.migrate(1)
    def _(saved: Any) -> Any:
        return saved

    assert made.migrations == {1: _}


def test_two_migrations_from_one_version_are_refused_with_both_places() -> None:
    made = example()

    @made.migrate(1)
    def first(saved: Any) -> Any: ...

    with pytest.raises(ValueError, match="two migrations from version 1") as refused:

        @made.migrate(1)
        def second(saved: Any) -> Any: ...

    assert str(refused.value).count("test_task_versions.py:") == 2


@pytest.mark.parametrize("version", [0, 2, 3, "1"])
def test_a_migration_takes_an_earlier_version(version: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        example().migrate(version)


@pytest.mark.parametrize("chain", [(1, 2), (2,), (1,), ()])
def test_what_can_be_read_is_every_version_with_an_unbroken_chain(chain: tuple[int, ...]) -> None:
    made = tasks.make_task(lambda ctx: None, name="job", version=3)
    for number in chain:
        made.migrate(number)(lambda saved: None)
    reads = {(1, 2): [1, 2, 3], (2,): [2, 3], (1,): [3], (): [3]}[chain]
    assert made.entry()["reads"] == reads
    for version in range(5):
        found = made.chain(version)
        assert (found is not None) == (version in reads)
        if found is not None:
            assert found == [made.migrations[number] for number in range(version, 3)]


def test_what_cannot_migrate_is_refused_where_it_is_declared() -> None:
    async def later(saved: Any) -> None: ...

    def yields(saved: Any) -> Iterator[None]:
        yield

    for wrong in (later, yields):
        with pytest.raises(TypeError, match=f"{wrong.__name__}' must be a plain function"):
            example().migrate(1)(wrong)
    with pytest.raises(TypeError, match="a migration is a function, not int"):
        example().migrate(1)(5)


# ── names ────────────────────────────────────────────────────────────────────────────────────────


def one(ctx: Context, other: Any) -> None:
    text = """
not indented, and so in need of care: ctx.step("no", f)
"""
    ctx.step("count", len, text)
    for _ in ctx.each("rows", [1]):
        ctx.sleep(5)
        ctx.sleep(5, "nap")
        ctx.step(fn=len, name="by-name")  # type: ignore[call-arg]

        def inner() -> None:
            ctx.checkpoint()
            ctx.step("inner", inner)

    other.step("of another")
    ctx.state.get("each")
    ctx.sleep(5, name=None)


async def two(ctx: Any) -> None:
    await ctx.step("ab", len)
    async for _ in ctx.each("rows", [], total=5):
        await ctx.sleep(1, name="z")


def unnamed(path: str) -> None: ...


def computed(ctx: Context, name: str) -> None:
    ctx.step(f"step {name}", len)


def starred(ctx: Context, *both: Any) -> None:
    ctx.each(*both)


def spread(ctx: Context, more: Any) -> None:
    ctx.sleep(5, **more)


def test_an_entry_names_the_steps_and_loops_of_the_source() -> None:
    def indented(ctx: Context) -> None:
        ctx.step(
            "deep",
            len,
            """
    a text
        """,
        )

    @task(name="decorated", queue="imports")
    def decorated(ctx: Context) -> None:
        ctx.step("below", len)

    expected = {
        one: ["by-name", "count", "inner", "nap", "rows"],
        two: ["ab", "rows", "z"],
        indented: ["deep"],
        decorated.fn: ["below"],
    }
    for fn, found in expected.items():
        assert names_in(fn) == found
    assert decorated.entry()["names"] == ["below"]
    assert make_task(unnamed, name="free").entry()["names"] == []


def test_names_that_cannot_be_told_are_null(tmp_path: Path) -> None:
    for fn in (computed, starred, spread, eval("lambda ctx: ctx.step('a', len)"), len):
        assert names_in(fn) is None
    source = tmp_path / "gone.py"
    source.write_text("def job(ctx):\n    ctx.step('a', len)\n")
    scope: dict[str, Any] = {}
    exec(compile(source.read_text(), str(source), "exec"), scope)
    assert names_in(scope["job"]) == ["a"]
    for changed in ("\ndef job(ctx):\n    pass\n", "def other(ctx): pass\n", "(", "\0", "\xff"):
        source.write_bytes(changed.encode("latin-1"))
        assert names_in(scope["job"]) is None
    source.unlink()
    assert names_in(scope["job"]) is None


def test_looking_for_names_leaves_no_source_in_memory() -> None:
    """What the zygote holds, each worker holds."""
    linecache.clearcache()
    assert names_in(one) is not None
    assert not [name for name in linecache.cache if name.endswith("test_task_versions.py")]
