"""The sparsity predictor: what it computes, the bases that it is fitted with, its file, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import vittle
from models import FAMILIES, make_model
from operators import SCORED, Predictor, sparse
from vittle import ScheduleError
from vittle.reductions.backbone import describe_backbone, shape_of
from vittle.reductions.sparsity_predictor import BlockPredictor, SparsityPredictor, low_rank
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import AdapterRecord


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(seed: int) -> torch.Tensor:
    """Vectors (b, h, p, c) = (3, 2, 40, 12) whose channels depend on each other, around a mean of their own."""
    mixing = drawn(2, 12, 12, seed=seed + 100) * torch.linspace(0.1, 3, 12, dtype=torch.float64)
    return drawn(3, 2, 40, 12, seed=seed) @ mixing + drawn(2, 1, 12, seed=seed + 200)


def products(queries: torch.Tensor, keys: torch.Tensor, head: int) -> torch.Tensor:
    """Of every query of a head with every key, whatever their images."""
    return queries[:, head].flatten(0, 1) @ keys[:, head].flatten(0, 1).T


def errors(queries: torch.Tensor, keys: torch.Tensor, bases: tuple[torch.Tensor, torch.Tensor]) -> list[float]:
    """The mean squared error of the products of each head."""
    of_queries, of_keys = queries @ bases[0], keys @ bases[1]
    return [(products(of_queries, of_keys, head) - products(queries, keys, head)).square().mean().item() for head in range(2)]


def test_of_full_rank_the_products_are_exact() -> None:
    queries, keys = correlated(0), correlated(1)
    bases = low_rank(queries, keys, 12)
    assert [tuple(basis.shape) for basis in bases] == [(2, 12, 12)] * 2
    torch.testing.assert_close(queries @ bases[0] @ (keys @ bases[1]).mT, queries @ keys.mT)


def test_a_channel_that_never_varies_is_no_trouble() -> None:
    queries, keys = correlated(0), correlated(1)
    queries[..., 3], keys[..., 5] = 0.0, 0.0
    bases = low_rank(queries, keys, 12)
    torch.testing.assert_close(queries @ bases[0] @ (keys @ bases[1]).mT, queries @ keys.mT)
    nothing = low_rank(torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 4, 3), 2)
    assert all((basis == 0).all() for basis in nothing)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_of_a_lower_rank_they_are_as_near_as_can_be(rank: int) -> None:
    queries, keys = correlated(0), correlated(1)
    found = errors(queries, keys, low_rank(queries, keys, rank))
    for head in range(2):  # Eckart and Young: no matrix of this rank is nearer
        everything = products(queries, keys, head)
        least = torch.linalg.svdvals(everything)[rank:].square().sum().item() / everything.numel()
        assert found[head] == pytest.approx(least, rel=1e-6)
    for seed in range(5):
        basis, _ = torch.linalg.qr(drawn(2, 12, rank, seed=seed))
        assert all(ours < theirs for ours, theirs in zip(found, errors(queries, keys, (basis, basis)), strict=True))


def test_it_begins_with_what_the_mean_query_would_choose() -> None:
    queries, keys = correlated(0).float(), correlated(1).float()
    block = BlockPredictor(2, 12, rank=5)
    block.begin(queries, keys, 0.25, torch.Generator().manual_seed(0))
    torch.testing.assert_close(block.scores(keys), (queries.mean((0, 2))[:, None] @ keys.mT).squeeze(-2) * 0.25)
    expected = low_rank(queries, keys, 5)
    torch.testing.assert_close(block.logits(queries, keys), (queries @ expected[0].float()) @ (keys @ expected[1].float()).mT)
    again = BlockPredictor(2, 12, rank=5)
    again.begin(queries, keys, 0.25, torch.Generator().manual_seed(0))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(block.parameters(), again.parameters(), strict=True))
    trained = {name for name, weight in block.named_parameters() if weight.requires_grad}
    assert trained == {"hidden", "bias", "out", "linear"}


def test_a_score_depends_on_its_own_key_alone() -> None:
    block = Predictor.of_model(make_model("plain")).blocks[1]
    keys = drawn(2, 2, 9, 16).float()
    scores = block.scores(keys)
    assert scores.shape == (2, 2, 9)
    order = torch.tensor([3, 1, 4, 0, 8, 2, 7, 5, 6])
    torch.testing.assert_close(block.scores(keys[:, :, order]), scores[:, :, order])
    torch.testing.assert_close(block.scores(keys[1:, :, 2:3]), scores[1:, :, 2:3])


@pytest.mark.parametrize("name", FAMILIES)
def test_it_fits_every_supported_model(name: str) -> None:
    model = make_model(name)
    found = SparsityPredictor.for_backbone(shape_of(model))
    assert found.sizes == (4, 32) == SparsityPredictor.sizes_of(shape_of(model))
    assert found.width == 16
    assert found.record == AdapterRecord(found.name, 16)
    found.check(describe_backbone(model, name))


def test_a_saved_predictor_is_the_same(tiny: nn.Module, tmp_path: Path) -> None:
    predictor = saved(tiny)
    backbone = describe_backbone(tiny, "tiny")
    for name in "ab":
        predictor.save(tmp_path / name, {"backbone": backbone.fingerprint, "epochs": 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    loaded = SparsityPredictor.load(tmp_path / "a", backbone)
    assert loaded.name == predictor.name
    assert loaded.name.startswith("scored-")
    assert len(loaded.name) == len("scored-") + 12
    assert loaded.metadata["epochs"] == 3
    assert not any(weight.requires_grad for weight in loaded.parameters())
    for (name, ours), (other, theirs) in zip(loaded.named_parameters(), predictor.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs)


def saved(model: nn.Module, hidden: int = 16, rank: int = 8) -> SparsityPredictor:
    shape = shape_of(model)
    found = SparsityPredictor(shape.depth, shape.heads, shape.attention_width // shape.heads, hidden, rank)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in found.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return found


def test_other_sizes_are_read_from_the_file(tiny: nn.Module, tmp_path: Path) -> None:
    saved(tiny, hidden=3, rank=5).save(tmp_path / "p", {})
    loaded = SparsityPredictor.load(tmp_path / "p")
    assert loaded.width == 3
    assert loaded.blocks[3].keys.shape == (2, 16, 5)


def test_another_backbone_is_refused(tiny: nn.Module, tmp_path: Path) -> None:
    saved(tiny).save(tmp_path / "p", {"backbone": describe_backbone(tiny, "tiny").fingerprint})
    with torch.no_grad():
        tiny.head.bias.add_(1)
    with pytest.raises(VittleError, match="the sparsity predictor was trained for weights .*; accepted: "):
        SparsityPredictor.load(tmp_path / "p", describe_backbone(tiny, "tiny"))
    tiny.blocks = tiny.blocks[:3]
    with pytest.raises(VittleError, match="is for 4 blocks of width 32, tiny has 3 of width 32; accepted: "):
        SparsityPredictor.load(tmp_path / "p", describe_backbone(tiny, "tiny"))


def test_other_heads_of_the_same_width_are_refused(tiny: nn.Module, tmp_path: Path) -> None:
    saved(tiny).save(tmp_path / "nameless", {})
    saved(tiny).save(tmp_path / "named", {"backbone": describe_backbone(tiny, "tiny").fingerprint})
    for block in tiny.blocks:  # the weights stay what they are
        block.attn.num_heads, block.attn.head_dim, block.attn.scale = 4, 8, 8**-0.5
    backbone = describe_backbone(tiny, "split")
    for name in ("nameless", "named"):
        with pytest.raises(VittleError) as refused:
            SparsityPredictor.load(tmp_path / name, backbone)
        assert str(refused.value) == (
            "the sparsity predictor is for 2 heads, split has 4; accepted: one that was trained for this model"
        )


def test_what_is_no_predictor_is_refused(tiny: nn.Module, tmp_path: Path) -> None:
    saved(tiny).save(tmp_path / "good", {})
    with safe_open(tmp_path / "good", "pt") as file:
        about, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    (tmp_path / "text").write_text("hello")
    (tmp_path / "cut").write_bytes((tmp_path / "good").read_bytes()[:-100])
    save_file({"x": torch.zeros(2)}, tmp_path / "other")
    save_file(weights, tmp_path / "nameless")
    save_file({name: one for name, one in weights.items() if name != "blocks.2.out"}, tmp_path / "lacking", about)
    save_file({**weights, "blocks.1.out": torch.zeros(2, 3, 1)}, tmp_path / "odd", about)
    save_file({**weights, "blocks.0.hidden": torch.zeros(2)}, tmp_path / "flat", about)
    save_file({}, tmp_path / "empty", about)
    later = {"vittle": json.dumps({**json.loads(about["vittle"]), "format": "vittle sparsity predictor 2"})}
    save_file(weights, tmp_path / "later", later)
    wrong = {"vittle": json.dumps({**json.loads(about["vittle"]), "verdict": {"rival": "x", "comparisons": [{"at": 1}]}})}
    save_file(weights, tmp_path / "verdict", wrong)
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("text", "cut", "other", "nameless", "lacking", "odd", "flat", "empty", "later", "verdict", "array.npy", "."):
        with pytest.raises(VittleError, match="is not a sparsity predictor; accepted: what vittle train sparsity") as caught:
            SparsityPredictor.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(VittleError, match="no sparsity predictor at .*; put it there, or make one with: vittle train sparsity"):
        SparsityPredictor.load(tmp_path / "nowhere")


@torch.inference_mode()
def test_a_schedule_runs_with_its_own_predictor_alone(tiny: nn.Module, images_for, tmp_path: Path) -> None:
    predictor = saved(tiny)
    predictor.save(tmp_path / "p", {"backbone": describe_backbone(tiny, "tiny").fingerprint})
    schedule = sparse(tiny, 0.2, selection="trained", predictor=predictor.name)
    fast = vittle.apply(tiny, schedule, {"sparsity": tmp_path / "p"})
    assert torch.isfinite(fast(images_for(tiny))).all()
    with pytest.raises(ScheduleError, match=f"sparsity needs the trained weights {predictor.name}, none is given"):
        vittle.apply(tiny, schedule)
    other = sparse(tiny, 0.2, **SCORED)
    with pytest.raises(ScheduleError, match=f"needs the trained weights scored-0123456789ab, {predictor.name} is given"):
        vittle.apply(tiny, other, {"sparsity": tmp_path / "p"})
    half = vittle.apply(tiny.bfloat16(), schedule, {"sparsity": tmp_path / "p"})
    assert half(images_for(tiny).bfloat16()).dtype == torch.bfloat16
