"""What operators measure of themselves, followed as images get worse."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from vittle import Schedule
from vittle.objectives.quality.accuracy import to_input
from vittle.objectives.quality.corruptions import STRENGTHS, corrupted
from vittle.objectives.quality.drift import drift, measured, measures_of
from vittle.objectives.quality.images import load_images
from vittle.reductions.backbone import load_backbone
from vittle.reductions.tokens import Told
from vittle.reductions.vit import ReducedViT
from vittle.spaces.sparsity import Sparsity

MEASURES = {"one": ("share",)}


def spread_of(pixels: np.ndarray) -> list[Told]:
    """A reduction that does the worse the paler images are, in two of three blocks."""
    shares = torch.tensor(pixels.std((1, 2)).mean(-1) / 255)[:, None] * torch.tensor([[1.0, 0.5]])  # (b, h)
    return [{"one": {"share": shares}}, {}, {"one": {"share": shares / 2, "else": shares[:, 0]}}]


def test_a_measure_falls_where_what_it_depends_on_is_taken_away() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    found = drift(MEASURES, pixels, [0, 1, 2, 3], spread_of(pixels), spread_of)
    assert [(one["kind"], one["strength"]) for one in found[1:]] == [
        (kind, strength) for kind, strengths in STRENGTHS.items() for strength in strengths
    ]
    assert (found[0]["kind"], found[0]["strength"]) == (None, 0)
    shares = {kind: [one["measured"]["one"]["share"] for one in found if one["kind"] in (None, kind)] for kind in STRENGTHS}
    for kind in ("blur", "contrast"):
        first, middle, last = zip(*shares[kind], strict=True)
        assert middle == (None,) * 4
        assert list(first) == sorted(first, reverse=True)
        assert first[0] > 1.5 * first[-1]
        assert last == pytest.approx(np.array(first) / 2, abs=1e-4)
    assert shares["contrast"][-1][0] == pytest.approx(0.1 * shares["contrast"][0][0], abs=1e-3)


def test_where_nothing_is_measured_no_image_is_corrupted() -> None:
    def never(pixels: np.ndarray) -> list[Told]:
        raise AssertionError

    assert drift({}, np.zeros((1, 8, 8, 3), np.uint8), [0], [], never) == []


def test_means_are_over_images_and_heads() -> None:
    told: list[Told] = [{"one": {"share": torch.tensor([[0.0, 1.0], [0.5, 0.9]])}}, {"other": {"share": torch.ones(2, 2)}}]
    assert measured(told, MEASURES) == {"one": {"share": [0.6, None]}}


@torch.inference_mode()
def test_recall_and_mass_of_sparse_attention_are_those_of_the_model_on_the_corrupted_images() -> None:
    backbone = load_backbone()
    images = load_images("digits", backbone.preprocessing, backbone.classes).search.pixels[:3]
    model = ReducedViT(backbone.model, Schedule((Sparsity(shares=(0.2, 1, *[0.2] * 10)),)))

    def see(pixels: np.ndarray) -> list[Mapping[str, Any]]:
        given = to_input(pixels, backbone.preprocessing, torch.device("cpu"))
        return [one.told for one in model.trace(given)]

    assert measures_of(model) == {"sparsity": ("recall", "mass")}
    found = drift(measures_of(model), images, [0, 1, 2], see(images), see)
    by = {(one["kind"], one["strength"]): one["measured"]["sparsity"] for one in found}
    told = see(corrupted(images, "noise", 0.38, [0, 1, 2]))
    for name in ("recall", "mass"):
        expected = [float(one["sparsity"][name].mean()) if one.get("sparsity") else None for one in told]
        assert by["noise", 0.38][name] == pytest.approx(expected, abs=1e-4)
        assert [value is None for value in expected] == [False, True] + [False] * 10
    # In the first block, which sees no context yet, noise spreads attention: the more there is, the less goes to what is read.
    masses = [by[None, 0]["mass"][0], *(by["noise", one]["mass"][0] for one in STRENGTHS["noise"])]
    assert masses == sorted(masses, reverse=True)
    assert masses[0] - masses[-1] > 0.1
