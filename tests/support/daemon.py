"""A real daemon of one test: its directory, its releases, its processes, and their end.

``Daemon`` writes releases from source text, starts `python -m taskd run` as a session of its
own, and knows every process of it by a marker in the environment. Whatever a test does, ``end``
leaves no process behind, and says so if there was one that should have ended by itself.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Self

from support import processes
from support.raw import NEWEST, Raw
from support.waiting import eventually

import taskd
from taskd.slot import layout, reader

SIDE = os.path.join(os.path.dirname(__file__), "side.py")

LATER = os.path.join(os.path.dirname(__file__), "later")
"""On the module path of a daemon whose store is to answer later ($TASKD_TEST_LATER)."""

NOT_GIVEN = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
"""Variables of developers and containers that no user's service has: it finds compiled files, and
what it prints is buffered, also by C's stdio, where this would hide that it is lost."""

LOG_SHOWN = 12_000
"""Characters of the daemon's log that a failed test shows."""


class Effect(NamedTuple):
    """One item that was done, as its body wrote it down."""

    task: int
    item: str
    attempt: int
    revision: str
    pid: int


TASKCTL = "import sys; from taskd.cli.taskctl import main; sys.exit(main())"
"""The program."""


class Daemon:
    """One state directory and the daemon on it, started as often as a test likes.

    ``sections``: what taskd.toml holds besides the release and Python, by section.
    """

    usual_app: Mapping[str, Any] = {"memory_reserve": "none"}
    """What else stands under [app]: how much memory others use is not what is tested."""

    def __init__(self, **sections: Mapping[str, Any]) -> None:
        self.root = tempfile.mkdtemp(prefix="taskd-test-")
        os.chmod(self.root, 0o755)  # other users reach submit.sock through it
        self.sections: dict[str, dict[str, Any]] = {k: dict(v) for k, v in sections.items()}
        self.marker = f"TASKD_TEST_MARK={uuid.uuid4().hex}"
        self.process: subprocess.Popen[bytes] | None = None
        self.extra: dict[str, str] = {}  # more of the environment that it is started with
        self.constants: dict[str, float] = {}  # of its code, by "module.NAME": another value there
        self.runtime = self.path("run")
        self._last_log = ""
        for folder in ("state", "run", "logs", "releases", "gates"):
            os.mkdir(self.path(folder), 0o755)
        with open(self.path("effects"), "w", encoding="utf-8"):
            pass
        self.write_config()

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    # ── configuration and releases ───────────────────────────────────────────────────────────

    def write_config(self) -> None:
        """taskd.toml as ``sections`` say it now."""
        app = {"release": self.path("current"), "python": sys.executable, "modules": ["app"]}
        app |= self.usual_app
        table = {**self.sections, "app": app | self.sections.get("app", {})}
        lines = []
        for section, values in table.items():
            for key, value in values.items():
                if isinstance(value, dict):  # [queues.NAME]
                    lines += [f"[{section}.{key}]"]
                    lines += [f"{k} = {_toml(v)}" for k, v in value.items()]
        for section, values in table.items():
            plain = {k: v for k, v in values.items() if not isinstance(v, dict)}
            lines += [f"[{section}]", *(f"{k} = {json.dumps(v)}" for k, v in plain.items())]
        with open(self.path("taskd.toml"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def release(self, name: str, source: str) -> str:
        """Make a release whose app is ``source``; its path."""
        path = self.path("releases", name)
        os.mkdir(path)
        shutil.copy(SIDE, path)
        with open(os.path.join(path, "app.py"), "w", encoding="utf-8") as file:
            file.write(source)
        return path

    def with_releases(self, source: str, *names: str) -> Self:
        """It has a release of each name with that app, in which the text "REVISION" is the name;
        ``current`` is the first."""
        for name in names:
            self.release(name, source.replace('"REVISION"', f'"{name}"'))
        self.point(names[0])
        return self

    def point(self, name: str) -> None:
        """What `ln -sfn releases/NAME current` does."""
        fresh = self.path("current.new")
        os.symlink(self.path("releases", name), fresh)
        os.replace(fresh, self.path("current"))

    # ── starting and ending ──────────────────────────────────────────────────────────────────

    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TASKD_", "XDG_"))}
        for name in NOT_GIVEN:
            clean.pop(name, None)
        name, value = self.marker.split("=")
        if os.environ.get("TASKD_TEST_LATER"):
            clean["PYTHONPATH"] = LATER
        return clean | {
            "STATE_DIRECTORY": self.path("state"),
            "RUNTIME_DIRECTORY": self.runtime,
            "LOGS_DIRECTORY": self.path("logs"),
            "TASKD_TEST_EFFECTS": self.path("effects"),
            "TASKD_TEST_GATES": self.path("gates"),
            name: value,
            **self.extra,
        }

    def command(self, *arguments: str) -> list[str]:
        """What starts it."""
        program = ["-c", self._with_constants()] if self.constants else ["-m", "taskd"]
        config = self.path("taskd.toml")
        return [sys.executable, *program, "run", "--config", config, *arguments]

    def _with_constants(self) -> str:
        """`taskd` as a program, with those of its constants that are to be others."""
        lines = [f"import {name.rpartition('.')[0]}" for name in self.constants]
        lines += [f"{name} = {value}" for name, value in self.constants.items()]
        lines += ["import sys", "from taskd.cli.taskd import main", "sys.exit(main())"]
        return "\n".join(lines)

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `taskd run` without waiting for it; its output goes to the log."""
        with open(self.path("log"), "ab") as log:
            return subprocess.Popen(
                self.command(*arguments),
                env=self.environment(),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self, *arguments: str) -> Daemon:
        """Start it and wait until it answers."""
        self.process = self.spawn(*arguments)
        eventually(self._answers, "the daemon answers")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        status = self.process.poll()
        assert status is None, f"taskd run exited {status}:\n{self.log()[-LOG_SHOWN:]}"
        return self.is_answering()

    def is_answering(self) -> bool:
        """The one that was started last, and no other."""
        assert self.process is not None
        try:
            with Raw(self.control) as raw:
                return int(raw.ask("status")["pid"]) == self.process.pid
        except OSError:
            return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the master a signal; after SIGKILL wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(30)

    def stop(self, within: float = 30.0) -> int:
        """SIGTERM, as a service manager does it; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(within)

    def restart(self) -> Daemon:
        assert self.stop() == 0
        return self.start()

    def kill_everything(self) -> None:
        """SIGKILL to every process of this daemon at whatever remove, until none is left."""

        def none_is_left() -> bool:
            for pid in (found := processes.marked(self.marker)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        eventually(none_is_left, "every process of the daemon is killed")
        if self.process is not None:
            self.process.wait(30)

    def end(self) -> None:
        """The end of the test: nothing may be left that does not end by itself."""
        try:
            if self.process is not None and self.process.poll() is None:
                eventually(lambda: not self.zombies(), "every dead child is reaped")
                assert self.stop() == 0, "the daemon did not stop well"
            eventually(lambda: not processes.marked(self.marker), "every process has ended")
        finally:
            self.clean_up()

    def clean_up(self) -> None:
        """By force, without a question; the log stays readable for the report."""
        self.kill_everything()
        self._last_log = self.log()
        shutil.rmtree(self.root, ignore_errors=True)

    # ── talking to it ────────────────────────────────────────────────────────────────────────

    @property
    def control(self) -> str:
        return os.path.join(self.runtime, "control.sock")

    @property
    def submit_socket(self) -> str:
        return os.path.join(self.runtime, "submit.sock")

    def client(self, timeout: float = 30.0) -> taskd.Client:
        return taskd.Client(self.control, timeout=timeout)

    def raw(self, newest: int = NEWEST) -> Raw:
        return Raw(self.control, newest=newest)

    def taskctl(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run it on the daemon's control.sock, without a terminal."""
        return subprocess.run(
            [sys.executable, "-c", TASKCTL, "--socket", self.control, *map(str, words)],
            cwd=self.root,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def said(self, *words: object) -> str:
        """What taskctl prints; it ends with 0."""
        done = self.taskctl(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def reload(self, name: str | None = None) -> dict[str, Any]:
        """Point the symlink to that release and deploy it, as a deploy script does."""
        if name is not None:
            self.point(name)
        with self.client() as client:
            return client.reload()

    # ── looking at it ────────────────────────────────────────────────────────────────────────

    def log(self) -> str:
        try:
            with open(self.path("log"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return self._last_log

    def task_log(self, task: int) -> str:
        """What it has written; one that has written nothing has no file."""
        path = self.path("logs", f"{task}.log")
        with (
            contextlib.suppress(FileNotFoundError),
            open(path, encoding="utf-8", errors="replace") as file,
        ):
            return file.read()
        return ""

    def open_gate(self, name: str) -> None:
        with open(self.path("gates", name), "w", encoding="utf-8"):
            pass

    def effects(self, task: int | None = None) -> list[Effect]:
        """What was done, in order; of one task or of all."""
        with open(self.path("effects"), encoding="utf-8") as file:
            lines = [line.split() for line in file if line.endswith("\n")]
        found = [Effect(int(t), item, int(a), rev, int(pid)) for t, item, a, rev, pid in lines]
        return [effect for effect in found if task in (None, effect.task)]

    def items(self, task: int) -> list[str]:
        return [effect.item for effect in self.effects(task)]

    def reached(self, task: int, item: str, attempt: int | None = None) -> Effect:
        """Wait until the task has done that item (in that attempt)."""

        def look() -> Effect | None:
            fitting = [e for e in self.effects(task) if e.item == item]
            return next((e for e in fitting if attempt in (None, e.attempt)), None)

        return eventually(look, f"task {task} has done {item} (attempt {attempt or 'any'})")

    def zygotes(self) -> dict[str, int]:
        """The pids of the living zygotes by revision; the newest where there are several."""
        found = re.findall(r"zygote started revision=(\S+) pid=(\d+)", self.log())
        ours = set(self.processes())  # the pid of a dead one may be another process's by now
        return {revision: int(pid) for revision, pid in found if int(pid) in ours}

    def slot(self, pid: int) -> str:
        """The path of the slot of the worker with that pid; others may be there just now."""
        for path in glob.glob(self.path("state", "slots", "*" + layout.SUFFIX)):
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                if reader.read_header(file.fileno()).pid == pid:
                    return path
        raise AssertionError(f"no slot of a worker with pid {pid}")

    def processes(self) -> list[int]:
        return processes.marked(self.marker)

    def through(self, workers: Collection[int]) -> None:
        """Wait until these are done with their tasks also for themselves: each has said by then
        whether it can be used again."""
        busy = lambda: [pid for pid in workers if " task " in processes.title(pid)]  # noqa: E731
        eventually(lambda: not busy(), "the workers are through")

    def zombies(self) -> list[int]:
        return processes.zombies(self.processes())

    def descriptors(self) -> Counter[str]:
        """Those of the master, by kind and path, without the names that are made at random."""
        found: Counter[str] = Counter()
        for name, count in processes.descriptors(self.pid).items():
            found[re.sub(r"[0-9a-f]{32}\.slot", "SLOT", name)] += count
        return found


def by_item(effects: list[Effect]) -> dict[tuple[int, str], list[Effect]]:
    """The times that each item of each task was done."""
    found: dict[tuple[int, str], list[Effect]] = defaultdict(list)
    for effect in effects:
        found[effect.task, effect.item].append(effect)
    return found


def repeated(effects: list[Effect]) -> dict[tuple[int, str], int]:
    """Items that were done more than once, and how often."""
    return {key: len(times) for key, times in by_item(effects).items() if len(times) > 1}


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)
