"""Fixtures that more than one file of these tests uses."""

from cli_daemon import daemon, run
from cli_site import site

__all__ = ["daemon", "run", "site"]
