"""Where merging may start in a backbone, measured on images."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from vittle.objectives import lease
from vittle.objectives.accuracy import to_input
from vittle.objectives.images import Images, Progress
from vittle.objectives.phase import PhaseChange, detect
from vittle.reductions.backbone import Backbone
from vittle.reductions.phases import observe

IMAGES = 256
BATCH = 32


def phase_change(
    backbone: Backbone, images: Images, device: str, *, limit: int = IMAGES, progress: Progress | None = None
) -> PhaseChange:
    """Where merging may start, from one dense pass over the first `limit` of the images. Labels are not read.

    Args:
        backbone: stays where it is; on another device a copy of it runs.
        images: in random order.
        device: `cpu` or `cuda`.
        limit: the most images to look at.
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

    with lease.shared(where):
        observed = observe(model, batches())
    if not there:
        del model
        torch.cuda.empty_cache()  # the workers of a search are other processes, and want this memory
    return detect(observed, backbone.fingerprint)
