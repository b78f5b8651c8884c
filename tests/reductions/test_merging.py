"""Token merging against a reference that reads like the paper: plain loops over one image."""

import pytest
import torch
from torch import Tensor

from vittle.reductions.matching.bipartite import match
from vittle.reductions.matching.merge import merge
from vittle.reductions.tokens import Tokens


def merge_one(x: Tensor, s: Tensor, keys: Tensor, removed: int, prefix: int) -> tuple[Tensor, Tensor]:
    """Bipartite soft matching of one image: x (n, d), s (n,), keys (n, c)."""
    patches = range(prefix, len(x))
    set_a, set_b = [i for i in patches if i % 2 == 0], [i for i in patches if i % 2 == 1]
    edges = []
    for i in set_a:
        scores = [float(torch.cosine_similarity(keys[i], keys[j], dim=0)) for j in set_b]
        best = max(range(len(set_b)), key=lambda j: scores[j])
        edges.append((scores[best], i, set_b[best]))
    gone = {i: j for _, i, j in sorted(edges, key=lambda edge: -edge[0])[:removed]}
    order = [*range(prefix), *(i for i in set_a if i not in gone), *set_b]
    features, sizes = [], []
    for j in order:
        group = [j, *(i for i, target in gone.items() if target == j)]
        sizes.append(sum(s[i] for i in group))
        features.append(sum(s[i] * x[i] for i in group) / sizes[-1])
    return torch.stack(features), torch.stack(sizes)


@pytest.fixture(params=[(16, 0, 5), (17, 1, 4), (22, 5, 8), (18, 2, 8), (10, 1, 0), (3, 1, 1)], ids=str)
def case(request):
    n, prefix, removed = request.param
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(3, n, 6, generator=generator)
    sizes = torch.randint(1, 9, (3, n), generator=generator).float()
    sizes[:, :prefix] = 1
    keys = torch.randn(3, n, 4, generator=generator)
    return x, sizes, keys, removed, prefix


def test_agrees_with_the_paper(case) -> None:
    x, sizes, keys, removed, prefix = case
    got = merge(Tokens(x, sizes), match(keys, removed, prefix))
    for image in range(len(x)):
        features, expected_sizes = merge_one(x[image], sizes[image], keys[image], removed, prefix)
        torch.testing.assert_close(got.features[image], features, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(got.sizes[image], expected_sizes)


def test_keeps_weighted_sum_and_prefix_and_count(case) -> None:
    x, sizes, keys, removed, prefix = case
    features, merged_sizes = merge(Tokens(x, sizes), match(keys, removed, prefix))[:2]
    assert features.shape == (3, x.shape[1] - removed, 6)
    torch.testing.assert_close((features * merged_sizes[..., None]).sum(1), (x * sizes[..., None]).sum(1), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(merged_sizes.sum(1), sizes.sum(1))
    assert torch.equal(features[:, :prefix], x[:, :prefix])


def test_first_merge_counts_every_token_once() -> None:
    x = torch.randn(2, 9, 4)
    matching = match(x, 3, 1)
    unsized, sized = merge(Tokens(x), matching), merge(Tokens(x, torch.ones(2, 9)), matching)
    assert torch.equal(unsized.features, sized.features)
    assert torch.equal(unsized.sizes, sized.sizes)


def test_equal_similarities_merge_in_order_of_position() -> None:
    matching = match(torch.ones(1, 13, 4), 3, 1)
    assert matching.sources.tolist() == [[2, 4, 6]]
    assert matching.kept.tolist() == [[0, 8, 10, 12, 1, 3, 5, 7, 9, 11]]
    assert matching.targets.tolist() == [[4, 4, 4]]


def test_images_of_a_batch_do_not_mix(case) -> None:
    x, sizes, keys, removed, prefix = case
    together = merge(Tokens(x, sizes), match(keys, removed, prefix)).features
    alone = merge(Tokens(x[1:2], sizes[1:2]), match(keys[1:2], removed, prefix)).features
    torch.testing.assert_close(together[1:2], alone)


def test_bfloat16_keeps_its_type_and_counts_sizes_exactly() -> None:
    x = torch.randn(2, 401, 8).bfloat16()
    features, sizes = merge(Tokens(x, torch.full((2, 401), 3.0)), match(x, 150, 1))[:2]
    assert features.dtype == torch.bfloat16
    assert sizes.sum().item() == 2 * 401 * 3


def test_gradients_reach_every_token() -> None:
    x = torch.randn(1, 9, 4, requires_grad=True)
    merge(Tokens(x), match(x, 4, 1)).features.sum().backward()
    assert (x.grad != 0).all()
