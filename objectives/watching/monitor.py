"""The window of the last images, its distance from calibration, and when that changes the mode. Nothing of it needs torch."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vittle.objectives.watching.calibration import Calibration, Mode
from vittle.objectives.watching.histograms import distances
from vittle.spaces.errors import VittleError

REMEMBERED = 100  # switches; all are counted
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Judged:
    """A window, compared with calibration.

    Attributes:
        images: that had been seen by its end.
        distance: Jensen-Shannon, of that signal which is the most beyond its threshold, or the nearest to it.
        threshold: of that signal.
        signal: its name.
        distances: (s,) of all signals.
    """

    images: int
    distance: float
    threshold: float
    signal: str
    distances: tuple[float, ...]

    @property
    def over(self) -> bool:
        """Whether the window is unlike the calibration images."""
        return self.distance > self.threshold


@dataclass(frozen=True, slots=True)
class Switch:
    """A change of mode, and the window that decided it.

    Attributes:
        to: the mode from now on.
        images: that had been seen by then.
        distance: Jensen-Shannon, of the signal that was the most beyond its threshold, or the nearest to it.
        threshold: of that signal.
        signal: its name, such as `recursion step 3`.
    """

    to: Mode
    images: int
    distance: float
    threshold: float
    signal: str


def judged(calibration: Calibration, mode: Mode, counts: NDArray[np.integer[Any]], images: int = 0) -> Judged:
    """Compare the histograms (s, k) of a window with those of calibration."""
    known = calibration.modes[mode]
    apart = distances(counts, known.counts)
    worst = int((apart / known.thresholds).argmax())
    signal = known.signals[worst]
    return Judged(images, float(apart[worst]), signal.threshold, signal.name, tuple(apart.tolist()))


class Monitor:
    """Keeps the window and decides the mode. Every method may be called from several threads.

    A window is judged every quarter of it, once it is full. `alarm_after` windows in a row that are unlike calibration change
    the mode to `uniform`, and there `return_after` in a row that are like it change it back. After a change the window is
    empty: in the other mode signals are others.

    Args:
        calibration: what both modes are compared with.
        alarm_after: windows in a row.
        return_after: windows in a row.

    Raises:
        VittleError: fewer than one.
    """

    def __init__(self, calibration: Calibration, alarm_after: int = 3, return_after: int = 10) -> None:
        for name, value in (("alarm_after", alarm_after), ("return_after", return_after)):
            if value < 1:
                raise VittleError(f"{name} is {value}; accepted: 1 or more windows")
        self.calibration = calibration
        self._after: dict[Mode, int] = {"scheduled": alarm_after, "uniform": return_after}
        self._stride = max(1, calibration.window // 4)
        self._lock = threading.Lock()
        self._mode: Mode = "scheduled"
        self._images = self._judged = self._over = self._alarms = self._returns = 0
        self._switches: deque[Switch] = deque(maxlen=REMEMBERED)
        self._row = self._waiting = 0
        self._last: Judged | None = None
        self._empty()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @property
    def mode(self) -> Mode:
        """What the next batch should run in."""
        return self._mode

    def take(self, mode: Mode, histograms: NDArray[np.integer[Any]]) -> Sequence[Switch]:
        """Add images to the window, and change the mode where it is time.

        Args:
            mode: what they ran in; those that ran in another one than is on now are passed over.
            histograms: (n, s, k) of them, in their order.

        Returns:
            The change that they made; nothing where they made none.
        """
        with self._lock:
            start = 0
            while start < len(histograms) and mode == self._mode:
                some = histograms[start : start + self._stride - self._waiting]
                start += len(some)
                self._add(some)
                if self._waiting == self._stride:
                    self._waiting = 0
                    if len(self._window) == self.calibration.window and (switch := self._judge()) is not None:
                        return [switch]
        return []

    def report(self) -> dict[str, Any]:
        """What has been seen, as plain values."""
        with self._lock:
            last = self._last
            names = [signal.name for signal in self.calibration.modes[self._mode].signals]
            return {
                "mode": self._mode,
                "images": self._images,
                "in_window": len(self._window),
                "windows": self._judged,
                "windows_over": self._over,
                "in_a_row": self._row,
                "alarms": self._alarms,
                "returns": self._returns,
                "distances": None if last is None else dict(zip(names, _rounded(last.distances), strict=True)),
                "thresholds": dict(zip(names, _rounded(self.calibration.modes[self._mode].thresholds), strict=True)),
                "switches": [asdict(switch) for switch in self._switches],
            }

    def _add(self, histograms: NDArray[np.integer[Any]]) -> None:
        for one in histograms:
            if len(self._window) == self.calibration.window:
                self._sum -= self._window[0]
            self._window.append(one)
            self._sum += one
        self._images += len(histograms)
        self._waiting += len(histograms)

    def _judge(self) -> Switch | None:
        found = self._last = judged(self.calibration, self._mode, self._sum, self._images)
        self._judged += 1
        self._over += found.over
        self._row = self._row + 1 if found.over == (self._mode == "scheduled") else 0
        if self._row < self._after[self._mode]:
            return None
        self._mode = "uniform" if self._mode == "scheduled" else "scheduled"
        if self._mode == "uniform":
            self._alarms += 1
        else:
            self._returns += 1
        switch = Switch(self._mode, self._images, round(found.distance, DIGITS), round(found.threshold, DIGITS), found.signal)
        self._switches.append(switch)
        self._empty()
        return switch

    def _empty(self) -> None:
        known = self.calibration.modes[self._mode]
        self._window: deque[NDArray[np.integer[Any]]] = deque(maxlen=self.calibration.window)
        self._sum = np.zeros_like(known.counts)
        self._waiting = self._row = 0
        self._last = None


def _rounded(values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    return [round(float(value), DIGITS) for value in values]
