"""Fixtures that more than one file of these tests uses."""

from cli_daemon import daemon, run

__all__ = ["daemon", "run"]
