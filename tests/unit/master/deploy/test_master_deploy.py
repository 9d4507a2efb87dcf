"""Deploys that fail, at whatever point: nothing has changed, and the master serves on."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, PlayedClient
from descriptors import descriptors
from forked import fork, hang, in_child
from support import processes
from support.answers import Reading
from support.waiting import eventually

from taskd.errors import DeployRefused
from taskd.handoff import old
from taskd.master.deploy.guard import Guard
from taskd.master.deploy.plan_questions import Done, Planning, Sources
from taskd.master.fleet import respawn, zygotes
from taskd.master.fleet.revision import Revision
from taskd.master.loop.life import LifeEvent, LifeState
from taskd.model.revision import RevisionState
from taskd.model.task import State
from taskd.model.upgrade import Phase
from taskd.model.zygote import ZygoteState
from taskd.protocol.client_side import Reply


@pytest.fixture
def in_bench(tmp_path: Path) -> Callable[[Callable[[Bench], Any]], Any]:
    """Runs a function with a serving master in a child of the test: it changes signal handlers."""

    def run(function: Callable[[Bench], Any]) -> Any:
        def under_test() -> Any:
            old.FLUSH_WITHIN = 30.0  # a disk that others use, too
            bench = Bench(tmp_path)
            bench.master.catch_signals()
            bench.serve()
            try:
                return function(bench)
            finally:
                bench.close()

        return in_child(under_test)

    return run


def about_to_exec(bench: Bench) -> None:
    bench.master.life.take(LifeEvent.HOLD)
    bench.master.deploy.progress.phase = Phase.EXECING
    bench.master.revisions.target = bench.revision


def try_to_exec(bench: Bench) -> str:
    """The handoff with a Python that is not there: everything is done but the exec itself."""
    about_to_exec(bench)
    bench.master.deploy.python = "/does/not/exist"
    try:
        old.exec_new_image(bench.master)
    except (OSError, DeployRefused) as error:
        return str(error)
    return "it returned"


def serves(bench: Bench) -> bool:
    client = PlayedClient(bench)
    client.ask("status")
    bench.until(lambda: [e for e in client.talk() if isinstance(e, Reply)])
    return bench.submit() > 0


def test_a_failed_exec_leaves_signals_timer_descriptors_and_store_as_they_were(
    in_bench: Any,
) -> None:
    def under_test(bench: Bench) -> dict[str, Any]:
        bench.submit()
        bench.fork()
        before = len(descriptors())
        why = try_to_exec(bench)
        return {
            "why": why,
            "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
            "timer": signal.getitimer(signal.ITIMER_REAL),
            "inherited": [e.name for e in bench.master.carried() if os.get_inheritable(e.fd)],
            "leaked": len(descriptors()) - before,
            "serves": serves(bench),
        }

    found = in_bench(under_test)
    assert "No such file" in found.pop("why")
    assert found == {
        "blocked": set(),
        "timer": (0.0, 0.0),
        "inherited": [],
        "leaked": 0,
        "serves": True,
    }


def test_a_signal_that_was_caught_before_a_failed_exec_is_acted_on_after_it(
    in_bench: Any,
) -> None:
    """It was taken out of the wakeup pipe, where alone it was."""

    def under_test(bench: Bench) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        try_to_exec(bench)
        bench.master.deploy.progress.phase = Phase.IDLE
        bench.until(lambda: bench.master.life.is_stopping)
        return True

    assert in_bench(under_test)


def test_an_end_that_could_not_be_recorded_yet_keeps_the_exec_from_losing_it(
    in_bench: Any,
) -> None:
    def under_test(bench: Bench) -> str:
        bench.master.intake.unrecorded = 1
        return try_to_exec(bench)

    assert "could not be recorded" in in_bench(under_test)


def test_any_failure_of_the_handoff_refuses_the_deploy(in_bench: Any) -> None:
    """Also one that nobody thought of: all is undone by then."""

    def under_test(bench: Bench) -> tuple[str, str, bool]:
        about_to_exec(bench)
        bench.master.life.note = "\ud800"  # no text that a snapshot could hold
        bench.master.deploy._exec()
        return bench.master.deploy.progress.phase.value, bench.master.life.note, serves(bench)

    phase, note, still_serves = in_bench(under_test)
    assert (phase, still_serves) == ("idle", True)
    assert "the deploy failed at the step 'take the snapshot'" in note


def test_a_frozen_master_claims_nothing_until_it_thaws(bench: Bench) -> None:
    bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    bench.end(worker, order)
    bench.until(lambda: worker.of("noted"))
    worker.slot.reset()
    bench.master.life.take(LifeEvent.HOLD)
    second = bench.submit()
    worker.send({"type": "idle", "reusable": True})
    for _ in range(10):
        bench.turn()
    row = Reading(bench.master.storage.reader).task(second)
    assert row is not None
    assert row.state is State.QUEUED
    bench.master.life.take(LifeEvent.RELEASE)
    bench.master.dispatch.kick()
    bench.until(lambda: len(worker.of("run")) == 2)


def test_a_stop_ends_a_deploy_that_is_under_way(bench: Bench) -> None:
    for phase in (Phase.PROVING, Phase.QUIESCING, Phase.EMPTYING):
        bench.master.deploy.progress.phase = phase
        is_held = phase is not Phase.PROVING
        bench.master.life.state = LifeState.HOLDING if is_held else LifeState.SERVING
        bench.master.stop.begin()
        assert bench.master.deploy.progress.phase is Phase.IDLE
        assert bench.master.life.note == "last deploy refused: the daemon stops"


def outcomes(bench: Bench, path: str, within: float = 30.0, **app: Any) -> list[Any]:
    """What a proof comes to; filled as the loop turns."""
    found: list[Any] = []
    settings = bench.master.config.app._replace(**app)
    bench.master.proofs.begin(path, settings, within, found.append)
    return found


def test_a_release_whose_python_is_not_there_is_refused_once(bench: Bench) -> None:
    found = outcomes(bench, bench.revision.path, python="missing/python")
    assert [str(each) for each in found] == [
        f"r1: cannot start: [app] python = 'missing/python': {bench.revision.path}/missing/python "
        "is not there or may not be executed"
    ]
    assert not bench.master.proofs.under_way


def twin(bench: Bench) -> Revision:
    """A proof's own revision that turns out to be the live one."""
    started = next(r for r in bench.master.revisions if r is not bench.revision)
    bench.master.zygotes.told(started, {"type": "identity", "hash": bench.revision.fingerprint})
    return started


