"""Pictures of what a schedule does to images, and the process that computes them.

Every reduction names its picture (`Reduction.picture`): patches that are one token, or one that it brings. A new one needs

* a script `static/NAME.js` that sets `PICTURES.NAME = (box, document) => ...`, which draws into an element what it is told, and
  asks for nothing itself, so that a report can hold the document; `static/images.js` has what all of them draw with;
* what it draws: whatever the reduction's operator tells (`Operator.explain`) is in the document, in each block of each image
  under `told` and the name of the reduction, and its `measures` on corrupted images under `drift`;
* a title and a hint in the reduction's words, under `pictures`.

The dashboard has no torch. Whoever makes it hands in a function that has (`Illustrate`), and it runs in a process of its own,
which is started when it is first asked and ends when nobody has asked for a while.
"""

import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import Any, Protocol

from vittle.spaces.errors import VittleError
from vittle.spaces.schedule import Schedule
from vittle.storage.records import Study

PATCHES = "patches"

IDLE_SECONDS = 300.0
KEPT = 64  # documents
Document = dict[str, Any]


class Illustrate(Protocol):
    """Computes what pictures draw: some of a study's search images under one of its schedules, as plain values.

    It is sent to another process, so it is a function of a module. `vittle.search.illustrator` says what comes back.

    Raises:
        VittleError: model or images are not to be had on this machine, or an image that there is not.
    """

    def __call__(self, study: Study, schedule: Schedule, indices: Sequence[int]) -> Document: ...


def drawn(schedule: Schedule) -> tuple[str, ...]:
    """The pictures of a schedule, each once; of the untouched backbone its patches."""
    found = dict.fromkeys(part.picture for part in schedule.reductions)
    return tuple(found) or (PATCHES,)


class Illustrations:
    """Documents of pictures, computed in one other process and kept.

    Args:
        illustrate: what computes them; None where the server was made without.
        idle: seconds after which the process ends when nobody asks.
    """

    def __init__(self, illustrate: Illustrate | None = None, *, idle: float = IDLE_SECONDS) -> None:
        self._illustrate, self._idle = illustrate, idle
        self._kept: OrderedDict[tuple[str, str, tuple[int, ...]], Document] = OrderedDict()
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._process: Future[int] | None = None
        self._timer: threading.Timer | None = None
        self._asking = 0

    @property
    def possible(self) -> bool:
        """Whether there is anything to compute them with."""
        return self._illustrate is not None

    @property
    def process(self) -> int | None:
        """The process that computes them, while there is one."""
        with self._lock:
            started = self._process
        return None if started is None else started.result()

    def __call__(self, study: Study, schedule: Schedule, indices: Sequence[int]) -> Document:
        """The document of some images under a schedule.

        Raises:
            VittleError: why there is none.
        """
        if self._illustrate is None:
            raise VittleError("this server draws no images; start it with: vittle dashboard")
        key = (study.name, schedule.id, tuple(indices))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            future = self._started().submit(self._illustrate, study, schedule, list(indices))
            self._asking += 1
        try:
            document = future.result()
        except VittleError:
            raise
        except BrokenProcessPool:
            self.close()
            raise VittleError("the process that computes the pictures has ended; ask again") from None
        except Exception as error:  # whatever a model can raise: out of memory, a file that is gone
            first = (str(error).splitlines() or [""])[0]
            raise VittleError(f"the pictures cannot be computed ({type(error).__name__}: {first})") from None
        finally:
            self._rest()
        with self._lock:
            self._kept[key] = document
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return document

    def close(self) -> None:
        """End the process, whatever it is doing; the next who asks starts another."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        pool, process, timer = self._pool, self._process, self._timer
        self._pool = self._process = self._timer = None
        if timer is not None:
            timer.cancel()
        if pool is None or process is None:
            return
        pool.shutdown(wait=False, cancel_futures=True)
        # It may have ended already, or not have begun.
        with suppress(BrokenProcessPool, CancelledError, OSError):
            os.kill(process.result(), signal.SIGTERM)

    def _started(self) -> ProcessPoolExecutor:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pool is None:
            # A fresh interpreter: a fork would copy the server's threads and sockets.
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_ignore_interrupts)
            self._process = self._pool.submit(os.getpid)
        return self._pool

    def _rest(self) -> None:
        with self._lock:
            self._asking -= 1
            if self._asking == 0 and self._pool is not None:
                self._timer = threading.Timer(self._idle, self._end_idle)
                self._timer.daemon = True
                self._timer.start()

    def _end_idle(self) -> None:
        with self._lock:
            if self._asking == 0:  # somebody may have come since the time was over
                self._end()


def _ignore_interrupts() -> None:
    """Ctrl-C in a terminal reaches every process there; the server ends this one itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
