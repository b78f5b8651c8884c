"""What is told of images block by block, against what the model itself says it does."""

import base64
import io
import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from drawing import unpacked
from vittle import Schedule, presets
from vittle.objectives.quality.accuracy import to_input
from vittle.objectives.quality.images import Images, load_images
from vittle.reductions.backbone import load_backbone
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.tokens import Traced
from vittle.reductions.vit import ReducedViT, apply
from vittle.search.illustrator import FIRST, Illustrator, illustrate, plain
from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.storage.records import BackboneRecord
from vittle.storage.settings import Settings
from vittle.storage.store import Store

KEPT = [65, 58, 50, 43, 36, 30, 24, 18, 14, 10, 8, 8]
SCHEDULES: dict[str, dict[str, object]] = {
    "merging": {"merging": {"kept": KEPT}},
    "energy": {"merging": {"kept": KEPT, "matching": "energy", "metric": "feature"}},
    "importance, equal weights": {"merging": {"kept": KEPT, "matching": "importance", "weights": "equal"}},
    "windows": {"merging": {"kept": [65, 61, 57, 53, 40, 30, 20, 15, 11, 8, 6, 4], "window": 4, "global_from": 4}},
    "uneven windows": {"merging": {"kept": [65, 56, 47, 38, 30, 25, 20, 15, 11, 8, 6, 4], "window": 3, "global_from": 4}},
    "pruning": {"pruning": {"kept": KEPT}},
    "pruning and merging": {
        "pruning": {"kept": [65, 60, 50, 40, 34, 28, 24, 20, 16, 12, 8, 6]},
        "merging": {"kept": [65, 55, 44, 36, 30, 25, 20, 15, 12, 9, 7, 5]},
    },
}


@pytest.fixture(scope="module")
def illustrator() -> Illustrator:
    backbone = load_backbone()
    return Illustrator(backbone, load_images("digits", backbone.preprocessing, backbone.classes).search)


