"""The candidates that no other one beats beyond the noise. Starts without torch.

One candidate beats another where it is no worse in any objective, by value, and better in at least one by more than the noise:
their intervals are apart. Two that differ by no more than noise are tied, and both stay.
"""

from collections.abc import Sequence

import numpy as np

from vittle.objectives.goals import Goals, Measured, oriented, sign


def front(candidates: Sequence[Measured], goals: Goals, objectives: Sequence[str] | None = None) -> list[int]:
    """Positions of the candidates that no other one beats, cheapest first.

    Args:
        candidates: the measurements of each, by objective; every one of `objectives` must be there.
        goals: of their study.
        objectives: what they are compared in; where not given, what the goals name.
    """
    objectives = goals.objectives if objectives is None else objectives
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
    return sorted(kept, key=lambda index: (candidates[index][goals.charted].value, index))


def may_enter_front(candidate: Measured, rivals: Sequence[Measured], goals: Goals) -> bool:
    """Whether a candidate may enter a front: at the lower end of its charted cost, no rival is as good in everything."""
    objectives = goals.compared([candidate, *rivals])
    costs = np.array([oriented(candidate[name]) for name in objectives])
    costs[objectives.index(goals.charted)] = candidate[goals.charted].low
    return not any(all(oriented(rival[name]) <= cost for name, cost in zip(objectives, costs, strict=True)) for rival in rivals)


def tied(first: Measured, second: Measured, goals: Goals) -> bool:
    """Whether two candidates differ in quality and in the charted cost by no more than noise."""
    pairs = ((first[name], second[name]) for name in (goals.quality, goals.charted))
    return all(one.low <= other.high and other.low <= one.high for one, other in pairs)


def knee(points: Sequence[Measured], goals: Goals) -> int | None:
    """Position of the point of a front, cheapest first, that lies farthest above the line between its ends.

    Both are scaled to the span of the front; after Branke et al., "Finding knees in multi-objective optimization" (2004), who
    take the point with the best trade-off. None where no point lies above the line.
    """
    if len(points) < 3:
        return None
    x = np.array([one[goals.charted].value for one in points])
    y = np.array([goals.upward(one[goals.quality].value) for one in points])
    width, height = x[-1] - x[0], y[-1] - y[0]
    if width <= 0 or height <= 0:
        return None
    above = (y - y[0]) / height - (x - x[0]) / width
    found = int(above.argmax())
    return found if above[found] > 0 else None


def _costs(candidate: Measured, objectives: Sequence[str]) -> tuple[list[float], list[float], list[float]]:
    """Values and both ends of their intervals, as costs."""
    rows: tuple[list[float], list[float], list[float]] = ([], [], [])
    for name in objectives:
        one = candidate[name]
        way = sign(name)
        for row, cost in zip(rows, (way * one.value, *sorted((way * one.low, way * one.high))), strict=True):
            row.append(cost)
    return rows
