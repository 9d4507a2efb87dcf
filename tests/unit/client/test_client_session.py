"""Requests over lost connections, without a socket: a session against the daemon's real end."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, strategies as st

from taskd.cli.install.installation import text_of
from taskd.client.aio import AsyncClient
from taskd.client.blocking import Client
from taskd.client.session import Asked, Patience, Reached, Session
from taskd.errors import Error, NoDaemon, ProtocolError, Refused
from taskd.protocol import frames, operations
from taskd.protocol.control import NEWEST
from taskd.protocol.server_side import Hello, Request, ServerSide, farewell


class Line:
    """A session's connection to a daemon's end; ``requests`` are those that arrived on it."""

    def __init__(self, session: Session, version: int = NEWEST) -> None:
        self.session = session
        self.server = ServerSide()
        self.version = version
        self.requests: list[Request] = []
        session.connected()
        self.carry()

    def carry(self) -> list[Request]:
        self.server.feed(self.session.to_send())
        new = []
        while (event := self.server.next()) is not None:
            if isinstance(event, Hello):
                hello = {"version": self.version, "taskd": f"0.{self.version}.0", "uid": 0}
                self.server.welcome(0, True, "")
                self.told = self.session.receive(frames.encode({"hello": hello}))
                self.server.feed(self.session.to_send())
            elif isinstance(event, Request):
                new.append(event)
        self.requests += new
        return new

    def say(self, raw: bytes) -> list[Asked]:
        return self.session.receive(raw)


def test_what_is_asked_before_there_is_a_connection_goes_out_with_it() -> None:
    session = Session()
    session.ask(Asked("show", {"task": 1}))
    session.ask(Asked("status", {}))
    assert session.to_send() == b""
    assert [each.op for each in Line(session).requests] == ["show", "status"]


def test_after_a_loss_only_what_has_no_answer_is_sent_again_and_in_order() -> None:
    session = Session()
    asked = [Asked("show", {"task": number}) for number in (1, 2, 3)]
    line = Line(session)
    for each in asked:
        session.ask(each)
    line.carry()
    assert line.say(line.server.reply(1, {"task": {}})) == [asked[0]]
    assert asked[0].is_over
    assert asked[0].ok == {"task": {}}
    assert session.lost() == []
    again = Line(session)
    assert [each.fields for each in again.requests] == [{"task": 2}, {"task": 3}]
    assert [each.sent for each in asked] == [1, 2, 2]
    assert again.say(again.server.reply(1, {})) == [asked[1]]


def test_a_reload_is_not_sent_again_but_ends_as_unknown() -> None:
    session = Session()
    reload = Asked("reload", {})
    session.ask(reload)
    Line(session)
    assert session.lost() == [reload]
    assert type(reload.error) is Error
    assert "taskctl status" in str(reload.error)
    assert not session.waiting
    assert Line(session).requests == []


def test_a_reload_that_never_went_out_is_sent_with_the_next_connection() -> None:
    session = Session()
    session.ask(Asked("reload", {}))
    assert session.lost() == []
    assert [each.op for each in Line(session).requests] == ["reload"]


@pytest.fixture
def new_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if version 4 had brought ``rollback``, and ``plan`` in ``reload``."""
    plan = operations.OPERATIONS["reload"]["plan"]._replace(since=4)
    monkeypatch.setitem(operations.OPERATIONS["reload"], "plan", plan)
    monkeypatch.setitem(operations.SINCE, "rollback", 4)


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("reload", {"plan": True}),
        ("reload", {"release": "/srv/r2", "plan": True}),
        ("rollback", {}),
    ],
)
def test_a_daemon_that_would_misunderstand_a_request_is_never_sent_it(
    new_requests: None, op: str, fields: dict[str, Any]
) -> None:
    session = Session()
    too_new = Asked(op, fields)
    session.ask(too_new)
    session.ask(Asked("status", {}))
    line = Line(session, version=3)
    assert line.told == [too_new]
    assert isinstance(too_new.error, Refused)
    assert f"taskd 0.3.0, which has no {op}" in str(too_new.error)
    assert [each.op for each in line.requests] == ["status"]
    again = Asked(op, fields)
    session.ask(again)
    assert again.is_over
    assert line.carry() == []


def test_a_request_of_a_newer_version_goes_out_once_the_daemon_has_told_its_own(
    new_requests: None,
) -> None:
    session = Session()
    for op in ("status", "rollback", "revisions"):
        session.ask(Asked(op, {}))
    session.connected()
    before = session.to_send()
    server = ServerSide()
    server.feed(before)
    assert server.next() == Hello(NEWEST)
    welcome = server.welcome(0, True, "0.3.0")
    assert [event.op for event in iter(server.next, None)] == ["status"]
    assert session.receive(welcome) == []
    server.feed(session.to_send())
    assert [event.op for event in iter(server.next, None)] == ["rollback", "revisions"]


