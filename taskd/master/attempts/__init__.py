"""Which waiting task goes to which worker, and how each attempt ends."""

from taskd.master.attempts.attempts import Attempts
from taskd.master.attempts.concurrency import Concurrency
from taskd.master.attempts.dispatch import Dispatch
from taskd.master.attempts.endings import Ending, Endings, by_record
from taskd.master.attempts.limits import Limits
from taskd.master.attempts.pauses import Pauses, date
from taskd.master.attempts.sending import Sending
from taskd.master.attempts.tasklogs import TaskLogs
from taskd.master.attempts.timeouts import runs_since
from taskd.master.attempts.watching import Watching

__all__ = (
    "Attempts",
    "Concurrency",
    "Dispatch",
    "Ending",
    "Endings",
    "Limits",
    "Pauses",
    "Sending",
    "TaskLogs",
    "Watching",
    "runs_since",
    "by_record",
    "date",
)
