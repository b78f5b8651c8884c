"""What may vary: schedules, their parts and ranges, token counts and MACs. Starts without torch."""

from vittle.spaces.costs import macs, parameters, tokens, work
from vittle.spaces.errors import ScheduleError, UnsupportedBackboneError, VittleError
from vittle.spaces.merging import Merging
from vittle.spaces.pruning import Pruning
from vittle.spaces.recursion import Recursion
from vittle.spaces.reduction import Choice, Parameter, Probe, Reduction, Start
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.space import Space
from vittle.spaces.sparsity import Sparsity
from vittle.spaces.token_reduction import TokenReduction
from vittle.spaces.work import Act, BlockWork, Visit

__all__ = [
    "Act",
    "BackboneShape",
    "BlockWork",
    "Choice",
    "Merging",
    "Parameter",
    "Probe",
    "Pruning",
    "Recursion",
    "Reduction",
    "Schedule",
    "ScheduleError",
    "Space",
    "Sparsity",
    "Start",
    "TokenReduction",
    "UnsupportedBackboneError",
    "Visit",
    "VittleError",
    "macs",
    "parameters",
    "tokens",
    "work",
]
