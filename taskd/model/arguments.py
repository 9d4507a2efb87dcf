"""Whether the values of a task's arguments are of the types that its parameters say.

Pure. Used by the master when a task is submitted, by ``fn.submit`` in the caller, and in the plan
of a deploy. Values are checked and never converted: what is stored is what was passed.

A *form* says what a parameter takes, as plain values, so that it can stand in a manifest (``types``
in ``protocol.worker``; ``api.annotations`` makes it):

    "int", "float", "str", "bool", "bytes", "list", "dict", "datetime", "Secret", "None"
                            exactly that type; but an int will do for a float
    ["list", item]          a list, each item of the form ``item``
    ["dict", key, value]    likewise; null in place of a form: anything
    ["or", [form…]]         one of these
    ["literal", [value…]]   one of these values, type for type
    ["fields", class, [[name, required]…]]
                            a dict with the fields of that dataclass

A form that is not known here, of a newer taskd, takes anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

Place = tuple[str, Any]

SHOWN = 60
"""Characters of a value, a key or a class's name that an error shows."""

LISTED = 10
"""Values of a literal that an error names."""

_TYPES = {
    name: {name} for name in ("int", "str", "bool", "bytes", "list", "dict", "datetime", "Secret")
} | {"float": {"float", "int"}, "None": {"NoneType"}}
"""The names of the types that each form of one word takes. By name: most of these types are slow to
import, and plain data has no other types of these names."""

_NONE: set[str] = set()

_KEY = "each key of "


def mistyped(types: Mapping[str, Any], args: Mapping[str, Any]) -> str | None:
    """Which argument is not of its parameter's type, in words; None if each is.

    ``types``: by the parameter's name, the form that it takes. ``args``: plain data.
    """
    for name, form in types.items():
        if name in args and (why := _fault(form, args[name], name)) is not None:
            return why
    return None


def _fault(form: Any, value: Any, where: str) -> str | None:
    match form:
        case str() if form in _TYPES and type(value).__name__ not in _TYPES[form]:
            return _must(where, form, value)
        case ["or", [*forms]]:
            return _fault_in_each(forms, form, value, where)
        case ["literal", [*allowed]]:
            if not any(type(value) is type(each) and value == each for each in allowed):
                return _must(where, form, value)
        case ["list", item]:
            if type(value) is not list:
                return _must(where, form, value)
            places = ((f"{where}[{index}]", each) for index, each in enumerate(value))
            return _fault_within(item, value, places)
        case ["dict", key, item]:
            if type(value) is not dict:
                return _must(where, form, value)
            keys = ((_KEY + where, each) for each in value)
            items = ((f"{where}[{_shown(name)}]", each) for name, each in value.items())
            return _fault_within(key, value, keys) or _fault_within(item, value.values(), items)
        case ["fields", str(), [*fields]] if all(map(_is_pair, fields)):
            if type(value) is not dict:
                return _must(where, form, value)
            return _fault_in_fields(form, fields, value, where)
    return None


def _fault_in_each(forms: list[Any], form: Any, value: Any, where: str) -> str | None:
    """Why none of several forms takes the value: in the words of the one that it nearly is."""
    near = None
    for each in forms:
        why = _fault(each, value, where)
        if why is None:
            return None
        if type(each) is list and _word(each) == type(value).__name__:
            near = why
    return near or _must(where, form, value)


def _fault_within(form: Any, values: Collection[Any], places: Iterable[Place]) -> str | None:
    """The first of many values that the form does not take; ``places``: the same values, each with
    what it is called."""
    if form is None or _all_fit(form, values):
        return None
    return next((why for where, each in places if (why := _fault(form, each, where))), None)


def _all_fit(form: Any, values: Collection[Any]) -> bool:
    """Whether all fit, where types or hashes alone can tell: for a million it takes milliseconds,
    and this may be the master's loop. False: they have to be looked at one by one."""
    kinds = set(map(type, values))
    match form:
        case ["literal", [*allowed]]:
            try:
                return (
                    len(kinds) == 1 and kinds <= {*map(type, allowed)} and {*values} <= {*allowed}
                )
            except TypeError:  # a list among them
                return False
        case ["or", [*forms]]:
            taken = [_TYPES.get(each, _NONE) for each in forms if type(each) is str]
        case str():
            taken = [_TYPES.get(form, _NONE)]
        case _:
            return False
    return {kind.__name__ for kind in kinds} <= _NONE.union(*taken)


def _fault_in_fields(form: Any, fields: list[Any], value: Any, where: str) -> str | None:
    required = {str(name): needed for name, needed in fields}
    if missing := [name for name, needed in required.items() if needed and name not in value]:
        return f"{_name(where)} must be {words(form)}: it lacks {_shown(missing[0])}"
    if odd := [name for name in value if name not in required]:
        return (
            f"{_name(where)} must be {words(form)}: it has {_shown(odd[0])}, which is none of them"
        )
    return None


def _is_pair(field: Any) -> bool:
    return type(field) is list and len(field) == 2


def _must(where: str, form: Any, value: Any) -> str:
    is_value = type(form) is list and form[0] == "literal" and type(value) in (str, int, bool)
    return f"{_name(where)} must be {words(form)}, not {_shown(value) if is_value else _a(value)}"


def _name(where: str) -> str:
    return f"{_KEY}`{where[len(_KEY) :]}`" if where.startswith(_KEY) else f"`{where}`"


def _a(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def words(form: Any) -> str:
    """A form as people say it: "a str", "a list of int or None"."""
    match form:
        case "None":
            return "None"
        case ["or", [*forms]]:
            return " or ".join(words(each) for each in forms)
        case ["literal", [*allowed]]:
            more = len(allowed) - LISTED
            named = [_shown(each) for each in allowed[:LISTED]]
            return " or ".join(named + [f"one of {more} more"] * (more > 0))
        case ["fields", name, _]:
            return f"a dict with the fields of {str(name)[:SHOWN]}"
        case ["list", item] if item is not None:
            return f"a list of {_plain(item)}"
        case ["dict", key, item] if key is not None or item is not None:
            return f"a dict of {_plain(key)} to {_plain(item)}"
    name = _word(form)
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"


def _plain(form: Any) -> str:
    """As ``words``, without an article."""
    if form is None:
        return "anything"
    if type(form) is list and form[:1] == ["or"]:
        return " or ".join(map(_plain, form[1]))
    return words(form).removeprefix("an ").removeprefix("a ")


def _word(form: Any) -> str:
    """The name of the type whose values a form takes."""
    head = form[0] if type(form) is list and form else form
    return "dict" if head == "fields" else str(head)[:SHOWN]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
