"""Which candidate is recommended: one rule for the command line, exports, pages, reports, programs. Starts without torch.

Of the candidates that hold a budget, the confirmed ones where there are any:

1. the *best in quality* is the one of the most quality, the fastest of equals;
2. *worth having* are those whose quality is within a tolerance of it, or that lose no more than what may be lost;
3. *recommended* is the fastest of them: the one of the least charted cost, of equals the best in the next column, and on.

Numbers are compared as they are shown (`vittle.objectives.measurement.shown`): what nobody sees in a table decides nothing. So
no other candidate that holds the budget is better in one shown column and worse in none: it would be as good in quality, so
worth having, and would come first. With a tolerance of 0 they are compared exactly, and the best in quality is recommended.
"""

import heapq
from collections.abc import Iterable
from typing import NamedTuple

ROUNDING = 1e-9  # sums of decimals are off by less


class Contender(NamedTuple):
    """A candidate to choose from.

    Attributes:
        order: its columns as costs, the charted cost first, the quality that ranks among them; what is not known is `inf`.
        number: which candidate it is.
        quality: what ranks, such that more is better.
        confirmed: whether it was measured again on data that no search saw.
    """

    order: tuple[float, ...]
    number: int
    quality: float
    confirmed: bool


class Chosen(NamedTuple):
    """Numbers of the recommended candidate, and of the one that is best in quality."""

    recommended: int
    finest: int


def eligible(contenders: Iterable[Contender]) -> list[Contender]:
    """The confirmed ones, where there are any."""
    found = list(contenders)
    return [one for one in found if one.confirmed] or found


class Chooser:
    """The rule, for candidates that come one after another: each as soon as a rising budget lets it in.

    Args:
        tolerance: in the unit of quality.
        least: the least quality that is worth having; in place of the tolerance, which None leaves.
    """

    def __init__(self, tolerance: float, least: float | None = None) -> None:
        self._tolerance, self._least = tolerance, least
        self._confirmed = False
        self._finest: Contender | None = None
        self._fastest: list[Contender] = []

    def add(self, one: Contender) -> None:
        """Let a candidate in."""
        if one.confirmed and not self._confirmed:
            self._confirmed, self._finest, self._fastest = True, None, []
        if one.confirmed != self._confirmed:
            return
        heapq.heappush(self._fastest, one)
        if self._finest is None or (-one.quality, one) < (-self._finest.quality, self._finest):
            self._finest = one

    @property
    def chosen(self) -> Chosen | None:
        """What the rule finds among those that were let in; None where none of them is worth having."""
        if self._finest is None:
            return None
        least = self._finest.quality - self._tolerance if self._least is None else self._least
        while self._fastest and self._fastest[0].quality < least - ROUNDING:
            heapq.heappop(self._fastest)  # for good: the best in quality only ever gets better
        return Chosen(self._fastest[0].number, self._finest.number) if self._fastest else None


def choose(contenders: Iterable[Contender], tolerance: float, least: float | None = None) -> Chosen | None:
    """What the rule finds among candidates that all hold the budget; as `Chooser` has it."""
    chooser = Chooser(tolerance, least)
    for one in contenders:
        chooser.add(one)
    return chooser.chosen
