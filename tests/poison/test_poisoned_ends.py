"""Tasks that end their process, raise what nobody should raise, or return what nobody can keep."""

from __future__ import annotations

from collections import Counter

import pytest
from support import processes
from support.beside import Beside
from support.daemon import Daemon
from support.reasons import told

import taskd

POISON = r"""
def limited(what, soft):
    resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))

class Deep:
    def __repr__(self):
        return repr(self)

def overflow_the_stack():
    sys.setrecursionlimit(10**9)
    repr(Deep())

def burn_the_processor():
    limited(resource.RLIMIT_CPU, 1)
    while True:
        pass

def die_by_an_alarm():
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    gate("never")

def kill_itself_while_deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    os.kill(os.getpid(), signal.SIGKILL)

def forked():
    child = os.fork()
    if child == 0:
        stray()
    return child == 0

def leave_a_crowd():
    for _ in range(5):
        if forked():
            os.setsid()
    if forked():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        gate("never")
    os._exit(9)

DEATHS = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit 0": lambda: os._exit(0),
    "exit 3": lambda: os._exit(3),
    "kill": kill_itself_while_deaf,
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "real-time signal": lambda: os.kill(os.getpid(), signal.SIGRTMIN + 3),
    "alarm": die_by_an_alarm,
    "processor": burn_the_processor,
    "stack": overflow_the_stack,
    "exec": lambda: os.execv("/bin/sh", ["sh", "-c", "kill -USR1 $$"]),
    "exec, exit": lambda: os.execv("/bin/sh", ["sh", "-c", "exit 7"]),
    "a crowd": leave_a_crowd,
    "a broken worker": lambda: [setattr(os, n, lambda *_: None) for n in ("pwrite", "_exit")],
}

@task(queue="poison")
def dies(how: str) -> None:
    mark("begin")
    DEATHS[how]()

# ── what is raised ──

class Odd(BaseException):
    pass

class Mute(Exception):
    def __str__(self):
        raise Odd("no text")
    __repr__ = __str__

class Unkeepable(Exception):
    def __init__(self):
        super().__init__(threading.Lock())
        self.lock = threading.Lock()
    def __reduce__(self):
        raise Odd("no copy")

class Meta(type):
    def __getattribute__(cls, name):
        if name in ("__qualname__", "__name__", "__module__"):
            raise Odd("no name")
        return type.__getattribute__(cls, name)

class Nameless(Exception, metaclass=Meta):
    pass

class Liar:
    @property
    def __class__(self):
        raise Odd("no class")

class LyingError(Liar, Exception):
    pass

class LyingExit(Liar, SystemExit):
    pass

class LyingGroup(Liar, BaseExceptionGroup):
    @property
    def exceptions(self):
        raise Odd("no members")

class LyingMap(Liar, dict):
    def keys(self):
        raise Odd("no keys")
    __iter__ = values = items = keys

class Text(str):
    def encode(self, *args, **kwargs):
        raise Odd("no bytes")

class Odder(Exception):
    def __str__(self):
        return Text("an odd text")

def recurse():
    recurse()

def in_a_circle():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first

def in_groups(depth):
    error = ValueError("leaf")
    for _ in range(depth):
        error = ExceptionGroup("g", [error])
    raise error

def with_odd_state():
    import taskd
    state = taskd.current().state
    state["liar"], state["map"] = Liar(), LyingMap(a=1)
    raise ValueError("with an odd state")

def noted():
    error = ValueError("noted")
    error.__notes__ = [object(), 3, Mute()]
    raise error

def raise_(error):
    raise error

def exhaust():
    limited(resource.RLIMIT_AS, 1 << 30)
    bytearray(1 << 31)

RAISED = {
    "sys.exit": lambda: sys.exit("enough"),
    "sys.exit of what has no text": lambda: sys.exit(Mute()),
    "sys.exit(0)": lambda: sys.exit(0),
    "KeyboardInterrupt": lambda: raise_(KeyboardInterrupt()),
    "GeneratorExit": lambda: raise_(GeneratorExit("out")),
    "StopIteration": lambda: raise_(StopIteration(3)),
    "BaseException": lambda: raise_(Odd("odd")),
    "mute": lambda: raise_(Mute()),
    "unkeepable": lambda: raise_(Unkeepable()),
    "nameless": lambda: raise_(Nameless("x")),
    "odd text": lambda: raise_(Odder()),
    "lying": lambda: raise_(LyingError("x")),
    "lying exit": lambda: raise_(LyingExit(3)),
    "lying group": lambda: raise_(LyingGroup("g", [ValueError("in it")])),
    "groups in groups": lambda: in_groups(500),
    "odd state": with_odd_state,
    "surrogates": lambda: raise_(ValueError("\ud800\x00")),
    "huge": lambda: raise_(ValueError("x" * 100_000_000)),
    "huge name": lambda: raise_(type("X" * 10_000_000, (Exception,), {})("x")),
    "many": lambda: raise_(BaseExceptionGroup("many", [Odd(str(n)) for n in range(1000)])),
    "circle": in_a_circle,
    "notes": noted,
    "recursion": recurse,
    "memory": exhaust,
    "interrupted by itself": lambda: raise_(__import__("taskd").Interrupted("on my own")),
}

@task(queue="poison")
def raises(how: str) -> None:
    mark("begin")
    RAISED[how]()

@task(queue="poison")
async def raises_later(how: str) -> None:
    mark("begin")
    RAISED[how]()

# ── what is returned ──

def nested(depth):
    found = []
    for _ in range(depth):
        found = [found]
    return found

def circle():
    found = []
    found.append(found)
    return found

class Map(dict):
    def items(self):
        raise Odd("no items")

class Slow(int):
    def __index__(self):
        raise Odd("no number")

RETURNED = {
    "an object": object,
    "a lock": threading.Lock,
    "a class": lambda: Map,
    "a generator": lambda: (n for n in range(3)),
    "2 MiB": lambda: b"x" * (2 << 20),
    "256 MiB": lambda: bytes(1 << 28),
    "deep": lambda: nested(100_000),
    "circle": circle,
    "an odd map": lambda: Map(a=1),
    "a liar": Liar,
    "a lying map": lambda: LyingMap(a=1),
    "liars in a list": lambda: [LyingMap(a=1), Liar()],
    "an odd number": lambda: Slow(3),
    "surrogates": lambda: "\ud800",
    "keys of no kind": lambda: {Map: 1},
    "a huge number": lambda: 1 << 100_000_000,
    "two million lists": lambda: [[] for _ in range(2_000_000)],
}

@task(queue="poison")
def returns(what: str) -> object:
    mark("begin")
    return RETURNED[what]()
"""

