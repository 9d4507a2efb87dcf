"""The format of ``[app] env_file``: variables, one a line, that every reader reads alike. Pure.

It is what systemd's EnvironmentFile= and a shell's ``set -a; . FILE`` have in common, so that the
app finds the same values wherever the file is read. A line that the two read differently is refused
with its number, and with what each would make of it; never with the value, which may be a secret.

    # a comment, on a line of its own        a blank line counts for nothing
    NAME=value                               export NAME=value is the same
    NAME='anything, $ and \\ too'             as it stands; may go over several lines
    NAME="anything"                          likewise, but $ ` \\ and " are written \\$ \\` \\\\ \\"

A value without quotes has no blank and none of ``' " \\ $ ` ; & | < > ( )``, and no ``~`` at its
beginning or behind a colon. Behind a closing quote the line ends. The last of several lines for one
name counts.
"""

from __future__ import annotations

from taskd.config import why_no_variable
from taskd.errors import ConfigError

_BOTH = {
    " ": "a blank: systemd takes the rest of the line for the value, a shell runs it as a program",
    "\t": "a tab: systemd takes the rest of the line for the value, a shell runs it as a program",
    "$": "a $: systemd takes it as it stands, a shell puts a variable in its place",
    "`": "a `: systemd takes it as it stands, a shell runs what follows as a program",
    "\\": "a backslash: it stays, or takes the next character's meaning, by reader and character",
    "'": "a quote within a value: systemd takes it as it stands, a shell takes it away",
    '"': "a quote within a value: systemd takes it as it stands, a shell takes it away",
    "~": "a ~: systemd takes it as it stands, a shell puts a home directory in its place",
    **{
        each: f"a {each}: systemd takes it as it stands, for a shell the value ends there"
        for each in ";&|<>()"
    },
}
"""What a character is read as, where it stands without quotes."""

_REMEDY = "write the value in single quotes"
_ESCAPED = '$`\\"'
_BLANKS = " \t"


def parse(text: str, source: str) -> dict[str, str]:
    """The variables of a file's ``text``; ``source`` names the file in errors. Raises ConfigError
    with the number of the line."""
    return _Reader(text, source).read()


class _Reader:
    """``_at``: how far ``_text`` was read."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._at = 0
        self._begin = 0  # of the line that an error is about

    def read(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while self._at < len(self._text):
            self._begin = self._at
            end = self._end_of_line()
            line = self._text[self._at : end].strip(_BLANKS)
            if line == "" or line[0] == "#":
                self._at = end + 1
                continue
            name = self._name(end)
            found[name] = self._value(name)
        return found

    def _end_of_line(self) -> int:
        end = self._text.find("\n", self._at)
        return len(self._text) if end < 0 else end

    def _name(self, end: int) -> str:
        """The name at the begin of the line; goes on behind the ``=``."""
        if "\r" in self._text[self._at : end]:
            raise self._wrong("it ends as lines do on Windows: save the file with Unix line ends")
        head, equals, _ = self._text[self._at : end].partition("=")
        name = head.strip(_BLANKS)
        words = name.split()
        if len(words) == 2 and words[0] == "export" and not head.endswith(tuple(_BLANKS)):
            name = words[1]
        if not equals:
            raise self._wrong(
                "no NAME=value: systemd passes over such a line, a shell runs it as a program"
            )
        if head.endswith(tuple(_BLANKS)):
            raise self._wrong(
                "a blank before the =: systemd passes over it, a shell runs the name as a program"
            )
        if (why := why_no_variable(name)) is not None:
            raise self._wrong(why)
        self._at += len(head) + 1
        return name

    def _value(self, name: str) -> str:
        """The value; goes on behind its line."""
        first = self._text[self._at : self._at + 1]
        if first in ("'", '"'):
            return self._quoted(name, first)
        end = self._end_of_line()
        value = self._text[self._at : end].rstrip(_BLANKS)
        for place, each in enumerate(value):
            if each == "~" and place > 0 and value[place - 1] != ":":
                continue
            if each in _BOTH:
                raise self._wrong(f"{name} has {_BOTH[each]}; {_REMEDY}")
        self._at = end + 1
        return value

    def _quoted(self, name: str, quote: str) -> str:
        parts: list[str] = []
        at = self._at + 1
        while (each := self._text[at : at + 1]) != quote:
            if each == "":
                raise self._wrong(f"{name}: its quote is never closed")
            if quote == '"' and each == "\\":
                at += 1
                each = self._text[at : at + 1]
                if each == "" or each not in _ESCAPED:
                    raise self._wrong(
                        f'{name} has a backslash within "…" before what needs none: systemd and a '
                        f"shell keep it, or join lines, and other readers do not; {_REMEDY}"
                    )
            elif quote == '"' and each in "$`":
                raise self._wrong(f"{name} has {_BOTH[each]}; {_REMEDY}, or a backslash before it")
            parts.append(each)
            at += 1
        self._at = at + 1
        end = self._end_of_line()
        if self._text[self._at : end].strip(_BLANKS):
            raise self._wrong(
                f"{name} goes on behind the closing quote: systemd joins it to the value, a shell "
                "takes it for something else; put the comment on a line of its own, or one pair of "
                "quotes around the whole value"
            )
        self._at = end + 1
        return "".join(parts)

    def _wrong(self, why: str) -> ConfigError:
        number = self._text.count("\n", 0, self._begin) + 1
        return ConfigError(f"{self._source}: line {number}: {why}")
