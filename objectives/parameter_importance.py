"""Which searched parameter matters for what, from a study's own trials. Starts without torch.

Two answers to two questions, both as shares of 1 over the parameters of a space:

* PED-ANOVA: which parameters tell the best trials from the rest? Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently
  Quantifying Hyperparameter Importance in Arbitrary Subspaces", arXiv 2304.10255. High where the best trials gather at values
  that the other trials do not have, whatever happens elsewhere.
* fANOVA: which parameters explain the variance over the whole space? Hutter, Hoos and Leyton-Brown, "An Efficient Approach for
  Assessing Hyperparameter Importance", ICML 2014. A random forest is fitted to the trials, and what a parameter alone moves its
  predictions by is divided by all that they move; high also where a parameter only decides how bad a bad schedule is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vittle.spaces.validation import read_as

METHODS = {
    "ped-anova": "how far the best trials' values differ from all trials'",
    "fanova": "how much of the variance over the space a parameter explains alone",
}

Shares = Mapping[str, float]
"""By parameter, most important first."""


@dataclass(frozen=True)
class Importance:
    """What the parameters of a study are worth.

    Attributes:
        trials: how many it was told from.
        shares: by method of `METHODS`, then by objective: each parameter's share, which sum to 1, or to 0 where no parameter
            changed the objective.

    Raises:
        ValueError: a method that does not exist, or a share outside 0..1.
    """

    trials: int
    shares: Mapping[str, Mapping[str, Shares]]

    def __post_init__(self) -> None:
        if unknown := set(self.shares) - set(METHODS):
            raise ValueError(f"unknown method {unknown.pop()!r}; accepted: {', '.join(METHODS)}")
        for method, objectives in self.shares.items():
            for objective, shares in objectives.items():
                for name, share in shares.items():
                    if not 0 <= share <= 1:
                        raise ValueError(f"{name} has the share {share} of {objective} by {method}; accepted: 0 to 1")

    def grouped(self, method: str, objective: str) -> dict[str, float]:
        """Shares with those of all blocks added up under one name (`merging.kept`), most important first."""
        sums: dict[str, float] = {}
        for name, share in self.shares[method][objective].items():
            group, _, last = name.rpartition(".")
            whole = group if last.isdecimal() else name
            sums[whole] = min(1.0, sums.get(whole, 0.0) + share)
        return ranked(sums)

    def to_dict(self) -> dict[str, Any]:
        shares = {
            method: {objective: dict(one) for objective, one in objectives.items()}
            for method, objectives in self.shares.items()
        }
        return {"trials": self.trials, "shares": shares}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read the mapping that `to_dict` writes.

        Raises:
            ValueError: something else.
        """
        shares = {
            method: {objective: ranked(one) for objective, one in objectives.items()}
            for method, objectives in document["shares"].items()
        }
        return read_as(cls, {"trials": document["trials"], "shares": shares})


def ranked(shares: Mapping[str, float]) -> dict[str, float]:
    """Most important first, equals by name."""
    return dict(sorted(shares.items(), key=lambda one: (-one[1], one[0])))
