"""Whole taskds of several versions, each with a Python of its own that has it.

OLD is 0.2.0 as it was built (tests/golden); NEW is the code under test; NEXT is the code under
test as a later version may be: it says one thing more wherever a format may grow, and takes
``rollback`` and ``plan`` in ``reload`` for requests of its own version.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import venv
import zipfile
from pathlib import Path

import taskd

OLD, NEW, NEXT = "0.2.0", taskd.__version__, "0.99.0"

GOLDEN = Path(__file__).parents[1] / "golden"


class Python:
    """A virtual environment at ``path`` whose taskd stands in ``library``, to be replaced at will.

    Everything else comes from the environment that runs the tests; nothing is downloaded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.library = path / "library"
        self.program = str(path / "bin" / "python")

    def make(self) -> Python:
        venv.create(self.path, with_pip=False, symlinks=True)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(self.path)}))
        others = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        lines = [str(self.library), *others]
        (site / "first.pth").write_text("".join(f"{line}\n" for line in lines))
        return self

    def install(self, version: str) -> Python:
        """As ``pip install -U`` does: the files of the one before are gone."""
        shutil.rmtree(self.library, ignore_errors=True)
        self.library.mkdir()
        if version == OLD:
            with zipfile.ZipFile(GOLDEN / f"taskd_supervisor-{OLD}-py3-none-any.whl") as wheel:
                wheel.extractall(self.library)
            self._stand_beside_the_tests()
            return self
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(taskd.__file__).parent, self.library / "taskd", ignore=unwanted)
        if version == NEXT:
            doctor(self.library / "taskd")
        self._stand_beside_the_tests()
        return self

    def _stand_beside_the_tests(self) -> None:
        """An installed taskd does not heed ``$TASKD_FAULT`` (see ``upgrade.steps``); this one is
        to."""
        (self.library / "tests").mkdir()
        os.symlink(Path(__file__).parents[1] / "handoff", self.library / "tests" / "handoff")

    def be_of(self, release: str) -> None:
        """Be the release's own Python."""
        os.symlink(self.path, os.path.join(release, ".venv"))


CHANGES: dict[str, list[tuple[str, str]]] = {
    "__init__.py": [(f'__version__ = "{NEW}"', f'__version__ = "{NEXT}"')],
    "protocol/control.py": [
        ("\nNEWEST = 4\n", "\nNEWEST = 5\n"),
        ('\n_BROUGHT_BY = "0.3"\n', '\n_BROUGHT_BY = "0.4"\n'),
    ],
    "protocol/server_side.py": [
        ('{"version": self.version,', '{"tomorrow": [1], "version": self.version,'),
        ('{"id": id, "ok": ok}', '{"id": id, "ok": ok | {"tomorrow": {"a": 1}}, "tomorrow": 1}'),
    ],
    "protocol/client_side.py": [
        ('{"hello": {"low": OLDEST', '{"tomorrow": 1, "hello": {"tomorrow": 1, "low": OLDEST'),
        ('{"id": number, "op": op,', '{"id": number, "op": op, "tomorrow": 1,'),
    ],
    "protocol/operations.py": [
        ("SINCE: dict[str, int] = {", 'SINCE: dict[str, int] = {"rollback": 5, '),
        ('"plan": Field(bool), "allow', '"plan": Field(bool, since=5), "allow'),
    ],
    "protocol/worker.py": [("\nVERSION = 3\n", "\nVERSION = 4\n")],
    "protocol/boot.py": [("dumps(boot._asdict())", 'dumps({"tomorrow": 1} | boot._asdict())')],
    "worker/channel.py": [("frames.encode(message)", 'frames.encode(message | {"tomorrow": [1]})')],
    "master/loop/wire.py": [
        ("frames.encode(message)", 'frames.encode(message | {"tomorrow": [1]})')
    ],
    "upgrade/snapshot.py": [
        ('{"version": VERSION}', '{"version": VERSION, "tomorrow": {"a": [1]}}')
    ],
    "revision/confirmed.py": [("""f'{{"release": """, """f'{{"tomorrow": 1, "release": """)],
    "revision/proved.py": [('told = {"release"', 'told = {"tomorrow": 1, "release"')],
    "master/fleet/revision.py": [
        ('"number": self.number,', '"number": self.number, "tomorrow": 1,')
    ],
    "master/fleet/worker.py": [('"id": self.id,', '"id": self.id, "tomorrow": 1,')],
    "master/fleet/running.py": [('"task": self.task,', '"task": self.task, "tomorrow": 1,')],
    "master/clients/client.py": [
        ('"number": self.number,', '"number": self.number, "tomorrow": 1,')
    ],
    "master/clients/streams.py": [('"id": self.id,', '"id": self.id, "tomorrow": 1,')],
    "master/deploy/deploy.py": [('"phase": phase.value,', '"phase": phase.value, "tomorrow": 1,')],
    "slot/layout.py": [
        ("dumps({k: v for k, v in header", 'dumps({"tomorrow": 1} | {k: v for k, v in header'),
        ("dumps([int(kind), fields])", 'dumps([int(kind), fields | {"tomorrow": 1}])'),
    ],
    "protocol/saved.py": [('(fields, "saved state")', '(fields | {"tomorrow": 1}, "saved state")')],
    "store/connection.py": [
        (
            "            schema.create(connection)\n",
            "            schema.create(connection)\n"
            "        columns = connection.execute('pragma table_info(tasks)').fetchall()\n"
            "        if not any(column[1] == 'tomorrow' for column in columns):\n"
            "            connection.execute('alter table tasks add column tomorrow text')\n"
            "            connection.execute('create table tomorrow (a integer)')\n",
        ),
    ],
}
"""What NEXT does otherwise, by file: each text stands there exactly once."""


def doctor(package: Path) -> None:
    for name, changes in CHANGES.items():
        text = (package / name).read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{name}: {old!r} stands there {text.count(old)} times"
            text = text.replace(old, new)
        (package / name).write_text(text)
