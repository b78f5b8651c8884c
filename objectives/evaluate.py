"""One schedule judged on one backbone: MACs by arithmetic, latency by the clock, accuracy by images.

A worker makes one `Evaluator` and keeps it: the backbone and its images are loaded once and only the schedule changes.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from vittle.objectives import latency
from vittle.objectives.accuracy import accuracy, predict, to_input
from vittle.objectives.images import Images, Splits
from vittle.objectives.measurement import LatencyBudget, Measurement, Phase, exact
from vittle.reductions.backbone import Backbone
from vittle.reductions.vit import ReducedViT, check_identity
from vittle.spaces import costs
from vittle.spaces.schedule import Schedule


class Evaluator:
    """A backbone and its images on one device.

    Raises:
        UnsupportedBackboneError: an empty schedule would change the backbone's output.
    """

    def __init__(self, backbone: Backbone, splits: Splits, *, device: str, batch_size: int) -> None:
        self.device = torch.device(device)
        self.backbone = backbone
        self.model = backbone.model.to(self.device)
        self.adapters = {name: adapter.to(self.device) for name, adapter in backbone.adapters.items()}
        self.images: Mapping[Phase, Images] = {"search": splits.search, "confirmation": splits.held_out}
        self._expected: dict[Phase, NDArray[np.int64]] = {}
        pixels = splits.search.pixels
        repeated = np.resize(pixels, (batch_size, *pixels.shape[1:]))  # wraps around where there are fewer images
        self._batch = to_input(repeated, backbone.preprocessing, self.device)
        check_identity(self.model)

    def measure(
        self, schedule: Schedule, phase: Phase = "search", budget: LatencyBudget | None = None
    ) -> dict[str, Measurement]:
        """Measure a schedule, cheapest objective first.

        With a `budget`, a schedule whose latency exceeds it is not evaluated further: `accuracy` is then missing.

        Raises:
            FloatingPointError: logits that are not finite.
        """
        model = ReducedViT(self.model, schedule, self.adapters)
        measured = {"macs": exact("macs", costs.macs(self.backbone.shape, schedule))}
        measured |= latency.measure(model, self.model, self._batch, phase, {"attention": model.form})
        if budget is None or budget.excess(measured) <= 0:
            images = self.images[phase]
            predicted = predict(model, images.pixels, self.backbone.preprocessing, self.device)
            measured["accuracy"] = accuracy(predicted, self._reference(phase), images)
        return measured

    def _reference(self, phase: Phase) -> NDArray[np.int64]:
        """The labels; where there are none, the backbone's own answers."""
        images = self.images[phase]
        if images.labels is not None:
            return images.labels
        if phase not in self._expected:
            self._expected[phase] = predict(self.model, images.pixels, self.backbone.preprocessing, self.device)
        return self._expected[phase]
