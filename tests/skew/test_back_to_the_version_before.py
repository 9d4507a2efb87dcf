"""A deploy that would bring another version of taskd fails: the image before goes on unharmed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pythons import NEW, NEXT, Python
from skewed import Skewed
from support.daemon import repeated

from taskd.errors import DeployRefused

STEPS = ("first stage", "read the snapshot", "load", "open the store", "confirm")


@pytest.fixture
def daemon(skewed: Callable[..., Skewed], new: Python, following: Python) -> Skewed:
    """r1 brings this version, r2 the next one."""
    made = skewed(new)
    made.with_app("r1", new)
    made.with_app("r2", following)
    return made


def test_a_newer_taskd_whose_trial_fails_refuses_the_deploy(daemon: Skewed) -> None:
    daemon.point("r1")
    daemon.start()
    daemon.let_fail("trial: load")
    with pytest.raises(DeployRefused, match="its trial failed at the step 'load'"):
        daemon.reload("r2")
    assert daemon.serving() == ("r1", NEW)
    daemon.reload("r2")
    assert daemon.serving() == ("r2", NEXT)


@pytest.mark.parametrize(("serves", "wanted"), [(("r1", NEW), "r2"), (("r2", NEXT), "r1")])
def test_an_image_of_another_version_that_fails_gives_back_what_it_was_given(
    daemon: Skewed, serves: tuple[str, str], wanted: str
) -> None:
    daemon.point(serves[0])
    daemon.start()
    assert daemon.serving() == serves
    pid = daemon.pid
    with daemon.raw() as carried, daemon.client() as client:
        stays, travels = client.submit("stays", {"n": 3}), client.submit("travels", {"n": 2})
        stream = carried.start("follow", tasks=[stays.id], progress=False)
        daemon.open_gate("item-0")
        for task in (stays, travels):
            daemon.reached(task.id, "0")
        for step in STEPS:
            daemon.let_fail(step)
            with pytest.raises(DeployRefused, match=f"did not take over, at the step '{step}'"):
                daemon.reload(wanted)
            assert daemon.serving() == serves
            assert daemon.which() == list(serves)
        assert daemon.pid_is_still(pid)
        daemon.reload(wanted)
        assert daemon.serving()[0] == wanted
        daemon.open_gate("item-1")
        assert travels.result(30) == [serves[0], wanted]
        daemon.open_gate("go")
        assert stays.result(30) == [3, *serves]
        carried.reply_to(stream)
        assert [item["state"] for item in carried.items(stream)][-1] == "succeeded"
    assert not repeated(daemon.effects())
