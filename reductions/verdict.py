"""Whether trained weights answer better than what needs no training: an exact paired test, told in one sentence.

McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 1947, in
its exact form: of the images that only one of the two answers rightly, were both equally good, each would win half, so that the
wins are binomial with a share of 1/2. The images must have chosen nothing, neither weights nor epoch nor rate; and each rate is
asked once, which is why `objectives/quality/paired.py`, for looks that are repeated, has another test.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt

LEVEL = 0.05  # that a verdict says "beats" or "loses" anywhere where the two are equally good

Right = NDArray[np.bool_]
Outcome = Literal["beats", "loses to", "cannot be told from"]


class Comparison(BaseModel):
    """Trained weights and their rival, asked for the same images at one rate.

    Attributes:
        at: the rate, such as `45%`; of what, the verdict says.
        images: n.
        both: images that both answer rightly.
        ours: only by the trained weights.
        theirs: only by the rival.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    images: NonNegativeInt
    both: NonNegativeInt
    ours: NonNegativeInt
    theirs: NonNegativeInt

    @classmethod
    def of(cls, at: str, ours: Right, theirs: Right) -> Self:
        """Compare right answers (n,) with a rival's (n,) to the same images in the same order.

        Raises:
            ValueError: not as many of the one as of the other.
        """
        if ours.shape != theirs.shape:
            raise ValueError(f"{len(ours)} and {len(theirs)} answers are not pairs")
        counts = (int(np.count_nonzero(one)) for one in (ours & theirs, ours & ~theirs, theirs & ~ours))
        both, only_ours, only_theirs = counts
        return cls(at=at, images=len(ours), both=both, ours=only_ours, theirs=only_theirs)

    @property
    def right(self) -> int:
        """Images that the trained weights answer rightly."""
        return self.both + self.ours

    @property
    def rival_right(self) -> int:
        """Images that the rival answers rightly."""
        return self.both + self.theirs

    @property
    def p_value(self) -> float:
        """Two-sided: how often chance alone parts the two at least as far."""
        from scipy import special  # here, because it takes long to import

        fewer, discordant = min(self.ours, self.theirs), self.ours + self.theirs
        return min(1.0, 2 * float(special.bdtr(fewer, discordant, 0.5)))

    def outcome(self, level: float = LEVEL) -> Outcome:
        """Who is better, with an error of at most `level`."""
        if self.p_value > level:
            return "cannot be told from"
        return "beats" if self.ours > self.theirs else "loses to"


class Verdict(BaseModel):
    """A rival, and how trained weights did against it at each rate; no rates where they were not compared.

    Attributes:
        rival: what needs no training, such as `the metric key`.
        share: what the rates are shares of, such as `of the MACs`.
        comparisons: one for each rate, all on the same images.
        by_backbone: whether an answer is right where it is the backbone's, for want of labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rival: str
    share: str = "of the MACs"
    comparisons: tuple[Comparison, ...] = ()
    by_backbone: bool = False

    @property
    def worth_it(self) -> bool:
        """Whether the trained weights are better at a rate at least."""
        return bool(self._at("beats"))

    def tell(self, name: str, otherwise: str) -> tuple[bool, str]:
        """Whether a search should use the weights, and why, in one sentence.

        Args:
            name: of the weights.
            otherwise: what happens where they are not worth it, such as `the search keeps metric key`.
        """
        if not self.comparisons:
            return False, f"{name} was not compared with {self.rival}; {otherwise}"
        told = list[str]()
        for outcome in get_args(Outcome):
            if found := self._at(outcome):
                rates = [self._rate(one, brief=bool(told or place)) for place, one in enumerate(found)]
                told.append(f"{outcome} {'it' if told else self.rival} at {_listed(rates)}")
        first = self.comparisons[0]
        of = f"{first.images} images{' answered as the backbone does' if self.by_backbone else ''}"
        sentence = f"{name} {', '.join(told)}, of {of}"
        return self.worth_it, sentence if self.worth_it else f"{sentence}; {otherwise}"

    def document(self) -> dict[str, Any]:
        """Plain values, which `model_validate` reads."""
        return self.model_dump(mode="json")

    def _at(self, outcome: Outcome) -> list[Comparison]:
        """The rates that ended so; they share the level, so that asking at many makes no false "beats" likelier."""
        level = LEVEL / max(1, len(self.comparisons))
        return [one for one in self.comparisons if one.outcome(level) == outcome]

    def _rate(self, one: Comparison, *, brief: bool) -> str:
        """Where, and both discordant counts; what they are is said once in a sentence."""
        if brief:
            return f"{one.at} ({one.ours}, {one.theirs})"
        return f"{one.at} {self.share} ({one.ours} images only by it, {one.theirs} only by {self.rival})"


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
