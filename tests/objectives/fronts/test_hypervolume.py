from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.fronts.hypervolume import Outlook, ReferencePoint, flat, hypervolume, outlook, spread, volumes
from vittle.objectives.goals import inference_goals
from vittle.objectives.measurement import Measurement, exact, proportion
from vittle.objectives.quality.paired import pack

Trials = list[Mapping[str, Measurement]]
GOALS = inference_goals(LatencyBudget.parse("50%"))
REFERENCE = ReferencePoint(0.8, 0.5)


def trial(accuracy: float, ratio: float) -> Mapping[str, Measurement]:
    return {"accuracy": exact("accuracy", accuracy), "latency_ratio": exact("latency_ratio", ratio)}


def answered(right: NDArray[np.bool_], ratio: float, *, kept: bool = True) -> Mapping[str, Measurement]:
    protocol = {"right": pack(right)} if kept else {}
    accuracy = proportion("accuracy", int(right.sum()), len(right), protocol)
    return {"accuracy": accuracy, "latency_ratio": exact("latency_ratio", ratio)}


def images(random: np.random.Generator, n: int, trials: int) -> tuple[NDArray[np.bool_], Trials]:
    """The backbone's answers, and trials that lose the images which are hard for it too."""
    ease = random.standard_normal(n)
    margins = np.linspace(1.2, 0.8, trials)[:, None] + ease + 0.1 * random.standard_normal((trials, n))
    trial = [answered(right, ratio) for right, ratio in zip(margins > 0, np.linspace(0.9, 0.3, trials), strict=True)]
    return 1.3 + ease > 0, trial


