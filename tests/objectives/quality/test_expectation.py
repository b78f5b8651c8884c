"""Expected accuracy, on computed trials and on recorded evaluations of real images."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from recorded import SHAPE
from simulated import table
from vittle import presets
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import inference_goals
from vittle.objectives.measurement import NORMAL_95, Measurement, exact, proportion
from vittle.objectives.quality import paired
from vittle.objectives.quality.expectation import expected
from vittle.spaces import Schedule
from vittle.storage.ranking import Ranking
from vittle.storage.records import Trial


def seen(at: int, images: int) -> dict[str, Measurement]:
    """What the first images show of a recorded schedule."""
    known = table()
    right, backbone = known.right[at, :images], known.right[known.backbone, :images]
    nats = paired.FINEST * 2.0 ** (known.apart[at, :images] / paired.STEPS)
    mean, half = float(nats.mean()), NORMAL_95 * float(nats.std()) / images**0.5
    return {
        "accuracy": proportion("accuracy", int(right.sum()), images, {}),
        "accuracy_drop": Measurement("accuracy_drop", *paired.difference(backbone, right), images),
        "divergence": Measurement("divergence", mean, max(0.0, mean - half), mean + half, images),
    }


def drawn(random: np.random.Generator, count: int) -> list[int]:
    known = table()
    return random.choice([at for at in range(len(known.schedules)) if at != known.backbone], count, replace=False).tolist()


@pytest.mark.parametrize(("images", "trials"), [(1500, 4), (1500, 16), (1500, 100), (128, 40)])
def test_it_is_nearer_to_the_accuracy_on_other_images_than_what_was_measured(images: int, trials: int) -> None:
    known, random = table(), np.random.default_rng(0)
    errors, ranks = [], []
    for _ in range(20):
        chosen = drawn(random, trials)
        measured = [seen(at, images) for at in chosen]
        found = expected(measured, seen(known.backbone, images))
        lost = known.held_out[known.backbone] - known.held_out[chosen]
        dense = seen(known.backbone, images)["accuracy"].value
        values = np.array([[one["accuracy"].value for one in side] for side in (found, measured)])
        errors.append(((dense - values - lost) ** 2).mean(1))
        ranks.append([spearmanr(-row, lost).statistic for row in values])
    assert np.mean(errors, 0)[0] < 0.95 * np.mean(errors, 0)[1]
    assert np.nanmean(ranks, 0)[0] > np.nanmean(ranks, 0)[1]


def trial(lost: float, nats: float, error: float = 0.01) -> dict[str, Measurement]:
    half = NORMAL_95 * error
    return {
        "accuracy": Measurement("accuracy", 0.9 - lost, 0.8 - lost, 1 - lost, 400, {"right": "bits"}),
        "accuracy_drop": Measurement("accuracy_drop", lost, lost - half, lost + half, 400),
        "divergence": exact("divergence", nats),
    }


BACKBONE = trial(0.0, 0.0)


def test_divergence_decides_where_it_explains_what_is_lost_and_the_images_where_it_does_not() -> None:
    random, nats = np.random.default_rng(0), np.linspace(0.01, 0.3, 60)
    explained = [trial(0.4 * one + random.normal(0, 0.01), one) for one in nats]
    found = np.array([one["accuracy"].value for one in expected(explained, BACKBONE)])
    assert 0.9 - found == pytest.approx(0.4 * nats, abs=0.01)
    own = random.uniform(0, 0.3, 60)
    unexplained = [trial(lost, one) for lost, one in zip(own, nats, strict=True)]
    found = np.array([one["accuracy"].value for one in expected(unexplained, BACKBONE)])
    assert 0.9 - found == pytest.approx(own, abs=0.01)


def test_before_anything_is_lost_the_closer_one_is_expected_to_be_better() -> None:
    far, near = expected([trial(0.0, 0.2), trial(0.0, 0.1)], BACKBONE)
    assert 0.8 < far["accuracy"].value < near["accuracy"].value < 0.9
    assert near["accuracy"].low <= near["accuracy"].value <= near["accuracy"].high
    assert near["accuracy"].protocol == {"right": "bits", "measured": 0.9}
    assert type(near["accuracy"].value) is type(near["accuracy"].low) is float  # YAML knows no NumPy


def test_what_lacks_divergence_is_left_as_it_was_measured() -> None:
    old = {"accuracy": proportion("accuracy", 9, 10, {})}
    assert expected([old, trial(0.1, 0.2), {}], BACKBONE)[::2] == [old, {}]
    assert expected([], BACKBONE) == []


def test_the_front_and_the_best_are_chosen_by_it() -> None:
    def made(number: int, origin: str, share: float, measured: dict[str, Measurement]) -> Trial:
        costs = {"latency_ratio": exact("latency_ratio", share), "macs": exact("macs", share)}
        schedule = Schedule() if origin == "backbone" else presets.constant(SHAPE, number)
        return Trial(number, "complete", origin, schedule, {}, {"search": {**measured, **costs}})

    lucky, close = made(1, "plan", 0.5, trial(-0.005, 0.3)), made(2, "plan", 0.45, trial(0.0, 0.02))
    trials = [made(0, "backbone", 1.0, BACKBONE), lucky, close, *(made(k, "plan", 0.9, trial(0.1, 0.3)) for k in (3, 4, 5))]
    assert lucky.judged["accuracy"].value > close.judged["accuracy"].value
    ranking = Ranking.of(trials, inference_goals(LatencyBudget.parse("60%")))
    assert ranking.best() is close
    assert lucky not in ranking.front()
    assert ranking.expected[2]["accuracy"].protocol["measured"] == 0.9