def test_what_was_held_back_and_dropped_is_not_sent(new_requests: None) -> None:
    session = Session()
    rollback = Asked("rollback", {})
    session.ask(rollback)
    session.connected()
    session.drop(rollback)
    server = ServerSide()
    server.feed(session.to_send())
    server.next()
    session.receive(server.welcome(0, True, "0.3.0"))
    assert session.to_send() == b""


def test_a_daemon_that_is_newer_after_a_restart_is_asked_what_the_old_one_was_not(
    new_requests: None,
) -> None:
    session = Session()
    Line(session, version=3)
    session.lost()
    session.ask(Asked("rollback", {}))
    assert [each.op for each in Line(session, version=4).requests] == ["rollback"]


CUTS = st.lists(st.integers(0, 400), max_size=8)
"""After how many bytes from the daemon each connection but the last is lost."""


@given(st.sets(st.integers(1, 1000), max_size=12), CUTS)
def test_follow_loses_and_repeats_nothing_however_often_connections_are_lost(
    numbers: set[int], cuts: list[int]
) -> None:
    events = [{"event": number, "task": 1} for number in sorted(numbers)]
    session = Session()
    follow = Asked("follow", {"tasks": [1], "after": 0})
    session.ask(follow)
    while not follow.is_over:
        line = Line(session)
        [request] = line.requests
        left = [event for event in events if event["event"] > request.fields["after"]]
        raw = line.server.reply(1, {})
        raw += b"".join(line.server.item(1, event) for event in left) + line.server.end(1, {})
        line.say(raw[: cuts.pop()] if cuts else raw)
        session.lost()
    assert list(follow.items) == events
    assert follow.error is None


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=12, unique=True),
    CUTS,
    st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_follow_goes_on_by_the_token_whatever_the_numbers_are(
    numbers: list[int], cuts: list[int], knows_tokens: list[bool]
) -> None:
    """Several writers' numbers are in no order. A daemon that knows no tokens, before it or after
    it, has one writer: it goes by the number."""
    if not all(knows_tokens):
        numbers.sort()
    events = [{"event": number, "task": 1} for number in numbers]
    session = Session()
    follow = Asked("follow", {"tasks": [1]})
    session.ask(follow)
    while not follow.is_over:
        line = Line(session)
        [request] = line.requests
        told = numbers.index(request.fields["after"]) + 1 if request.fields.get("after") else 0
        has_tokens = knows_tokens.pop() if knows_tokens else True
        if has_tokens and request.fields.get("token"):
            told = int(request.fields["token"].removeprefix("told "))
        raw = line.server.reply(1, {})
        for index in range(told, len(events)):
            token = {"token": f"told {index + 1}"} if has_tokens else {}
            raw += line.server.item(1, events[index] | token)
        raw += line.server.end(1, {})
        line.say(raw[: cuts.pop()] if cuts else raw)
        session.lost()
    assert [item["event"] for item in follow.items] == numbers
    assert follow.error is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8, unique=True), CUTS)
def test_wait_tells_of_each_task_once_however_often_connections_are_lost(
    tasks: list[int], cuts: list[int]
) -> None:
    session = Session()
    wait = Asked("wait", {"tasks": tasks})
    session.ask(wait)
    while not wait.is_over:
        line = Line(session)
        [request] = line.requests
        raw = line.server.reply(1, {})
        for task in reversed(request.fields["tasks"]):
            raw += line.server.item(1, {"task": {"id": task}})
        raw += line.server.end(1, {})
        line.say(raw[: cuts.pop()] if cuts else raw)
        session.lost()
    assert sorted(item["task"]["id"] for item in wait.items) == sorted(tasks)


def test_a_wait_that_was_told_all_but_its_end_is_over_when_the_connection_is_lost() -> None:
    session = Session()
    wait = Asked("wait", {"tasks": [5]})
    session.ask(wait)
    line = Line(session)
    line.say(line.server.reply(1, {}) + line.server.item(1, {"task": {"id": 5}}))
    assert not wait.is_over
    assert session.lost() == [wait]
    assert wait.error is None


