"""Distances between histograms, and how far ordinary windows get by chance."""

import math

import numpy as np
import pytest

from vittle.objectives.watching.histograms import counted, distances, edges_between, edges_for, from_exceeding, thresholds


def test_the_distance_is_what_is_worked_out_by_hand() -> None:
    # Half of one mass lies where the other has none: r = (3/4, 1/4); KL(p|r) = log2(4/3), KL(q|r) = log2(2/3)/2 + log2(2)/2.
    expected = math.sqrt((math.log2(4 / 3) + (math.log2(2 / 3) + 1) / 2) / 2)
    found = distances(np.array([[4, 0], [7, 0], [3, 9]]), np.array([[5, 5], [0, 2], [1, 3]]))
    assert found == pytest.approx([expected, 1, 0], abs=1e-7)


def test_values_are_counted_where_they_lie() -> None:
    values = np.array([[[-2.0, 0.0, 0.5, 9.0, np.nan], [1.0, 1.0, 1.0, 1.0, 1.0]]])  # (n 1, s 2, m 5)
    edges = np.array([0.0, 1.0, 2.0])
    exceeding = (values[..., None] >= edges).sum(2)
    assert from_exceeding(exceeding, [5, 5]).tolist() == [[[2, 2, 0, 1], [0, 0, 5, 0]]]


def test_values_are_counted_alike_whichever_way_they_come() -> None:
    rng = np.random.default_rng(4)
    values = [np.round(rng.normal(size=(6, m)), 1).astype(np.float32) for m in (7, 3)]  # so that some lie on an edge
    values[0][2, :3] = np.nan, np.inf, -np.inf
    edges = [np.linspace(low, 1.5, 5, dtype=np.float32) for low in (-1, 0.5)]
    reach = np.stack([(one[..., None] >= edge).sum(1) for one, edge in zip(values, edges, strict=True)], 1)
    assert any(np.isin(one, edge).any() for one, edge in zip(values, edges, strict=True))
    assert counted(values, edges).tolist() == from_exceeding(reach, [7, 3]).tolist()


def test_edges_reach_from_end_to_end_and_away_from_a_value_that_is_everywhere() -> None:
    spread = np.random.default_rng(0).normal(3, 2, 50_000)
    edges = edges_between(spread, 32)
    assert edges[0] == pytest.approx(3 - 3.09 * 2, abs=0.3)
    assert edges[-1] == pytest.approx(3 + 3.09 * 2, abs=0.3)
    assert np.diff(edges) == pytest.approx([edges[1] - edges[0]] * 31)
    for constant in (0.0, -4.5, 1e6):
        edges = edges_between(np.full(100, constant), 8)
        middle = (edges[3] + edges[4]) / 2
        assert middle == pytest.approx(constant)
        assert (np.diff(edges) > 1e-7).all()  # rounding moves nobody into another bin


def test_there_are_fewer_bins_where_there_are_fewer_values() -> None:
    assert [edges_for(*case) for case in ((256, 64), (256, 1), (50, 5), (4, 1))] == [32, 16, 14, 8]


def ordinary(rng: np.random.Generator, images: int) -> np.ndarray:
    """Histograms (n, 3, 9) of images that differ from each other by more than chance alone."""
    shares = rng.dirichlet(np.arange(1, 10) / 9, (images, 3))
    return rng.multinomial(30, shares)


@pytest.mark.parametrize("false_alarms", [0.1, 0.02])
def test_ordinary_windows_exceed_a_threshold_as_often_as_is_stated(false_alarms: float) -> None:
    rng = np.random.default_rng(1)
    over = []
    for _ in range(60):
        known = ordinary(rng, 400)
        limits = thresholds(known, 40, false_alarms, rng)
        windows = ordinary(rng, 40 * 60).reshape(60, 40, 3, 9).sum(1)
        over += (distances(windows, known.sum(0)) > limits).any(1).tolist()
    assert 0.5 * false_alarms < np.mean(over) < 1.3 * false_alarms


def test_what_is_rarer_has_a_higher_threshold_and_a_wider_window_a_lower_one() -> None:
    known = ordinary(np.random.default_rng(2), 200)
    rare, common, wide = (
        thresholds(known, window, rate, np.random.default_rng(3)) for window, rate in ((20, 1e-3), (20, 0.1), (80, 1e-3))
    )
    assert (rare > common).all()
    assert (wide < rare).all()
