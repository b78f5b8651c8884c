"""The candidates that no other one beats beyond the noise. Starts without torch.

One candidate beats another where it is no worse in any objective, by value, and better in at least one by more than the noise:
their intervals are apart. Two that differ by no more than noise are tied, and both stay.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.measurement import OBJECTIVES, SEARCHED, Measurement

Measured = Mapping[str, Measurement]
CLOSEST = ("divergence", *SEARCHED[1:])


def front(candidates: Sequence[Measured], objectives: Sequence[str] = SEARCHED) -> list[int]:
    """Positions of the candidates that no other one beats, cheapest latency first.

    Args:
        candidates: the measurements of each, by objective; every one of `objectives` must be there.
        objectives: what they are compared in.
    """
    if not candidates:
        return []
    # Each (n, m), less is better.
    costs, least, most = (np.array(rows) for rows in zip(*(_costs(one, objectives) for one in candidates), strict=True))
    order = np.lexsort((np.arange(len(costs)), *costs.T[::-1]))
    kept: list[int] = []
    rivals = np.empty(0, np.intp)  # also those that are beaten: to beat by more than the noise is not transitive
    for index in order:  # whatever beats a candidate comes before it
        no_worse = (costs[rivals] <= costs[index]).all(1)
        if not (no_worse & (most[rivals] < least[index]).any(1)).any():
            kept.append(int(index))
        if not (no_worse & (most[rivals] <= most[index]).all(1)).any():  # else whatever it beats is beaten without it
            rivals = np.append(rivals, index)
    return sorted(kept, key=lambda index: (candidates[index]["latency_ratio"].value, index))


def compared(candidates: Iterable[Measured]) -> tuple[str, ...]:
    """What candidates are compared in while a search goes on: where it is known of all, divergence in place of accuracy.

    It puts schedules into the order of their accuracy on other images better than accuracy itself does, and with a fraction of
    the images (see `expectation`).
    """
    return CLOSEST if all("divergence" in one for one in candidates) else SEARCHED


def may_enter_front(candidate: Measured, rivals: Sequence[Measured]) -> bool:
    """Whether a candidate may enter a front: at the lower end of its latency, no rival is as good in everything."""
    objectives = compared([candidate, *rivals])
    costs = np.array([oriented(candidate[name]) for name in objectives])
    costs[objectives.index("latency_ratio")] = candidate["latency_ratio"].low
    return not any(all(oriented(rival[name]) <= cost for name, cost in zip(objectives, costs, strict=True)) for rival in rivals)


def tied(first: Measured, second: Measured) -> bool:
    """Whether two candidates differ in accuracy and in latency by no more than noise."""
    pairs = ((first[name], second[name]) for name in ("accuracy", "latency_ratio"))
    return all(one.low <= other.high and other.low <= one.high for one, other in pairs)


def best(candidates: Sequence[Measured], budget: LatencyBudget) -> int | None:
    """Position of the most accurate candidate that holds the budget, the fastest of equals; None where none holds it."""
    holding = [index for index, candidate in enumerate(candidates) if budget.holds(candidate)]
    if not holding:
        return None
    return min(holding, key=lambda index: tuple(oriented(candidates[index][name]) for name in SEARCHED))


def knee(points: Sequence[Measured]) -> int | None:
    """Position of the point of a front, fastest first, that lies farthest above the line from its fastest to its slowest point.

    Both are scaled to the span of the front; after Branke et al., "Finding knees in multi-objective optimization" (2004), who
    take the point with the best trade-off. None where no point lies above the line.
    """
    if len(points) < 3:
        return None
    x, y = (np.array([one[name].value for one in points]) for name in ("latency_ratio", "accuracy"))
    width, height = x[-1] - x[0], y[-1] - y[0]
    if width <= 0 or height <= 0:
        return None
    above = (y - y[0]) / height - (x - x[0]) / width
    found = int(above.argmax())
    return found if above[found] > 0 else None


def oriented(measurement: Measurement) -> float:
    """The value as a cost: less is better."""
    return _sign(measurement.objective) * measurement.value


def _sign(objective: str) -> int:
    return -1 if OBJECTIVES[objective].direction == "maximize" else 1


def _costs(candidate: Measured, objectives: Sequence[str]) -> tuple[list[float], list[float], list[float]]:
    """Values and both ends of their intervals, as costs."""
    rows: tuple[list[float], list[float], list[float]] = ([], [], [])
    for name in objectives:
        one = candidate[name]
        sign = _sign(name)
        for row, cost in zip(rows, (sign * one.value, *sorted((sign * one.low, sign * one.high))), strict=True):
            row.append(cost)
    return rows
