"""The fixtures that most of these tests use."""

from bench import bench, new_bench

__all__ = ["bench", "new_bench"]
