"""The soft grouping keeps what a merge must keep, tends to the hard matching, and teaches the embedding alone."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from models import make_model
from vittle import presets
from vittle.reductions.matching.bipartite import match
from vittle.reductions.matching.merge import merge
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.tokens import Tokens
from vittle.reductions.vit import ReducedViT
from vittle.training.soft_merging import Relaxation, assign, group, select, soft_forward

HARD = Relaxation(selection_temperature=1e-5)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_first_channel(tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    assert tokens.sizes is not None
    order = tokens.features[..., 0].argsort(1)
    return tokens.features.gather(1, order[..., None].expand_as(tokens.features)), tokens.sizes.gather(1, order)


def test_the_relaxed_choice_adds_up_and_tends_to_the_highest() -> None:
    scores = random(2, 9, 3)
    torch.testing.assert_close(select(scores, 4, 0.5).sum((1, 2)), torch.full((2,), 4.0))
    chosen = select(scores, 4, 1e-4)
    rows = scores.max(-1)
    expected = torch.zeros(2, 9).scatter(1, rows.values.topk(4).indices, 1.0)
    torch.testing.assert_close(chosen.sum(-1), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(chosen.gather(2, rows.indices[..., None])[..., 0], expected, atol=1e-4, rtol=0)


def test_no_token_gives_away_more_than_itself() -> None:
    unit = nn.functional.normalize(random(2, 20, 8), dim=-1)
    for relaxation in (Relaxation(), Relaxation(partners=99, selection_temperature=10.0), HARD):
        assignment = assign(unit[:, :10], unit[:, 10:], 9, relaxation)
        assert assignment.min() >= 0
        assert assignment.sum(-1).max() <= 1 + 1e-6
        assert ((assignment > 0).sum(-1) <= relaxation.partners).all()


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_grouping_keeps_the_weighted_sum_and_the_prefix(prefix: int) -> None:
    features, sizes = random(2, 30, 6), random(2, 30, seed=1).abs() * 4
    left = 27
    grouped = group(Tokens(features, sizes), random(2, 30, 8, seed=2), left, 7, prefix, Relaxation())
    assert grouped.sizes is not None
    assert grouped.sizes.min() >= 0
    torch.testing.assert_close(grouped.sizes.sum(1), sizes.sum(1))
    weighted = (grouped.features * grouped.sizes[..., None]).sum(1)
    torch.testing.assert_close(weighted, (features * sizes[..., None]).sum(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(grouped.features[:, :prefix], features[:, :prefix])
    torch.testing.assert_close(grouped.features[:, left:], features[:, left:])
    assert (grouped.sizes[:, prefix:left].diff(dim=1) <= 0).all()
    assert not torch.allclose(grouped.features[:, prefix:left], features[:, prefix:left])


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_a_cold_grouping_is_the_hard_matching(prefix: int) -> None:
    features, sizes = random(2, 31, 6), random(2, 31, seed=1).abs() + 1
    metric = random(2, 31, 8, seed=2)
    removed = 9
    hard = merge(Tokens(features, sizes), match(metric, removed, prefix))
    soft = group(Tokens(features, sizes), metric, 31, removed, prefix, HARD)
    assert soft.sizes is not None
    torch.testing.assert_close(soft.sizes[:, -removed:], torch.zeros(2, removed), atol=1e-4, rtol=0)
    survivors = Tokens(soft.features[:, :-removed], soft.sizes[:, :-removed])
    for ours, theirs in zip(by_first_channel(survivors), by_first_channel(hard), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_warmer_is_further_from_hard() -> None:
    tokens, metric = Tokens(random(4, 40, 6)), random(4, 40, 8, seed=2)
    faded = []
    for temperature in (1e-3, 0.1, 1.0):
        sizes = group(tokens, metric, 40, 10, 1, Relaxation(selection_temperature=temperature)).sizes
        assert sizes is not None
        faded.append(sizes[:, -10:].sum().item())
    assert faded[0] < faded[1] < faded[2]


def test_without_merging_it_is_the_backbone(family: nn.Module, images_for: Callable[[nn.Module], torch.Tensor]) -> None:
    images = images_for(family)
    logits = soft_forward(family, MergeEmbedding.from_keys(family), images, [0] * 4)
    torch.testing.assert_close(logits, family(images), atol=1e-5, rtol=1e-5)


def test_one_cold_merge_is_the_reduced_backbone(family: nn.Module, images_for: Callable[[nn.Module], torch.Tensor]) -> None:
    # Later merges pair other tokens, because training orders them by size; one merge must agree for every kind of model.
    for block in family.blocks:  # with a key norm the embedding does not start from the key metric
        block.attn.k_norm = nn.Identity()
    images = images_for(family)
    n = family.num_prefix_tokens + family.patch_embed.num_patches
    hard = ReducedViT(family, presets.kept(family, [n, n - 11, n - 11, n - 11], proportional="on"))
    soft = soft_forward(family, MergeEmbedding.from_keys(family), images, [0, 11, 0, 0], HARD)
    effect = (hard(images) - family(images)).abs().max()
    assert effect > 1e-5
    assert (soft - hard(images)).abs().max() < 0.05 * effect


def test_the_gradient_reaches_every_layer_that_matters_and_is_finite() -> None:
    model = make_model("plain").requires_grad_(False)
    embedding = MergeEmbedding.from_keys(model)
    images = random(2, 3, 64, 64)
    # Cold enough that sizes become exactly zero, which a logarithm would turn into NaN.
    for relaxation in (Relaxation(), Relaxation(selection_temperature=1e-2)):
        embedding.zero_grad()
        soft_forward(model, embedding, images, [12, 12, 12, 0], relaxation).logsumexp(1).sum().backward()
        for layer in embedding.layers[:3]:
            assert torch.isfinite(layer.weight.grad).all()
            assert layer.weight.grad.abs().max() > 0
        assert embedding.layers[3].weight.grad is None


def test_the_gradient_is_the_slope() -> None:
    # Warm enough that no row is clipped: the clip's divisor counts as constant, so there slope and gradient differ by design.
    a, b = (nn.functional.normalize(random(1, 6, 4, seed=seed).double(), dim=-1).requires_grad_() for seed in (0, 1))
    warm = Relaxation(selection_temperature=5.0)
    assert assign(a, b, 3, warm).sum(-1).max() < 1
    assert torch.autograd.gradcheck(lambda a, b: assign(a, b, 3, warm), (a, b))


@pytest.mark.parametrize("name", ["plain", "qk-norm", "average and maximum"])
def test_in_half_precision_the_grouping_stays_in_single(name: str) -> None:
    model = make_model(name).requires_grad_(False)
    embedding, images, removed = MergeEmbedding.from_keys(model), random(2, 3, 64, 64), [12, 12, 12, 0]
    exact = soft_forward(model, embedding, images, removed)
    with torch.autocast("cpu", torch.bfloat16):
        logits = soft_forward(model, embedding, images, removed)
        grouped = group(Tokens(random(2, 30, 6), torch.ones(2, 30)), random(2, 30, 8), 30, 7, 1, Relaxation())
    assert grouped.sizes is not None
    torch.testing.assert_close(grouped.sizes.sum(1), torch.full((2,), 30.0), atol=1e-4, rtol=0)
    assert (logits - exact).abs().max() < 0.1
    logits.float().logsumexp(1).sum().backward()
    for layer in embedding.layers[:3]:
        assert torch.isfinite(layer.weight.grad).all()
        assert layer.weight.grad.abs().max() > 0
