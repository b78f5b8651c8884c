"""What is said of a router, against scores that are worked out here, and against what runs."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from operators import Recurring, recur
from vittle.reductions.backbone import shape_of
from vittle.reductions.vit import ReducedViT


def reduced(model: nn.Module, *capacities: float, **choices: Any) -> tuple[ReducedViT, Recurring]:
    weights = Recurring.of_model(model, choices.get("shared", 1))
    return ReducedViT(model, recur(*capacities, **choices), {"recursion": weights}), weights


def by_hand(weights: Recurring, router: str, step: int, patch: Tensor) -> float:
    if router == "norm":
        return float((patch.double() ** 2).sum() ** 0.5)
    centred = patch.double() - patch.double().mean()
    normalised = centred / (centred.square().mean() + 1e-5).sqrt()
    routers: Any = weights.routers
    layer = routers[step].layer
    return float(layer.weight[0].double() @ normalised + layer.bias[0].double())


@torch.inference_mode()
@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("router", ["learned", "norm"])
def test_scores_are_those_of_patches_that_took_part_before(tiny: nn.Module, images_for, router: str, shared: int) -> None:
    prefix, patches = shape_of(tiny).prefix, shape_of(tiny).patches
    model, weights = reduced(tiny, 0.8, 0.4, router=router, shared=shared)
    images = images_for(tiny)
    states, traced = list(model.states(images)), list(model.trace(images))
    before = torch.arange(patches).expand(len(images), -1)
    for step, capacity in enumerate((0.8, 0.4)):
        at = 1 + step * shared
        told, entered = traced[at].told["recursion"], states[at]
        taking_part = traced[at].taking_part
        assert taking_part is not None
        count = round(capacity * patches)
        for image, positions in enumerate(before):
            expected = [by_hand(weights, router, step, entered[image, prefix + patch]) for patch in positions]
            assert told["scores"][image].tolist() == pytest.approx(expected, abs=1e-4)
            best = sorted(sorted(range(len(expected)), key=lambda place: -expected[place])[:count])
            assert told["chosen"][image].nonzero().flatten().tolist() == best
            assert taking_part[image].tolist() == [*range(prefix), *(prefix + positions[best]).tolist()]
        before = taking_part[:, prefix:] - prefix
        for follower in range(at + 1, at + shared):  # the other shared blocks choose nothing
            assert not traced[follower].told["recursion"]
            assert torch.equal(traced[follower].taking_part, taking_part)


@torch.inference_mode()
@pytest.mark.parametrize("router", ["learned", "norm", "random"])
def test_those_that_are_told_to_take_part_change_and_no_others(tiny: nn.Module, images_for, router: str) -> None:
    model, _ = reduced(tiny, 1, 0.6, 0.6, router=router)
    images = images_for(tiny)
    states, traced = list(model.states(images)), list(model.trace(images))
    for row, one, entered, left in zip(model.work, traced, states[:-1], states[1:], strict=True):
        changed = (left != entered).any(-1)
        if one.taking_part is None:
            assert row.resting == 0
            assert changed.all()
        else:
            assert torch.equal(changed, torch.zeros_like(changed).scatter(1, one.taking_part, True))
        assert not one.dropped.any()
    # Nothing is chosen where all take part, nor among those that are as many as before; and by chance there are no scores.
    assert [bool(one.told["recursion"]) for one in traced] == [False, False, router != "random", False, False]
