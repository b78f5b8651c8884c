"""What a schedule does to the user's own images, block by block: which patches belong together, and which are gone.

Model and images are loaded once and kept, so whoever asks does so in a process of its own (see
`vittle.dashboards.documents.pictures`).
The model runs in float32 on the processor, whatever the study measures on: a picture is to be had where the study is looked at.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vittle.objectives.latency import device_lock
from vittle.objectives.quality.accuracy import finite, to_input
from vittle.objectives.quality.drift import DIGITS, drift, measures_of
from vittle.objectives.quality.image_digest import ImageDigest
from vittle.objectives.quality.images import Images, load_images
from vittle.reductions.backbone import Backbone
from vittle.reductions.tokens import Told, Traced
from vittle.reductions.vit import ReducedViT
from vittle.search.remeasure import adapters_for, known_backbone
from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.schedule import Schedule
from vittle.spaces.work import BlockWork
from vittle.storage.records import Study

AT_HAND = 512  # images that are kept, the first ones that a search sees
FIRST = 6  # that are shown where nobody asks for others
GONE, RESTS = -1, -2  # in place of a token: dropped before, and taking no part
CPU = torch.device("cpu")
PACKED: Mapping[torch.dtype, "np.dtype[Any]"] = {torch.uint8: np.dtype("u1"), torch.int16: np.dtype("<i2")}


@dataclass(frozen=True)
class Illustrator:
    """A backbone with some images to show schedules on.

    Attributes:
        backbone: on the processor.
        images: the first ones of the search split.
        adapters: files of trained weights for it, by reduction.
    """

    backbone: Backbone
    images: Images
    adapters: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, schedule: Schedule, indices: Sequence[int]) -> dict[str, Any]:
        """What happens to some images under a schedule, as plain values.

        Args:
            schedule: for the backbone.
            indices: of images; the first ones where there are none.

        Returns:
            The schedule's `id`; `grid` (rows, columns); `patch` (height, width) in pixels; the `whole` of tokens before any
            block, of which `prefix` are no patches, and the `tokens` after each; which block runs in each of the `visits`, as
            `costs.visits_told` has it, with the `rules` by which each reduction chooses; how many of these `blocks` compute
            patches, all but the last one of a `prefix` tail; how many images are `available`; the `drift` of what reductions
            measure of themselves where images are corrupted (`vittle.objectives.quality.drift`); and `images`, each with

            * `index`, `label` and `picture`, a data URL,
            * the answers of `backbone` and `schedule`, and whether they `agree`,
            * `blocks`, after each that computes patches: `groups`, the group of every patch in reading order, numbered from 0
              by first patch, -1 where it was dropped; `sizes`, what each group counts for; `told`, what each reduction that
              acted says of it for its own picture (`plain`); and where one did, or decided who takes part, `places`: which of
              the patch tokens that take part each patch is part of, -1 where it was dropped before, -2 where it rests.

        Raises:
            VittleError: an image that there is not, or an adapter that is missing.
        """
        shape, chosen = self.backbone.shape, list(indices or range(min(FIRST, len(self.images))))
        wrong = [index for index in chosen if not 0 <= index < len(self.images)]
        if wrong:
            raise VittleError(f"no image {wrong[0]}; accepted: 0 to {len(self.images) - 1}")
        pixels = self.images.pixels[chosen]
        labels = [None] * len(chosen) if self.images.labels is None else self.images.labels[chosen].tolist()
        model = ReducedViT(self.backbone.model, schedule, adapters_for(schedule, self.adapters, self.backbone))
        with device_lock.shared(CPU), torch.inference_mode():
            given = to_input(pixels, self.backbone.preprocessing, CPU)
            answers = [finite(one(given)).argmax(-1).tolist() for one in (self.backbone.model, model)]
            traced = list(model.trace(given))
        groups = [_groups(one.tokens.source, one.dropped, shape.prefix) for one in traced]
        untouched = np.arange(shape.patches) + shape.prefix
        before = [np.broadcast_to(untouched, (len(chosen), shape.patches)), *groups]
        rows = model.work[: len(traced)]
        entered = [_taking_part(*one, shape.prefix) for one in zip(rows, before, traced, strict=False)]
        vit: Any = self.backbone.model
        return {
            "id": schedule.id,
            "grid": list(shape.grid),
            "patch": list(vit.patch_embed.patch_size),
            "whole": shape.tokens,
            "prefix": shape.prefix,
            "tokens": list(costs.tokens(shape, schedule)),
            "visits": [
                {**told, "rules": {act.reduction: act.rule for act in row.acts}}
                for told, row in zip(costs.visits_told(model.work), model.work, strict=True)
            ],
            "blocks": len(traced),
            "available": len(self.images),
            "drift": drift(
                measures_of(model), pixels, chosen, [one.told for one in traced], lambda seen: self._told(model, seen)
            ),
            "images": [
                {
                    "index": index,
                    "label": labels[place],
                    "picture": _picture(pixels[place]),
                    "backbone": answers[0][place],
                    "schedule": answers[1][place],
                    "agree": answers[0][place] == answers[1][place],
                    "blocks": [
                        _block(after[place], one, place) | _told(row, part[place], one, place)
                        for row, part, after, one in zip(rows, entered, groups, traced, strict=True)
                    ],
                }
                for place, index in enumerate(chosen)
            ],
        }

    def _told(self, model: ReducedViT, pixels: NDArray[np.uint8]) -> list[Told]:
        """What operators say of images. The lock is let go after each call, so that whoever measures here waits for no more."""
        with device_lock.shared(CPU), torch.inference_mode():
            return [one.told for one in model.trace(to_input(pixels, self.backbone.preprocessing, CPU))]


def illustrate(study: Study, schedule: Schedule, indices: Sequence[int]) -> dict[str, Any]:
    """What happens to images of a study's search split under one of its schedules; as `Illustrator` has it.

    Raises:
        VittleError: the study's model or its images are not to be had on this machine, or an image that there is not.
    """
    settings = study.inference
    about = (
        settings.model,
        settings.checkpoint,
        settings.image_size,
        study.backbone.fingerprint,
        settings.data,
        settings.classes,
    )
    return _illustrator(*about, settings.seed, tuple(settings.adapters.items()), study.images, study.name)(schedule, indices)


@lru_cache(maxsize=2)
def _illustrator(
    model: str,
    checkpoint: str | None,
    image_size: tuple[int, int] | None,
    fingerprint: str,
    data: str,
    classes: str | None,
    seed: int,
    adapters: tuple[tuple[str, str], ...],
    images: ImageDigest | None,
    study: str,
) -> Illustrator:
    backbone = known_backbone(model, checkpoint, fingerprint, f"study {study!r}", image_size)
    splits = load_images(data, backbone.preprocessing, backbone.classes, class_names=classes, seed=seed)
    change = splits.digest and splits.digest.change_from(images)
    if change:
        raise VittleError(f"the images are not those that study {study!r} was judged on: {change}")
    search = splits.search
    # Copies, so that the rest of thousands of images is let go.
    labels = None if search.labels is None else search.labels[:AT_HAND].copy()
    return Illustrator(backbone, Images(search.pixels[:AT_HAND].copy(), labels), dict(adapters))


def _groups(source: torch.Tensor | None, dropped: torch.Tensor, prefix: int) -> NDArray[np.int64]:
    """The token (b, patches) that each patch is part of, -1 where it was dropped."""
    assert source is not None
    found: NDArray[np.int64] = source.masked_fill(dropped, -1)[:, prefix:].numpy()
    return found


def _block(groups: NDArray[np.int64], traced: Traced, place: int) -> dict[str, Any]:
    """One image after one block, its groups numbered by their first patch."""
    sizes = traced.tokens.sizes
    tokens, first = np.unique(groups, return_index=True)
    tokens = tokens[np.argsort(first)]
    tokens = tokens[tokens >= 0]
    numbers = {-1: -1, **{int(token): number for number, token in enumerate(tokens)}}
    counted = np.ones(groups.max() + 1) if sizes is None else sizes[place].numpy()
    return {
        "groups": [numbers[token] for token in groups.tolist()],
        "sizes": counted[tokens].astype(float).round(3).tolist(),
    }


def _taking_part(row: BlockWork, before: NDArray[np.int64], traced: Traced, prefix: int) -> NDArray[np.int64]:
    """Which of the patch tokens that take part (b, patches) each patch is part of, -1 where it was dropped, -2 where it rests.

    Args:
        row: the visit.
        before: the token that each patch is part of when it begins, -1 where it was dropped.
        traced: the visit's.
        prefix: tokens that are no patches.
    """
    part = np.broadcast_to(np.arange(row.entering), (len(before), row.entering))
    if traced.taking_part is not None:
        part = np.full(part.shape, prefix + RESTS)
        np.put_along_axis(part, traced.taking_part.numpy(), np.arange(row.keys)[None], axis=1)
    return np.where(before < 0, GONE, np.take_along_axis(part, before.clip(0), axis=1) - prefix)


def _told(row: BlockWork, part: NDArray[np.int64], traced: Traced, place: int) -> dict[str, Any]:
    """What the reductions tell of one image in one block, and which of the tokens that they saw each patch was part of."""
    told = {
        reduction: {name: plain(values[place]) for name, values in decided.items()}
        for reduction, decided in traced.told.items()
        if decided
    }
    places = {"places": part.tolist()} if told or row.at("route") else {}
    return {"told": told, **places}


def plain(values: torch.Tensor) -> Any:
    """A tensor for JSON: nested lists of numbers, rounded; whole numbers of one or two bytes, of which there are many, packed.

    What is packed has a `type`, uint8 or int16, a `shape`, and `data`: the numbers in their order, little-endian, in base64.
    """
    if values.dtype in PACKED:
        packed = values.contiguous().numpy().astype(PACKED[values.dtype])
        data = base64.b64encode(packed.tobytes()).decode()
        return {"type": packed.dtype.name, "shape": list(packed.shape), "data": data}
    return values.double().round(decimals=DIGITS).tolist() if values.is_floating_point() else values.tolist()


def _picture(pixels: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
