"""Ctrl-C and SIGTERM, held back while something must not be left half done.

Python runs the handler of a signal between any two instructions of the main thread, in the midst of a library too. Where that
is closing a connection, the library is left with half of it, and what it says of that is no news for anybody.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], object]


class Interrupts:
    """Within `with`, interrupts are kept, and handled once it is left, or earlier where somebody waits: nothing is lost.

    `let_through` is True where they are handled at once, as without this. A plain attribute, because no signal is handled
    between its assignment and what stands before or after it.

    Signals are handled by the main thread alone, so in another one there is nothing to do. One that is ignored or ends the
    process at once goes on doing so.
    """

    def __init__(self) -> None:
        self.let_through = False
        self._kept: list[signal.Signals] = []
        self._usual: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            try:
                for number in SIGNALS:
                    usual = signal.getsignal(number)
                    if callable(usual):
                        self._usual[number] = usual
                        signal.signal(number, self._hear)
            except BaseException:  # the second signal came while only the first was kept
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.let_through = False
        try:
            self._give_back()
        finally:
            self.handle()

    def handle(self) -> None:
        """Do what the kept signals ask for."""
        if self._kept:
            number = self._kept.pop(0)
            try:
                self._usual[number](number, None)
            finally:
                self.handle()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        heard = signal.Signals(number)
        if self.let_through:
            self._usual[heard](number, frame)
        elif heard not in self._kept:
            self._kept.append(heard)

    def _give_back(self) -> None:
        try:
            # SIGINT last, since the handler of SIGTERM may call that of SIGINT.
            for number, usual in reversed(self._usual.items()):
                if signal.getsignal(number) == self._hear:
                    signal.signal(number, usual)
        except BaseException:  # the first signal came while the second was still kept
            self._give_back()
            raise
