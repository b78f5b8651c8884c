"""How well reductions do, by what their operators measure of themselves, and how that falls on corrupted images.

An operator names its measures (`Operator.measures`), shares for each image and head. They are averaged over images and heads.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vittle.objectives.quality.corruptions import STRENGTHS, corrupted
from vittle.reductions.tokens import Told
from vittle.reductions.vit import ReducedViT

DIGITS = 4

Measured = dict[str, dict[str, list[float | None]]]
"""By reduction and measure, after each visit that computes patches; None where the reduction does not act."""


def drift(
    measures: Mapping[str, tuple[str, ...]],
    pixels: NDArray[np.uint8],
    indices: Sequence[int],
    told: Sequence[Told],
    see: Callable[[NDArray[np.uint8]], Sequence[Told]],
) -> list[dict[str, Any]]:
    """What is measured on some images, and on the same ones corrupted; nothing where no reduction measures anything.

    Args:
        measures: of each reduction, its measures.
        pixels: of the images, (n, height, width, 3).
        indices: of the images, (n,).
        told: what operators say of them, visit by visit.
        see: shows a model other images, and gives what its operators say of those.

    Returns:
        The images as they are first: `kind` None, `strength` 0. Then every kind and strength, and what is `measured` there.
    """
    if not measures:
        return []
    found: list[dict[str, Any]] = [{"kind": None, "strength": 0.0, "measured": measured(told, measures)}]
    for kind, strengths in STRENGTHS.items():
        for strength in strengths:
            seen = see(corrupted(pixels, kind, strength, indices))
            found.append({"kind": kind, "strength": strength, "measured": measured(seen, measures)})
    return found


def measures_of(model: ReducedViT) -> Mapping[str, tuple[str, ...]]:
    """The measures of each reduction that has any and acts."""
    there: Any = model.operators
    acting = [pair for row in model.work for pair in zip(row.acts, there[row.index], strict=True)]
    return {act.reduction: operator.measures for act, operator in acting if operator.measures}


def measured(told: Sequence[Told], measures: Mapping[str, tuple[str, ...]]) -> Measured:
    """The means over images and heads of what operators said, visit by visit."""
    return {
        reduction: {
            name: [round(float(one[reduction][name].mean()), DIGITS) if one.get(reduction) else None for one in told]
            for name in names
        }
        for reduction, names in measures.items()
    }
