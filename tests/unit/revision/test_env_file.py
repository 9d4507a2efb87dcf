"""The one dialect of environment files: what a shell reads alike, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from taskd import config
from taskd.config import Config
from taskd.errors import ConfigError
from taskd.revision import env_file, environment

GOOD = r"""
# a comment
   # another

PLAIN=value
export EXPORTED=https://user:p%40ss@host:5432/db?x=1
  INDENTED=a#b=c,~d{e}*[f]!
EMPTY=
TRAILING=x   
SINGLE='a $b `c` \d "e" # f'
DOUBLE="a 'b' \$c \`d\` \\ \" # e"
KEY='-----BEGIN-----
line two
-----END-----'
BEHIND="x"  
PLAIN=the last counts
"""  # noqa: W291
GOOD = GOOD.replace("PLAIN=the last counts", "PLAIN='the last counts'")

MEANT = {
    "PLAIN": "the last counts",
    "EXPORTED": "https://user:p%40ss@host:5432/db?x=1",
    "INDENTED": "a#b=c,~d{e}*[f]!",
    "EMPTY": "",
    "TRAILING": "x",
    "SINGLE": 'a $b `c` \\d "e" # f',
    "DOUBLE": "a 'b' $c `d` \\ \" # e",
    "KEY": "-----BEGIN-----\nline two\n-----END-----",
    "BEHIND": "x",
}


def by_a_shell(text: str, path: Path) -> dict[str, str]:
    """What `sh` makes of the file."""
    path.write_text(text)
    ran = subprocess.run(
        ["/bin/sh", "-c", f"set -a; . {path}; exec env -0"],
        env={"PATH": os.defpath, "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(entry.partition("=")[::2] for entry in ran.stdout.split("\0") if entry)
    return {name: value for name, value in found.items() if name not in ("PATH", "HOME", "PWD")}


def test_what_is_taken_is_read_as_by_a_shell(tmp_path: Path) -> None:
    assert env_file.parse(GOOD, "f") == MEANT
    assert by_a_shell(GOOD, tmp_path / "env") == MEANT


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("A=b c", "A has a blank: systemd takes"),
        ("A=b # c", "A has a blank: systemd takes"),
        ("A= b", "A has a blank"),
        ("A=$B", r"A has a \$: systemd takes it as it stands, a shell puts"),
        ('A="x$B"', r"A has a \$: .* or a backslash before it"),
        ("A=`b`", "A has a `"),
        ('A="`b`"', "A has a `"),
        ("A=a\\b", "A has a backslash"),
        ('A="a\\n"', "A has a backslash within"),
        ("A=~/x", "A has a ~"),
        ("A=/x:~/y", "A has a ~"),
        ("A=b'c'", "A has a quote within"),
        ("A=b;c", "A has a ;"),
        ("A=b&c", "A has a &"),
        ("A=(b)", "A has a \\("),
        ("A='b'c", "A goes on behind the closing quote"),
        ("A='b' # c", "A goes on behind the closing quote"),
        ("A='b", "A: its quote is never closed"),
        ('A="b\\', "backslash|never closed"),
        ("A", "no NAME=value"),
        ("export A", "no NAME=value"),
        ("; a comment", "no NAME=value"),
        ("A =b", "a blank before the ="),
        ("1A=b", "1A is no variable's name"),
        ("A-B=b", "A-B is no variable's name"),
        ("unset A=b", "unset A is no variable's name"),
        ("A=b\r", "Windows"),
        ("TASKD_SOCKET=b", "TASKD_SOCKET is taskd's own"),
        ("NOTIFY_SOCKET=b", "NOTIFY_SOCKET is taskd's own"),
    ],
)
def test_what_readers_differ_on_is_refused_with_its_line(line: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"^f: line 3: .*({why})"):
        env_file.parse(f"# one\nTWO='2'\n{line}\n", "f")


def test_the_line_is_counted_over_values_of_several_lines() -> None:
    with pytest.raises(ConfigError, match=r"^f: line 5: "):
        env_file.parse("A='1\n2\n3\n4'\nB=$x\n", "f")


def test_no_value_stands_in_an_error() -> None:
    for line in (
        "A=hunter2 $x",
        "A='hunter2'hunter2",
        'A="hunter2',
        'A="hunter2\\x"',
        "A=hunter2;",
    ):
        with pytest.raises(ConfigError) as caught:
            env_file.parse(line, "f")
        assert "hunter2" not in str(caught.value)


PIECES = st.sampled_from([*"Aab1_ =#\\'\"$`;~:\n\t", "A=", "B='", "export "])


@given(text=st.lists(PIECES, max_size=12).map("".join))
@settings(max_examples=100, deadline=None)
def test_whatever_is_taken_is_read_alike_by_a_shell(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        found = env_file.parse(text, "f")
    except ConfigError:
        return
    path = tmp_path_factory.getbasetemp() / "env"
    assert by_a_shell(text, path) | found == by_a_shell(text, path)
    assert found == {k: v for k, v in by_a_shell(text, path).items() if k in found}


# ── the file ─────────────────────────────────────────────────────────────────────────────────

TABLE = {"app": {"release": "/srv/app/current", "modules": ["app"]}}


def resolved(release: Path, **keys: object) -> tuple[config.App, list[str]]:
    app = Config.from_table({"app": TABLE["app"] | keys}, "t").app
    return environment.resolve(app, str(release))


def write(path: Path, raw: bytes, mode: int = 0o600) -> None:
    path.write_bytes(raw)
    path.chmod(mode)


def test_env_goes_above_the_file_and_a_relative_path_is_the_releases(tmp_path: Path) -> None:
    write(tmp_path / "env", b"A=1\nB=2\n")
    app, warnings = resolved(tmp_path, env_file="env", env={"B": "3", "C": "$x y"})
    assert (app.environment, warnings) == ({"A": "1", "B": "3", "C": "$x y"}, [])
    assert resolved(tmp_path)[0].environment is None


def test_a_file_that_anybody_may_read_or_write_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "env"
    for mode, may in ((0o644, "read"), (0o602, "write to")):
        write(path, b"A=1\n", mode)
        (why,) = resolved(tmp_path, env_file=str(path))[1]
        assert f"anybody here may {may} {path}: chmod o= {path}" in why


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"A=1\nB=\xff\n", "line 2: it is not UTF-8"),
        (b"A=1\nB=\0\n", "line 2: it has a NUL byte"),
        (b"\xef\xbb\xbfA=1\n", "line 1: it has a byte order mark"),
        (b"A=1\n" * 300_000, "more than 1048576 bytes"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, raw: bytes, why: str) -> None:
    write(tmp_path / "env", raw)
    with pytest.raises(ConfigError, match=why):
        resolved(tmp_path, env_file="env")


def test_what_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*/env as user \d+: No such file"):
        resolved(tmp_path, env_file="env")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is not a file"):
        resolved(tmp_path, env_file="pipe")
    with pytest.raises(ConfigError, match=r"(is not a file|Is a directory)"):
        resolved(tmp_path, env_file=".")


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"A": 5}, "app.env: A must be a text, in quotes"),
        ({"A": {"hunter2": "hunter2"}}, "app.env: A must be a text"),
        ("hunter2", "app.env: expected a table of texts by variable"),
        ({"TASKD_X": "hunter2"}, "app.env: TASKD_X is taskd's own"),
        ({"": "hunter2"}, "app.env: .* is no variable's name"),
        ({"A=B": "hunter2"}, "app.env: A=B is no variable's name"),
    ],
)
def test_a_wrong_env_is_told_without_its_values(env: object, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Config.from_table({"app": TABLE["app"] | {"env": env}}, "t")
    assert "hunter2" not in str(caught.value)


def test_changes_are_names_alone() -> None:
    app = Config.from_table(TABLE, "t").app
    before = app._replace(environment={"A": "1", "B": "2", "C": "3"})
    after = app._replace(environment={"A": "1", "B": "3", "D": "4"})
    assert environment.changes(before, after) == {"new": ["D"], "changed": ["B"], "gone": ["C"]}
    assert environment.changes(None, before) == {"new": ["A", "B", "C"]}
    assert environment.changes(app, app) == {}
