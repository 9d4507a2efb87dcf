"""Which part of taskd may import which, with the reason beside each rule.

The folders say in which process code runs. These rules keep the master free of user code, keep
the workers free of the store, keep clients free of server code, and keep the master's start-up,
which is the pause that every client sees in a deploy, free of slow modules. Longer than 400 lines
because each rule stands with its reason in one table.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import taskd

ROOT = Path(taskd.__file__).parent

BASE = {"errors", "record", "paths", "config"}
WIRE = BASE | {"model", "protocol", "posix"}
SERVER = WIRE | {"log", "slot", "store", "systemd", "revision", "upgrade"}

LOOP = {"master.loop"}
FLEET = LOOP | {"master.fleet"}
ATTEMPTS = FLEET | {"master.attempts"}
SCHEDULES = ATTEMPTS | {"master.schedules"}
ROOMS = SCHEDULES | {"master.recovery", "master.deploy", "master.service", "master.clients"}
"""The master's rooms; the lower ones each with those below it."""

ALLOWED: dict[str, tuple[set[str], str]] = {
    "errors": (set(), "every process needs them, so that they need nothing"),
    "record": (set(), "every process needs records, so that they need nothing"),
    "paths": ({"errors", "record"}, "daemon and clients agree on it before they read anything"),
    "config_rules": (
        {"errors", "record", "model"},
        "the format of taskd.toml, which config alone reads",
    ),
    "config_limits": ({"errors", "model"}, "limits in taskd.toml, which config alone reads"),
    "config": (
        {"errors", "record", "paths", "config_limits", "config_rules"},
        "it is read before there is a daemon",
    ),
    "log": (BASE, "anything of the daemon may log"),
    "model": (
        {"errors", "record"},
        "decisions are pure, so that they can be tested without a system",
    ),
    "protocol": (BASE | {"model"}, "bytes in, values out: no descriptor is touched here"),
    "posix": (BASE, "raw system calls know nothing of tasks"),
    "slot": (WIRE, "workers write slots and the master reads them: it can know neither"),
    "store": (WIRE, "a second store must be able to stand beside it"),
    "systemd": (BASE | {"posix"}, "the same words for any service"),
    "revision": (
        WIRE | {"systemd", "log"},
        "a release is proven before store and slots come into it",
    ),
    "upgrade": (
        WIRE | {"revision"},
        "what is carried over an exec, seen from below the master, whose parts say what of them is",
    ),
    "master": (
        set(),
        "no part of it ever imports user-facing code (tasks, worker, client): a bug in an app, or "
        "the import of one, must not be able to hurt the process that all others depend on",
    ),
    "master.loop": (
        WIRE | {"log", "store", "upgrade"},
        "what every room stands on: it knows neither processes nor tasks",
    ),
    "master.fleet": (
        SERVER | LOOP,
        "zygotes and workers are held without knowing what tasks are: those above are told",
    ),
    "master.attempts": (
        WIRE | {"log", "slot", "store"} | FLEET,
        "a task runs in a worker, so that it knows them; what a dead one left is for a room above",
    ),
    "master.schedules": (WIRE | {"log", "store"} | ATTEMPTS, "a slot becomes a task like others"),
    "master.recovery": (
        WIRE | {"log", "slot", "store", "revision"} | ATTEMPTS,
        "what is found of the dead becomes ends of attempts; no deploy has a part in that",
    ),
    "master.deploy": (
        WIRE | {"log", "slot", "store", "revision", "upgrade"} | SCHEDULES,
        "a deploy is made of living things alone: it neither recovers nor answers clients itself",
    ),
    "master.service": (
        WIRE | {"log", "store", "systemd"} | ATTEMPTS | {"master.recovery", "master.deploy"},
        "the stop ends what all of those have begun",
    ),
    "master.clients": (
        WIRE
        | {"log", "store", "systemd", "revision", "upgrade"}
        | SCHEDULES
        | {"master.deploy", "master.service"},
        "requests end in every room; no room below may depend on who asked",
    ),
    "master.master": (
        {"config", "paths", "posix"} | ROOMS,
        "the composition root: the one place that knows all rooms, and in which nothing is decided",
    ),
    "master.start": (
        SERVER - {"model", "protocol", "slot"}
        | FLEET
        | {"master.recovery", "master.master", "handoff"},
        "a start makes a master and connects it with the handoff: it is above both",
    ),
    "api": (
        WIRE,
        "what apps are written against: programs that only submit load it as well, and it is the "
        "same in a worker and in a test",
    ),
    "worker": (
        WIRE | {"slot", "tasks", "api"},
        "it never imports the store, whose sole writer is the master, nor any server code: it "
        "outlives masters and may be older than the one it talks to",
    ),
    "tasks": (
        WIRE | {"api"},
        "apps import it: what they load, each worker's memory pays for",
    ),
    "batches": (WIRE | {"api", "tasks"}, "a verb of the tasks' register"),
    "testing": (WIRE | {"api", "worker", "tasks", "client"}, "plays a worker, and the daemon"),
    "pytest_plugin": ({"testing", "tasks", "client"}, "its fixtures import what they need"),
    "client": (
        WIRE,
        "it runs in other people's programs, of other versions: the protocol is all it shares",
    ),
    "zygote": (
        WIRE | {"slot", "systemd", "revision", "worker", "tasks", "api"},
        "it becomes workers; the store and the master's decisions are not its business",
    ),
    "handoff": (
        SERVER - {"slot", "store"} | FLEET | {"master.master"},
        "it takes the whole master apart and puts it together: all of it lies below",
    ),
    "takeover": (
        {"handoff"},
        "the names by which other versions start this one: whatever can fail is behind them",
    ),
    "cli": (
        SERVER | LOOP | {"master.start", "worker", "tasks", "client", "zygote"},
        "it starts each of the others",
    ),
    "demo": (SERVER | {"api", "tasks", "client", "cli"}, "a user's programs in miniature"),
    "__main__": ({"cli"}, "python -m taskd is the command taskd"),
    "__init__": (set(), "the public names are resolved when first used"),
}

