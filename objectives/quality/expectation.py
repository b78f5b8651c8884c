"""What accuracy a schedule would have on images that nobody has seen. Starts without torch.

Accuracy on a few hundred images is a coarse judge among good schedules: they differ in a handful of answers. How far answers
are from the backbone's is a fine one, on few images already, but it is in nats. This joins the two. For the trials of a study,

    lost     = slope * divergence + own,    own ~ N(0, tau^2)         what a schedule really loses
    measured = lost + noise,                noise ~ N(0, sigma^2)     what the images show, `accuracy_drop`

and expected is the mean of `lost` given both: tau^2 / (tau^2 + sigma^2) of what was measured, the rest of what divergence says
(empirical Bayes: Efron & Morris, "Stein's paradox in statistics", 1977). Where divergence explains all there is beyond noise,
it alone decides; where it explains nothing, the images do.

Chosen by measurement (`tests/support/evaluations.npz`: 216 schedules, 1,500 photographs to search on, as many to confirm on).
Rank correlation with accuracy on the images to confirm on: divergence on 32 images 0.87, on all 0.90; accuracy on 32 images
0.16, on 256 0.70, on all 0.88. Root mean square error of the loss, of which 0.7 points are noise of the images to confirm on,
from 16 trials: as measured 0.97 points, expected 0.90; isotonic regression on divergence has 0.99, with its root besides 0.97.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vittle.objectives.measurement import NORMAL_95, Measurement

SLOPE = 0.3  # accuracy lost per nat of divergence, before anything is measured, and how sure that is
SLOPE_ERROR = 0.3
LEAST_SLOPE = 0.01  # what is further from the backbone is never expected to be more accurate

Measured = Mapping[str, Measurement]
Floats = NDArray[np.float64]


class _Law(NamedTuple):
    """How accuracy is lost: by nats, and by what they do not explain."""

    slope: float
    tau2: float


def expected(measured: Sequence[Measured], backbone: Measured) -> list[Measured]:
    """The same measurements with the accuracy that is expected in place of the one that the images showed.

    Args:
        measured: of trials that were judged by the same images; one that lacks divergence is left as it is.
        backbone: of the backbone itself.
    """
    known = [place for place, one in enumerate(measured) if "divergence" in one and "accuracy_drop" in one]
    if not known:
        return list(measured)
    drops = [measured[place]["accuracy_drop"] for place in known]
    apart = [measured[place]["divergence"] for place in known]
    lost, nats = (np.array([one.value for one in column]) for column in (drops, apart))
    noise, unsure = (np.array([_error(one) for one in column]) for column in (drops, apart))
    law = _fit(nats, lost, noise)
    own = law.tau2 / (law.tau2 + noise**2)
    values = own * lost + (1 - own) * law.slope * nats
    errors = np.sqrt(own * noise**2 + ((1 - own) * law.slope * unsure) ** 2)
    found = list(measured)
    for place, value, error in zip(known, values.tolist(), errors.tolist(), strict=True):
        accuracy = _accuracy(measured[place]["accuracy"], backbone["accuracy"], value, error)
        found[place] = {**measured[place], "accuracy": accuracy}
    return found


def _fit(nats: Floats, lost: Floats, noise: Floats) -> _Law:
    """The law from trials (n,), by weighted least squares through the origin and the moments of what is left."""
    tau2 = _own(nats, lost, noise, _slope(nats, lost, noise**2))
    slope = _slope(nats, lost, noise**2 + tau2)  # with the weights that follow
    return _Law(slope, _own(nats, lost, noise, slope))


def _slope(nats: Floats, lost: Floats, variances: Floats) -> float:
    precision = (nats**2 / variances).sum() + SLOPE_ERROR**-2
    return max(LEAST_SLOPE, float(((nats * lost / variances).sum() + SLOPE / SLOPE_ERROR**2) / precision))


def _own(nats: Floats, lost: Floats, noise: Floats, slope: float) -> float:
    return max(0.0, float(((lost - slope * nats) ** 2 - noise**2).mean()))


def _error(one: Measurement) -> float:
    """Standard error, never 0."""
    return max((one.high - one.low) / (2 * NORMAL_95), 1e-9)


def _accuracy(seen: Measurement, backbone: Measurement, lost: float, error: float) -> Measurement:
    value = min(1.0, max(0.0, backbone.value - lost))
    low, high = max(0.0, value - NORMAL_95 * error), min(1.0, value + NORMAL_95 * error)
    return Measurement("accuracy", value, low, high, seen.n, {**seen.protocol, "measured": seen.value})
