import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

from vittle.objectives.measurement import proportion
from vittle.objectives.quality import rungs
from vittle.objectives.quality.paired import better, difference, estimate, log_evidence, pack, unpack

LEVEL = 0.05
WIN, LOSS, TIE = np.array([1, -1, 0], np.int8)


def stopped(pairs: NDArray[np.int8], rungs: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether the evidence is enough at each rung, (runs, rungs), for pairs (runs, n)."""
    last = np.array(rungs) - 1
    wins, losses = (np.cumsum(pairs == kind, 1, dtype=np.int32)[:, last] for kind in (WIN, LOSS))
    return log_evidence(wins, losses) >= -math.log(LEVEL)


def answers(random: np.random.Generator, n: int, accuracy: float, gained: float, lost: float) -> NDArray[np.bool_]:
    """(2, n): the backbone's and a schedule's, which gains and loses these shares of all images."""
    draw = random.random(n)
    return np.stack([draw < accuracy, (draw < accuracy - lost) | ((draw >= accuracy) & (draw < accuracy + gained))])


@pytest.mark.parametrize("n", [1, 7, 8, 9, 450])
def test_answers_survive_packing(n: int) -> None:
    right = np.random.default_rng(n).random(n) < 0.7
    np.testing.assert_array_equal(unpack(pack(right), n), right)
    assert len(pack(right)) <= n / 6 + 4


def test_a_text_that_holds_other_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="2 bytes do not hold 17 answers"):
        unpack(pack(np.ones(16, bool)), 17)
    with pytest.raises(ValueError, match="do not hold"):
        unpack(pack(np.ones(16, bool)), 8)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (0, 1), (9, 2), (30, 30), (3, 20)])
def test_the_evidence_is_the_integral(wins: int, losses: int) -> None:
    value, _ = integrate.quad(lambda theta: 2 * (2 * theta) ** wins * (2 * (1 - theta)) ** losses, 0.5, 1)
    assert log_evidence(wins, losses) == pytest.approx(math.log(value), abs=1e-9)


def test_the_evidence_of_many_pairs_does_not_overflow() -> None:
    assert log_evidence(100_000, 0) == pytest.approx(100_001 * math.log(2) - math.log(100_001))
    assert np.isfinite(log_evidence(50_000, 50_000))
    assert log_evidence(0, 100_000) < -5


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_evidence_is_a_supermartingale_where_the_rival_is_no_better(share: float) -> None:
    wins = np.arange(21)
    mean = (stats.binom.pmf(wins, 20, share) * np.exp(log_evidence(wins, 20 - wins))).sum()
    assert mean == pytest.approx(1, abs=1e-9) if share == 0.5 else mean < 1


@pytest.mark.parametrize("discordant", [0.02, 0.2])
def test_equal_schedules_are_rarely_stopped_at_any_rung(discordant: float) -> None:
    random, n, runs = np.random.default_rng(0), 1000, 4000
    independent = random.choice([WIN, LOSS, TIE], (runs, n), p=[discordant / 2, discordant / 2, 1 - discordant]).astype(np.int8)
    half = round(discordant * n / 2)
    finite = random.permuted(np.tile(np.repeat([WIN, LOSS, TIE], [half, half, n - 2 * half]), (runs, 1)), axis=1)
    for pairs in (independent, finite):
        assert 0 < stopped(pairs, rungs.sizes(n)).any(1).mean() <= LEVEL
        assert stopped(pairs[:1000], tuple(range(1, n + 1))).any(1).mean() <= LEVEL  # also where one looks after every image


@pytest.mark.parametrize(("loss", "images"), [(0.1, 256), (0.03, 1024), (0.01, 5000)])
def test_a_schedule_that_loses_more_is_stopped_earlier(loss: float, images: int) -> None:
    random, n = np.random.default_rng(0), 5000
    churn = 0.01  # gained, and lost on top
    pairs = random.choice([WIN, LOSS, TIE], (300, n), p=[loss + churn, churn, 1 - loss - 2 * churn]).astype(np.int8)
    enough = stopped(pairs, rungs.sizes(n))
    sizes = np.array(rungs.sizes(n))
    assert np.median(np.where(enough.any(1), sizes[enough.argmax(1)], 2 * n)) <= images


def test_a_rival_is_better_on_the_images_that_both_have_seen() -> None:
    rival, candidate = np.ones(100, bool), np.arange(100) >= 8
    assert better(rival, candidate[:8])
    assert better(rival[:8], candidate)
    assert not better(candidate, rival)
    assert not better(rival, rival)
    assert not better(rival, candidate[:4])  # 4 to 0: E = 6.2
    assert better(rival, candidate[:4], level=0.2)
    assert not better(rival, candidate[:0])


def test_the_difference_of_schedules_that_agree_is_not_certain() -> None:
    right = np.ones(500, bool)
    value, low, high = difference(right, right)
    assert value == 0
    assert -0.01 < low < 0 < high < 0.01
    assert difference(right, ~right).value == 1
    assert difference(~right, right) == pytest.approx((-1, -1, -(1 - 0.01)), abs=0.01)
    with pytest.raises(ValueError, match="500 and 499 answers"):
        difference(right, right[1:])


@pytest.mark.parametrize("n", [64, 512, 5000])
@pytest.mark.parametrize("discordant", [1, 4, 30])
@pytest.mark.parametrize("lost", [0.5, 0.8, 1])
def test_the_interval_of_a_difference_covers_the_truth(n: int, discordant: int, lost: float) -> None:
    gained, dropped = discordant / n * (1 - lost), discordant / n * lost
    counts = np.random.default_rng(0).multinomial(n, [gained, dropped, 1 - gained - dropped], size=2000)
    pairs, inverse = np.unique(counts[:, :2], axis=0, return_inverse=True)
    intervals = np.array([difference(np.arange(n) < wins, np.arange(n) >= n - losses) for wins, losses in pairs])[inverse]
    covered = ((intervals[:, 1] <= gained - dropped) & (gained - dropped <= intervals[:, 2])).mean()
    assert covered > 0.93
    assert discordant < 30 or covered < 0.98


def test_an_estimate_from_all_images_is_the_proportion() -> None:
    backbone, right = answers(np.random.default_rng(0), 450, 0.95, 0.01, 0.05)
    whole = proportion("accuracy", int(right.sum()), 450, {})
    assert estimate(right, backbone) == pytest.approx((whole.value, whole.low, whole.high), abs=1e-12)


@pytest.mark.parametrize("m", [64, 512, 2000])
def test_the_interval_of_an_estimate_covers_the_truth(m: int) -> None:
    random, n = np.random.default_rng(0), 2000
    everything = (answers(random, n, 0.9, 0.02, 0.06) for _ in range(500))
    estimates = np.array([estimate(right[:m], backbone) for backbone, right in everything])
    assert 0.93 < ((estimates[:, 1] <= 0.86) & (estimates[:, 2] >= 0.86)).mean() < 0.99


def test_an_estimate_varies_less_than_the_plain_share_where_answers_agree() -> None:
    random, n, m = np.random.default_rng(0), 2000, 256
    errors = []
    for _ in range(300):
        backbone, right = answers(random, n, 0.8, 0.01, 0.03)
        errors.append((estimate(right[:m], backbone).value - right.mean(), right[:m].mean() - right.mean()))
    controlled, plain = np.std(errors, 0)
    assert controlled < plain / 1.5
    assert abs(np.mean(errors, 0)[0]) < 4 * controlled / math.sqrt(300)


def test_an_estimate_stays_within_what_is_possible() -> None:
    backbone = np.arange(100) >= 5
    assert estimate(np.ones(10, bool), backbone).value == 1  # 0.95 and 5 of 10 gained
    assert estimate(np.zeros(10, bool), backbone)[:2] == pytest.approx((0.45, 0.21), abs=0.05)
    value, low, high = estimate(np.zeros(90, bool), np.arange(100) < 50)
    assert 0 <= low <= value <= 0.1
    assert value <= high <= 1
    for answered in (0, 101):
        with pytest.raises(ValueError, match=f"{answered} answers to 100 images"):
            estimate(np.ones(answered, bool), backbone)
