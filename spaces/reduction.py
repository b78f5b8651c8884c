"""What every reduction declares: its settings in a schedule, what they do to the token count, and what may be searched."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from vittle.spaces.shape import BackboneShape

Tail = Literal["full", "prefix"]
Value = float | str
Values = Mapping[str, Value]
Counts = Sequence[tuple[int, int]]
"""Tokens before and after a reduction, block by block."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One searched number: `low` and `high` are both included; `log` asks for sampling on a logarithmic scale."""

    name: str
    low: float
    high: float
    integer: bool = False
    log: bool = False

    def holds(self, value: Value) -> bool:
        return not isinstance(value, str) and self.low <= value <= self.high

    @property
    def accepted(self) -> str:
        """The range, in words."""
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One searched alternative between names."""

    name: str
    options: tuple[str, ...]

    def holds(self, value: Value) -> bool:
        return value in self.options

    @property
    def accepted(self) -> str:
        """The options, in words."""
        return ", ".join(self.options)


class Start(NamedTuple):
    """Values that a search tries first, and the heuristic that they come from."""

    origin: str
    values: Values


class AdapterRecord(NamedTuple):
    """Trained weights that a reduction may use: the name says how they were trained, the width decides what they cost."""

    name: str
    width: int


@dataclass(frozen=True)
class Context:
    """What a search knows of the backbone it searches on.

    Attributes:
        start: the block from which merging may start, as detected; None where nobody looked.
        adapters: trained weights at hand, by reduction.
        free: for each token count, the most tokens that take a block no longer on the device; empty where nobody measured.
    """

    shape: BackboneShape
    tail: Tail = "full"
    start: int | None = None
    adapters: Mapping[str, AdapterRecord] = field(default_factory=dict)
    free: Sequence[int] = ()

    @property
    def blocks(self) -> int:
        """Blocks in which reducing patch tokens saves anything."""
        return max(1, self.shape.depth - 1) if self.tail == "prefix" else self.shape.depth

    def snapped(self, tokens: int) -> int:
        """A wanted token count with those added that cost no time."""
        return self.free[tokens] if self.free else tokens


class Reduction(BaseModel, ABC):
    """The settings of one reduction over depth. Immutable, hashable, and checked when made.

    A subclass is one file in `spaces/`. It names itself, promises token counts, and offers its parameters to a search.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    name: ClassVar[str]

    @property
    @abstractmethod
    def depth(self) -> int:
        """Blocks that these settings describe."""

    def check(self, shape: BackboneShape) -> None:
        """Refuse a backbone that lacks what these settings need.

        Raises:
            ScheduleError: what is missing.
        """

    @abstractmethod
    def tokens_after(self, shape: BackboneShape, block: int, tokens: int) -> int:
        """Tokens left once this reduction has acted in `block`, which it enters with `tokens` of them.

        Raises:
            ScheduleError: the block cannot do what the settings say; the message has the value and the limit.
        """

    @abstractmethod
    def nearest(self, shape: BackboneShape, passed: Counts, tokens: int, wanted: int) -> int:
        """The count nearest to `wanted` that a block entered with `tokens` can realise.

        Args:
            shape: the backbone's.
            passed: what this reduction did in the blocks before, which says which block this is.
            tokens: tokens that enter.
            wanted: tokens that should be left.
        """

    @abstractmethod
    def realising(self, shape: BackboneShape, counts: Counts) -> Self | None:
        """These settings with other token counts, one pair per block; None where they would change nothing."""

    def summary(self) -> str:
        """How it reduces, in a few words for a table; how many tokens are shown beside it."""
        return self.name

    def following(self, shape: BackboneShape, wanted: Callable[[int, int], int]) -> Self | None:
        """These settings with the counts nearest to what is wanted, where nothing else acts; None where they change nothing.

        Args:
            shape: the backbone's.
            wanted: tokens that should be left, of a block and the tokens that enter it.
        """
        counts: list[tuple[int, int]] = []
        tokens = shape.tokens
        for block in range(shape.depth):
            left = self.nearest(shape, counts, tokens, wanted(block, tokens))
            counts.append((tokens, left))
            tokens = left
        return self.realising(shape, counts)

    @property
    def adapter(self) -> str | None:
        """The name of the trained weights that these settings need; None for none."""
        return None

    def attends_in_proportion(self, shape: BackboneShape) -> bool:
        """Whether tokens are attended to in proportion to the patches in them, on this backbone."""
        del shape
        return True

    def variant(self, shape: BackboneShape, block: int) -> str:
        """What decides how long it takes to act in `block`, besides token counts; equal variants are measured once."""
        del shape, block
        return self.name

    def rule(self, shape: BackboneShape, block: int) -> str:
        """By what it chooses tokens in `block`, in a word that the dashboard knows."""
        del shape, block
        return self.name

    def embedding_macs(self, shape: BackboneShape, tokens: int) -> int:
        """MACs that this reduction itself adds to a block in which it acts on `tokens` tokens."""
        del shape, tokens
        return 0

    def without_last_block(self) -> Self:
        """These settings where the last block's patch tokens are read by nobody, so nothing acts on them there."""
        return self

    @classmethod
    def refusal(cls, shape: BackboneShape) -> str | None:
        """Why this reduction cannot be searched on a backbone; None where it can."""
        del shape
        return None

    @classmethod
    @abstractmethod
    def parameters(cls, context: Context) -> tuple[Parameter | Choice, ...]:
        """What a search may vary, with ranges that fit the backbone: the shares kept (see `shares`), and choices."""

    @classmethod
    @abstractmethod
    def propose(cls, context: Context, values: Values) -> Self:
        """The settings that searched values choose, still keeping every token; the shares are realised by `combination`."""

    @abstractmethod
    def encode(self, context: Context) -> Values:
        """The values that choose these settings, without the shares kept; neutral where a value has no effect.

        Raises:
            VittleError: the settings need an adapter that is not at hand.
        """

    @classmethod
    @abstractmethod
    def neutral(cls, context: Context) -> Values:
        """Values under which it reduces nothing."""

    @classmethod
    @abstractmethod
    def starting_points(cls, context: Context, end: float) -> tuple[Start, ...]:
        """What a search tries first, because a knowing user would; `end`, 0 to 1, is the share of patch tokens left at last.

        The first of each origin stands for it where reductions are combined.
        """
