"""Reading the clock around calls of a model, and noticing what disturbs it.

On a CPU the time is the monotonic clock's. On CUDA it is the time between two events around some back-to-back runs, and the
host's clock beside it says how long it took to ask for them: where that is no shorter, the device waits for the host.

What a processor does besides shows in the calling thread: it computes all the time, so whatever share of the time it did not
have the processor, somebody else had.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Call = Callable[[], Any]


class Sample(NamedTuple):
    """The time of one call.

    Attributes:
        ms: how long it took, the mean of the runs.
        host_ms: how long the host was busy with it; on a CPU, as long as it took.
        presence: the share of that time in which the calling thread had its processor.
    """

    ms: float
    host_ms: float
    presence: float


class Clock:
    """The clock of a device, where the calls compute."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def name(self) -> str:
        return "cuda events" if self.device.type == "cuda" else "monotonic"

    def __call__(self, call: Call, runs: int = 1) -> Sample:
        """Time a call over some back-to-back runs, so that what it takes to read the clock does not count."""
        return self._cuda(call, runs) if self.device.type == "cuda" else self._cpu(call, runs)

    def synchronize(self) -> None:
        """Wait until nothing that was asked for is left to compute."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _cpu(self, call: Call, runs: int) -> Sample:
        start, computing = time.perf_counter(), time.thread_time()
        for _ in range(runs):
            call()
        taken = time.perf_counter() - start
        computing = time.thread_time() - computing
        ms = taken * 1000 / runs
        return Sample(ms, ms, min(1.0, computing / taken))

    def _cuda(self, call: Call, runs: int) -> Sample:
        event: Any = torch.cuda.Event
        begin, end = event(enable_timing=True), event(enable_timing=True)
        self.synchronize()
        start, computing = time.perf_counter(), time.thread_time()
        begin.record()
        for _ in range(runs):
            call()
        end.record()
        asked, computing = time.perf_counter() - start, time.thread_time() - computing
        end.synchronize()
        return Sample(float(begin.elapsed_time(end)) / runs, asked * 1000 / runs, min(1.0, computing / asked))
