"""Training a sparsity predictor: what is learned, what is kept, and that an interruption costs nothing."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from lessons import PARTS, answers, inputs, random_images, same, small
from vittle.reductions.backbone import Backbone, describe_backbone
from vittle.reductions.sparsity import apart, parts_of
from vittle.reductions.sparsity_predictor import SparsityPredictor
from vittle.reductions.vit import ReducedViT
from vittle.spaces.errors import VittleError
from vittle.training import resumable
from vittle.training.judging import Parts
from vittle.training.resumable import Judged
from vittle.training.sparsity import SHARES, Trained, at_random, patches_attending, sparse, train


@pytest.fixture
def backbone() -> Backbone:
    return small()


def run(backbone: Backbone, output: Path, parts: Parts = PARTS, **changes: Any) -> Trained:
    given: dict[str, Any] = {"epochs": 3, "batch_size": 8, "progress": False} | changes
    return train(backbone, parts, output=output, **given)


def test_only_the_predictor_learns_and_comes_nearer_to_what_matters(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judged, "better_than", lambda self, other: True)  # so that the last epoch is what is written
    before, state = copy.deepcopy(backbone.model), torch.get_rng_state()
    trained = run(backbone, tmp_path / "s", epochs=12, learning_rate=1e-2)
    assert same(backbone.model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert trained.best_epoch == len(trained.losses) == 12
    assert trained.losses[-1] < trained.losses[0]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    loaded = SparsityPredictor.load(tmp_path / "s", backbone)
    assert same(loaded, trained.predictor)
    assert loaded.metadata == trained.predictor.metadata
    # The scores of images that it learned from are nearer to the wanted order than those of keys drawn by chance.
    parts = parts_of(backbone.shape.grid, 2)
    for block, heads in zip(loaded.blocks, patches_attending(backbone.model, inputs(PARTS.train[0]), 1), strict=True):
        paid = (heads.queries @ heads.keys.mT * heads.scale).softmax(-1).mean(2)
        wanted = paid * apart(heads.values, parts)
        scores: Any = block.scores(heads.keys)  # type: ignore[operator]
        ranks = [one.flatten(0, 1).argsort(-1).argsort(-1).double() for one in (wanted, scores)]
        agreement = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*ranks, strict=True)]).mean()
        assert agreement > 0.2


def test_an_interruption_costs_nothing(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(backbone, tmp_path / "whole")
    kept = resumable.write_at_once

    def interrupted(path: Path, content: bytes, *more: str) -> None:
        kept(path, content, *more)
        if torch.load(path, weights_only=True)["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(resumable, "write_at_once", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(backbone, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    monkeypatch.setattr(resumable, "write_at_once", kept)
    again = run(backbone, tmp_path / "parts")
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert again.losses == whole.losses


def test_the_verdicts_are_of_images_that_chose_nothing(backbone: Backbone, tmp_path: Path) -> None:
    trained = run(backbone, tmp_path / "s")
    images, labels = PARTS.verdict
    by = {"sparsity": trained.predictor}
    for one, compared, chance in zip(
        trained.right, trained.verdict.comparisons, trained.against_chance.comparisons, strict=True
    ):
        chosen = sparse(backbone.shape, one.share, "trained", trained.predictor.name)
        ours = answers(ReducedViT(backbone.model, chosen, by), images) == labels
        theirs = answers(ReducedViT(backbone.model, sparse(backbone.shape, one.share)), images) == labels
        assert (one.trained, one.sampled) == (ours.sum(), theirs.sum())
        assert (compared.ours, compared.theirs) == ((ours & ~theirs).sum(), (theirs & ~ours).sum())
        assert (compared.at, chance.at) == (f"{one.share:.0%}",) * 2
        assert chance.both + chance.theirs == one.random
    assert [one.share for one in trained.right] == list(SHARES)
    worth_it, sentence = SparsityPredictor.load(tmp_path / "s").verdict()
    assert worth_it == trained.verdict.worth_it
    assert "keys chosen by a sample of queries" in sentence
    assert "of the keys" in sentence
    other = run(backbone, tmp_path / "other", parts=PARTS._replace(verdict=random_images(10, 3)))
    assert same(other.predictor, trained.predictor)


def test_random_keys_are_drawn_for_every_image(backbone: Backbone) -> None:
    model = at_random(ReducedViT(backbone.model, sparse(backbone.shape, 0.1)), 0)
    twice = inputs(np.repeat(PARTS.verdict[0][:1], 2, 0))
    with torch.no_grad():
        first, second = model(twice)
    assert not torch.equal(first, second)


def test_a_model_with_too_few_patches_is_refused(tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=32, depth=2, num_heads=2, num_classes=10)
    images = np.zeros((8, 32, 32, 3), np.uint8)
    parts = Parts(*((images, np.zeros(8, np.int64)),) * 3)
    with pytest.raises(VittleError, match="^model 'small' has 4 patches, too few to leave any unread$"):
        train(describe_backbone(model.eval(), "small"), parts, output=tmp_path / "s", batch_size=4, progress=False)
    assert not any(tmp_path.iterdir())
