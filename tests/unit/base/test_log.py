"""The daemon's own log: one line per transition, whatever others put into it, whoever reads it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked import in_child

from taskd import log
from taskd.cli import outcome
from taskd.errors import Refused


def test_a_line_names_what_it_is_about(capfd: pytest.CaptureFixture[str]) -> None:
    log.info("running", task=7, worker=b"\xab\xcd" * 8, reason="two words")
    assert capfd.readouterr().err.split(" ", 1)[1] == (
        "running task=7 worker=abcdabcd reason='two words'\n"
    )


def test_a_level_stands_before_the_text(capfd: pytest.CaptureFixture[str]) -> None:
    log.warning("careful")
    log.error("too late")
    lines = [line.split(" ", 1)[1] for line in capfd.readouterr().err.splitlines()]
    assert lines == ["warning: careful", "error: too late"]


@pytest.mark.parametrize("text", ["a\nb", "a\r\nfake", "\x1b[2J", "tab\there", "\x00"])
def test_what_others_say_makes_no_second_line_and_no_control(
    capfd: pytest.CaptureFixture[str], text: str
) -> None:
    log.info(text, why=text)
    line = capfd.readouterr().err
    assert line.endswith("\n")
    assert line[:-1].isprintable()


def test_an_empty_value_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    log.info("x", key="")
    assert capfd.readouterr().err.endswith(" x key=''\n")


def test_nowhere_to_write_to_is_no_error() -> None:
    def under_test() -> bool:
        os.close(2)
        log.info("into the void")
        return True

    assert in_child(under_test)


# ── a terminal ───────────────────────────────────────────────────────────────────────────────


def on_a_terminal() -> str:
    """What a terminal is sent for a warning and an error."""
    master, slave = pty.openpty()

    def under_test() -> None:
        os.dup2(slave, 2)
        log.warning("careful")
        log.error("too late")

    in_child(under_test)
    text = ""
    while "too late" not in text:  # a terminal passes on what it got when it likes
        text += os.read(master, 4096).decode()
    os.close(master)
    os.close(slave)
    return text


def test_levels_are_coloured_on_a_terminal_alone(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = on_a_terminal()
    assert "\x1b[33mwarning: \x1b[0mcareful" in text
    assert "\x1b[31merror: \x1b[0mtoo late" in text
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_a_terminal()
    monkeypatch.delenv("NO_COLOR")
    log.warning("careful")
    assert "\x1b" not in capfd.readouterr().err


# ── a reader that does not read ──────────────────────────────────────────────────────────────


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time_and_is_told_how_many() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reader, False)

    def under_test() -> str:
        os.dup2(writer, 2)
        for number in range(200):
            log.info("x" * 100, number=number)
        os.read(reader, 1 << 20)
        log.info("after")
        return os.read(reader, 1 << 20).decode()

    text = in_child(under_test)
    os.close(reader)
    os.close(writer)
    note, line = text.splitlines()
    found = re.search(r" warning: (\d+) lines of this log were lost, since its reader hung$", note)
    assert found and 100 < int(found[1]) < 200
    assert line.endswith(" after")


def test_a_long_line_is_cut_to_what_a_pipe_takes_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    log.info("x" * 10_000)
    line = capfd.readouterr().err
    assert len(line) == 4096 and line.endswith("x ...\n")


# ── the journal ──────────────────────────────────────────────────────────────────────────────


class Journal:
    """What journald does: a stream that is somebody's stderr, and a socket for entries."""

    def __init__(self, place: Path) -> None:
        self.stream, self.theirs = socket.socketpair()
        self.path = str(place / "socket")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.stream.setblocking(False)
        where = os.fstat(self.theirs.fileno())
        self.name = f"{where.st_dev}:{where.st_ino}"

    @contextmanager
    def as_stderr(self) -> Iterator[None]:
        """Only in the test itself: what pytest captures is another stderr before and after it."""
        saved = os.dup(2)
        os.dup2(self.theirs.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)

    def entries(self) -> list[dict[str, str]]:
        found = []
        while True:
            try:
                found.append(_fields(self.socket.recv(1 << 20)))
            except BlockingIOError:
                return found

    def streamed(self) -> str:
        try:
            return self.stream.recv(1 << 20).decode()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        for each in (self.stream, self.theirs, self.socket):
            each.close()


