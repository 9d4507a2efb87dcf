"""A deploy from the request to the exec, and what follows it: hooks, draining."""

from taskd.master.deploy.after_drain import AfterDrain
from taskd.master.deploy.ages import age_text, ages
from taskd.master.deploy.capacity import Capacity
from taskd.master.deploy.deploy import Deploy, Stages
from taskd.master.deploy.draining import Draining
from taskd.master.deploy.progress import Progress
from taskd.master.deploy.request import How

__all__ = (
    "AfterDrain",
    "Capacity",
    "Deploy",
    "Draining",
    "How",
    "Progress",
    "Stages",
    "age_text",
    "ages",
)
