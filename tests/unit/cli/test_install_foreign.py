"""What of the name `taskd` is somebody else's: an installation refuses, and a purge leaves it.

Each machine here is one as it is described; tests/system has Debian's own package for real.
"""

from __future__ import annotations

import pytest

from taskd.cli.install import foreign, installation, plan
from taskd.cli.install.installation import DIRECTORY, FILE, LINK, Entry, Found, Installation
from taskd.errors import ConfigError
from taskd.paths import Places

PLAIN = installation.of_system(None, "/opt/taskd/bin")
SHOP = installation.of_system("shop", "/opt/taskd/bin")
MINE = installation.of_user({"HOME": "/home/alice"}, 1000, "/opt/taskd/bin")

STATE, LOGS = PLAIN.marked
RUNTIME = PLAIN.runtime
THEIRS = Entry(FILE, "[Service]\nExecStart=/usr/bin/taskd server --data /var/lib/taskd\n")


def refusal(wanted: Installation, found: Found) -> str:
    with pytest.raises(ConfigError) as raised:
        plan.install(wanted, found)
    return str(raised.value)


def with_directory(path: str, *names: str, **more: object) -> Found:
    return Found({path: Entry(DIRECTORY)}, holds={path: names})._replace(**more)


@pytest.mark.parametrize(
    "path",
    [
        "/lib/systemd/system/taskd.service",
        "/usr/lib/systemd/system/taskd.service",
        "/run/systemd/system/taskd.service",
        "/etc/systemd/system/taskd.service",
        "/etc/init.d/taskd",
        "/usr/lib/sysusers.d/taskd.conf",
        "/etc/tmpfiles.d/taskd.conf",
    ],
)
def test_a_unit_of_somebody_elses_is_not_shadowed(path: str) -> None:
    said = refusal(PLAIN, Found({path: THEIRS}))
    assert path in said and "taskd install --name APP" in said
    assert plan.install(PLAIN, Found({path: Entry(FILE, PLAIN.ours[PLAIN.unit_files[0]])}))


@pytest.mark.parametrize(
    "path", ["/usr/lib/systemd/system/taskd@.service", "/etc/systemd/system/taskd@shop.service"]
)
def test_a_template_or_instance_of_somebody_elses_is_not_shadowed(path: str) -> None:
    assert path in refusal(SHOP, Found({path: THEIRS}))
    assert plan.install(PLAIN, Found({path: THEIRS}))


def test_a_name_of_its_own_is_free_where_the_plain_one_is_taken() -> None:
    found = Found({"/lib/systemd/system/taskd.service": THEIRS, "/etc/init.d/taskd": THEIRS})
    found = found._replace(hidden={"/usr/local/bin/taskd": "/usr/bin/taskd"})
    (link,) = [c for c in plan.install(SHOP, found) if c.path == "/usr/local/bin/taskd"]
    assert link.note.endswith("/usr/bin/taskd is another program, behind it")


def test_a_users_unit_of_somebody_elses_is_not_shadowed() -> None:
    said = refusal(MINE, Found({"/usr/lib/systemd/user/taskd.service": THEIRS}))
    assert "/usr/lib/systemd/user/taskd.service" in said and "--name" not in said


@pytest.mark.parametrize(
    ("path", "names"),
    [(STATE, ["config", "orgs"]), (LOGS, ["taskd.log"]), ("/etc/taskd", ["config"]),
     ("/run/taskd", ["taskd.socket"])],
)  # fmt: skip
def test_a_directory_of_somebody_elses_is_not_taken_over(path: str, names: list[str]) -> None:
    assert f"{path} (with {', '.join(names)})" in refusal(PLAIN, with_directory(path, *names))


@pytest.mark.parametrize(
    ("path", "names"),
    [(STATE, []), ("/etc/taskd", ["taskd.toml", "environment"]),
     ("/etc/taskd", ["shop.toml"]), ("/run/taskd", ["control.sock"])],
)  # fmt: skip
def test_a_directory_that_is_free_or_ours_is_no_hindrance(path: str, names: list[str]) -> None:
    assert plan.install(PLAIN, with_directory(path, *names))


def test_what_a_daemon_has_made_before_there_were_marks_gets_its_mark() -> None:
    found = with_directory(STATE, "home", "lock", "slots", "store.db", "store.db-wal", "tmp")
    marks = [c.path for c in plan.install(PLAIN, found) if c.path.endswith(foreign.MARK)]
    assert marks == [f"{STATE}/{foreign.MARK}", f"{LOGS}/{foreign.MARK}"]
    early = with_directory(STATE, "home", "lock", "tmp")  # it has never come so far as its store
    assert STATE in refusal(PLAIN, early)
    assert plan.install(PLAIN, early._replace(owned=frozenset([STATE])))