def test_a_live_revision_that_does_not_answer_is_refused_in_time_and_let_live(
    bench: Bench,
) -> None:
    killed: list[int | None] = []
    bench.master.orphans.kill = killed.append  # type: ignore[method-assign]
    found = outcomes(bench, bench.revision.path, within=0.3)
    started = twin(bench)
    bench.until(lambda: found)
    assert isinstance(found[0], DeployRefused)
    assert "its zygote does not answer after" in str(found[0])
    assert bench.revision.state is RevisionState.CURRENT
    assert os.getpid() not in killed, "the live one's zygote, played by the test"
    assert started.zygote.pid in killed
    del bench.master.orphans.kill  # type: ignore[method-assign]
    bench.master.orphans.kill(started.zygote.pid)


def test_a_live_revision_that_answers_is_given_instead(bench: Bench) -> None:
    found = outcomes(bench, bench.revision.path)
    twin(bench)
    bench.until(lambda: bench.zygote.of("ping"))
    bench.zygote.send({"type": "pong"})
    bench.until(lambda: found)
    assert found == [bench.revision]


def test_a_target_whose_zygote_dies_during_the_deploy_is_refused(bench: Bench) -> None:
    new = bench.master.revisions.add("/srv/r2", bench.master.config.app)
    new.state, new.zygote.pid = RevisionState.PROVEN, 1 << 22
    new.zygote.state = ZygoteState.CONNECTED
    bench.master.revisions.target, bench.master.deploy.progress.phase = new, Phase.QUIESCING
    bench.master.life.take(LifeEvent.HOLD)
    bench.master.zygotes.on_death(new, 9)
    assert bench.master.deploy.progress.phase is Phase.IDLE
    assert "its zygote died during the deploy" in bench.master.life.note
    bench.until(lambda: new not in list(bench.master.revisions))
    assert serves(bench)


