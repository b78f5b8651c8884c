"""The non-dominated candidates. Starts without torch."""

from collections.abc import Mapping, Sequence

import numpy as np

from vittle.objectives.measurement import OBJECTIVES, SEARCHED, LatencyBudget, Measurement


def front(candidates: Sequence[Mapping[str, Measurement]], objectives: Sequence[str] = SEARCHED) -> list[int]:
    """Positions of the candidates that no other one beats or equals everywhere, cheapest latency first.

    Of candidates that are equal in every objective the first one stays.

    Args:
        candidates: the measurements of each, by objective; every one of `objectives` must be there.
    """
    if not candidates:
        return []
    costs = np.array([[oriented(candidate[name]) for name in objectives] for candidate in candidates])  # (n, m), less is better
    order = np.lexsort((np.arange(len(costs)), *costs.T[::-1]))
    kept: list[int] = []
    for index in order:  # whatever dominates a candidate comes before it
        if not (kept and np.all(costs[kept] <= costs[index], axis=1).any()):
            kept.append(int(index))
    return sorted(kept, key=lambda index: (candidates[index]["latency_ratio"].value, index))


def best(candidates: Sequence[Mapping[str, Measurement]], budget: LatencyBudget) -> int | None:
    """Position of the most accurate candidate that holds the budget, the fastest of equals; None where none holds it."""
    holding = [index for index, candidate in enumerate(candidates) if budget.holds(candidate)]
    if not holding:
        return None
    return min(holding, key=lambda index: tuple(oriented(candidates[index][name]) for name in SEARCHED))


def oriented(measurement: Measurement) -> float:
    """The value as a cost: less is better."""
    return -measurement.value if OBJECTIVES[measurement.objective].direction == "maximize" else measurement.value
