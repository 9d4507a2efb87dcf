"""Both clients have the same operations, and say the same of them."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest

from taskd.client.aio import AsyncClient
from taskd.client.blocking import Client
from taskd.client.operations import Operation, Operations
from taskd.client.records import TaskInfo
from taskd.client.schedule_operations import ScheduleOperations
from taskd.client.submit_operations import SubmitOperations

NAMES = [
    name
    for kind in (Operations, SubmitOperations, ScheduleOperations)
    for name, each in vars(kind).items()
    if isinstance(each, Operation)
]


def test_the_operations_are_found() -> None:
    assert {"submit", "tasks", "reload", "log"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_the_same_function_of_both_clients(name: str) -> None:
    one, other = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(one) == inspect.signature(other)
    assert inspect.getdoc(one) == inspect.getdoc(other) != ""
    assert not inspect.iscoroutinefunction(one)
    assert inspect.iscoroutinefunction(other)


def test_an_operation_tells_the_type_of_what_it_gives() -> None:
    assert get_type_hints(Client.task)["return"] is TaskInfo
