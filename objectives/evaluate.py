"""One schedule judged on one backbone: MACs by arithmetic, latency by the clock or predicted, accuracy by images.

A worker makes one `Evaluator` and keeps it: the backbone and its images are loaded once and only the schedule changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vittle.objectives import lease
from vittle.objectives.accuracy import accuracy, predict, to_input
from vittle.objectives.front import enters
from vittle.objectives.images import Images, Splits
from vittle.objectives.latency import EFFORTS, Stand
from vittle.objectives.measurement import LatencyBudget, Measurement, Phase, exact
from vittle.reductions.backbone import Backbone
from vittle.reductions.device import DTYPES
from vittle.reductions.vit import ReducedViT, check_identity
from vittle.spaces import costs
from vittle.spaces.schedule import Schedule

Measured = Mapping[str, Measurement]


def make_stand(
    backbone: Backbone, *, device: str, batch_size: int, dtype: str = "float32", compiled: bool = False,
    pixels: NDArray[np.uint8] | None = None,
) -> Stand:  # fmt: skip
    """A place to time a backbone's schedules; the backbone's model goes to the device and type.

    Args:
        backbone: checked here to be understood, in its own precision.
        device: `cpu` or `cuda`.
        batch_size: images of one batch.
        dtype: of weights and activations, one of `DTYPES`.
        compiled: time through `torch.compile`.
        pixels: images to fill the batch with, as often as it takes; noise where there are none.

    Raises:
        UnsupportedBackboneError: an empty schedule would change the backbone's output.
    """
    where = torch.device(device)
    model = backbone.model.to(where)
    if next(model.parameters()).dtype == torch.float32:
        check_identity(model)
    model.to(DTYPES[dtype])
    if pixels is None:
        size = (batch_size, *backbone.preprocessing.size, 3)
        pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    repeated = np.resize(pixels, (batch_size, *pixels.shape[1:]))
    return Stand(model, to_input(repeated, backbone.preprocessing, where).to(DTYPES[dtype]), compiled=compiled)


class Evaluator:
    """A backbone and its images at a stand; arguments as `make_stand` has them.

    Raises:
        UnsupportedBackboneError: an empty schedule would change the backbone's output.
    """

    def __init__(self, backbone: Backbone, splits: Splits, **where: Any) -> None:
        self.backbone = backbone
        self.stand = make_stand(backbone, pixels=splits.search.pixels, **where)
        self.model = backbone.model
        self.adapters = {name: adapter.to(self.stand.images) for name, adapter in backbone.adapters.items()}
        self.images: Mapping[Phase, Images] = {"search": splits.search, "confirmation": splits.held_out}
        self._expected: dict[Phase, NDArray[np.int64]] = {}

    def measure(
        self,
        schedule: Schedule,
        phase: Phase = "search",
        *,
        budget: LatencyBudget | None = None,
        profile: str | None = None,
        predicted: Measured | None = None,
        rivals: Sequence[Measured] | None = (),
    ) -> dict[str, Measurement]:
        """Measure a schedule, cheapest objective first.

        Args:
            schedule: for the backbone.
            phase: how much effort to spend, and on which images.
            budget: a schedule whose measured latency exceeds it is not evaluated further: `accuracy` is then missing.
            profile: key of the latency profile that is known of the backbone, for the protocol.
            predicted: its latency, which stands in for the measured one unless the schedule enters the front.
            rivals: the front; None where the latency is another device's, so that it is never measured here.

        Raises:
            FloatingPointError: logits that are not finite.
        """
        model = ReducedViT(self.model, schedule, self.adapters)
        measured = {"macs": exact("macs", costs.macs(self.backbone.shape, schedule)), **(predicted or {})}
        if predicted is None:
            measured |= self.stand.measure(model, EFFORTS[phase], {"profile": profile} if profile else None)
            if budget is not None and budget.excess(measured) > 0:
                return measured
        measured["accuracy"] = self._accuracy(model, phase)
        if predicted is not None and rivals is not None and enters(measured, rivals):
            about = {"profile": profile, "predicted": predicted["latency_ratio"].value}
            measured |= self.stand.measure(model, EFFORTS[phase], about)
        return measured

    def judge(self, schedule: Schedule, phase: Phase) -> Measurement:
        """Its accuracy alone.

        Raises:
            FloatingPointError: logits that are not finite.
        """
        return self._accuracy(ReducedViT(self.model, schedule, self.adapters), phase)

    def _accuracy(self, model: ReducedViT, phase: Phase) -> Measurement:
        images = self.images[phase]
        with lease.shared(self.stand.device):
            expected = self._reference(phase)
            return accuracy(self._predict(model, images), expected, images)

    def _reference(self, phase: Phase) -> NDArray[np.int64]:
        """The labels; where there are none, the backbone's own answers."""
        images = self.images[phase]
        if images.labels is not None:
            return images.labels
        if phase not in self._expected:
            self._expected[phase] = self._predict(self.model, images)
        return self._expected[phase]

    def _predict(self, model: torch.nn.Module, images: Images) -> NDArray[np.int64]:
        like = self.stand.images
        return predict(model, images.pixels, self.backbone.preprocessing, like.device, like.dtype)
