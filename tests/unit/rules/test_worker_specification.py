"""The docstring of ``protocol.worker`` has every message and field that is sent, and no other.

What is sent is read from the code: each value that goes into a channel is followed back to the maps
that it is made of. One that cannot be followed fails the test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import taskd
from taskd.protocol import worker as specification

ROOT = Path(taskd.__file__).parent
TREES = {str(f.relative_to(ROOT)): ast.parse(f.read_text("utf-8")) for f in ROOT.rglob("*.py")}

# What stands before ``.send`` and ``.tell``: a channel, or a Zygote of the master's; a Worker of
# the master's; or what sends no message of this protocol.
CHANNELS, WORKERS = {"channel", "_channel", "zygote"}, {"worker"}
OTHERS = {"wire", "steps", "_sock", "sock", "troubles", "_troubles", "notify"}
TELLS = {("master/fleet/worker.py", "tell"), ("master/fleet/zygote.py", "tell")}
MADE_IN = {
    ("worker/control.py", "report"): ("worker/slot_recorder.py", "progress"),
    ("worker/control.py", "answer"): ("worker/plan.py", "_fields"),
    ("master/attempts/dispatch.py", "message"): ("master/attempts/dispatch.py", "_message"),
}
"""Parameters that are messages, and the function that returns them or gives them to a call."""
TYPES = {"running.asked": ("leave", "cancel")}  # that do not stand where the message is made
ERRORS = {"worker/failure.py", "model/endings.py"}  # maps with a ``type`` that are no messages
INSIDE = {
    "task": ("api/manifest_entry.py", "entry"),
    "question": ("master/deploy/plan_questions.py", "_asked_as"),
}
"""The maps inside messages and the files that they name: the function that returns them."""

Fields = dict[str, ast.expr]
Place = tuple[str, ast.FunctionDef]  # a file, and a function in it
followed: set[ast.Dict] = set()


def functions(file: str) -> list[Place]:
    return [(file, each) for each in ast.walk(TREES[file]) if isinstance(each, ast.FunctionDef)]


def maps(place: Place, value: ast.expr | None) -> list[Fields]:
    """All that a value may be, but for nothing at all."""
    match value:
        case None | ast.Constant(None) | ast.Dict([]):
            return []
        case ast.IfExp(_, one, other):
            return maps(place, one) + maps(place, other)
        case ast.BinOp(left, ast.BitOr(), right):
            return [a | b for a in maps(place, left) for b in maps(place, right)]
        case ast.Dict(keys, values):
            followed.add(value)
            found: list[Fields] = [{}]
            for key, each in zip(keys, values, strict=True):
                more = maps(place, each) if key is None else [{ast.literal_eval(key): each}]
                found = [a | b for a in found for b in more]
            return found
        case ast.Call(ast.Attribute(ast.Name("self"), name)):
            return made(place[0], name)
        case ast.Name() | ast.Attribute() if found := assigned(place, ast.unparse(value)):
            return found
        case ast.Name(name) if (place[0], name) in MADE_IN:
            return made(*MADE_IN[place[0], name])
    raise AssertionError(f"{place[0]}: {ast.unparse(value)} cannot be followed")


def made(file: str, name: str) -> list[Fields]:
    """What a function returns, or else gives to the calls in it."""
    (place,) = [each for each in functions(file) if each[1].name == name]
    nodes = list(ast.walk(place[1]))
    returned = [node.value for node in nodes if isinstance(node, ast.Return)]
    given = [value for node in nodes if isinstance(node, ast.Call) for value in node.args]
    return [each for value in returned or given for each in maps(place, value)]


def assigned(place: Place, name: str) -> list[Fields]:
    """What a variable of this function, or an attribute in this file, may be."""
    found, later = list[Fields](), Fields()
    if any(isinstance(node, ast.arg) and node.arg == name for node in ast.walk(place[1])):
        return []  # its callers say what a parameter may be
    for where in functions(place[0]) if "." in name else [place]:
        for target, value in assignments(where[1]):
            if ast.unparse(target) == name:
                found += maps(where, value)
            elif isinstance(target, ast.Subscript) and ast.unparse(target.value) == name:
                later[ast.literal_eval(target.slice)] = value
    return found + [each | {key: later[key]} for each in found for key in later]


def assignments(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, ast.expr]]:
    for node in ast.walk(function):
        match node:
            case ast.Assign([ast.Tuple(targets)], ast.Tuple(values)):
                yield from zip(targets, values, strict=True)
            case ast.Assign(targets, value):
                yield from ((target, value) for target in targets)
            case ast.For(target, ast.Tuple(values)):
                yield from ((target, value) for value in values)
            case ast.AnnAssign(target, _, ast.expr() as value) | ast.AugAssign(target, _, value):
                yield target, value
            case ast.Call(ast.Attribute(of, "update" | "setdefault" | "pop")):
                yield of, node  # cannot be followed, if it is a message


def sent() -> dict[str, list[Fields]]:
    found: dict[str, list[Fields]] = {}
    for file, function in chain.from_iterable(map(functions, TREES)):
        for node in ast.walk(function):
            match node:
                case ast.Call(ast.Attribute(of, "send" | "tell"), [*_, value]):
                    by = ast.unparse(of).rpartition(".")[2]
                    assert by in CHANNELS | WORKERS | OTHERS, f"{file}: what does {by} send?"
                    if by in OTHERS or (file, function.name) in TELLS:
                        continue
                    who, to = file.partition("/")[0], "worker" if by in WORKERS else "zygote"
                    way = f"{who.capitalize()} → {to if who == 'master' else 'master'}"
                    for each in maps((file, function), value):
                        kind = each.pop("type")
                        for name in TYPES.get(ast.unparse(kind)) or [ast.literal_eval(kind)]:
                            found.setdefault(f"{way}: {name}", []).append(each)
    return found


def shown(name: str, found: list[Fields]) -> str:
    """As in the specification: a field that is not in all of them has a question mark."""
    fields = {f if all(f in each for each in found) else f"{f}?" for f in chain(*found)}
    return f"{name}({', '.join(sorted(fields))})"


def specified() -> Iterator[str]:
    for section in (specification.__doc__ or "").split("\n\n"):
        title, _, body = section.partition("\n")
        if "→" in title or title == "Inside":
            entries = re.findall(r"^    (\w+)\(([^)]*)\)$", body, re.MULTILINE)
            assert len(entries) == len(re.findall(r"^    \S", body, re.MULTILINE)), section
            for name, fields in entries:
                yield f"{title}: {name}({', '.join(sorted(fields.replace(',', ' ').split()))})"


def test_each_message_is_sent_as_it_is_specified() -> None:
    found = sent() | {f"Inside: {name}": made(*where) for name, where in INSIDE.items()}
    assert {shown(*each) for each in found.items()} == set(specified())
    for file in TREES.keys() - ERRORS:
        for node in ast.walk(TREES[file]):
            if isinstance(node, ast.Dict) and node not in followed:
                keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
                assert "type" not in keys, f"{file}:{node.lineno}: who sends it?"


def test_the_master_needs_only_what_is_specified_as_always_sent() -> None:
    """The tables by which the master checks, against the specification."""
    sent_always: dict[str, set[str]] = {}
    for line in specified():
        title, name, *fields = re.findall(r"[\w?]+(?: → \w+)?", line)
        if title.endswith("→ master") or title == "Inside":
            always = sent_always.setdefault(name, set(fields))
            always &= set(fields)  # two of them say hello
    needed = specification.TO_MASTER | {"task": specification.TASK}
    assert needed.keys() == sent_always.keys() - {"question"}
    for name in needed:
        assert needed[name].keys() <= sent_always[name], name
