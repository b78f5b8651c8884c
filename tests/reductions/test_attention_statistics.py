"""What is observed of a backbone, against plain loops over images, heads and tokens."""

import math
from statistics import median_low

import numpy as np
import pytest
import timm
import torch
from torch import nn

from models import SMALL
from vittle import UnsupportedBackboneError
from vittle.objectives.backbones.merge_start import STATISTICS
from vittle.objectives.backbones.merge_start_measurement import find_merge_start
from vittle.objectives.quality.images import Images
from vittle.reductions import attention_statistics
from vittle.reductions.attention_statistics import key_statistics, observe
from vittle.reductions.backbone import describe_backbone
from vittle.reductions.matching.bipartite import match


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def plain_block(q: torch.Tensor, k: torch.Tensor, entering: torch.Tensor, prefix: int) -> dict[str, float]:
    """Every statistic of one image in one block; q and k are (h, n, c), the entering tokens (n, d)."""
    heads, n, width = q.shape
    sinks, entropies = [], []
    for head in range(heads):
        rows = []
        for i in range(n):
            weights = [math.exp(float(q[head, i] @ k[head, j]) / math.sqrt(width)) for j in range(n)]
            rows.append([weight / sum(weights) for weight in weights])
        sinks.append(max(sum(row[j] for row in rows) / n for j in range(n)))
        entropies += [-sum(weight * math.log(weight) for weight in row) / math.log(n) for row in rows]
    keys = k.mean(0)
    patches = range(prefix, n)
    pairs = [cosine(keys[i], keys[j]) for i in patches for j in patches if i != j]
    best = [max(cosine(keys[i], keys[j]) for j in patches if j % 2 == 1) for i in patches if i % 2 == 0]
    magnitudes = [abs(value) for token in entering[prefix:].tolist() for value in token]
    return {
        "similarity": sum(pairs) / len(pairs),
        "partner": sum(best) / len(best),
        "sink": sum(sinks) / len(sinks),
        "entropy": sum(entropies) / len(entropies),
        "outlier": max(magnitudes) / median_low(magnitudes),
    }


@torch.inference_mode()
def test_every_family_is_observed_as_plain_loops_see_it(family: nn.Module, images_for) -> None:
    """Queries and keys are recorded where timm's own attention takes them."""
    images = images_for(family, 1)
    entering: list[torch.Tensor] = []
    heads: list[torch.Tensor] = []
    for block in family.blocks:
        block.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0][0]))
        block.attn.q_norm.register_forward_hook(lambda *call: heads.append(call[-1][0]))
        block.attn.k_norm.register_forward_hook(lambda *call: heads.append(call[-1][0]))
    family(images)
    depth = len(family.blocks)
    assert (len(entering), len(heads)) == (depth, 2 * depth)
    recorded, attended = entering[:], heads[:]
    observed = observe(family, [images])
    assert set(observed) == set(STATISTICS)
    for block in (0, depth - 1):
        expected = plain_block(attended[2 * block], attended[2 * block + 1], recorded[block], family.num_prefix_tokens)
        assert {name: values[0, block] for name, values in observed.items()} == pytest.approx(expected, rel=1e-4)


def test_neither_batches_nor_pieces_change_anything(family: nn.Module, images_for, monkeypatch) -> None:
    images = images_for(family, 5)
    whole = observe(family, [images])
    monkeypatch.setattr(attention_statistics, "PIECE", 1)
    parts = observe(family, images.split(2))
    for name, values in whole.items():
        assert values.shape == (5, len(family.blocks))
        np.testing.assert_allclose(parts[name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_partners_are_those_that_merging_takes(prefix: int) -> None:
    keys = torch.randn(3, prefix + 13, 8, generator=torch.Generator().manual_seed(0))
    a, b = ([i for i in range(prefix, prefix + 13) if i % 2 == parity] for parity in (0, 1))
    matching = match(keys, min(len(a), 6), prefix)
    targets = matching.kept.gather(1, matching.targets)
    for image in range(3):
        best = {i: max(cosine(keys[image, i], keys[image, j]) for j in b) for i in a}
        for source, target in zip(matching.sources[image].tolist(), targets[image].tolist(), strict=True):
            assert cosine(keys[image, source], keys[image, target]) == pytest.approx(best[source], abs=1e-6)
        mean = sum(best.values()) / len(best)
        assert float(key_statistics(keys, prefix)[1][image]) == pytest.approx(mean, abs=1e-6)


def test_tokens_that_are_all_alike_are_wholly_similar() -> None:
    similarity, partner = key_statistics(torch.ones(2, 6, 4), 1)
    torch.testing.assert_close(similarity, torch.ones(2))
    torch.testing.assert_close(partner, torch.ones(2))


def test_a_model_with_a_single_patch_is_refused() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=16, **SMALL).eval()
    with pytest.raises(UnsupportedBackboneError, match="a single patch"):
        observe(model, [])


def test_a_backbone_is_observed_on_as_many_images_as_asked_for(tiny: nn.Module, splits) -> None:
    told: list[tuple[int, int]] = []
    backbone = describe_backbone(tiny, "tiny")
    phase = find_merge_start(backbone, splits.search, "cpu", limit=7, progress=lambda *done: told.append(done))
    assert (phase.images, phase.depth, phase.fingerprint) == (7, 4, backbone.fingerprint)
    assert told[-1] == (7, 7)
    first = Images(splits.search.pixels[:7], None)
    assert find_merge_start(backbone, first, "cpu") == phase
    assert find_merge_start(backbone, splits.search, "cpu").images == len(splits.search) == 20


def test_the_embedded_default_changes_phase_where_its_similarity_is_lowest() -> None:
    from vittle.objectives.quality.images import load_images
    from vittle.reductions.backbone import load_backbone

    backbone = load_backbone()
    images = load_images("digits", backbone.preprocessing, backbone.classes).search
    phase = find_merge_start(backbone, images, "cpu", limit=64)
    similarity = phase.curve("similarity").values
    assert phase.detected
    assert phase.start == similarity.index(min(similarity)) + 1
