"""What `taskd install` decides to do, and the texts that it writes.

That the result works is shown on real machines, in tests/system.
"""

from __future__ import annotations

import filecmp
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import taskd
from taskd import config, config_rules, paths
from taskd.cli.install import foreign, installation, plan
from taskd.cli.install.installation import DIRECTORY, FILE, LINK, Entry, Found, Installation
from taskd.cli.outcome import UsageError
from taskd.errors import ConfigError

SHOWN = Path(taskd.__file__).parents[1] / "systemd"
PLAIN = installation.of_system(None, "/opt/taskd/bin")
SHOP = installation.of_system("shop", "/opt/taskd/bin")
NOTHING = Found({})


def all_there(wanted: Installation) -> Found:
    """A machine on which everything is as it should be."""
    files = {path: Entry(FILE, text) for path, text in (wanted.ours | wanted.yours).items()}
    links = {path: Entry(LINK, target) for path, target in wanted.links.items()}
    kept = {path: Entry(DIRECTORY) for path in wanted.kept}
    return Found(
        files | links | kept,
        holds=dict.fromkeys(wanted.marked, (foreign.MARK,)),
        owned=frozenset(wanted.kept),
        accounts=frozenset({str(wanted.account), str(wanted.group)}),
        home=f"/var/lib/{wanted.account}/home",
    )


def verbs(changes: list[plan.Change]) -> list[tuple[str, str]]:
    return [(change.verb, change.path or change.words[0]) for change in changes]


@pytest.mark.parametrize("wanted", [PLAIN, SHOP], ids=["plain", "shop"])
def test_where_all_is_as_it_should_be_nothing_changes(wanted: Installation) -> None:
    assert verbs(plan.install(wanted, all_there(wanted))) == [("keep", wanted.config)]


def test_on_an_empty_machine_everything_is_made_before_it_is_used() -> None:
    changes = plan.install(PLAIN, NOTHING)
    files = {*PLAIN.ours, *PLAIN.yours, *PLAIN.links}
    assert {change.path for change in changes[: len(files)]} == files
    commands = [change.words[:2] or change.path for change in changes[len(files) :]]
    assert commands == [
        ("systemd-sysusers", "/etc/sysusers.d/taskd.conf"),
        ("systemd-tmpfiles", "--create"),
        ("systemctl", "daemon-reload"),
        "/var/lib/taskd",
        "/var/lib/taskd/.taskd-supervisor",
        "/var/log/taskd",
        "/var/log/taskd/.taskd-supervisor",
    ]


def test_in_a_root_that_has_not_booted_nobody_is_told_to_reload() -> None:
    changes = plan.install(PLAIN, NOTHING._replace(is_booted=False))
    assert [change.words[0] for change in changes if change.verb == "run"] == ["systemd-sysusers"]


def test_a_file_of_ours_that_differs_is_written_anew_and_yours_is_kept() -> None:
    found = all_there(PLAIN)
    unit, mine = "/etc/systemd/system/taskd.service", Entry(FILE, "# mine\n")
    old = Entry(FILE, f"{PLAIN.ours[unit]}# changed\n")
    found = found._replace(entries=found.entries | {unit: old, PLAIN.config: mine})
    changes = plan.install(PLAIN, found)
    assert verbs(changes) == [("update", unit), ("keep", PLAIN.config), ("run", "systemctl")]


@pytest.mark.parametrize("entry", [Entry(DIRECTORY), Entry(LINK, "/dev/null")])
def test_what_is_not_ours_is_not_replaced_by_a_unit(entry: Entry) -> None:
    unit = "/etc/systemd/system/taskd.service"  # a link to /dev/null is a masked unit
    with pytest.raises(ConfigError, match=f"{unit} is there"):
        plan.install(PLAIN, NOTHING._replace(entries={unit: entry}))


def test_a_link_follows_the_taskd_that_is_installed_last() -> None:
    link = "/usr/local/bin/taskd"
    found = all_there(PLAIN)
    found = found._replace(entries=found.entries | {link: Entry(LINK, "/opt/old/bin/taskd")})
    (change,) = [c for c in plan.install(PLAIN, found) if c.verb == "update"]
    assert change.entry == Entry(LINK, "/opt/taskd/bin/taskd")
    assert change.note == "-> /opt/taskd/bin/taskd, was /opt/old/bin/taskd"


