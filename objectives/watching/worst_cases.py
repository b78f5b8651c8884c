"""What a watch makes of the worst that may enter: what it sees, what it misses, and whether falling back helps there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vittle.objectives.quality.accuracy import to_input
from vittle.objectives.quality.corruptions import WORST, Kind, corrupted
from vittle.objectives.watching.calibration import Mode
from vittle.objectives.watching.monitor import judged
from vittle.objectives.watching.watched import BATCH, Watched
from vittle.reductions.data import preprocessing_of
from vittle.spaces.errors import VittleError

MODES: tuple[Mode, Mode] = ("scheduled", "uniform")


@dataclass(frozen=True, slots=True)
class WorstCase:
    """A window of images, all of them spoilt in one way.

    Attributes:
        kind: what happened to them (`corruptions.py`); None for the images as they are.
        strength: how much of it.
        distance: Jensen-Shannon, of the signal that is the most beyond its threshold, or the nearest to it, in scheduled mode.
        threshold: of that signal.
        signal: its name.
        alarm: whether such windows are an alarm.
        stays: whether they keep up the alarm in uniform mode; where they do not, the modes would take turns.
        scheduled: the share of images that are answered rightly in scheduled mode: as labelled, or without labels, as uniform
            mode answers the same images unspoilt.
        uniform: the same of uniform mode.
        agreement: the share that both modes answer alike.
    """

    kind: Kind | None
    strength: float
    distance: float
    threshold: float
    signal: str
    alarm: bool
    stays: bool
    scheduled: float
    uniform: float
    agreement: float


@torch.inference_mode()
def worst_cases(watched: Watched, pixels: NDArray[np.uint8], labels: NDArray[np.int64] | None = None) -> list[WorstCase]:
    """Run images through both modes as they are, and spoilt in each way of `WORST`. The watch's own window stays as it is.

    Args:
        watched: in evaluation mode.
        pixels: (n, height, width, 3), at the size that the model takes; at least a window, better none that it was calibrated
            on. The first window of them is judged, all of them are answered.
        labels: (n,).

    Raises:
        VittleError: fewer images than a window, or a model that gives no answers.
    """
    window = watched.calibration.window
    if len(pixels) < window:
        raise VittleError(f"there are {len(pixels)} images to spoil; accepted: at least a window of {window}")
    if not watched.num_classes:
        raise VittleError("the model has no classifier to judge by; accepted: one with a trained head")
    cases: list[tuple[Kind | None, float]] = [(None, 0.0), *WORST]
    truth = labels
    found = []
    for kind, strength in cases:
        seen = pixels if kind is None else corrupted(pixels, kind, strength, range(len(pixels)))
        runs: dict[Mode, tuple[NDArray[np.int64], NDArray[np.int64]]] = {mode: _run(watched, mode, seen) for mode in MODES}
        answers = {mode: answered for mode, (answered, _) in runs.items()}
        truth = answers["uniform"] if truth is None else truth
        verdicts = {mode: judged(watched.calibration, mode, counts[:window].sum(0)) for mode, (_, counts) in runs.items()}
        of = verdicts["scheduled"]
        found.append(
            WorstCase(
                kind,
                strength,
                of.distance,
                of.threshold,
                of.signal,
                alarm=of.over,
                stays=verdicts["uniform"].over,
                scheduled=float((answers["scheduled"] == truth).mean()),
                uniform=float((answers["uniform"] == truth).mean()),
                agreement=float((answers["scheduled"] == answers["uniform"]).mean()),
            )
        )
    return found


def _run(watched: Watched, mode: Mode, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes (n,) of images in a mode, and the histograms (n, s, k) of its signals."""
    model: Any = watched.modes["scheduled"]
    like = next(watched.parameters())
    preprocessing = preprocessing_of(model.model.backbone)
    answers, histograms = [], []
    for start in range(0, len(pixels), BATCH):
        images = to_input(pixels[start : start + BATCH], preprocessing, like.device).to(like)
        logits, found = watched.run(mode, images)
        answers.append(logits.argmax(-1).cpu().numpy())
        histograms.append(found)
    return np.concatenate(answers), np.concatenate(histograms)
