"""A reduced Vision Transformer as a module: the identity, what it leaves alone, what it refuses, and its features."""

import copy
import pickle
import weakref

import pytest
import timm
import torch
from torch import nn

import vittle
from models import make_model
from operators import CONSERVING, OPERATORS, reduced
from vittle import Schedule, ScheduleError, UnsupportedBackboneError, VittleError, presets
from vittle.reductions.tokens import Tokens
from vittle.reductions.vit import ReducedViT, check_identity
from vittle.spaces import Merging


@torch.inference_mode()
def test_an_empty_schedule_is_the_identity(family, images_for) -> None:
    images = images_for(family)
    torch.testing.assert_close(vittle.apply(family, Schedule())(images), family(images), atol=1e-5, rtol=1e-5)
    check_identity(family)


@torch.inference_mode()
def test_a_prefix_tail_changes_nothing_but_the_cost(family, images_for) -> None:
    if family.global_pool != "token":
        with pytest.raises(ScheduleError, match="this one pools patches, use tail: full"):
            vittle.apply(family, Schedule(tail="prefix"))
        return
    images = images_for(family)
    for schedule in (Schedule(), presets.constant(family, 6)):
        short = Schedule(schedule.reductions, "prefix")
        torch.testing.assert_close(
            vittle.apply(family, short)(images), vittle.apply(family, schedule)(images), atol=1e-5, rtol=1e-5
        )
        assert vittle.macs(family, short) < vittle.macs(family, schedule)


@torch.inference_mode()
def test_a_pooled_head_counts_each_merged_token_by_its_patches(images_for) -> None:
    model = make_model("pooled, no class token")
    reduced = vittle.apply(model, presets.constant(model, 8))
    state: Tokens = reduced._encode(images_for(model))
    weights = state.sizes / 64
    pooled = (state.features * weights[..., None]).sum(1)
    torch.testing.assert_close(reduced(images_for(model)), model.head(model.fc_norm(pooled)))
    assert not torch.allclose(reduced(images_for(model)), model.head(model.fc_norm(state.features.mean(1))), atol=1e-3)


def test_the_callers_model_is_untouched(tiny, images_for) -> None:
    before = copy.deepcopy(tiny.state_dict())
    reduced = vittle.apply(tiny, presets.constant(tiny, 4))
    reduced.train().double()
    with torch.no_grad():
        for parameter in reduced.parameters():
            parameter.zero_()
    assert not tiny.training
    for name, weight in tiny.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, before[name])


def test_trains_and_moves_like_any_module(tiny, images_for) -> None:
    reduced = vittle.apply(tiny, presets.constant(tiny, 6, tail="prefix")).train()
    reduced(images_for(tiny)).sum().backward()
    assert all(parameter.grad is not None for parameter in reduced.parameters())
    again = pickle.loads(pickle.dumps(reduced.eval()))
    with torch.inference_mode():
        torch.testing.assert_close(again(images_for(tiny)), reduced(images_for(tiny)))
        assert reduced.bfloat16()(images_for(tiny).bfloat16()).dtype == torch.bfloat16


def test_other_image_sizes_are_refused(tiny) -> None:
    tiny.patch_embed.strict_img_size = False
    tiny.pos_embed = None
    with pytest.raises(VittleError, match="the images give 17 tokens, the schedule starts from 65"):
        vittle.apply(tiny, presets.constant(tiny, 6))(torch.zeros(1, 3, 32, 32))


