"""What every reduction declares: its settings in a schedule, what they do in a visit, and what may be searched of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from vittle.spaces.shape import BackboneShape
from vittle.spaces.work import BlockWork, Visit

Tail = Literal["full", "prefix"]
Value = float | str
Values = Mapping[str, Value]
Words = Mapping[str, Any]
"""What is said of a reduction in one language, nested; see `Reduction.words`."""


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
    """Trained weights that a reduction may use.

    Attributes:
        name: says how they were trained, and which they are.
        width: decides what they cost, in channels or in blocks.
        steps: how often they may run in one pass, where they recur.
    """

    name: str
    width: int
    steps: int = 0


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


class Probe(NamedTuple):
    """A schedule's part that acts in a single block, to see what that costs.

    Attributes:
        block: where.
        strength: how much it does there, above 0 and up to 1.
        settings: what does it.
    """

    block: int
    strength: float
    settings: "Reduction"


class Reduction(BaseModel, ABC):
    """The settings of one reduction over depth. Immutable, hashable, and checked when made.

    A subclass is one file in `spaces/` with a line in `table`, and an operator in `reductions/` that carries it out. A schedule
    asks it what it does in each visit (`check`, `route`, `act`), a search what may vary (`refusal`, `parameters`, `propose`,
    `encode`, `neutral`, `starting_points`, `probes`), and whoever shows it what to say (`words`, `phrases`, `picture`).

    Attributes:
        name: in schedules, options and the table.
        words: by language, `en` at least:
            `name`: of the reduction, within a sentence;
            `title`: of it, where one chooses what to search;
            `act`: what it does in a visit, of {count} tokens less and of the {share} of what there is;
            `probe`: the same of a block that acts alone;
            `rules`: by what it chooses, for every rule that its acts have;
            `summary`: for every one of its `phrases`;
            `pictures`: a `title` and a `hint` for its picture, where it brings one of its own.
        picture: the script that draws it, in `dashboards/static`. Patches that are one token are drawn for whatever brings
            none of its own.
        needs_adapter: whether it can do nothing without trained weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    name: ClassVar[str]
    words: ClassVar[Mapping[str, Words]]
    picture: ClassVar[str] = "patches"
    needs_adapter: ClassVar[bool] = False

    @property
    def depth(self) -> int | None:
        """Visits that these settings are written for; None for any number. Read when a schedule is made."""
        return None

    @property
    def adapter(self) -> str | None:
        """The name of the trained weights that these settings need; None for none. Read before a model is built."""
        return None

    def check(self, shape: BackboneShape) -> None:
        """Refuse a backbone that lacks what these settings need. Called before the first visit is worked out.

        Raises:
            ScheduleError: what is missing.
        """

    def route(self, shape: BackboneShape) -> Sequence[Visit] | None:
        """Which blocks run, in which order, for which share of the patches; None for each once. Called before any visit."""
        del shape
        return None

    @abstractmethod
    def act(self, shape: BackboneShape, row: BlockWork) -> BlockWork:
        """What is left to do in a visit, once this reduction has its part. Called for every visit, in their order.

        Args:
            shape: the backbone's.
            row: the visit, with the acts of the reductions before this one.

        Returns:
            The row with one more act (`BlockWork.acting`), or as it was where nothing is done.

        Raises:
            ScheduleError: the visit cannot do what the settings say; the message has the value and the limit.
        """

    def acting_in(self, shape: BackboneShape, rows: Sequence[BlockWork]) -> Self | None:
        """These settings without what they do in other visits or has no effect. Called for every proposal of a search.

        Args:
            shape: the backbone's.
            rows: visits in which they act, all of them or some.

        Returns:
            The same settings where they cannot be written so, None where nothing is left.
        """
        del shape, rows
        return self

    @abstractmethod
    def without_last_block(self) -> Self:
        """These settings where the last visit's patch tokens are read by nobody, so nothing acts on them there."""

    def phrases(self) -> Sequence[tuple[str, Mapping[str, object]]]:
        """How it reduces, as keys of `words.summary` with the values that they name. Called wherever a schedule is listed."""
        return [("name", {})]

    def summary(self) -> str:
        """The phrases in English."""
        said = self.words["en"]["summary"]
        return ", ".join(str(said[key]).format_map(values) for key, values in self.phrases())

    @classmethod
    def refusal(cls, shape: BackboneShape) -> str | None:
        """Why this reduction cannot be searched on a backbone; None where it can. Called before a space is made."""
        del shape
        return None

    @classmethod
    def advice(cls, shape: BackboneShape) -> str | None:
        """What a user should know before searching it on a backbone that it fits; None for nothing. Told at launch."""
        del shape
        return None

    @classmethod
    @abstractmethod
    def parameters(cls, context: Context) -> tuple[Parameter | Choice, ...]:
        """What a search may vary, with ranges that fit the backbone."""

    @classmethod
    @abstractmethod
    def propose(cls, context: Context, values: Values) -> Self | None:
        """The settings that searched values choose; None where they change nothing. Called for every proposal."""

    @abstractmethod
    def encode(self, context: Context) -> Values:
        """The values that choose these settings; neutral where a value has no effect. Called for whatever is learnt from.

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
        """What a search tries first, because a knowing user would.

        The first of each origin stands for it where reductions are combined.

        Args:
            context: of the search.
            end: how much is left at last, from 1 for all to 0 for the least; of what, the reduction knows.
        """

    @classmethod
    def probes(cls, context: Context) -> Sequence[Probe]:
        """Settings that act in one block alone, to tell what each block can spare. Called once for each backbone."""
        del context
        return ()

    @classmethod
    def joined(cls, parts: Sequence[Any]) -> Self | None:
        """Settings that do in each block what the settings of these probes, of different blocks, do in theirs.

        None where that cannot be, or a plan is made otherwise. Called for every plan of a search.
        """
        del parts
        return None
