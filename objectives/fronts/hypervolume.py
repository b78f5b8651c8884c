"""How good a front is, and whether more trials would make it better. Starts without torch.

A front's quality is its hypervolume: the area, between a reference point and the front, of all that some trial beats (Zitzler &
Thiele, "Multiobjective evolutionary algorithms: a comparative case study and the strength Pareto approach", 1999). Here it is a
share: 1 is the baseline's quality at no cost, 0 is no trial that is worth having.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vittle.objectives.goals import Goals, Measured
from vittle.objectives.measurement import NORMAL_95
from vittle.objectives.quality.paired import Right, unpack

PATIENCE = 20
NEAR = 64  # trials that are resampled
DRAWS = 100

Volumes = NDArray[np.float64]


class ReferencePoint(NamedTuple):
    """The worst candidate that anybody would take: the least quality, turned so that more is better, and the most cost."""

    quality: float
    cost: float

    @classmethod
    def of(cls, goals: Goals, baseline: Measured) -> Self:
        """From what the baseline measured and the budget."""
        worst = goals.upward(baseline[goals.quality].value) - goals.worth
        return cls(worst, min(goals.dearest(baseline), goals.allowed(baseline)))


class Outlook(NamedTuple):
    """What more trials are expected to add to the hypervolume, with a 95 % interval."""

    gain: float
    low: float
    high: float


def hypervolume(points: ArrayLike, reference: tuple[float, float]) -> float:
    """Area that the points (n, 2) dominate up to the reference, less being better in both."""
    inside = np.minimum(np.asarray(points, np.float64).reshape(-1, 2), reference)
    inside = inside[np.argsort(inside[:, 0])]
    widths = np.diff(inside[:, 0], append=reference[0])
    return float(widths @ (reference[1] - np.minimum.accumulate(inside[:, 1])))


def volumes(measured: Sequence[Measured], reference: ReferencePoint, goals: Goals) -> Volumes:
    """The hypervolume after each trial, (n,); one without quality or cost adds nothing."""
    front, volume, after = np.empty((0, 2)), 0.0, np.empty(len(measured))
    for trial, one in enumerate(measured):
        if _placed(one, goals):
            point = _points(_qualities([one], goals), np.array([one[goals.charted].value]), reference, goals)
            if (point < 1).all() and not (front <= point).all(1).any():
                front = np.concatenate([front[(front < point).any(1)], point])
                volume = hypervolume(front, (1, 1))
        after[trial] = volume
    return after


def spread(
    measured: Sequence[Measured], reference: ReferencePoint, goals: Goals, seed: int = 0, baseline: Right | None = None
) -> float:
    """Standard error of the hypervolume of all trials, from a bootstrap over the images.

    Images are drawn with replacement, the same for every trial that has answered all of them (`right` in the protocol of its
    quality, as `paired.pack` writes it); the others vary within their intervals. Only trials near the front can matter.

    Args:
        measured: the measurements of each trial, by objective.
        reference: the worst that counts.
        goals: of their study.
        seed: of the draws.
        baseline: (n,) the baseline's answers to the same images. With them the reference moves along with the draw, and the
            error is that of what is lost against the baseline: smaller, the more the answers agree.
    """
    charted, quality = goals.charted, goals.quality
    near = _near([one for one in measured if _placed(one, goals) and one[charted].value < reference.cost], goals)
    if not near:
        return 0.0
    random = np.random.default_rng(seed)
    judged, costs = [one[quality] for one in near], np.array([one[charted].value for one in near])
    errors = np.array([(one.high - one.low) / (2 * NORMAL_95) for one in judged])
    drawn = _qualities(near, goals) + errors * random.standard_normal((DRAWS, len(near)))
    n = max((one.n for one in judged if "right" in one.protocol), default=0) if baseline is None else len(baseline)
    answered = [place for place, one in enumerate(judged) if one.n == n and "right" in one.protocol]
    if answered:
        counts = _draws(n, random)
        right = np.stack([unpack(judged[place].protocol["right"], n) for place in answered])
        drawn[:, answered] = counts @ right.T.astype(np.float32) / n
        if baseline is not None:
            drawn[:, answered] -= (counts @ baseline.astype(np.float32) / n - baseline.mean())[:, None]
    return float(np.std([hypervolume(_points(row, costs, reference, goals), (1, 1)) for row in drawn], ddof=1))


def flat(volumes: Volumes, spread: float, patience: int | None = None) -> bool:
    """Whether the last `patience` trials gained no more than one standard error of the hypervolume.

    Args:
        volumes: (n,) the hypervolume after each trial.
        spread: its standard error.
        patience: if not given a quarter of all trials, and no fewer than 20. A search is not flat before it has made more than
            that many, nor before it has found anything.
    """
    patience = max(PATIENCE, len(volumes) // 4) if patience is None else patience
    if len(volumes) <= patience or volumes[-1] == 0:
        return False
    return bool(volumes[-1] - volumes[-1 - patience] <= spread)


def outlook(volumes: Volumes, spread: float, more: int = 100) -> Outlook:
    """What another `more` trials are expected to add.

    Between two laws, and expected is their mean. In the better one gains fall like 1 / n: every doubling of the trials adds
    what the last one did. In the worse one they fall geometrically: every third of the trials so far adds the same share of
    what the third before it did, and the search saturates.

    The interval spans both laws and what chance adds to them. A front improves in jumps, whose number is Poisson; with w the
    part of a doubling that is to come, their sum is known to (w + w^2) times the sum of squared jumps of the last doubling. One
    more, as large as the largest of the last two doublings, stands for those that happened not to fall into it. Nothing is more
    than what is left up to 1, the baseline's quality at no cost.

    Args:
        volumes: (n,) the hypervolume after each trial.
        spread: its standard error.
        more: how many trials.

    Raises:
        ValueError: no trials.
    """
    n = len(volumes)
    if n == 0:
        raise ValueError("no trials to judge by")
    after = np.concatenate([[0.0], volumes])  # after[k]: the hypervolume of the first k trials
    jumps = np.diff(after)
    doublings, thirds = math.log2(1 + more / n), 3 * more / n
    steady = float(after[n] - after[n // 2]) * doublings
    last, before = float(after[n] - after[2 * n // 3]), float(after[2 * n // 3] - after[n // 3])
    share = last / before if before > 0 else 0.0
    saturating = min(steady, last * share * (1 - share**thirds) / (1 - share)) if share < 1 else steady
    squares = float((jumps[n // 2 :] ** 2).sum() + jumps[n // 4 :].max() ** 2)
    noise = NORMAL_95 * math.sqrt((doublings + doublings**2) * squares + spread**2)
    left = max(0.0, 1.0 - float(after[n]))
    return Outlook(min(left, (steady + saturating) / 2), min(left, max(0.0, saturating - noise)), min(left, steady + noise))


def _placed(one: Measured, goals: Goals) -> bool:
    return goals.quality in one and goals.charted in one


def _qualities(trials: Sequence[Measured], goals: Goals) -> NDArray[np.float64]:
    """The quality of each, (k,), turned so that more is better."""
    return np.array([goals.upward(one[goals.quality].value) for one in trials])


def _points(
    qualities: NDArray[np.float64], costs: NDArray[np.float64], reference: ReferencePoint, goals: Goals
) -> NDArray[np.float64]:
    """Qualities and costs (k,) as points (k, 2): the reference at (1, 1), the baseline at no cost at (0, 0)."""
    return np.stack([costs / reference.cost, 1 - (qualities - reference.quality) / goals.worth], -1)


def _near(trials: Sequence[Measured], goals: Goals) -> list[Measured]:
    """The front in quality and cost, and those that miss it by least, up to `NEAR`."""
    by_cost = sorted(trials, key=lambda one: (one[goals.charted].value, -goals.upward(one[goals.quality].value)))
    values = _qualities(by_cost, goals)
    short = np.maximum.accumulate(values) - values
    kept = max(NEAR, int(np.count_nonzero(short == 0)))
    return [by_cost[place] for place in np.argsort(short, kind="stable")[:kept]]


def _draws(n: int, random: np.random.Generator) -> NDArray[np.float32]:
    """How often each of n images is drawn, (DRAWS, n)."""
    drawn = random.integers(n, size=(DRAWS, n)) + n * np.arange(DRAWS)[:, None]
    return np.bincount(drawn.ravel(), minlength=DRAWS * n).reshape(DRAWS, n).astype(np.float32)
