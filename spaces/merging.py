"""Token merging: how many tokens each block hands on, and how the tokens that merge are chosen.

Bolya et al., "Token Merging: Your ViT But Faster", arXiv 2210.09461. A block pairs similar tokens and replaces each pair by its
weighted mean. The settings hold the *realised* counts, tokens left after each block, so nothing is clamped in silence.

What is compared (`metric`): the attention's keys (ToMe), the tokens themselves (DiffRate, arXiv 2305.17997), or a learned
embedding of them (DTEM, arXiv 2412.10569), which needs trained weights.

Who may merge into whom (`matching`): every second token into one of the others (bipartite, ToMe), only tokens in the densest
groups, so that isolated ones are protected (energy, PiToMe, arXiv 2405.16148), or the least important tokens into any other
(importance, DiffRate). Before block `global_from`, tokens merge bipartitely inside windows of the patch grid that are `window`
patches high and wide (delayed spatial merging, arXiv 2303.02331); this needs the grid to be whole, so windows come first.

A search varies the share kept after each block (see `shares`) and these choices.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, field_validator, model_validator

from vittle.spaces import published, shares
from vittle.spaces.curve import Curve, latest_start
from vittle.spaces.errors import ScheduleError, VittleError
from vittle.spaces.pruning import NEEDS_CLASS
from vittle.spaces.reduction import Choice, Context, Parameter, Start, Value, Values
from vittle.spaces.shape import BackboneShape
from vittle.spaces.token_reduction import Counts, TokenReduction
from vittle.spaces.validation import Count, ShortName, falling
from vittle.spaces.windows import Windows

Metric = Literal["key", "feature", "decoupled"]
Matching = Literal["bipartite", "energy", "importance"]
Weights = Literal["size", "equal"]
Switch = Literal["auto", "on", "off"]

MOST_LOCAL = 4  # blocks that a search lets merge inside windows

WORDS = {
    "en": {
        "name": "merging",
        "title": "Merging: similar tokens become one",
        "act": "{count} merged",
        "probe": "merging removes {share} of its tokens",
        "rules": {
            "bipartite": "each into the most similar of every second token",
            "energy": "within dense groups, isolated tokens protected",
            "importance": "the least important into the most similar",
            "windows": "inside windows of the image",
        },
        "summary": {
            "key": "merging by key",
            "feature": "merging by feature",
            "decoupled": "merging by {embedding}",
            "windows": "in windows of {side} up to block {block}",
            "energy": "energy",
            "importance": "importance",
            "equal": "equal weights",
            "proportional": "proportional attention {switch}",
        },
    },
    "ja": {
        "name": "マージ",
        "title": "マージ：似たトークンを 1 つにまとめる",
        "act": "{count} 個を統合",
        "probe": "マージでトークンの {share} を削減",
        "rules": {
            "bipartite": "一つおきのトークンのうち最も似たものへ",
            "energy": "密集したグループ内。孤立したトークンは保護",
            "importance": "重要度の低いものを最も似たものへ",
            "windows": "画像内のウィンドウごと",
        },
        "summary": {
            "key": "キーによるマージ",
            "feature": "特徴量によるマージ",
            "decoupled": "{embedding}によるマージ",
            "windows": "ブロック {block} まで一辺 {side} のウィンドウ内",
            "energy": "エネルギー方式",
            "importance": "重要度方式",
            "equal": "均等重み",
            "proportional": "比例アテンション {switch}",
        },
    },
}


class Merging(TokenReduction):
    """Merge similar tokens after attention.

    Attributes:
        kept: tokens left after each block, prefix tokens included.
        metric: what is compared.
        matching: who may merge into whom.
        weights: a merged token is the mean of its members by `size`, or the plain mean of what merges (`equal`), the size of
            each source then counted in proportion to its similarity.
        proportional: attend to a merged token in proportion to the patches in it (adds log size to its logits). `auto` does
            so where the head reads prefix tokens, and not where it pools patches (as published for MAE).
        window: the side of the windows, None for none.
        global_from: the first block that merges across the whole grid.
        embedding: the name of the trained weights that `decoupled` compares by.
        embedding_width: channels of that embedding.
    """

    name: ClassVar[str] = "merging"
    words: ClassVar[Mapping[str, Any]] = WORDS

    kept: tuple[Count, ...]
    metric: Metric = "key"
    matching: Matching = "bipartite"
    weights: Weights = "size"
    # YAML reads a bare `on` as true.
    proportional: Annotated[Switch, BeforeValidator(lambda given: {True: "on", False: "off"}.get(given, given))] = "auto"
    window: Count | None = None
    global_from: Count = 0
    embedding: ShortName | None = None
    embedding_width: Count = 0

    _falls = field_validator("kept")(falling)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.metric == "decoupled") != (self.embedding is not None and self.embedding_width > 0):
            raise ValueError("metric decoupled needs the embedding and embedding_width that it compares by, no other has them")
        if self.window is None and self.global_from != 0:
            raise ValueError(f"merges globally from block {self.global_from}, but no window is given for the blocks before")
        if self.window is not None and (self.window < 2 or not 0 < self.global_from <= len(self.kept)):
            raise ValueError(
                f"window {self.window} until block {self.global_from}; accepted: a side of 2 or more, until block 1 to "
                f"{len(self.kept)}"
            )
        return self

    @property
    def depth(self) -> int:
        return len(self.kept)

    def check(self, shape: BackboneShape) -> None:
        if self.matching == "importance" and not shape.has_class:
            raise ScheduleError(f"merging by importance does not fit: {NEEDS_CLASS}")

    def phrases(self) -> list[tuple[str, Mapping[str, object]]]:
        said: list[tuple[str, Mapping[str, object]]] = [(self.metric, {"embedding": self.embedding})]
        said += [("windows", {"side": self.window, "block": self.global_from})] if self.window is not None else []
        said += [(self.matching, {})] if self.matching != "bipartite" else []
        said += [("equal", {})] if self.weights == "equal" else []
        said += [("proportional", {"switch": self.proportional})] if self.proportional != "auto" else []
        return said

    @property
    def adapter(self) -> str | None:
        return self.embedding

    def attends_in_proportion(self, shape: BackboneShape) -> bool:
        return (self._auto(shape) if self.proportional == "auto" else self.proportional) == "on"

    def windows(self, shape: BackboneShape, block: int) -> Windows | None:
        """The windows inside which `block` merges; None where it merges across the grid."""
        return Windows(shape.grid, self.window) if self.window is not None and block < self.global_from else None

    def tokens_after(self, shape: BackboneShape, block: int, tokens: int) -> int:
        kept, windows = self.kept[block], self.windows(shape, block)
        if kept > tokens:
            raise ScheduleError(f"merging keeps {kept} tokens after block {block}, but only {tokens} enter it")
        if kept == tokens:
            return kept
        removed = tokens - kept
        if windows is None:
            limit = self._most_merged(shape, tokens)
            if removed > limit:
                most = "all but one" if self.matching == "importance" else "half"
                raise ScheduleError(
                    f"merging removes {removed} of {tokens} tokens in block {block}; "
                    f"at most {most} of its {tokens - shape.prefix} patch tokens, {limit}, can merge at once"
                )
            return kept
        if tokens != (self.kept[block - 1] if block else shape.tokens):
            raise ScheduleError(
                f"merging inside windows in block {block} needs a whole grid, but something else has acted on it"
            )
        if removed % windows.count:
            raise ScheduleError(
                f"merging removes {removed} tokens in block {block}, not the same in each of {windows.count} windows"
            )
        limit = windows.most_merged(shape, tokens)
        if removed // windows.count > limit:
            raise ScheduleError(
                f"merging removes {removed // windows.count} tokens from each window in block {block}; "
                f"at most half of the smallest, {limit}, can merge at once"
            )
        return kept

    def nearest(self, shape: BackboneShape, passed: Counts, tokens: int, wanted: int) -> int:
        windows = self.windows(shape, len(passed))
        if windows is not None and _whole(passed, shape.tokens, tokens):
            each = (tokens - wanted + windows.count // 2) // windows.count  # rounded, a tie always down to fewer tokens
            return tokens - windows.count * max(0, min(each, windows.most_merged(shape, tokens)))
        return max(min(wanted, tokens), tokens - self._most_merged(shape, tokens), min(tokens, shape.prefix + 1))

    def realising(self, shape: BackboneShape, counts: Counts) -> Self | None:
        if all(before == after for before, after in counts):
            return None
        local = 0  # windows end after the last block that merges in them, and before anything else has acted on the grid
        for block, (before, after) in enumerate(counts):
            if self.windows(shape, block) is None or not _whole(counts[:block], shape.tokens, before):
                break
            local = block + 1 if after < before else local
        changes = {"kept": tuple(after for _, after in counts), "window": self.window if local else None, "global_from": local}
        return self.model_copy(update=changes)

    def variant(self, shape: BackboneShape, block: int) -> str:
        compared = "feature" if self.metric == "feature" else "key"  # an embedding is as narrow as a head's keys
        return f"{self.name} {compared} {self.rule(shape, block)} {self.weights}"

    def rule(self, shape: BackboneShape, block: int) -> str:
        return self.matching if self.windows(shape, block) is None else "windows"

    def embedding_macs(self, shape: BackboneShape, tokens: int) -> int:
        return tokens * shape.width * self.embedding_width

    def embedding_parameters(self, shape: BackboneShape) -> int:
        return (shape.width + 1) * self.embedding_width

    def without_last_block(self) -> Self:
        if len(self.kept) < 2:
            return self
        last = len(self.kept) - 1
        return self.model_copy(update={"kept": (*self.kept[:-1], self.kept[-2]), "global_from": min(self.global_from, last)})

    def _most_merged(self, shape: BackboneShape, tokens: int) -> int:
        if self.matching == "importance":
            return max(0, tokens - shape.prefix - 1)
        return most_merged(tokens, shape.prefix)

    @staticmethod
    def _auto(shape: BackboneShape) -> Switch:
        return "on" if shape.reads_prefix_only else "off"

    @classmethod
    def parameters(cls, context: Context) -> tuple[Parameter | Choice, ...]:
        metrics = [metric for metric in get_args(Metric) if metric != "decoupled" or cls.name in context.adapters]
        matchings = [matching for matching in get_args(Matching) if matching != "importance" or context.shape.has_class]
        return (
            *shares.parameters(cls.name, context),
            Choice("merging.metric", tuple(metrics)),
            Choice("merging.matching", tuple(matchings)),
            Choice("merging.weights", get_args(Weights)),
            Choice("merging.proportional", ("on", "off")),
            Parameter("merging.local", 0, min(MOST_LOCAL, context.blocks), integer=True),
            Parameter("merging.window", 2, _half_of_the_grid(context.shape), integer=True),
        )

    @classmethod
    def propose(cls, context: Context, values: Values) -> Self:
        shape = context.shape
        decoupled = context.adapters.get(cls.name) if values["merging.metric"] == "decoupled" else None
        local = int(values["merging.local"])
        proportional = values["merging.proportional"]
        return cls.model_validate(
            {
                "kept": (shape.tokens,) * shape.depth,
                **{name: values[f"merging.{name}"] for name in ("metric", "matching", "weights")},
                "proportional": "auto" if proportional == cls._auto(shape) else proportional,
                "window": int(values["merging.window"]) if local else None,
                "global_from": min(_first_asked(context, values) + local, shape.depth) if local else 0,
                "embedding": decoupled.name if decoupled else None,
                "embedding_width": decoupled.width if decoupled else 0,
            }
        )

    def encode(self, context: Context) -> Values:
        there = context.adapters.get(self.name)
        if self.embedding is not None and (there is None or (self.embedding, self.embedding_width) != there[:2]):
            at_hand = "none" if there is None else there.name
            raise VittleError(f"merging compares by {self.embedding}, which is not at hand; there is: {at_hand}")
        windows: dict[str, Value] = {}
        # Nothing has acted on the grid before the first merge inside windows.
        first = next((block for block, kept in enumerate(self.kept) if kept < context.shape.tokens), self.depth)
        if self.window is not None and first < self.global_from:
            windows = {"merging.local": self.global_from - first, "merging.window": self.window}
        return {
            **self._neutral_choices(context.shape),
            "merging.metric": self.metric,
            "merging.matching": self.matching,
            "merging.weights": self.weights,
            "merging.proportional": self._auto(context.shape) if self.proportional == "auto" else self.proportional,
            **windows,
        }

    @classmethod
    def neutral(cls, context: Context) -> Values:
        return shares.neutral(cls.name, context) | cls._neutral_choices(context.shape)

    @classmethod
    def _neutral_choices(cls, shape: BackboneShape) -> dict[str, Value]:
        return {
            "merging.metric": "key",
            "merging.matching": "bipartite",
            "merging.weights": "size",
            "merging.proportional": cls._auto(shape),
            "merging.local": 0,
            "merging.window": 2,
        }

    @classmethod
    def starting_points(cls, context: Context, end: float) -> tuple[Start, ...]:
        shape, blocks = context.shape, context.blocks
        delay = context.start if context.start is not None else round(shape.depth / 6)
        constant = Curve(0, end).shares(blocks)
        decreasing = [Curve(0, end, exponent).shares(blocks) for exponent in (0.5, 0.25)]
        delayed = Curve(min(delay, latest_start(shape)), end).shares(blocks)
        learnt = [published.shares(kept, shape.depth, blocks, end) for kept in published.MERGED]
        windows: Values = {"merging.local": 2, "merging.window": _half_of_the_grid(shape)}
        by_importance: Values = (
            {
                "merging.metric": "feature",
                "merging.matching": "importance",
                "merging.weights": "equal",
                "merging.proportional": "on",
            }
            if shape.has_class
            else {}
        )
        starts: list[tuple[str, list[float], Values]] = [
            ("constant", constant, {}),
            *(("decreasing", kept, {}) for kept in decreasing),
            ("delayed", delayed, {}),
            ("delayed", delayed, windows),
            *(("published", kept, by_importance) for kept in learnt),
        ]
        if cls.name in context.adapters:
            starts.append(("learned", constant, {"merging.metric": "decoupled"}))
        neutral = cls._neutral_choices(shape)
        return tuple(Start(origin, {**neutral, **shares.written(cls.name, kept), **chosen}) for origin, kept, chosen in starts)


def most_merged(tokens: int, prefix: int) -> int:
    """How many of a block's `tokens` can merge at once: half of its patch tokens, since each needs a partner that stays."""
    return max(0, tokens - prefix) // 2


def _first_asked(context: Context, values: Values) -> int:
    """The first block that should merge."""
    patches = context.shape.patches
    kept = shares.read(Merging.name, context, values)
    return next((block for block, share in enumerate(kept) if round(patches * share) < patches), context.blocks - 1)


def _half_of_the_grid(shape: BackboneShape) -> int:
    """The side of windows that cut the longer side of the grid in two."""
    return max(2, -(-max(shape.grid) // 2))


def _whole(passed: Counts, start: int, tokens: int) -> bool:
    """Whether nothing else has removed a token, before the first block or between them."""
    entered = [before for before, _ in passed] + [tokens]
    left = [start] + [after for _, after in passed]
    return entered == left
