"""The operator of sparse attention against a reference that is written out in loops."""

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from sparse_reference import HALVES, SETTINGS, SHAPE, Reference, heads_of, operator_of
from vittle.reductions.attention import Form
from vittle.reductions.sparsity import parts_of, spread
from vittle.reductions.tokens import Heads
from vittle.spaces import Sparsity

GRIDS = [(8, 8), (5, 7), (9, 3), (1, 40)]  # the last two have fewer columns or rows than 4 parts


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
