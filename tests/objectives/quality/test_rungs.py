from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from vittle.objectives.quality.rungs import batches, order, sizes


@pytest.mark.parametrize(("classes", "n"), [(2, 101), (10, 450), (10, 5000), (100, 3000), (40, 60)])
@pytest.mark.parametrize("skew", [0, 1])
def test_every_prefix_holds_each_class_in_proportion(classes: int, n: int, skew: float) -> None:
    weights = np.arange(1.0, classes + 1) ** -skew
    labels = np.random.default_rng(0).choice(classes, n, p=weights / weights.sum())
    labels = labels[order(labels, n, seed=1)]
    found = np.unique(labels)
    held = np.cumsum(labels[:, None] == found, axis=0)
    due = np.arange(1, n + 1)[:, None] * held[-1] / n
    assert abs(held - due).max() <= 1 - 1 / (2 * len(found) - 2) + 1e-9


@pytest.mark.parametrize("labels", [None, np.arange(200) % 7, np.zeros(200, int), np.arange(200), np.arange(200) - 100])
def test_an_order_is_a_permutation_that_the_seed_decides(labels: NDArray[np.int_] | None) -> None:
    first = order(labels, 200, seed=3)
    np.testing.assert_array_equal(np.sort(first), np.arange(200))
    np.testing.assert_array_equal(first, order(labels, 200, seed=3))
    assert (first != order(labels, 200, seed=4)).any()


def test_images_of_a_class_come_in_random_order() -> None:
    labels = np.arange(1000) % 2
    even = order(labels, 1000, seed=0)
    even = even[even % 2 == 0]
    assert abs(np.corrcoef(even, np.arange(500))[0, 1]) < 0.2


def test_no_images_have_an_order_too() -> None:
    assert len(order(None, 0, 0)) == 0
    assert len(order(np.zeros(0, int), 0, 0)) == 0
    with pytest.raises(ValueError, match="3 labels for 4 images"):
        order(np.zeros(3, int), 4, 0)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (10, (10,)),
        (32, (32,)),
        (47, (47,)),
        (48, (32, 48)),
        (150, (32, 64, 150)),
        (450, (32, 64, 128, 256, 450)),
        (5000, (32, 64, 128, 256, 512, 1024, 2048, 5000)),
        (50_000, (384, 768, 1536, 3072, 6144, 12_288, 24_576, 50_000)),
    ],
)
def test_rungs_double_up_to_all_images(n: int, expected: tuple[int, ...]) -> None:
    assert sizes(n) == expected


@pytest.mark.parametrize("n", range(1, 3000, 37))
def test_the_last_rung_is_worth_the_while(n: int) -> None:
    rungs = sizes(n, first=32)
    assert rungs[-1] == n
    assert all(later == 2 * earlier for earlier, later in pairwise(rungs[:-1]))
    assert all(1.5 * earlier <= later < 3 * earlier for earlier, later in pairwise(rungs))


@pytest.mark.parametrize("n", [1, 64, 450, 5000])
@pytest.mark.parametrize("most", [1, 50, 128])
def test_batches_cover_all_images_once_and_cross_no_rung(n: int, most: int) -> None:
    rungs = sizes(n)
    slices = batches(n, rungs, most)
    assert [images for rung in slices for one in rung for images in range(n)[one]] == list(range(n))
    assert [rung[-1].stop for rung in slices] == list(rungs)
    assert all(0 < one.stop - one.start <= most for rung in slices for one in rung)


def test_rungs_that_leave_images_out_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rungs \(64, 128\) do not end with all 200 images"):
        batches(200, (64, 128))