LATE: dict[tuple[str, str], str] = {
    ("batches", "client"): "taskd.batch() asks the client of the process that calls it",
    ("__init__", "batches"): "type checkers see the public names; nothing is imported",
    ("tasks", "client"): "fn.submit() makes a client in the process that calls it, never before",
    ("cli", "demo"): "taskd demo draws its bars with the command line's own code",
    ("__init__", "api"): "type checkers see the public names; nothing is imported",
    ("__init__", "client"): "likewise",
    ("__init__", "errors"): "likewise",
    ("__init__", "protocol"): "likewise",
    ("__init__", "tasks"): "likewise",
}
"""Further imports that are allowed inside a function or for type checkers alone."""

MASTER = {"master", *ROOMS, "master.master", "master.start"}

MASTER_START_UP = {*SERVER, *MASTER, "handoff", "takeover", "__init__"}

SLOW = {
    "argparse",
    "asyncio",
    "dataclasses",
    "difflib",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "psutil",
    "subprocess",
    "tempfile",
    "tomllib",
}
"""3 to 44 ms each. The master may import them in the rare function that needs one."""

PURE = {"model", "protocol"}

OUTSIDE_WORLD = {
    "asyncio",
    "multiprocessing",
    "os",
    "select",
    "selectors",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
}


class Import(NamedTuple):
    """One import: of ``target``, in ``file``; ``late``: in a function or for type checkers."""

    file: str
    line: int
    target: str
    late: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


def part(module: str) -> str:
    """The part of taskd that a module belongs to: ``taskd.store.api`` → ``store``.

    The master's are its rooms, and what stands beside them: ``taskd.master.loop.wire`` →
    ``master.loop``, ``taskd.master.start`` → ``master.start``.
    """
    names = module.split(".")[1:] or ["__init__"]
    return ".".join(names[:2]) if names[0] == "master" else names[0]


def part_of_file(file: Path) -> str:
    return "__init__" if file == ROOT / "__init__.py" else part(module_name(file))


