"""``ctx.log``: lines with a time and a level in the task's log.

Runs in workers, whose standard error is the task's log file. A line is
``2026-11-22T20:49:51.123Z WARNING text``; a text of several lines stays as it is.
"""

from __future__ import annotations

import sys
import time


class TaskLog:
    """Writes to standard error. Arguments are put into the text as by ``logging``."""

    def debug(self, text: object, *args: object) -> None:
        self._write("DEBUG", text, args)

    def info(self, text: object, *args: object) -> None:
        self._write("INFO", text, args)

    def warning(self, text: object, *args: object) -> None:
        self._write("WARNING", text, args)

    def error(self, text: object, *args: object) -> None:
        self._write("ERROR", text, args)

    def exception(self, text: object, *args: object) -> None:
        """As ``error``, with the traceback of the exception being handled."""
        import traceback

        self._write("ERROR", text, args, f"\n{traceback.format_exc().rstrip()}")

    def _write(self, level: str, text: object, args: tuple[object, ...], trace: str = "") -> None:
        line = str(text)
        if args:
            try:
                line %= args
            except (TypeError, ValueError):  # arguments that do not fit must not end the task
                line = f"{text} {args!r}"
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        sys.stderr.write(f"{stamp}.{int(now * 1000) % 1000:03d}Z {level} {line}{trace}\n")
        sys.stderr.flush()
