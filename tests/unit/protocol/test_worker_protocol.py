"""The worker protocol: messages as 0.2 sends them, and what the master lets in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskd.errors import ProtocolError
from taskd.protocol import frames
from taskd.protocol.worker import check

GOLDEN = Path(__file__).parents[2] / "golden" / "worker-3.hex"

ID = bytes(range(16))

SAMPLES: list[dict[str, Any]] = [
    {
        "type": "hello",
        "role": "zygote",
        "version": 3,
        "id": ID,
        "pid": 41,
        "start": 7,
        "workers": [[ID, 42, 8]],
    },
    {"type": "identity", "hash": "0123456789abcdef", "changed": ["app.py"]},
    {
        "type": "manifest",
        "taskd": "0.2.0",
        "python": "3.11.2",
        "forks": True,
        "warnings": ["2 native threads after import"],
        "tasks": {
            "work": {
                "version": 2,
                "queue": "default",
                "retries": 3,
                "on_deploy": "checkpoint",
                "params": [["path", True], ["region", False]],
                "any": False,
                "reads": [1, 2],
                "names": ["rows", "total"],
            }
        },
    },
    {"type": "broken", "message": "ImportError: no app", "traceback": "Traceback …"},
    {"type": "forked", "worker": ID, "pid": 42, "start": 8},
    {"type": "unforked", "worker": ID, "message": "cannot start a worker"},
    {"type": "exited", "worker": ID, "pid": 42, "status": 9},
    {"type": "unready", "worker": ID, "pid": 42, "message": "no room for its slot"},
    {"type": "pong"},
    {
        "type": "hello",
        "role": "worker",
        "version": 3,
        "id": ID,
        "pid": 42,
        "start": 8,
        "slot": ID.hex() + ".slot",
        "busy": None,
        "reads_slots": True,
        "ungrouped": "No space left on device",
    },
    {"type": "idle", "reusable": True},
    {"type": "progress", "task": 1, "attempt": 2, "done": 3, "total": None, "note": "of many"},
    {"type": "waiting", "task": 1, "attempt": 2, "message": "no room in the slot"},
    {"type": "ended", "task": 1, "attempt": 2, "offset": 4096},
    {
        "type": "planned",
        "checked": 2,
        "migrated": 1,
        "refused": [[1, "no such task"]],
        "probe": None,
    },
]
"""One of each message to the master, with every field that version 3 has."""


def recorded() -> list[dict[str, Any]]:
    decoder = frames.Decoder()
    decoder.feed(bytes.fromhex(GOLDEN.read_text()))
    found = []
    while (message := decoder.next()) is not None:
        found.append(message)
    return found


def test_messages_of_the_version_before_are_understood() -> None:
    assert recorded() == SAMPLES
    for message in recorded():
        check(message)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: f"{m['type']}")
def test_unknown_fields_are_ignored(message: dict[str, Any]) -> None:
    check(message | {"of_tomorrow": [1, 2]})


def test_a_message_of_a_newer_version_is_let_through_to_be_ignored() -> None:
    check({"type": "of tomorrow"})


OPTIONAL = {"python", "traceback", "slot", "busy", "workers", "reads_slots", "ungrouped", "changed"}
OPTIONAL |= {"checked", "migrated"}
"""What the master reads with care, or not at all."""

NEEDED = [(message, name) for message in SAMPLES for name in message if name not in OPTIONAL]


@pytest.mark.parametrize(
    ("message", "name"), NEEDED, ids=[f"{m['type']}.{name}" for m, name in NEEDED]
)
def test_a_needed_field_that_is_missing_or_of_a_wrong_type_is_a_breach(
    message: dict[str, Any], name: str
) -> None:
    missing = {key: value for key, value in message.items() if key != name}
    for wrong in (missing, message | {name: object()}, message | {name: [[]]}):
        if wrong.get(name) == [[]] and isinstance(message[name], list):
            continue
        with pytest.raises(ProtocolError, match=name if name != "type" else "without a type"):
            check(wrong)


@pytest.mark.parametrize("name", ["version", "queue", "retries", "on_deploy", "params", "reads"])
def test_a_task_in_a_manifest_needs_its_fields_too(name: str) -> None:
    manifest = SAMPLES[2]
    entry = {key: value for key, value in manifest["tasks"]["work"].items() if key != name}
    with pytest.raises(ProtocolError, match=f"task 'work': {name}"):
        check(manifest | {"tasks": {"work": entry}})
    with pytest.raises(ProtocolError, match="no map"):
        check(manifest | {"tasks": {"work": 7}})
