"""The daemon's end of the client protocol, and both ends against each other.

Longer than 400 lines because both ends are held to one specification, side by side.
"""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from hypothesis import given, strategies as st

from taskd.errors import ProtocolError, Refused, UnknownTask
from taskd.protocol import control, frames, operations
from taskd.protocol.client_side import ClientSide, End, Goodbye, Item, Refusal, Reply, Welcome
from taskd.protocol.control import Phase, Stage, Step, Turn
from taskd.protocol.server_side import (
    MESSAGE,
    Answer,
    Farewell,
    Hello,
    Request,
    ServerSide,
    farewell,
)

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
HELLO = {"hello": {"low": control.OLDEST, "high": control.NEWEST}}


def sent(raw: bytes) -> list[dict[str, Any]]:
    decoder = frames.Decoder()
    decoder.feed(raw)
    found = []
    while (message := decoder.next()) is not None:
        found.append(message)
    assert decoder.rest == b""
    return found


def opened() -> ServerSide:
    side = ServerSide()
    side.feed(frames.encode(HELLO))
    assert side.next() == Hello(control.NEWEST)
    side.welcome(1000, False, "0.2.0")
    return side


def asked(side: ServerSide, *requests: dict[str, Any]) -> list[Any]:
    for request in requests:
        side.feed(frames.encode(request))
    return [side.next() for _ in requests]


def test_hello_agrees_on_a_version_and_tells_who_the_peer_is() -> None:
    side = ServerSide()
    side.feed(frames.encode({"hello": {"low": 1, "high": 7}, "new": "field"}))
    assert side.next() == Hello(4)
    assert sent(side.welcome(1000, True, "0.3.0")) == [
        {"hello": {"version": 4, "taskd": "0.3.0", "uid": 1000, "control": True}}
    ]


def test_a_client_of_the_version_before_is_answered_in_that_version() -> None:
    side = ServerSide()
    side.feed(frames.encode({"hello": {"low": 1, "high": 3}}))
    assert side.next() == Hello(3)
    assert sent(side.welcome(1000, True, "0.3.0"))[0]["hello"]["version"] == 3


@pytest.mark.parametrize(("low", "high"), [(1, 2), (5, 6)])
def test_a_client_without_a_common_version_is_told_so(low: int, high: int) -> None:
    side = ServerSide()
    side.feed(frames.encode({"hello": {"low": low, "high": high}}))
    event = side.next()
    assert isinstance(event, Farewell)
    [message] = sent(event.data)
    assert message["error"]["code"] == "protocol"
    assert f"versions {low} to {high}" in message["error"]["message"]


@pytest.mark.parametrize(
    ("op", "fields", "needed"),
    [
        ("reload", {"release": "/srv/app/r2"}, (0, "reload")),
        ("reload", {"plan": True}, (4, "reload with plan")),
        ("reload", {"release": "/srv/app/r2", "plan": True}, (4, "reload with plan")),
        ("rollback", {"allow_held": True}, (5, "rollback")),
        ("rollback", {"plan": True}, (5, "rollback")),
    ],
)
def test_a_request_takes_the_version_of_its_newest_part(
    monkeypatch: pytest.MonkeyPatch, op: str, fields: dict[str, Any], needed: tuple[int, str]
) -> None:
    """As if versions 4 and 5 had brought these."""
    plan = operations.OPERATIONS["reload"]["plan"]._replace(since=4)
    monkeypatch.setitem(operations.OPERATIONS["reload"], "plan", plan)
    monkeypatch.setitem(operations.SINCE, "rollback", 5)
    assert operations.needs(op, fields) == needed


