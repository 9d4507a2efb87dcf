"""What annotations become: forms that are checked, conversions there and back."""

from __future__ import annotations

import datetime as dates
import typing
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import datetime
from enum import Enum, Flag, IntEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, TypedDict, TypeVar

import pytest

from taskd import BadArguments, NotPlainData, Secret, task, tasks, testing
from taskd.protocol import data
from taskd.tasks import make_task

if TYPE_CHECKING:
    from decimal import Decimal


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    S = 1
    L = 2


class Right(Flag):
    READ = 1
    WRITE = 2


@dataclass
class Order:
    id: int
    note: str = ""
    _: KW_ONLY
    tags: list[str] = field(default_factory=list)
    total: int = field(default=0, init=False)


@dataclass
class Unkept:
    id: int
    secret: InitVar[str]


class Row(TypedDict):
    id: int


UserId = NewType("UserId", int)
T = TypeVar("T")
OLDER = (typing.Optional[int], typing.Union[int, str], typing.List[int], typing.Dict[str, int], typing.List)  # noqa: E501, UP006, UP007, UP045  # fmt: skip
ORDER = ["fields", "Order", [["id", True], ["note", False], ["tags", False]]]


def form(annotation: Any) -> Any:
    def fn(it: Any) -> None: ...

    fn.__annotations__["it"] = annotation
    return make_task(fn).entry()["types"].get("it")


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        *((each, each.__name__) for each in (int, float, str, bool, bytes, list, dict, Secret)),
        (datetime, "datetime"),
        (None, "None"),
        (Secret[str], "Secret"),
        (OLDER[0], ["or", ["int", "None"]]),
        (OLDER[1], ["or", ["int", "str"]]),
        (OLDER[2], ["list", "int"]),
        (OLDER[3], ["dict", "str", "int"]),
        (OLDER[4], "list"),
        (int | None, ["or", ["int", "None"]]),
        ("int | None", ["or", ["int", "None"]]),
        (list[int], ["list", "int"]),
        (list[int] | None, ["or", [["list", "int"], "None"]]),
        (list["Order"], ["list", ORDER]),
        (dict[str, Any], ["dict", "str", None]),
        (dict[Any, Any], "dict"),
        (dict[str, int | None], ["dict", "str", ["or", ["int", "None"]]]),
        (list[list[int]], ["list", "list"]),
        (list[Any], "list"),
        (Literal["fast", 3, None], ["literal", ["fast", 3, None]]),
        (Annotated[int, "positive"], "int"),
        (UserId, "int"),
        (Row, "dict"),
        (Color, ["literal", ["red", "blue"]]),
        (Size, ["literal", [1, 2]]),
        (Right, "int"),
        (Color | None, ["or", [["literal", ["red", "blue"]], "None"]]),
        (Literal[Color.RED], ["literal", ["red"]]),
        (Path, "str"),
        (str | Path, ["or", ["str"]]),
        (Order, ORDER),
    ],
)
def test_an_annotation_has_a_form(annotation: Any, expected: Any) -> None:
    assert form(annotation) == expected
    data.encode(form(annotation))  # it goes into a manifest


@pytest.mark.parametrize(
    "annotation",
    [Any, object, T, Mapping[str, int], Iterator[int], tuple[int, ...], set[int], dates.date,
     int | Mapping[str, int], Unkept, Color | Size, type, ...],
)  # fmt: skip
def test_what_is_not_simple_is_not_checked(annotation: Any) -> None:
    assert form(annotation) is None


def test_a_default_of_none_makes_none_fine() -> None:
    def fn(n: int = None, color: Color = None) -> None: ...  # type: ignore[assignment] # noqa: RUF013

    made = make_task(fn)
    assert made.entry()["types"]["n"] == ["or", ["int", "None"]]
    assert made.arguments((None,), {"color": None}) == {"n": None, "color": None}


