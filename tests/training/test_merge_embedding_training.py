"""Training a merge embedding: what changes, what is kept, and that an interruption costs nothing."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from lessons import PARTS, answers, inputs, random_images, same, small
from models import make_model
from vittle import presets
from vittle.reductions.backbone import Backbone, describe_backbone, shape_of
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.vit import ReducedViT
from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.schedule import Schedule
from vittle.training import merge_embedding
from vittle.training.judging import Parts
from vittle.training.merge_embedding import SHARES, Trained, as_dear, constant, decoupled, rate, train
from vittle.training.resumable import Judged
from vittle.training.supervised import Augmentation

STILL = Augmentation(shift=0, rotation=0, scale=0, mixup=0)


@pytest.fixture
def backbone() -> Backbone:
    return small()


def run(backbone: Backbone, output: Path, **changes: Any) -> Trained:
    given: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "progress": False} | changes
    return train(backbone, PARTS, output=output, **given)


def hard(backbone: Backbone, schedule: Schedule, embedding: MergeEmbedding) -> Callable[[torch.Tensor], torch.Tensor]:
    return ReducedViT(backbone.model, decoupled(schedule, embedding), {"merging": embedding})


def test_only_the_embedding_learns(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every epoch counts as the best, so that the last one is what is written.
    monkeypatch.setattr(Judged, "better_than", lambda self, other: True)
    before, state = copy.deepcopy(backbone.model), torch.get_rng_state()
    trained = run(backbone, tmp_path / "e", epochs=8, augmentation=STILL)
    assert same(backbone.model, before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in backbone.model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert trained.best_epoch == len(trained.losses) == 8
    assert trained.losses[-1] < trained.losses[0]
    start = MergeEmbedding.from_keys(backbone.model)
    moved = [not torch.equal(a.weight, b.weight) for a, b in zip(trained.embedding.layers, start.layers, strict=True)]
    assert moved == [True, True, True, False]  # the head reads nothing that merges in the last block
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    loaded = MergeEmbedding.load(tmp_path / "e", backbone)
    assert same(loaded, trained.embedding)
    assert loaded.metadata == trained.embedding.metadata
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    schedule = constant(backbone.shape, 5)
    ours, theirs, untrained = (hard(backbone, schedule, e)(images) for e in (trained.embedding, loaded, start))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, untrained)


def test_the_start_merges_as_the_keys_do(family: nn.Module, images_for: Callable[[nn.Module], torch.Tensor]) -> None:
    for block in family.blocks:  # a key norm is not part of the start
        block.attn.k_norm = nn.Identity()
    backbone = describe_backbone(family, "tiny")
    schedule, images = constant(backbone.shape, 5), images_for(family)
    logits = hard(backbone, schedule, MergeEmbedding.from_keys(family))(images)
    torch.testing.assert_close(logits, ReducedViT(family, schedule)(images), atol=1e-5, rtol=1e-5)


def test_a_bad_training_keeps_the_start(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = merge_embedding.soft_forward
    # Ascend in place of descending, so that every epoch is worse than the last.
    monkeypatch.setattr(merge_embedding, "soft_forward", lambda *given: -real(*given))
    monkeypatch.setattr(Judged, "better_than", lambda self, other: self.correct > other.correct + other.asked)
    trained = run(backbone, tmp_path / "e", learning_rate=1.0)
    assert trained.best_epoch == 0
    assert same(trained.embedding, MergeEmbedding.from_keys(backbone.model))
    worth_it, sentence = trained.embedding.verdict()
    assert not worth_it
    assert "beats" not in sentence


def test_the_verdict_is_of_images_that_chose_nothing(backbone: Backbone, tmp_path: Path) -> None:
    trained = run(backbone, tmp_path / "e", epochs=4)
    images, labels = PARTS.verdict
    rates = sorted({rate(backbone.shape, share) for share in SHARES})
    assert list(trained.removed) == rates == trained.embedding.metadata["removed"]
    for removed, compared in zip(rates, trained.verdict.comparisons, strict=True):
        schedule = constant(backbone.shape, removed)
        macs = costs.macs(backbone.shape, decoupled(schedule, trained.embedding))
        ours = answers(hard(backbone, schedule, trained.embedding), images) == labels
        theirs = answers(ReducedViT(backbone.model, as_dear(backbone.shape, removed, macs)), images) == labels
        assert (compared.images, compared.right, compared.rival_right) == (10, ours.sum(), theirs.sum())
        assert (compared.ours, compared.theirs) == ((ours & ~theirs).sum(), (theirs & ~ours).sum())
        assert compared.at == f"{macs / costs.macs(backbone.shape, Schedule()):.0%}"
    assert MergeEmbedding.load(tmp_path / "e").compared == trained.verdict
    # They decide nothing: with other ones the weights are the same.
    other = train(
        backbone, PARTS._replace(verdict=random_images(10, 3)),
        output=tmp_path / "other", epochs=4, batch_size=8, learning_rate=1e-2, progress=False,
    )  # fmt: skip
    assert same(other.embedding, trained.embedding)


def test_each_step_draws_its_rate(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, real = list[list[int]](), merge_embedding.soft_forward

    def draw(model: nn.Module, embedding: MergeEmbedding, images: torch.Tensor, removed: list[int]) -> torch.Tensor:
        drawn.append(removed)
        return real(model, embedding, images, removed)

    monkeypatch.setattr(merge_embedding, "soft_forward", draw)
    run(backbone, tmp_path / "e", epochs=10)
    lowest, highest = (rate(backbone.shape, share) for share in (SHARES[0], SHARES[-1]))
    first = {removed[0] for removed in drawn}
    assert first <= set(range(lowest, highest + 1))
    assert len(first) > 3
    drawn.clear()
    fixed = run(backbone, tmp_path / "fixed", removed=5)
    assert {removed[0] for removed in drawn} == {5}
    assert fixed.removed == (5,)


def test_without_labels_the_backbone_teaches(backbone: Backbone, tmp_path: Path) -> None:
    images, asked = random_images(16)[0], random_images(12, 1)[0]
    given: dict[str, Any] = {"epochs": 1, "batch_size": 8, "progress": False, "augmentation": STILL}
    parts = Parts((images, None), (asked, None), (asked, None))
    trained = train(backbone, parts, output=tmp_path / "e", removed=1, **given)
    assert trained.verdict.by_backbone
    assert "of 12 images answered as the backbone does" in trained.embedding.verdict()[1]
    macs = costs.macs(backbone.shape, decoupled(constant(backbone.shape, 1), trained.embedding))
    agree = answers(ReducedViT(backbone.model, as_dear(backbone.shape, 1, macs)), asked) == answers(backbone.model, asked)
    assert trained.verdict.comparisons[0].rival_right == agree.sum()
    # Cross-entropy against the backbone's own soft answers is their entropy, and a little more.
    with torch.no_grad():
        own = backbone.model(inputs(images)).softmax(1)
    entropy = -(own * own.log()).sum(1).mean().item()
    assert entropy - 1e-4 < trained.losses[0] < entropy + 0.05


def test_a_rate_is_the_nearest_to_a_share_of_the_cost() -> None:
    for name in ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224"):
        assert rate(shape_of(timm.create_model(name)), 0.5) == 16  # as published
    shape = shape_of(make_model("plain"))
    dense, removed = costs.macs(shape, Schedule()), rate(shape, 0.5)
    off = [abs(costs.macs(shape, constant(shape, one)) / dense - 0.5) for one in (removed - 1, removed, removed + 1)]
    assert min(off) == off[1]


def test_the_keys_are_given_the_macs_that_the_embedding_takes(family: nn.Module) -> None:
    shape, embedding = shape_of(family), MergeEmbedding.from_keys(family)
    for removed in (1, 5, 9):
        key = constant(shape, removed)
        macs = costs.macs(shape, decoupled(key, embedding))
        rival = as_dear(shape, removed, macs)
        steps = sorted(costs.macs(shape, as_dear(shape, removed, one)) for one in range(0, 2 * macs, macs // 50))
        assert costs.macs(shape, key) == steps[0] < macs
        assert abs(costs.macs(shape, rival) - macs) == min(abs(one - macs) for one in steps)
        fewer = [a - b for a, b in zip(costs.tokens(shape, rival), costs.tokens(shape, key), strict=True)]
        assert min(fewer) >= 0


def test_the_schedule_is_the_preset(family: nn.Module) -> None:
    for removed in (1, 3, 7, 16, 99):
        assert constant(shape_of(family), removed) == presets.constant(family, removed)


@pytest.mark.parametrize("broken_off", [1, 2, 3, 5])
def test_an_interrupted_training_ends_the_same(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_off: int
) -> None:
    whole = run(backbone, tmp_path / "whole", epochs=3)
    real, steps = merge_embedding.soft_forward, iter(range(100))

    def break_off(*given: Any) -> torch.Tensor:
        if next(steps) == broken_off:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(merge_embedding, "soft_forward", break_off)
        with pytest.raises(KeyboardInterrupt):
            run(backbone, tmp_path / "parts", epochs=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.part", "whole"]
    parts = run(backbone, tmp_path / "parts", epochs=3)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert (parts.losses, parts.verdict, parts.best_epoch) == (whole.losses, whole.verdict, whole.best_epoch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]


def test_only_its_own_training_is_continued(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MergeEmbedding, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(backbone, tmp_path / "e", epochs=1)
    part = tmp_path / "e.part"
    kept = part.read_bytes()
    for change, said in (
        ({"epochs": 2}, "another epochs (1, here 2)"),
        ({"seed": 7}, "another seed (0, here 7)"),
        ({"removed": 3}, "another removed ("),
        ({"batch_size": 4}, "another batch size (8, here 4)"),
        ({"patience": 1}, "another patience (8, here 1)"),
    ):
        with pytest.raises(VittleError, match=re.escape(said)):
            run(backbone, tmp_path / "e", **({"epochs": 1} | change))
    other = describe_backbone(make_model("qk-norm"), "other")
    with pytest.raises(VittleError, match="is of a training with another backbone .*; give the same to continue it, or remove"):
        run(other, tmp_path / "e", epochs=1)
    with pytest.raises(VittleError, match="another images"):
        train(
            backbone, PARTS._replace(train=random_images(16, 5)),
            output=tmp_path / "e", epochs=1, batch_size=8, learning_rate=1e-2,
        )  # fmt: skip
    assert part.read_bytes() == kept
    for nonsense in (b"", b"hello", kept[:1000]):
        part.write_bytes(nonsense)
        with pytest.raises(VittleError, match="e.part is not an interrupted training; remove it to begin anew"):
            run(backbone, tmp_path / "e", epochs=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"removed": 0}, "removed is 0; accepted: 1 to 32 tokens per block, half of the 64 patches"),
        ({"removed": 33}, "removed is 33; accepted: 1 to 32 tokens per block"),
        ({"batch_size": 17}, "16 images do not fill one batch of 17; accepted: batches of 1 to 16"),
        ({"output": Path("/nowhere/e")}, "cannot write /nowhere/e: no folder /nowhere; give a file in an existing folder"),
    ],
)
def test_what_cannot_be_trained(backbone: Backbone, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(VittleError, match=message):
        run(backbone, **({"output": tmp_path / "e"} | changes))
    assert not list(tmp_path.iterdir())


def test_without_a_classifier_nothing_can_be_learned(tmp_path: Path) -> None:
    model = make_model("plain")
    model.reset_classifier(0)
    with pytest.raises(
        VittleError, match="model 'headless' has no classifier to learn from; accepted: one with a trained head"
    ):
        run(describe_backbone(model, "headless"), tmp_path / "e")
