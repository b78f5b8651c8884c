import time

import numpy as np
import pytest
import torch
from torch import nn

from vittle import Schedule, presets
from vittle.objectives import latency
from vittle.objectives.accuracy import accuracy, predict, to_input
from vittle.objectives.evaluate import Evaluator
from vittle.objectives.images import Images, Splits
from vittle.objectives.measurement import LatencyBudget
from vittle.reductions.backbone import describe_backbone


class Takes(nn.Module):
    """A model of known duration."""

    def __init__(self, milliseconds: float) -> None:
        super().__init__()
        self.milliseconds = milliseconds
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        time.sleep(self.milliseconds / 1000)
        return images


@pytest.fixture
def drifting_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which every call takes 6 % longer than the one before."""
    slowness = [1.0]

    def stopwatch(model: nn.Module, images: torch.Tensor) -> float:
        slowness[0] *= 1.06
        model(images)
        return model.milliseconds * slowness[0]

    monkeypatch.setattr(latency, "_cpu_ms", stopwatch)


def test_the_stopwatch_sees_the_whole_call() -> None:
    assert latency._cpu_ms(Takes(20), torch.zeros(1)) >= 20


def test_drift_cancels_in_the_ratio(drifting_clock) -> None:
    measured = latency.measure(Takes(0.5), Takes(1), torch.zeros(1), "confirmation")
    ratio = measured["latency_ratio"]
    assert ratio.value == pytest.approx(0.5, rel=0.01)
    assert ratio.high - ratio.low < 0.01
    assert measured["latency_ms"].high > 1.5 * measured["latency_ms"].low  # the times themselves did drift


def test_samples_and_protocol() -> None:
    candidate, backbone = Takes(1), Takes(2)
    measured = latency.measure(candidate, backbone, torch.zeros(5, 3, 8, 8), "search")
    for one in measured.values():
        assert one.low <= one.value <= one.high
        assert one.n == latency.EFFORTS["search"].repeats
    protocol = measured["latency_ms"].protocol
    assert protocol["batch_size"] == 5
    assert protocol["dtype"] == "float32"
    assert protocol["threads"] == torch.get_num_threads()
    assert protocol["backbone_ms"] >= 2
    assert protocol["p95_ms"] >= measured["latency_ms"].value
    effort = latency.EFFORTS["search"]
    assert candidate.calls == effort.warmup + effort.repeats
    assert backbone.calls == effort.warmup + effort.repeats + 1  # one on each side of every candidate


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
    agreement = evaluator.measure(Schedule())["accuracy"]
    assert agreement.value == 1.0
    assert agreement.protocol["against"] == "backbone"


def test_logits_that_are_not_finite_are_a_failure(tiny, splits) -> None:
    with torch.no_grad():
        tiny.head.bias[3] = float("nan")
    preprocessing = describe_backbone(tiny, "tiny").preprocessing
    with pytest.raises(FloatingPointError, match="not finite"):
        predict(tiny, splits.search.pixels, preprocessing, torch.device("cpu"))