def test_a_schedule_that_does_not_fit_is_refused_before_it_runs(tiny) -> None:
    with pytest.raises(ScheduleError, match="the schedule is for 2 blocks, the model has 4"):
        vittle.apply(tiny, Schedule((Merging(kept=(60, 50)),)))


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("eva02_tiny_patch14_224", {}, "Eva is not a timm VisionTransformer"),
        ("swin_tiny_patch4_window7_224", {}, "SwinTransformer is not a timm VisionTransformer"),
        ("resnet18", {}, "ResNet is not a timm VisionTransformer"),
        ("vit_tiny_r_s16_p8_224", {}, "its patch embedding is a HybridEmbed"),
        ("vit_small_patch16_18x2_224", {}, "its blocks are ParallelThingsBlock"),
        ("vit_base_patch16_siglip_224", {"num_classes": 10}, "its head pools with 'map'"),
        ("vit_tiny_patch16_224", {"attn_layer": "diff"}, "its attention is DiffAttention"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_reason(name: str, arguments: dict, reason: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, **arguments)
    with pytest.raises(UnsupportedBackboneError, match=reason):
        vittle.apply(model, Schedule())


def test_blocks_that_differ_are_refused(tiny) -> None:
    tiny.blocks[2].mlp.fc1 = nn.Linear(32, 64)
    tiny.blocks[2].mlp.fc2 = nn.Linear(64, 32)
    with pytest.raises(UnsupportedBackboneError, match="its blocks differ in shape"):
        vittle.apply(tiny, Schedule())


def test_the_identity_check_sees_a_changed_forward(tiny, monkeypatch) -> None:
    original = ReducedViT.forward
    monkeypatch.setattr(ReducedViT, "forward", lambda self, images: original(self, images) + 1e-3)
    with pytest.raises(UnsupportedBackboneError, match="an empty schedule changes its output by 1.0e-03"):
        check_identity(tiny)


@pytest.mark.parametrize("name", OPERATORS)
@torch.inference_mode()
def test_every_patch_finds_the_token_that_it_went_into(name: str, images_for) -> None:
    model = make_model("registers")
    fast = reduced(model, name)
    features, sizes, source = fast.forward_tokens(images_for(model))
    assert torch.equal(features, fast.forward_features(images_for(model)))
    assert source.shape == (3, 69)
    assert torch.equal(source[:, :5], torch.arange(5).expand(3, 5))
    members = torch.zeros_like(sizes).scatter_add(1, source, torch.ones(3, 69))
    if name in CONSERVING:
        assert torch.equal(members, sizes)
    else:
        assert members.sum() == 3 * 69
    whole = vittle.unmerge(features, source)
    assert whole.shape == (3, 69, 32)
    assert torch.equal(whole[1, 40], features[1, source[1, 40]])


@torch.inference_mode()
def test_unmerging_puts_features_where_their_patches_were(images_for) -> None:
    model = make_model("plain")
    images = images_for(model)
    # A picture of two flat halves: what merges is alike, so the restored grid is the unreduced one.
    images[..., :32], images[..., 32:] = 1.0, -1.0
    model.pos_embed.zero_()
    fast = vittle.apply(model, presets.constant(model, 7))
    features, _, source = fast.forward_tokens(images)
    torch.testing.assert_close(vittle.unmerge(features, source), model.forward_features(images), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize(
    "arguments", [{}, {"reshape": True}, {"n": 3, "norm": True}, {"n": [0, -1], "return_prefix_tokens": True}]
)
def test_intermediate_layers_are_timms_where_nothing_is_reduced(family, images_for, arguments: dict) -> None:
    images = images_for(family)
    ours = vittle.apply(family, Schedule()).get_intermediate_layers(images, **arguments)
    expected = family.get_intermediate_layers(
        images, **{**arguments, **({"n": [0, 3]} if arguments.get("n") == [0, -1] else {})}
    )
    torch.testing.assert_close(ours, list(expected), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_intermediate_layers_of_a_reduced_model_have_the_whole_grid(family, images_for) -> None:
    images = images_for(family)
    fast = vittle.apply(family, presets.constant(family, 6))
    rows, columns = family.patch_embed.grid_size
    first, last = fast.get_intermediate_layers(images, [0, 3], reshape=True, norm=True)
    assert first.shape == last.shape == (3, 32, rows, columns)
    features, _, source = fast.forward_tokens(images)
    grid = vittle.unmerge(features, source)[:, family.num_prefix_tokens :].mT.reshape(3, 32, rows, columns)
    torch.testing.assert_close(last, grid)


def test_what_a_prefix_tail_does_not_compute_is_refused(tiny, images_for) -> None:
    fast = vittle.apply(tiny, presets.constant(tiny, 6, tail="prefix"))
    with pytest.raises(VittleError, match="computes no patches in the last block; accepted: a schedule with tail: full"):
        fast.forward_tokens(images_for(tiny))
    with pytest.raises(VittleError, match="computes no patches"):
        fast.get_intermediate_layers(images_for(tiny))
    assert fast.get_intermediate_layers(images_for(tiny), [2])[0].shape == (3, 64, 32)
    with pytest.raises(VittleError, match="n is 5; accepted: 1 to 4, or indices of the model's 4 blocks"):
        fast.get_intermediate_layers(images_for(tiny), 5)


def test_a_segmentation_head_trains_on_a_reduced_model() -> None:
    """Which half of the picture is bright: learnt from the restored grid of a model that keeps half of its tokens."""
    model = make_model("plain")
    generator = torch.Generator().manual_seed(0)

    def scenes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        bright = torch.rand(count, 1, 8, 8, generator=generator).lt(0.5)
        pixels = bright.float().repeat_interleave(8, 2).repeat_interleave(8, 3).expand(-1, 3, -1, -1)
        return pixels + 0.3 * torch.randn(count, 3, 64, 64, generator=generator), bright[:, 0].long()

    fast = vittle.apply(model, presets.constant(model, 8)).eval().requires_grad_(False)
    head = nn.Conv2d(32, 2, 1)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    images, masks = scenes(48)
    (features,) = fast.get_intermediate_layers(images, 1, reshape=True, norm=True)
    for _ in range(150):
        loss = nn.functional.cross_entropy(head(features), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, masks = scenes(16)
    (features,) = fast.get_intermediate_layers(images, 1, reshape=True, norm=True)
    right = (head(features).argmax(1) == masks).float().mean()
    assert right > 0.75  # a guess is right on half of the patches


@torch.inference_mode()
def test_no_block_holds_the_memory_of_those_before(tiny, images_for) -> None:
    """What is held has to be asked for again by the next block, which costs an unreduced model up to its own time again."""
    fast = vittle.apply(tiny, presets.constant(tiny, 4))
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    for block in fast.backbone.blocks:
        block.norm1.register_forward_pre_hook(lambda *_: alive.append(sum(one() is not None for one in made)))
        block.mlp.register_forward_hook(lambda _module, _given, output: made.append(weakref.ref(output)))
    fast(images_for(tiny))
    assert alive == [0, 0, 0, 0]
    states: list[weakref.ref[torch.Tensor]] = []
    for block in fast.backbone.blocks:
        block.norm1.register_forward_pre_hook(lambda _, given: states.append(weakref.ref(given[0])))
    counts = []
    fast.backbone.norm.register_forward_pre_hook(lambda *_: counts.append(sum(one() is not None for one in states)))
    fast(images_for(tiny))
    assert counts == [0]


@pytest.mark.parametrize(
    "named",
    [
        lambda model: presets.constant(model, 6),
        lambda model: presets.delayed(model, 0, 16, window=2, global_from=2),
        lambda model: presets.kept(model, [60, 50, 40, 30], [62, 55, 45, 35]),
    ],
    ids=["bipartite", "windows", "pruning and importance"],
)
def test_it_is_exported_with_a_batch_of_any_size(tiny, named) -> None:
    reduced = vittle.apply(tiny, named(tiny)).eval()
    with torch.no_grad():
        exported = torch.export.export(reduced, (torch.randn(3, 3, 64, 64),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        images = torch.randn(5, 3, 64, 64)
        torch.testing.assert_close(exported.module()(images), reduced(images))
