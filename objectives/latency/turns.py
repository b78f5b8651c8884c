"""Timing in turns: a reference, what is timed, the reference again, so that drift of clock or load cancels.

    A B C A B C A ...        ratio of B = time of B / mean time of the two A around it

A round that was disturbed is one in which the thread had its processor for less than `PRESENT` of the time, or in which the
two A differ by more than `STEADY`. It is run again, but not for ever: after three times as many rounds as were asked for all of
them are kept and the result says that it is noisy, and why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from vittle.objectives.latency import allocator, device_lock
from vittle.objectives.latency.clock import Call, Clock, Sample

Floats = NDArray[np.float64]

PRESENT = 0.9
STEADY = 0.25
PATIENCE = 3  # rounds run for each that is asked for, before disturbed ones are kept
SETTLED = 0.1  # what two warm-up runs in a row may differ by
WARMUPS = 8  # runs at most
LONG_MS = 100.0  # a call that takes this long is warm after one run
LAUNCH_BOUND = 0.9  # share of a run's time that the host may take to ask for it
SAMPLE_MS = 5.0  # a shorter call is timed over several runs


@dataclass(frozen=True)
class Turns:
    """What was timed.

    Attributes:
        reference: (rounds, 2) milliseconds of the reference before and after.
        times: (rounds, calls) milliseconds of what is timed.
        host: (rounds, calls) milliseconds that the host was busy with it.
        warmup: the most runs that one of them was warmed up with.
        runs: back-to-back runs of one time, of the first call.
        repeated: rounds that were disturbed and run again.
        noise: what disturbed the rounds that are here; None where nothing did.
        clock: which clock was read.
    """

    reference: Floats
    times: Floats
    host: Floats
    warmup: int
    runs: int
    repeated: int
    noise: str | None
    clock: str

    @cached_property
    def ratios(self) -> Floats:
        """(rounds, calls) times as shares of the reference's."""
        shares: Floats = self.times / self.reference.mean(1, keepdims=True)
        return shares

    @property
    def launch_bound(self) -> bool:
        """Whether the device waits for the host in most rounds of the first call."""
        return bool(np.median(self.host[:, 0] / self.times[:, 0]) >= LAUNCH_BOUND)


class Rounds:
    """The rounds of one measurement, calm ones apart from disturbed ones."""

    def __init__(self) -> None:
        self.calm: list[list[Sample]] = []
        self.disturbed: list[tuple[list[Sample], str]] = []

    def add(self, samples: list[Sample]) -> None:
        """One round: the reference, what is timed, the reference."""
        presence = min(sample.presence for sample in samples)
        drift = max(samples[0].ms, samples[-1].ms) / min(samples[0].ms, samples[-1].ms) - 1
        if presence < PRESENT:
            self.disturbed.append((samples, f"something else had the processor for {1 - presence:.0%} of the time"))
        elif drift > STEADY:
            self.disturbed.append((samples, f"the backbone's own time changed by {drift:.0%} within one round"))
        else:
            self.calm.append(samples)


@torch.inference_mode()
def take_turns(
    reference: Call, calls: Sequence[Call], device: torch.device, *, rounds: int, precision: float | None = None
) -> Turns:
    """Time calls in turn with a reference, alone on the device.

    Args:
        reference: what they are compared with.
        calls: what is timed, in one round between two times of the reference.
        device: where all of them compute.
        rounds: how many calm rounds are wanted.
        precision: stop after a third of the rounds once the ratio of the first call is known this well, as a share of it.
    """
    clock = Clock(device)
    allocator.keep(device)
    with device_lock.exclusive(device):
        warmup, runs = _warm_up([reference, *calls], clock)
        found = Rounds()
        before = clock(reference, runs[0])
        while len(found.calm) < rounds and len(found.calm) + len(found.disturbed) < PATIENCE * rounds:
            samples = [before, *map(clock, calls, runs[1:]), before := clock(reference, runs[0])]
            found.add(samples)
            if precision is not None and 3 * len(found.calm) >= rounds and _spread(found.calm) <= precision:
                break
    done = precision is not None and 3 * len(found.calm) >= rounds and _spread(found.calm) <= precision
    noisy = len(found.calm) < rounds and not done
    kept = [*found.calm, *(samples for samples, _ in found.disturbed)] if noisy else found.calm
    reasons = [reason for _, reason in found.disturbed]
    times = np.array([[sample.ms for sample in samples] for samples in kept])
    host = np.array([[sample.host_ms for sample in samples] for samples in kept])
    return Turns(
        reference=times[:, [0, -1]],
        times=times[:, 1:-1],
        host=host[:, 1:-1],
        warmup=warmup,
        runs=runs[1],
        repeated=0 if noisy else len(reasons),
        noise=reasons[-1] if noisy else None,
        clock=clock.name,
    )


def _warm_up(calls: Sequence[Call], clock: Clock) -> tuple[int, list[int]]:
    """Run each call until its time settles: the most runs that one of them took, and the runs of a sample of each."""
    most, runs = 0, []
    for call in calls:
        last, done = clock(call).ms, 1
        while last < LONG_MS and done < WARMUPS:
            before, last, done = last, clock(call).ms, done + 1
            if abs(last / before - 1) <= SETTLED:
                break
        most = max(most, done)
        runs.append(max(1, round(SAMPLE_MS / last)))
    return most, runs


def _spread(rounds: Sequence[Sequence[Sample]]) -> float:
    """Half the width of the 95 % interval of the mean ratio of the first call, as a share of it."""
    if len(rounds) < 3:
        return np.inf
    ratios = np.array([2 * samples[1].ms / (samples[0].ms + samples[-1].ms) for samples in rounds])
    return float(2 * ratios.std(ddof=1) / np.sqrt(len(ratios)) / ratios.mean())
