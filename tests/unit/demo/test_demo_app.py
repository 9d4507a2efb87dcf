"""The demo's two releases and the plain computation that they are compared with agree."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from taskd import tasks, testing
from taskd.demo import daemon, plain, plan, verdict
from taskd.demo.plan import NEW, OLD

NAMES = ["hash_files", "compress_files"]

SOURCES = {
    "a.py": "import os\n\n\nclass A:\n    async def f(self):\n        return None if self else 1\n",
    "b.py": "",
    "c.py": "def f():\n    import sys\n\n    return sys.path or None\n",
    "sub/d.py": "# déjà vu: \u4e16\u754c def\nfor x in y:\n    pass\n",
}


@pytest.fixture
def library(tmp_path: Path) -> str:
    for name, text in {
        **SOURCES,
        "test/e.py": "x",
        "sub/f.txt": "x",
        "__pycache__/g.py": "x",
    }.items():
        path = tmp_path / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(tmp_path / "library")


@pytest.fixture
def job(library: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "library": library,
        "files": plain.library_files(library),
        "folder": str(tmp_path),
        "pace": 0.0,
    }


def app(release: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """A release's app, imported into a registry of its own: both have the same tasks."""
    if not (folder / "releases").exists():
        daemon.lay_out(folder)
    for module in [name for name in sys.modules if name.split(".")[0] == "app"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(str(folder / "releases" / release))
    monkeypatch.setattr(tasks, "registered", dict(tasks.registered))
    for name in NAMES:
        tasks.registered.pop(name, None)
    return vars(importlib.import_module("app.indexer"))


def test_the_plain_computation_goes_over_the_same_files(library: str) -> None:
    assert plain.library_files(library) == list(SOURCES)


@pytest.mark.parametrize("release", [OLD, NEW])
@pytest.mark.parametrize("name", NAMES)
def test_each_task_of_each_release_finds_what_the_plain_computation_finds(
    name: str,
    release: str,
    job: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = testing.run(app(release, monkeypatch, tmp_path)[name], {"job": job})
    should = plain.result(name, job["library"], list(SOURCES))
    assert ran.result == should | {f"by {release}": len(SOURCES)}
    assert should["bytes"] == sum(len(text.encode()) for text in SOURCES.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_task_begun_on_the_first_release_ends_right_on_the_second(
    name: str, job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = app(OLD, monkeypatch, tmp_path)[name]
    begun = testing.run(old, {"job": job}, interrupt_after=("files", 1))
    new = app(NEW, monkeypatch, tmp_path)[name]
    ended = testing.run(new, {"job": job}, resume_from=begun.saved)
    should = plain.result(name, job["library"], list(SOURCES))
    assert ended.result == should | {"by r1": 1, "by r2": 3}
    tally = verdict.parse((tmp_path / "tally").read_text())
    assert Counter(line.item for line in tally) == Counter(
        ["step list", "step report", *(f"file {name}" for name in SOURCES)]
    )
    assert [line.revision for line in tally] == ["r1"] * 2 + ["r2"] * 4


def test_the_second_release_says_which_file_is_at_hand(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = testing.run(app(OLD, monkeypatch, tmp_path)["hash_files"], {"job": job})
    new = testing.run(app(NEW, monkeypatch, tmp_path)["hash_files"], {"job": job})
    assert old.progress == (4, 4, "")
    assert new.progress == (4, 4, "0.0 MB, sub/d.py")


def test_the_plan_has_a_dozen_tasks_of_both_kinds_and_a_command() -> None:
    first, fresh = plan.works("/nowhere")
    kinds = Counter(work.on_deploy for work in first if not work.is_command)
    assert kinds == {"checkpoint": 6, "finish": 6}
    assert sum(work.is_command for work in first) == 1
    for work in [*first, fresh]:
        if not work.is_command:
            assert 20 <= work.args["job"]["pace"] * len(work.files) <= 40
            assert plain.result(work.name, plan.LIBRARY, work.files)["files"] == len(work.files)


def test_a_library_without_sources_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "library_files", lambda _: ["a.py"])
    with pytest.raises(ValueError, match="has 1 Python sources"):
        plan.works("/nowhere")