DEATHS = {
    "segfault": "its process was killed by SIGSEGV",
    "abort": "its process was killed by SIGABRT",
    "exit 0": "its process ended by itself with exit status 0",
    "exit 3": "its process ended by itself with exit status 3",
    "kill": "its process was killed by SIGKILL",
    "term": "its process was killed by SIGTERM",
    "real-time signal": "its process was killed by signal 37",
    "alarm": "its process was killed by SIGALRM",
    "processor": "its process was killed by SIGXCPU",
    "stack": "its process was killed by SIGSEGV",
    "exec": "its process was killed by SIGUSR1",
    "exec, exit": "its process ended by itself with exit status 7",
    "a crowd": "its process ended by itself with exit status 9",
    "a broken worker": "its process ended by itself with exit status 70, as a worker does whose "
    "own part has failed: the daemon's log says where",
}


def test_a_task_that_ends_its_process_is_held_after_three_times_and_shown_as_what_it_was(
    daemon: Daemon, beside: Beside
) -> None:
    client = daemon.client()
    tasks = {how: client.submit("dies", {"how": how}) for how in DEATHS}
    shown = {how: tasks[how].wait(60) for how in DEATHS}
    assert {how: told(info.reason) for how, info in shown.items()} == {
        how: f"died 3 times at the same place; the last time {death}"
        for how, death in DEATHS.items()
    }
    assert Counter(info.state for info in shown.values()) == {"held": len(DEATHS)}
    for how, task in tasks.items():
        assert daemon.items(task.id).count("begin") == 3, how
        reasons = [told(e["reason"]) for e in task.follow() if e["reason"]]
        assert reasons[:-1] == [f"crashed: {DEATHS[how]}"] * 2


