"""A reduced Vision Transformer against timm, and against a plain one that is written here with explicit softmax attention."""

import copy
import pickle

import pytest
import timm
import torch
from torch import nn

import vittle
from models import make_model
from vittle import Schedule, ScheduleError, UnsupportedBackboneError, VittleError, presets
from vittle.reductions.tokens import Tokens
from vittle.reductions.vit import ReducedViT, check_identity
from vittle.spaces import Merging


def counts(model: nn.Module, removed: int) -> tuple[int, ...]:
    (merging,) = presets.constant(model, removed).reductions
    assert isinstance(merging, Merging)
    return merging.kept


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
def test_realised_counts_are_the_promised_ones(family, images_for) -> None:
    schedule = presets.constant(family, 7)
    reduced = vittle.apply(family, schedule)
    seen: list[int] = []
    for block in reduced.backbone.blocks:
        block.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    features = reduced.forward_features(images_for(family))
    assert tuple(seen) == vittle.tokens(family, schedule)
    assert features.shape[1] == seen[-1]


def plain_forward(model: nn.Module, images: torch.Tensor, kept: tuple[int, ...], proportional: bool) -> torch.Tensor:
    """ToMe as published, for a plain ViT: explicit attention, a loop over images and tokens."""
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    s = torch.ones(x.shape[:2])
    for block, keep in zip(model.blocks, kept, strict=True):
        attention = block.attn
        b, n, d = x.shape
        qkv = attention.qkv(block.norm1(x)).reshape(b, n, 3, attention.num_heads, -1)
        q, k, v = (attention_part.transpose(1, 2) for attention_part in qkv.unbind(2))
        q, k = attention.q_norm(q), attention.k_norm(k)
        logits = q @ k.transpose(-1, -2) * attention.scale
        if proportional:
            logits = logits + s.log()[:, None, None, :]
        mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d)
        x = x + block.ls1(attention.proj(attention.norm(mixed)))
        metric = k.mean(1)
        merged = [_merge_plain(x[i], s[i], metric[i], n - keep, model.num_prefix_tokens) for i in range(b)]
        x, s = (torch.stack(parts) for parts in zip(*merged, strict=True))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    return model.forward_head(model.norm(x))


def _merge_plain(x, s, metric, removed, prefix):
    a = [i for i in range(prefix, len(x)) if i % 2 == 0]
    b = [i for i in range(prefix, len(x)) if i % 2 == 1]
    similarity = torch.nn.functional.normalize(metric[a], dim=-1) @ torch.nn.functional.normalize(metric[b], dim=-1).T
    best, partner = similarity.max(-1)
    gone = best.argsort(descending=True)[:removed].tolist()
    total, sizes = x * s[:, None], s.clone()
    for source in gone:
        target = b[partner[source]]
        total[target] = total[target] + x[a[source]] * s[a[source]]
        sizes[target] = sizes[target] + s[a[source]]
    order = [*range(prefix), *(i for at, i in enumerate(a) if at not in gone), *b]
    return total[order] / sizes[order, None], sizes[order]


@pytest.mark.parametrize("proportional", [True, False])
@pytest.mark.parametrize("name", ["plain", "distilled", "registers", "layer scale", "qk-norm", "odd grid"])
@torch.inference_mode()
def test_agrees_with_merging_as_published(name: str, proportional: bool, images_for) -> None:
    model = make_model(name)
    images = images_for(model)
    kept = counts(model, 6)
    schedule = Schedule((Merging(kept=kept, proportional=proportional),))
    expected = plain_forward(model, images, kept, proportional)
    torch.testing.assert_close(vittle.apply(model, schedule)(images), expected, atol=1e-5, rtol=1e-5)


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


@torch.inference_mode()
def test_batch_of_one_and_images_do_not_mix(family, images_for) -> None:
    reduced = vittle.apply(family, presets.constant(family, 6))
    images = images_for(family)
    torch.testing.assert_close(reduced(images[1:2]), reduced(images)[1:2], atol=1e-5, rtol=1e-5)


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


@torch.inference_mode()
def test_a_compiled_graph_has_no_breaks(tiny, images_for) -> None:
    reduced = vittle.apply(tiny, presets.constant(tiny, 6, tail="prefix"))
    images = images_for(tiny)
    compiled = torch.compile(reduced, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), reduced(images))
