"""Another user of the machine: what is not theirs is not there for them, and nothing lets them in.

Each test becomes that user for real, in a child.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  # the other user may not be able to read it
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.apps import WAITS_WITH
from support.daemon import Daemon
from support.raw import Raw
from support.users import OTHER, STRANGER, as_user, gid, groups_here
from support.waiting import eventually

import taskd
from taskd.errors import DeployRefused, NotAllowed
from taskd.posix import sockets
from taskd.protocol import frames
from taskd.slot import reader

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

APP = (
    WAITS_WITH
    + """
@task
def secretive(n: int = 0) -> str:
    gate("go")
    return "nobody else's"
"""
)

ADMINS, SUBMITTERS = groups_here(2)


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """With both lists of groups, so that anybody can connect to both sockets."""
    made = new_daemon(access={"admin_groups": [ADMINS], "submit_groups": [SUBMITTERS]})
    return made.with_releases(APP, "r1", "r2").start()


def as_submitter(act: Callable[[], Any], uid: int = STRANGER) -> Any:
    return as_user(uid, [gid(SUBMITTERS)], act)


# ── which socket ─────────────────────────────────────────────────────────────────────────────


def test_a_submitter_names_the_directory_and_reaches_submit_sock(daemon: Daemon) -> None:
    """control.sock lets them connect, and says no; that is no reason to look no further."""

    def submit() -> tuple[int, int]:
        with taskd.Client(daemon.runtime, timeout=20) as client:
            task = client.submit("waits", {"n": 7})
            return task.id, len(client.tasks())

    daemon.open_gate("go")
    task, seen = as_submitter(submit)
    assert seen == 1
    assert daemon.client().handle(task).result(30) == 7
    assert daemon.client().task(task).owner == STRANGER


def test_so_does_the_client_for_asyncio(daemon: Daemon) -> None:
    async def submit() -> int:
        async with taskd.AsyncClient(daemon.runtime, timeout=20) as client:
            return (await client.submit("waits", {"n": 8})).id

    daemon.open_gate("go")
    task = as_submitter(lambda: asyncio.run(submit()))
    assert daemon.client().handle(task).result(30) == 8


def test_a_submitters_reload_is_refused_for_what_it_is(daemon: Daemon) -> None:
    """The first connection ends: that must not look like a deploy whose outcome is unknown."""
    with pytest.raises(NotAllowed, match="only an operator"):
        as_submitter(lambda: taskd.Client(daemon.runtime, timeout=20).reload())


def test_an_admin_names_the_directory_and_has_control(daemon: Daemon) -> None:
    mine = daemon.client().submit("waits")

    def cancel() -> Any:
        with taskd.Client(daemon.runtime, timeout=20) as client:
            return client.cancel(mine.id)["state"], client.status()["note"]

    as_user(STRANGER, [gid(ADMINS)], cancel)
    assert mine.wait(30).state == "cancelled"


def test_who_is_in_no_group_hears_no_from_both(daemon: Daemon) -> None:
    with pytest.raises(NotAllowed, match=r"may not use submit\.sock"):
        as_user(STRANGER, [], lambda: taskd.Client(daemon.runtime, timeout=20).status())
    with pytest.raises(NotAllowed, match=r"may not use control\.sock"):
        as_submitter(lambda: taskd.Client(daemon.control, timeout=20).status())


def test_a_deploy_opens_and_closes_the_sockets_as_its_configuration_says(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon()
    daemon.with_releases(APP, "r1", "r2", "r3").start()

    def status() -> int:
        with taskd.Client(daemon.submit_socket, timeout=20) as client:
            return int(client.status()["pid"])

    with pytest.raises(taskd.NoDaemon, match="you may not connect to it"):
        as_submitter(status)
    daemon.sections["access"] = {"submit_groups": [SUBMITTERS]}
    daemon.write_config()
    daemon.reload("r2")
    assert as_submitter(status) == daemon.pid
    del daemon.sections["access"]
    daemon.write_config()
    daemon.reload("r3")
    with pytest.raises(taskd.NoDaemon, match="you may not connect to it"):
        as_submitter(status)


# ── what is not theirs ───────────────────────────────────────────────────────────────────────


def answers(daemon: Daemon, task: int) -> dict[str, Any]:
    """What the daemon says to each operation on ``task``, to whoever runs this."""
    found = {}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("show", {"task": task}),
        ("log", {"task": task}),
        ("cancel", {"task": task}),
        ("retry", {"task": task}),
        ("wait", {"tasks": [task]}),
        ("follow", {"tasks": [task], "progress": True}),
        ("list", {"before": task + 1}),
        ("list", {"name": "secretive"}),
        ("list", {"state": "running"}),
    ]
    with Raw(daemon.submit_socket) as raw:
        for number, (op, fields) in enumerate(requests):
            try:
                found[f"{number} {op}"] = raw.ask(op, **fields)
            except taskd.Error as error:
                found[f"{number} {op}"] = {error.code: str(error).replace(str(task), "N")}
    return found


def test_anothers_task_answers_as_one_that_is_not_there(daemon: Daemon) -> None:
    mine = daemon.client().submit("secretive", key="of-mine")
    eventually(lambda: mine.status().state == "running", "it runs")
    theirs = as_submitter(lambda: answers(daemon, mine.id))
    assert theirs == as_submitter(lambda: answers(daemon, 987_654))
    assert {name: set(said) for name, said in theirs.items() if "list" not in name} == {
        f"{number} {op}": {"unknown-task"}
        for number, op in enumerate(["show", "log", "cancel", "retry", "wait", "follow"])
    }
    lists = [said for name, said in theirs.items() if "list" in name]
    assert [said["tasks"] for said in lists] == [[], [], []]
    assert mine.status().state == "running"
    daemon.open_gate("go")
    assert mine.result(30) == "nobody else's"


def test_a_key_that_another_user_has_is_free(daemon: Daemon) -> None:
    def submit(name: str) -> int:
        with taskd.Client(daemon.submit_socket, timeout=20) as client:
            return client.submit(name, key="the-key").id

    mine = daemon.client().submit("secretive", key="the-key")
    theirs = as_submitter(lambda: submit("waits"))  # with the same key and another name
    others = as_submitter(lambda: submit("waits"), OTHER)
    assert len({mine.id, theirs, others}) == 3
    assert as_submitter(lambda: submit("waits")) == theirs
    daemon.open_gate("go")


def test_revisions_and_status_name_nobody_elses_tasks(daemon: Daemon) -> None:
    mine = daemon.client().submit("secretive")
    eventually(lambda: mine.status().state == "running", "it runs")
    daemon.release("broken", "raise RuntimeError('task 1 of root is stuck')")
    with pytest.raises(DeployRefused):
        daemon.reload("broken")

    def look() -> dict[str, Any]:
        with taskd.Client(daemon.submit_socket, timeout=20) as client:
            own = client.submit("waits")
            eventually(lambda: own.status().state == "running", "it runs")
            return {
                "own": own.id,
                "held by": [each["holds"] for each in client.revisions()],
                "rejected": client.rejected(),
                "note": client.status()["note"],
            }

    found = as_submitter(look)
    assert found["held by"] == [[{"task": found["own"], "name": "waits"}]]
    assert (found["rejected"], found["note"]) == ([], "")
    with daemon.client() as client:
        assert len(client.revisions()[0]["holds"]) == 2
        assert "broken" in client.status()["note"]
        assert [each["revision"] for each in client.rejected()] == ["broken"]
    daemon.open_gate("go")


def test_nothing_of_the_daemon_is_readable(daemon: Daemon) -> None:
    """Whatever they open below its directories; also with the directories themselves open."""
    task = daemon.client().submit("waits")
    eventually(lambda: task.status().state == "running", "it runs")
    for folder in ("state", "logs"):
        os.chmod(daemon.path(folder), 0o755)

    def readable() -> list[str]:
        found = []
        for top in ("state", "logs"):
            for where, folders, files in os.walk(daemon.path(top)):
                found += [os.path.join(where, each) for each in files]
                folders[:] = [each for each in folders if each]
        return [path for path in found if os.access(path, os.R_OK)]

    assert as_submitter(readable) == []
    assert as_user(STRANGER, [gid(ADMINS)], readable) == []
    daemon.open_gate("go")


# ── passing for a worker ─────────────────────────────────────────────────────────────────────


def hello(worker: bytes, **more: Any) -> bytes:
    fields = {"type": "hello", "role": "worker", "version": 2, "id": worker, "pid": os.getpid()}
    return frames.encode(fields | {"start": 1, "busy": None, "slot": worker.hex() + ".slot"} | more)


def said(path: str, sent: bytes) -> bytes:
    """What comes back until the end of the connection."""
    sock = sockets.connect(path, timeout=30)
    found = b""
    try:
        sock.sendall(sent)
        while chunk := sock.recv(65536):
            found += chunk
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        sock.close()
    return found


def owner(slot: Path) -> int:
    """The pid of the worker whose slot it is."""
    with slot.open("rb") as file:
        return reader.read_header(file.fileno()).pid


def test_another_user_cannot_pass_for_a_worker(daemon: Daemon) -> None:
    """Not even one that knows the worker's id and can reach the socket."""
    task = daemon.client().submit("waits", {"n": 3})
    pid = daemon.reached(task.id, "waits").pid
    slots = Path(daemon.path("state", "slots")).glob("*.slot")
    worker = next(bytes.fromhex(slot.stem) for slot in slots if owner(slot) == pid)
    path = daemon.path("run", "worker.sock")
    with pytest.raises(AssertionError, match="PermissionError"):
        as_submitter(lambda: said(path, hello(worker)))
    os.chmod(path, 0o666)
    assert as_submitter(lambda: said(path, hello(worker))) == b""
    assert "another user on worker.sock turned away" in daemon.log()
    assert said(path, hello(worker)) == b"", "nor another process of our own user"
    assert task.status().state == "running"
    daemon.open_gate("go")
    assert task.result(30) == 3
