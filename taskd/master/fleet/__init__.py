"""Revisions, their zygotes and their workers: started, listened to, and ended."""

from taskd.master.fleet.ceilings import CROWDED
from taskd.master.fleet.children import Children
from taskd.master.fleet.deaths import Dead, Deaths
from taskd.master.fleet.groups import Groups
from taskd.master.fleet.intake import Intake
from taskd.master.fleet.introductions import Introductions
from taskd.master.fleet.oom import OomWatch
from taskd.master.fleet.orphans import Orphans
from taskd.master.fleet.proofs import Proofs
from taskd.master.fleet.recheck import Expected, Recheck
from taskd.master.fleet.respawn import Respawn
from taskd.master.fleet.retirement import Retirement
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.revisions import Revisions
from taskd.master.fleet.running import Known, Running, known_of, of_row, owner_of
from taskd.master.fleet.slots import drop_slot, unlink
from taskd.master.fleet.worker import Parent, Probe, Work, Worker
from taskd.master.fleet.workers import Workers
from taskd.master.fleet.zygotes import Zygotes

__all__ = (
    "CROWDED",
    "Children",
    "Dead",
    "Deaths",
    "Expected",
    "Groups",
    "Intake",
    "Introductions",
    "Known",
    "OomWatch",
    "Orphans",
    "Parent",
    "Probe",
    "Proofs",
    "Recheck",
    "Respawn",
    "Retirement",
    "Revision",
    "Revisions",
    "Running",
    "Work",
    "Worker",
    "Workers",
    "Zygotes",
    "drop_slot",
    "known_of",
    "of_row",
    "owner_of",
    "unlink",
)
