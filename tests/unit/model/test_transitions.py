"""The transition tables: what they list happens, and nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from taskd.master.loop.life import LIFE, LifeEvent, LifeState
from taskd.model.revision import LIVE, REVISIONS, RevisionEvent, RevisionState
from taskd.model.table import after
from taskd.model.task import CHANGES, ENDED, SETTLED, Change, State
from taskd.model.upgrade import PHASES, Phase, Step
from taskd.model.worker import WORKERS, WorkerEvent, WorkerState
from taskd.model.zygote import ZYGOTES, ZygoteEvent, ZygoteState
from taskd.protocol.control import (
    CONNECTION,
    REQUEST,
    Phase as ConnectionPhase,
    Stage,
    Step as ConnectionStep,
    Turn,
)

TABLES: list[tuple[Mapping[Any, Any], type[Enum], type[Enum], set[Enum]]] = [
    (CHANGES, State, Change, {State.QUEUED}),
    (REVISIONS, RevisionState, RevisionEvent, {RevisionState.STARTING}),
    (WORKERS, WorkerState, WorkerEvent, {WorkerState.ASKED}),
    (ZYGOTES, ZygoteState, ZygoteEvent, {ZygoteState.ABSENT}),
    (LIFE, LifeState, LifeEvent, {LifeState.STARTING, LifeState.ADOPTING}),
    (PHASES, Phase, Step, {Phase.IDLE}),
    (CONNECTION, ConnectionPhase, ConnectionStep, {ConnectionPhase.NEW}),
    (REQUEST, Stage, Turn, {Stage.ASKED}),
]
"""Each with its states and events, and the states that something begins in."""

NAMES = [
    "tasks",
    "revisions",
    "workers",
    "zygotes",
    "the daemon's life",
    "deploys",
    "connections",
    "requests",
]

each_table = pytest.mark.parametrize(("table", "states", "events", "begins"), TABLES, ids=NAMES)


@each_table
def test_every_listed_pair_leads_where_it_says_and_every_other_raises(
    table: Mapping[Any, Any], states: type[Enum], events: type[Enum], begins: set[Enum]
) -> None:
    for state in states:
        for event in events:
            if (state, event) in table:
                assert after(table, state, event) is table[state, event]
            else:
                with pytest.raises(ValueError, match=f"{state.value} cannot take {event.value}"):
                    after(table, state, event)


@each_table
def test_every_state_can_be_reached_and_every_event_is_used(
    table: Mapping[Any, Any], states: type[Enum], events: type[Enum], begins: set[Enum]
) -> None:
    reached = set(begins)
    while more := {to for (at, _), to in table.items() if at in reached} - reached:
        reached |= more
    assert reached == set(states)
    assert {event for _, event in table} == set(events)


@pytest.mark.parametrize("change", Change)
@pytest.mark.parametrize("state", State)
def test_a_task_changes_by_its_table_alone(state: State, change: Change) -> None:
    if (state, change) in CHANGES:
        assert after(CHANGES, state, change) is CHANGES[state, change]
    else:
        with pytest.raises(ValueError, match=f"State {state.value} cannot take {change.value}"):
            after(CHANGES, state, change)


def test_only_a_retry_leaves_an_ended_task() -> None:
    assert {change for state, change in CHANGES if state in ENDED} == {Change.RETRY, Change.WAIT}


def test_a_task_that_succeeded_never_changes_again() -> None:
    assert not [state for state, _ in CHANGES if state is State.SUCCEEDED]


def test_whatever_waits_or_is_held_can_be_cancelled() -> None:
    cancellable = {state for state, change in CHANGES if change is Change.CANCEL}
    assert cancellable == set(State) - ENDED
    assert {State.HELD} == SETTLED - ENDED


def test_a_worker_may_die_at_any_time_and_only_once() -> None:
    dying = {state for state, event in WORKERS if event is WorkerEvent.DIED}
    assert dying == set(WorkerState) - {WorkerState.DEAD}


def test_a_task_is_sent_only_after_its_claim() -> None:
    assert [state for state, event in WORKERS if event is WorkerEvent.SENT] == [WorkerState.CLAIMED]


def test_a_revision_serves_only_once_it_is_proven() -> None:
    before = {state for state, event in REVISIONS if event is RevisionEvent.CONFIRM}
    assert before == LIVE | {RevisionState.PROVEN}


def test_every_phase_up_to_the_confirmation_can_be_refused() -> None:
    refusable = {phase for phase, step in PHASES if step is Step.REFUSE}
    assert refusable == set(Phase) - {Phase.IDLE}
    assert {PHASES[phase, Step.REFUSE] for phase in refusable} == {Phase.IDLE}


def test_a_zygote_is_gone_by_its_death_alone() -> None:
    gone = {event for (_, event), to in ZYGOTES.items() if to is ZygoteState.ABSENT}
    assert gone == {ZygoteEvent.DIED}
    mortal = {state for state, event in ZYGOTES if event is ZygoteEvent.DIED}
    assert mortal == set(ZygoteState) - {ZygoteState.ABSENT}


def test_a_daemon_that_stops_never_does_anything_else() -> None:
    left = {to for (state, _), to in LIFE.items() if state is LifeState.STOPPING}
    assert left == {LifeState.STOPPING}


def test_a_daemon_that_is_not_decided_about_can_only_be_decided_about() -> None:
    assert {event for state, event in LIFE if state is LifeState.ADOPTING} == {
        LifeEvent.SERVE,
        LifeEvent.GIVE_BACK,
    }