def test_every_name_of_a_daemons_own_is_known_as_ours() -> None:
    there = Places(STATE, RUNTIME, LOGS)
    names = [
        name for name, of in vars(Places).items() if isinstance(of, type(vars(Places)["lock"]))
    ]
    assert {"lock", "proved", "control_socket"} <= set(names)
    for path in (getattr(there, name) for name in names):
        place, name = path.rsplit("/", 1)
        assert foreign.other_names(place, with_directory(place, name)) == []


def test_a_store_among_another_programs_data_is_gone_on_with_and_never_purged() -> None:
    found = with_directory(STATE, "config", "orgs", "store.db", owned=frozenset([STATE]))
    (kept,) = [c for c in plan.install(PLAIN, found) if c.path.startswith(STATE)]
    assert kept.verb == "keep" and "--purge will leave it" in kept.note
    assert plan.uninstall(PLAIN, found, purge=True) == []
    assert plan.left(PLAIN, found, purge=True) == [STATE]


def test_a_purge_removes_only_what_bears_the_mark() -> None:
    found = Found(
        {path: Entry(DIRECTORY) for path in PLAIN.kept},
        holds={STATE: (foreign.MARK, "store.db"), LOGS: ("7.log",)},
        owned=frozenset(PLAIN.kept),
    )
    gone = [change.path for change in plan.uninstall(PLAIN, found, purge=True)]
    assert gone == [STATE, "/run/taskd"]
    assert plan.left(PLAIN, found._replace(entries={LOGS: Entry(DIRECTORY)}), True) == [LOGS]


def test_the_data_of_a_program_that_came_after_the_mark_is_not_purged() -> None:
    ours = Entry(FILE, PLAIN.ours["/etc/systemd/system/taskd.service"])
    found = Found(
        {STATE: Entry(DIRECTORY), LOGS: Entry(DIRECTORY), PLAIN.unit_files[0]: ours},
        holds={STATE: (foreign.MARK, "orgs", "store.db"), LOGS: (foreign.MARK, "7.log")},
    )
    alone = [change.path for change in plan.uninstall(PLAIN, found, purge=True)]
    assert {STATE, LOGS} <= set(alone), "what the tasks have put there is ours"
    beside = found.entries | {"/lib/systemd/system/taskd.service": THEIRS}
    beside_it = plan.uninstall(PLAIN, found._replace(entries=beside), purge=True)
    gone = {change.path for change in beside_it}
    assert STATE not in gone and LOGS in gone and PLAIN.unit_files[0] in gone


def test_an_uninstallation_touches_nothing_of_another_program() -> None:
    found = Found(
        {
            "/etc/systemd/system/taskd.service": THEIRS,
            "/etc/systemd/system/taskd.service.d": Entry(DIRECTORY),
            "/etc/systemd/system/multi-user.target.wants/taskd.service": Entry(LINK, "/x"),
            "/usr/local/bin/taskd": Entry(LINK, "/opt/taskserver/bin/taskd"),
            STATE: Entry(DIRECTORY),
            "/run/taskd": Entry(DIRECTORY),
        },
        holds={STATE: ("config",), "/run/taskd": ("pid",)},
        accounts=frozenset(["taskd", "taskd-submit"]),
        home="/var/taskd",
        programs=frozenset(["/usr/local/bin/taskd"]),
    )
    assert foreign.has_unit_of(PLAIN, found)
    assert plan.uninstall(PLAIN, found, purge=True) == []
    assert plan.left(PLAIN, found) == plan.left(PLAIN, found, purge=True) == []


def test_a_user_of_somebody_elses_does_not_run_the_daemon() -> None:
    theirs = Found({}, accounts=frozenset(["taskd"]), home="/var/taskd")
    assert "the user taskd (home /var/taskd" in refusal(PLAIN, theirs)
    assert plan.install(PLAIN, theirs._replace(home="/var/lib/taskd/home"))


def test_the_members_of_a_group_that_was_there_become_nobodys_administrators() -> None:
    found = Found({}, accounts=frozenset(["taskd"]), members={"taskd": ("mallory",)})
    assert "the group taskd (with mallory)" in refusal(PLAIN, found)
    assert plan.install(PLAIN, found._replace(members={"taskd": ()}))
    ours = found._replace(home="/var/lib/taskd/home")  # with those whom the administrator has added
    assert plan.install(PLAIN, ours)


def test_a_command_of_another_program_is_not_linked_over() -> None:
    path = "/usr/local/bin/taskd"
    found = Found({path: Entry(LINK, "/opt/taskserver/bin/taskd")}, programs=frozenset([path]))
    said = refusal(PLAIN, found)
    assert f"{path}, which leads to another program" in said
    assert "--name" not in said, "those of a name have the same commands"