def _fields(raw: bytes) -> dict[str, str]:
    """An entry, as the protocol has it."""
    found = {}
    while raw:
        line, raw = raw.split(b"\n", 1)
        name, sign, value = line.partition(b"=")
        if not sign:
            size = int.from_bytes(raw[:8], "little")
            value, raw = raw[8 : 8 + size], raw[8 + size + 1 :]
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    made = Journal(tmp_path)
    monkeypatch.setattr(log, "JOURNAL", made.path)
    monkeypatch.setenv("JOURNAL_STREAM", made.name)
    yield made
    made.close()


def test_a_line_is_an_entry_with_fields_that_can_be_asked_for(journal: Journal) -> None:
    with journal.as_stderr():
        log.warning("held", task=7, attempt=2, worker=b"\xab" * 16, revision="r1", why="no\nroom")
    assert journal.entries() == [
        {
            "MESSAGE": r"held task=7 attempt=2 worker=abababab revision=r1 why='no\nroom'",
            "PRIORITY": "4",
            "SYSLOG_IDENTIFIER": "taskd",
            "TASK": "7",
            "ATTEMPT": "2",
            "WORKER": "ab" * 16,
            "REVISION": "r1",
            "TASKD_WHY": "no\nroom",
        }
    ]
    assert journal.streamed() == ""


def test_a_traceback_is_one_entry_of_several_lines(journal: Journal) -> None:
    with journal.as_stderr():
        log.lines("Traceback:\n  here\n\x1b[2Jthere\n")
    (entry,) = journal.entries()
    assert entry["MESSAGE"] == "Traceback:\n  here\n\\x1b[2Jthere"


def test_a_value_cannot_pretend_to_be_another_field(journal: Journal) -> None:
    with journal.as_stderr():
        log.info("failed", task=1, reason="x\nPRIORITY=0\n_UID=0")
    (entry,) = journal.entries()
    assert entry["PRIORITY"] == "6" and "_UID" not in entry


def test_a_stderr_that_is_not_the_journals_is_written_to(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """$JOURNAL_STREAM is inherited by whatever a service starts."""
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    log.info("ready")
    assert capfd.readouterr().err.endswith(" ready\n")


def test_without_the_journals_socket_lines_carry_their_level(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "JOURNAL", "/nowhere")
    with journal.as_stderr():
        log.error("too late", task=7)
        log.lines("one\ntwo")
    assert journal.streamed() == "<3>too late task=7\n<6>  one\n<6>  two\n"


def test_a_journal_that_hangs_holds_nobody_up_and_is_told_what_it_missed(journal: Journal) -> None:
    with journal.as_stderr():
        for number in range(2000):
            log.info("x" * 1000, task=number)
    taken = journal.entries()
    assert 0 < len(taken) < 2000
    assert journal.streamed() == ""
    with journal.as_stderr():
        log.info("after")
    note, last = journal.entries()
    assert note["MESSAGE"] == (
        f"{2000 - len(taken)} lines of this log were lost, since its reader hung"
    )
    assert last["MESSAGE"] == "after"


def test_why_a_process_ends_is_an_error_in_the_journal(journal: Journal) -> None:
    with journal.as_stderr():
        log.why_it_ends("the disk is full")
        assert outcome.guarded("taskctl", refuse) == 1
    said = [(entry["PRIORITY"], entry["MESSAGE"]) for entry in journal.entries()]
    assert said == [("3", "the disk is full"), ("3", "taskctl: no"), ("3", "taskctl: never")]


def test_to_who_started_it_by_hand_it_is_a_plain_line(capfd: pytest.CaptureFixture[str]) -> None:
    log.why_it_ends("the disk is full")
    assert outcome.guarded("taskctl", refuse) == 1
    assert capfd.readouterr().err == "taskd: the disk is full\ntaskctl: no\ntaskctl: never\n"


def refuse() -> int:
    raise Refused("no\nnever")