RAISED = {
    "sys.exit": ("SystemExit", "the task's code called sys.exit('enough')"),
    "sys.exit of what has no text": ("SystemExit", "the task's code called sys.exit"),
    "sys.exit(0)": ("SystemExit", "the task's code called sys.exit(0)"),
    "KeyboardInterrupt": ("KeyboardInterrupt", ""),
    "GeneratorExit": ("GeneratorExit", "out"),
    "BaseException": ("Odd", "odd"),
    "mute": ("Mute", "(its text is not known: __str__ raised Odd)"),
    "unkeepable": ("Unkeepable", "<unlocked _thread.lock object"),
    "nameless": ("(a class without a name)", "x"),
    "odd text": ("Odder", "an odd text"),
    "lying": ("LyingError", "x"),
    "lying exit": ("LyingExit", "the task's code called sys.exit(3)"),
    "lying group": ("LyingGroup", "g (1 sub-exception)"),
    "groups in groups": ("ExceptionGroup", "g (1 sub-exception)"),
    "odd state": ("ValueError", "with an odd state"),
    "surrogates": ("ValueError", "\\ud800\0"),
    "huge": ("ValueError", "xxxx"),
    "huge name": ("XXXX", "x"),
    "many": ("BaseExceptionGroup", "many (1000 sub-exceptions)"),
    "circle": ("ValueError", "first"),
    "notes": ("ValueError", "noted"),
    "recursion": ("RecursionError", "maximum recursion depth exceeded"),
    "memory": ("MemoryError", ""),
    "interrupted by itself": ("Interrupted", "on my own"),
}


@pytest.mark.parametrize("name", ["raises", "raises_later"])
def test_a_task_that_raises_whatever_it_likes_fails_with_that_and_its_worker_lives(
    daemon: Daemon, beside: Beside, name: str
) -> None:
    client = daemon.client()
    tasks = {how: client.submit(name, {"how": how}) for how in RAISED}
    for how, (kind, text) in RAISED.items():
        info = tasks[how].wait(60)
        assert (how, info.state, info.attempt) == (how, "failed", 1)
        assert info.error is not None
        assert info.error["type"].startswith(kind), how
        assert info.error["message"].startswith(text), how
        assert len(info.error["type"]) < 1000
        assert len(info.error["message"]) < 10_000
        assert len(info.error["traceback"]) < 100_000
    workers = {daemon.reached(task.id, "begin").pid for task in tasks.values()}
    daemon.through(workers)
    assert all(processes.is_alive(pid) for pid in workers)
    assert "it is not used again" not in daemon.log()


RETURNED = [
    "an object", "a lock", "a class", "a generator", "2 MiB", "256 MiB", "deep", "circle",
    "an odd map", "a liar", "a lying map", "liars in a list", "an odd number", "surrogates",
    "keys of no kind", "a huge number", "two million lists",
]  # fmt: skip


def test_a_task_that_returns_what_cannot_be_kept_fails_and_says_why(
    daemon: Daemon, beside: Beside
) -> None:
    client = daemon.client()
    tasks = {what: client.submit("returns", {"what": what}) for what in RETURNED}
    for what, task in tasks.items():
        with pytest.raises(taskd.TaskFailed, match=r"NotPlainData: .*the result of task 'returns'"):
            task.result(60)
        info = task.status()
        assert (what, info.state, info.attempt) == (what, "failed", 1)
        assert info.error is not None
        assert len(info.error["message"]) < 10_000
