"""Fixtures that more than one file of these tests uses."""

from bench import bench
from cli_daemon import daemon, run
from cli_site import gate, site

__all__ = ["bench", "daemon", "gate", "run", "site"]
