"""Time zones by name, from the machine's data or the package tzdata."""

from __future__ import annotations

from datetime import UTC, tzinfo


def find(name: str) -> tzinfo:
    """Raises ValueError with a sentence."""
    if name == "UTC":
        return UTC
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    try:
        zoneinfo.ZoneInfo("Europe/Berlin")
    except (zoneinfo.ZoneInfoNotFoundError, OSError):
        raise ValueError(
            "this machine has no time zones: install the package tzdata (apt install tzdata, or "
            "pip install tzdata into the release)"
        ) from None
    raise ValueError(f"there is no time zone {name!r}; a name is such as Europe/Berlin, or UTC")


def forget() -> None:
    """Read them anew at the next use: rules change, and a master lives for months."""
    import zoneinfo

    zoneinfo.ZoneInfo.clear_cache()
