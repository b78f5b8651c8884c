"""Where merging may start in a backbone, measured on images."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from vittle.objectives.backbones.merge_start import MergeStart, detect
from vittle.objectives.latency import device_lock
from vittle.objectives.quality.accuracy import to_input
from vittle.objectives.quality.decoding import Progress
from vittle.objectives.quality.images import Images
from vittle.reductions.attention_statistics import observe
from vittle.reductions.backbone import Backbone

IMAGES = 256
BATCH = 32


def find_merge_start(
    backbone: Backbone,
    images: Images,
    device: str,
    *,
    limit: int = IMAGES,
    digest: str = "",
    progress: Progress | None = None,
) -> MergeStart:
    """Where merging may start, from one dense pass over the first `limit` of the images. Labels are not read.

    Args:
        backbone: stays where it is; on another device a copy of it runs.
        images: in random order.
        device: `cpu` or `cuda`.
        limit: the most images to look at.
        digest: of all of them.
        progress: told (done, total).

    Raises:
        VittleError: fewer than two images, or activations that are not finite.
    """
    where = torch.device(device)
    there = next(backbone.model.parameters()).device.type == where.type
    model = backbone.model if there else copy.deepcopy(backbone.model).to(where)
    pixels = images.pixels[:limit]

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(pixels), BATCH):
            yield to_input(pixels[start : start + BATCH], backbone.preprocessing, where)
            if progress is not None:
                progress(min(start + BATCH, len(pixels)), len(pixels))

    with device_lock.shared(where):
        observed = observe(model, batches())
    if not there:
        del model
        torch.cuda.empty_cache()  # the workers of a search are other processes, and want this memory
    return detect(observed, backbone.fingerprint, digest=digest)