def test_what_the_version_before_does_not_know_is_asked_of_no_daemon_of_it() -> None:
    """What this version adds stands here; what 0.2 does is in tests/skew."""
    newer = {op for op in operations.OPERATIONS if operations.SINCE.get(op)}
    newer |= {
        f"{op} with {name}"
        for op, fields in operations.OPERATIONS.items()
        for name, field in fields.items()
        if field.since
    }
    narrows = {f"list with {n}" for n in ("owner", "key", "revision", "since", "until", "text")}
    schedules = {"schedules", "pause_schedule", "resume_schedule", "run_schedule"}
    control = {
        "change",
        "checkpoint",
        "set_concurrency",
        "retry with from_start",
        "retry with step",
    }
    others = {"attempts", "why", "pause", "resume", "remove", "compact"}
    assert newer == others | schedules | narrows | control
    task = {"submission": b"x" * 16, "name": "a", "args": b"y"}
    assert operations.needs("submit", {"tasks": [task]})[0] == 0
    more = {"tasks": [task, task | {"retries": 3}]}
    assert operations.needs("submit", more) == (4, "submit with retries")


@pytest.mark.parametrize(
    "first",
    [
        {},
        {"id": 1, "op": "status"},
        {"hello": 1},
        {"hello": {}},
        {"hello": {"low": 1}},
        {"hello": {"low": "1", "high": 1}},
        {"hello": {"low": 2, "high": 1}},
        {"hello": {"low": True, "high": 1}},
    ],
)
def test_a_first_message_that_is_no_hello_breaks_the_protocol(first: dict[str, Any]) -> None:
    side = ServerSide()
    side.feed(frames.encode(first))
    with pytest.raises(ProtocolError, match="hello"):
        side.next()


def test_every_step_that_the_table_lacks_is_refused() -> None:
    for phase in Phase:
        for step in Step:
            side = ServerSide()
            side._phase = phase
            if (phase, step) in control.CONNECTION:
                side._move(step)
                assert side._phase is control.CONNECTION[phase, step]
            else:
                with pytest.raises(ProtocolError):
                    side._move(step)
                assert side._phase is phase


def test_every_turn_that_the_table_lacks_is_refused() -> None:
    for stage in Stage:
        for turn in Turn:
            calls = control.Calls({1: control.Call("follow")})
            calls[1].stage = stage
            after = control.REQUEST.get((stage, turn))
            if after is None:
                with pytest.raises(LookupError):
                    calls.advance(1, turn)
            else:
                calls.advance(1, turn)
                assert (calls[1].stage is after) if after is not Stage.DONE else (1 not in calls)


def test_a_second_hello_breaks_the_protocol() -> None:
    side = opened()
    side.feed(frames.encode(HELLO))
    with pytest.raises(ProtocolError):
        side.next()


def test_a_request_before_the_welcome_was_made_is_held_to_the_order() -> None:
    side = ServerSide()
    side.feed(frames.encode(HELLO) + frames.encode({"id": 1, "op": "status"}))
    assert side.next() == Hello(control.NEWEST)
    side.welcome(1000, False, "0.3.0")
    assert side.next() == Request(1, "status", {})


@pytest.mark.parametrize("id", [0, 2, -1, "1", None, 1.0, True, 2**63])
def test_ids_grow_by_one_from_one(id: Any) -> None:
    side = opened()
    side.feed(frames.encode({"id": id, "op": "status"}))
    with pytest.raises(ProtocolError, match="where 1 was due"):
        side.next()


@pytest.mark.parametrize("op", [None, 1, b"show", ["show"]])
def test_an_op_that_is_no_text_breaks_the_protocol(op: Any) -> None:
    side = opened()
    side.feed(frames.encode({"id": 1, "op": op}))
    with pytest.raises(ProtocolError, match="op must be text"):
        side.next()


