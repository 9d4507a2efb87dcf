"""What a worker answers to a deploy's plan, and what becomes of it then."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from forked import fork, in_child

from taskd import Context, SavedState, task, tasks
from taskd.posix import process
from taskd.protocol import data, frames
from taskd.protocol.boot import Boot
from taskd.protocol.saved import Kind, Saved
from taskd.slot.writer import SlotWriter
from taskd.worker import plan, process as worker
from taskd.worker.channel import Channel
from taskd.worker.control import Control
from taskd.worker.eventloop import EventLoop
from taskd.worker.loglimit import LogLimit
from taskd.worker.surroundings import Surroundings


@pytest.fixture(autouse=True)
def _own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "registered", dict(tasks.registered))


def register(**options: Any) -> Any:
    @task(name="job", **options)
    def job(ctx: Context, path: str) -> None: ...

    return job


def asked(directory: Path, items: list[dict[str, Any]], probe: str | None = None) -> str:
    path = directory / "w.plan"
    path.write_bytes(cbor2.dumps({"probe": probe, "items": items}))
    return str(path)


def item(
    ref: int, name: str = "job", saved: Saved | bytes | None = None, version: int = 1, **args: Any
) -> dict[str, Any]:
    raw = saved.encode() if isinstance(saved, Saved) else saved
    return {
        "ref": ref,
        "name": name,
        "args": data.encode(args or {"path": "a"}),
        "saved": raw,
        "version": version,
    }


def state(version: int) -> Saved:
    saved = Saved(version)
    saved.state = {"n": 1}
    return saved


def test_each_item_is_answered_for_and_the_file_is_removed(tmp_path: Path) -> None:
    register(version=2)
    path = asked(tmp_path, [item(4), item(9, pth="a"), item(5, name="gone", saved=state(1))])
    answer = plan.answer(path)
    assert answer.fields["checked"] == 3
    assert answer.fields["migrated"] == 0
    assert answer.fields["probe"] is None
    assert answer.fields["refused"] == [
        [
            9,
            "its arguments no longer bind: missing argument 'path'; unexpected argument 'pth' "
            "(did you mean 'path'?); the task takes path",
        ],
        [5, "there is no task 'gone'"],
    ]
    assert answer.reusable is True
    assert not os.path.exists(path)


def test_migrations_run_on_what_is_saved_and_on_arguments_alone(tmp_path: Path) -> None:
    ran: list[dict[str, Any]] = []

    def to_2(saved: SavedState) -> None:
        ran.append(dict(saved.state))
        saved.args["path"] = saved.args.pop("pfad")
        if saved.state.get("n") == 3:
            raise ValueError("three")

    register(version=2).migrate(1)(to_2)
    three = state(1)
    three.state["n"] = 3
    items = [
        item(1, pfad="a"),
        item(2, pfad="a", saved=state(1)),
        item(3, pfad="a", saved=three),
        item(4, path="a", saved=state(2)),
        item(5, path="a", version=2),
    ]
    answer = plan.answer(asked(tmp_path, items))
    assert ran == [{}, {"n": 1}, {"n": 3}]
    assert (answer.fields["checked"], answer.fields["migrated"]) == (5, 3)
    assert [ref for ref, _ in answer.fields["refused"]] == [3]
    assert "the migration of 'job' from version 1 to 2 (to_2, " in answer.fields["refused"][0][1]
    assert answer.fields["refused"][0][1].endswith("raised ValueError: three")
    assert answer.reusable is False


def test_state_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    register(version=2)
    future = data.encode(data.decode(state(2).encode()) | {"format": 99})
    answer = plan.answer(
        asked(tmp_path, [item(1, saved=future), item(2, saved=b"x"), item(3, saved=state(3))])
    )
    whys = dict(answer.fields["refused"])
    assert "cannot be read: saved by a newer taskd (format 99)" in whys[1]
    assert "cannot be read: not plain data" in whys[2]
    assert whys[3] == "the state of 'job' was saved by version 3, this code is version 2"


@pytest.mark.parametrize("punched", [False, True])
def test_what_a_running_task_has_saved_is_read_from_its_slot(tmp_path: Path, punched: bool) -> None:
    seen: list[dict[str, Any]] = []
    register(version=2).migrate(1)(lambda saved: seen.append(saved.steps | saved.state))
    stored = state(1)
    slot = SlotWriter.create(str(tmp_path), b"w" * 16, process.identity(), "r1")
    slot.append(Kind.BEGIN, {"task": 7, "attempt": 2, "version": 1, "name": "job", "at": 0.0})
    slot.append(Kind.STEP, {"path": "count", "value": data.encode(3)})
    if punched:
        stored.apply(Kind.STEP, {"path": "count", "value": data.encode(3)})
        slot.snapshot(stored.encode())
    slot.append(Kind.CHECKPOINT, {"state": data.encode({"n": 2})})
    there = {"slot": slot.name, "task": 7, "attempt": 2}
    questions = [
        item(1, saved=state(1)) | there,
        item(2, saved=state(1)) | there | {"attempt": 3},  # the slot is another attempt's by now
        item(3, saved=state(1)) | there | {"slot": "gone.slot"},
    ]
    assert plan.answer(asked(tmp_path, questions)).fields["refused"] == []
    assert seen == [{"count": 3, "n": 2}, {"n": 1}, {"n": 1}]
    os.close(slot.fd)


def test_a_migration_that_exits_does_not_take_the_worker_with_it(tmp_path: Path) -> None:
    register(version=2).migrate(1)(lambda saved: sys.exit(3))
    answer = plan.answer(asked(tmp_path, [item(1, saved=state(1))]))
    assert answer.fields["refused"][0][1].endswith("called sys.exit(3)")


def test_the_answer_fits_in_a_frame_however_much_is_refused(tmp_path: Path) -> None:
    def fail(saved: SavedState) -> None:
        raise ValueError("x" * 10_000)

    register(version=2).migrate(1)(fail)
    answer = plan.answer(asked(tmp_path, [item(n) for n in range(8000)]))
    assert len(answer.fields["refused"]) == 8000
    assert all("migration of 'job'" in why for _, why in answer.fields["refused"])
    frames.encode({"type": "planned", **answer.fields})


def test_a_plan_that_cannot_be_read_is_told_and_not_died_of(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\xa1")
    for path in (str(broken), str(tmp_path / "missing")):
        answer = plan.answer(path)
        assert f"cannot read what the plan asks in {path}" in answer.fields["probe"]
        assert "\n" not in answer.fields["probe"]


# ── the app's own probe ──────────────────────────────────────────────────────────────────────────

PROBES = """
import sys
from enum import Enum

