"""What every reduction declares: its settings in a schedule, what they do to the token count, and what may be searched."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict

from vittle.spaces.shape import BackboneShape

Tail = Literal["full", "prefix"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One searched number: `low` and `high` are both included; `log` asks for sampling on a logarithmic scale."""

    name: str
    low: float
    high: float
    integer: bool = False
    log: bool = False


class Reduction(BaseModel, ABC):
    """The settings of one reduction over depth. Immutable, hashable, and checked when made.

    A subclass is one file in `spaces/`. It names itself, promises token counts, and offers its parameters to a search.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    name: ClassVar[str]
    strength: ClassVar[str]
    """The parameter that a search turns first: the lower it is, the cheaper the schedule."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Blocks that these settings describe."""

    @abstractmethod
    def tokens_after(self, shape: BackboneShape, block: int, tokens: int) -> int:
        """Tokens left once this reduction has acted in `block`, which it enters with `tokens` of them.

        Raises:
            ScheduleError: the block cannot do what the settings say; the message has the value and the limit.
        """

    def without_last_block(self) -> Self:
        """These settings where the last block's patch tokens are read by nobody, so nothing acts on them there."""
        return self

    @classmethod
    @abstractmethod
    def parameters(cls, shape: BackboneShape) -> tuple[Parameter, ...]:
        """What a search may vary, with ranges that fit the backbone."""

    @classmethod
    @abstractmethod
    def propose(cls, shape: BackboneShape, tail: Tail, values: Mapping[str, float]) -> Self | None:
        """The settings that searched values stand for, made feasible; None where they reduce nothing."""

    @classmethod
    @abstractmethod
    def neutral(cls, shape: BackboneShape) -> Mapping[str, float]:
        """Values under which it reduces nothing."""

    @classmethod
    @abstractmethod
    def starting_points(cls, shape: BackboneShape) -> tuple[Mapping[str, float], ...]:
        """Values that a search tries first, because a knowing user would; `strength` is then set to meet a cost."""
