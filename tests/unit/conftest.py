"""Fixtures that more than one file of these tests uses."""

from bench import bench
from cli_daemon import daemon, run

__all__ = ["bench", "daemon", "run"]
