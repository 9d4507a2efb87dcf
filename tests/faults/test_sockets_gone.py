"""The runtime directory is removed under a running daemon: it can be reached again by itself."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable

import pytest
from looking import problems
from support.mounts import Mounted
from support.waiting import eventually


@pytest.mark.parametrize("what", ["a socket", "the directory"])
def test_sockets_that_were_removed_are_made_anew_and_lead_to_the_same_daemon(
    mounted: Callable[..., Mounted], what: str
) -> None:
    daemon = mounted()
    daemon.start()
    with daemon.raw() as before, daemon.client() as client:
        running = before.submit("loop")
        daemon.reached(running, "2")
        if what == "a socket":
            os.unlink(daemon.control)
        else:
            shutil.rmtree(daemon.runtime)
        assert before.ask("status")["pid"] == daemon.pid, "who is connected stays so"
        eventually(lambda: os.path.exists(daemon.control))
        assert client.status()["pid"] == daemon.pid
        assert client.submit("quick").result(30) == 0, "workers find their way in, too"
        assert daemon.reload("r2")["revision"] == "r2"
        assert before.ask("status")["revision"] == "r2"
        daemon.open_gate("go")
        assert client.handle(running).result(30) == 6


def test_a_socket_that_another_process_has_put_there_is_left_alone_and_said(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted()
    daemon.start()
    with daemon.raw() as before, socket.socket(socket.AF_UNIX) as other:
        eventually(lambda: before.ask("status")["pid"])
        os.unlink(daemon.submit_socket)
        other.bind(daemon.submit_socket)
        eventually(
            lambda: (
                f"nobody can connect to {daemon.submit_socket}: its file is another's: end "
                "that process, and remove the file" in problems(daemon)
            )
        )
        os.unlink(daemon.submit_socket)
        eventually(lambda: os.path.exists(daemon.submit_socket))