def test_of_progress_only_the_latest_that_nobody_took_is_kept() -> None:
    session = Session()
    follow = Asked("follow", {"tasks": [1, 2], "progress": True})
    session.ask(follow)
    line = Line(session)
    raw = line.server.reply(1, {})
    for task, done in ((1, 1), (1, 2), (2, 1), (1, 3), (1, 4)):
        raw += line.server.item(1, {"progress": {"task": task, "done": done}})
    line.say(raw)
    kept = [(item["progress"]["task"], item["progress"]["done"]) for item in follow.items]
    assert kept == [(1, 2), (2, 1), (1, 4)]


def test_a_dropped_stream_is_stopped_and_its_items_go_nowhere() -> None:
    session = Session()
    follow = Asked("follow", {"tasks": [1]})
    session.ask(follow)
    line = Line(session)
    line.say(line.server.reply(1, {}))
    session.drop(follow)
    assert not session.waiting
    assert [each.op for each in line.carry()] == ["stop"]
    line.say(line.server.item(1, {"event": 1}) + line.server.reply(2, {}))
    assert not follow.items
    assert Line(session).requests == []


def test_a_stream_dropped_before_it_is_open_is_stopped_once_it_is() -> None:
    session = Session()
    follow = Asked("follow", {"tasks": [1]})
    session.ask(follow)
    line = Line(session)
    session.drop(follow)
    assert line.carry() == []
    line.say(line.server.reply(1, {}))
    assert [each.op for each in line.carry()] == ["stop"]


def test_the_answer_to_a_dropped_request_harms_nobody() -> None:
    session = Session()
    dropped, wanted = Asked("status", {}), Asked("status", {})
    session.ask(dropped)
    session.ask(wanted)
    line = Line(session)
    session.drop(dropped)
    line.say(line.server.reply(1, {"n": 1}) + line.server.reply(2, {"n": 2}))
    assert wanted.ok == {"n": 2}


def test_a_refusal_ends_a_request_with_its_kind_of_error() -> None:
    session = Session()
    show = Asked("show", {"task": 1})
    session.ask(show)
    line = Line(session)
    line.say(line.server.refuse(1, Refused("no")))
    assert show.is_over
    assert type(show.error) is Refused


def test_a_goodbye_ends_all_that_waits() -> None:
    session = Session()
    asked = [Asked("show", {"task": 1}), Asked("follow", {"tasks": [1]})]
    for each in asked:
        session.ask(each)
    line = Line(session)
    assert line.say(farewell(Refused("too many connections"))) == asked
    assert all("too many" in str(each.error) for each in asked)


@pytest.mark.parametrize("item", [{"event": "5"}, {"event": None}])
def test_an_event_without_a_number_is_a_breach(item: dict[str, Any]) -> None:
    session = Session()
    session.ask(Asked("follow", {"tasks": [1]}))
    line = Line(session)
    with pytest.raises(ProtocolError):
        line.say(line.server.reply(1, {}) + frames.encode({"id": 1, "item": item}))


ERROR = NoDaemon("nobody")


def test_a_daemon_that_was_never_reached_is_not_waited_for() -> None:
    with pytest.raises(NoDaemon):
        Patience(30, Reached()).pause(ERROR, 0.0)


def test_pauses_grow_from_nothing_to_half_a_second() -> None:
    patience = Patience(30, Reached())
    patience.connected()
    pauses = [patience.pause(ERROR, 0.0) for _ in range(9)]
    assert pauses == [0.0, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5]


def test_patience_ends_at_its_limit_and_an_answer_renews_it() -> None:
    patience = Patience(30, Reached())
    patience.connected()
    assert patience.pause(ERROR, 100.0) == 0.0
    patience.connected()  # a connection alone says nothing
    assert patience.pause(ERROR, 129.9) <= 0.1
    patience.heard()
    assert patience.pause(ERROR, 200.0) == 0.0
    with pytest.raises(NoDaemon):
        patience.pause(ERROR, 230.0)


def test_a_client_that_reached_the_daemon_once_waits_on_each_of_its_links() -> None:
    reached = Reached()
    Patience(30, reached).connected()
    assert Patience(30, reached).pause(ERROR, 0.0) == 0.0


def test_a_client_waits_longer_than_the_watchdog_takes_to_end_a_daemon_that_hangs() -> None:
    """By the units that are installed; and the next one needs its time to begin."""
    for unit in ("taskd.service", "taskd@.service", "user/taskd.service"):
        said = re.search(r"^WatchdogSec=(\d+)$", text_of(unit), re.MULTILINE)
        assert said is not None
        for default in (Client.__init__.__defaults__, AsyncClient.__init__.__defaults__):
            assert default is not None
            assert default[-1] >= int(said[1]) + 20
