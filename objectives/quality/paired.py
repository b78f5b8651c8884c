"""Two schedules compared on the same images. Starts without torch.

`right` is (n,) booleans: which images a schedule answers right, in one fixed order (see `rungs`). A trial that stopped early
has a prefix of them. Images that both answer right, or both wrong, say nothing about which is better; only the discordant pairs
do, as in McNemar's test: a *win* of the first over the second, or a *loss*. How far an answer is from the backbone's says more:
almost every image is a win of one of the two, the closer one.
"""

import base64
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vittle.objectives.measurement import NORMAL_95, proportion

Right = NDArray[np.bool_]


FINEST = 1e-6  # nats; closer than this is as close as can be
STEPS = 10  # codes to a factor of two
CODED = 2048  # images whose divergence is written down


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def pack(right: Right) -> str:
    """Answers (n,) as text, eight to a byte."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpack(text: str, n: int) -> Right:
    """The answers (n,) that `pack` wrote.

    Raises:
        ValueError: the text does not hold `n` answers.
    """
    packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(packed) != -(-n // 8):
        raise ValueError(f"{len(packed)} bytes do not hold {n} answers")
    return np.unpackbits(packed, count=n).astype(np.bool_)


def pack_divergence(divergence: NDArray[np.floating]) -> str:
    """How far answers are from the backbone's (n,), in nats, as text: a byte for each of the first `CODED`.

    A byte counts tenths of a factor of two above `FINEST`, up to 47 nats, so a value is kept to 4 %.
    """
    codes = np.rint(STEPS * np.log2(np.maximum(divergence[:CODED], FINEST) / FINEST))
    return base64.b64encode(codes.clip(0, 255).astype(np.uint8).tobytes()).decode()


def unpack_divergence(text: str) -> NDArray[np.uint8]:
    """The codes that `pack_divergence` wrote, which order images as their divergence does.

    Raises:
        ValueError: the text is not what it writes.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), np.uint8)


def log_evidence(wins: ArrayLike, losses: ArrayLike) -> NDArray[np.float64]:
    """Natural logarithm of the e-value against "the first wins no more often than the second".

    The likelihood ratio of a share theta of wins to a half, averaged over theta:

        E = 2 integral from 1/2 to 1 of (2 theta)^wins (2 (1 - theta))^losses d theta
          = 2^(wins + losses + 1) B(wins + 1, losses + 1) P(Beta(wins + 1, losses + 1) > 1/2)

    Assumed is that the order of the images has nothing to do with the answers. For images drawn independently E is then a
    supermartingale under the null hypothesis that starts at 1, so that P(E ever reaches 1 / level) <= level: one may look after
    every image and stop (Ville 1939; mixtures: Robbins, "Statistical methods related to the law of the iterated logarithm",
    1970; Ramdas et al., "Game-theoretic statistics and safe anytime-valid inference", 2023).

    Where the null is about a finite set of images, drawn without replacement, E is for each theta a convex function of a sum
    over the images drawn, so its mean at any fixed rung is no larger than with replacement (Hoeffding, "Probability
    inequalities for sums of bounded random variables", 1963, theorem 4) and the bound holds at that rung; by Jensen's
    inequality it also does where each class has its share of the rung. Over all rungs together the proof gives the level times
    their number. Simulated, it is below the level itself, because a sum drawn without replacement returns to its mean (see the
    tests).

    Args:
        wins: images that only the first answers right, or on which it is closer, of any shape.
        losses: the other way round, of the same shape.
    """
    from scipy import special  # here, because it takes long to import, and what is only shown needs none of it

    won, lost = np.asarray(wins, np.float64), np.asarray(losses, np.float64)
    with np.errstate(divide="ignore"):  # far more losses than wins: no evidence, the logarithm of 0
        above = np.log(special.betainc(lost + 1, won + 1, 0.5))
    return np.asarray((won + lost + 1) * math.log(2) + special.betaln(won + 1, lost + 1) + above, np.float64)


def better(rival: Right, candidate: Right, level: float = 0.05) -> bool:
    """Whether the rival is right more often than the candidate, on the images that both have seen.

    Asked again and again as images come in, it is wrong about a pair with a probability of at most `level`; a candidate that
    has to survive k rivals wants a level of 1/k of that.
    """
    seen = min(len(rival), len(candidate))
    return bool(log_evidence(*_discordant(rival[:seen], candidate[:seen])) >= -math.log(level))


def closer(rival: NDArray[np.uint8], candidate: NDArray[np.uint8], level: float = 0.05) -> bool:
    """Whether the rival is nearer to the backbone on more images than the candidate, of those that both have seen.

    Args:
        rival: its divergences in any monotone code.
        candidate: the same.
        level: as `better` has it.
    """
    seen = min(len(rival), len(candidate))
    wins, losses = (int(np.count_nonzero(one)) for one in (rival[:seen] < candidate[:seen], rival[:seen] > candidate[:seen]))
    return bool(log_evidence(wins, losses) >= -math.log(level))


def difference(first: Right, second: Right) -> Interval:
    """Accuracy of the first less that of the second, both (n,) on the same images.

    The interval is Wald's after adding one win, one loss and no tie to the counts (Bonett & Price, "Adjusted Wald confidence
    interval for a difference of binomial proportions based on paired data", 2012). It is not empty where nothing is discordant.

    Raises:
        ValueError: no images, or not the same number of them.
    """
    n = len(first)
    if n == 0 or n != len(second):
        raise ValueError(f"{n} and {len(second)} answers are not pairs")
    wins, losses = _discordant(first, second)
    centre, discordant = (wins - losses) / (n + 2), (wins + losses + 2) / (n + 2)
    half = NORMAL_95 * math.sqrt((discordant - centre**2) / (n + 2))
    return Interval((wins - losses) / n, max(-1.0, centre - half), min(1.0, centre + half))


def estimate(right: Right, reference: Right) -> Interval:
    """Accuracy over all n images of a schedule that has seen the first m of them, with the backbone as control variate.

    The backbone's accuracy on all images plus the paired difference on the first m, which varies less than the plain share as
    long as the two mostly agree. Its error has two parts that are not correlated, joined as the root of their squares: that of
    n images, which is Wilson's and all that is left where m = n, and that of the images not seen yet, which is the paired
    difference's times sqrt(1 - m / n).

    Args:
        right: (m,) the schedule's answers.
        reference: (n,) the backbone's answers, m <= n.

    Raises:
        ValueError: no answers, or more than there are images.
    """
    m, n, known = len(right), len(reference), int(right.sum())
    if not 0 < m <= n:
        raise ValueError(f"{m} answers to {n} images")
    paired = difference(right, reference[:m])
    value = min(max(float(reference.mean()) + paired.value, known / n), (known + n - m) / n)  # what is seen is settled
    whole, unseen = proportion("accuracy", round(value * n), n, {}), math.sqrt(1 - m / n)
    below = math.hypot(whole.value - whole.low, unseen * (paired.value - paired.low))
    above = math.hypot(whole.high - whole.value, unseen * (paired.high - paired.value))
    return Interval(value, max(0.0, value - below), min(1.0, value + above))


def _discordant(first: Right, second: Right) -> tuple[int, int]:
    """Wins and losses of the first."""
    return int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))
