"""Sparse attention against a reference that is written out in loops, one query and one key after the other."""

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.layers.attention import Attention
from torch import nn
from torch.nn import functional

import vittle
from counting import count_macs
from models import FAMILIES, make_model
from operators import SCORED, Predictor, sparse
from vittle import Schedule, presets
from vittle.reductions.attention import Form
from vittle.reductions.backbone import shape_of
from vittle.reductions.sparsity import Sparsify, parts_of, spread
from vittle.reductions.tokens import Heads, Site
from vittle.reductions.vit import ReducedViT
from vittle.spaces import BackboneShape, Merging, Sparsity, costs

Floats = NDArray[np.float64]
SHAPE = BackboneShape(
    depth=2, width=24, heads=2, grid=(8, 8), prefix=1, attention_width=24, key_macs=1152, query_macs=1152,
    mlp_macs=4608, embed_macs=1, head_macs=1, reads_prefix_only=True,
)  # fmt: skip
GRIDS = [(8, 8), (5, 7), (9, 3), (1, 40)]  # the last two have fewer columns or rows than 4 parts
SETTINGS = {
    "one rest": {"rests": "one"},
    "2x2 rests": {},
    "4x4 rests": {"rests": "4x4"},
    "no rests": {"rests": "none"},
    "trained": {**SCORED},
    "each query": {"form": "queries", "rests": "one", **SCORED},
    "each query, no rests": {"form": "queries", "rests": "none", **SCORED},
}


def operator_of(shape: BackboneShape, settings: Sparsity, merged: int = 0) -> Sparsify:
    """What acts in the second block, into which `merged` patches fewer enter."""
    parts = (settings, Merging(kept=(shape.tokens - merged,) * 2)) if merged else (settings,)
    row = costs.work(shape, Schedule(parts))[1]
    (act,) = row.at("attention")
    return Sparsify(settings, Site(shape, row, act), None if settings.predictor is None else predictor(shape))


def predictor(shape: BackboneShape) -> Predictor:
    found = Predictor.for_backbone(shape)
    generator = torch.Generator().manual_seed(5)
    for weight in found.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    return found.requires_grad_(False)


def heads_of(shape: BackboneShape, tokens: int, *, sizes: bool = False, form: Form = "mask", seed: int = 0) -> Heads:
    generator = torch.Generator().manual_seed(seed)
    c = shape.attention_width // shape.heads
    parts = [2 * torch.randn(2, shape.heads, tokens, c, generator=generator) for _ in range(3)]
    log_sizes = torch.randint(1, 5, (2, 1, 1, tokens), generator=generator).float().log() if sizes else None
    return Heads(*parts, log_sizes, c**-0.5, form)


