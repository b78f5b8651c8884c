"""Every operator against a plain reference: one image at a time, explicit softmax attention, loops over tokens."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models import make_model
from operators import Embedding, prune_and_merge
from vittle import Schedule, presets
from vittle.reductions.vit import ReducedViT
from vittle.spaces import Merging

# What a step sees: tokens x (n, d), sizes s (n,), mean keys (n, c), embedding (n, e), importance (n,), block.
Step = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]


def cosines(rows: Tensor) -> Tensor:
    unit = functional.normalize(rows, dim=-1)
    return unit @ unit.T


def run(model: nn.Module, images: Tensor, step: Step, embedding: Embedding, proportional: bool) -> Tensor:
    """The backbone with `step` between attention and MLP of each block."""
    answers = []
    for image in images:
        x = model.norm_pre(model._pos_embed(model.patch_embed(image[None])))[0]
        s = torch.ones(len(x))
        for index, block in enumerate(model.blocks):
            attention, n = block.attn, len(x)
            normed = block.norm1(x)
            q, k, v = attention.qkv(normed).reshape(n, 3, attention.num_heads, -1).permute(1, 2, 0, 3)
            q, k = attention.q_norm(q), attention.k_norm(k)
            logits = q @ k.mT * attention.scale + (s.log() if proportional else 0)
            weights = logits.softmax(-1)  # (h, n, n)
            x = x + block.ls1(attention.proj(attention.norm((weights @ v).transpose(0, 1).reshape(n, -1))))
            x, s = step(x, s, k.mean(0), embedding.layers[index](normed), weights[:, 0].mean(0), index)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        answers.append(model.forward_head(model.norm(x[None]))[0])
    return torch.stack(answers)


def weighted_mean(x: Tensor, s: Tensor, order: list[int], gone: dict[int, int]) -> tuple[Tensor, Tensor]:
    features, sizes = [], []
    for target in order:
        group = [target, *(source for source, into in gone.items() if into == target)]
        sizes.append(s[group].sum())
        features.append((s[group, None] * x[group]).sum(0) / sizes[-1])
    return torch.stack(features), torch.stack(sizes)


def pairs_of(metric: Tensor, set_a: list[int], set_b: list[int], count: int) -> dict[int, int]:
    similarity = cosines(metric)
    edges = sorted((-max(float(similarity[a, b]) for b in set_b), a) for a in set_a)[:count]
    return {a: max(set_b, key=lambda b: float(similarity[a, b])) for _, a in edges}


def in_windows(schedule: Schedule, prefix: int) -> Step:
    """Delayed spatial merging on an 8 x 8 grid: the four quarters merge for themselves first, then the whole."""
    (merging,) = schedule.reductions
    assert isinstance(merging, Merging)
    groups: list[list[int]] = []

    def step(x, s, keys, embedded, importance, block):
        nonlocal groups
        count = len(x) - merging.kept[block]
        if block == 0:
            quarters = [(row, column) for row in (0, 4) for column in (0, 4)]
            groups = [[prefix + (r + i) * 8 + c + j for i in range(4) for j in range(4)] for r, c in quarters]
        if count == 0:
            return x, s
        if block >= merging.global_from:
            a = [i for i in range(prefix, len(x)) if i % 2 == 0]
            b = [i for i in range(prefix, len(x)) if i % 2 == 1]
            gone = pairs_of(keys, a, b, count)
            return weighted_mean(x, s, [*range(prefix), *(i for i in a if i not in gone), *b], gone)
        order, gone = list(range(prefix)), {}
        following = []
        for group in groups:
            a, b = group[::2], group[1::2]
            gone |= pairs_of(keys, a, b, count // 4)
            left = [i for i in a if i not in gone] + b
            following.append(list(range(len(order), len(order) + len(left))))
            order += left
        groups = following
        return weighted_mean(x, s, order, gone)

    return step


def pruned_and_merged(schedule: Schedule, prefix: int) -> Step:
    """DiffRate's arrangement: sort by importance, drop the last, merge the next to last into what is most like them."""
    pruning, merging = schedule.reductions

    def step(x, s, keys, embedded, importance, block):
        order = list(range(prefix)) + sorted(range(prefix, len(x)), key=lambda i: -float(importance[i]))
        stay, leave = order[: merging.kept[block]], order[merging.kept[block] : pruning.kept[block]]
        similarity = cosines(x)
        into = {i: max(stay[prefix:], key=lambda j: float(similarity[i, j])) for i in leave}
        features, sizes = [], []
        for target in stay:
            group = [source for source in leave if into[source] == target]
            features.append(x[[target, *group]].mean(0))
            sizes.append(s[target] + sum(s[i] * similarity[i, target].clamp(min=0) for i in group))
        return torch.stack(features), torch.stack(sizes)

    return step


