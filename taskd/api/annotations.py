"""What a task's parameters are annotated with: the forms that are checked, and what is converted.

Used wherever tasks are: in the zygote, which puts the forms into its manifest (``model.arguments``
says what a form is), in the programs that submit, and in workers, which call the function.

Three kinds of values are no plain data and have a plain form all the same: an Enum's member (its
value), a dataclass (a dict of its fields), a Path (text). ``fn.submit`` converts them to that form
where a parameter's annotation names the class, and the worker makes them again by the annotation of
its own code: at the top level, and directly inside a list, the values of a dict, or a union with
one such class. What is stored reads without the class. Nothing else is ever converted.

An annotation that cannot be resolved (a name that is there for type checkers alone, say) is not
checked, nor is what taskd has no form for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import Enum, Flag
from pathlib import PurePath
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from taskd.model.arguments import mistyped
from taskd.protocol.secret import Secret
from taskd.record import Record

LARGEST_ENUM = 1000
"""Members of an Enum whose values are checked; more would make the manifest large."""

_WORDS: dict[Any, str] = {
    each: each.__name__ for each in (int, float, str, bool, bytes, list, dict, Secret)
} | {NoneType: "None", None: "None"}


class Conversion(Record):
    """Between the values of a class and their plain form. Each leaves alone what is neither."""

    plain: Callable[[Any], Any]
    back: Callable[[Any], Any]


class Annotations(Record):
    """Of one function, by its parameters' names. ``unresolved``: why, in words."""

    forms: dict[str, Any]
    conversions: dict[str, Conversion]
    unresolved: dict[str, str]

    def plain(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """``args`` with each value that has a plain form in that form."""
        found = dict(args)
        for name in found.keys() & self.conversions.keys():
            found[name] = self.conversions[name].plain(found[name])
        return found

    def restored(
        self, args: Mapping[str, Any], failed: Callable[[str, Exception], None]
    ) -> dict[str, Any]:
        """``args`` as the function takes them. Runs code of the app's classes. A value that its
        class does not take stays as it is stored, and ``failed`` is told: it was accepted."""
        found = dict(args)
        for name in self.conversions.keys() & found.keys():
            try:
                found[name] = self.conversions[name].back(found[name])
            except Exception as error:
                failed(name, error)
        return found


class Reading:
    """The annotations of one function, read when they are first asked for: a name in them may be
    there only once all of the app is imported. While one is not, they are read anew each time."""

    __slots__ = ("_fn", "_known", "_signature")

    def __init__(self, fn: Callable[..., Any], signature: inspect.Signature, check: Any) -> None:
        """``check`` False: as if there were none."""
        if type(check) is not bool:
            raise TypeError(f"check must be True or False, not {check!r}")
        self._fn, self._signature = fn, signature
        self._known = None if check else Annotations({}, {}, {})

    def now(self) -> Annotations:
        known = self._known
        if known is None:
            known = read(self._fn, self._signature)
            self._known = None if known.unresolved else known
        return known


def read(fn: Callable[..., Any], signature: inspect.Signature) -> Annotations:
    """The annotations of the parameters in ``signature``, which is that of ``fn``."""
    inner = inspect.unwrap(fn, stop=lambda each: hasattr(each, "__signature__"))
    space = getattr(inner, "__globals__", {})
    found = Annotations({}, {}, {})
    for name, each in signature.parameters.items():
        if each.annotation is each.empty or each.kind is each.VAR_KEYWORD:
            continue
        try:
            kind = _resolved(each.annotation, space)
            form, conversion = _shape(kind)
            if each.default is None:  # as one who writes `n: int = None` means it
                form, conversion = _union([(form, conversion), ("None", None)])
        except Exception as error:  # of a name that is not there, or of the app's own objects
            found.unresolved[name] = f"{type(error).__name__}: {error}"[:200]
            continue
        if form is not None:
            found.forms[name] = form
        if conversion is not None:
            found.conversions[name] = conversion
    return found


def _resolved(annotation: Any, space: dict[str, Any]) -> Any:
    """With the names that it has as text looked up. Raises what that raises."""
    holder: Any = SimpleNamespace(__annotations__={"it": annotation})
    return get_type_hints(holder, space)["it"]


Shape = tuple[Any, Conversion | None]
"""A form (None: anything) and what converts to and from it."""


def _shape(kind: Any, inside: bool = False) -> Shape:
    """``inside``: in a list or dict, where another list or dict is taken whatever is in it."""
    if word := _word(kind):
        return word, None
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _shape(args[0], inside)
    if origin in (Union, UnionType):
        return _union([_shape(each, inside) for each in args])
    if origin is Literal:
        values = [each.value if isinstance(each, Enum) else each for each in args]
        return ["literal", values], None
    if origin in (list, dict) and (inside or not args):
        return origin.__name__, None
    if origin is list:
        return _list(*_shape(args[0], True))
    if origin is dict:
        key, unkept = _shape(args[0], True)
        return _dict(None if unkept else key, *_shape(args[1], True))
    if origin is Secret:
        return "Secret", None
    if hasattr(kind, "__supertype__"):  # of typing.NewType
        return _shape(kind.__supertype__, inside)
    if hasattr(kind, "__value__") and not isinstance(kind, type):  # of a `type` statement
        return _shape(kind.__value__, inside)
    return _class(origin or kind)


def _word(kind: Any) -> str | None:
    try:
        known = _WORDS.get(kind)
    except TypeError:  # not hashable
        return None
    if known is None and isinstance(kind, type) and kind.__module__ == "datetime":
        return "datetime" if kind.__name__ == "datetime" else None
    return known


def _class(kind: Any) -> Shape:
    if not isinstance(kind, type):
        return None, None
    if issubclass(kind, Enum):
        return _enum(kind)
    if issubclass(kind, PurePath):
        return "str", Conversion(_when(PurePath, str), _when(str, kind))
    if "__dataclass_fields__" in vars(kind):
        return _dataclass(kind)
    if issubclass(kind, dict) and hasattr(kind, "__required_keys__"):  # a TypedDict
        return "dict", None
    return None, None


def _enum(kind: type[Enum]) -> Shape:
    conversion = Conversion(_when(kind, lambda member: member.value), kind)
    if issubclass(kind, Flag):  # a sum of members is one as well
        return "int", conversion
    values = [member.value for member in kind]
    simple = {type(value) for value in values} <= {int, str, bool, float, bytes, NoneType}
    return (["literal", values] if simple and len(values) <= LARGEST_ENUM else None), conversion


def _dataclass(kind: type) -> Shape:
    import dataclasses

    fields = [each for each in dataclasses.fields(kind) if each.init]
    if {each.name for each in fields} != {*inspect.signature(kind).parameters}:
        return None, None  # it takes what it does not keep: an InitVar, an __init__ of its own

    def plain(value: Any) -> Any:
        # A subclass has more fields than could come back.
        if type(value) is not kind:
            return value
        return {each.name: getattr(value, each.name) for each in fields}

    needed = dataclasses.MISSING
    named = [
        [each.name, each.default is needed and each.default_factory is needed] for each in fields
    ]
    back = _when(dict, lambda value: kind(**value))
    return ["fields", kind.__name__, named], Conversion(plain, back)


def _when(kind: type, convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: convert(value) if isinstance(value, kind) else value


def _union(shapes: list[Shape]) -> Shape:
    """Of several classes with a plain form it could not be told which one is meant."""
    forms: list[Any] = []
    for form, _ in shapes:
        inner = form[1] if type(form) is list and form[0] == "or" else [form]
        forms += [each for each in inner if each not in forms]
    form = None if None in forms else ["or", forms]
    classes = [each for each in shapes if each[1] is not None]
    if len(classes) != 1 or (own := classes[0][1]) is None:
        return (None, None) if classes else (form, None)
    others = [other for other, made in shapes if made is None and other is not None]

    def back(value: Any) -> Any:
        if mistyped({"it": ["or", others]}, {"it": value}) is None:
            return value  # of a type beside the class, such as the str of `str | Path`
        return own.back(value)

    return form, Conversion(own.plain, back)


def _list(item: Any, conversion: Conversion | None) -> Shape:
    form = "list" if item is None else ["list", item]
    if conversion is None:
        return form, None

    def each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda value: [*map(convert, value)] if type(value) is list else value

    return form, Conversion(each(conversion.plain), each(conversion.back))


def _dict(key: Any, item: Any, conversion: Conversion | None) -> Shape:
    form = "dict" if key is None and item is None else ["dict", key, item]
    if conversion is None:
        return form, None

    def each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def converted(value: Any) -> Any:
            if type(value) is not dict:
                return value
            return {name: convert(part) for name, part in value.items()}

        return converted

    return form, Conversion(each(conversion.plain), each(conversion.back))