class Reference:
    """What the operator should give, in float64 and in loops.

    Args:
        heads: as the operator is given them.
        prefix: tokens that are no patches.
        grid: of the patches; None where there is none any more.
        settings: what is asked for.
        read: keys that a patch query reads.
        weights: of a predictor's block.
    """

    def __init__(
        self, heads: Heads, prefix: int, grid: tuple[int, int] | None, settings: Sparsity, read: int, weights: nn.Module | None
    ) -> None:
        self.prefix, self.settings, self.read, self.scale = prefix, settings, read, heads.scale
        self.heads = heads
        patches = heads.keys.shape[2] - prefix
        side = {"none": 0, "one": 1, "2x2": 2, "4x4": 4}[settings.rests]
        if grid is None:
            grid, side = (1, patches), min(side, 1)
        rows, columns = grid
        self.rests = side > 0
        # A patch is in the part in which its row and column begin.
        self.part = [
            (row * max(1, side) // rows, column * max(1, side) // columns) for row in range(rows) for column in range(columns)
        ]
        self.weights = None if weights is None else {name: one.double().numpy() for name, one in weights.state_dict().items()}

    def __call__(self) -> Floats:
        b, h = self.heads.keys.shape[:2]
        return np.array([[self.of_head(image, head) for head in range(h)] for image in range(b)])

    def of_head(self, image: int, head: int) -> Floats:
        """(n, c) that all queries of one head of one image mix."""
        queries, keys, values = (one[image, head].double().numpy() for one in self.heads[:3])
        n = len(keys)
        logs = self.heads.log_sizes
        sizes = np.ones(n) if logs is None else np.exp(logs[image, 0, 0].double().numpy())
        shared = None if self.settings.form == "queries" else self.chosen(self.scores(queries, keys, values, sizes, head))
        mixed = []
        for place, query in enumerate(queries):
            if place < self.prefix:
                entries = [(keys[j], values[j], sizes[j]) for j in range(n)]
            else:
                chosen = shared or self.chosen(self.own_scores(query, keys, sizes, head))
                entries = list(self.entries(keys, values, sizes, chosen))
            logits = [query @ key * self.scale + math.log(size) for key, _, size in entries]
            shares = [math.exp(logit - max(logits)) for logit in logits]
            mixed.append(sum(share * value for share, (_, value, _) in zip(shares, entries, strict=True)) / sum(shares))
        return np.array(mixed)

    def entries(self, keys: Floats, values: Floats, sizes: Floats, chosen: set[int]) -> Iterator[tuple[Floats, Floats, float]]:
        """What a patch query reads, each with how many patches it stands for."""
        for j in range(len(keys)):
            if j < self.prefix or j - self.prefix in chosen:
                yield keys[j], values[j], sizes[j]
        for part in sorted(set(self.part)) if self.rests else ():
            others = [self.prefix + j for j, there in enumerate(self.part) if there == part and j not in chosen]
            if others:
                count = sum(sizes[j] for j in others)
                yield sum(sizes[j] * keys[j] for j in others) / count, sum(sizes[j] * values[j] for j in others) / count, count

    def chosen(self, scores: list[float]) -> set[int]:
        return set(sorted(range(len(scores)), key=lambda j: -scores[j])[: self.read])

    def scores(self, queries: Floats, keys: Floats, values: Floats, sizes: Floats, head: int) -> list[float]:
        """Of the patch keys of a head, for all of its patch queries."""
        queries, keys, values, sizes = (one[self.prefix :] for one in (queries, keys, values, sizes))
        if self.weights is not None:
            w = {name: one[head] for name, one in self.weights.items()}
            hidden = [np.maximum(key @ w["hidden"] + w["bias"][0], 0) for key in keys]
            learned = [one @ w["out"][:, 0] + key @ w["linear"][:, 0] for one, key in zip(hidden, keys, strict=True)]
            return [one + math.log(size) for one, size in zip(learned, sizes, strict=True)]
        paid = np.zeros(len(keys))
        for place in range(8):
            logits = keys @ queries[int((place + 0.5) * len(keys) / 8)] * self.scale
            shares = sizes * np.exp(logits - logits.max())
            paid += shares / shares.sum() / 8
        found = []
        for j, value in enumerate(values):
            there = [i for i in range(len(keys)) if self.part[i] == self.part[j]]
            mean = sum(sizes[i] * values[i] for i in there) / sum(sizes[i] for i in there)
            found.append(paid[j] * math.dist(value, mean))
        return found

    def own_scores(self, query: Floats, keys: Floats, sizes: Floats, head: int) -> list[float]:
        """Of the patch keys, for one query."""
        assert self.weights is not None
        of_query = query @ self.weights["queries"][head]
        pairs = zip(keys[self.prefix :], sizes[self.prefix :], strict=True)
        return [of_query @ (key @ self.weights["keys"][head]) * self.scale + math.log(size) for key, size in pairs]


@pytest.mark.parametrize("form", ["mask", "channel"])
@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_what_loops_give(name: str, grid: tuple[int, int], prefix: int, form: Form) -> None:
    shape = replace(SHAPE, grid=grid, prefix=prefix)
    settings = Sparsity(shares=(0.1, 0.1), **SETTINGS[name])
    operator, heads = operator_of(shape, settings), heads_of(shape, shape.tokens, form=form)
    expected = Reference(heads, prefix, grid, settings, max(1, round(0.1 * shape.patches)), operator.predictor)()
    np.testing.assert_allclose(operator.attend(heads).numpy(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("form", ["mask", "channel"])
@pytest.mark.parametrize("sizes", [False, True], ids=["all alike", "sizes differ"])
@pytest.mark.parametrize("name", SETTINGS)
def test_where_tokens_merged_before_all_others_are_one_rest(name: str, sizes: bool, form: Form) -> None:
    settings = Sparsity(shares=(0.2, 0.2), **SETTINGS[name])
    operator, heads = operator_of(SHAPE, settings, merged=14), heads_of(SHAPE, 51, sizes=sizes, form=form)
    assert operator.side == min(1, {"none": 0}.get(settings.rests, 1))
    expected = Reference(heads, 1, None, settings, 10, operator.predictor)()
    np.testing.assert_allclose(operator.attend(heads).numpy(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("sizes", [False, True])
@pytest.mark.parametrize("name", ["one rest", "2x2 rests", "4x4 rests", "no rests", "trained"])
def test_scores_are_what_loops_give(name: str, sizes: bool) -> None:
    settings = Sparsity(shares=(0.1, 0.1), **SETTINGS[name])
    operator, heads = operator_of(SHAPE, settings), heads_of(SHAPE, SHAPE.tokens, sizes=sizes)
    reference = Reference(heads, 1, (8, 8), settings, 6, operator.predictor)
    scores = operator.scores(operator._split(heads)[1])
    for image, head in itertools.product(range(2), range(2)):
        parts = (one[image, head].double().numpy() for one in heads[:3])
        of_tokens = np.ones(65) if heads.log_sizes is None else heads.log_sizes[image, 0, 0].double().exp().numpy()
        np.testing.assert_allclose(scores[image, head], reference.scores(*parts, of_tokens, head), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sizes", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_to_read_all_is_dense_attention(name: str, sizes: bool) -> None:
    operator = operator_of(SHAPE, Sparsity(shares=(0.1, 0.1), **SETTINGS[name]))
    heads = heads_of(SHAPE, SHAPE.tokens, sizes=sizes)
    operator.read = SHAPE.patches
    dense = functional.scaled_dot_product_attention(*heads[:3], attn_mask=heads.log_sizes, scale=heads.scale)
    torch.testing.assert_close(operator.attend(heads), dense, atol=1e-5, rtol=1e-5)


def test_a_part_that_is_wholly_read_has_no_rest() -> None:
    operator, heads = operator_of(SHAPE, Sparsity(shares=(0.3, 0.3))), heads_of(SHAPE, SHAPE.tokens)
    corner = [8 * row + column for row in range(4) for column in range(4)]
    others = [20, 40, 60]
    operator.read = 19
    scores = torch.zeros(2, 2, 64)
    scores[..., corner + others] = 1.0
    operator.scores = lambda _: scores
    at = [0, *(1 + place for place in sorted(corner + others))]
    keys, values, logs = [heads.keys[:, :, at]], [heads.values[:, :, at]], [0.0] * len(at)
    for part in operator.parts[1:]:
        there = [1 + place for place in part.nonzero().flatten().tolist() if place not in others]
        assert len(there) == 15
        keys.append(heads.keys[:, :, there].mean(2, keepdim=True))
        values.append(heads.values[:, :, there].mean(2, keepdim=True))
        logs.append(math.log(15))
    expected = functional.scaled_dot_product_attention(
        heads.queries[:, :, 1:], torch.cat(keys, 2), torch.cat(values, 2), attn_mask=torch.tensor([logs]), scale=heads.scale
    )
    torch.testing.assert_close(operator.attend(heads)[:, :, 1:], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 4])
@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (5, 7), (7, 5), (4, 4), (1, 1), (3, 3), (2, 9)], ids=str)
def test_parts_hold_every_patch_once(grid: tuple[int, int], side: int) -> None:
    parts = parts_of(grid, side)
    assert parts.shape == (side**2, grid[0] * grid[1])
    assert (parts.sum(0) == 1).all()
    sizes = parts.sum(1).view(side, side)
    for length, most, least in ((grid[0], sizes.amax((0, 1)), sizes.amin()), (grid[1], sizes.amax((0, 1)), sizes.amin())):
        assert length >= side or least == 0
        assert most <= math.ceil(grid[0] / side) * math.ceil(grid[1] / side)
    if min(grid) >= side:
        assert least >= (grid[0] // side) * (grid[1] // side)


def test_parts_are_rectangles_of_the_grid() -> None:
    assert parts_of((4, 6), 2).view(4, 4, 6).argmax(0).tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    assert parts_of((5, 3), 2).argmax(0).view(5, 3).tolist() == [[0, 0, 1]] * 3 + [[2, 2, 3]] * 2
    assert parts_of((8, 8), 0).shape == (0, 64)


def test_the_sample_is_spread_over_all_patches() -> None:
    assert spread(64, 8).tolist() == [4, 12, 20, 28, 36, 44, 52, 60]
    assert spread(3, 8).tolist() == [0, 1, 2]
    assert spread(1, 8).tolist() == [0]
    assert len(set(spread(9, 8).tolist())) == 8


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


HALVES = {torch.bfloat16: 0.06, torch.float16: 0.008}  # and how far an output may be off, of values about 2


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [False, True])
@pytest.mark.parametrize(("dtype", "off"), HALVES.items(), ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_half_precision_mixes_the_same(name: str, dtype: torch.dtype, off: float, sizes: bool) -> None:
    operator = operator_of(SHAPE, Sparsity(shares=(0.2, 0.2), **SETTINGS[name]))
    heads = heads_of(SHAPE, SHAPE.tokens, sizes=sizes)
    rounded = heads._replace(queries=heads.queries / 4, keys=heads.keys / 4)
    rounded = Heads(*(one.to(dtype) if isinstance(one, torch.Tensor) else one for one in rounded))
    exact = Heads(*(one.float() if isinstance(one, torch.Tensor) else one for one in rounded))
    half = copy.deepcopy(operator).to(dtype)
    scores = operator.scores(operator._split(exact)[1])
    chosen, wanted = (
        scores.argsort(dim=-1, descending=True)[..., :13] for scores in (half.scores(half._split(rounded)[1]), scores)
    )
    common = (chosen[..., None] == wanted[..., None, :]).sum() / wanted.numel()
    assert common > 0.95
    operator.scores = half.scores = lambda _: scores
    found, expected = half.attend(rounded), operator.attend(exact)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=off, rtol=off)


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


@torch.inference_mode()
@pytest.mark.parametrize("form", ["mask", "channel"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_large_products_do_not_overflow_in_half_precision(settings: str, form: Form) -> None:
    # As large as models have: each product is above 65504 until it is scaled.
    operator = operator_of(SHAPE, Sparsity(shares=(0.2, 0.2), **SETTINGS[settings])).half()
    heads = heads_of(SHAPE, SHAPE.tokens, form=form)
    large = heads._replace(queries=(heads.queries.abs() * 60).half(), keys=heads.keys.half() * 40, values=heads.values.half())
    assert (large.queries.float() @ large.keys.float().mT).max() > 2 * torch.finfo(torch.float16).max
    if operator.predictor is not None:  # a trained one has weights that fit
        for weight in operator.predictor.parameters():
            weight /= 50
    assert torch.isfinite(operator.scores(operator._split(large)[1])).all()
    assert torch.isfinite(operator.attend(large)).all()


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
