"""How much it hurts to reduce one block alone, for each block and a few strengths. Starts without torch.

A backbone's blocks differ in how much of their tokens they can spare, and a handful of images tells them apart: every block is
reduced alone, and the loss is the Kullback-Leibler divergence of the reduced model's answer from the backbone's,

    loss = mean over images of  sum over classes of  p_backbone * log(p_backbone / p_reduced),  in nats.

It needs no labels, and as it compares two answers to the same image it varies little between images. Sensitivities of single
layers guide mixed-precision quantisation in the same way (Dong et al., "HAWQ", arXiv 1905.03696; Cai et al., "ZeroQ", arXiv
2001.00281).

Between measured strengths the loss is a straight line in log loss over log strength, outside them a power law, fitted
through all points of the block. It is 0 where nothing is done and never falls.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from vittle.objectives.measurement import NORMAL_95
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import Context
from vittle.spaces.schedule import Schedule
from vittle.spaces.table import REDUCTIONS
from vittle.spaces.validation import read_as

Floats = NDArray[np.float64]

LEAST = 1e-9  # nats; less is rounding
EXPONENTS = (0.5, 4.0)  # the range of the fitted power
TYPICAL = 2.5  # the power where one strength was measured; between 1/4 and 1/2 it was 1.5 to 3.7 in the blocks of one backbone


class Point(NamedTuple):
    """One block reduced once.

    Attributes:
        strength: how much was done in it: of a token reduction, the share of the patch tokens entering that were removed.
        loss: mean over images, nats.
        low: lower end of its 95 % interval.
        high: upper end of it.
        accuracy_drop: how much accuracy fell, as a share; None where nobody looked.
    """

    strength: float
    loss: float
    low: float
    high: float
    accuracy_drop: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """What reducing single blocks of one backbone costs it.

    Attributes:
        fingerprint: of the backbone's weights.
        data: what the images are from.
        images: how many were looked at.
        points: for each reduction the points of each block, weakest first.
        digest: of the images, as `ImageDigest.id` has it; nothing where nobody wrote it down.
    """

    fingerprint: str
    data: str
    images: int
    points: Mapping[str, tuple[tuple[Point, ...], ...]]
    digest: str = ""

    def __post_init__(self) -> None:
        for name, blocks in self.points.items():
            for block, points in enumerate(blocks):
                shares = [0.0, *(point.strength for point in points)]
                if len(shares) < 2 or shares != sorted(set(shares)):
                    raise ValueError(f"block {block} of {name}: strengths have to rise from above 0, not {shares[1:]}")
                for _, loss, low, high, _ in points:
                    if not (math.isfinite(high) and low <= loss <= high):
                        raise ValueError(f"block {block} of {name}: loss is {loss} in [{low}, {high}]")

    def covers(self, reductions: Sequence[str], digest: str) -> bool:
        """Whether it is of these images and knows all of these reductions."""
        return self.digest == digest and set(reductions) <= self.points.keys()

    def blocks(self, reduction: str) -> int:
        """How many blocks, from the first, were measured under a reduction; 0 where it was not."""
        return len(self.points.get(reduction, ()))

    def loss(self, reduction: str, block: int, strength: float) -> float:
        """The loss in nats where a reduction acts in `block` alone, as strongly."""
        return float(self.losses(reduction, block, np.array(strength, dtype=np.float64)))

    def losses(self, reduction: str, block: int, strength: Floats) -> Floats:
        """`loss` of each strength, in any shape."""
        from scipy import optimize  # here, because it takes long to import, and what is only shown needs none of it

        points = self.points[reduction][block]
        shares = np.log([point.strength for point in points])
        rising = optimize.isotonic_regression([point.loss for point in points]).x
        losses = np.log(np.maximum(rising, LEAST))
        asked = np.log(np.maximum(strength, np.finfo(np.float64).tiny))
        inside = np.clip(asked, shares[0], shares[-1])
        found = np.exp(np.interp(inside, shares, losses) + _exponent(shares, losses) * (asked - inside))
        return np.where(strength > 0, found, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        points = {name: [[point._asdict() for point in block] for block in blocks] for name, blocks in self.points.items()}
        return {
            "fingerprint": self.fingerprint,
            "data": self.data,
            "images": self.images,
            "points": points,
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_dict` writes.

        Raises:
            ValueError: something else.
        """
        points = {name: [[_point(point) for point in block] for block in blocks] for name, blocks in document["points"].items()}
        return read_as(cls, {**document, "points": points})


def measure(
    evaluate: Callable[[Schedule], Floats],
    context: Context,
    reductions: Sequence[str],
    *,
    fingerprint: str,
    data: str,
    digest: str = "",
    accuracy_drop: Callable[[Schedule], float] | None = None,
) -> Sensitivity:
    """Reduce each block alone and see what it costs.

    Args:
        evaluate: the divergence (n,) of the reduced model's answers from the backbone's, image by image, in nats.
        context: of the space that is searched.
        reductions: names out of the table.
        fingerprint: of the backbone.
        data: what the images are from.
        digest: of them.
        accuracy_drop: how much accuracy falls on the same images; asked right after `evaluate`, for the same schedule.

    Raises:
        VittleError: fewer than two images, or a divergence that is not finite.
    """
    images = 0
    found: dict[str, tuple[tuple[Point, ...], ...]] = {}
    for name in reductions:
        blocks: list[list[Point]] = [[] for _ in range(context.blocks)]
        for block, strength, settings in REDUCTIONS[name].settings.probes(context):
            schedule = Schedule((settings,), context.tail)
            losses = evaluate(schedule)
            images = len(losses)
            if images < 2:
                raise VittleError(f"{images} image says nothing of the spread between images; accepted: at least 2")
            if not np.isfinite(losses).all():
                raise VittleError(f"{name} in block {block} gives answers that are not finite; accepted: a model whose are")
            loss = float(losses.mean())
            half = NORMAL_95 * float(losses.std(ddof=1)) / math.sqrt(images)
            drop = accuracy_drop(schedule) if accuracy_drop else None
            blocks[block].append(Point(strength, loss, loss - half, loss + half, drop))
        found[name] = tuple(map(tuple, blocks)) if any(blocks) else ()  # a reduction may have nothing to probe
    return Sensitivity(fingerprint, data, images, found, digest)


def _point(document: Mapping[str, Any]) -> Point:
    """What `to_dict` writes of a point; the strength was called `removed` at first."""
    return Point(**{"strength" if name == "removed" else name: value for name, value in document.items()})


def _exponent(shares: Floats, losses: Floats) -> float:
    """The slope of the straight line nearest to logarithms (points,): the power of loss, a typical one for a single point."""
    if len(shares) < 2:
        return TYPICAL
    centred = shares - shares.mean()
    return float(np.clip(centred @ losses / (centred @ centred), *EXPONENTS))
