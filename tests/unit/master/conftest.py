"""The fixture that most of these tests use."""

from bench import bench

__all__ = ["bench"]