def test_what_cannot_be_resolved_is_told_and_the_others_are_checked() -> None:
    def fn(ctx: Nowhere, price: Decimal, n: int, **more: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821

    entry = make_task(fn).entry()
    assert entry["types"] == {"n": "int"}
    assert entry["unresolved"] == {"price": "NameError: name 'Decimal' is not defined"}


def test_a_name_that_comes_later_is_resolved_then(monkeypatch: pytest.MonkeyPatch) -> None:
    def fn(it: Later) -> None: ...  # type: ignore[name-defined] # noqa: F821

    made = make_task(fn)
    assert made.entry()["types"] == {}
    monkeypatch.setitem(globals(), "Later", int)
    assert made.entry()["types"] == {"it": "int"}


def test_a_task_may_do_without() -> None:
    def fn(path: Path, n: int) -> None: ...

    made = make_task(fn, check=False)
    assert (made.entry()["types"], made.entry()["unresolved"]) == ({}, {})
    assert made.arguments(("x", "y"), {}) == {"path": "x", "n": "y"}
    with pytest.raises(TypeError, match="check must be True or False, not None"):
        make_task(fn, check=None)


def test_a_wrong_type_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "registered", {})

    @task
    def index(path: str) -> None: ...

    with pytest.raises(BadArguments) as refused:
        index.submit(3)  # type: ignore[arg-type]
    assert str(refused.value) == "index: `path` must be a str, not an int"


PLACES: list[tuple[Any, Any, Any]] = [
    (Color, Color.RED, "red"),
    (Size, Size.L, 2),
    (Right, Right.READ | Right.WRITE, 3),
    (Path, Path("/a/b"), "/a/b"),
    (PurePosixPath, PurePosixPath("a"), "a"),
    (Order, Order(1, "x", tags=["a"]), {"id": 1, "note": "x", "tags": ["a"]}),
    (list[Color], [Color.RED, Color.BLUE], ["red", "blue"]),
    (dict[str, Path], {"a": Path("x")}, {"a": "x"}),
    (Color | None, Color.BLUE, "blue"),
    (Color | None, None, None),
    (list[Order] | None, [Order(1)], [{"id": 1, "note": "", "tags": []}]),
    (list[Path | None], [Path("x"), None], ["x", None]),
]


@pytest.mark.parametrize(("annotation", "given", "stored"), PLACES)
def test_there_and_back(annotation: Any, given: Any, stored: Any) -> None:
    seen = []

    def fn(it: Any) -> None:
        seen.append(it)

    fn.__annotations__["it"] = annotation
    made = make_task(fn)
    plain = made.arguments((given,), {})
    assert plain == {"it": stored}
    assert type(plain["it"]) is type(stored)
    assert data.decode(data.encode(plain)) == plain
    testing.run(made, {"it": given})
    testing.run(made, {"it": stored})  # as one who submits it by its name
    assert seen == [given, given]
    assert type(seen[1]) is type(given)


def test_a_text_beside_a_path_stays_one() -> None:
    def fn(it: str | Path) -> str:
        return type(it).__name__

    assert testing.run(fn, {"it": "x"}).result == "str"


def test_deeper_the_error_says_what_to_write() -> None:
    def fn(it: list[list[Color]], order: Any = None, inner: Order | None = None) -> None: ...

    made = make_task(fn)
    with pytest.raises(NotPlainData, match=r'args\["it"\]\[0\]\[0\] is .*Color.*Use its \.value'):
        data.encode(made.arguments(([[Color.RED]],), {}), "args")
    with pytest.raises(NotPlainData, match=r'\["order"\] .*Use dataclasses\.asdict\(value\)'):
        data.encode(made.arguments(([],), {"order": Order(1)}), "args")
    with pytest.raises(NotPlainData, match=r'\["inner"\]\["note"\] .*Use str\(value\)'):
        data.encode(made.arguments(([],), {"inner": Order(1, Path("x"))}), "args")  # type: ignore[arg-type]


def test_what_its_class_does_not_take_is_passed_as_it_is_stored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It was accepted, by code whose class took it."""

    def before(color: str, order: dict[str, Any], path: Any) -> Any: ...

    @task(name="paints", version=2)
    def after(color: Color, order: Order, path: Path) -> Any:
        return [type(it).__name__ for it in (color, order, path)]

    after.migrate(1)(lambda saved: None)
    tasks.registered.pop("paints")
    given = {"color": "hunter2", "order": {"gone": 1}, "path": 3}
    assert testing.run(after, given, submitted_at=1).result == ["str", "dict", "int"]
    told = capsys.readouterr().err
    assert "the argument `color` is passed as it is stored: its class raised ValueError" in told
    assert "`order` is passed as it is stored: its class raised TypeError" in told
    assert "hunter2" not in told