@functools.cache
def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def targets(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if node.level:
            return ["." * node.level + module]
        return [resolved(module, name.name) for name in node.names]
    return []


def resolved(module: str, name: str) -> str:
    """What ``from module import name`` loads; a public name of taskd loads its home."""
    path = ROOT.parent.joinpath(*module.split("."), name)
    if module.startswith("taskd") and (path.is_dir() or path.with_suffix(".py").is_file()):
        return f"{module}.{name}"
    return taskd._HOME.get(name, module) if module == "taskd" else module


def walk(nodes: list[ast.stmt], late: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Every statement, and whether it runs later than its module's import."""
    for node in nodes:
        yield node, late
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for field in ("body", "orelse", "finalbody"):
            inner = getattr(node, field, [])
            yield from walk(inner, late or is_function or (for_types and field == "body"))
        for handler in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
            yield from walk(handler.body, late)


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


@functools.cache
def imports_in(file: Path) -> list[Import]:
    name = str(file.relative_to(ROOT.parent))
    return [
        Import(name, node.lineno, target, late)
        for node, late in walk(parsed(file).body, late=False)
        for target in targets(node)
    ]


def against_the_rules(of: str, found: Import) -> bool:
    if found.target.split(".")[0] != "taskd":
        return False
    to = part(found.target)
    allowed, _ = ALLOWED[of]
    return to not in allowed | {of, "__init__"} and not (found.late and (of, to) in LATE)


def test_every_part_of_taskd_has_its_rule() -> None:
    missing = {part_of_file(file) for file in sources()} - set(ALLOWED)
    assert not missing, f"say in ALLOWED what {sorted(missing)} may import, and why"


def test_the_rules_point_one_way() -> None:
    graph = {of: allowed for of, (allowed, _) in ALLOWED.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


def test_the_rules_allow_no_more_than_the_rooms_of_the_master_use() -> None:
    """In the rules for others there is room: what they may import is a matter of principle."""
    used = {(part_of_file(file), part(e.target)) for file in sources() for e in imports_in(file)}
    for of in MASTER | {"handoff", "takeover"}:
        spare = {to for to in ALLOWED[of][0] - WIRE if (of, to) not in used}
        assert not spare, f"{of} does not import {sorted(spare)}"


@pytest.mark.parametrize("of", sorted(ALLOWED))
def test_imports_point_one_way(of: str) -> None:
    wrong = [
        str(found)
        for file in sources()
        if part_of_file(file) == of
        for found in imports_in(file)
        if against_the_rules(of, found)
    ]
    assert not wrong, f"{wrong}; {of} may not: {ALLOWED[of][1]}"


def test_master_worker_and_client_never_import_one_another() -> None:
    towers = {
        "master": MASTER,
        "worker": {"worker", "tasks", "api"},  # `testing` plays the part of each
        "client": {"client"},
    }
    for tower, parts in towers.items():
        others = set().union(*(other for name, other in towers.items() if name != tower))
        for name in parts:
            assert not ALLOWED[name][0] & others


def test_imports_are_written_in_full() -> None:
    """But in the demo's releases: their package has another name where it runs."""
    own = [file for file in sources() if ROOT / "demo" / "releases" not in file.parents]
    short = [each for file in own for each in imports_in(file) if each.target.startswith(".")]
    assert not short, "\n".join(map(str, short))


def test_a_forbidden_import_is_found_however_it_is_written() -> None:
    for text in (
        "import taskd.store.api",
        "from taskd.store import api",
        "from taskd import store",
        "try:\n    import taskd.store\nexcept ImportError:\n    pass",
        "def f():\n    with x:\n        from taskd.store.api import Row",
        "match x:\n    case 1:\n        import taskd.store",
    ):
        tree = ast.parse(text)
        found = [
            Import("x", 1, target, late)
            for node, late in walk(tree.body, late=False)
            for target in targets(node)
        ]
        assert [against_the_rules("worker", each) for each in found] == [True], text


def test_only_a_late_import_may_go_by_the_late_rules() -> None:
    late = Import("x", 1, "taskd.client.blocking", late=True)
    assert not against_the_rules("tasks", late)
    assert against_the_rules("tasks", late._replace(late=False))
    assert against_the_rules("worker", late)


def test_what_the_master_starts_with_imports_no_slow_module() -> None:
    wrong = [
        str(found)
        for file in sources()
        if part_of_file(file) in MASTER_START_UP
        for found in imports_in(file)
        if not found.late and found.target.split(".")[0] in SLOW
    ]
    assert not wrong, f"{wrong}; the master's start-up is the pause: import it where it is used"


def test_what_the_master_starts_with_loads_no_slow_module_in_fact() -> None:
    """As above, but through other people's modules too, in a real interpreter."""
    modules = [module_name(f) for f in sources() if part_of_file(f) in MASTER_START_UP]
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT.parent), *sys.path]!r}\n"
        + "".join(f"import {module}\n" for module in modules)
        + f"print(*sorted({SLOW!r} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout.split()) == (0, []), ran.stderr


def module_name(file: Path) -> str:
    names = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def test_decisions_and_protocols_touch_nothing_outside() -> None:
    wrong = [
        str(found)
        for file in sources()
        if part_of_file(file) in PURE
        for found in imports_in(file)
        if found.target.split(".")[0] in OUTSIDE_WORLD
    ]
    assert not wrong, f"{wrong}; model and protocol are pure: hand the value in"
