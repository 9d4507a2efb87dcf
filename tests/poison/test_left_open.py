"""What a task leaves open, or leaves in the event loop: the next task must not meet it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from support import processes
from support.beside import APP
from support.daemon import Daemon

POISON = r"""
import asyncio, atexit, fcntl, socket

LOCK = asyncio.Lock()
LOG = open("/dev/null")
kept = []

@task
async def waits_for_a_lock() -> int:
    async def inner():
        async with LOCK:
            await asyncio.sleep(0.001)
    await asyncio.gather(inner(), inner())
    return os.getpid()

@task
async def leaves_tasks() -> int:
    async def stays():
        while True:
            kept.append(1)
            await asyncio.sleep(0.001)
    kept.append(asyncio.create_task(stays()))
    await asyncio.sleep(0.01)
    return os.getpid()

@task
async def sees_tasks() -> list:
    before = len(kept)
    await asyncio.sleep(0.02)
    return [len(asyncio.all_tasks()), len(kept) - before]

@task
def locks(path: str, leaves: bool) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if not leaves:
        os.close(fd)
    return os.getpid()

def slow_end():
    atexit.register(time.sleep, 1.0)  # its worker goes a while after the task's last line

@task
def locks_for_good(path: str, kind: str) -> int:
    slow_end()
    kept.append(open(path, "a"))
    getattr(fcntl, kind)(kept[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    return os.getpid()

@task
def serves_for_good(port: int) -> int:
    slow_end()
    kept.append(socket.create_server(("127.0.0.1", port)))
    return os.getpid()

@task(on_deploy="checkpoint")
def locks_and_moves(ctx, path: str) -> int:
    slow_end()
    kept.append(open(path, "a"))
    fcntl.flock(kept[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    mark("locked")
    if ctx.attempt == 1:
        while True:
            ctx.checkpoint()
            time.sleep(0.01)
    return ctx.attempt

@task
def is_open(path: str) -> bool:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return path in [os.readlink(each) for each in links if os.path.lexists(each)]

connection = None

@task
def asks(port: int) -> list:
    global connection
    if connection is None:
        connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"x")
    return [os.getpid(), connection.recv(1) == b"x", connection.getsockname()[1]]

streams = None

@task
async def asks_later(port: int) -> list:
    global streams
    if streams is None:
        streams = await asyncio.open_connection("127.0.0.1", port)
    reader, writer = streams
    writer.write(b"x")
    return [os.getpid(), await reader.read(1) == b"x", writer.get_extra_info("sockname")[1]]
"""


@pytest.fixture
def site(new_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    """A daemon with one place, whose tasks run one after the other."""

    def make(**app: object) -> Daemon:
        made = new_daemon(app=app, queues={"default": {"concurrency": 1}})
        return made.with_releases(APP + POISON, "r1").start()

    return make


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(100):
                    connection.sendall(data)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def each_after_the_other(daemon: Daemon, name: str, times: int, **args: object) -> list[object]:
    """The results; each is submitted once the worker of the last can be used again."""
    found: list[object] = []
    with daemon.client() as client:
        for _ in range(times):
            found.append(client.submit(name, args).result(30))
            last = found[-1]
            daemon.through([last[0] if isinstance(last, list) else last])  # type: ignore[list-item]
    return found


def test_a_lock_of_a_module_works_in_every_async_task_of_a_worker(
    site: Callable[..., Daemon],
) -> None:
    daemon = site()
    pids = each_after_the_other(daemon, "waits_for_a_lock", 5)
    assert len(set(pids)) < 5, "one worker ran several"
    assert "it is not used again" not in daemon.log()


def test_asyncio_tasks_that_a_task_leaves_do_not_run_in_the_next(
    site: Callable[..., Daemon],
) -> None:
    daemon = site()
    (pid,) = each_after_the_other(daemon, "leaves_tasks", 1)
    assert daemon.client().submit("sees_tasks").result(30) == [1, 0]
    assert processes.is_alive(pid), "the same worker"  # type: ignore[arg-type]


def test_a_file_and_its_lock_that_a_task_leaves_open_do_not_meet_the_next(
    site: Callable[..., Daemon],
) -> None:
    daemon = site()
    path = daemon.path("locked")
    with daemon.client() as client:
        client.submit("locks", {"path": path, "leaves": True}).result(30)
        assert client.submit("is_open", {"path": path}).result(30) is False
        client.submit("locks", {"path": path, "leaves": False}).result(30)
    assert f"task 1 has changed its process: left open: {path}; it is not used" in daemon.log()
    assert daemon.log().count("it is not used again") == 1


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_task_that_leaves_a_lock_is_over_once_nobody_holds_it(
    site: Callable[..., Daemon], kind: str
) -> None:
    """However long its worker takes to go."""
    daemon = site()
    args = {"path": daemon.path("locked"), "kind": kind}
    with daemon.client() as client:
        tasks = [client.submit("locks_for_good", args) for _ in range(2)]
        first, second = (task.result(30) for task in tasks)
    assert first != second
    assert daemon.log().count("locked; it is not used again") == 2


def test_a_task_that_leaves_a_server_is_over_once_its_address_is_free(
    site: Callable[..., Daemon],
) -> None:
    daemon = site()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with daemon.client() as client:
        tasks = [client.submit("serves_for_good", {"port": port}) for _ in range(2)]
        first, second = (task.result(30) for task in tasks)
    assert first != second


def test_a_task_that_moves_does_not_meet_its_own_lock(
    site: Callable[..., Daemon],
) -> None:
    daemon = site()
    daemon.release("r2", APP + POISON)
    with daemon.client() as client:
        task = client.submit("locks_and_moves", {"path": daemon.path("locked")})
        daemon.reached(task.id, "locked")
        daemon.reload("r2")
        assert task.result(30) == 2


@pytest.mark.parametrize("name", ["asks", "asks_later"])
def test_a_connection_that_a_task_leaves_does_not_meet_the_next_unless_the_app_says_so(
    site: Callable[..., Daemon], echo: int, name: str
) -> None:
    daemon = site()
    found = each_after_the_other(daemon, name, 3, port=echo)
    assert all(answered for _, answered, _ in found)  # type: ignore[attr-defined]
    assert len({pid for pid, _, _ in found}) == 3  # type: ignore[attr-defined]
    assert f"a connection with 127.0.0.1:{echo} (see [app] keep_connections); it" in daemon.log()


@pytest.mark.parametrize("name", ["asks", "asks_later"])
def test_connections_are_kept_from_task_to_task_where_the_app_says_so(
    site: Callable[..., Daemon], echo: int, name: str
) -> None:
    daemon = site(keep_connections=True)
    found = each_after_the_other(daemon, name, 5, port=echo)
    assert all(answered for _, answered, _ in found)  # type: ignore[attr-defined]
    assert len({(pid, port) for pid, _, port in found}) < 5  # type: ignore[attr-defined]
    assert "it is not used again" not in daemon.log()
