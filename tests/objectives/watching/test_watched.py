"""A watched model: it answers as the plain ones do, sees a shift, falls back, says so, and returns."""

import copy
import json
import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vittle
from counting import count_macs
from models import make_model
from operators import Recurring, combine, prune, recur, reduced, sparse
from vittle import Schedule, VittleError, presets
from vittle.objectives.quality.accuracy import to_input
from vittle.objectives.quality.corruptions import WORST, corrupted
from vittle.objectives.watching.calibration import Calibration
from vittle.objectives.watching.monitor import judged
from vittle.objectives.watching.watched import Watched
from vittle.reductions import digits
from vittle.reductions.backbone import load_backbone
from vittle.reductions.matching import bipartite
from vittle.reductions.tokens import take
from vittle.reductions.vit import ReducedViT

WINDOW = 48
CLEAN, SPOILT = slice(0, 240), slice(240, 440)  # of the digits of a search

RECURSIONS = {
    "random": recur(1, 0.7, 0.3),
    "learned": recur(0.8, 0.6, 0.4, router="learned"),
    "norm, two shared blocks": recur(1, 0.6, 0.3, shared=2, router="norm"),
}


def tiny_recursion(schedule: Schedule, family: str = "plain") -> ReducedViT:
    model = make_model(family)
    recursion = next(part for part in schedule.reductions if part.name == "recursion")
    return ReducedViT(model, schedule, {"recursion": Recurring.of_model(model, recursion.shared)}, form="mask")


def some(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def watch_tiny(model: nn.Module, **more: object) -> Watched:
    return vittle.watch(model, some(16), window=8, false_alarms=0.1, **more)


@pytest.fixture(scope="module")
def backbone():
    return load_backbone()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return digits.splits()["search"][0]


@pytest.fixture(scope="module")
def see(backbone) -> Callable[[np.ndarray], Tensor]:
    return lambda pixels: to_input(pixels, backbone.preprocessing, torch.device("cpu"))


@pytest.fixture(scope="module", params=["recursion", "merging"])
def calibrated(request, backbone, pixels, see) -> tuple[ReducedViT, Calibration]:
    """A reduced model of digits, and a calibration of it."""
    if request.param == "recursion":
        model = ReducedViT(
            backbone.model, recur(1, 0.7, 0.3), {"recursion": Recurring.of_model(backbone.model, 1)}, form="mask"
        )
    else:
        model = ReducedViT(backbone.model, presets.constant(backbone.model, 5), form="mask")
    labels = torch.from_numpy(digits.splits()["search"][1][CLEAN])
    return model, vittle.watch(model, see(pixels[CLEAN]), labels=labels, window=WINDOW, false_alarms=0.01).calibration


# What it answers


@torch.inference_mode()
@pytest.mark.parametrize("name", RECURSIONS)
def test_a_recursion_answers_as_the_plain_ones_do(name: str) -> None:
    model = tiny_recursion(RECURSIONS[name])
    recursion = RECURSIONS[name].reductions[0]
    images = some(3)
    assert sum(recursion.capacities) in (pytest.approx(1.8), pytest.approx(1.9), pytest.approx(2))
    for more, steps in ({}, 2), ({"full_depth": True}, 3):
        watched = watch_tiny(model, **more)
        uniform = tiny_recursion(recur(*(1,) * steps, shared=recursion.shared))
        torch.testing.assert_close(watched(images), model(images), atol=0, rtol=0)
        torch.testing.assert_close(watched.run("uniform", images)[0], uniform(images), atol=1e-6, rtol=1e-6)
        assert watched.report()["calibration"]["modes"]["uniform"]["macs"] == vittle.macs(model.shape, uniform.schedule)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["key", "energy", "importance", "uneven windows", "decoupled", "pruning and merging"])
