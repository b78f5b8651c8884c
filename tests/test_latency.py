import time

import numpy as np
import pytest
import torch
from torch import nn

from vittle import presets
from vittle.objectives import latency
from vittle.objectives.accuracy import accuracy, predict, to_input
from vittle.objectives.evaluate import Evaluator
from vittle.objectives.images import Images, Splits
from vittle.objectives.measurement import LatencyBudget
from vittle.reductions.backbone import describe_backbone


class Takes(nn.Module):
    """A model of known duration."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        time.sleep(self.seconds)
        return images


def test_ratio_interval_and_protocol() -> None:
    candidate, backbone = Takes(0.01), Takes(0.02)
    measured = latency.measure(candidate, backbone, torch.zeros(5, 3, 8, 8), "search")
    ratio = measured["latency_ratio"]
    assert ratio.value == pytest.approx(0.5, rel=0.25)
    assert ratio.low <= ratio.value <= ratio.high
    protocol = measured["latency_ms"].protocol
    assert protocol["batch_size"] == 5
    assert protocol["dtype"] == "float32"
    assert protocol["threads"] == torch.get_num_threads()
    assert protocol["backbone_ms"] == pytest.approx(20, rel=0.5)
    assert protocol["p95_ms"] >= measured["latency_ms"].value
    effort = latency.EFFORTS["search"]
    assert candidate.calls == effort.warmup + effort.repeats
    assert backbone.calls == effort.warmup + effort.repeats + 1  # one on each side of every candidate


def test_drift_cancels_in_the_ratio() -> None:
    """A machine that slows down by half during the measurement changes the times, not the ratio."""
    clock = {"slow": 1.0}

    class Slowing(Takes):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            clock["slow"] *= 1.06
            time.sleep(self.seconds * clock["slow"])
            return images

    measured = latency.measure(Slowing(0.008), Slowing(0.016), torch.zeros(1), "search")
    assert measured["latency_ratio"].value == pytest.approx(0.5, rel=0.15)
    assert measured["latency_ms"].protocol["backbone_p95_ms"] > 1.3 * 16


@pytest.fixture
def evaluator(tiny, splits) -> Evaluator:
    return Evaluator(describe_backbone(tiny, "tiny"), splits, device="cpu", batch_size=4)


def test_an_evaluation_has_every_objective(evaluator) -> None:
    schedule = presets.constant(evaluator.model, 6)
    measured = evaluator.measure(schedule)
    assert set(measured) == {"macs", "latency_ms", "latency_ratio", "accuracy"}
    assert measured["accuracy"].n == 20
    assert evaluator.measure(schedule, "confirmation")["accuracy"].n == 12


def test_a_schedule_over_budget_is_not_evaluated_on_images(evaluator) -> None:
    measured = evaluator.measure(presets.constant(evaluator.model, 1), budget=LatencyBudget.parse("0.001ms"))
    assert "accuracy" not in measured
    assert "latency_ms" in measured


def test_accuracy_counts_hits(tiny, splits) -> None:
    preprocessing = describe_backbone(tiny, "tiny").preprocessing
    predicted = predict(tiny, splits.search.pixels, preprocessing, torch.device("cpu"))
    with torch.inference_mode():
        expected = tiny(to_input(splits.search.pixels, preprocessing, torch.device("cpu"))).argmax(-1).numpy()
    assert np.array_equal(predicted, expected)
    half = np.where(np.arange(20) < 10, predicted, (predicted + 1) % 10)
    assert accuracy(predicted, half, splits.search).value == 0.5


def test_input_is_normalised(tiny) -> None:
    preprocessing = describe_backbone(tiny, "tiny").preprocessing
    pixels = np.full((1, 2, 2, 3), 255, np.uint8)
    expected = (1 - torch.tensor(preprocessing.mean)) / torch.tensor(preprocessing.std)
    torch.testing.assert_close(to_input(pixels, preprocessing, torch.device("cpu"))[0, :, 0, 0], expected)


def test_without_labels_the_backbone_is_the_reference(tiny, splits) -> None:
    unlabelled = Splits(Images(splits.search.pixels, None), Images(splits.held_out.pixels, None))
    evaluator = Evaluator(describe_backbone(tiny, "tiny"), unlabelled, device="cpu", batch_size=4)
    from vittle import Schedule

    agreement = evaluator.measure(Schedule())["accuracy"]
    assert agreement.value == 1.0
    assert agreement.protocol["against"] == "backbone"


def test_logits_that_are_not_finite_are_a_failure(tiny, splits) -> None:
    with torch.no_grad():
        tiny.head.bias[3] = float("nan")
    preprocessing = describe_backbone(tiny, "tiny").preprocessing
    with pytest.raises(FloatingPointError, match="not finite"):
        predict(tiny, splits.search.pixels, preprocessing, torch.device("cpu"))
