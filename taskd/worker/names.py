"""The names of a task's steps, loops and sleeps, as its function's source has them.

Runs in the zygote, for the manifest: saved state goes by these names, so a deploy warns when they
change and the task's version does not.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

_WHERE = {"step": 0, "each": 0, "sleep": 1}
"""Methods of the context that take a name, and at which position."""


def names_in(fn: Callable[..., Any]) -> list[str] | None:
    """Sorted names, or None where the source cannot be read or a name is not written out."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(fn)))
    except (OSError, TypeError, SyntaxError):
        return None
    found = set()
    for name in _names(tree):
        if name is None:
            return None
        found.add(name)
    return sorted(found)


def _names(tree: ast.AST) -> Iterator[str | None]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        on = node.func.value
        if not isinstance(on, ast.Name) or on.id != "ctx" or node.func.attr not in _WHERE:
            continue
        position = _WHERE[node.func.attr]
        given = [k.value for k in node.keywords if k.arg == "name"]
        given += node.args[position : position + 1]
        if given:
            value = given[0].value if isinstance(given[0], ast.Constant) else None
            yield value if isinstance(value, str) else None
