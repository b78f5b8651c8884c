"""Going on from kept activations gives the same bits as beginning anew."""

import numpy as np
import pytest
import torch

from models import make_model
from vittle import Schedule, presets
from vittle.objectives.quality.backbone_pass import ActivationCache, BackbonePass, places
from vittle.objectives.quality.rungs import spread
from vittle.reductions.activations import Activations, size, walk
from vittle.reductions.backbone import shape_of
from vittle.reductions.vit import ReducedViT
from vittle.spaces import Space

CPU = torch.device("cpu")


def recorded(model, images) -> tuple[list[Activations], torch.Tensor]:
    *walked, logits = walk(ReducedViT(model, Schedule()), images)
    return walked, logits


@torch.inference_mode()
def test_every_schedule_goes_on_from_every_block_before_its_first_change(family, images_for) -> None:
    images = images_for(family)
    walked, logits = recorded(family, images)
    assert torch.equal(logits, ReducedViT(family, Schedule())(images))
    shape = shape_of(family)
    space = Space(shape, [name for name in ("pruning", "merging") if name == "merging" or shape.has_class])
    rng = np.random.default_rng(0)
    late = 0
    for _ in range(25):
        model = ReducedViT(family, space.schedule(space.draw(rng)))
        whole = model(images)
        late += model.resumable > 0
        for block in range(model.resumable + 1):
            assert torch.equal(walked[block].resume(model, block), whole)
    delayed = ReducedViT(family, presets.delayed(family, shape.depth - 1, 2))
    assert delayed.resumable == shape.depth - 1
    assert torch.equal(walked[-1].resume(delayed, shape.depth - 1), delayed(images))


def test_a_block_that_has_changed_already_is_refused(tiny, images_for) -> None:
    walked, _ = recorded(tiny, images_for(tiny))
    model = ReducedViT(tiny, presets.delayed(tiny, 1, 2))
    assert model.resumable == 1
    with pytest.raises(ValueError, match="cannot resume from block 2; accepted: 0 to 1"):
        walked[2].resume(model, 2)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_prefix_survives_the_way_through_arrays(dtype, images_for) -> None:
    model = make_model("plain").to(dtype)
    walked, _ = recorded(model, images_for(model).to(dtype))
    for one in walked:
        packed = one.pack()
        for part in packed:
            part.flags.writeable = False  # as Ray hands it out
        back = Activations.unpack(packed, CPU)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(one, back, strict=True))
        assert back.features.dtype == dtype
    reduced = ReducedViT(model, presets.constant(model, 3))
    images = images_for(model).to(dtype)
    before = walked[0].features.clone()
    assert torch.equal(Activations.unpack(walked[0].pack(), CPU).resume(reduced, 0), reduced(images))
    assert torch.equal(walked[0].features, before)


@torch.inference_mode()
def test_the_size_of_a_prefix_is_arithmetic(family, images_for) -> None:
    walked, _ = recorded(family, images_for(family))
    assert {one.bytes for one in walked} == {size(shape_of(family), 3, 4)}


def test_early_rungs_are_kept_first_and_blocks_are_spread(tiny) -> None:
    shape = shape_of(tiny)
    one = size(shape, 10, 4)
    every = shape.depth - 1
    assert places(shape, [10, 10], 4, 2 * every * one) == [(batch, block) for batch in (0, 1) for block in spread(every)]
    some = places(shape, [10, 10], 4, (every + 1) * one)
    assert [batch for batch, _ in some] == [0] * every + [1]
    assert places(shape, [10], 4, one - 1) == []
    assert sorted(spread(11)) == list(range(11))
    assert next(spread(11)) == 5


def test_the_nearest_block_before_is_found(tiny, images_for) -> None:
    walked, logits = recorded(tiny, images_for(tiny))
    kept = {(0, block): walked[block].pack() for block in (0, 2)}
    cache = ActivationCache(BackbonePass(logits.numpy(), kept), CPU, 0)
    found = [cache.nearest(0, block) for block in range(4)]
    assert [one and one[0] for one in found] == [0, 0, 2, 2]
    assert torch.equal(found[2][1].features, walked[2].features)
    assert cache.nearest(1, 3) is None
    assert cache.nearest(0, -1) is None
