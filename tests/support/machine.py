"""A test machine: a Debian that has booted with systemd, in a container of its own.

systemd-nspawn boots it without being registered anywhere. Its root is a stack of read-only layers
below a file system in memory: a machine costs no copying, survives its own reboot, and is gone
with its processes. Everything lives in a mount namespace and a pid namespace of the machine's
own, whose first process dies with the thread that started it: however a test run ends, the kernel
ends the machine's processes and removes its mounts.

Commands run inside by nsenter, with the machine's PATH and nothing of ours in their environment.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from support.roots import CAGE, PATH
from support.waiting import eventually

TOOLS = ("debootstrap", "systemd-nspawn", "nsenter", "unshare", "setpriv")

_STACK = """
set -e
mount -t tmpfs -o mode=755 machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay machine -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
"""
_BOOT = (
    _STACK
    + """
# nspawn clears this place between two boots, and refuses to where /run is on a disk.
mkdir -p /run/systemd/nspawn
mount -t tmpfs nspawn /run/systemd/nspawn
status=133  # how it says that the machine wants to boot again
while [ "$status" = 133 ]; do
    status=0
    systemd-nspawn --quiet --directory="$1/root" --machine="$3" --boot --register=no --keep-unit \
        --private-network --link-journal=no --resolv-conf=off --timezone=off --console=pipe ||
        status=$?
done
"""
)


class Machine:
    """One booted container. ``layers``: directories, the uppermost first."""

    def __init__(self, layers: Sequence[Path], name: str = "machine") -> None:
        self.name = name
        self._place = Path(tempfile.mkdtemp(prefix="taskd-machine-"))
        self._groups = _groups(self._place.name)
        self._log = (self._place.parent / f"{self._place.name}.console").open("w+")
        stack = ":".join(map(str, layers))
        command = ["setpriv", "--pdeathsig=KILL", *CAGE, "/bin/sh", "-c", _BOOT, "boot"]
        self._process = subprocess.Popen(
            [*command, str(self._place), stack, name],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**_environment(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            preexec_fn=lambda: _join(self._groups),
        )
        self.leader = 0

    def wait_until_booted(self) -> None:
        """Until systemd says that it runs. Raises AssertionError if a unit of its own failed."""
        self.leader = eventually(self._find_leader, "a booted container")
        state = eventually(self._settled, "the end of the boot")
        assert state == "running", f"{state}\n{self.failed_units()}\n{self.console()}"

    def run(
        self,
        *command: str,
        user: str = "root",
        check: bool = True,
        input: str = "",
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside. With ``check``, a failure is an AssertionError with what it said.

        A command without a slash is looked for in the machine's PATH.
        """
        ran = subprocess.run(
            [*self.entering(user, env), *command],
            input=input,
            capture_output=True,
            text=True,
            env=_environment(),
            preexec_fn=self._join_inside,
            timeout=120,
        )
        assert not check or ran.returncode == 0, (
            f"{command}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        )
        return ran

    def start(self, *command: str, user: str = "root") -> subprocess.Popen[str]:
        """Run a command inside and do not wait for it; the caller does."""
        return subprocess.Popen(
            [*self.entering(user, None), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
            preexec_fn=self._join_inside,
        )

    def kill(self, pid: int, signal: str = "KILL") -> None:
        """Send a signal to the process that has this pid inside."""
        self.run("sh", "-c", 'kill -s "$1" "$2"', "kill", signal, str(pid))

    def entering(self, user: str, env: dict[str, str] | None = None) -> list[str]:
        """The words before a command that is to run inside as ``user``."""
        home = "/root" if user == "root" else f"/home/{user}"
        variables = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": home, "USER": user, **(env or {})}
        words = [
            "nsenter",
            f"--target={self.leader}",
            "--all",
            "--",
            "env",
            "-i",
            f"--chdir={home}",
        ]
        words += [f"{key}={value}" for key, value in variables.items()]
        if user != "root":
            words += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
        return words

    def says(self, *command: str, user: str = "root") -> str:
        """What a command prints, without the last newline; it must succeed."""
        return self.run(*command, user=user).stdout.rstrip("\n")

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Have the file ``path`` with this content, its directories too."""
        script = 'mkdir -p "${1%/*}" && cat > "$1" && chmod "$2" "$1"'
        self.run("sh", "-c", script, "write", path, mode, input=text)

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def property(self, unit: str, name: str) -> str:
        """What systemd says of a unit, such as its MainPID."""
        return self.says("systemctl", "show", "--value", f"--property={name}", unit)

    def failed_units(self) -> str:
        return self.run("systemctl", "--failed", "--no-legend", check=False).stdout

    def journal(self, *options: str) -> str:
        """The journal of this boot, as text without times; all that was said before is in it."""
        # not for ever: a test that has stopped journald and fails shows what there is
        self.run("timeout", "10", "journalctl", "--sync", check=False)
        command = ["journalctl", "--boot", "--no-pager", "--output=cat", *options]
        return self.run(*command, check=False).stdout

    def console(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def reboot(self) -> None:
        """An orderly restart of the whole machine; what is on its disk is kept."""
        before = psutil.Process(self.leader)
        self.run("systemctl", "--no-block", "reboot")
        eventually(lambda: not before.is_running(), "the end of the machine before the reboot", 180)
        self.wait_until_booted()

    def end(self) -> None:
        """Pull the plug: nothing of the machine is left."""
        self._process.kill()
        self._process.wait()
        if self.leader:
            eventually(lambda: not psutil.pid_exists(self.leader), "the end of the machine")
        for group in self._groups:
            eventually(lambda group=group: _removed(group), f"an empty {group}")
        self._place.rmdir()
        self._log.close()
        os.unlink(self._log.name)

    def _join_inside(self) -> None:
        """Be in a control group that the machine can see: its logind asks where its callers are."""
        for hierarchy, own in _hierarchies(self.leader):
            _join([Path(hierarchy + own)])

    def _find_leader(self) -> int:
        """The container's first process: the one that is 1 in the innermost of three namespaces."""
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                status = Path(f"/proc/{child.pid}/status").read_text()
                pids = next(line for line in status.splitlines() if line.startswith("NSpid:"))
                if child.name() == "systemd" and pids.split()[-1] == "1":
                    return child.pid
        assert self._process.poll() is None, f"the machine did not boot:\n{self.console()}"
        return 0

    def _settled(self) -> str:
        state = self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
        return state if state in ("running", "degraded", "maintenance") else ""


def _environment() -> dict[str, str]:
    """For the tools outside: ours but for what would reach into the machine."""
    return {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}


def _groups(name: str) -> list[Path]:
    """A control group of the machine's own in each hierarchy that systemd uses.

    Without one, two machines at once would find each other's processes in theirs.
    """
    made = [Path(hierarchy + own) / name for hierarchy, own in _hierarchies("self")]
    for group in made:
        group.mkdir()
    return made


def _hierarchies(pid: int | str) -> Iterator[tuple[str, str]]:
    """Where each hierarchy that systemd uses is mounted, and the group of ``pid`` in it."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, own = line.split(":", 2)
        if number != "0" and controllers != "name=systemd":
            continue
        kind, option = ("cgroup2", "rw") if number == "0" else ("cgroup", "name=systemd")
        for mount in mounts:
            if mount[mount.index("-") + 1] == kind and option in mount[-1].split(","):
                yield mount[4], own
                break


def _join(groups: list[Path]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text(str(os.getpid()))


def _removed(group: Path) -> bool:
    """Whether ``group`` and all within is gone; the last processes may take a moment to leave."""
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:
            return False
    return True
