"""What the searches of `search.py` are compared on: a backbone, images to search on and others to confirm on, and a space."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import photographs
import vittle
from vittle.objectives.quality.accuracy import predict
from vittle.objectives.quality.images import Images, Splits, load_images
from vittle.reductions.backbone import Backbone, load_architecture, load_backbone
from vittle.reductions.vit import ReducedViT
from vittle.spaces.inputs import EMBEDDED
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space

REDUCTIONS = ("merging",)
LARGE = "224px"  # images of noise for a backbone without training, whose answers are right: for what it takes to search
LARGE_MODEL, LARGE_IMAGES = "vit_tiny_patch16_224", 256
WORKERS = os.cpu_count() or 1  # of every search under Ray, one CPU and one thread each


@dataclass(frozen=True)
class Source:
    """Where a problem comes from, so that any process can load it.

    Attributes:
        dataset: `digits`, `photographs` or `224px`.
        images: the file of the photographs.
        weights: the file of the backbone; None for the embedded one.
        limit: images of each split; None for all.
    """

    dataset: str = EMBEDDED
    images: Path | None = None
    weights: Path | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Problem:
    """Find the schedules of a space with the best accuracy for their MACs; there is no budget, the whole front counts."""

    source: Source
    backbone: Backbone
    splits: Splits
    space: Space

    def macs(self, schedule: Schedule) -> int:
        """MACs of one image."""
        return vittle.macs(self.backbone.shape, schedule)

    def judge(self, schedule: Schedule, images: Images) -> tuple[float, float]:
        """The share of images that a schedule answers rightly, and the seconds spent in forward passes.

        Raises:
            FloatingPointError: logits that are not finite.
        """
        # One fixed form of attention: to measure the fastest would cost each new process anew.
        model = ReducedViT(self.backbone.model, schedule, self.backbone.adapters, form="mask")
        start = time.perf_counter()
        answers = predict(model, images.pixels, self.backbone.preprocessing, torch.device("cpu"))
        seconds = time.perf_counter() - start
        return float((answers == images.labels).mean()), seconds


def load(source: Source) -> Problem:
    """Build the model, load its weights and the images.

    Raises:
        VittleError: a file that is missing or not what it should be.
    """
    if source.dataset == LARGE:
        torch.manual_seed(0)
        backbone = load_architecture(LARGE_MODEL)
        splits = Splits(*(_noise(backbone, seed) for seed in (0, 1)))
        return Problem(source, backbone, splits, Space(backbone.shape, REDUCTIONS))
    backbone = load_backbone(EMBEDDED, source.weights)
    if source.images is None:
        splits = load_images(EMBEDDED, backbone.preprocessing, backbone.classes)
    else:
        splits = photographs.splits(source.images)
    parts = (_first(images, source.limit) for images in (splits.search, splits.held_out))
    return Problem(source, backbone, Splits(*parts), Space(backbone.shape, REDUCTIONS))


def _noise(backbone: Backbone, seed: int) -> Images:
    pixels = np.random.default_rng(seed).integers(0, 256, (LARGE_IMAGES, *backbone.preprocessing.size, 3), np.uint8)
    labels = predict(backbone.model, pixels, backbone.preprocessing, torch.device("cpu"))  # its own answers
    return Images(pixels, labels)


def _first(images: Images, limit: int | None) -> Images:
    return Images(images.pixels[:limit], None if images.labels is None else images.labels[:limit])
