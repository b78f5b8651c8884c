"""The merge embedding: its start, its file, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models import make_model
from vittle.reductions.backbone import describe_backbone
from vittle.reductions.block import attend
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.spaces.errors import VittleError


def test_it_starts_as_the_key_metric(family: nn.Module) -> None:
    embedding = MergeEmbedding.from_keys(family)
    assert embedding.width == family.blocks[0].attn.head_dim
    features = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    for layer, block in zip(embedding.layers, family.blocks, strict=True):
        block.attn.k_norm = nn.Identity()
        keys = attend(block.attn, block.attn.qkv, features, None, 9, "mask")[0].keys.mean(1)
        torch.testing.assert_close(layer(features), keys, atol=1e-5, rtol=1e-5)


def test_another_width_keeps_the_cosines_of_the_keys(tiny: nn.Module) -> None:
    features = torch.randn(1, 30, 32, generator=torch.Generator().manual_seed(0))
    keys = attend(tiny.blocks[0].attn, tiny.blocks[0].attn.qkv, features, None, 30, "mask")[0].keys.transpose(1, 2).flatten(2)
    wide = MergeEmbedding.from_keys(tiny, 4096)
    assert wide.width == 4096
    cosines = [
        nn.functional.normalize(e[0], dim=-1) @ nn.functional.normalize(e[0], dim=-1).T
        for e in (keys, wide.layers[0](features))
    ]
    assert (cosines[0] - cosines[1]).abs().max() < 0.1
    assert MergeEmbedding.from_keys(tiny, 4096, seed=1).name != wide.name


def test_published_widths() -> None:
    import timm

    widths = {"vit_tiny_patch16_224": 64, "vit_small_patch16_224": 64, "vit_large_patch16_224": 64, "vit_huge_patch14_224": 80}
    with torch.device("meta"):
        models = {name: timm.create_model(name, depth=1) for name in widths}
    for name, model in models.items():
        model.to_empty(device="cpu")
        assert MergeEmbedding.from_keys(model).width == widths[name]


def test_a_saved_embedding_is_the_same(tiny: nn.Module, tmp_path: Path) -> None:
    embedding = MergeEmbedding.from_keys(tiny)
    backbone = describe_backbone(tiny, "tiny")
    for name in "ab":
        embedding.save(tmp_path / name, {"backbone": backbone.fingerprint, "epochs": 3, "seed": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    loaded = MergeEmbedding.load(tmp_path / "a", backbone)
    assert loaded.name == embedding.name
    assert loaded.name.startswith("modular-")
    assert len(loaded.name) == len("modular-") + 12
    assert loaded.metadata["epochs"] == 3
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for ours, theirs in zip(loaded.parameters(), embedding.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_backbone_is_refused(tiny: nn.Module, tmp_path: Path) -> None:
    MergeEmbedding.from_keys(tiny).save(tmp_path / "e", {"backbone": describe_backbone(tiny, "tiny").fingerprint})
    with torch.no_grad():
        tiny.head.bias.add_(1)
    with pytest.raises(VittleError, match="the merge embedding was trained for weights .*; accepted: "):
        MergeEmbedding.load(tmp_path / "e", describe_backbone(tiny, "tiny"))
    tiny.blocks = tiny.blocks[:3]
    with pytest.raises(VittleError, match="is for 4 blocks of width 32, tiny has 3 of width 32"):
        MergeEmbedding.load(tmp_path / "e", describe_backbone(tiny, "tiny"))


def test_what_is_no_embedding_is_refused(tiny: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    save_file({"x": torch.zeros(2)}, tmp_path / "other")
    save_file({"layers.0.weight": torch.zeros(2, 3)}, tmp_path / "half", {"vittle": '{"format": "vittle merge embedding 1"}'})
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("text", "other", "half", "array.npy", "."):
        with pytest.raises(VittleError, match="is not a merge embedding; accepted: ") as caught:
            MergeEmbedding.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(
        VittleError, match="no merge embedding at .*nowhere; put it there, or make one with: vittle train merge-embedding"
    ):
        MergeEmbedding.load(tmp_path / "nowhere")
    with pytest.raises(VittleError, match="cannot write .*; give a file in an existing folder"):
        MergeEmbedding.from_keys(tiny).save(tmp_path / "no" / "folder", {})


def test_a_damaged_verdict_is_refused(tiny: nn.Module, tmp_path: Path) -> None:
    MergeEmbedding.from_keys(tiny).save(tmp_path / "e", {"verdict": {"rival": "the metric key", "comparisons": [{"at": 1}]}})
    with pytest.raises(VittleError, match="is not a merge embedding; accepted: "):
        MergeEmbedding.load(tmp_path / "e")


def test_making_one_leaves_model_and_random_state_alone() -> None:
    model = make_model("plain")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    embedding = MergeEmbedding.from_keys(model)
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.zero_()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
