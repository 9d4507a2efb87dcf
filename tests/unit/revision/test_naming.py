"""What a release is called, and which one is meant."""

from __future__ import annotations

import pytest

from taskd.revision import release


@pytest.mark.parametrize(
    ("path", "others", "name"),
    [
        ("/srv/releases/r41", [], "r41"),
        ("/srv/releases/r41", ["/srv/releases/r42", "/srv/releases/xr41"], "r41"),
        ("/srv/releases/r41", ["/srv/releases/r41"], "r41"),
        ("/srv/releases/1/app", ["/srv/releases/2/app"], "1/app"),
        ("/srv/1/my/app", ["/srv/2/my/app", "/srv/r3"], "1/my/app"),
        ("/srv/1/app", ["/srv/2/app", "/opt/1/app"], "srv/1/app"),
        ("/app", ["/srv/app"], "app"),
        ("/srv/app", ["/app", ""], "srv/app"),
    ],
)
def test_a_release_is_called_what_tells_it_from_the_others(
    path: str, others: list[str], name: str
) -> None:
    assert release.name(path, others) == name
    assert release.is_meant(path, name)
    assert [other for other in others if other != path and release.is_meant(other, name)] in (
        [],
        ["/srv/app"],  # a path's whole end is another's name
    )


@pytest.mark.parametrize(
    ("word", "is_meant"),
    [
        ("/srv/releases/1/app", True),
        ("/srv/releases/1/app/", True),
        ("1/app", True),
        ("app", True),
        ("pp", False),
        ("2/app", False),
        ("", False),
        ("/", False),
        ("over/srv/releases/1/app", False),
    ],
)
def test_a_release_is_meant_by_the_end_of_its_path(word: str, is_meant: bool) -> None:
    assert release.is_meant("/srv/releases/1/app", word) is is_meant
