"""Training a recursion: what is learned and kept, how routers are fitted, and what a verdict asks."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from lessons import PARTS, answers, inputs, same, small
from vittle.reductions.backbone import Backbone, describe_backbone
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.tokens import Tokens
from vittle.reductions.vit import ReducedViT
from vittle.spaces import VittleError, costs
from vittle.spaces.recursion import Recursion, falling
from vittle.spaces.schedule import Schedule
from vittle.training import recursion
from vittle.training.judging import Parts
from vittle.training.recursion import Trained, by_lot, fit_routers, judged, recurring, train, usual_steps
from vittle.training.resumable import Judged


@pytest.fixture
def backbone() -> Backbone:
    return small()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recursion, "STEPS", 6)


def run(backbone: Backbone, output: Path, parts: Parts = PARTS, **changes: Any) -> Trained:
    given: dict[str, Any] = {"epochs": 3, "steps": 2, "batch_size": 8, "progress": False} | changes
    return train(backbone, parts, output=output, **given)


def running(backbone: Backbone, blocks: RecursiveBlocks, *capacities: float, router: Any = "random") -> ReducedViT:
    return ReducedViT(backbone.model, recurring(blocks, capacities, router), {Recursion.name: blocks})


def test_only_the_recursion_learns_and_comes_nearer_to_the_backbone(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judged, "better_than", lambda self, other: True)  # so that the last epoch is what is written
    before, state = copy.deepcopy(backbone.model), torch.get_rng_state()
    trained = run(backbone, tmp_path / "r", epochs=10)
    assert same(backbone.model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert trained.best_epoch == len(trained.losses) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    loaded = RecursiveBlocks.load(tmp_path / "r", backbone)
    assert all(torch.equal(weight, trained.blocks.state_dict()[name]) for name, weight in loaded.state_dict().items())
    assert loaded.record == trained.blocks.record == (loaded.name, 1, 2)
    # Nearer to the backbone's logits than where it started, at both depths.
    images = inputs(PARTS.train[0])
    start = RecursiveBlocks.from_backbone(backbone.model)
    with torch.inference_mode():
        wanted = backbone.model(images)
        for capacities in ((1.0, 1.0), (1.0, 0.5)):
            apart = [(running(backbone, blocks, *capacities)(images) - wanted).norm() for blocks in (loaded, start)]
            assert apart[0] < 0.8 * apart[1]


def test_an_interruption_costs_nothing(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(backbone, tmp_path / "whole")
    judge, judgements = recursion._Lesson.judge, []

    def failing(lesson: Any) -> Judged:
        judgements.append(judge(lesson))
        if len(judgements) == 3:
            raise KeyboardInterrupt
        return judgements[-1]

    monkeypatch.setattr(recursion._Lesson, "judge", failing)
    with pytest.raises(KeyboardInterrupt):
        run(backbone, tmp_path / "parts")
    monkeypatch.setattr(recursion._Lesson, "judge", judge)
    again = run(backbone, tmp_path / "parts")
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert again.losses == whole.losses


def test_what_was_interrupted_goes_on_only_as_it_began(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(recursion._Lesson, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(backbone, tmp_path / "r")
    for changed in ({"seed": 1}, {"steps": 1}, {"shared": 2}):
        with pytest.raises(VittleError, match=rf"is of a training with another {next(iter(changed))}"):
            run(backbone, tmp_path / "r", **changed)


def test_the_verdict_is_of_images_that_chose_nothing(backbone: Backbone, tmp_path: Path) -> None:
    trained = run(backbone, tmp_path / "r")
    pixels, labels = PARTS.verdict
    assert trained.images == len(pixels)
    assert trained.backbone == int((answers(backbone.model, pixels) == labels).sum())
    dense = costs.macs(backbone.shape, Schedule())
    assert [(one.steps, one.share) for one in trained.right] == [(2, 1.0), (2, 0.2), (1, 1.0)]
    for one in trained.right:
        capacities = falling(one.steps, one.share)
        for router, right in one.by_router.items():
            model = running(backbone, trained.blocks, *capacities, router=router)
            assert right == int((answers(model, pixels) == labels).sum())
        assert one.macs == costs.macs(backbone.shape, recurring(trained.blocks, capacities)) / dense
    (compared,) = trained.verdict.comparisons
    routed = trained.right[1]
    assert (compared.right, compared.rival_right) == (routed.by_router["learned"], routed.by_router["random"])
    parameters = costs.parameters(backbone.shape, recurring(trained.blocks, (1.0, 1.0)))
    assert trained.parameters == parameters / costs.parameters(backbone.shape, Schedule())


def test_blocks_recur_by_default_for_two_fifths_of_the_work() -> None:
    assert [usual_steps(12, 1), usual_steps(12, 2), usual_steps(24, 1), usual_steps(4, 1), usual_steps(4, 2)] == [4, 2, 9, 1, 1]


def test_it_is_judged_at_depths_that_differ() -> None:
    assert judged(10) == (falling(10, 1.0), falling(10, 0.2), falling(5, 0.2), (1.0,) * 4)
    assert judged(1) == ((1.0,),)


def test_a_router_is_the_least_squares_fit_to_how_far_a_step_moves_a_patch(backbone: Backbone) -> None:
    blocks = RecursiveBlocks.from_backbone(backbone.model).requires_grad_(False)
    images = inputs(PARTS.train[0])
    model = running(backbone, blocks, 1, 1)
    fit_routers(model, blocks, images)
    with torch.inference_mode():
        states = [state.double() for state in model.states(images)]
        for step, router in enumerate(blocks.routers):
            before, after = states[1 + step][:, 1:], states[2 + step][:, 1:]
            moved = ((after - before).norm(dim=-1) / before.norm(dim=-1)).log().flatten().numpy()
            given = torch.nn.functional.layer_norm(before, before.shape[-1:]).flatten(0, 1).numpy()
            found = np.linalg.lstsq(np.column_stack([given, np.ones(len(given))]), moved, rcond=None)[0]
            best = np.column_stack([given, np.ones(len(given))]) @ found
            ours = router(before.float()).flatten().numpy()
            # The ridge gives away little.
            assert np.square(ours - moved).mean() < 1.01 * np.square(best - moved).mean() < np.var(moved)


def test_who_takes_part_in_training_is_drawn_for_every_image(backbone: Backbone) -> None:
    blocks = RecursiveBlocks.from_backbone(backbone.model)
    model = by_lot(running(backbone, blocks, 0.5), torch.Generator().manual_seed(0))
    operator: Any = model.operators[1][0]  # type: ignore[index]
    tokens = Tokens(torch.zeros(6, 65, 32))
    drawn = [operator.select(tokens) for _ in range(2)]
    assert len({tuple(row.tolist()) for one in drawn for row in one}) == 12
    assert all((one[:, 0] == 0).all() and one.shape == (6, 33) for one in drawn)


def test_two_blocks_may_be_shared(backbone: Backbone, tmp_path: Path) -> None:
    trained = run(backbone, tmp_path / "r", shared=2, steps=None)
    assert trained.blocks.record == (trained.blocks.name, 2, 1)
    assert [(one.steps, one.share) for one in trained.right] == [(1, 1.0)]


def test_what_cannot_be_trained_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    short = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=10
    )
    with pytest.raises(VittleError, match=r"short has 3 blocks; accepted: 4 at least, for 2 shared"):
        run(describe_backbone(short.eval(), "short"), tmp_path / "r", shared=2)
    headless = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=0
    )
    with pytest.raises(VittleError, match="has no classifier to judge by"):
        run(describe_backbone(headless.eval(), "headless"), tmp_path / "r")
    with pytest.raises(VittleError, match="16 images do not fill one batch of 17"):
        run(backbone, tmp_path / "r", batch_size=17)
    assert not any(tmp_path.iterdir())