@pytest.fixture(params=["full", "prefix"])
def tail(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", SCHEDULES)
def test_there_are_as_many_groups_as_tokens_after_every_block(illustrator: Illustrator, name: str, tail: str) -> None:
    schedule = Schedule.from_dict({"tail": tail, **SCHEDULES[name]})
    shown = illustrator(schedule, [4, 0, 7])
    counts = costs.tokens(illustrator.backbone.shape, schedule)
    assert shown["tokens"] == list(counts)
    assert (shown["grid"], shown["patch"], shown["whole"], shown["prefix"]) == ([8, 8], [4, 4], 65, 1)
    assert shown["blocks"] == (12 if tail == "full" else 11)
    for image in shown["images"]:
        assert len(image["blocks"]) == shown["blocks"]
        for block, count in zip(image["blocks"], counts, strict=False):
            groups = np.array(block["groups"])
            there = groups[groups >= 0]
            assert len(groups) == 64
            assert set(there.tolist()) == set(range(count - 1))
            assert list(dict.fromkeys(there.tolist())) == sorted(set(there.tolist()))  # numbered by their first patch
            assert len(block["sizes"]) == count - 1
            if "weights" not in str(SCHEDULES[name]):
                assert block["sizes"] == np.bincount(there).tolist()
    json.dumps(shown, allow_nan=False)


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_dropped_stays_so_and_what_has_merged_stays_together(illustrator: Illustrator, name: str) -> None:
    shown = illustrator(Schedule.from_dict(SCHEDULES[name]), [1, 2])
    for image in shown["images"]:
        states = np.array([block["groups"] for block in image["blocks"]])
        assert ("pruning" in name) == bool((states[-1] < 0).any())
        for before, after in itertools.pairwise(states):
            assert (after[before < 0] == -1).all()
            for group in set(before[before >= 0].tolist()):
                assert len(set(after[before == group].tolist())) == 1


def test_groups_are_where_the_model_says_that_each_patch_went(illustrator: Illustrator) -> None:
    schedule = Schedule.from_dict(SCHEDULES["windows"])
    shown = illustrator(schedule, [3, 9])
    given = to_input(illustrator.images.pixels[[3, 9]], illustrator.backbone.preprocessing, torch.device("cpu"))
    with torch.inference_mode():
        source = apply(illustrator.backbone.model, schedule).forward_tokens(given).source
    assert source is not None
    for image, expected in zip(shown["images"], source[:, 1:].numpy(), strict=True):
        groups = np.array(image["blocks"][-1]["groups"])
        assert ((groups[:, None] == groups) == (expected[:, None] == expected)).all()


def test_the_least_attended_patches_are_those_that_are_dropped(illustrator: Illustrator) -> None:
    """The first block alone prunes: by attention computed here by hand."""
    schedule = Schedule.from_dict({"pruning": {"kept": [40] * 12}})
    (image,) = illustrator(schedule, [5])["images"]
    model = illustrator.backbone.model
    given = to_input(illustrator.images.pixels[[5]], illustrator.backbone.preprocessing, torch.device("cpu"))
    with torch.inference_mode():
        block = model.blocks[0]
        x = block.norm1(ReducedViT(model, Schedule()).embed(given).features)
        q, k, _ = block.attn.qkv(x).unflatten(2, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = block.attn.q_norm(q), block.attn.k_norm(k)
        paid = (q[:, :, :1] @ k.mT * block.attn.scale).softmax(-1).mean((0, 1, 2))[1:]
    dropped = np.flatnonzero(np.array(image["blocks"][0]["groups"]) < 0)
    assert sorted(dropped.tolist()) == sorted(paid.argsort()[:25].tolist())


@pytest.mark.parametrize("tail", ["full", "prefix"])
def test_the_untouched_model_leaves_every_patch_alone(illustrator: Illustrator, tail: str) -> None:
    shown = illustrator(Schedule.from_dict({"tail": tail}), [0])
    for block in shown["images"][0]["blocks"]:
        assert block == {"groups": list(range(64)), "sizes": [1.0] * 64, "told": {}}
    assert shown["images"][0]["agree"]


def test_pictures_labels_and_answers_are_those_of_the_images(illustrator: Illustrator) -> None:
    schedule = Schedule.from_dict({"pruning": {"kept": [4] * 12}})
    wanted = list(range(60))
    shown = illustrator(schedule, wanted)
    given = to_input(illustrator.images.pixels[wanted], illustrator.backbone.preprocessing, torch.device("cpu"))
    with torch.inference_mode():
        answers = [
            model(given).argmax(-1).tolist()
            for model in (illustrator.backbone.model, apply(illustrator.backbone.model, schedule))
        ]
    assert answers[0] != answers[1]  # this one is too much for some images
    assert illustrator.images.labels is not None
    for index, image in enumerate(shown["images"]):
        assert image["index"] == index
        assert image["label"] == illustrator.images.labels[index]
        assert (image["backbone"], image["schedule"]) == (answers[0][index], answers[1][index])
        assert image["agree"] == (answers[0][index] == answers[1][index])
        kind, _, data = image["picture"].partition(",")
        assert kind == "data:image/png;base64"
        assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == illustrator.images.pixels[index]).all()


SPARSE = {"tail": "prefix", "sparsity": {"shares": [1, 1, *[0.3] * 10]}, **SCHEDULES["pruning and merging"]}


@torch.inference_mode()
def traced(illustrator: Illustrator, schedule: Schedule, indices: list[int]) -> list[Traced]:
    given = to_input(illustrator.images.pixels[indices], illustrator.backbone.preprocessing, torch.device("cpu"))
    return list(ReducedViT(illustrator.backbone.model, schedule).trace(given))


def test_what_is_told_of_attention_names_the_tokens_that_entered_the_block(illustrator: Illustrator) -> None:
    schedule = Schedule.from_dict(SPARSE)
    shown, states = illustrator(schedule, [4, 0]), traced(illustrator, schedule, [4, 0])
    for at, image in enumerate(shown["images"]):
        assert ["places" in block for block in image["blocks"]] == [False, False] + [True] * 9
        for (before, state), block in zip(itertools.pairwise(states[1:]), image["blocks"][2:], strict=True):
            told, expected = block["told"]["sparsity"], state.told["sparsity"]
            assert told["recall"] == pytest.approx(expected["recall"][at].tolist(), abs=1e-4)
            assert told["mass"] == pytest.approx(expected["mass"][at].tolist(), abs=1e-4)
            for name in ("positions", "asked", "weights"):
                assert (unpacked(told[name]) == expected[name][at].numpy()).all()
            places, source = np.array(block["places"]), before.tokens.source
            assert source is not None
            dropped = before.dropped[at, 1:].numpy()
            assert (places[dropped] == -1).all()
            assert (places[~dropped] == source[at, 1:].numpy()[~dropped] - 1).all()
            entered = before.tokens.features.shape[1] - 1
            assert set(places[~dropped].tolist()) == set(range(entered))
            assert unpacked(told["positions"]).max() < entered
    json.dumps(shown, allow_nan=False)


def test_drift_begins_with_what_the_images_show_as_they_are(illustrator: Illustrator) -> None:
    shown = illustrator(Schedule.from_dict({"sparsity": {"shares": [0.25] * 12}}), [0, 1, 2])
    first, *corrupted = shown["drift"]
    assert len(corrupted) == 9
    for name in ("recall", "mass"):
        told = [[image["blocks"][block]["told"]["sparsity"][name] for image in shown["images"]] for block in range(12)]
        assert first["measured"]["sparsity"][name] == pytest.approx(np.mean(told, axis=(1, 2)), abs=2e-4)
        assert all(one["measured"]["sparsity"][name] != first["measured"]["sparsity"][name] for one in corrupted)
    assert illustrator(Schedule.from_dict(SCHEDULES["merging"]), [0])["drift"] == []


@pytest.fixture(scope="module")
def recurring(illustrator: Illustrator, tmp_path_factory: pytest.TempPathFactory) -> tuple[Illustrator, str]:
    """One that has weights of five steps, and their name."""
    blocks, file = RecursiveBlocks.from_backbone(illustrator.backbone.model, steps=5), tmp_path_factory.mktemp("rec") / "five"
    generator = torch.Generator().manual_seed(0)
    for weight in blocks.routers.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    blocks.save(file, {})
    return replace(illustrator, adapters={"recursion": str(file)}), blocks.name


MERGED = {"pruning": {"kept": [60] * 5}, "merging": {"kept": [50, 45, 45, 45, 45]}, "sparsity": {"shares": [0.25] * 12}}


@pytest.mark.parametrize("together", [{}, MERGED])
@pytest.mark.parametrize("router", ["learned", "norm", "random"])
def test_patches_take_part_in_as_many_steps_as_capacities_say(
    recurring: tuple[Illustrator, str], router: str, together: dict[str, object]
) -> None:
    illustrator, name = recurring
    recursion = {"weights": name, "capacities": [1, 0.6, 0.3], "router": router}
    schedule = Schedule.from_dict({"recursion": recursion, **together})
    shown = illustrator(schedule, [4, 0, 9])
    entering = 44 if together else 64  # from the second step on
    taking_part = [round(0.6 * entering), round(0.3 * entering)]
    assert [one["resting"] for one in shown["visits"]] == [0, 0, *(entering - count for count in taking_part), 0]
    rules = [one["rules"]["recursion"] for one in shown["visits"]]
    assert rules == ["all", "all", router, router, "all"]
    for image in shown["images"]:
        places = [np.array(block["places"]) for block in image["blocks"]]
        there = [part >= 0 for part in places]
        assert [sorted(set(part[part >= 0].tolist())) for part in places[2:4]] == [list(range(n)) for n in taking_part]
        assert (there[2] & there[3] == there[3]).all()  # whoever rests once rests on
        dropped = there[0] & ~there[1]
        assert dropped.sum() == (5 if together else 0)  # pruned in the first block, one token for each patch
        for part, block in zip(places[1:], image["blocks"], strict=False):
            gone = np.array(block["groups"]) < 0
            assert ((part == -1) == gone).all()  # and a patch that rests is not gone
        for part, block in zip(places[2:4], image["blocks"][1:3], strict=True):
            groups = np.array(block["groups"])
            for token in set(part[part >= 0].tolist()):
                assert len(set(groups[part == token].tolist())) == 1  # a token takes part with all its patches
        told = [block["told"].get("recursion", {}) for block in image["blocks"]]
        assert [bool(one) for one in told] == [False, False, router != "random", router != "random", False]
        if router != "random":
            for one, (before, count) in zip(told[2:4], ((entering, taking_part[0]), taking_part), strict=True):
                chosen = unpacked(one["chosen"]).astype(bool)
                assert (len(one["scores"]), int(chosen.sum())) == (before, count)
                assert np.array(one["scores"])[chosen].min() >= np.array(one["scores"])[~chosen].max()
        if together:
            sparse = [unpacked(block["told"]["sparsity"]["positions"]).max() for block in image["blocks"]]
            assert all(last < len(set(part.tolist()) - {-1, -2}) for last, part in zip(sparse, places, strict=True))
    json.dumps(shown, allow_nan=False)


def test_small_whole_numbers_are_packed_and_others_are_lists() -> None:
    for values in (torch.tensor([[1, 255], [0, 7]], dtype=torch.uint8), torch.tensor([-2, 700], dtype=torch.int16)):
        assert unpacked(plain(values)).tolist() == values.tolist()
    assert plain(torch.tensor([0.123456, 1.0])) == [0.1235, 1.0]
    assert plain(torch.tensor([[70_000]])) == [[70_000]]


def test_the_same_is_told_twice_whatever_else_is_asked(illustrator: Illustrator) -> None:
    schedule = Schedule.from_dict(SCHEDULES["pruning and merging"])
    first = illustrator(schedule, [2, 3])
    assert illustrator(schedule, [2, 3]) == first
    alone = illustrator(schedule, [3])["images"][0]
    assert alone["blocks"] == first["images"][1]["blocks"]


def test_any_model_can_be_shown(family: torch.nn.Module, images_for: Callable[[torch.nn.Module], torch.Tensor]) -> None:
    model = ReducedViT(family, presets.constant(family, 3))
    states = list(model.trace(images_for(family)))
    assert len(states) == model.shape.depth - (model.schedule.tail == "prefix")
    for (state, dropped, told, _), count in zip(states, costs.tokens(model.shape, model.schedule), strict=False):
        assert state.features.shape[1] == count
        assert state.source is not None
        assert all(len(set(row.tolist())) == count for row in state.source)
        assert not dropped.any()
        assert not any(told.values())  # merging has no more to say than where each patch went


def test_the_first_images_are_shown_where_none_is_asked_for(illustrator: Illustrator) -> None:
    assert [image["index"] for image in illustrator(Schedule(), [])["images"]] == list(range(FIRST))
    few = replace(illustrator, images=Images(illustrator.images.pixels[:2], None))
    shown = few(Schedule(), [])
    assert [(image["index"], image["label"]) for image in shown["images"]] == [(0, None), (1, None)]
    with pytest.raises(VittleError, match="no image 2; accepted: 0 to 1"):
        few(Schedule(), [1, 2])


def test_a_study_is_shown_on_the_images_that_its_search_sees_first(store: Store) -> None:
    backbone = load_backbone()
    record = BackboneRecord(backbone.name, backbone.fingerprint, backbone.classes, backbone.shape)
    study = store.create_study("one", Settings(seed=3), record)
    shown = illustrate(study, Schedule(), [0, 1])
    search = load_images("digits", backbone.preprocessing, backbone.classes, seed=3).search
    assert search.labels is not None
    assert [image["label"] for image in shown["images"]] == search.labels[:2].tolist()
    assert shown["available"] == len(search)
    other = store.create_study("two", Settings(), replace(record, fingerprint="000000000000"))
    with pytest.raises(VittleError, match="the weights of digits are not those of study 'two'"):
        illustrate(other, Schedule(), [0])
    gone = store.create_study("three", Settings(data="/nowhere"), record)
    with pytest.raises(VittleError, match="no images at /nowhere"):
        illustrate(gone, Schedule(), [0])