def test_an_unknown_operation_is_refused_in_its_turn_and_the_connection_lives() -> None:
    side = opened()
    events = asked(
        side, {"id": 1, "op": "status"}, {"id": 2, "op": "fly"}, {"id": 3, "op": "status"}
    )
    assert events == [Request(1, "status", {}), Answer(b""), Request(3, "status", {})]
    first, second = sent(side.reply(1, {"pid": 5}))
    assert first == {"id": 1, "ok": {"pid": 5}}
    assert second["id"] == 2
    assert second["error"]["code"] == "refused"
    assert "'fly'" in second["error"]["message"]
    assert sent(side.reply(3, {})) == [{"id": 3, "ok": {}}]


def test_replies_go_out_in_the_order_of_the_requests() -> None:
    side = opened()
    asked(side, *({"id": n, "op": "show", "task": n} for n in (1, 2, 3, 4)))
    assert side.pending == 4
    assert side.reply(3, {}) == b""
    assert side.refuse(2, UnknownTask("no task 2")) == b""
    assert sent(side.reply(1, {"a": 1})) == [
        {"id": 1, "ok": {"a": 1}},
        {"id": 2, "error": {"code": "unknown-task", "message": "no task 2"}},
        {"id": 3, "ok": {}},
    ]
    assert side.pending == 1
    assert sent(side.reply(4, {})) == [{"id": 4, "ok": {}}]
    assert side.pending == 0


def test_a_stream_waits_for_its_turn_and_then_speaks_between_other_replies() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "status"}, {"id": 2, "op": "follow", "tasks": [7]})
    assert side.reply(2, {}) == b""
    assert side.item(2, {"event": 1}) == b""
    assert [m.popitem()[0] for m in sent(side.reply(1, {}))] == ["ok", "ok", "item"]
    asked(side, {"id": 3, "op": "status"})
    assert sent(side.item(2, {"event": 2})) == [{"id": 2, "item": {"event": 2}}]
    assert sent(side.reply(3, {})) == [{"id": 3, "ok": {}}]
    assert sent(side.end(2, {})) == [{"id": 2, "end": {}}]
    assert not side.calls


def test_a_stream_that_ends_before_its_turn_comes_whole() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "status"}, {"id": 2, "op": "wait", "tasks": [7]})
    parts = [side.reply(2, {}), side.item(2, {"task": {}}), side.end(2, {})]
    assert parts == [b"", b"", b""]
    assert [sorted(message) for message in sent(side.reply(1, {}))] == [
        ["id", "ok"],
        ["id", "ok"],
        ["id", "item"],
        ["end", "id"],
    ]


def test_a_stream_that_cannot_go_on_ends_with_an_error() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "follow", "tasks": [7]})
    side.reply(1, {})
    assert sent(side.refuse(1, Refused("no more"))) == [
        {"id": 1, "error": {"code": "refused", "message": "no more"}}
    ]
    with pytest.raises(LookupError):
        side.item(1, {})


def test_stop_ends_a_stream_with_its_reply() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "follow", "tasks": [7]})
    side.reply(1, {})
    assert asked(side, {"id": 2, "op": "stop", "stream": 1}) == [Request(2, "stop", {"stream": 1})]
    assert side.item(1, {"event": 1}) != b""  # it was under way
    assert sent(side.reply(2, {})) == [{"id": 2, "ok": {}}]
    with pytest.raises(LookupError):
        side.item(1, {"event": 2})


def test_stopping_a_stream_that_is_over_or_stopped_twice_is_no_error() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "follow", "tasks": [7]})
    side.reply(1, {})
    asked(side, {"id": 2, "op": "stop", "stream": 1}, {"id": 3, "op": "stop", "stream": 1})
    assert side.reply(2, {}) + side.reply(3, {}) != b""
    asked(side, {"id": 4, "op": "stop", "stream": 1}, {"id": 5, "op": "stop", "stream": 99})
    assert len(sent(side.reply(4, {}) + side.reply(5, {}))) == 2


def test_stopping_a_stream_before_its_ok_breaks_the_protocol() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "follow", "tasks": [7]})
    side.feed(frames.encode({"id": 2, "op": "stop", "stream": 1}))
    with pytest.raises(ProtocolError, match="stop"):
        side.next()


