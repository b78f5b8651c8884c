"""The trials that are under way: those that workers have, and those that are to be handed out again."""

import time
from collections import deque
from collections.abc import Iterable

from vittle.storage.records import Trial


class InFlight:
    """Trials that have begun and not ended, by number.

    Args:
        unfinished: trials that an earlier run left, each with what it ended of, where the trial may be to blame.
    """

    def __init__(self, unfinished: Iterable[tuple[Trial, str | None]] = ()) -> None:
        self._out: dict[int, Trial] = {}
        self._since: dict[int, float] = {}
        self._tickets: dict[int, int] = {}
        self._waiting = deque(unfinished)

    def __bool__(self) -> bool:
        return bool(self._out or self._waiting)

    @property
    def trials(self) -> list[Trial]:
        """All of them, those with workers first."""
        return [*self._out.values(), *(trial for trial, _ in self._waiting)]

    def hand_out(self, trial: Trial, ticket: int | None) -> None:
        """Note that a worker has a trial, and under which ticket the sampler knows it, where it does."""
        self._out[trial.number] = trial
        self._since[trial.number] = time.monotonic()
        if ticket is not None:
            self._tickets[trial.number] = ticket

    def find(self, number: int) -> Trial | None:
        """A trial that a worker has."""
        return self._out.get(number)

    def seconds(self, number: int) -> float:
        """How long a worker has had a trial."""
        return time.monotonic() - self._since[number]

    def ticket(self, number: int) -> int | None:
        """The sampler's ticket of a trial."""
        return self._tickets.get(number)

    def end(self, number: int) -> tuple[Trial, int | None]:
        """Take out a trial that has ended, with the sampler's ticket."""
        return self._out.pop(number), self._tickets.pop(number, None)

    def give_back(self, number: int, why: str | None) -> None:
        """Let a trial that a worker had be handed out again; `why` says what ended its worker, where it may be to blame."""
        self._waiting.append((self._out.pop(number), why))

    def next_again(self) -> tuple[Trial, str | None] | None:
        """The next trial to hand out again."""
        return self._waiting.popleft() if self._waiting else None

    def forget_waiting(self) -> None:
        """Hand out nothing again."""
        self._waiting.clear()
