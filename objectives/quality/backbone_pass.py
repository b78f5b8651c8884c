"""What the backbone's own pass over the search images leaves behind: its answers, and activations that schedules go on from.

The pass is made once. Its logits are what every schedule is compared with, and the activations on the way are kept as far as
memory allows: those of early rungs first, because every trial starts there, and within a rung those of blocks spread over the
depth, because a schedule goes on from the nearest block before its own first change.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vittle.objectives.quality.rungs import spread
from vittle.reductions.activations import Activations, Packed, size
from vittle.spaces.shape import BackboneShape

Place = tuple[int, int]
"""A batch and a block."""


@dataclass(frozen=True)
class BackbonePass:
    """The backbone's pass over the search images.

    Attributes:
        logits: (n, classes) float32.
        kept: activations by batch and block, as arrays or as whatever `fetch` turns into them.
        fetch: from what is kept to arrays.
        seconds: that the pass took.
    """

    logits: NDArray[np.float32]
    kept: Mapping[Place, Any] = field(default_factory=dict)
    fetch: Callable[[Any], Packed] = lambda packed: packed
    seconds: float = 0.0


def places(shape: BackboneShape, batches: Sequence[int], itemsize: int, limit: int) -> list[Place]:
    """Which activations to keep within `limit` bytes.

    Args:
        shape: the backbone's.
        batches: images of each batch, those of early rungs first.
        itemsize: bytes of an activation.
        limit: in bytes.
    """
    blocks = list(spread(max(1, shape.depth - 1)))
    chosen: list[Place] = []
    left = limit
    for batch, images in enumerate(batches):
        needed = size(shape, images, itemsize)
        there = blocks[: left // needed]
        chosen += [(batch, block) for block in there]
        left -= needed * len(there)
    return chosen


class ActivationCache:
    """The activations of a dense pass on the device where they are used; on a GPU as many as fit `limit` bytes stay there."""

    def __init__(self, dense: BackbonePass, device: torch.device, limit: int) -> None:
        self._dense = dense
        self._device = device
        self._left = limit if device.type == "cuda" else 0
        self._there: dict[Place, Activations] = {}

    def nearest(self, batch: int, block: int) -> tuple[int, Activations] | None:
        """The kept activations of a batch nearest to a block and not behind it, with its block; None where none is kept."""
        for before in range(block, -1, -1):
            if (batch, before) in self._dense.kept:
                return before, self._get((batch, before))
        return None

    def _get(self, place: Place) -> Activations:
        if place in self._there:
            return self._there[place]
        activations = Activations.unpack(self._dense.fetch(self._dense.kept[place]), self._device)
        if activations.bytes <= self._left:
            self._left -= activations.bytes
            self._there[place] = activations
        return activations
