"""Whether one task's attempts together carried out its program: nothing twice, nothing skipped.

Pure, and of taskd it knows the promises alone:

* a step whose result was given to the task was kept: it never runs again, and each later attempt
  is given the same result;
* asking for the next item keeps the one before. A later attempt may repeat an item only if the one
  before was cut off before anything showed that it was kept, and skips none;
* a task that is asked to leave does so right behind an item, or outside of all loops.

What an attempt did after the last thing that showed is unknown where it was killed: then both are
right. A step is *kept* once the task shows what it was given; an item once anything of the task
shows behind its end, or the attempt left in order there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NoReturn

from contrib.storm.history import Line

CANNOT_SAVE = "cannot save"
"""Why an attempt leaves that waited for room on the disk: what it waited with is not kept."""


class Wrong(Exception):
    """A promise was broken; the text says how."""


class CutOff(Exception):
    """The attempt shows nothing more."""


class Walk:
    """One task over all its attempts. ``problem``: the first promise that was broken."""

    def __init__(self, program: list[list[Any]], may_leave_anywhere: bool) -> None:
        self._program = program
        self._may_leave_anywhere = may_leave_anywhere
        self._kept: dict[str, str] = {}  # steps and what they gave
        self._given: dict[str, str] = {}  # steps that ran to their end, and what they gave
        self._saved: set[str] = set()  # items and loops that cannot come again
        self._unsure: set[str] = set()  # items that ended and may be saved or not
        self._lines: Sequence[Line] = ()
        self._at = 0
        self._open = 0  # items whose bodies run
        self.repeats = 0  # items and steps begun again, rightly
        self._begun: set[str] = set()

    @property
    def steps(self) -> dict[str, str]:
        """What the steps gave that are kept."""
        return self._kept

    def check(self, lines: Sequence[Line]) -> str | None:
        """What is wrong with all attempts, or None. ``lines`` are one task's, in order."""
        try:
            for _, found in groupby(lines, key=lambda line: line.attempt):
                self._attempt([line for line in found if line.event != "overlap"])
        except Wrong as wrong:
            return str(wrong)
        return None

    def _attempt(self, lines: Sequence[Line]) -> None:
        self._lines, self._at, self._open = lines, 0, 0
        self._take("attempt-begin", None)
        try:
            self._body(self._program, "")
        except CutOff:
            self._check_leaving()
            return
        behind = self._lines[self._at :]
        if [line.event for line in behind] not in ([], ["attempt-end"]):
            self._fail(f"{_shown(behind[0])} came after the end of the program")

    def _check_leaving(self) -> None:
        last = self._lines[-1]
        if last.event != "attempt-end":
            if self._at < len(self._lines):
                self._fail(f"{_shown(last)} came after the attempt's end")
            return
        if last.what.startswith("returned"):
            self._fail("it returned before its program was done")
        if not last.what.startswith("left") or self._may_leave_anywhere:
            return
        before = self._lines[-2]
        if self._open and before.event != "item-end" and CANNOT_SAVE not in last.what:
            self._fail(f"it was made to leave in the middle of an item, behind {_shown(before)}")

    # ── the program ──────────────────────────────────────────────────────────────────────────

    def _body(self, program: list[list[Any]], at: str) -> None:
        for kind, *given in program:
            if kind == "step":
                self._step(at + given[0])
            elif kind == "each":
                self._loop(at + given[0], given[1], given[3])

    def _step(self, path: str) -> None:
        line = self._look()
        if path in self._kept:
            self._is_given(path, self._kept[path])
        elif path in self._given and line.event == "step-kept":
            self._is_given(path, self._given[path])
        else:
            self._begins("step-begin", path)
            self._given[path] = self._take("step-end", path).value
            self._is_given(path, self._given[path])

    def _is_given(self, path: str, value: str) -> None:
        line = self._look()
        if line.event == "step-begin" and line.what == path:
            self._fail(f"step {path} ran again, whose result was kept")
        if self._take("step-kept", path).value != value:
            self._fail(f"step {path} gave {line.value}, and had given {value}")
        self._kept[path] = value

    def _loop(self, path: str, count: int, body: list[list[Any]]) -> None:
        for number in range(count if path not in self._saved else 0):
            self._item(f"{path}/{number}", body)
        self._take("loop-end", path)
        self._saved.add(path)

    def _item(self, path: str, body: list[list[Any]]) -> None:
        if path in self._saved:
            return
        if path in self._unsure and self._is_behind(path):
            self._saved.add(path)
            return
        self._begins("item-begin", path)
        self._open += 1
        self._body(body, path + "/")
        self._take("item-end", path)
        self._unsure.add(path)
        self._see_whether_saved(path)
        self._open -= 1

    def _is_behind(self, path: str) -> bool:
        line = self._look()
        return not (line.event == "item-begin" and line.what == path)

    def _see_whether_saved(self, path: str) -> None:
        """Behind an item's end: what shows next tells that it is saved."""
        line = self._lines[self._at] if self._at < len(self._lines) else None
        if line is not None and not line.what.startswith("raised") and CANNOT_SAVE not in line.what:
            self._saved.add(path)

    # ── lines ────────────────────────────────────────────────────────────────────────────────

    def _begins(self, event: str, path: str) -> None:
        self._take(event, path)
        self.repeats += path in self._begun
        self._begun.add(path)

    def _look(self) -> Line:
        """The next line. Raises CutOff if there is none, or the attempt ends here."""
        if self._at >= len(self._lines):
            raise CutOff
        return self._lines[self._at]

    def _take(self, event: str, what: str | None) -> Line:
        line = self._look()
        if line.event == "attempt-end":
            raise CutOff
        if line.event != event or what not in (None, line.what):
            self._unexpected(line, f"{event} {what}")
        self._at += 1
        return line

    def _unexpected(self, line: Line, expected: str) -> NoReturn:
        if line.event == "item-begin" and (line.what in self._saved or line.what in self._begun):
            self._fail(f"item {line.what} ran again, which was saved; due was {expected}")
        if line.event == "step-begin" and line.what in self._kept:
            self._fail(f"step {line.what} ran again, whose result was kept; due was {expected}")
        self._fail(f"{_shown(line)} where {expected} was due: something was skipped")

    def _fail(self, text: str) -> NoReturn:
        attempt = self._lines[0].attempt if self._lines else 0
        raise Wrong(f"attempt {attempt}: {text}")


def _shown(line: Line) -> str:
    return f"{line.event} {line.what}"
