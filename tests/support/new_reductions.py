"""Two reductions that only tests know, each written as a newcomer would: settings, an operator, and a line in the table.

`Averaging` replaces the core of attention by the mean of all values, from some block on, and removes no token. `Looping` runs
blocks more than once, for fewer tokens each time.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vittle.reductions.tokens import Heads, Operator, Site, Tokens
from vittle.spaces import Act, BackboneShape, BlockWork, Parameter, Probe, Reduction, ScheduleError, Start, Visit
from vittle.spaces.reduction import Context, Values
from vittle.spaces.table import Entry


class Averaging(Reduction):
    """Every query reads the mean of all values, from block `start` on."""

    name: ClassVar[str] = "averaging"
    words: ClassVar[Mapping[str, Any]] = {
        "en": {
            "name": "averaging",
            "title": "Averaging: attention becomes a mean",
            "act": "attention averaged",
            "probe": "averaging replaces its attention",
            "rules": {"mean": "the mean of all values"},
            "summary": {"from": "averaging from block {block}"},
            "pictures": {"averages": {"title": "What is averaged", "hint": "The mean value of each head."}},
        },
    }
    picture: ClassVar[str] = "averages"

    start: int
    end: int | None = None

    def check(self, shape: BackboneShape) -> None:
        if not 0 <= self.start < shape.depth:
            raise ScheduleError(f"averaging starts in block {self.start}; accepted: 0 to {shape.depth - 1}")

    def act(self, shape: BackboneShape, row: BlockWork) -> BlockWork:
        if row.index < self.start or (self.end is not None and row.index >= self.end):
            return row
        act = Act(self.name, "attention", row.keys, row.keys, strength=1.0, variant=self.name, rule="mean")
        return row.acting(act, key_share=0.0)

    def without_last_block(self) -> Self:
        return self  # the class token reads there, too

    def phrases(self) -> Sequence[tuple[str, Mapping[str, object]]]:
        return [("from", {"block": self.start + 1})]

    @classmethod
    def parameters(cls, context: Context) -> tuple[Parameter, ...]:
        return (Parameter("averaging.start", 0, context.shape.depth, integer=True),)

    @classmethod
    def propose(cls, context: Context, values: Values) -> Self | None:
        start = int(values["averaging.start"])
        return None if start == context.shape.depth else cls(start=start)

    def encode(self, context: Context) -> Values:
        return {"averaging.start": self.start}

    @classmethod
    def neutral(cls, context: Context) -> Values:
        return {"averaging.start": context.shape.depth}

    @classmethod
    def starting_points(cls, context: Context, end: float) -> tuple[Start, ...]:
        return (Start("late", {"averaging.start": round(end * context.shape.depth)}),)

    @classmethod
    def probes(cls, context: Context) -> list[Probe]:
        return [Probe(block, 1.0, cls(start=block, end=block + 1)) for block in range(context.blocks)]


class Average(Operator):
    """The mean of all values in place of attention."""

    def __init__(self, settings: Averaging, site: Site, adapter: None = None) -> None:
        super().__init__()

    def attend(self, heads: Heads) -> Tensor:
        return heads.values.mean(2, keepdim=True).expand(-1, -1, heads.queries.shape[2], -1)

    def explain(self, *given: Any) -> Mapping[str, Tensor]:
        (heads,) = given
        return {"mean": heads.values.mean((2, 3))}  # (b, h)


class Looping(Reduction):
    """Each of the first `blocks` blocks runs twice, the second time for half of the patch tokens."""

    name: ClassVar[str] = "looping"
    words: ClassVar[Mapping[str, Any]] = {
        "en": {
            "name": "looping",
            "title": "Looping: blocks run twice",
            "act": "{share} of the tokens rest",
            "probe": "looping",
            "rules": {"first": "the first ones take part"},
            "summary": {"name": "looping"},
        },
    }

    blocks: int

    def route(self, shape: BackboneShape) -> list[Visit]:
        return [visit for block in range(self.blocks) for visit in (Visit(block), Visit(block, 1, 0.5))]

    def act(self, shape: BackboneShape, row: BlockWork) -> BlockWork:
        if not row.resting:
            return row
        rests = row.resting / (row.entering - shape.prefix)
        return row.acting(Act(self.name, "route", row.entering, row.keys, strength=rests, variant=self.name, rule="first"))

    def without_last_block(self) -> Self:
        return self

    @classmethod
    def parameters(cls, context: Context) -> tuple[Parameter, ...]:
        return (Parameter("looping.blocks", 1, context.shape.depth, integer=True),)

    @classmethod
    def propose(cls, context: Context, values: Values) -> Self:
        return cls(blocks=int(values["looping.blocks"]))

    def encode(self, context: Context) -> Values:
        return {"looping.blocks": self.blocks}

    @classmethod
    def neutral(cls, context: Context) -> Values:
        return {"looping.blocks": context.shape.depth}

    @classmethod
    def starting_points(cls, context: Context, end: float) -> tuple[Start, ...]:
        return ()


class Loop(Operator):
    """The first tokens take part."""

    def __init__(self, settings: Looping, site: Site, adapter: None = None) -> None:
        super().__init__()
        self.taking_part = site.row.keys

    def select(self, tokens: Tokens) -> Tensor:
        features = tokens.features
        return torch.arange(self.taking_part, device=features.device).expand(features.shape[0], -1)


ENTRIES = {
    "averaging": Entry(Averaging, "new_reductions:Average"),
    "looping": Entry(Looping, "new_reductions:Loop"),
}