def test_commands_that_are_in_their_place_need_no_link() -> None:
    assert installation.of_system(None, "/usr/local/bin").links == {}


def test_an_uninstallation_leaves_what_is_yours_and_a_purge_does_not() -> None:
    found = all_there(PLAIN)
    gone = {change.path for change in plan.uninstall(PLAIN, found, purge=False)}
    assert gone - {""} == {*PLAIN.ours, *PLAIN.links}
    assert plan.left(PLAIN, found) == [PLAIN.config, *PLAIN.kept, "the user taskd"]
    changes = plan.uninstall(PLAIN, found, purge=True)
    assert {c.path for c in changes} - {""} == {
        *PLAIN.ours,
        *PLAIN.links,
        PLAIN.config,
        *PLAIN.kept,
    }
    assert changes[0].words[:3] == ("systemctl", "--quiet", "disable")
    assert [c.words for c in changes[-2:]] == [("groupdel", "taskd-submit"), ("userdel", "taskd")]


def test_what_another_app_uses_stays_when_one_is_uninstalled() -> None:
    own = {"/etc/sysusers.d/taskd-shop.conf", "/etc/tmpfiles.d/taskd-shop.conf"}
    for siblings in (True, False):  # beside one with a name, and beside the system's one
        found = all_there(SHOP)._replace(others=True, siblings=siblings)
        removed = {c.path for c in plan.uninstall(SHOP, found, False) if c.verb == "remove"}
        assert removed == own | (set() if siblings else {*SHOP.unit_files})
    assert not plan.uninstall(SHOP, NOTHING, purge=True)


def test_somebody_elses_command_is_not_removed() -> None:
    theirs = {"/usr/local/bin/taskctl": Entry(FILE, "#!/bin/sh\n")}
    assert plan.uninstall(PLAIN, Found(theirs), purge=True) == []


@pytest.mark.parametrize("name", ["", "Shop", "1st", "a_b", "a/b", "x" * 19, "a-", "-a"])
def test_a_name_that_cannot_be_part_of_a_users_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected a short name"):
        installation.of_system(name, "/opt/taskd/bin")


@pytest.mark.parametrize("name", ["taskd", "submit", "a-submit"])
def test_a_name_that_would_be_anothers_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is taken"):
        installation.of_system(name, "/opt/taskd/bin")


