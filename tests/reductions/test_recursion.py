"""Recursion as it runs: who takes part, which weights, and that it is the backbone where it has nothing to share."""

import copy

import pytest
import torch
from torch import nn

import vittle
from models import make_model
from operators import RECURRING, Recurring, recur, reduced
from vittle import Schedule, ScheduleError, VittleError
from vittle.reductions.backbone import describe_backbone, shape_of
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.vit import ReducedViT
from vittle.spaces import Recursion, costs


@pytest.fixture
def model() -> nn.Module:
    return make_model("plain")


def active(model: ReducedViT, images: torch.Tensor) -> list[torch.Tensor | None]:
    """By visit, the positions of those that take part."""
    found, state = [], model.embed(images)
    for row in model.work:
        state, _ = model._visit(row, state)
        found.append(state.active if row.resting else None)
    return found


@torch.inference_mode()
@pytest.mark.parametrize("family", ["plain", "layer scale", "registers", "scaled norms, no biases"])
def test_blocks_that_are_all_the_same_are_the_backbone_itself(family: str, images_for) -> None:
    model = make_model(family)
    model.blocks[2].load_state_dict(model.blocks[1].state_dict())
    blocks = RecursiveBlocks.from_backbone(model, steps=2)
    for step in blocks.steps:
        for name in ("ls1", "ls2"):
            scale = getattr(model.blocks[1], name)
            if not isinstance(scale, nn.Identity):
                step[0].get_submodule(name).weight.copy_(scale.gamma)
    schedule = Schedule((Recursion(weights=blocks.name, capacities=(1, 1)),))
    fast = ReducedViT(model, schedule, {"recursion": blocks})
    torch.testing.assert_close(fast(images_for(model)), model(images_for(model)), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["recursion", "recursion by what was learned", "recursion by norm, two shared blocks"])
def test_who_rests_once_rests_until_the_last_block(model, images_for, name: str) -> None:
    fast = reduced(model, name)
    shares = dict(enumerate(active(fast, images_for(model))))
    before: set[int] | None = None
    for row in fast.work:
        there = shares[row.index]
        if there is None:
            continue
        assert there.shape[1] == row.keys
        assert (there.diff(dim=1) > 0).all()  # in their order, so that the grid stays one
        assert (there[:, : model.num_prefix_tokens] == torch.arange(model.num_prefix_tokens)).all()
        now = set(there[0].tolist())
        assert before is None or now <= before
        before = now
    assert before is not None


@torch.inference_mode()
def test_the_longest_take_part_where_the_norm_decides(model, images_for) -> None:
    fast = reduced(model, "recursion by norm, two shared blocks")
    images = images_for(model)
    states = list(fast.states(images))
    routed = next(row for row in fast.work if row.resting)
    longest = states[routed.index][:, 1:].norm(dim=-1).argsort(dim=1, descending=True)[:, : routed.keys - 1]
    found = active(fast, images)[routed.index][:, 1:] - 1
    assert torch.equal(longest.sort(dim=1).values, found)


@torch.inference_mode()
def test_the_highest_scores_take_part_where_a_router_decides(model, images_for) -> None:
    fast = reduced(model, "recursion by what was learned")
    blocks = Recurring.of_model(model, 1)
    images = images_for(model)
    states = list(fast.states(images))
    routed = next(row for row in fast.work if row.resting)
    layer = blocks.routers[routed.visit.step].layer
    normed = states[routed.index][:, 1:]
    normed = (normed - normed.mean(-1, keepdim=True)) / (normed.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    highest = (normed @ layer.weight[0]).argsort(dim=1, descending=True)[:, : routed.keys - 1]
    assert torch.equal(highest.sort(dim=1).values, active(fast, images)[routed.index][:, 1:] - 1)


@torch.inference_mode()
def test_chance_takes_the_same_positions_of_every_image(model, images_for) -> None:
    fast = reduced(model, "recursion")
    for there in active(fast, images_for(model)):
        if there is not None:
            assert (there == there[:1]).all()


@torch.inference_mode()
def test_who_rests_is_left_as_it_is(model, images_for) -> None:
    fast = reduced(model, "recursion")
    states, there = list(fast.states(images_for(model))), active(fast, images_for(model))
    for row, before, after in zip(fast.work, states, states[1:], strict=False):
        if there[row.index] is not None:
            same = (before == after).all(-1)
            taking_part = torch.zeros_like(same).scatter(1, there[row.index], True)
            assert torch.equal(same, ~taking_part)


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("router", ["random", "learned"])
def test_an_applied_model_holds_the_weights_that_are_counted_and_no_others(model, tmp_path, shared: int, router: str) -> None:
    blocks = RecursiveBlocks.from_backbone(model, shared=shared, steps=3)
    blocks.save(tmp_path / "r.safetensors", {})
    before = copy.deepcopy(model.state_dict())
    settings = Recursion(weights=blocks.name, shared=shared, capacities=(1, 0.6, 0.4), router=router)
    fast = vittle.apply(model, Schedule((settings,)), {"recursion": tmp_path / "r.safetensors"})
    assert sum(weight.numel() for weight in fast.parameters()) == costs.parameters(shape_of(model), fast.schedule)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    again = copy.deepcopy(fast).double()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again(images.double()).float(), fast(images), atol=1e-4, rtol=1e-4)
    again.load_state_dict(fast.state_dict())


def test_weights_are_read_as_they_were_written(model, tmp_path) -> None:
    blocks = Recurring.of_model(model, 2)
    plain = RecursiveBlocks.from_backbone(model, shared=2, steps=3)
    plain.load_state_dict(blocks.state_dict())
    backbone = describe_backbone(model, "small")
    plain.save(tmp_path / "r.safetensors", {"backbone": backbone.fingerprint})
    found = RecursiveBlocks.load(tmp_path / "r.safetensors", backbone)
    assert found.record == (plain.name, 2, 3)
    assert found.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(weight, plain.state_dict()[name]) for name, weight in found.state_dict().items())
    assert found.half().name == plain.name  # rounded, it is still what was trained
    with pytest.raises(VittleError, match="the recursion was trained for weights"):
        RecursiveBlocks.load(tmp_path / "r.safetensors", describe_backbone(make_model("qk-norm"), "other"))


def test_weights_of_blocks_of_another_structure_are_refused(model) -> None:
    blocks = Recurring.of_model(make_model("qk-norm"), 1)
    with pytest.raises(VittleError, match="trained for blocks of another structure"):
        ReducedViT(model, recur(1, 0.5), {"recursion": blocks})


def test_a_schedule_without_its_weights_is_refused(model) -> None:
    with pytest.raises(ScheduleError, match=f"recursion needs the trained weights {RECURRING[1]}, none is given"):
        vittle.apply(model, recur(1, 0.5))


def test_what_is_given_stays_where_and_as_it_is(model, images_for) -> None:
    blocks = Recurring.of_model(model, 1)
    half = ReducedViT(copy.deepcopy(model).bfloat16(), recur(1, 0.5), {"recursion": blocks})
    assert half(images_for(model).bfloat16()).dtype == torch.bfloat16
    assert {weight.dtype for weight in blocks.parameters()} == {torch.float32}
