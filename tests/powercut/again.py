"""A real daemon on what a power cut has left, on a machine that seems to have been restarted.

The boot id that its processes read is another one, by a mount that they alone see.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Mapping

from opening import lay_out
from runs import STATE, WANTED, Run
from support.daemon import Daemon
from support.waiting import eventually

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_MOUNT = f'mount --bind "$0" {_BOOT_ID} && exec "$@"'


def why_not() -> str | None:
    """Why no process here can be shown another boot id, or None."""
    tried = subprocess.run(
        ["unshare", "-m", "sh", "-c", _MOUNT, _BOOT_ID, "true"], capture_output=True, text=True
    )
    return None if tried.returncode == 0 else f"no mounts of its own here: {tried.stderr.strip()}"


class Restarted(Daemon):
    """On a copy of a disk; its releases are those of the recorded daemon."""

    def __init__(self, run: Run, left: Mapping[str, bytes | None]) -> None:
        super().__init__(queues={"default": {"concurrency": 16}})
        self._run = run
        self.sections["app"] = {"release": run.daemon.path("current")}
        self.write_config()
        lay_out(self.path("disk"), left)
        os.makedirs(self.path("disk", STATE), exist_ok=True)
        with open(self.path("boot"), "w", encoding="ascii") as file:
            file.write(f"{uuid.uuid4()}\n")
        self.open_gate("never")  # whoever waited there is an attempt of the past

    def environment(self) -> dict[str, str]:
        return super().environment() | {"STATE_DIRECTORY": self.path("disk", STATE)}

    def command(self, *arguments: str) -> list[str]:
        apart = ["unshare", "-m", "sh", "-c", _MOUNT, self.path("boot")]
        return [*apart, *super().command(*arguments)]

    def check(self, cut: int) -> None:
        """Everything that was acknowledged by then comes to its end, and nothing twice."""
        told = self._run.recording.told(cut)
        answers = [s.message["ok"] for s in told if s.asked and s.asked["op"] == "submit"]
        known = {task["id"] for ok in answers for task in ok["tasks"]}
        with self.client() as client:
            for number, wanted in zip(self._run.tasks, WANTED, strict=True):
                handle = client.handle(number)
                if number not in known or wanted.state == "later":
                    continue
                if wanted.state == "cancelled":
                    handle.cancel()
                    eventually(
                        lambda h=handle: h.status().state in ("cancelled", "succeeded"),  # type: ignore[misc]
                        f"task {number} has ended",
                    )
                else:
                    assert handle.result(60) == wanted.result
        done = {(effect.task, effect.item) for effect in self.effects()}
        assert not done & self._run.recording.never_again(cut)
