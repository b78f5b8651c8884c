"""How signals fall into bins, how far two histograms are from each other, and how far they get by chance.

Letters: n images, s signals, m values of a signal in an image, k bins.

A watch compares the histogram of the last `window` images with that of the calibration images, signal by signal, by the
Jensen-Shannon distance (Lin, "Divergence Measures Based on the Shannon Entropy", 1991):

    d(p, q) = sqrt((KL(p | r) + KL(q | r)) / 2),    r = (p + q) / 2,    logarithms to base 2, so 0 to 1
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

FEWEST, MOST = 8, 32  # edges: an even number, so that values that are all alike lie in the middle of a bin
IN_A_BIN = 16  # values of a window, on average
OUTER = 1e-3  # share of the values outside the outer edges, at each end
EXCEEDED = 10  # resampled windows that lie beyond the threshold
AT_ONCE = 500  # windows that are resampled at once

Floats = NDArray[np.float64]
Counts = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]


def edges_for(window: int, values: int) -> int:
    """How many edges the bins have, k - 1, for a window of images with so many values each."""
    return 2 * (min(max(window * values // IN_A_BIN, FEWEST), MOST) // 2)


def edges_between(values: NDArray[np.floating[Any]], count: int) -> Floats:
    """Evenly spaced edges (count,) from nearly the lowest to nearly the highest of some values; the outer bins are open.

    Edges at quantiles would tell small shifts better. But where many values are the same, as of patches of an empty margin,
    a quantile is that very value, and the rounding of another device would move all of them into another bin.
    """
    low, high = np.quantile(np.asarray(values, np.float64), (OUTER, 1 - OUTER))
    least = 1e-3 * max(1e-3, abs(low), abs(high))
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    return np.linspace(low, high, count)


def from_exceeding(exceeding: NDArray[np.integer[Any]], counts: Sequence[int]) -> NDArray[np.int64]:
    """How many values of each image and signal lie in each bin.

    Args:
        exceeding: (n, s, k - 1) how many values reach each edge. NaN reaches none.
        counts: (s,) m of each signal.
    """
    n, s, _ = exceeding.shape
    every = np.broadcast_to(np.asarray(counts, np.int64)[None, :, None], (n, s, 1))
    padded = np.concatenate([every, exceeding.astype(np.int64), np.zeros((n, s, 1), np.int64)], 2)
    counted: NDArray[np.int64] = padded[..., :-1] - padded[..., 1:]
    return counted


def counted(values: Sequence[NDArray[np.floating[Any]]], edges: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.int64]:
    """The histograms (n, s, k) of signals, for each of which there are values (n, m) and edges (k - 1,)."""
    found = []
    for one, edge in zip(values, edges, strict=True):
        n, k = len(one), len(edge) + 1
        bins = np.searchsorted(edge, np.nan_to_num(one, nan=-np.inf, posinf=np.inf), side="right")  # (n, m)
        found.append(np.bincount((bins + k * np.arange(n)[:, None]).ravel(), minlength=n * k).reshape(n, k))
    return np.stack(found, 1)


def distances(found: Counts, expected: Counts) -> Floats:
    """Jensen-Shannon distances (..., s) of histograms (..., s, k), which need not sum to 1 but must not be empty."""
    apart: Floats = np.asarray(jensenshannon(found, expected, base=2, axis=-1))  # pyright: ignore[reportCallIssue]
    # Where two are the same, rounding may bring the divergence below 0, whose root is none.
    return np.nan_to_num(apart, nan=0.0)


def thresholds(histograms: NDArray[np.integer[Any]], window: int, false_alarms: float, rng: np.random.Generator) -> Floats:
    """Distances (s,) that a window of images like these exceeds, in any signal at all, with probability `false_alarms`.

    Windows are held out: for each of `EXCEEDED` / `false_alarms` repetitions a window of the images is drawn without
    replacement, and compared with all the others. (Drawing with replacement knows no image that is like none of the others, and
    gave three times the false alarms of digits that it stated.) A signal's threshold is its own quantile, all of them then
    raised together until the worst signal of a window exceeds its own that often. The others are fewer than what windows are
    compared with later, which is reckoned with. It rests on as many windows beyond the threshold as `EXCEEDED` says, all of the
    same images; and on images that come one independently of another.

    Args:
        histograms: (n, s, k) of the calibration images, of which there are two windows at least.
        window: images of a window.
        false_alarms: the share of windows.
        rng: draws them.
    """
    n, s, k = histograms.shape
    flat = histograms.reshape(n, s * k).astype(np.float32)
    left = round(EXCEEDED / false_alarms)
    parts = []
    while left > 0:
        some = min(left, AT_ONCE)
        left -= some
        inside = rng.random((some, n)).argpartition(window - 1, axis=1)[:, :window]
        chosen = np.zeros((some, n), np.float32)
        np.put_along_axis(chosen, inside, 1, axis=1)
        held_out = (chosen @ flat).reshape(some, s, k)
        parts.append(distances(held_out, histograms.sum(0) - held_out))
    apart = np.concatenate(parts)
    # Between histograms of the same kind of w and n images it grows with the square root of 1 / w + 1 / n.
    apart *= np.sqrt((1 / window + 1 / n) / (1 / window + 1 / (n - window)))
    own = np.maximum(np.quantile(apart, 1 - false_alarms, axis=0), np.finfo(np.float32).eps)
    together = np.quantile((apart / own).max(1), 1 - false_alarms)
    raised: Floats = own * max(1.0, together)
    return raised
