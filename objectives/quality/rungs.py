"""In which order images are seen, and after how many of them trials are judged. Starts without torch.

Every prefix of the order is a fair sample of the whole, so that a trial can stop after any rung: it holds each class in
proportion, which takes the spread between classes out of the accuracy. Which image comes next is the question which state gives
the next chairman of a union (Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980): with c classes, no
class is ever further than 1 - 1 / (2c - 2) images from its share.
"""

import heapq
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FIRST = 32  # images of the first rung
RUNGS = 128  # of many images the first rung holds this part
ROUND = 32
LAST = 1.5  # the last rung is at least so many times the one before


def order(labels: NDArray[np.integer] | None, n: int, seed: int) -> NDArray[np.intp]:
    """Positions of `n` images in the order in which they are seen, (n,).

    Args:
        labels: (n,) the class of each; None: a permutation.
        n: how many there are.
        seed: decides between images that are due at the same time.

    Raises:
        ValueError: not one label for each image.
    """
    shuffled: NDArray[np.intp] = np.random.default_rng(seed).permutation(n)
    if labels is None:
        return shuffled
    if len(labels) != n:
        raise ValueError(f"{len(labels)} labels for {n} images")
    return shuffled[_in_proportion(labels[shuffled])]


def sizes(n: int, first: int | None = None) -> tuple[int, ...]:
    """How many of `n` images have been seen after each rung: doubling, the last one all.

    Args:
        n: how many images there are.
        first: size of the first rung; 32, or more where there are more than 4,096 images, if not given.
    """
    size = first or ROUND * round(max(FIRST, n / RUNGS) / ROUND)
    doubling = []
    while LAST * size <= n:
        doubling.append(size)
        size *= 2
    return (*doubling, n)


def batches(n: int, sizes: tuple[int, ...], most: int = 128) -> tuple[tuple[slice, ...], ...]:
    """For each rung the images that it adds, as slices of at most `most` in the order of images.

    Raises:
        ValueError: the last rung is not all `n` images.
    """
    if sizes[-1:] != (n,):
        raise ValueError(f"rungs {sizes} do not end with all {n} images")
    return tuple(
        tuple(slice(start, min(start + most, end)) for start in range(begin, end, most)) for begin, end in pairwise((0, *sizes))
    )


def spread(count: int) -> Iterator[int]:
    """0 to count - 1, every next one in the middle of the widest gap, the last of equal ones first."""
    gaps = [(0, count)]
    while gaps:
        low, high = gaps.pop(0)
        if low < high:
            middle = (low + high) // 2
            yield middle
            gaps += [(middle + 1, high), (low, middle)]


def _in_proportion(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """Positions (n,) so that every prefix holds each class in proportion; within a class the order stays."""
    n = len(labels)
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = np.argsort(classes, kind="stable")
    rank, count = np.empty(n, np.int64), counts[classes]
    rank[by_class] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)  # which one of its class, from 0
    parts = max(2 * len(counts) - 2, 1)
    # The (rank + 1)-th of its class may come when its class is owed 1 / parts of it, and must before it is owed 1 - 1 / parts.
    begins = -((-n * (rank * parts + 1)) // (parts * count))
    due: list[float] = (n * ((rank + 1) * parts - 1) / (parts * count)).tolist()
    waiting, ready, seen = np.argsort(begins, kind="stable")[::-1].tolist(), list[tuple[float, int]](), np.empty(n, np.intp)
    for place in range(n):
        while waiting and begins[waiting[-1]] <= place + 1:
            image = waiting.pop()
            heapq.heappush(ready, (due[image], image))
        seen[place] = heapq.heappop(ready)[1]
    return seen