def test_an_answer_that_is_not_due_is_our_own_mistake() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "status"})
    for wrong in (side.item, side.end):
        with pytest.raises(LookupError):
            wrong(1, {})
    with pytest.raises(LookupError):
        side.reply(2, {})
    side.reply(1, {})
    with pytest.raises(LookupError):
        side.reply(1, {})


def test_an_answer_that_does_not_fit_becomes_a_refusal() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "status"})
    [message] = sent(side.reply(1, {"x": b"y" * frames.LIMIT}))
    assert "does not fit" in message["error"]["message"]


def test_what_was_done_is_not_told_as_refused_because_it_does_not_fit() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "reload"})
    full = {"revision": "r2", "plan": "x" * frames.LIMIT}
    (message,) = sent(side.reply(1, full, short={"revision": "r2", "plan": None}))
    assert message == {"id": 1, "ok": {"revision": "r2", "plan": None}}


def test_a_refusal_fits_however_much_there_is_to_say() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "reload"})
    (message,) = sent(side.refuse(1, Refused("é" * frames.LIMIT)))
    assert message["error"]["message"] == "é" * MESSAGE


def test_past_the_bound_of_pending_requests_nothing_more_is_read() -> None:
    side = opened()
    asked(side, *({"id": n, "op": "status"} for n in range(1, control.MAX_PENDING + 1)))
    side.feed(frames.encode({"id": control.MAX_PENDING + 1, "op": "status"}))
    assert side.is_full
    assert side.next() is None
    side.reply(1, {})
    assert side.next() == Request(control.MAX_PENDING + 1, "status", {})


def test_past_the_bound_of_held_bytes_nothing_more_is_read() -> None:
    side = opened()
    asked(side, {"id": 1, "op": "status"}, {"id": 2, "op": "status"})
    side.reply(2, {"x": b"y" * control.HELD_BOUND})
    side.feed(frames.encode({"id": 3, "op": "status"}))
    assert side.next() is None
    side.reply(1, {})
    assert side.next() == Request(3, "status", {})


def test_one_stream_too_many_is_refused() -> None:
    side = opened()
    for number in range(1, control.MAX_STREAMS + 1):
        asked(side, {"id": number, "op": "follow", "tasks": [1]})
        side.reply(number, {})
    [event] = asked(side, {"id": control.MAX_STREAMS + 1, "op": "wait", "tasks": [1]})
    assert isinstance(event, Answer)
    assert "256 streams are open" in sent(event.data)[0]["error"]["message"]
    side.end(1, {})
    assert asked(side, {"id": control.MAX_STREAMS + 2, "op": "wait", "tasks": [1]}) == [
        Request(control.MAX_STREAMS + 2, "wait", {"tasks": [1]})
    ]


def test_a_handoff_keeps_order_streams_and_half_a_frame() -> None:
    before = opened()
    asked(
        before,
        {"id": 1, "op": "reload"},
        {"id": 2, "op": "follow", "tasks": [7]},
        {"id": 3, "op": "show", "task": 7},
    )
    before.reply(3, {"task": {}})
    before.reply(2, {})
    before.item(2, {"event": 1})
    later = frames.encode({"id": 4, "op": "stop", "stream": 2})
    before.feed(later[:5])
    state = sent(frames.encode(before.export()))[0]  # it is plain enough for a frame
    after = ServerSide.restore(state, before.rest)
    assert after.pending == 3
    assert {number: call.op for number, call in after.calls.items()} == {1: "reload", 2: "follow"}
    assert [message["id"] for message in sent(after.reply(1, {}))] == [1, 2, 2, 3]
    assert sent(after.item(2, {"event": 2})) == [{"id": 2, "item": {"event": 2}}]
    after.feed(later[5:])
    assert after.next() == Request(4, "stop", {"stream": 2})
    assert sent(after.reply(4, {})) == [{"id": 4, "ok": {}}]


