"""Latency at a stand, and what an evaluation measures when."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vittle import Schedule, presets
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.evaluator import Evaluator, make_stand
from vittle.objectives.fronts.front import may_enter_front
from vittle.objectives.goals import inference_goals
from vittle.objectives.latency import memory
from vittle.objectives.latency import stand as stand_module
from vittle.objectives.latency.provenance import hardware
from vittle.objectives.latency.stand import EFFORTS, Effort, Stand, median
from vittle.objectives.latency.turns import Turns
from vittle.objectives.measurement import Measurement, exact
from vittle.objectives.quality.accuracy import predict, to_input
from vittle.objectives.quality.images import Images, Splits
from vittle.reductions.backbone import describe_backbone
from vittle.reductions.vit import ReducedViT

TOLD = memory.STATUS.exists() and memory.PEAK_RESET.exists()
EVERY = {"latency_ms", "latency_ratio", "throughput", *(["memory"] if TOLD else [])}
SUPPORT = Path(__file__).parents[2] / "support"
ONCE = Effort(rounds=1)
GOALS = inference_goals(LatencyBudget.parse("60%"))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[None]:
    """No waiting for the device, and little measuring: what is tested here holds on a busy one too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("vittle.objectives.latency.baseline.ROUNDS", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def stand(tiny, images_for) -> Stand:
    return Stand(tiny, images_for(tiny, 3))


@pytest.fixture
def evaluator(tiny, splits) -> Evaluator:
    return Evaluator(describe_backbone(tiny, "tiny"), splits, device="cpu", batch_size=4)


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How often times were taken, and how; they are always 4 ms against a backbone of 5 ms."""
    found: list[dict[str, Any]] = []

    def take_turns(reference: Callable[[], object], calls: list[Callable[[], object]], device: object, **how: Any) -> Turns:
        found.append({"device": device, **how})
        taken = np.full((3, len(calls)), 4.0)
        return Turns(np.full((3, 2), 5.0), taken, taken, 2, 1, 0, None, "scripted")

    monkeypatch.setattr(stand_module, "take_turns", take_turns)
    return found


def scripted(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    times = np.array([[2.0], [3.0], [8.0]])
    about = {"warmup": 4, "runs": 2, "repeated": 1, "noise": None, "clock": "monotonic", "host": times, **changes}
    turns = Turns(reference=np.array([[4.0, 4.0], [4.0, 8.0], [10.0, 10.0]]), times=times, **about)
    monkeypatch.setattr(stand_module, "take_turns", lambda *_, **__: turns)


def test_a_measurement_says_all_that_it_takes_to_repeat_it(stand) -> None:
    measured = stand.measure(ReducedViT(stand.model, presets.constant(stand.model, 6)), Effort(rounds=3), {"profile": "0123"})
    assert set(measured) == EVERY
    for name in ("latency_ms", "latency_ratio"):
        one, protocol = measured[name], measured[name].protocol
        assert one.low <= one.value <= one.high
        assert one.n == protocol["rounds"] >= 3
        assert (protocol["batch_size"], protocol["dtype"], protocol["compiled"]) == (3, "float32", False)
        assert (protocol["threads"], protocol["torch"]) == (torch.get_num_threads(), torch.__version__)
        assert {"device", "allocator", "python", "repeated"} <= set(protocol)
        assert protocol["baseline"] in protocol["forms_ms"]
        assert set(protocol["forms_ms"]) == {"fused", "eager"}
        assert set(protocol["attention"]) == {"form", "kernel", "backbone"}
        assert protocol["attention"]["form"] in ("mask", "channel")
        assert (protocol["clock"], protocol["profile"]) == ("monotonic", "0123")
        assert min(protocol["warmup"], protocol["runs"]) >= 1
        assert "launch_bound" not in protocol
    ms = measured["latency_ms"].protocol
    assert ms["p95_ms"] >= measured["latency_ms"].value
    assert ms["p95_ms_interval"][0] <= ms["p95_ms"] <= ms["p95_ms_interval"][1]
    assert 0 < ms["backbone_ms"] <= ms["backbone_p95_ms"]
    assert measured["throughput"].value == pytest.approx(3000 / measured["latency_ms"].value)


def test_an_unreduced_model_has_no_form_of_attention(stand) -> None:
    measured = stand.measure(ReducedViT(stand.model, Schedule()), ONCE)
    assert measured["latency_ms"].protocol["attention"]["form"] is None
    unweighted = stand.measure(ReducedViT(stand.model, presets.constant(stand.model, 6, proportional="off")), ONCE)
    assert unweighted["latency_ms"].protocol["attention"]["form"] is None


def test_values_follow_from_the_turns(stand, monkeypatch) -> None:
    scripted(monkeypatch, noise="somebody", clock="cuda events")
    measured = stand.measure(ReducedViT(stand.model, Schedule()), Effort(rounds=3))
    assert [getattr(measured["latency_ms"], end) for end in ("low", "value", "high")] == [2.0, 3.0, 8.0]
    assert measured["latency_ratio"].value == 0.5  # of 1/2, 1/2, 4/5: of the ratios, not of the medians
    assert measured["throughput"].value == 1000.0
    protocol = measured["latency_ms"].protocol
    assert (protocol["backbone_ms"], protocol["noisy"], protocol["launch_bound"]) == (6.0, "somebody", True)
    assert protocol["p95_ms"] == pytest.approx(7.5)
    assert [protocol[name] for name in ("warmup", "rounds", "runs", "repeated")] == [4, 3, 2, 1]
    scripted(monkeypatch)
    assert "noisy" not in stand.measure(ReducedViT(stand.model, Schedule()), ONCE)["latency_ratio"].protocol


def test_the_interval_is_the_bootstraps() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(10, 1, 200)
    found = median("latency_ms", samples, {})
    ends = np.quantile(np.median(rng.choice(samples, (4000, 200)), axis=1), (0.025, 0.975))
    assert found.value == np.median(samples)
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=0.03)


def test_the_baseline_is_known_before_anything_is_timed_against_it(stand, timings, monkeypatch) -> None:
    order: list[int] = []
    find = stand_module.find_baseline
    monkeypatch.setattr(stand_module, "find_baseline", lambda *given, **how: order.append(len(timings)) or find(*given, **how))
    stand.measure(ReducedViT(stand.model, Schedule()), ONCE)
    stand.measure(ReducedViT(stand.model, Schedule()), ONCE)
    assert order == [0]  # once, and not inside the first warm-up


PEAKS = """
import torch
from models import make_model
from vittle import presets
from vittle.objectives.latency import memory
from vittle.reductions.vit import ReducedViT

tiny = make_model("plain")

def peak(batch, removed):
    model = ReducedViT(tiny, presets.constant(tiny, removed))
    images = torch.randn(batch, 3, *tiny.patch_embed.img_size)
    with torch.inference_mode():
        model(images)  # as after a timing: what is loaded at the first run is not the model's
        found = [memory.peak(lambda: model(images), tiny, torch.device("cpu")) for _ in range(20)]
    return min(one.value for one in found)  # whatever else the process does only adds

assert sum(one.nbytes for one in tiny.parameters()) / 1e6 < peak(32, 0) < 0.7 * peak(128, 0)
assert peak(128, 30) < peak(128, 0)
"""


@pytest.mark.skipif(not TOLD, reason="this system does not tell how much memory a process takes")
def test_memory_grows_with_the_batch_and_falls_with_merged_tokens() -> None:
    """In a process of its own: memory that earlier tests have left in pieces would be used again, and not counted."""
    subprocess.run([sys.executable, "-c", PEAKS], check=True, env={**os.environ, "PYTHONPATH": str(SUPPORT)})


def test_memory_is_absent_where_the_system_does_not_tell(stand, timings, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "nowhere")
    assert "memory" not in stand.measure(ReducedViT(stand.model, Schedule()), ONCE)


def test_another_type_is_timed_in_it_and_said(tiny) -> None:
    stand = make_stand(describe_backbone(tiny, "tiny"), device="cpu", batch_size=2, dtype="bfloat16")
    assert stand.images.dtype == next(stand.model.parameters()).dtype == torch.bfloat16
    model = ReducedViT(stand.model, presets.constant(stand.model, 6))
    with torch.inference_mode():
        assert model(stand.images).dtype == torch.bfloat16
    assert stand.measure(model, ONCE)["latency_ratio"].protocol["dtype"] == "bfloat16"


def test_a_batch_is_filled_from_what_there_is(tiny, splits) -> None:
    backbone = describe_backbone(tiny, "tiny")
    pixels = splits.search.pixels[:3]
    stand = make_stand(backbone, device="cpu", batch_size=7, pixels=pixels)
    expected = to_input(pixels[[0, 1, 2, 0, 1, 2, 0]], backbone.preprocessing, torch.device("cpu"))
    torch.testing.assert_close(stand.images, expected, rtol=0, atol=0)
    noise = [make_stand(backbone, device="cpu", batch_size=2).images for _ in range(2)]
    assert torch.equal(*noise)
    assert (noise[0].shape, noise[0].std() > 0.5) == ((2, 3, 64, 64), True)


def test_an_evaluation_has_every_objective(evaluator, timings) -> None:
    schedule = presets.constant(evaluator.model, 6)
    measured = evaluator.measure(schedule, profile="0123")
    assert set(measured) == {"macs", "parameters", "accuracy", "accuracy_drop", "divergence", *EVERY}
    assert measured["accuracy"].n == 20
    assert measured["latency_ratio"].protocol["profile"] == "0123"
    assert "profile" not in evaluator.measure(schedule)["latency_ratio"].protocol
    assert evaluator.measure(schedule, "confirmation")["accuracy"].n == 12
    efforts = [EFFORTS["search"], EFFORTS["search"], EFFORTS["confirmation"]]
    assert [(one["rounds"], one["precision"]) for one in timings] == [(one.rounds, one.precision) for one in efforts]
    assert evaluator.judge(schedule, "search")["accuracy"].value == measured["accuracy"].value
    assert len(timings) == 3


@pytest.mark.parametrize(("budget", "judged"), [("79%", False), ("80%", True), ("3.9ms", False), ("4ms", True)])
def test_a_schedule_over_budget_is_not_evaluated_on_images(evaluator, timings, budget: str, judged: bool) -> None:
    measured = evaluator.measure(presets.constant(evaluator.model, 1), budget=LatencyBudget.parse(budget))
    assert ("accuracy" in measured) == judged
    assert measured["latency_ms"].value == 4.0


def predicted(ratio: float) -> dict[str, Measurement]:
    about = {"source": "predicted"}
    return {
        "latency_ratio": Measurement("latency_ratio", ratio, 0.9 * ratio, 1.1 * ratio, 9, about),
        "latency_ms": Measurement("latency_ms", 5 * ratio, 4 * ratio, 6 * ratio, 9, about),
    }


@pytest.mark.parametrize(("ratio", "timed"), [(0.7, True), (0.77, True), (0.79, False), (0.9, False)])
def test_a_prediction_stands_unless_the_schedule_enters_the_front(evaluator, timings, ratio: float, timed: bool) -> None:
    schedule = presets.constant(evaluator.model, 6)
    alone = evaluator.measure(schedule)
    rival = {**alone, "latency_ratio": exact("latency_ratio", 0.7)}
    timings.clear()
    guess = predicted(ratio)
    # Whether a predicted schedule is within the budget is for the caller to know.
    over = LatencyBudget.parse("1%")
    measured = evaluator.measure(
        schedule, profile="0123", predicted=guess, enters=lambda found: may_enter_front(found, [rival], GOALS), budget=over
    )
    assert measured["accuracy"].value == alone["accuracy"].value
    assert len(timings) == timed
    if timed:
        assert set(measured) == set(alone)
        assert measured["latency_ratio"].value == 0.8
        protocol = measured["latency_ratio"].protocol
        assert (protocol["profile"], protocol["predicted"], protocol.get("source")) == ("0123", ratio, None)
    else:
        assert set(measured) == {"macs", "parameters", "accuracy", "accuracy_drop", "divergence", *guess}
        assert {name: measured[name] for name in guess} == guess


def test_accuracy_counts_hits(tiny, splits) -> None:
    preprocessing = describe_backbone(tiny, "tiny").preprocessing
    predicted = predict(tiny, splits.search.pixels, preprocessing, torch.device("cpu"))
    with torch.inference_mode():
        expected = tiny(to_input(splits.search.pixels, preprocessing, torch.device("cpu"))).argmax(-1).numpy()
    assert np.array_equal(predicted, expected)


def test_input_is_normalised(tiny) -> None:
    preprocessing = describe_backbone(tiny, "tiny").preprocessing
    pixels = np.full((1, 2, 2, 3), 255, np.uint8)
    expected = (1 - torch.tensor(preprocessing.mean)) / torch.tensor(preprocessing.std)
    torch.testing.assert_close(to_input(pixels, preprocessing, torch.device("cpu"))[0, :, 0, 0], expected)


def test_without_labels_the_backbone_is_the_reference(tiny, splits, timings) -> None:
    unlabelled = Splits(Images(splits.search.pixels, None), Images(splits.held_out.pixels, None))
    evaluator = Evaluator(describe_backbone(tiny, "tiny"), unlabelled, device="cpu", batch_size=4)
    agreement = evaluator.measure(Schedule())["accuracy"]
    assert (agreement.value, agreement.protocol["against"]) == (1.0, "backbone")


def test_logits_that_are_not_finite_are_a_failure(tiny, splits) -> None:
    with torch.no_grad():
        tiny.head.bias[3] = float("nan")
    preprocessing = describe_backbone(tiny, "tiny").preprocessing
    with pytest.raises(FloatingPointError, match="not finite"):
        predict(tiny, splits.search.pixels, preprocessing, torch.device("cpu"))


def test_a_device_is_named_in_words() -> None:
    assert hardware({"device": "AMD EPYC", "threads": 2}) == "AMD EPYC, 2 threads"
    assert hardware({"device": "AMD EPYC", "threads": 1, "torch": "2"}) == "AMD EPYC, 1 thread"
    assert hardware({"device": "H100", "processors": 132}) == "H100, 132 processors"
