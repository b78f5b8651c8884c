"""Where merging may start: the block from which the tokens of a Vision Transformer grow alike. Starts without torch.

Heo et al., "Training-Free Acceleration of ViTs with Delayed Spatial Merging", arXiv 2303.02331. Tokens grow less alike over
the first blocks and more alike from some block on, the phase change; merging before it mixes tokens that the model still tells
apart. The effect is the paper's, the rule that finds it is this project's. It needs no labels:

    lowest = argmin_l similarity(l), in the first half of the blocks
    start  = the first block after it in which similarity rises, and rises again in the next one, while the Theil-Sen slope of
             similarity from the block before `start` to the last one is positive

The two steps find where the rise begins. The slope asks whether it lasts, and, as a median of slopes, lets single blocks fall
back: the last one often does. Blocks whose similarity differs from the lowest by no more than the noise of the images tie; of
the starts that follow from them the one next to the block where the attention sink crosses the middle of its range is taken.
Without such a minimum or such a rise the start is a sixth of the depth, as the paper has it for 12 and for 24 blocks.

Intervals are 95 % percentiles of a bootstrap over images: Efron, "Bootstrap methods: another look at the jackknife", 1979.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vittle.objectives.measurement import NORMAL_95
from vittle.spaces.errors import VittleError
from vittle.spaces.validation import read_as

Floats = NDArray[np.float64]

STATISTICS = {
    "similarity": "mean cosine of the keys of two patch tokens",
    "partner": "mean cosine of a patch token's key and its best partner's, as merging pairs them",
    "sink": "share of all attention on the token that draws most of it, mean over heads",
    "entropy": "mean entropy of a token's attention, as a share of uniform attention's",
    "outlier": "largest over median activation of the patch tokens that enter the block",
}
RESAMPLES = 1000
PERCENTILES = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class BlockCurve:
    """One of `STATISTICS` over the blocks: mean over images, and both ends of its interval."""

    name: str
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.name not in STATISTICS:
            raise ValueError(f"unknown statistic {self.name!r}; accepted: {', '.join(STATISTICS)}")
        for block, (low, value, high) in enumerate(zip(self.low, self.values, self.high, strict=True)):
            if not low <= value <= high:
                raise ValueError(f"{self.name} of block {block} is {value} in [{low}, {high}]")


@dataclass(frozen=True)
class MergeStart:
    """Where merging may start in one backbone, and what says so.

    Attributes:
        start: blocks that stay dense, so the index of the first one that merges.
        low: lower end of the interval of `start`.
        high: upper end of it.
        detected: whether the curves show it; if not, `start` is the rule of thumb.
        curves: one for each of `STATISTICS`.
        images: how many were looked at.
        fingerprint: of the backbone's weights.
        digest: of the images that it was looked for on, as `ImageDigest.id` has it; nothing where nobody wrote it down.
    """

    start: int
    low: int
    high: int
    detected: bool
    curves: tuple[BlockCurve, ...]
    images: int
    fingerprint: str
    digest: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.start <= self.high < self.depth:
            raise ValueError(f"start is {self.start} in [{self.low}, {self.high}] of {self.depth} blocks")

    @property
    def depth(self) -> int:
        return len(self.curves[0].values)

    def curve(self, name: str) -> BlockCurve:
        """The curve of that name."""
        return next(curve for curve in self.curves if curve.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the curves by name."""
        curves = {
            curve.name: {"values": list(curve.values), "low": list(curve.low), "high": list(curve.high)}
            for curve in self.curves
        }
        return {
            "start": self.start,
            "low": self.low,
            "high": self.high,
            "detected": self.detected,
            "images": self.images,
            "fingerprint": self.fingerprint,
            "digest": self.digest,
            "curves": curves,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_dict` writes.

        Raises:
            ValueError: something else.
        """
        return read_as(cls, {**document, "curves": [{**curve, "name": name} for name, curve in document["curves"].items()]})


def detect(per_image: Mapping[str, Floats], fingerprint: str, *, digest: str = "", seed: int = 0) -> MergeStart:
    """Find the phase change in what was seen of each image.

    Args:
        per_image: for each of `STATISTICS` an array (images, depth).
        fingerprint: of the backbone.
        digest: of the images.
        seed: of the bootstrap.

    Raises:
        VittleError: fewer than two images, or values that are not finite.
    """
    images, depth = per_image["similarity"].shape
    if images < 2:
        raise VittleError(f"{images} image says nothing of the spread between images; accepted: at least 2")
    for name, values in per_image.items():
        broken = np.flatnonzero(~np.isfinite(values).all(0))
        if len(broken):
            raise VittleError(f"the {name} of block {broken[0]} is not finite; accepted: a model whose activations are")

    shares = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), RESAMPLES) / images
    resampled = {name: shares @ values for name, values in per_image.items()}  # each (resamples, depth)
    curves = tuple(_curve(name, values.mean(0), resampled[name]) for name, values in per_image.items())

    noise = _noise(per_image["similarity"])
    thumb = round(depth / 6)
    found = _start(per_image["similarity"].mean(0), per_image["sink"].mean(0), noise)
    start = thumb if found is None else found
    drawn = (_start(*pair, noise) for pair in zip(resampled["similarity"], resampled["sink"], strict=True))
    starts = [thumb if one is None else one for one in drawn]
    low, high = (int(end) for end in np.quantile(starts, PERCENTILES, method="inverted_cdf"))
    return MergeStart(start, min(low, start), max(high, start), found is not None, curves, images, fingerprint, digest)


def theil_sen(values: Floats) -> float:
    """The median slope over all pairs of equidistant points (n,), n at least 2, which outliers among them cannot turn.

    Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968).
    """
    first, second = np.triu_indices(len(values), 1)
    return float(np.median((values[second] - values[first]) / (second - first)))


def _start(similarity: Floats, sink: Floats, noise: Floats) -> int | None:
    """The start by the rule above; None where similarity (depth,) has no minimum in the first half, or no lasting rise."""
    lowest = similarity.argmin()
    tied = np.flatnonzero(similarity - similarity[lowest] <= noise[lowest])
    rises = [_rise(similarity, int(block)) for block in tied if 2 * block < len(similarity)]
    starts = [start for start in rises if start is not None]
    crossing = _crossing(sink)
    return min(starts, key=lambda start: (abs(start - crossing), start), default=None)


def _rise(similarity: Floats, lowest: int) -> int | None:
    rising = np.diff(similarity, prepend=similarity[0]) > 0
    for block in range(lowest + 1, len(similarity) - 1):
        if rising[block] and rising[block + 1] and theil_sen(similarity[block - 1 :]) > 0:
            return block
    return None


def _crossing(sink: Floats) -> int:
    """The first block that brings `sink` (depth,) from below the middle of its range to above it; 0 where none does."""
    above = sink >= (sink.min() + sink.max()) / 2
    return int(np.argmax(above[1:] & ~above[:-1])) + 1 if (above[1:] & ~above[:-1]).any() else 0


def _noise(similarity: Floats) -> Floats:
    """How far the means of two blocks differ by chance, (depth, depth), from the same images in both: (images, depth)."""
    covariance = np.atleast_2d(np.cov(similarity, rowvar=False))
    variance = covariance.diagonal()
    return NORMAL_95 * np.sqrt(np.maximum(0, variance[:, None] + variance - 2 * covariance) / len(similarity))


def _curve(name: str, values: Floats, resampled: Floats) -> BlockCurve:
    low, high = np.quantile(resampled, PERCENTILES, axis=0)
    ends = np.minimum(low, values), np.maximum(high, values)
    return BlockCurve(name, *(tuple(map(float, end)) for end in (values, *ends)))