def test_a_request_that_is_put_back_comes_again_before_what_followed_it() -> None:
    before = opened()
    asked(before, {"id": 1, "op": "show", "task": 7})
    before.reply(1, {"task": {}})
    for message in (
        {"id": 2, "op": "follow", "tasks": [7, 8], "after": 3},
        {"id": 3, "op": "list"},
    ):
        before.feed(frames.encode(message))
    follow = before.next()
    assert isinstance(follow, Request)
    before.put_back(follow)
    assert (before.pending, dict(before.calls)) == (0, {})
    after = ServerSide.restore(before.export(), before.rest)
    assert [after.next(), after.next()] == [follow, Request(3, "list", {})]


def test_a_handoff_before_the_hello_keeps_its_first_bytes() -> None:
    before = ServerSide()
    hello = frames.encode(HELLO)
    before.feed(hello[:9])
    assert before.next() is None
    after = ServerSide.restore(before.export(), before.rest)
    after.feed(hello[9:])
    assert after.next() == Hello(control.NEWEST)


TASK = {"submission": b"s" * 16, "name": "a", "args": b"\xa0"}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("show", {}, "show: task is missing"),
    ("show", {"task": None}, "show: task is missing"),
    ("show", {"task": "1"}, "show: task must be an int from 1 to .*, not str"),
    ("show", {"task": True}, "show: task must be an int .*, not bool"),
    ("show", {"task": 0}, "show: task must be an int from 1 .*it is 0"),
    ("show", {"task": 2**63}, "show: task must be"),
    ("submit", {"tasks": []}, "submit: tasks must be a list of 1 to 1,000 items; .*length 0"),
    ("submit", {"tasks": [TASK] * 1001}, "submit: tasks must be .*length 1,001"),
    ("submit", {"tasks": [TASK, 1]}, r"submit: tasks\[1\] must be a map, not int"),
    (
        "submit",
        {"tasks": [{**TASK, "submission": b"s"}]},
        r"tasks\[0\].submission must be 16 bytes",
    ),
    ("submit", {"tasks": [{**TASK, "name": ""}]}, r"name must be text of 1 to 200 characters"),
    ("submit", {"tasks": [{**TASK, "args": "x"}]}, r"args must be 1 to 1,048,576 bytes, not str"),
    ("submit", {"tasks": [{**TASK, "priority": 2**31}]}, "priority must be an int from"),
    ("submit", {"tasks": [{**TASK, "delay": -0.1}]}, "delay must be a number from 0"),
    ("submit", {"tasks": [{**TASK, "delay": float("nan")}]}, "delay must be a number from 0"),
    ("submit", {"tasks": [{**TASK, "delay": float("inf")}]}, "delay must be a number from 0"),
    ("submit", {"tasks": [{**TASK, "delay": True}]}, "delay must be a number .*not bool"),
    ("submit", {"tasks": [{**TASK, "options": []}]}, "options must be a map, not list"),
    (
        "submit",
        {"tasks": [{**TASK, "options": {"on_deploy": "x"}}]},
        r"tasks\[0\].options.on_deploy must be one of checkpoint, finish, not 'x'",
    ),
    ("list", {"state": "gone"}, "list: state must be one of cancelled, failed, .*not 'gone'"),
    ("list", {"limit": 1001}, "list: limit must be an int from 1 to 1,000"),
    ("wait", {"tasks": [1, "2"]}, r"wait: tasks\[1\] must be an int"),
    ("follow", {"tasks": [1], "progress": 1}, "follow: progress must be true or false, not int"),
    ("follow", {"tasks": [1], "after": -1}, "follow: after must be an int from 0"),
    ("log", {"task": 1, "limit": 2**20 + 1}, "log: limit must be"),
    ("reload", {"release": ""}, "reload: release must be text"),
    ("stop", {}, "stop: stream is missing"),
]