def test_merging_falls_back_to_the_backbone_and_goes_on_looking(name: str) -> None:
    backbone = make_model("registers")
    model = reduced(backbone, name)
    images = torch.randn(16, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    watched = vittle.watch(model, images, window=8, false_alarms=0.1)
    torch.testing.assert_close(watched(images[:3]), model(images[:3]), atol=0, rtol=0)
    torch.testing.assert_close(watched.run("uniform", images[:3])[0], backbone(images[:3]), atol=1e-5, rtol=1e-5)
    names = [[signal.name for signal in watched.calibration.modes[mode].signals] for mode in ("scheduled", "uniform")]
    assert (
        names[0]
        == names[1]
        == [f"merging in block {row.index}" for row in model.work if any(a.reduction == "merging" for a in row.acts)]
    )


@torch.inference_mode()
def test_a_fall_back_of_the_callers_runs() -> None:
    backbone = make_model("plain")
    milder = presets.constant(backbone, 2)
    watched = watch_tiny(reduced(backbone, "key"), fall_back=milder)
    torch.testing.assert_close(watched.run("uniform", some(3))[0], vittle.apply(backbone, milder)(some(3)))
    with pytest.raises(VittleError, match="nothing to watch in the fall-back, so there would be no return"):
        watch_tiny(reduced(backbone, "key"), fall_back=sparse(backbone))
    with pytest.raises(
        VittleError, match="the backbone's own blocks are not there any more; accepted: a fall-back that recurs"
    ):
        watch_tiny(tiny_recursion(RECURSIONS["random"]), fall_back=Schedule())


@torch.inference_mode()
def test_both_modes_share_all_weights_and_move_together() -> None:
    for model in (tiny_recursion(RECURSIONS["random"]), reduced(make_model("plain"), "key")):
        watched = watch_tiny(model)
        own = {id(weight) for weight in model.parameters()}
        assert {id(weight) for weight in watched.parameters()} == own
        moved = copy.deepcopy(watched).double()
        for mode in ("scheduled", "uniform"):
            logits = moved.run(mode, some(2).double())[0]
            assert logits.dtype == torch.float64
            torch.testing.assert_close(logits.float(), watched.run(mode, some(2))[0], atol=1e-4, rtol=1e-4)
    moved = tiny_recursion(RECURSIONS["random"]).double()  # moved before: steps that do not run are moved along
    assert vittle.watch(moved, some(16), window=8, false_alarms=0.1)(some(1).double()).dtype == torch.float64


def test_in_training_only_the_schedule_runs() -> None:
    watched = watch_tiny(reduced(make_model("plain"), "key")).train()
    watched(some(16)).sum().backward()
    assert all(weight.grad is not None for weight in watched.parameters())
    assert watched.report()["images"] == 0
    watched.eval()(some(16))
    assert watched.report()["images"] == 16


# What it watches


@torch.inference_mode()
@pytest.mark.parametrize("name", RECURSIONS)
def test_the_signals_of_a_recursion_are_the_scores_of_those_that_enter_a_step(name: str) -> None:
    model = tiny_recursion(RECURSIONS[name])
    weights = model.adapters["recursion"]
    states = list(model.states(some(3)))
    _, signals = model.forward_signals(some(3))
    assert [signal.step for signal in model.signals] == [0, 1, 2]
    entering = torch.arange(64).expand(3, 64)
    for found, signal in zip(signals, model.signals, strict=True):
        visit = signal.visit
        z = weights.routers[signal.step](states[visit][:, 1:])
        torch.testing.assert_close(found, z.gather(1, entering), atol=1e-5, rtol=1e-5)
        assert z.std() > 0.01
        # Whoever came out changed took part.
        took_part = (states[visit + 1] != states[visit]).any(-1)[:, 1:]
        entering = torch.stack([one.nonzero().squeeze(1) for one in took_part])
        assert entering.shape[1] == model.work[visit].keys - 1


@torch.inference_mode()
def test_the_signals_of_merging_are_the_mean_similarities_of_what_merges() -> None:
    backbone = make_model("plain")
    for model, leaves in ((reduced(backbone, "feature"), 58), (reduced(backbone, "pruning and merging by key and size"), None)):
        _, signals = model.forward_signals(some(3))
        assert [found.shape for found in signals] == [(3, 1)] * len(model.signals)
        if leaves is None:
            continue
        block = backbone.blocks[0]
        entering = backbone._pos_embed(backbone.patch_embed(some(3)))
        attended = entering + block.attn(block.norm1(entering))
        matching = bipartite.match(attended, 65 - leaves, 1)
        pairs = torch.nn.functional.cosine_similarity(
            take(attended, matching.sources), take(attended, matching.kept.gather(1, matching.targets)), dim=-1
        )
        torch.testing.assert_close(signals[0], pairs.mean(1, keepdim=True), atol=1e-5, rtol=1e-5)


def test_where_blocks_recur_merging_is_not_watched_besides() -> None:
    backbone = make_model("plain")
    schedule = combine(presets.kept(backbone, [58, 53, 53, 53]), recur(1, 0.5))
    model = ReducedViT(backbone, schedule, {"recursion": Recurring.of_model(backbone, 1)})
    assert {signal.reduction for signal in model.signals} == {"recursion", "merging"}
    modes = watch_tiny(model).calibration.modes
    assert [signal.name for signal in modes["scheduled"].signals] == ["recursion step 1", "recursion step 2"]
    assert [signal.name for signal in modes["uniform"].signals] == ["recursion step 1", "recursion step 2"]
    assert modes["uniform"].schedule == recur(1, 1).to_dict()


@torch.inference_mode()
@pytest.mark.parametrize("name", [*RECURSIONS, "decoupled", "key"])
def test_what_watching_costs_is_what_a_counting_hook_sees(name: str, monkeypatch) -> None:
    model = tiny_recursion(RECURSIONS[name]) if name in RECURSIONS else reduced(make_model("plain"), name)
    watched = watch_tiny(model)
    for mode, known in watched.calibration.modes.items():
        counted = watched.modes[mode]
        monkeypatch.setattr(counted.model, "form", "mask")  # others have channels of their own
        assert known.macs + known.watching_macs == count_macs(counted, some(1), monkeypatch)
        monkeypatch.undo()


@torch.inference_mode()
@pytest.mark.parametrize("name", ["learned", "key"])
def test_each_mode_is_one_graph_and_is_exported_with_its_state(name: str) -> None:
    model = tiny_recursion(RECURSIONS[name]) if name in RECURSIONS else reduced(make_model("plain"), name)
    watched = watch_tiny(model)
    for mode in watched.modes.values():
        expected = mode(some(3))
        compiled = torch.compile(mode, backend="eager", fullgraph=True)
        exported = torch.export.export(mode, (some(2),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
        for run in (compiled, exported):
            logits, exceeding = run(some(3))
            torch.testing.assert_close(logits, expected[0], atol=1e-5, rtol=1e-5)
            assert torch.equal(exceeding, expected[1])
    torch._dynamo.reset()


# What it does


@torch.inference_mode()
def test_a_shift_is_seen_and_logged_the_mode_switches_and_returns(calibrated, pixels, see, caplog) -> None:
    model, calibration = calibrated
    switches = []
    watched = vittle.watch(model, calibration, return_after=3, on_switch=switches.append)
    clean = see(pixels[CLEAN]).split(24)
    noisy = see(corrupted(pixels[SPOILT], "noise", 0.3, range(200))).split(24)
    for batch in clean:
        watched(batch)
    assert (watched.mode, caplog.records) == ("scheduled", [])
    with caplog.at_level(logging.WARNING, "vittle.watch"):
        for batch in noisy:
            logits = watched(batch)
        assert watched.mode == "uniform"
        torch.testing.assert_close(logits, watched.run("uniform", noisy[-1])[0])
        assert not torch.equal(logits, watched.run("scheduled", noisy[-1])[0])
        (alarm,) = caplog.messages
        assert alarm.startswith(f"alarm after {switches[0].images} images: ")
        assert f"{switches[0].signal} is {switches[0].distance:.4f} from calibration" in alarm
        assert f"(threshold {switches[0].threshold:.4f}), now uniform" in alarm
        for batch in clean:
            watched(batch)
    assert watched.mode == "scheduled"
    assert [message.split()[0] for message in caplog.messages] == ["alarm", "return"]
    assert [switch.to for switch in switches] == ["uniform", "scheduled"]
    report = watched.report()
    assert (report["alarms"], report["returns"]) == (1, 1)
    assert json.loads(json.dumps(report)) == report


@torch.inference_mode()
def test_a_model_that_falls_back_to_its_own_schedule_only_tells() -> None:
    for model in (tiny_recursion(RECURSIONS["learned"]), reduced(make_model("plain"), "key")):
        told = []
        watched = watch_tiny(model, fall_back=model.schedule, alarm_after=1, on_switch=told.append)
        for batch in (10 * some(16, seed=2)).split(4):
            torch.testing.assert_close(watched(batch), model(batch), atol=0, rtol=0)
        assert [switch.to for switch in told] == ["uniform"]


@torch.inference_mode()
def test_single_odd_images_change_nothing(calibrated, pixels, see) -> None:
    model, calibration = calibrated
    watched = vittle.watch(model, calibration, alarm_after=1)
    mixed = pixels[CLEAN].copy()
    mixed[::24] = 0
    for batch in see(mixed).split(48):
        watched(batch)
    assert (watched.mode, watched.report()["windows_over"]) == ("scheduled", 0)


@torch.inference_mode()
def test_windows_of_images_that_it_has_not_seen_rarely_exceed(calibrated, see) -> None:
    model, calibration = calibrated
    watched = vittle.watch(model, calibration)
    held_out = see(digits.splits()["held-out"][0])
    rng = np.random.default_rng(0)
    for mode in ("scheduled", "uniform"):
        histograms = np.concatenate([watched.run(mode, batch)[1] for batch in held_out.split(64)])
        windows = [histograms[rng.choice(len(histograms), WINDOW)].sum(0) for _ in range(200)]
        # 1 in 100 is stated over all calibrations; any one is a little off.
        assert np.mean([judged(calibration, mode, window).over for window in windows]) <= 0.04


@torch.inference_mode()
def test_images_that_are_no_numbers_are_an_alarm() -> None:
    watched = watch_tiny(tiny_recursion(RECURSIONS["random"]), alarm_after=1)
    watched(torch.full((8, 3, 64, 64), float("nan")))
    assert watched.mode == "uniform"


@torch.inference_mode()
def test_a_callback_that_fails_is_logged_and_the_answer_is_given(caplog) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no pager")

    watched = watch_tiny(tiny_recursion(RECURSIONS["random"]), alarm_after=1, on_switch=fail)
    assert watched(100 * torch.ones(8, 3, 64, 64)).shape == (8, 10)
    assert "what was to be told of the switch to uniform failed" in caplog.text
    assert "no pager" in caplog.text


@torch.inference_mode()
def test_what_it_tells_of_both_modes_is_so(calibrated, pixels, see) -> None:
    model, calibration = calibrated
    labels = digits.splits()["search"][1][CLEAN]
    watched = vittle.watch(model, calibration)
    answers = {mode: watched.run(mode, see(pixels[CLEAN]))[0].argmax(-1).numpy() for mode in ("scheduled", "uniform")}
    about = watched.report()["calibration"]
    assert about["agreement"] == pytest.approx((answers["scheduled"] == answers["uniform"]).mean(), abs=5e-5)
    for mode, answered in answers.items():
        assert about["modes"][mode]["accuracy"] == pytest.approx((answered == labels).mean(), abs=5e-5)
    assert about["modes"]["scheduled"]["macs"] == vittle.macs(model.shape, model.schedule)


@torch.inference_mode()
def test_the_worst_is_seen_and_what_both_modes_make_of_it(calibrated, backbone, pixels) -> None:
    model, calibration = calibrated
    watched = vittle.watch(model, calibration)
    labels = digits.splits()["search"][1]
    few = slice(300, 300 + WINDOW)
    cases = vittle.worst_cases(watched, pixels[few], labels[few])
    assert [(case.kind, case.strength) for case in cases] == [(None, 0.0), *WORST]
    by = {(case.kind, case.strength): case for case in cases}
    assert not by[None, 0.0].alarm
    for seen in (("blank", 0.0), ("blank", 0.5), ("noise", 0.3), ("noise", 1.0)):
        assert by[seen].alarm
        assert by[seen].stays
    turned = to_input(np.rot90(pixels[few], axes=(1, 2)).copy(), backbone.preprocessing, torch.device("cpu"))
    assert by["turned", 1].scheduled == pytest.approx((model(turned).argmax(-1).numpy() == labels[few]).mean())
    assert watched.report()["images"] == 0
    unlabelled = {(case.kind, case.strength): case for case in vittle.worst_cases(watched, pixels[few])}
    assert unlabelled[None, 0.0].uniform == 1
    assert unlabelled[None, 0.0].scheduled == unlabelled[None, 0.0].agreement == by[None, 0.0].agreement
    with pytest.raises(VittleError, match="there are 9 images to spoil; accepted: at least a window of 48"):
        vittle.worst_cases(watched, pixels[:9])


# What is kept, and what is refused


@torch.inference_mode()
def test_a_calibration_that_was_saved_needs_no_images(tmp_path) -> None:
    model = tiny_recursion(RECURSIONS["random"])
    watched = watch_tiny(model)
    watched.calibration.save(tmp_path / "best.watch.json")
    again = vittle.watch(model, tmp_path / "best.watch.json")
    assert again.calibration == watched.calibration
    for mode in ("scheduled", "uniform"):
        for ours, theirs in zip(watched.run(mode, some(4)), again.run(mode, some(4)), strict=True):
            assert np.array_equal(ours, theirs)
    for other, reason in (
        (tiny_recursion(recur(1, 0.7, 0.4)), r"another schedule \(scheduled\)"),
        (tiny_recursion(RECURSIONS["random"]), "other weights"),
    ):
        with torch.no_grad():
            next(other.backbone.blocks[0].parameters()).add_(1)
        with pytest.raises(VittleError, match=f"the calibration is of {reason}"):
            vittle.watch(other, tmp_path / "best.watch.json")
    with pytest.raises(VittleError, match=r"another schedule \(uniform\)"):
        vittle.watch(model, tmp_path / "best.watch.json", full_depth=True)


def test_batches_with_labels_are_taken_as_a_loader_gives_them() -> None:
    model = reduced(make_model("plain"), "key")
    images, labels = some(16), torch.arange(16) % 10
    whole = vittle.watch(model, images, labels=labels, window=8, false_alarms=0.1).calibration
    loaded = vittle.watch(model, zip(images.split(5), labels.split(5), strict=True), window=8, false_alarms=0.1).calibration
    assert loaded.modes["scheduled"].accuracy == whole.modes["scheduled"].accuracy is not None
    assert loaded.modes["scheduled"].signals[0].edges == pytest.approx(whole.modes["scheduled"].signals[0].edges, abs=1e-5)
    assert (
        vittle.watch(model, iter(images.split(5)), window=8, false_alarms=0.1).calibration.modes["scheduled"].accuracy is None
    )


def test_what_cannot_be_watched_is_refused() -> None:
    backbone = make_model("plain")
    model = reduced(backbone, "key")
    with pytest.raises(VittleError, match="cannot watch a VisionTransformer; accepted: what vittle.apply gives"):
        vittle.watch(backbone, some(16))
    for nothing in (Schedule(), prune(backbone), sparse(backbone)):
        with pytest.raises(VittleError, match="nothing to watch in this schedule"):
            vittle.watch(vittle.apply(backbone, nothing), some(16))
    with pytest.raises(VittleError, match="there are 16 images to calibrate on; accepted: at least 512, two windows"):
        vittle.watch(model, some(16))
    with pytest.raises(VittleError, match="false_alarms is 0.5; accepted: 0.0001 to 0.1 of the windows"):
        vittle.watch(model, some(16), window=8, false_alarms=0.5)
    with pytest.raises(VittleError, match="there are 3 labels for 16 images; accepted: one for each"):
        vittle.watch(model, some(16), labels=torch.zeros(3), window=8)
    with pytest.raises(VittleError, match="labels are given beside batches"):
        vittle.watch(model, [some(16)], labels=torch.zeros(16), window=8)
    with pytest.raises(VittleError, match="some batches have labels and some have none"):
        vittle.watch(model, [some(8), (some(8), torch.zeros(8))], window=8)
    with pytest.raises(VittleError, match="fall_back and full_depth are given"):
        vittle.watch(model, some(16), window=8, fall_back=Schedule(), full_depth=True)
