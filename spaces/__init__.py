"""What may vary: schedules, their parts and ranges, token counts and MACs. Starts without torch."""

from vittle.spaces.costs import BlockWork, macs, plan, tokens
from vittle.spaces.errors import ScheduleError, UnsupportedBackboneError, VittleError
from vittle.spaces.merging import Merging
from vittle.spaces.pruning import Pruning
from vittle.spaces.reduction import Choice, Parameter, Reduction, Start
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.space import Space

__all__ = [
    "BackboneShape",
    "BlockWork",
    "Choice",
    "Merging",
    "Parameter",
    "Pruning",
    "Reduction",
    "Schedule",
    "ScheduleError",
    "Space",
    "Start",
    "UnsupportedBackboneError",
    "VittleError",
    "macs",
    "plan",
    "tokens",
]
