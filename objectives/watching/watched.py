"""A reduced model that watches what enters it, and falls back to treating every patch alike where that is unlike calibration.

The papers of recursion (Bae et al., arXiv 2507.10524, and Li, arXiv 2507.21761) say nothing of this. Capacities are static
here: the histogram of depths is the same for every image, so its entropy can never alarm. What tells are the scores that each
step's router gives to the patches that enter it, whatever rule chooses, and where nothing recurs, how alike the pairs are that
merge. Their histograms over the last images are compared with those of calibration images (`histograms.py`), and windows that
differ change the mode (`monitor.py`).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vittle.objectives.watching.calibration import Calibration, Mode, WatchedMode, WatchedSignal
from vittle.objectives.watching.histograms import counted, edges_between, edges_for, from_exceeding, thresholds
from vittle.objectives.watching.monitor import DIGITS, Monitor, Switch
from vittle.reductions.backbone import fingerprint
from vittle.reductions.uniform import under, uniform
from vittle.reductions.vit import ReducedViT, Signal
from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.merging import Merging
from vittle.spaces.recursion import Recursion
from vittle.spaces.schedule import Schedule

WATCHED = (Recursion.name, Merging.name)  # the first of them that a schedule has is watched
BATCH = 64  # images at once, where they come as one tensor
WINDOW = 256
FALSE_ALARMS = 1e-3
LEAST_FALSE_ALARMS = 1e-4
SEED = 0

log = logging.getLogger("vittle.watch")

Batches = Tensor | Iterable[Tensor] | Iterable[tuple[Tensor, Tensor]]


def watch(
    model: nn.Module,
    images: Batches | Calibration | str | Path,
    *,
    labels: Tensor | None = None,
    fall_back: Schedule | None = None,
    full_depth: bool = False,
    window: int = WINDOW,
    false_alarms: float = FALSE_ALARMS,
    alarm_after: int = 3,
    return_after: int = 10,
    on_switch: Callable[[Switch], None] | None = None,
) -> "Watched":
    """A module that is called like `model`, and watches what enters it.

    Args:
        model: what `vittle.apply` gives, with a schedule that recurs or merges.
        images: as the model takes them, (n, 3, h, w), or an iterable of such batches, alone or each with its labels: what it
            should find ordinary, at least two windows of them, better eight. Or a calibration, or the file of one.
        labels: (n,) where the images are one tensor and have any.
        fall_back: what runs after an alarm. By default every patch takes the mean depth of the schedule's recursion, or where
            nothing recurs, the backbone runs as it is.
        full_depth: let every patch take all steps of a recursion instead, where the budget allows it.
        window: images that are compared at once. Single images do not tell.
        false_alarms: the share of windows of ordinary images that may exceed a threshold.
        alarm_after: windows in a row over it, each a quarter of a window after the one before, that are an alarm.
        return_after: windows in a row below it that end one.
        on_switch: called with each change of mode, in the thread whose batch made it. What it raises is logged.

    Raises:
        VittleError: nothing to watch, too few images, or a calibration of other weights, another schedule or another fall-back.
    """
    if not isinstance(model, ReducedViT):
        raise VittleError(f"cannot watch a {type(model).__name__}; accepted: what vittle.apply gives")
    if fall_back is not None and full_depth:
        raise VittleError("fall_back and full_depth are given; accepted: one of them")
    modes = {"scheduled": model, "uniform": _falling_back(model, fall_back, full_depth)}
    if not _watched(model):
        raise VittleError(f"nothing to watch in this schedule ({model.schedule.summary}); accepted: one that recurs or merges")
    if not _watched(modes["uniform"]):
        raise VittleError("nothing to watch in the fall-back, so there would be no return; accepted: one that recurs or merges")
    if isinstance(images, (str, Path)):
        images = Calibration.load(images)
    if isinstance(images, Calibration):
        calibration = images
        _check(calibration, modes)
    else:
        calibration = _calibrate(modes, _pairs(images, labels), window, false_alarms)
    return Watched(modes, Monitor(calibration, alarm_after, return_after), on_switch)


class Signalled(nn.Module):
    """A reduced model that gives its state with its answers. Its shapes are static: it can be compiled whole, and exported.

    What it adds are comparisons, sums and a stack, all of which ONNX has.

    Args:
        model: that runs.
        edges: (s, k - 1) of the bins of its watched signals.
    """

    edges: Tensor

    def __init__(self, model: ReducedViT, edges: Tensor) -> None:
        super().__init__()
        self.model = model
        self._chosen = tuple(index for index, _ in _watched(model))
        self.register_buffer("edges", edges, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, classes) of images (b, 3, h, w), and (b, s, k - 1) how many values of each signal reach each edge."""
        logits, signals = self.model.forward_signals(images)
        edges = self.edges.float()
        reach = [(signals[index][..., None] >= edges[row]).sum(1) for row, index in enumerate(self._chosen)]
        return logits, torch.stack(reach, 1)


