"""Limits and the version before: 0.2 keeps none, which the plan says; back here they hold again."""

from __future__ import annotations

from collections.abc import Callable

from pythons import NEW, OLD, Python
from skewed import APP, Skewed
from support.waiting import eventually

LIMITED = """
NEWER = {} if taskd.__version__ == "0.2.0" else {"limit": "one:{of}"}
if NEWER:
    taskd.limit("one", concurrency=1)

@task(**NEWER)
def limited(of, word):
    mark("begin")
    gate(word)
    return ["REVISION", taskd.__version__]
"""


def test_what_a_limit_kept_runs_under_the_version_before_and_the_rest_is_kept_again(
    skewed: Callable[..., Skewed], old: Python, new: Python
) -> None:
    daemon = skewed(new, queues={"default": {"concurrency": 3}})
    daemon.with_app("r0", old, APP + LIMITED)
    daemon.with_app("r1", new, APP + LIMITED)
    daemon.point("r0")
    daemon.start()
    daemon.reload("r1")
    assert daemon.serving() == ("r1", NEW)
    with daemon.client() as client:
        submit = lambda word: client.submit("limited", {"of": 7, "word": word})  # noqa: E731
        tasks = [submit(word) for word in "abcde"]
        daemon.reached(tasks[0].id, "begin")
        eventually(lambda: "'one:7'" in (tasks[4].status().reason or ""), "it is blocked")
        plan = client.rollback(plan=True)["plan"]
        assert any("limits are not kept by taskd 0.2.0" in each for each in plan["warnings"])
        assert any(each.endswith("'one'") for each in plan["warnings"])
        client.rollback()
        assert daemon.serving() == ("r0", OLD)
        for task in tasks[1:3]:  # there are three places in the queue
            daemon.reached(task.id, "begin")
        daemon.reload("r1")
        assert daemon.serving() == ("r1", NEW)
        for word, task in zip("ab", tasks, strict=False):
            daemon.open_gate(word)
            task.result(60)
        assert client.why(tasks[3].id)["limit"]["held"] == 1
        assert [task.status().state for task in tasks[2:]] == ["running", "queued", "queued"]
        for word, task in zip("cde", tasks[2:], strict=True):
            daemon.reached(task.id, "begin")
            assert len(client.tasks(name="limited", state="running")) == 1
            daemon.open_gate(word)
            task.result(60)
