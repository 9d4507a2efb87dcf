"""Record behaves as typing.NamedTuple does, and is cheaper to define."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Generic, NamedTuple, TypeVar

import pytest

from taskd.record import Record

T = TypeVar("T")


class Point(Record):
    """A place."""

    x: int
    y: int = 2
    label: str = "here"

    @property
    def total(self) -> int:
        return self.x + self.y


class Twin(NamedTuple):
    x: int
    y: int = 2
    label: str = "here"


class Far(Point):
    def doubled(self) -> int:
        return 2 * self.total


class Box(Record, Generic[T]):
    content: T


def test_a_record_is_made_as_a_named_tuple_is() -> None:
    for kind in (Point, Twin):
        assert kind(1) == kind(1, 2) == kind(x=1) == kind(1, label="here") == (1, 2, "here")
        assert kind._make([1, 2, "there"]) == (1, 2, "there")
        for wrong in (lambda: kind(), lambda: kind(1, 2, "a", 4), lambda: kind(1, z=2)):  # noqa: B023
            with pytest.raises(TypeError, match=rf"{kind.__name__}\.__new__\(\)|__new__\(\)"):
                wrong()


def test_a_record_may_have_no_field() -> None:
    class Empty(Record):
        """Nothing."""

    assert Empty() == () == Empty._make(())
    with pytest.raises(TypeError):
        Empty(1)  # type: ignore[call-arg]


def test_a_record_reads_as_a_named_tuple_does() -> None:
    point, twin = Point(1, label="there"), Twin(1, label="there")
    assert (point.x, point.y, point.label, point[2]) == (1, 2, "there", "there")
    assert point._asdict() == twin._asdict()
    assert repr(point) == repr(twin).replace("Twin", "Point")
    assert point._replace(y=5) == twin._replace(y=5) == (1, 5, "there")
    assert Point._fields == Twin._fields == Point.__match_args__ == ("x", "y", "label")
    assert Point._field_defaults == Twin._field_defaults
    assert hash(point) == hash(twin)
    assert point.total == 3
    assert Point.__doc__ == "A place."
    match point:
        case Point(x, y=2):
            assert x == 1
        case _:
            pytest.fail("no match")


def test_a_record_cannot_be_changed() -> None:
    for name in ("x", "other"):
        with pytest.raises(AttributeError):
            setattr(Point(1), name, 2)
    assert not hasattr(Point(1), "__dict__")


def test_a_record_can_be_pickled_and_copied() -> None:
    for each in (Point(1), Far(1), Box([1])):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(each, protocol))
            assert (type(again), again) == (type(each), each)
        assert (type(copy.deepcopy(each)), copy.deepcopy(each)) == (type(each), each)


def test_a_class_that_derives_from_a_record_has_its_fields() -> None:
    assert Far(1).doubled() == 6
    assert Far(3, 4)._replace(x=1) == Far(1, 4)
    assert type(Far(1)._replace(x=2)) is Far
    with pytest.raises(TypeError, match="Far has no z"):
        Far(1)._replace(z=2)  # type: ignore[call-arg]
    assert Box[int](4).content == 4


def test_annotations_that_are_no_strings_make_the_same_fields() -> None:
    """From Python 3.14 on they are not evaluated then: ``Later`` is never defined."""
    space: dict[str, type[Record]] = {"Record": Record}
    later = "Later" if sys.version_info >= (3, 14) else "int"
    text = f"class Plain(Record):\n    first: int\n    second: {later} = 2"
    exec(compile(text, "plain", "exec", dont_inherit=True), globals(), space)
    assert space["Plain"]._fields == ("first", "second")
    assert space["Plain"](1) == (1, 2)
