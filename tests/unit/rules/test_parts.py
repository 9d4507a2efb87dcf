"""How parts are put together: each takes what it uses, no imports run in circles, none forks."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

from test_imports import MASTER_START_UP, ROOT, module_name, parsed, part_of_file, sources, targets

# ── parts take what they use ─────────────────────────────────────────────────────────────────

ABOVE = ["master.loop", "master.fleet", "master.attempts", "master.schedules", "master.recovery",
         "master.deploy", "master.service", "master.clients", "master.master"]  # fmt: skip
"""From below: a part may take what stands before it, or beside it in its own room."""


def parts_named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that stands in it, with its line; also within an annotation that is a string."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield node.lineno, name.rpartition(".")[2]
            case ast.arg(annotation=ast.Constant(value=str(text))):
                yield from ((node.lineno, name) for _, name in parts_named(ast.parse(text)))


def rooms() -> list[tuple[str, Path, ast.Module]]:
    """The modules below the composition root, each with its room."""
    folders = [(f"master.{f.name}", f) for f in (ROOT / "master").iterdir() if f.is_dir()]
    return [
        (room, file, parsed(file))
        for room, folder in folders
        for file in sorted(folder.glob("*.py"))
    ]


def constructors(tree: ast.Module) -> Iterator[ast.expr]:
    """The annotations of what classes are made of: of ``__init__``, or a record's fields."""
    for made in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for each in made.body:
            if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                taken = [*each.args.posonlyargs, *each.args.args, *each.args.kwonlyargs]
                yield from (arg.annotation for arg in taken if arg.annotation is not None)
            elif isinstance(each, ast.AnnAssign):
                yield each.annotation


def test_no_part_below_the_composition_root_knows_the_master() -> None:
    wrong = [
        f"{file.relative_to(ROOT.parent)}:{line}"
        for _, file, tree in rooms()
        for line, name in parts_named(tree)
        if name == "Master"
    ]
    assert not wrong, f"{wrong}; a part takes what it uses"


def test_no_part_takes_a_part_of_a_room_above_it() -> None:
    """What it needs of one it is told, or calls by what the composition root has set."""
    homes = {"Master": {"master.master"}}
    for room, _, tree in rooms():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, set()).add(room)
    wrong = [
        f"{file.relative_to(ROOT.parent)}:{annotation.lineno} takes a {name}"
        for room, file, tree in rooms()
        for annotation in constructors(tree)
        for _, name in parts_named(ast.parse(ast.unparse(annotation).strip("'\"")))
        if name in homes and all(ABOVE.index(h) > ABOVE.index(room) for h in homes[name])
    ]
    assert not wrong, wrong


def test_a_name_of_the_master_is_found_however_it_is_written() -> None:
    for text in (
        "from taskd.master.master import Master",
        "def f(master: Master) -> None: ...",
        "def f(master: 'Master | None') -> None: ...",
        "x: master.Master",
        "taskd.master.master.Master(config)",
    ):
        assert "Master" in {name for _, name in parts_named(ast.parse(text))}, text


# ── no circles ───────────────────────────────────────────────────────────────────────────────


def for_types(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement that runs with its module's import, or is there for type checkers."""
    for node in nodes:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from for_types(getattr(node, field, []))


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Nor by way of imports for type checkers alone: what is typed by one another is one thing."""
    known = {module_name(file) for file in sources()}
    graph = {
        module_name(file): {
            target
            for node in for_types(parsed(file).body)
            for target in targets(node)
            if target in known
        }
        for file in sources()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


def test_the_master_never_forks() -> None:
    """It spawns by exec: a fork would copy its store, its thread's locks and every descriptor."""
    wrong = [
        f"{file.relative_to(ROOT.parent)}:{node.lineno}"
        for file in sources()
        if part_of_file(file) in MASTER_START_UP - {"posix"}
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Attribute)
        and node.attr in ("fork", "forkpty")
        and isinstance(node.value, ast.Name)
        and node.value.id in ("os", "pty")
    ]
    assert not wrong, wrong