class checks:
    @staticmethod
    def good(): return "yes"

def nothing(): pass
def empty(): return []
def raises(): raise RuntimeError("no\\ndatabase")
def exits(): sys.exit("no")
async def later(): pass
def takes(argument): pass
"""


@pytest.fixture
def probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "probes_of_app.py").write_text(PROBES)
    (tmp_path / "probes_that_exit.py").write_text("raise SystemExit(4)")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("probes_of_app", None)


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        ("probes_of_app:nothing", None),
        ("probes_of_app:checks.good", None),
        ("probes_of_app:empty", "returned []"),
        ("probes_of_app:raises", "raised RuntimeError: no database"),
        ("probes_of_app:exits", "called sys.exit('no')"),
        ("probes_of_app:later", "is async: it must be a plain function, which is done when it"),
        ("probes_of_app:takes", "raised TypeError: takes() missing 1 required"),
        ("probes_of_app:missing", "raised AttributeError: module 'probes_of_app' has no"),
        ("probes_that_exit:any", "called sys.exit(4)"),
        ("no_such_module:any", "raised ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_probe_is_called_and_its_failure_told_in_one_line(
    tmp_path: Path, probes: None, probe: str, why: str | None
) -> None:
    answer = plan.answer(asked(tmp_path, [], probe))
    found = answer.fields["probe"]
    assert found is None if why is None else found.startswith(why)
    assert answer.reusable is False


# ── a worker, from order to answer ───────────────────────────────────────────────────────────────


def served(directory: Path, path: str) -> list[dict[str, Any]]:
    """What a worker tells its master when it gets that plan, and is then retired."""

    def under_test() -> list[dict[str, Any]]:
        ours, theirs = socket.socketpair()
        orders = frames.encode({"type": "plan", "path": path})

        def be_worker() -> None:
            ours.close()
            slot = SlotWriter.create(str(directory), b"w" * 16, process.identity(), "r2")
            control = Control(Channel(theirs), slot)
            control.start()
            boot = Boot(b"", "", "", "r2", [], "auto", "", "")
            surroundings, loop = Surroundings(), EventLoop()
            shared = worker.Worker(boot, control, slot, LogLimit(), frozenset(), surroundings, loop)
            worker._serve(shared)
            worker._drop(slot, control)

        fork(be_worker)
        theirs.close()
        ours.sendall(orders)
        heard: list[dict[str, Any]] = []
        decoder = frames.Decoder()
        while chunk := ours.recv(65536):
            decoder.feed(chunk)
            while (message := decoder.next()) is not None:
                heard.append(message)
                if [each["type"] for each in heard] == ["idle", "planned", "idle"]:
                    ours.sendall(frames.encode({"type": "retire"}))
        return heard

    return in_child(under_test)


@pytest.mark.parametrize("migrates", [False, True])
def test_a_worker_answers_and_says_whether_it_may_be_used_for_tasks(
    tmp_path: Path, migrates: bool
) -> None:
    made = register(version=2)
    if migrates:
        made.migrate(1)(lambda saved: None)
    heard = served(tmp_path, asked(tmp_path, [item(1, saved=state(2)), item(2)]))
    counts = {"checked": 2, "migrated": int(migrates)}
    assert heard == [
        {"type": "idle", "reusable": True},
        {"type": "planned", **counts, "refused": [], "mistyped": [], "probe": None},
        {"type": "idle", "reusable": not migrates},
    ]
    assert list(tmp_path.glob("*.slot")) == []
