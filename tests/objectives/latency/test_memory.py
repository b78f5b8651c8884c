"""The most memory that one batch needs, as the system tells it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vittle.objectives.latency import allocator, memory
from vittle.objectives.measurement import Measurement

CPU = torch.device("cpu")
MB = 1_000_000
TOLD = memory.STATUS.exists() and memory.PEAK_RESET.exists()
told = pytest.mark.skipif(not TOLD, reason="this system does not tell")
WEIGHTS = nn.Linear(1000, 250)  # 1.001 MB


def touch(megabytes: int) -> Callable[[], None]:
    """Uses that much for a moment."""
    return lambda: np.ones(megabytes * MB, np.uint8).sum()


def peak(call: Callable[[], object]) -> float:
    found = memory.peak(call, WEIGHTS, CPU)
    assert isinstance(found, Measurement)
    assert (found.objective, found.protocol) == ("memory", {"of": "process"})
    return found.value


@told
@pytest.mark.parametrize("kept", [False, True])
def test_what_a_call_needs_shows(kept: bool) -> None:
    if kept:  # from here on in this process: freed memory is not given back, and still must not hide what is needed again
        allocator.keep(CPU)
        touch(300)()
    least = peak(lambda: None)
    assert peak(touch(200)) - least >= 180
    assert peak(touch(200)) - peak(touch(50)) == pytest.approx(150, rel=0.2)


@told
def test_an_earlier_peak_does_not_count() -> None:
    first = peak(touch(200))
    assert peak(lambda: None) < first - 150


@told
def test_weights_count() -> None:
    weights = sum(one.nbytes for one in WEIGHTS.parameters()) / MB
    assert weights == pytest.approx(1.001)
    assert peak(lambda: None) >= weights
    small, large = (memory.peak(lambda: None, nn.Linear(1000, size), CPU) for size in (1, 25_000))
    assert small is not None
    assert large is not None
    assert large.value - small.value == pytest.approx(100, abs=10)


@pytest.mark.parametrize("missing", ["STATUS", "PEAK_RESET"])
def test_it_is_absent_where_the_system_does_not_tell(monkeypatch, tmp_path: Path, missing: str) -> None:
    status, reset = tmp_path / "status", tmp_path / "clear_refs"
    status.write_text("VmHWM:\t    3000 kB\nVmRSS:\t    1000 kB\n")
    monkeypatch.setattr(memory, "STATUS", status)
    monkeypatch.setattr(memory, "PEAK_RESET", reset)
    found = memory.peak(lambda: None, WEIGHTS, CPU)
    assert found is not None
    assert found.value == pytest.approx(1.001 + 2.048)
    assert reset.read_text() == "5"
    monkeypatch.setattr(memory, missing, tmp_path / "nowhere" / "file")
    assert memory.peak(lambda: None, WEIGHTS, CPU) is None


def test_it_is_absent_where_a_line_is_missing(monkeypatch, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("VmRSS:\t    1000 kB\n")
    monkeypatch.setattr(memory, "STATUS", status)
    monkeypatch.setattr(memory, "PEAK_RESET", tmp_path / "clear_refs")
    assert memory.peak(lambda: None, WEIGHTS, CPU) is None


def test_what_the_call_raises_is_raised() -> None:
    def fails() -> None:
        raise FloatingPointError("the model's logits are not finite")

    with pytest.raises(FloatingPointError, match="logits"):
        memory.peak(fails, WEIGHTS, CPU)
