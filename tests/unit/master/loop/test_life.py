"""The daemon's life: what may be done when, and who is told. Its table: tests/unit/model."""

from __future__ import annotations

import pytest

from taskd.master.loop.life import LIFE, Life, LifeEvent, LifeState

MAY = {
    LifeState.STARTING: (False, False, False, False),
    LifeState.ADOPTING: (False, False, True, False),
    LifeState.SERVING: (True, True, False, False),
    LifeState.HOLDING: (False, True, False, False),
    LifeState.STOPPING: (False, False, False, True),
}
"""In each state: is dispatched, is up, is adopting, is stopping."""


@pytest.mark.parametrize("state", LifeState, ids=lambda state: state.value)
def test_what_may_be_done_goes_by_the_state_alone(state: LifeState) -> None:
    life = Life(state)
    found = (life.may_dispatch, life.is_up, life.is_adopting, life.is_stopping)
    assert found == MAY[state]


@pytest.mark.parametrize("event", LifeEvent, ids=lambda event: event.value)
@pytest.mark.parametrize("state", LifeState, ids=lambda state: state.value)
def test_a_state_is_left_by_the_table_alone_and_that_is_told(
    state: LifeState, event: LifeEvent
) -> None:
    life, told = Life(state), []
    life.changed.to(lambda: told.append(life.state))
    if (state, event) in LIFE:
        life.take(event)
        assert told == [life.state] == [LIFE[state, event]]
    else:
        with pytest.raises(ValueError, match=f"{state.value} cannot take {event.value}"):
            life.take(event)
        assert (life.state, told) == (state, [])


def test_a_new_note_is_told() -> None:
    life, told = Life(), []
    life.changed.to(lambda: told.append(life.note))
    life.note = "deployed r2"
    assert told == ["deployed r2"]
