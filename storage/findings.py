"""What is found out about the trials of a study by comparing them: plain values that pages and tables show."""

from collections.abc import Sequence
from typing import NamedTuple

from vittle.objectives.fronts import hypervolume
from vittle.objectives.measurement import Phase
from vittle.objectives.quality import paired
from vittle.storage.records import Trial

MORE = 100  # trials that an outlook is for


class Growth(NamedTuple):
    """How the front of a study has grown.

    Attributes:
        volumes: (n,) its hypervolume after each trial whose quality was looked at.
        spread: standard error of the last of them.
    """

    volumes: hypervolume.Volumes
    spread: float

    @property
    def volume(self) -> float:
        """The hypervolume now, a share."""
        return float(self.volumes[-1])

    @property
    def outlook(self) -> hypervolume.Outlook:
        """What another `MORE` trials are expected to add."""
        return hypervolume.outlook(self.volumes, self.spread, MORE)


class Standing(NamedTuple):
    """How far a study is.

    Attributes:
        finished: how many trials have ended; the baseline is none of them.
        points: the front, cheapest first.
        best: the best trial for the study's budget.
    """

    finished: int
    points: Sequence[Trial]
    best: Trial | None


class Confirmation(NamedTuple):
    """How far the front has been measured again.

    Attributes:
        done: how many trials have been.
        of: how many that makes in all, as far as can be told: confirmed costs differ, and others may enter the front.
        seconds_left: how long the rest will take, as fast as the last ones came; None where none tells.
    """

    done: int
    of: int
    seconds_left: float | None


class Disturbance(NamedTuple):
    """What disturbed the costs that a front is chosen by.

    Attributes:
        noisy: how many of them were measured under disturbance.
        measured: of how many that were measured at all, the baseline's among them.
        reason: what disturbed the last of them.
    """

    noisy: int
    measured: int
    reason: str


class BestWithin(NamedTuple):
    """The recommended trial from one budget on, or from one loss on.

    Attributes:
        limit: the smallest budget, in the unit of its objective, that the trial holds beyond the noise; or the least loss of
            quality that has to be allowed.
        trial: its number.
        finest: that of the one of the best quality.
    """

    limit: float
    trial: int
    finest: int


class Choice(NamedTuple):
    """What is recommended, and what it is to be weighed against: the trial of the best quality."""

    recommended: Trial
    finest: Trial


class Trade(NamedTuple):
    """What the recommended trial is in comparison with the one of the best quality.

    Attributes:
        choice: the two.
        saved: the share of the charted cost that it saves.
        lost: the quality by which they rank that it has less, as shown.
        phase: on which samples their answers were compared one by one; None where nobody wrote them down.
        samples: how many these are.
        more: how much more of them it answers rightly, with its 95 % interval.
    """

    choice: Choice
    saved: float
    lost: float
    phase: Phase | None = None
    samples: int = 0
    more: paired.Interval | None = None
