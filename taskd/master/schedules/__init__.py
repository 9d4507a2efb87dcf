"""Schedules: which there are, and the task of each slot when it is due."""

from taskd.master.schedules.schedules import Schedules

__all__ = ("Schedules",)