def test_a_zygote_that_has_closed_its_connection_is_ended(tmp_path: Path) -> None:
    """It could fork for nobody: a new one takes its place, and its workers are ours."""

    def under_test() -> bool:
        bench = Bench(tmp_path)
        bench.serve()

        def deaf() -> None:
            bench.zygote.sock.close()
            hang()

        pid = bench.revision.zygote.pid = fork(deaf)
        bench.zygote.sock.close()
        bench.until(lambda: bench.revision.zygote.channel is None)
        bench.until(lambda: not processes.is_alive(pid))
        bench.close()
        return True

    assert in_child(under_test)


def test_a_zygote_that_dies_is_started_again_only_for_tasks_or_as_the_current_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(
        zygotes.Zygotes, "start", lambda self, revision, _: started.append(revision.name)
    )
    old = bench.master.revisions.add("/srv/r0", bench.master.config.app)
    old.state = RevisionState.DRAINING
    old.tasks = dict(bench.revision.tasks)
    bench.master.dispatch.kick()
    for _ in range(5):
        bench.turn()
    assert started == []


def test_a_start_that_is_told_to_stop_while_the_app_imports_is_no_failure(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "r1").mkdir()
    (tmp_path / "r1" / "app.py").write_text(
        "import pathlib, signal\n"
        f"pathlib.Path({str(tmp_path / 'importing')!r}).touch()\n"
        "signal.pause()\n"
    )
    config = tmp_path / "taskd.toml"
    config.write_text(f'[app]\nrelease = "{tmp_path}/r1"\nmodules = ["app"]\n')
    names = ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "LOGS_DIRECTORY")
    places = {name: str(tmp_path / name) for name in names}
    command = [sys.executable, "-m", "taskd", "run", "--config", str(config)]
    with subprocess.Popen(command, env=os.environ | places) as daemon:
        try:
            eventually((tmp_path / "importing").exists)
            daemon.terminate()
            assert daemon.wait(30) == 0
        finally:
            daemon.kill()


def test_what_a_dead_zygote_leaves_to_us_is_killed_and_what_was_there_before_us_is_not(
    tmp_path: Path,
) -> None:
    def under_test() -> tuple[bool, bool]:
        respawn.FIRST = 3600.0  # none takes its place while we look
        before = fork(hang)
        bench = Bench(tmp_path)
        bench.master.children.not_ours = frozenset({before})
        bench.serve()
        read, write = os.pipe()

        def zygote() -> None:
            def leftover() -> None:
                os.setsid()
                os.write(write, str(os.getpid()).encode())
                hang()

            fork(leftover)
            hang()

        pid = bench.revision.zygote.pid = fork(zygote)
        left = int(os.read(read, 20))
        os.kill(pid, signal.SIGKILL)

        def reaped() -> bool:
            bench.master.children.reap()
            return processes.state_and_parent(left) is None

        bench.until(reaped)
        result = bench.revision.zygote.pid is None, processes.is_alive(before)
        bench.close()
        return result

    assert in_child(under_test) == (True, True)


def plan(bench: Bench, done: Done) -> Planning:
    master = bench.master
    sources = Sources(
        master.loop,
        master.places,
        master.storage,
        master.revisions,
        master.workers,
        master.attempts,
        master.pauses,
        master.schedules,
        master.dispatch.limits,
    )
    return Planning(sources, bench.revision, Guard(lambda error: done(error)), done)


def test_what_a_plan_asks_is_nobody_elses_to_read(bench: Bench) -> None:
    """Everybody's arguments stand in that file, for as long as the worker needs to take it."""
    bench.submit(password="hunter2")
    bench.run(bench.fork())
    answered: list[object] = []
    before = os.umask(0)
    try:
        plan(bench, answered.append)
        worker = bench.fork()
        path = bench.until(lambda: worker.of("plan"))[0]["path"]
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    finally:
        os.umask(before)
    with open(path, "rb") as file:
        assert b"hunter2" in file.read()
    worker.send({"type": "planned", "refused": [], "probe": None})
    bench.until(lambda: answered)
