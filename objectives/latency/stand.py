"""Latency on the device itself: the median time of one batch, the backbone measured in turn beside it.

What is compared is the ratio of a schedule's time to that of the backbone in its fastest form (`baseline.py`), from rounds in
which they run in turn (`turns.py`) with the device for themselves (`device_lock.py`). Beside it stand the milliseconds, images
per second, peak memory, and everything that somebody needs to measure the same again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vittle.objectives.latency import allocator, memory
from vittle.objectives.latency.baseline import Baseline, compile_model, find_baseline
from vittle.objectives.latency.environment import clocks, environment
from vittle.objectives.latency.turns import Floats, Turns, take_turns
from vittle.objectives.measurement import Measurement, Phase
from vittle.reductions.attention import kernel
from vittle.reductions.vit import ReducedViT

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure: calm rounds, fewer of them where the ratio is known within `precision` before."""

    rounds: int
    precision: float | None = None


EFFORTS: Mapping[Phase, Effort] = {"search": Effort(rounds=3), "confirmation": Effort(rounds=15, precision=0.01)}


class Stand:
    """Where schedules of one backbone are timed: a device, one batch, and the backbone's fastest form.

    Args:
        model: the backbone, in evaluation mode on its device and in the type of the images.
        images: (b, 3, height, width), one batch.
        compiled: time schedules through `torch.compile`, and count a compiled backbone among its forms.
    """

    def __init__(self, model: nn.Module, images: Tensor, *, compiled: bool = False) -> None:
        self.model = model
        self.images = images
        self.compiled = compiled

    @property
    def device(self) -> torch.device:
        return self.images.device

    @cached_property
    def baseline(self) -> Baseline:
        """What schedules are compared with; found when it is first asked for.

        Raises:
            VittleError: the model cannot be compiled here.
        """
        return find_baseline(self.model, self.images, compiled=self.compiled)

    def run_baseline(self) -> Tensor:
        """One batch through the backbone in its fastest form."""
        return self.baseline.call(self.images)

    def runner(self, model: nn.Module) -> Callable[[], Tensor]:
        """One batch through a model, compiled where that is asked for."""
        run = compile_model(model, self.images) if self.compiled else model
        return lambda: run(self.images)

    def protocol(self) -> dict[str, Any]:
        """How times are taken here, apart from what changes from run to run."""
        return {
            "batch_size": len(self.images),
            "dtype": str(self.images.dtype).removeprefix("torch."),
            "compiled": self.compiled,
            "allocator": allocator.keep(self.device),
        }

    def measure(self, model: ReducedViT, effort: Effort, about: Mapping[str, Any] | None = None) -> dict[str, Measurement]:
        """Time one batch under a schedule.

        Args:
            model: the backbone under the schedule.
            effort: how often.
            about: what else belongs into the protocol.

        Returns:
            `latency_ms` and `latency_ratio`, each the median with its bootstrap interval, `throughput`, and `memory` where the
            system tells it, with the protocol; in that of `latency_ratio` the ratios of all rounds, `samples`.

        Raises:
            VittleError: the model cannot be compiled here.
        """
        # Asking about the baseline finds it, which must not fall into the first time that is taken.
        where = {**environment(self.device), **self.protocol(), **self._about(model)}
        run = self.runner(model)
        before = clocks(self.device)
        turns = take_turns(self.run_baseline, [run], self.device, rounds=effort.rounds, precision=effort.precision)
        at = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
        protocol = {**where, **_how(turns), **before, **at, **(about or {})}
        taken, ratios, reference = turns.times[:, 0], turns.ratios[:, 0], turns.reference.ravel()
        tails = {
            **tails_of(taken),
            "backbone_ms": float(np.median(reference)),
            "backbone_p95_ms": _tail(reference),
        }
        per_second = 1000 * len(self.images) / taken
        measured = {
            "latency_ms": median("latency_ms", taken, {**protocol, **tails}),
            "latency_ratio": median("latency_ratio", ratios, {**protocol, "samples": ratios.round(4).tolist()}),
            "throughput": median("throughput", per_second, {}),
        }
        with torch.inference_mode():
            peak = memory.peak(run, model, self.device)
        return measured if peak is None else {**measured, "memory": peak}

    def _about(self, model: ReducedViT) -> dict[str, Any]:
        shape = model.shape
        form = model.form if model.proportional and model.schedule.reductions else None
        at = (self.device, self.images.dtype, shape.heads, shape.attention_width // shape.heads)
        batch = (len(self.images), shape.tokens)
        return {
            "attention": {"form": form, "kernel": kernel(*at, batch, form), "backbone": kernel(*at, batch, None)},
            "baseline": self.baseline.form,
            "forms_ms": dict(self.baseline.times_ms),
        }


def _how(turns: Turns) -> dict[str, Any]:
    noise = {} if turns.noise is None else {"noisy": turns.noise}
    return {
        "clock": turns.clock,
        "warmup": turns.warmup,
        "rounds": len(turns.times),
        "runs": turns.runs,
        "repeated": turns.repeated,
        **noise,
        **({"launch_bound": turns.launch_bound} if turns.clock != "monotonic" else {}),
    }


def median(objective: str, samples: Floats, protocol: Mapping[str, Any]) -> Measurement:
    """The median of samples (n,) with its bootstrap interval."""
    value = float(np.median(samples))
    low, high = _interval(samples, np.median)
    return Measurement(objective, value, min(value, low), max(value, high), len(samples), protocol)


def tails_of(taken: Floats) -> dict[str, Any]:
    """The 95th percentile of the times of a batch (n,) with its interval, for the protocol of their median."""
    return {"p95_ms": _tail(taken), "p95_ms_interval": _interval(taken, _tail)}


def _interval(samples: Floats, statistic: Callable[..., Any]) -> list[float]:
    """Both ends of the 95 % bootstrap interval of a statistic."""
    draws = np.random.default_rng(0).choice(samples, (RESAMPLES, len(samples)))
    low, high = np.quantile(statistic(draws, axis=1), (0.025, 0.975))
    return [float(low), float(high)]


def _tail(samples: Floats, axis: int | None = None) -> Any:
    found = np.quantile(samples, 0.95, axis=axis)
    return float(found) if axis is None else found
