"""A schedule judged rung by rung, with and without what the backbone's own pass has kept."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from models import make_model
from vittle import Schedule, presets
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.evaluator import Evaluator
from vittle.objectives.fronts import early_stopping
from vittle.objectives.fronts.front import may_enter_front
from vittle.objectives.goals import inference_goals
from vittle.objectives.measurement import exact
from vittle.objectives.quality.accuracy import BackboneAnswers, divergence, judge, losses
from vittle.objectives.quality.images import Images, Splits
from vittle.reductions.backbone import describe_backbone
from vittle.spaces import Space, costs

GOALS = inference_goals(LatencyBudget.parse("60%"))


@pytest.fixture
def backbone():
    return describe_backbone(make_model("plain"), "plain")


@pytest.fixture
def many() -> Splits:
    """Images for three rungs: 64, 128 and 200."""
    rng = np.random.default_rng(0)

    def make(n: int) -> Images:
        return Images(rng.integers(0, 256, (n, 64, 64, 3), np.uint8), rng.integers(0, 10, n))

    return Splits(make(200), make(12))


def evaluator(backbone, splits, **how) -> Evaluator:
    return Evaluator(backbone, splits, device="cpu", batch_size=2, **how)


def never(measured) -> bool:
    """No front is entered, so latency is not measured."""
    return False


def predicted(share: float = 0.5):
    return {name: exact(name, share) for name in ("latency_ratio", "latency_ms", "throughput")}


def without_effort(measured):
    """Measurements apart from what they took."""
    kept = {name for name in measured["accuracy"].protocol if name not in ("image_macs", "seconds")}
    protocol = {name: measured["accuracy"].protocol[name] for name in kept}
    return {**measured, "accuracy": replace(measured["accuracy"], protocol=protocol)}


def drawn(backbone, count: int) -> list[Schedule]:
    space, rng = Space(backbone.shape, ("pruning", "merging")), np.random.default_rng(1)
    return [space.schedule(space.draw(rng)) for _ in range(count)]


@pytest.mark.parametrize("share_kept", [1.0, 0.4, 0.0])
def test_what_is_kept_of_the_backbones_pass_changes_no_outcome(backbone, many, share_kept) -> None:
    plain, dense = evaluator(backbone, many), evaluator(backbone, many)
    everything = sum(part.nbytes for packed in dense.record(2**40).kept.values() for part in packed if part is not None)
    known = dense.record(int(share_kept * everything))
    assert bool(known.kept) == (share_kept > 0)
    cached = evaluator(backbone, many, known=known)
    for schedule in drawn(backbone, 8):
        ends = [
            [without_effort(seen.measurements) for seen in one.climb(schedule, predicted=predicted(), enters=never)]
            for one in (plain, cached)
        ]
        assert ends[0] == ends[1]
    assert cached.spent < plain.spent if share_kept else cached.spent < plain.spent + 1


def test_work_is_counted_as_it_is_done(backbone, many) -> None:
    """Blocks that were kept are not paid for again."""
    shape, whole = backbone.shape, costs.macs(backbone.shape, Schedule())
    schedule = presets.delayed(shape, 2, 4)
    measuring = evaluator(backbone, many)
    measuring.know(measuring.record(2**40))
    assert measuring.spent == 200 * whole
    macs = costs.macs(shape, schedule)
    spent = measuring.judge(schedule, "search")["accuracy"].protocol["image_macs"]
    assert spent == 200 * (macs - costs.dense_macs_through(shape, 2)) < 200 * macs
    assert measuring.judge(Schedule(), "search")["accuracy"].protocol["image_macs"] == 0
    bare = evaluator(backbone, many)
    bare.know(bare.record())
    assert bare.judge(schedule, "search")["accuracy"].protocol["image_macs"] == 200 * macs


def test_schedules_that_climb_together_count_their_own_work(backbone, many) -> None:
    def work(*together: Schedule) -> list[float]:
        measuring = evaluator(backbone, many)
        measuring.know(measuring.record())
        rungs = zip(*(measuring.climb(one, predicted=predicted(), enters=never) for one in together), strict=True)
        return [seen.measurements["accuracy"].protocol["image_macs"] for seen in list(rungs)[-1]]

    first, second = presets.constant(backbone.shape, 6), presets.constant(backbone.shape, 2)
    assert work(first, second) == [*work(first), *work(second)]


def test_rungs_double_and_tell_more_and_more(backbone, many) -> None:
    schedule = presets.constant(backbone.shape, 6)
    seen = list(evaluator(backbone, many).climb(schedule, predicted=predicted(), enters=never))
    assert [one.measurements["accuracy"].n for one in seen] == [32, 64, 128, 200]
    assert [one.verdict for one in seen] == ["going", "going", "going", "complete"]
    assert [one.measurements["accuracy"].protocol.get("of") for one in seen] == [200, 200, 200, None]
    answers = [early_stopping.right(one.measurements["accuracy"]) for one in seen]
    assert all((answers[-1][: len(part)] == part).all() for part in answers)
    assert seen[-1].measurements["accuracy"].value == answers[-1].mean()
    assert seen[0].measurements["divergence"].value > 0


def test_an_estimate_stands_on_all_images_of_the_backbone(backbone, many) -> None:
    """A schedule that changes nothing is estimated exactly, however few images it has seen."""
    whole = evaluator(backbone, many)
    reference = whole.judge(Schedule(), "search")["accuracy"]
    first = next(whole.climb(Schedule((), "prefix"), predicted=predicted(), enters=never)).measurements
    assert first["accuracy"].n == 32
    assert first["accuracy"].value == pytest.approx(reference.value)
    assert first["accuracy_drop"].value == 0
    assert first["divergence"].value == pytest.approx(0, abs=1e-9)


def test_without_labels_the_backbones_answers_are_right(backbone, many) -> None:
    unlabelled = Splits(Images(many.search.pixels, None), Images(many.held_out.pixels, None))
    measuring = evaluator(backbone, unlabelled)
    assert measuring.judge(Schedule(), "search")["accuracy"].value == 1
    judged = measuring.judge(presets.constant(backbone.shape, 6), "search")
    assert judged["accuracy"].protocol["against"] == "backbone"
    assert judged["accuracy"].value == pytest.approx(1 - judged["accuracy_drop"].value)
    assert "worst" not in judged["accuracy_drop"].protocol


def test_the_latency_of_a_trial_that_enters_the_front_is_measured(backbone, many) -> None:
    measuring = evaluator(backbone, many)
    schedule = presets.constant(backbone.shape, 6)
    measured = measuring.measure(schedule, predicted=predicted(), enters=lambda _: True, profile="key")
    assert measured["latency_ratio"].protocol["predicted"] == 0.5
    rival = {**measured, "latency_ratio": exact("latency_ratio", 0.4), "macs": exact("macs", 1)}
    beaten = measuring.measure(schedule, predicted=predicted(), enters=lambda found: may_enter_front(found, [rival], GOALS))
    assert beaten["latency_ratio"] == exact("latency_ratio", 0.5)


def test_divergence_is_that_of_the_softmax() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(5, 7)).astype(np.float32) * 3 for _ in range(2))
    expected = torch.nn.functional.kl_div(
        torch.tensor(second).log_softmax(-1), torch.tensor(first).log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    assert divergence(first, second) == pytest.approx(expected.numpy(), rel=1e-4)
    assert divergence(first, first) == pytest.approx(np.zeros(5), abs=1e-12)
    assert np.isfinite(divergence(first * 1e4, second * 1e4)).all()


def test_what_is_lost_in_each_class_and_where_most() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2])
    logits = np.eye(3, dtype=np.float32)[labels]
    reference = BackboneAnswers.of(logits, labels)
    right = np.array([True, False, False, False, True, True])
    found = losses(right, reference)
    assert found["worst"] == [[1, pytest.approx(2 / 3), 3], [0, 0.5, 2]]
    assert found["classes"] == {"lost": [1, 2, 0], "images": [2, 3, 1]}
    gained = losses(right, BackboneAnswers(logits, labels, np.array([True, False, False, False, False, False]), labelled=True))
    assert gained == {"worst": [], "classes": {"lost": [0, -1, -1], "images": [2, 3, 1]}}
    many = BackboneAnswers.of(np.zeros((6, 1001), np.float32), labels)
    assert set(losses(right, many)) == {"worst"}
    judged = judge(np.eye(3, dtype=np.float32)[[0, 1, 1, 0, 1, 2]], reference, {})
    assert judged["accuracy"].value == pytest.approx(4 / 6)
    assert judged["accuracy_drop"].value == pytest.approx(2 / 6)
    assert judged["accuracy_drop"].protocol["worst"][0][:2] == [0, 0.5]


def test_a_rung_is_one_look_at_few_images_for_probing(backbone, many) -> None:
    measuring = evaluator(backbone, many)
    apart = measuring.divergence(presets.constant(backbone.shape, 6))
    assert apart.shape == (32,)
    assert (apart > 0).any()


def test_nobody_who_holds_the_device_asks_for_it_again(backbone, many, monkeypatch) -> None:
    """Whoever waits to measure in between would wait for the first lease, and the second lease for them."""
    held = []

    @contextmanager
    def shared(device):
        assert not held
        held.append(device)
        yield
        held.pop()

    monkeypatch.setattr("vittle.objectives.latency.device_lock.shared", shared)
    schedule = presets.constant(backbone.shape, 6)
    for ask in (Evaluator.judge, Evaluator.divergence):
        measuring = evaluator(backbone, many)  # one that has yet to see the backbone
        phases = [()] if ask is Evaluator.divergence else [("search",), ("confirmation",)]
        for phase in phases:
            ask(measuring, schedule, *phase)
    assert not held


def test_what_is_over_the_budget_is_said_and_not_judged(backbone, many) -> None:
    """The last evaluation alone has a verdict, whatever the way to it."""
    schedule = presets.constant(backbone.shape, 6)
    (over,) = evaluator(backbone, many).climb(schedule, budget=LatencyBudget.parse("0.001%"))
    assert over.verdict == "over budget"
    assert "accuracy" not in over.measurements
    assert GOALS.budget.objective in over.measurements
    within = list(evaluator(backbone, many).climb(schedule, budget=LatencyBudget.parse("100000%")))
    assert [one.verdict for one in within] == ["going"] * 3 + ["complete"]
    assert all(set(GOALS.objectives) <= set(one.measurements) for one in within)
    (dense,) = evaluator(backbone, many).climb(Schedule())
    assert dense.verdict == "complete"