def by_energy(schedule: Schedule, prefix: int) -> Step:
    """PiToMe on 4 blocks: everyone takes part in the first two, the 2r most energetic in the others."""
    (merging,) = schedule.reductions

    def step(x, s, keys, embedded, importance, block):
        count = len(x) - merging.kept[block]
        similarity = cosines(keys[prefix:])
        energy = functional.elu(similarity - 0.75 * (1 - block / 4)).mean(1)
        ranked = [prefix + int(i) for i in energy.argsort(descending=True)]
        taking_part = ranked if block < 2 else ranked[: 2 * count]
        gone = pairs_of(keys, taking_part[::2], taking_part[1::2], count)
        return weighted_mean(x, s, [i for i in range(len(x)) if i not in gone], gone)

    return step


def bipartite(schedule: Schedule, prefix: int) -> Step:
    """ToMe by the metric of the schedule."""
    (merging,) = schedule.reductions

    def step(x, s, keys, embedded, importance, block):
        metric = {"key": keys, "feature": x, "decoupled": embedded}[merging.metric]
        a = [i for i in range(prefix, len(x)) if i % 2 == 0]
        b = [i for i in range(prefix, len(x)) if i % 2 == 1]
        gone = pairs_of(metric, a, b, len(x) - merging.kept[block])
        return weighted_mean(x, s, [*range(prefix), *(i for i in a if i not in gone), *b], gone)

    return step


@pytest.mark.parametrize("name", ["plain", "distilled", "registers", "qk-norm", "layer scale", "odd grid"])
@pytest.mark.parametrize(
    ("reference", "make", "tolerance"),
    [
        (bipartite, lambda model: presets.constant(model, 7), 1e-5),
        (bipartite, lambda model: presets.constant(model, 7, proportional="off"), 1e-5),
        (bipartite, lambda model: presets.constant(model, 7, metric="feature"), 1e-5),
        (
            bipartite,
            lambda model: presets.constant(model, 7, metric="decoupled", embedding="modular-0123456789ab", embedding_width=8),
            1e-5,
        ),
        (by_energy, lambda model: presets.constant(model, 7, matching="energy"), 1e-5),
        (pruned_and_merged, prune_and_merge, 1e-5),
        (in_windows, lambda model: presets.delayed(model, 0, 8, window=4, global_from=3), 1e-4),
    ],
    ids=["key", "key, sizes unseen", "feature", "decoupled", "energy", "pruning and merging", "windows"],
)
@torch.inference_mode()
def test_agrees_with_a_plain_reference(name: str, reference, make, tolerance: float, images_for) -> None:
    model = make_model(name)
    if reference is in_windows and model.patch_embed.grid_size != (8, 8):
        return  # written for quarters; other grids are in test_windows.py
    schedule = make(model)
    embedding = Embedding(4, 32)
    *_, merging = schedule.reductions
    proportional = merging.proportional != "off"
    expected = run(model, images_for(model), reference(schedule, model.num_prefix_tokens), embedding, proportional)
    got = ReducedViT(model, schedule, {"merging": embedding})(images_for(model))
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)
