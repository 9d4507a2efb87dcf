"""taskd.toml: every key, every default, and what a wrong file is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taskd import config
from taskd.config import Config, Limits
from taskd.errors import ConfigError

LEAST: dict[str, Any] = {"app": {"release": "/srv/app/current", "modules": ["app.tasks"]}}


def with_key(section: str, key: str, value: Any) -> dict[str, Any]:
    return LEAST | {section: LEAST.get(section, {}) | {key: value}}


def refusal(table: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.from_table(table, "t.toml")
    return str(caught.value)


def test_the_least_file_gets_the_documented_defaults() -> None:
    found = Config.from_table(LEAST, "t.toml")
    usual = ("auto", 100, 16, None, 64 << 20, False, None, False, None, None, None, None)
    usual += ("warn", None, None)
    assert found.app == ("/srv/app/current", ["app.tasks"], None, *usual)
    assert found.daemon == (600.0, 60.0, 30.0, None, 60.0, 30.0)
    assert found.logs == (64 << 20,)
    assert found.access == ([], [], 100_000, 256 << 20, 0, 256 << 20)
    assert found.hooks == (None, None, 300.0)
    assert found.queues == {"default": 8}


def test_a_whole_file_is_read_as_written(tmp_path: Path) -> None:
    file = tmp_path / "taskd.toml"
    file.write_text(
        """
        [app]
        release = "/srv/app/current"
        python = ".venv/bin/python"
        modules = ["app.tasks", "more"]
        fork = "never"
        tasks_per_worker = 1
        max_revisions = 4
        probe = "app.health:check"
        memory_reserve = "256MiB"
        open_queues = true
        max_workers = 40
        keep_connections = true
        env = { LANG = "C.UTF-8" }
        env_file = "conf/env"
        setup = "app.boot:setup"
        connections_at_import = "refuse"
        [queues.default]
        concurrency = 3
        [queues.imports]
        concurrency = 2
        [queues.usual]
        [daemon]
        orphan_grace = 5
        stop_timeout = "1.5min"
        cancel_grace = "250ms"
        drain_limit = "2h"
        prove_timeout = "3min"
        [access]
        admin_groups = ["root"]
        submit_groups = ["daemon", "bin"]
        tasks_per_user = "none"
        bytes_per_user = "1GiB"
        max_priority = 10
        disk_reserve = "none"
        [hooks]
        before = ["bin/migrate", "--expand", ""]
        after_drain = "bin/migrate --contract > out"
        timeout = "1min"
        [logs]
        max_size = "1MiB"
        [schedules.nightly]
        task = "backup"
        cron = "0 3 * * *"
        args = { to = "s3", parts = [1, 2] }
        """
    )
    nightly = {"task": "backup", "cron": "0 3 * * *", "args": {"to": "s3", "parts": [1, 2]}}
    found = config.load(str(file))
    assert found.app == (
        "/srv/app/current",
        ["app.tasks", "more"],
        ".venv/bin/python",
        "never",
        1,
        4,
        "app.health:check",
        256 << 20,
        True,
        40,
        True,
        {"LANG": "C.UTF-8"},
        "conf/env",
        None,  # once a deploy has read them: what both say
        "app.boot:setup",
        "refuse",
        {"nightly": nightly},
        None,
    )
    assert found.daemon == (5.0, 90.0, 0.25, 7200.0, 180.0, 30.0)
    assert found.hooks == (
        ["bin/migrate", "--expand", ""],
        ["/bin/sh", "-c", "bin/migrate --contract > out"],
        60.0,
    )
    assert found.logs == (1 << 20,)
    assert found.access == (["root"], ["daemon", "bin"], None, 1 << 30, 10, None)
    assert found.queues == {"default": 3, "imports": 2, "usual": 3}
    assert found.source == str(file)


@pytest.mark.parametrize("key", ["admin_groups", "submit_groups"])
def test_a_group_that_is_not_on_the_machine_is_named(tmp_path: Path, key: str) -> None:
    file = tmp_path / "taskd.toml"
    app = '[app]\nrelease = "/srv/app/current"\nmodules = ["app"]\n'
    file.write_text(f'{app}[access]\n{key} = ["root", "no-such-group"]\n')
    with pytest.raises(ConfigError) as caught:
        config.load(str(file))
    assert str(caught.value).startswith(
        f"{file}: access.{key}: there is no group 'no-such-group' on this machine: make it with"
    )


def test_the_ceiling_for_all_queues_is_never_below_what_the_file_lets_them_run() -> None:
    assert Config.from_table(LEAST, "t").max_workers == 256
    queues = {"a": {"concurrency": 300}, "b": {"concurrency": 100}}
    assert Config.from_table(LEAST | {"queues": queues}, "t").max_workers == 408
    assert Config.from_table(with_key("app", "max_workers", 3), "t").max_workers == 3


def test_a_queues_name_is_no_longer_than_a_submission_may_name_it() -> None:
    assert Config.from_table(LEAST | {"queues": {"q" * 200: {}}}, "t").queues["q" * 200] == 8
    assert "a name has 1 to 200 characters" in refusal(LEAST | {"queues": {"q" * 201: {}}})


def test_a_queue_that_the_file_does_not_name_has_the_concurrency_of_default() -> None:
    assert Config.from_table(LEAST, "t").concurrency("other") == 8
    three = LEAST | {"queues": {"default": {"concurrency": 3}, "big": {"concurrency": 1}}}
    found = Config.from_table(three, "t")
    assert (found.concurrency("other"), found.concurrency("big")) == (3, 1)


def test_a_log_has_a_limit_unless_the_file_says_that_it_has_none() -> None:
    assert Config.from_table(LEAST, "t").logs.max_size == 64 << 20
    assert Config.from_table(LEAST | {"logs": {"max_size": "none"}}, "t").logs.max_size is None
    with pytest.raises(ConfigError, match=r"logs.max_size: expected .* of at least 64KiB"):
        Config.from_table(LEAST | {"logs": {"max_size": 1000}}, "t")


def test_the_table_makes_the_same_config_again() -> None:
    found = Config.from_table(LEAST | {"queues": {"q": {"concurrency": 2}}}, "t.toml")
    assert Config.from_table(found.table, found.source) == found


def test_defaults_are_not_shared_between_two_configs() -> None:
    Config.from_table(LEAST, "t").access.admin_groups.append("wheel")
    assert Config.from_table(LEAST, "t").access.admin_groups == []


@pytest.mark.parametrize("key", ["release", "modules"])
def test_a_required_key_that_is_missing_is_named_with_what_is_expected(key: str) -> None:
    left = {name: value for name, value in LEAST["app"].items() if name != key}
    assert refusal({"app": left}).startswith(f"t.toml: app.{key} is missing: expected ")
    assert refusal({}).startswith("t.toml: app.release is missing: ")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("app", "release", "srv/app"),
        ("app", "release", 3),
        ("app", "modules", "app.tasks"),
        ("app", "modules", []),
        ("app", "modules", ["app/tasks.py"]),
        ("app", "modules", [""]),
        ("app", "python", ""),
        ("app", "fork", "sometimes"),
        ("app", "fork", True),
        ("app", "tasks_per_worker", 0),
        ("app", "tasks_per_worker", True),
        ("app", "max_revisions", 2.5),
        ("daemon", "orphan_grace", -1),
        ("daemon", "orphan_grace", float("nan")),
        ("daemon", "orphan_grace", float("inf")),
        ("daemon", "orphan_grace", True),
        ("daemon", "stop_timeout", "10 parsecs"),
        ("daemon", "stop_timeout", "min"),
        ("daemon", "stop_timeout", "-5s"),
        ("daemon", "cancel_grace", "1.2.3s"),
        ("daemon", "drain_limit", "never"),
        ("daemon", "drain_limit", ["none"]),
        ("app", "memory_reserve", "256MB"),
        ("app", "memory_reserve", "MiB"),
        ("app", "memory_reserve", -1),
        ("app", "memory_reserve", True),
        ("app", "keep_connections", 1),
        ("app", "env_file", 1),
        ("app", "setup", "app.boot"),
        ("app", "connections_at_import", True),
        ("app", "probe", "app.health"),
        ("app", "open_queues", 1),
        ("app", "max_workers", 0),
        ("hooks", "before", ""),
        ("hooks", "before", []),
        ("hooks", "before", ["", "x"]),
        ("hooks", "before", ["x", 3]),
        ("hooks", "before", ["x", "a\0b"]),
        ("hooks", "after_drain", True),
        ("hooks", "timeout", "soon"),
        ("access", "admin_groups", "wheel"),
        ("access", "submit_groups", [7]),
        ("access", "tasks_per_user", 0),
        ("access", "bytes_per_user", "many"),
        ("access", "max_priority", 2**31),
        ("access", "max_priority", "high"),
        ("access", "disk_reserve", "5%"),
    ],
)
def test_a_wrong_value_is_named_with_file_key_and_what_was_expected(
    section: str, key: str, value: Any
) -> None:
    text = refusal(with_key(section, key, value))
    assert text.startswith(f"t.toml: {section}.{key}: expected ")
    assert "found" in text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10min", 600), ("2h", 7200), ("1d", 86400), ("500ms", 0.5), ("1.5 h", 5400)],
)
def test_a_duration_may_be_a_text_with_a_unit(text: str, seconds: float) -> None:
    found = Config.from_table(with_key("daemon", "orphan_grace", text), "t")
    assert found.daemon.orphan_grace == seconds


@pytest.mark.parametrize(
    ("value", "size"),
    [(0, 0), (4096, 4096), ("512 KiB", 512 << 10), ("1.5GiB", 3 << 29), ("1TiB", 1 << 40)],
)
def test_a_size_may_be_a_text_with_a_unit(value: Any, size: int) -> None:
    assert (
        Config.from_table(with_key("app", "memory_reserve", value), "t").app.memory_reserve == size
    )


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (50 << 20, "50MiB"),
        ((10 << 20) - 1, "9.9MiB"),
        ((1 << 30) - 1, "1023MiB"),
        (3 << 29, "1.5GiB"),
        (1288490188, "1.1GiB"),
        (1 << 50, "1024TiB"),
    ],
)
def test_a_size_is_shown_as_it_may_be_written_and_never_rounded_up(size: int, shown: str) -> None:
    assert config.size_text(size) == shown


def test_a_limit_may_be_none_in_words() -> None:
    daemon = Config.from_table(with_key("daemon", "drain_limit", "none"), "t").daemon
    assert daemon.drain_limit is None
    app = Config.from_table(with_key("app", "memory_reserve", "none"), "t").app
    assert app.memory_reserve is None


def test_a_misspelt_key_section_or_queue_key_is_refused_with_the_near_name() -> None:
    assert refusal(with_key("app", "modulse", [])) == (
        "t.toml: unknown key app.modulse: did you mean modules?"
    )
    assert refusal(LEAST | {"queue": {}}) == ("t.toml: unknown section queue: did you mean queues?")
    assert refusal(LEAST | {"queues": {"q": {"concurency": 2}}}) == (
        "t.toml: unknown key queues.q.concurency: did you mean concurrency?"
    )
    assert "known here are admin_groups, submit_groups" in refusal(with_key("access", "x", 1))


@pytest.mark.parametrize("name", ["app", "daemon", "access", "queues"])
def test_a_section_that_is_no_section_is_refused(name: str) -> None:
    assert refusal(LEAST | {name: 3}).startswith(f"t.toml: {name}: expected a section [{name}]")


def test_a_queue_that_is_no_section_is_refused() -> None:
    text = refusal(LEAST | {"queues": {"big": 2}})
    assert text == "t.toml: queues.big: expected a section [queues.big], found 2"


def test_a_long_wrong_value_is_cut_in_the_error() -> None:
    assert len(refusal(with_key("app", "release", "x" * 5000))) < 200


def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "taskd.toml"
    file.write_text("[app]\nrelease = /srv\n")
    with pytest.raises(ConfigError, match=r"taskd\.toml is not valid TOML: .*line 2"):
        config.load(str(file))
    file.write_bytes(b"[app]\nrelease = '\xff'\n")
    with pytest.raises(ConfigError, match=r"taskd\.toml is not valid TOML"):
        config.load(str(file))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*gone\.toml: No such file"):
        config.load(str(tmp_path / "gone.toml"))


def test_the_option_wins_over_the_environment_over_the_users_over_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system.toml"
    monkeypatch.setattr(config, "SYSTEM_FILE", str(system))
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert config.find(None, environ) is None
    system.write_text("")
    assert config.find(None, environ) == str(system)
    own = tmp_path / "taskd" / "taskd.toml"
    own.parent.mkdir()
    own.write_text("")
    assert config.find(None, environ) == str(own)
    environ["TASKD_CONFIG"] = "/named/by/environment"
    assert config.find(None, environ) == "/named/by/environment"
    assert config.find("/named/by/option", environ) == "/named/by/option"


def test_importing_the_configuration_does_not_import_the_parser() -> None:
    code = "import sys, taskd.config; sys.exit('tomllib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_queue_has_limits_of_its_own_or_those_of_default_or_none() -> None:
    queues = {
        "default": {"memory_max": "2GiB", "pids_max": 200},
        "small": {"memory_max": "64MiB"},
        "free": {"memory_max": "none", "pids_max": "none"},
    }
    found = Config.from_table(LEAST | {"queues": queues}, "t")
    assert found.limits_of("unnamed") == Limits(2 << 30, 200)
    assert found.limits_of("small") == Limits(64 << 20, 200)
    assert found.limits_of("free") == Limits()
    assert Config.from_table(LEAST, "t").limits_of("default") == Limits()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("memory_max", "1MiB", "of at least 16MiB, found '1MiB'"),
        ("memory_max", True, "of at least 16MiB, found true"),
        ("memory_max", "2 giraffes", "of at least 16MiB, found '2 giraffes'"),
        ("pids_max", 7, 'a whole number from 8 to 1000000, or "none", found 7'),
        ("pids_max", "8", "a whole number from 8 to 1000000, or \"none\", found '8'"),
    ],
)
def test_a_limit_under_which_no_worker_can_be_is_an_error(
    key: str, value: object, expected: str
) -> None:
    with pytest.raises(ConfigError, match=r"t: queues\.q\." + key) as caught:
        Config.from_table(LEAST | {"queues": {"q": {key: value}}}, "t")
    assert str(caught.value).endswith(expected)


def test_how_long_tasks_are_kept_is_the_queues_word_then_the_sections() -> None:
    def kept(**sections: Any) -> dict[str, tuple[float, float, float]]:
        found = Config.from_table(LEAST | sections, "f").retention
        return {queue: tuple(each) for queue, each in found.items()}  # type: ignore[misc]

    day = 86400.0
    assert kept() == {"default": (7 * day, 30 * day, 30 * day)}
    found = kept(
        retention={"succeeded": "12h", "failed": "forever"},
        queues={"default": {"keep_cancelled": 60}, "a": {"keep_succeeded": "1d"}, "b": {}},
    )
    inf = float("inf")
    assert found == {
        "default": (day / 2, inf, 60.0),
        "a": (day, inf, 60.0),
        "b": (day / 2, inf, 60.0),
    }


@pytest.mark.parametrize("value", ["0s", 0.5, "7 days", True, "none", -1])
def test_an_age_is_a_time_of_a_second_at_least_or_for_ever(value: object) -> None:
    with pytest.raises(ConfigError, match=r'retention\.failed: expected .* or "forever"'):
        Config.from_table(LEAST | {"retention": {"failed": value}}, "f")