@pytest.mark.parametrize(("op", "fields", "text"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_field_is_named_by_both_ends(op: str, fields: dict[str, Any], text: str) -> None:
    side = opened()
    side.feed(frames.encode({"id": 1, "op": op, **fields}))
    with pytest.raises(ProtocolError, match=text):
        side.next()
    with pytest.raises(ProtocolError, match=text):
        ClientSide().request(op, fields)


def test_unknown_fields_and_nulls_are_left_out() -> None:
    side = opened()
    task = {
        **TASK,
        "key": None,
        "delay": 1,
        "color": "red",
        "options": {"on_deploy": "finish", "x": 1},
    }
    [event] = asked(side, {"id": 1, "op": "submit", "tasks": [task], "mood": "good"})
    wanted = {**TASK, "delay": 1, "options": {"on_deploy": "finish"}}
    assert event.fields == {"tasks": [wanted]}


def test_every_operation_of_the_specification_is_in_the_table_and_no_other() -> None:
    assert control.__doc__ is not None
    part = control.__doc__.split("Operations (")[1].split("\n    TASK is")[0]
    named = {line[4:].split()[0] for line in part.splitlines()[1:] if line[4:5].strip()}
    assert named == set(operations.OPERATIONS)


class Pair:
    """Both ends, and the events each has seen."""

    def __init__(self) -> None:
        self.client, self.server = ClientSide(), ServerSide()
        self.server.feed(self.client.hello())
        assert self.server.next() == Hello(control.NEWEST)
        self.client.feed(self.server.welcome(1000, True, "0.3.0"))
        assert self.client.next() == Welcome(control.NEWEST, "0.3.0", 1000, True)

    def ask(self, op: str, **fields: Any) -> int:
        number, raw = self.client.request(op, fields)
        self.server.feed(raw)
        event = self.server.next()
        assert isinstance(event, Request)
        assert event.id == number
        return number

    def get(self, raw: bytes) -> list[Any]:
        self.client.feed(raw)
        found = []
        while (event := self.client.next()) is not None:
            found.append(event)
        return found


def test_both_ends_understand_each_other() -> None:
    pair = Pair()
    show, follow = pair.ask("show", task=1), pair.ask("follow", tasks=[1])
    assert pair.get(pair.server.reply(follow, {})) == []
    assert pair.get(pair.server.reply(show, {"task": {}})) == [Reply(1, {"task": {}}), Reply(2, {})]
    assert pair.get(pair.server.item(follow, {"event": 5})) == [Item(2, {"event": 5})]
    missing = pair.ask("show", task=9)
    [refusal] = pair.get(pair.server.refuse(missing, UnknownTask("no task 9")))
    assert isinstance(refusal, Refusal)
    assert isinstance(refusal.error, UnknownTask)
    assert str(refusal.error) == "no task 9"
    assert pair.get(pair.server.end(follow, {})) == [End(2, {})]


@given(st.data())
def test_however_replies_are_ordered_the_client_gets_each_in_turn(draw: st.DataObject) -> None:
    pair = Pair()
    count = draw.draw(st.integers(1, 12))
    ids = [
        pair.ask(draw.draw(st.sampled_from(["status", "wait"])), tasks=[1]) for _ in range(count)
    ]
    seen: list[Any] = []
    for number in draw.draw(st.permutations(ids)):
        is_stream = pair.server.calls[number].op == "wait"
        seen += pair.get(pair.server.reply(number, {"n": number}))
        if draw.draw(st.booleans()):  # a handoff between any two answers
            state, rest = pair.server.export(), pair.server.rest
            pair.server = ServerSide.restore(state, rest)
        for _ in range(draw.draw(st.integers(0, 2)) if is_stream else 0):
            seen += pair.get(pair.server.item(number, {"of": number}))
        if is_stream:
            seen += pair.get(pair.server.end(number, {}))
    assert [event.id for event in seen if isinstance(event, Reply)] == ids
    assert len({event.id for event in seen if isinstance(event, End)}) == sum(
        isinstance(event, End) for event in seen
    )
    assert not pair.server.calls
    assert pair.server.pending == 0


BAD_REPLIES: dict[str, dict[str, Any]] = {
    "no id": {"ok": {}},
    "an id never asked": {"id": 9, "ok": {}},
    "out of turn": {"id": 2, "ok": {}},
    "an item of no stream": {"id": 1, "item": {}},
    "an end of no stream": {"id": 1, "end": {}},
    "ok that is no map": {"id": 1, "ok": 1},
    "an error without a code": {"id": 1, "error": {"message": "x"}},
    "nothing said": {"id": 1},
    "a goodbye without words": {"error": {"code": "x"}},
}


@pytest.mark.parametrize("message", BAD_REPLIES.values(), ids=BAD_REPLIES.keys())
def test_a_daemon_that_breaks_the_protocol_is_found_out(message: dict[str, Any]) -> None:
    pair = Pair()
    pair.ask("status"), pair.ask("status")
    pair.client.feed(frames.encode(message))
    with pytest.raises(ProtocolError):
        pair.client.next()


@pytest.mark.parametrize(
    "hello",
    [
        {},
        {"hello": {}},
        {"hello": {"version": 9, "taskd": "9", "uid": 0}},
        {"hello": {"version": 2, "taskd": "9", "uid": 0}},
        {"hello": {"version": 3, "taskd": 9, "uid": 0}},
        {"id": 1, "ok": {}},
    ],
)
def test_a_daemon_without_a_proper_hello_is_found_out(hello: dict[str, Any]) -> None:
    side = ClientSide()
    side.feed(frames.encode(hello))
    with pytest.raises(ProtocolError):
        side.next()


def test_a_goodbye_carries_its_kind_of_error() -> None:
    side = ClientSide()
    side.feed(farewell(ProtocolError("broken")) + farewell(Refused("too many")))
    first, second = side.next(), side.next()
    assert isinstance(first, Goodbye)
    assert isinstance(first.error, ProtocolError)
    assert isinstance(second, Goodbye)
    assert type(second.error) is Refused
    assert str(second.error) == "too many"


@given(st.binary(max_size=60), st.booleans())
def test_any_frame_is_an_event_or_a_protocol_error(body: bytes, first: bool) -> None:
    side = ServerSide() if first else opened()
    side.feed(len(body).to_bytes(4, "big") + body)
    try:
        side.next()
    except ProtocolError:
        return


FIELDS = st.dictionaries(
    st.sampled_from(sorted({name for op in operations.OPERATIONS.values() for name in op})),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 2**64 - 1),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.floats(),
        st.lists(st.integers(-1, 5), max_size=3),
        st.lists(st.just(TASK), max_size=2),
    ),
)


