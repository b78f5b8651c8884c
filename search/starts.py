"""What a search tries first: schedules that a knowing user would try by hand, and those that the backbone itself suggests.

Plans come first: the schedules with the least loss that dynamic programming finds from the sensitivity of single blocks, at a
dozen costs. Then what is published, at a few costs each: constant and decreasing removal (ToMe), a delayed start (DSM), rates
that were learnt elsewhere (DiffRate). Every trial keeps the name of where it came from.
"""

from collections.abc import Callable, Iterator

import numpy as np

from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.quality.rungs import spread
from vittle.search.planning import plans
from vittle.spaces.reduction import Start
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space

PLANNED = 12  # costs that are planned for
CHEAPEST = 0.12  # the least of them, as a share of the most
HEURISTIC = (0.97, 0.7, 0.45)  # costs of what is published, as shares of what the budget allows
BLIND = (0.85, 0.6, 0.4)  # the same in MACs, which fall faster than latency


def starts(
    space: Space,
    *,
    allowed: float,
    cost: Callable[[Schedule], float],
    profile: LatencyProfile | None,
    sensitivity: Sensitivity | None,
) -> Iterator[Start]:
    """The first trials of a search, most telling first.

    Args:
        space: of the search.
        allowed: the budget as a share of the backbone's cost.
        cost: of a schedule as a share of the backbone's: predicted latency, or MACs.
        profile: by which it is predicted; None where `cost` is MACs.
        sensitivity: of the backbone's blocks; without it nothing is planned.
    """
    if sensitivity is not None:
        # From the middle of the range on, so that a search that ends early has seen all of it; cheap ones before dear ones.
        wanted = allowed * np.geomspace(1.0, CHEAPEST, PLANNED)
        planned = plans(space, sensitivity, [float(wanted[at]) for at in spread(PLANNED)], profile)
        yield from (Start("plan", space.encode(schedule)) for schedule in planned)
    shares = BLIND if profile is None else HEURISTIC
    yield from space.starting_points([share * allowed for share in shares], cost)
