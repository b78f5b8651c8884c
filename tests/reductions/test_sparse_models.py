"""Whole models with sparse attention: what they compute, what they cost, and that any of them runs, trains and is exported."""

import copy
import itertools

import pytest
import torch
from timm.layers.attention import Attention
from torch import nn
from torch.nn import functional

import vittle
from counting import count_macs
from models import FAMILIES, make_model
from operators import Predictor, sparse
from sparse_reference import HALVES, SETTINGS, Reference
from vittle import Schedule, presets
from vittle.reductions.backbone import shape_of
from vittle.reductions.sparsity import Sparsify
from vittle.reductions.tokens import Heads
from vittle.reductions.vit import ReducedViT
from vittle.spaces import Merging, Sparsity, costs


@pytest.fixture
def model() -> nn.Module:
    return sharp("plain")


def sharp(name: str) -> nn.Module:
    """A small model whose attention is far from uniform, and matters."""
    model = make_model(name)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight *= 20
            block.attn.proj.weight *= 10
    return model


def reduced(model: nn.Module, schedule: Schedule, **options: object) -> ReducedViT:
    return ReducedViT(model, schedule, {"sparsity": Predictor.of_model(model)}, **options)


@torch.inference_mode()
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shares", [(1.0,) * 4, (0.99, 0.95, 1.0, 0.99)], ids=["all", "no fewer with the rests"])
def test_where_nothing_is_saved_nothing_is_done(name: str, shares: tuple[float, ...], images_for) -> None:
    model = make_model(name)
    fast = reduced(model, Schedule((Sparsity(shares=shares, rests="4x4"),)))
    assert all(not row.acts for row in fast.work)
    assert vittle.macs(model, fast.schedule) == vittle.macs(model, Schedule())
    torch.testing.assert_close(fast(images_for(model)), model(images_for(model)), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("settings", ["2x2 rests", "4x4 rests", "trained", "each query"])
@pytest.mark.parametrize("name", [*FAMILIES, "heads of their own width"])
def test_every_supported_model_runs_it(name: str, settings: str, images_for) -> None:
    model = wider_heads() if name not in FAMILIES else sharp(name)
    shape, images = shape_of(model), images_for(model, 2)
    fast = reduced(model, sparse(model, 0.15, **SETTINGS[settings]))
    looped = reduced(model, fast.schedule)
    (found,) = (part for part in fast.schedule.reductions)
    for (operator,) in looped.operators:

        def attend(heads: Heads, operator: Sparsify = operator) -> torch.Tensor:
            about = (shape.prefix, shape.grid, found, round(0.15 * shape.patches), operator.predictor)
            return torch.from_numpy(Reference(heads, *about)()).float()

        operator.attend = attend
    torch.testing.assert_close(fast(images), looped(images), atol=1e-4, rtol=1e-4)
    assert (fast(images) - model(images)).abs().max() > 0.01


def wider_heads() -> nn.Module:
    """A model whose heads together are wider than its tokens."""
    model = make_model("plain")
    torch.manual_seed(3)
    for block in model.blocks:
        block.attn = Attention(32, num_heads=2, attn_head_dim=24, qkv_bias=True)
        nn.init.normal_(block.attn.qkv.weight, std=0.4)
    assert shape_of(model).attention_width == 48
    return model.eval()


@torch.inference_mode()
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_class_token_tail_leaves_the_class_token_alone(model, images_for, settings: str) -> None:
    full, tail = (
        reduced(model, Schedule(sparse(model, 0.2, **SETTINGS[settings]).reductions, tail)) for tail in ("full", "prefix")
    )
    assert [len(row.acts) for row in full.work] == [1, 1, 1, 1]
    assert [len(row.acts) for row in tail.work] == [1, 1, 1, 0]
    torch.testing.assert_close(tail(images_for(model)), full(images_for(model)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tail", ["full", "prefix"])
@pytest.mark.parametrize("merging", [False, True], ids=["alone", "with merging"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_macs_are_what_a_counting_hook_sees(images_for, monkeypatch, settings: str, merging: bool, tail: str) -> None:
    for model in (make_model("plain"), make_model("odd grid"), wider_heads()):
        parts = sparse(model, 0.2, **SETTINGS[settings]).reductions
        parts += presets.delayed(model, 1, 6).reductions if merging else ()
        fast = reduced(model, Schedule(parts, tail))
        assert sum(len(row.at("attention")) for row in fast.work) >= 3
        with monkeypatch.context() as patched:
            assert vittle.macs(model, fast.schedule) == count_macs(fast, images_for(model), patched)


@pytest.mark.parametrize(("settings", "used"), [
    ("2x2 rests", ()), ("trained", ("hidden", "bias", "out", "linear")), ("each query", ("queries", "keys"))
])  # fmt: skip
def test_weights_are_those_that_it_reads(settings: str, used: tuple[str, ...]) -> None:
    for model in (make_model("plain"), wider_heads()):
        shape = shape_of(model)
        acting = Sparsity(shares=(0.2, 0.2, 1.0, 0.2), **SETTINGS[settings])
        more = costs.parameters(shape, Schedule((acting,))) - costs.parameters(shape, Schedule())
        weights = dict(Predictor.of_model(model).blocks[0].named_parameters())
        sizes = {name: weight.numel() for name, weight in weights.items()}
        sizes["bias"] = shape.heads * 16
        assert more == 3 * sum(sizes[name] for name in used)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_model_in_half_precision_runs_however_it_came_about(model, images_for, settings: str, dtype: torch.dtype) -> None:
    images = images_for(model, 8)
    schedule = sparse(model, 0.2, **SETTINGS[settings])
    exact = reduced(model, schedule)(images)
    before = reduced(copy.deepcopy(model).to(dtype), schedule)
    after = copy.deepcopy(reduced(model, schedule)).to(dtype)
    for half in (before, after):
        found = half(images.to(dtype))
        assert found.dtype == dtype
        assert torch.isfinite(found).all()
        assert functional.cosine_similarity(found.float(), exact, dim=-1).mean() > 0.93  # other keys may be chosen
    torch.testing.assert_close(before(images.to(dtype)), after(images.to(dtype)))


def test_an_adapter_stays_as_it_is(model) -> None:
    given = Predictor.of_model(model)
    schedule = sparse(model, 0.2, **SETTINGS["trained"])
    fast = ReducedViT(model, schedule, {"sparsity": given})
    before = [weight.clone() for weight in given.parameters()]
    copy.deepcopy(fast).bfloat16()
    fast.bfloat16()
    assert all(torch.equal(now, then) for now, then in zip(given.parameters(), before, strict=True))
    assert fast.operators[0][0].predictor.hidden.dtype == torch.bfloat16


@torch.inference_mode()
@pytest.mark.parametrize("settings", SETTINGS)
def test_keys_that_are_all_alike_are_no_trouble(model, settings: str) -> None:
    model.pos_embed.zero_()
    blank = torch.ones(2, 3, 64, 64)
    fast = reduced(model, sparse(model, 0.2, **SETTINGS[settings]))
    assert torch.isfinite(fast(blank)).all()
    if "no rests" not in settings:  # a rest is what it stands for
        torch.testing.assert_close(fast(blank), model(blank), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize(("image", "patch"), [(8, 8), (16, 8), ((8, 24), 8)])
def test_the_smallest_grids(image: int | tuple[int, int], patch: int, images_for) -> None:
    import timm

    for rests, share in itertools.product(("none", "one", "2x2", "4x4"), (0.01, 0.5)):
        torch.manual_seed(0)
        model = timm.create_model(
            "vit_tiny_patch16_224", img_size=image, patch_size=patch, embed_dim=32, depth=1, num_heads=2, num_classes=10
        ).eval()
        fast = reduced(model, sparse(model, share, rests=rests))
        read = max(1, round(share * shape_of(model).patches))
        less = read + {"none": 0, "one": 1, "2x2": 4, "4x4": 16}[rests] < shape_of(model).patches
        assert [len(row.acts) for row in fast.work] == [less]
        assert torch.isfinite(fast(images_for(model))).all()
        if not less:
            torch.testing.assert_close(fast(images_for(model)), model(images_for(model)), atol=1e-5, rtol=1e-5)


def test_gradients_are_finite_where_a_part_has_no_rest(model, images_for) -> None:
    for form in ("mask", "channel"):
        fast = reduced(model, sparse(model, 0.2), form=form).train()
        fast.operators[0][0].scores = lambda heads: torch.arange(64.0).neg().expand(*heads.keys.shape[:2], -1)
        fast(images_for(model)).square().sum().backward()
        assert all(torch.isfinite(weight.grad).all() for weight in fast.backbone.parameters())


@torch.no_grad()
@pytest.mark.parametrize("settings", ["2x2 rests", "trained", "each query"])
def test_it_is_exported_with_a_batch_of_any_size(model, settings: str) -> None:
    fast = reduced(model, Schedule((*sparse(model, 0.2, **SETTINGS[settings]).reductions, Merging(kept=(65, 50, 40, 40)))))
    exported = torch.export.export(fast, (torch.randn(3, 3, 64, 64),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    images = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(exported.module()(images), fast(images), atol=1e-5, rtol=1e-5)
