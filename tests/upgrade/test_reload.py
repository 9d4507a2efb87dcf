"""A deploy as its users see it: who goes on where, and that a bad one changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from support.daemon import Daemon

MakeDaemon = Callable[..., Daemon]

APP = """
from taskd import task
from side import gate, mark, until_asked

@task
def stays(ctx, n: int) -> list:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 0:
            gate("go")
        ctx.state["seen"] = ctx.state.get("seen", 0) + 1
    return [ctx.state["seen"], "REVISION"]

@task(on_deploy="checkpoint")
def moves(ctx, n: int) -> list:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 0:
            until_asked(ctx)
        ctx.state["seen"] = ctx.state.get("seen", 0) + 1
    return [ctx.state["seen"], "REVISION"]
"""


def two_releases(daemon: Daemon) -> Daemon:
    for name in ("r1", "r2"):
        daemon.release(name, APP.replace("REVISION", name))
    daemon.point("r1")
    return daemon.start()


def test_a_finish_task_ends_on_its_old_code_and_a_checkpoint_task_moves_to_the_new(
    new_daemon: MakeDaemon,
) -> None:
    daemon = two_releases(new_daemon())
    client = daemon.client()
    stays, moves = client.submit("stays", {"n": 5}), client.submit("moves", {"n": 5})
    for each in (stays, moves):
        daemon.reached(each.id, "0")
    told = daemon.reload("r2")
    assert (told["revision"], told["previous"]) == ("r2", "r1")
    daemon.open_gate("go")
    assert stays.result(30) == [5, "r1"]
    assert moves.result(30) == [5, "r2"]
    assert daemon.items(stays.id) == daemon.items(moves.id) == ["0", "1", "2", "3", "4"]
    assert [e.revision for e in daemon.effects(moves.id)] == ["r1", "r2", "r2", "r2", "r2"]
