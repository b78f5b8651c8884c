"""Arithmetic on the rows of `search.py`: who is how much better, at which price."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from methods import SWEEPS
from vittle.spaces.errors import VittleError

SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)  # of the backbone's MACs, within which accuracies are compared
PROJECT, RIVAL = "vittle", "stock"
DIGITS = 4
Row = dict[str, Any]


def summarise(rows: Sequence[Row]) -> dict[str, Row]:
    """The summary of each dataset. What cannot be said, because a method is missing or a target was not reached, is None."""
    datasets = dict.fromkeys(row["dataset"] for row in rows)
    return {dataset: _summary([row for row in rows if row["dataset"] == dataset]) for dataset in datasets}


def kept(earlier: Row, methods: Sequence[str], abouts: Sequence[Row], environment: Row) -> list[Row]:
    """The rows of an earlier document that are not run again.

    Args:
        earlier: `environment` and `rows`.
        methods: that are run again.
        abouts: dataset, backbone and images of the problems that they are run on.
        environment: where.

    Raises:
        VittleError: they come from another environment or backbone, so that nothing could be compared.
    """
    again = {about["dataset"]: about for about in abouts}
    rows: list[Row] = [row for row in earlier["rows"] if row["dataset"] not in again or row["method"] not in methods]
    same = all(row.items() >= again.get(row["dataset"], {}).items() for row in rows)
    if rows and not (same and {**earlier["environment"], "date": environment["date"]} == environment):
        raise VittleError(
            "the other rows of the file come from another machine or backbone; give another --output, or run every method again"
        )
    return rows


def _summary(rows: Sequence[Row]) -> Row:
    by_method = {method: [row for row in rows if row["method"] == method] for method in _methods(rows)}
    searches = [row for row in rows if row["method"] not in SWEEPS]
    trials = min((row["trials"] for row in searches), default=None)
    ours = by_method.get(PROJECT, [])
    losses = {f"{share:g}": _losses(by_method, share) for share in SHARES}
    return {
        "backbone_accuracy": rows[0]["backbone_accuracy"],
        "trials": trials,
        "hypervolume": {
            method: _median(row["hypervolume"] if method in SWEEPS else volume_at(row, trials) for row in found)
            for method, found in by_method.items()
        },
        **_reaching(ours, by_method.get(RIVAL, [])),
        "loss_ratio": {share: _ratio(loss.get(PROJECT), loss["tome"]) for share, loss in losses.items()},
        "loss": losses,
        "overhead_share": _median(row["overhead_share"] for row in ours),
    }


def _reaching(ours: Sequence[Row], rivals: Sequence[Row]) -> Row:
    """What it took to reach, with the same seed, what the rival reached in the end, as a share of what that took it."""
    pairs = [(mine, theirs) for mine in ours for theirs in rivals if mine["seed"] == theirs["seed"]]
    fractions = {mine["seed"]: fractions_at(mine, theirs) for mine, theirs in pairs}
    macs, wall = ({str(seed): both[place] for seed, both in fractions.items()} for place in (0, 1))
    return {
        "macs_fraction": _median(macs.values()),
        "wall_fraction": _median(wall.values()),
        "macs_fractions": macs,
        "wall_fractions": wall,
        "reached": sum(fraction is not None for fraction in macs.values()),
        "seeds": len(pairs),
    }


def fractions_at(mine: Row, theirs: Row) -> tuple[float | None, float | None]:
    """Image MACs and seconds until the hypervolume of another run is reached first, as shares of that run's; None for never."""
    for _, image_macs, seconds, volume in mine["curve"]:
        if volume >= theirs["hypervolume"]:
            return round(image_macs / theirs["image_macs"], DIGITS), round(seconds / theirs["wall_s"], DIGITS)
    return None, None


def volume_at(row: Row, trials: int) -> float:
    """The hypervolume after a number of trials; 0 before the first."""
    volumes: list[float] = [volume for done, _, _, volume in row["curve"] if done <= trials]
    return volumes[-1] if volumes else 0.0


def loss_within(rows: Iterable[Row], share: float) -> float | None:
    """What the schedule that searching would choose within a share of MACs loses against the backbone, on held-out images.

    That is the one with the highest accuracy on the images searched on, the cheapest of equals; None where there is none.

    Args:
        rows: of one search, or of several whose best is chosen.
        share: of the backbone's MACs.
    """
    within = [
        (searched, -macs, row["backbone_accuracy"] - held_out)
        for row in rows
        for macs, held_out, searched in row["front"]
        if macs <= share
    ]
    return max(within)[-1] if within else None


def _losses(by_method: dict[str, list[Row]], share: float) -> Row:
    """The median loss of each search, and that of the better of the two sweeps."""
    sweeps = [row for method in SWEEPS for row in by_method.get(method, [])]
    searches = {method: found for method, found in by_method.items() if method not in SWEEPS}
    medians = {method: _median(loss_within([row], share) for row in found) for method, found in searches.items()}
    return {"tome": _median([loss_within(sweeps, share)]), **medians}


def _ratio(loss: float | None, other: float | None) -> float | None:
    return None if loss is None or other is None or other <= 0 else round(loss / other, DIGITS)


def _median(values: Iterable[float | None]) -> float | None:
    """The median, None counting as more than any number; None where that is what it is."""
    known = [math.inf if value is None else value for value in values]
    middle = statistics.median(known) if known else math.inf
    return None if math.isinf(middle) else round(middle, 6)


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))