@given(st.sampled_from(sorted(operations.OPERATIONS)), FIELDS)
def test_what_one_end_takes_the_other_takes_too(op: str, fields: dict[str, Any]) -> None:
    side = opened()
    side.feed(frames.encode({"id": 1, "op": op, **fields}))
    try:
        event = side.next()
    except ProtocolError:
        with pytest.raises(ProtocolError):
            ClientSide().request(op, fields)
        return
    assert isinstance(event, Request)
    assert operations.check(op, event.fields) == event.fields
    ClientSide().request(op, event.fields)


ASKS: list[tuple[str, dict[str, Any]]] = [
    (
        "submit",
        {
            "tasks": [
                {
                    **TASK,
                    "key": "k",
                    "queue": "q",
                    "priority": 5,
                    "delay": 1.5,
                    "options": {"on_deploy": "checkpoint"},
                }
            ]
        },
    ),
    ("show", {"task": 1}),
    ("list", {"state": "held", "queue": "q", "name": "a", "limit": 5, "before": 9}),
    ("status", {}),
    ("wait", {"tasks": [1, 2]}),
    ("follow", {"tasks": [1], "after": 17, "progress": True}),
    ("log", {"task": 1, "offset": 5, "limit": 100}),
    ("cancel", {"task": 1}),
    ("retry", {"task": 1}),
    ("revisions", {}),
    ("reload", {"release": "/srv/app/r2"}),
    ("stop", {"stream": 6}),
    ("reload", {"plan": True, "allow_held": True}),
    ("rollback", {"plan": True}),
    ("drain", {"revision": "r1", "how": "checkpoint"}),
    ("submit", {"tasks": [{"submission": bytes(16), "name": "a", "args": b"\xa0"}]}),
    ("shutdown", {"plan": True, "keep": False}),
]
"""All that version 3 can ask."""

