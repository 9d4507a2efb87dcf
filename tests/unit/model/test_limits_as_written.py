"""Limits as people write them: rates, templates and keys."""

from __future__ import annotations

from typing import Any

import pytest

import taskd
from taskd.model import limits
from taskd.tasks import make_task


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"concurrency": 2}, (2, None, 1)),
        ({"rate": "100/min"}, (None, 0.6, 1)),
        ({"rate": "5/s"}, (None, 0.2, 5)),
        ({"rate": "1/10min", "burst": 3}, (None, 600.0, 3)),
        ({"concurrency": 1, "rate": "10 / h"}, (1, 360.0, 1)),
        ({}, None),
    ],
)
def test_numbers(said: dict[str, Any], expected: Any) -> None:
    assert limits.numbers(said) == expected


@pytest.mark.parametrize(
    ("template", "args", "key"),
    [
        ("api", {}, "api"),
        ("customer:{id}", {"id": 7}, "customer:7"),
        ("customer:{id}", {"id": True}, "customer:True"),
        ("at:{host}/{port}", {"host": "a\nb\\", "port": 80}, "at:a\\nb\\\\/80"),
        ("plain:text", {}, "plain:text"),
    ],
)
def test_a_key_is_made_of_the_arguments(template: str, args: dict[str, Any], key: str) -> None:
    assert limits.key(template, args) == key


@pytest.mark.parametrize("value", [None, 1.5, [1], "x" * 300, "\0"])
def test_what_makes_no_key_is_refused_in_words(value: Any) -> None:
    with pytest.raises(ValueError, match=r"the limit 'customer:\{id\}'"):
        limits.key("customer:{id}", {"id": value})


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"limit": "customer:{other}"}, "no parameter 'other'"),
        ({"limit": "{path}"}, "a limit's name has letters"),
        ({"limit": "a:{path"}, "between braces stands"),
        ({"limit": "a:{path!r}"}, "between braces stands"),
        ({"rate": "often"}, "rate must be a text"),
        ({"concurrency": True}, "concurrency must be a whole number"),
    ],
)
def test_what_a_task_says_wrong_is_told_where_it_stands(options: Any, why: str) -> None:
    def index(path: str) -> None: ...

    with pytest.raises(ValueError, match=rf"task 'index': .*{why}"):
        make_task(index, limited=options)


def test_defaults_of_arguments_count_and_the_numbers_go_with_the_tasks() -> None:
    def index(path: str, region: str = "eu") -> None: ...

    taskd.limit("region", concurrency=3)
    with pytest.raises(ValueError, match="called twice"):
        taskd.limit("region", concurrency=4)
    made = make_task(index, limited={"limits": ["region:{region}", "api"], "rate": "1/s"})
    entry = made.entry()
    assert entry["limits"]["numbers"] == {"region": [3, None, 1]}
    assert entry["limits"]["own"] == [None, 1.0, 1]
    assert limits.keys(entry, {"path": "a"}) == ("api", "region:eu")
    assert limits.keys(entry, {"path": "a", "region": "us"}) == ("api", "region:us")


@pytest.mark.parametrize("numbers", [None, [1, None], [0, None, 1], [1, -1.0, 1], ["1", 1, 1], {}])
def test_numbers_of_a_manifest_that_cannot_be_are_found(numbers: Any) -> None:
    with pytest.raises(ValueError, match="that cannot be"):
        limits.stated(numbers)