class Watched(nn.Module):
    """What `watch` makes. In training mode it only runs the schedule.

    It may be called from several threads at once: each batch runs in the mode that was on when it began, whole batches enter
    the window in the order in which they end, and every change is made, logged and told of once. Each call waits for its
    answers, since they decide what runs next; on a GPU that is one transfer of a few kilobytes a batch. To compile it, compile
    its two modes: `for mode in watched.modes.values(): mode.compile()`.

    Attributes:
        modes: `scheduled` and `uniform`, which share all weights.
        monitor: the window.
    """

    def __init__(
        self, modes: dict[str, ReducedViT], monitor: Monitor, on_switch: Callable[[Switch], None] | None = None
    ) -> None:
        super().__init__()
        self.monitor = monitor
        self.on_switch = on_switch
        place = next(modes["scheduled"].parameters()).device
        known: Any = monitor.calibration.modes
        self.modes = nn.ModuleDict(
            {
                name: Signalled(model, torch.tensor([one.edges for one in known[name].signals], device=place))
                for name, model in modes.items()
            }
        )
        self._values = {name: tuple(one.values for one in known[name].signals) for name in modes}
        self.num_classes = modes["scheduled"].num_classes
        self.pretrained_cfg = modes["scheduled"].pretrained_cfg
        self.train(modes["scheduled"].training)

    @property
    def calibration(self) -> Calibration:
        """What it compares with. `calibration.save(path)` keeps it, and `watch(model, path)` takes it again."""
        return self.monitor.calibration

    @property
    def mode(self) -> Mode:
        """What the next batch runs in."""
        return self.monitor.mode

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, classes) of images (b, 3, h, w)."""
        if self.training:
            scheduled: Any = self.modes["scheduled"]
            return scheduled.model(images)  # type: ignore[no-any-return]
        mode = self.mode
        logits, histograms = self.run(mode, images)
        for switch in self.monitor.take(mode, histograms):
            self._tell(switch)
        return logits

    def run(self, mode: Mode, images: Tensor) -> tuple[Tensor, NDArray[np.int64]]:
        """Logits (b, classes) in a mode, and the histograms (b, s, k) of its signals. The window stays as it is."""
        logits, exceeding = self.modes[mode](images)
        return logits, from_exceeding(exceeding.cpu().numpy(), self._values[mode])

    def report(self) -> dict[str, Any]:
        """What has been seen, and what is known of both modes, as plain values that JSON takes."""
        known = self.calibration
        modes = {
            name: {"macs": mode.macs, "watching_macs": mode.watching_macs, "accuracy": mode.accuracy, "schedule": mode.schedule}
            for name, mode in known.modes.items()
        }
        about = {"images": known.images, "window": known.window, "false_alarms": known.false_alarms}
        return {**self.monitor.report(), "calibration": {**about, "agreement": known.agreement, "modes": modes}}

    def _tell(self, switch: Switch) -> None:
        what = "alarm" if switch.to == "uniform" else "return"
        log.warning(
            "%s after %d images: %s is %.4f from calibration (threshold %.4f), now %s",
            what, switch.images, switch.signal, switch.distance, switch.threshold, switch.to,
        )  # fmt: skip
        if self.on_switch is not None:
            try:
                self.on_switch(switch)
            except Exception:
                log.exception("what was to be told of the switch to %s failed", switch.to)


def _falling_back(model: ReducedViT, fall_back: Schedule | None, full_depth: bool) -> ReducedViT:
    if fall_back is not None and fall_back.reductions:
        return under(model, fall_back)
    recurs = any(isinstance(part, Recursion) for part in model.schedule.reductions)
    if recurs and fall_back is not None:
        raise VittleError("the backbone's own blocks are not there any more; accepted: a fall-back that recurs")
    return uniform(model, full_depth=full_depth)


def _watched(model: ReducedViT) -> list[tuple[int, Signal]]:
    """The signals that are watched, with their places among all."""
    there = list(enumerate(model.signals))
    for reduction in WATCHED:
        if found := [(index, signal) for index, signal in there if signal.reduction == reduction]:
            return found
    return []


def _name(signal: Signal) -> str:
    return f"recursion step {signal.step + 1}" if signal.reduction == Recursion.name else f"merging in block {signal.visit}"


def _pairs(images: Batches, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    if isinstance(images, Tensor):
        if labels is not None and len(labels) != len(images):
            raise VittleError(f"there are {len(labels)} labels for {len(images)} images; accepted: one for each")
        for start in range(0, len(images), BATCH):
            some = slice(start, start + BATCH)
            yield images[some], None if labels is None else labels[some]
        return
    if labels is not None:
        raise VittleError("labels are given beside batches; accepted: batches of images and labels")
    for batch in images:
        yield batch if isinstance(batch, (tuple, list)) else (batch, None)  # type: ignore[misc]


@torch.inference_mode()
def _calibrate(
    modes: dict[str, ReducedViT], batches: Iterable[tuple[Tensor, Tensor | None]], window: int, false_alarms: float
) -> Calibration:
    if not LEAST_FALSE_ALARMS <= false_alarms <= 0.1:
        raise VittleError(f"false_alarms is {false_alarms}; accepted: {LEAST_FALSE_ALARMS:g} to 0.1 of the windows")
    if window < 1:
        raise VittleError(f"window is {window}; accepted: 1 or more images")
    model = modes["scheduled"]
    like = next(model.parameters())
    answers: dict[str, list[Tensor]] = {name: [] for name in modes}
    values: dict[str, list[list[Tensor]]] = {name: [] for name in modes}
    right: list[Tensor | None] = []
    was = model.training
    for one in modes.values():
        one.eval()
    for images, labels in batches:
        right.append(labels)
        for name, one in modes.items():
            logits, signals = one.forward_signals(images.to(like))
            answers[name].append(logits.argmax(-1).cpu())
            values[name].append([signals[index].cpu() for index, _ in _watched(one)])
    for one in modes.values():
        one.train(was)
    n = sum(len(part) for part in answers["scheduled"])
    if n < 2 * window:
        raise VittleError(f"there are {n} images to calibrate on; accepted: at least {2 * window}, two windows")
    answered = {name: torch.cat(parts) for name, parts in answers.items()}
    labelled = [part for part in right if part is not None]
    if labelled and len(labelled) < len(right):
        raise VittleError("some batches have labels and some have none; accepted: all or none")
    truth = torch.cat(labelled).cpu() if labelled else None
    classifies = model.num_classes > 0
    return Calibration(
        weights=fingerprint(model),
        images=n,
        window=window,
        false_alarms=false_alarms,
        agreement=_share(answered["scheduled"] == answered["uniform"]) if classifies else None,
        modes={
            name: WatchedMode(  # type: ignore[misc]
                schedule=one.schedule.to_dict(),
                macs=costs.macs(one.shape, one.schedule),
                watching_macs=_watching_macs(one),
                accuracy=_share(answered[name] == truth) if classifies and truth is not None else None,
                signals=calibrated(
                    one, [torch.cat(parts).numpy() for parts in zip(*values[name], strict=True)], window, false_alarms
                ),
            )
            for name, one in modes.items()
        },
    )


def calibrated(
    model: ReducedViT, values: Sequence[NDArray[np.float32]], window: int, false_alarms: float
) -> tuple[WatchedSignal, ...]:
    """What is known of a mode's watched signals, given their values (n, m) on the calibration images, one after the other."""
    bins = edges_for(window, min(one.shape[1] for one in values))
    edges = [edges_between(one, bins).astype(np.float32) for one in values]
    histograms = counted(values, edges)
    limits = thresholds(histograms, window, false_alarms, np.random.default_rng(SEED))
    return tuple(
        WatchedSignal(
            name=_name(signal),
            values=one.shape[1],
            edges=tuple(edge.tolist()),
            counts=tuple(counts.tolist()),
            threshold=float(limit),
        )
        for (_, signal), one, edge, counts, limit in zip(_watched(model), values, edges, histograms.sum(0), limits, strict=True)
    )