OTHERWISE = {0, 1, 2 + 2 * (len(ASKS) - 2)}
"""Frames of the conversation that this version writes otherwise than 0.2: the hellos, and the
``submit`` in which 0.2 says that there is a Secret."""


def conversation() -> list[tuple[str, bytes]]:
    """One of each kind of frame that this version writes: ">" by the client, "<" by the daemon."""
    person, daemon = ClientSide(), ServerSide()
    said = [(">", person.hello())]
    daemon.feed(said[0][1])
    assert daemon.next() == Hello(4)
    answer = daemon.welcome(1000, True, "0.3.0")
    said.append(("<", answer))
    person.feed(answer)
    assert person.next() == Welcome(4, "0.3.0", 1000, True)
    for op, fields in ASKS:
        number, request = person.request(op, fields)
        daemon.feed(request)
        assert daemon.next() == Request(number, op, fields)
        no_task = op == "show"
        answer = (
            daemon.refuse(number, UnknownTask("no task 1")) if no_task else daemon.reply(number, {})
        )
        person.feed(answer)
        assert isinstance(person.next(), Refusal if no_task else Reply)
        said += [(">", request), ("<", answer)]
    for answer in (daemon.item(5, {"task": {"id": 1}}), daemon.end(5, {})):
        said.append(("<", answer))
    return [*said, ("<", farewell(ProtocolError("broken")))]


def recorded() -> list[tuple[str, bytes]]:
    lines = [line.split() for line in (GOLDEN / "client-3.hex").read_text().splitlines()]
    return [(who, bytes.fromhex(raw)) for who, raw in lines]


def test_frames_are_written_as_they_were_recorded() -> None:
    mine, before = (
        [frame for number, frame in enumerate(said) if number not in OTHERWISE]
        for said in (conversation(), recorded())
    )
    assert mine == before


def test_recorded_frames_of_a_client_are_still_understood() -> None:
    side = ServerSide()
    found: list[Any] = []
    for who, raw in recorded():
        if who == ">":
            side.feed(raw)
            event = side.next()
            found.append(event)
            if isinstance(event, Hello):
                side.welcome(1000, True, "0.3.0")
            elif isinstance(event, Request):
                side.reply(event.id, {})
    requests = [Request(n, *each) for n, each in enumerate(ASKS, 1)]
    assert found == [Hello(3), *requests]


def test_recorded_frames_of_a_daemon_are_still_understood() -> None:
    side = ClientSide()
    stop = ASKS.index(("stop", {"stream": 6}))
    for op, fields in ASKS[:stop]:
        side.request(op, fields)
    events: list[Any] = []
    for who, raw in recorded():
        if who == "<":
            if len(events) == 7:  # the stream is open: now it can be stopped
                for each in ASKS[stop:]:
                    side.request(*each)
            side.feed(raw)
            events.append(side.next())
    kinds = [type(event).__name__ for event in events]
    assert kinds == [
        *["Welcome", "Reply", "Refusal"],
        *["Reply"] * (len(ASKS) - 2),
        *["Item", "End", "Goodbye"],
    ]
