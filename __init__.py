"""Vittle finds the schedule of token reduction that makes a Vision Transformer fit a latency budget.

    fast = vittle.apply(model, vittle.Schedule.load("best.yaml"))

What needs torch is imported on first use, so that `vittle.dashboards` and `vittle.storage` start without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vittle import presets
    from vittle.objectives.watching.watched import watch
    from vittle.objectives.watching.worst_cases import worst_cases
    from vittle.reductions.tokens import unmerge
    from vittle.reductions.vit import apply, macs, tokens
    from vittle.spaces.errors import ScheduleError, UnsupportedBackboneError, VittleError
    from vittle.spaces.schedule import Schedule

__version__ = "0.1.0"
__all__ = [
    "Schedule",
    "ScheduleError",
    "UnsupportedBackboneError",
    "VittleError",
    "apply",
    "macs",
    "presets",
    "tokens",
    "unmerge",
    "watch",
    "worst_cases",
]

_HOMES = {
    "Schedule": "vittle.spaces.schedule",
    "ScheduleError": "vittle.spaces.errors",
    "UnsupportedBackboneError": "vittle.spaces.errors",
    "VittleError": "vittle.spaces.errors",
    "apply": "vittle.reductions.vit",
    "macs": "vittle.reductions.vit",
    "tokens": "vittle.reductions.vit",
    "unmerge": "vittle.reductions.tokens",
    "watch": "vittle.objectives.watching.watched",
    "worst_cases": "vittle.objectives.watching.worst_cases",
}


def __getattr__(name: str) -> Any:
    if name == "presets":
        return importlib.import_module("vittle.presets")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vittle' has no attribute {name!r}")