def _watching_macs(model: ReducedViT) -> int:
    """What is computed for the watch alone: routers whose scores choose nobody, or a merge embedding that merges nothing."""
    macs = sum(row.extra_macs for row in model.work) - sum(row.extra_macs for row in costs.work(model.shape, model.schedule))
    for _, signal in _watched(model):
        row = model.work[signal.visit]
        if signal.reduction == Recursion.name and not any(act.macs for act in row.acts if act.reduction == Recursion.name):
            macs += (row.entering - model.shape.prefix) * model.shape.width
    return macs


def _share(hits: Tensor) -> float:
    return round(float(hits.float().mean()), DIGITS)


def _check(calibration: Calibration, modes: dict[str, ReducedViT]) -> None:
    """Refuse a calibration that is of something else."""
    for name, one in modes.items():
        known: Any = calibration.modes
        if known[name].schedule != one.schedule.to_dict():
            raise VittleError(f"the calibration is of another schedule ({name}); accepted: one of this model as it is watched")
        if [signal.name for signal in known[name].signals] != [_name(signal) for _, signal in _watched(one)]:
            raise VittleError(f"the calibration is of other signals ({name}); accepted: one of this model as it is watched")
    model = modes["scheduled"]
    # Weights that were rounded to half precision have another fingerprint.
    if next(model.parameters()).dtype == torch.float32 and calibration.weights != fingerprint(model):
        raise VittleError("the calibration is of other weights; accepted: one of this model as it is watched")
