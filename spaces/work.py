"""What a backbone does under a schedule, visit by visit: the rows that are run, costed, timed, drawn and explained."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

Place = Literal["route", "attention", "tokens"]
"""Where in a visit something acts: who takes part, in place of the attention's core, or on the tokens after it."""
ALONE: tuple[Place, ...] = ("route", "attention")  # where one act leaves nothing for another


class Visit(NamedTuple):
    """One run of a block's weights.

    Attributes:
        block: whose weights run.
        step: how often they have run before.
        active: the share of the patch tokens that take part; the others rest and pass unchanged.
    """

    block: int
    step: int = 0
    active: float = 1.0


@dataclass(frozen=True, slots=True)
class Act:
    """What one reduction does in one visit.

    Attributes:
        reduction: its name.
        place: where it acts.
        entering: tokens before it, those that rest not counted.
        leaving: tokens after it.
        strength: how much it does, from 0 for nothing to 1 for all there is: of the patch tokens, or of what they read.
        variant: what decides how long it takes, besides counts; equal variants are timed once.
        rule: by what it chooses, one of the rules that the reduction has words for.
        macs: MACs that it computes besides.
        parameters: trained weights that it reads besides the backbone's.
    """

    reduction: str
    place: Place
    entering: int
    leaving: int
    strength: float
    variant: str
    rule: str
    macs: int = 0
    parameters: int = 0


@dataclass(frozen=True, slots=True)
class BlockWork:
    """What one visit of a block computes.

    Attributes:
        index: which visit it is, from 0.
        visit: the weights that run.
        entering: tokens when it begins, prefix tokens included.
        keys: tokens that take part, and are attended to.
        queries: tokens that attend: all that take part, or the prefix tokens alone.
        leaving: tokens when it ends, those that rest included.
        key_share: the share of the keys that a query reads, mean over queries.
        in_proportion: whether a key is attended to in proportion to the patches in it.
        acts: what the reductions do here, in their order.
    """

    index: int
    visit: Visit
    entering: int
    keys: int
    queries: int
    leaving: int
    key_share: float = 1.0
    in_proportion: bool = False
    acts: tuple[Act, ...] = ()

    @property
    def resting(self) -> int:
        """Tokens that take no part."""
        return self.entering - self.keys

    @property
    def mlp(self) -> int:
        """Tokens that pass the MLP."""
        return self.leaving - self.resting

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that it reads."""
        return round(self.queries * self.keys * self.key_share)

    @property
    def extra_macs(self) -> int:
        """MACs of what the reductions compute besides."""
        return sum(act.macs for act in self.acts)

    def at(self, place: Place) -> tuple[Act, ...]:
        """What acts in one place."""
        return tuple(act for act in self.acts if act.place == place)

    def acting(self, act: Act, *, key_share: float | None = None) -> Self:
        """The same row with one more act, which leaves fewer tokens or reads fewer keys."""
        left = self.leaving - (act.entering - act.leaving) if act.place == "tokens" else self.leaving
        share = self.key_share if key_share is None else key_share
        return replace(self, acts=(*self.acts, act), leaving=left, key_share=share)
