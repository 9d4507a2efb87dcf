"""What a dead worker or a dead master has left: found, and settled."""

from taskd.master.recovery.salvage import Salvage
from taskd.master.recovery.survivors import Survivors
from taskd.master.recovery.unowned import Unowned

__all__ = (
    "Salvage",
    "Survivors",
    "Unowned",
)