def searching(n: int, seed: int) -> NDArray[np.float64]:
    """Volumes of a random search: latency and what it costs, in five dimensions."""
    kept = np.random.default_rng(seed).random((n, 5))
    lost = (((1 - kept) ** 2) * [4, 2, 1, 0.5, 0.2]).mean(1) / 10
    return volumes(
        [trial(0.9 - one, ratio) for one, ratio in zip(lost, kept.mean(1), strict=True)], ReferencePoint(0.8, 1), GOALS
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_hypervolume_is_the_area_that_is_dominated(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.integers(0, 12, (15, 2))
    cells = np.stack(np.meshgrid(np.arange(10), np.arange(8), indexing="ij"), -1)
    dominated = (points[:, None, None] <= cells).all(-1).any(0)
    assert hypervolume(points, (10, 8)) == dominated.sum()


def test_the_hypervolume_is_optunas() -> None:
    from optuna._hypervolume import compute_hypervolume  # it has no public name

    for seed in range(5):
        points = np.random.default_rng(seed).random((40, 2))
        inside = points[(points < 0.9).all(1)]
        assert hypervolume(points, (0.9, 0.9)) == pytest.approx(compute_hypervolume(inside, np.array([0.9, 0.9])))


def test_nothing_and_what_is_beyond_the_reference_have_no_volume() -> None:
    assert hypervolume(np.empty((0, 2)), (1, 1)) == 0
    assert hypervolume([[2, 0], [0, 2], [1, 0.5]], (1, 1)) == 0
    assert hypervolume([[-1, 0.5]], (1, 1)) == 1


def test_the_reference_follows_the_backbone_and_the_budget() -> None:
    backbone = {**trial(0.9, 1.0), "latency_ms": exact("latency_ms", 8.0)}
    assert ReferencePoint.of(GOALS, backbone) == pytest.approx(REFERENCE)
    assert ReferencePoint.of(inference_goals(LatencyBudget.parse("4ms")), backbone) == pytest.approx(REFERENCE)
    assert ReferencePoint.of(inference_goals(LatencyBudget.parse("140%")), backbone).cost == 1


def test_one_is_the_backbones_accuracy_at_no_cost() -> None:
    assert volumes([trial(0.9, 0)], REFERENCE, GOALS) == pytest.approx([1])
    assert volumes([trial(0.85, 0.25)], REFERENCE, GOALS) == pytest.approx([0.25])
    assert volumes([trial(0.9, 0.5), trial(0.8, 0.1)], REFERENCE, GOALS) == pytest.approx([0, 0])


def test_volumes_grow_with_each_trial_as_if_computed_anew() -> None:
    random = np.random.default_rng(0)
    trials: Trials = [trial(*point) for point in random.uniform((0.75, 0), (0.92, 0.6), (60, 2))]
    trials[7] = {"latency_ratio": exact("latency_ratio", 0.01)}
    trials[8] = {"accuracy": exact("accuracy", 0.9)}
    trials[9] = {}
    after = volumes(trials, REFERENCE, GOALS)
    for n in (1, 8, 10, 30, 60):
        placed = [one for one in trials[:n] if len(one) == 2]
        points = [(one["latency_ratio"].value / 0.5, (0.9 - one["accuracy"].value) / 0.1) for one in placed]
        assert after[n - 1] == pytest.approx(hypervolume(points, (1, 1)))
    assert (np.diff(after) >= 0).all()
    assert after[6] == after[9] < after[-1]
    assert len(volumes([], REFERENCE, GOALS)) == 0


def test_the_spread_is_that_of_other_images() -> None:
    random = np.random.default_rng(0)
    reference = ReferencePoint(0.7, 1)
    drawn = [images(random, 500, 6)[1] for _ in range(200)]
    assert spread(drawn[0], reference, GOALS) == pytest.approx(
        np.std([volumes(one, reference, GOALS)[-1] for one in drawn]), rel=0.25
    )


def test_against_the_backbone_on_the_same_images_the_spread_is_smaller() -> None:
    backbone, trials = images(np.random.default_rng(0), 500, 6)
    assert (
        0
        < spread(trials, ReferencePoint(0.7, 1), GOALS, baseline=backbone)
        < spread(trials, ReferencePoint(0.7, 1), GOALS) / 1.5
    )
    assert spread([answered(backbone, 0.5)], ReferencePoint(0.7, 1), GOALS, baseline=backbone) == pytest.approx(0, abs=1e-6)


def test_where_there_are_no_answers_the_spread_comes_from_intervals() -> None:
    right = np.arange(500) < 425
    one = spread([answered(right, 0.5, kept=False)], ReferencePoint(0.7, 1), GOALS)
    assert one == pytest.approx(spread([answered(right, 0.5)], ReferencePoint(0.7, 1), GOALS), rel=0.25)
    stopped = answered(right[:100], 0.5)  # has seen other images than all the others
    assert spread([stopped, answered(right, 0.5)], ReferencePoint(0.7, 1), GOALS) > 0
    assert spread([trial(0.85, 0.25)], REFERENCE, GOALS) == pytest.approx(0)
    assert spread([], REFERENCE, GOALS) == spread([{}, trial(0.9, 0.7)], REFERENCE, GOALS) == 0


def test_the_spread_is_that_of_trials_near_the_front() -> None:
    backbone, front = images(np.random.default_rng(0), 500, 6)
    beaten = [answered(backbone & (np.arange(500) % 3 > 0), ratio) for ratio in np.linspace(0.9, 1, 300)]
    assert spread([*beaten, *front], ReferencePoint(0.7, 1), GOALS, seed=1) == pytest.approx(
        spread(front, ReferencePoint(0.7, 1), GOALS, seed=1), rel=0.3
    )


def test_a_record_is_flat_where_it_gained_less_than_its_error() -> None:
    record = np.concatenate([np.linspace(0.1, 0.5, 60), np.full(40, 0.505)])
    assert flat(record, 0.01)
    assert flat(record, 0)  # nothing at all within the last 25
    assert not flat(record[:90], 0.001, patience=35)
    assert not flat(record[:70], 0.05)
    assert not flat(record[:20], 1)  # too few to tell
    assert not flat(np.zeros(100), 0.01)  # nothing found yet
    assert flat(record[:70], 0.01, patience=5)


LAWS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "1 / n": lambda n: 0.7 - 0.5 / n,
    "1 / sqrt n": lambda n: 0.7 - 0.5 / np.sqrt(n),
    "log": lambda n: 0.1 * np.log(n),
    "saturating": lambda n: 0.7 * (1 - np.exp(-n / 40)),
    "saturated": lambda n: np.minimum(n / 20, 0.7),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [40, 100, 400])
@pytest.mark.parametrize("more", [20, 100, 400])
def test_the_outlook_covers_what_a_known_law_will_add(law: str, n: int, more: int) -> None:
    record = LAWS[law](np.arange(1.0, n + more + 1))
    gain, low, high = outlook(record[:n], 1e-6, more)
    assert low <= record[-1] - record[n - 1] <= high
    assert low <= gain <= high
    doublings = 1 + np.log2(1 + more / n)
    assert high < doublings * (record[n - 1] - record[n // 4 - 1]) + 1e-5  # it says something


@pytest.mark.parametrize(("n", "more"), [(60, 100), (200, 100)])
def test_the_outlook_covers_what_a_search_will_add(n: int, more: int) -> None:
    records = [searching(n + more, seed) for seed in range(60)]
    gains = np.array([record[-1] - record[n - 1] for record in records])
    expected, low, high = np.array([outlook(record[:n], 0, more) for record in records]).T
    assert ((low <= gains) & (gains <= high)).mean() > 0.9
    assert 0.6 < expected.mean() / gains.mean() < 1.6


def test_no_more_is_promised_than_there_is() -> None:
    for record in ([0.425], [0.1, 0.425], [0.0, 0.1, 0.2, 0.3, 0.9]):
        gain, low, high = outlook(np.array(record), 0.01, 100)
        assert 0 <= low <= gain <= high == pytest.approx(1 - record[-1])
    assert outlook(np.array([0.5, 1.02]), 0.01) == Outlook(0, 0, 0)  # better than the baseline


def test_a_search_that_stands_still_promises_its_error_at_most() -> None:
    still = outlook(np.full(200, 0.6), 0.01)
    assert still.gain == still.low == 0
    assert still.high == pytest.approx(0.0196, abs=1e-4)
    assert outlook(np.zeros(5), 0) == Outlook(0, 0, 0)
    assert outlook(np.array([0.3]), 0.01).high > 0
    with pytest.raises(ValueError, match="no trials"):
        outlook(np.empty(0), 0)