def settings(text: str) -> list[str]:
    """A unit without its comments."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["taskd.service", "taskd-control.socket", "taskd-submit.socket"])
def test_a_template_says_the_same_as_the_plain_unit_but_for_the_names(name: str) -> None:
    template = installation.text_of(name.replace(".", "@."))
    one = template.replace("taskd@%i.service", "taskd.service").replace("taskd-%i", "taskd")
    one = one.replace("@%i.socket", ".socket")
    one = one.replace("/etc/taskd/%i.toml", "/etc/taskd/taskd.toml").replace(" of %i:", ":")
    assert settings(one) == settings(installation.text_of(name))


def test_the_folder_that_is_shown_is_the_one_that_is_installed() -> None:
    """By content: in the source archive the link is a second folder."""
    texts = Path(paths.UNITS)
    names = {str(file.relative_to(SHOWN)) for file in SHOWN.rglob("*") if file.is_file()}
    assert "user/taskd.service" in names
    assert names == {str(file.relative_to(texts)) for file in texts.rglob("*") if file.is_file()}
    assert filecmp.cmpfiles(SHOWN, texts, names, shallow=False) == (list(names), [], [])


def test_each_line_for_tasks_that_need_more_is_a_comment_until_it_is_asked_for() -> None:
    assert settings(installation.text_of("more.conf")) == ["[Service]"]


@pytest.mark.parametrize("wanted", [PLAIN, SHOP], ids=["plain", "shop"])
def test_the_first_configuration_names_every_key_and_is_valid(
    wanted: Installation,
) -> None:
    text = wanted.yours[wanted.config]
    home = "/srv/shop" if wanted is SHOP else "/srv/app"
    found = config.Config.from_table(tomllib.loads(text), wanted.config)
    assert found.app.release == f"{home}/current"
    assert found.access.submit_groups == [wanted.group]
    whole = re.sub(r"^#(?=\[|\w+ = )", "", text, flags=re.M)
    table = tomllib.loads(whole)
    assert {name: set(section) for name, section in table.items() if name != "queues"} == {
        name: set(rules) for name, rules in config_rules.RULES.items()
    }
    shown = config.Config.from_table(table, wanted.config)
    assert shown.daemon == found.daemon, "what is commented out shows the default"
    none = dict.fromkeys(("python", "probe", "max_workers", "env", "env_file", "setup"))
    assert shown.app._replace(**none) == found.app
    assert shown.max_workers == found.max_workers
    assert shown.access == found.access
    assert shown.logs == found.logs
    assert shown.hooks.timeout == found.hooks.timeout


def test_an_app_has_accounts_and_directories_of_its_own() -> None:
    for path, text in SHOP.ours.items():
        if path.startswith(("/etc/sysusers.d", "/etc/tmpfiles.d")):
            assert not re.search(r"\btaskd(?!-shop| install)", text.replace('"taskd"', "")), text


class Home:
    """A user without a session, who has taskd in a Python of their own."""

    def __init__(self, path: Path) -> None:
        self.path = path / "home"
        self.path.mkdir()
        self.python = path / "python"
        venv.create(self.python, with_pip=False, symlinks=True)
        for name in installation.COMMANDS:
            (self.python / "bin" / name).touch()

    def taskd(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python / "bin" / "python", "-m", "taskd", *words],
            env={
                "HOME": str(self.path),
                "STATE_DIRECTORY": str(self.path / ".local" / "state" / "taskd"),  # not root's
                "LOGS_DIRECTORY": str(self.path / ".local" / "state" / "taskd" / "logs"),
                "RUNTIME_DIRECTORY": str(self.path / "runtime"),
                "PATH": os.defpath,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            text=True,
        )

    def tree(self) -> dict[str, str]:
        """Every file and link, with its content or target."""
        return {
            str(entry.relative_to(self.path)): (
                os.readlink(entry) if entry.is_symlink() else entry.read_text()
            )
            for entry in self.path.rglob("*")
            if entry.is_symlink() or entry.is_file()
        }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_user_installs_a_daemon_of_their_own_and_takes_it_away(home: Home) -> None:
    assert "would create" in home.taskd("install", "--user", "--dry-run").stdout
    assert home.tree() == {}
    first = home.taskd("install", "--user")
    assert first.returncode == 0, first.stderr
    there = home.tree()
    assert there.keys() == {
        ".config/systemd/user/taskd.service",
        ".config/taskd/taskd.toml",
        ".local/bin/taskd",
        ".local/bin/taskctl",
        ".local/lib/taskd/stop-post",
        ".local/state/taskd/.taskd-supervisor",
    }
    assert there[".local/bin/taskd"] == f"{home.python}/bin/taskd"
    assert config.load(str(home.path / ".config/taskd/taskd.toml")).access.submit_groups == []
    assert "nothing to change" in home.taskd("install", "--user").stdout
    assert home.tree() == there
    home.taskd("uninstall", "--user")
    assert home.tree().keys() == {
        ".config/taskd/taskd.toml",
        ".local/state/taskd/.taskd-supervisor",
    }
    home.taskd("uninstall", "--user", "--purge")
    assert home.tree() == {}


def test_a_taskd_inside_a_release_is_not_what_starts_the_daemon(home: Home) -> None:
    file = home.path / ".config" / "taskd" / "taskd.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'[app]\nrelease = "{home.python}"\nmodules = ["a"]\n')
    before = home.tree()
    ran = home.taskd("install", "--user")
    assert ran.returncode == 1 and f"this taskd is in the release {home.python}" in ran.stderr
    assert home.tree() == before


def test_a_python_without_the_commands_is_not_linked_to(home: Home) -> None:
    (home.python / "bin" / "taskctl").unlink()
    ran = home.taskd("install", "--user")
    assert ran.returncode == 1 and "there is no command taskctl in" in ran.stderr
    assert home.tree() == {}
