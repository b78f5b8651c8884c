"""Sparse attention: which keys the queries of a block read, chosen for each image.

Wei et al., "Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient Vision Transformers", arXiv 2303.13755:
of the patches each query of a block reads a share, predicted by a light module; the backbone and its tokens stay as they are.

Form `queries` is the published one, in which every query has keys of its own. Kernels that gather them so are slower than dense
attention, so it runs as dense attention with a mask and is costed as such: it is a reference for what a choice is worth. Form
`keys` is made to be fast: all patch queries of a head read the same keys, prefix queries read every key. What is not read is
not lost: its keys and values are averaged into `rests`, read with the weight of all that they stand for.

A search varies the share in each block, on a logarithmic scale; above half, where choosing costs what it saves, all are read.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from vittle.spaces.errors import ScheduleError, VittleError
from vittle.spaces.reduction import Choice, Context, Parameter, Probe, Reduction, Start, Value, Values
from vittle.spaces.shape import BackboneShape
from vittle.spaces.validation import ShortName
from vittle.spaces.work import Act, BlockWork

Form = Literal["keys", "queries"]
Rests = Literal["none", "one", "2x2", "4x4"]
Selection = Literal["sampled", "trained"]
Share = Annotated[float, Field(gt=0, le=1)]

SIDES: Mapping[Rests, int] = {"none": 0, "one": 1, "2x2": 2, "4x4": 4}
SAMPLED = 8  # patch queries that are asked what they attend to; 16 chose no better keys on photographs
HIDDEN = 16  # channels of the trained scorer
RANK = 8  # of the prediction of every query's keys
LEAST, MOST = 0.05, 0.5  # shares that are searched
PROBED = (0.25, 0.1, 0.05)  # shares whose cost is measured block by block
PAYS = 0.15  # the least share of a block's MACs that attention's core has to have

WORDS = {
    "en": {
        "name": "sparsity",
        "title": "Sparsity: queries read the keys that matter",
        "act": "{share} of the keys not read",
        "probe": "sparsity skips {share} of its keys",
        "rules": {
            "sampled": "what a sample of its queries attends to most",
            "trained": "what a trained scorer finds",
            "queries": "for every query, by a prediction of low rank",
        },
        "summary": {
            "keys": "sparse attention to {least} to {most} of the keys",
            "key": "sparse attention to {least} of the keys",
            "queries": "each query its own",
            "none": "the rest dropped",
            "one": "the rest as one",
            "2x2": "the rest as 2x2",
            "4x4": "the rest as 4x4",
            "trained": "chosen by {predictor}",
        },
        "pictures": {
            "sparsity": {
                "title": "What a patch reads",
                "hint": (
                    "Point at a patch, or go there with the arrow keys. Coloured is what it reads in that block and head: the "
                    "stronger, the more of its attention goes there. What is veiled it does not read by itself."
                ),
                "none": "No block leaves keys unread.",
                "block": "Block",
                "head": "Head",
                "head_of": "Head {head}",
                "patch": "Patch of image {index}",
                "scale": "from least to most attention; the framed patch is the one that reads",
                "reads": (
                    "Row {row}, column {column}: the {count} of {whole} keys that it reads have {share} of its attention, "
                    "row {most_row}, column {most_column} the most, {most}"
                ),
                "gone": "Row {row}, column {column}: dropped before this block",
                "rests": "Row {row}, column {column}: rests in this step",
                "fewer": "{count} of {whole} patches can be asked, evenly spread; of fewer images, more.",
                "recall": "Recall",
                "recall_is": "of the {count} keys that matter most to full attention; by chance {chance}",
                "mass": "Mass",
                "mass_is": "of full attention goes to what is read, the prefix tokens with it",
                "drift": "Blurred, noisy and pale",
                "drift_is": (
                    "The images above, corrupted: the mean over them and over all heads, and the change from the images as "
                    "they are."
                ),
                "images": "Images",
                "in_block": "{name}, block {block}",
                "in_all": "{name}, all blocks",
                "as_they_are": "as they are",
                "corrupted": {
                    "blur": "blurred over {strength} of the side",
                    "noise": "noise of {strength} of the range",
                    "contrast": "contrast cut to {strength}",
                },
                "every": "Every block and head",
                "every_is": "Recall and mass in percent, the mean over the images above.",
            }
        },
    },
    "ja": {
        "name": "スパース化",
        "title": "スパース化：クエリは重要なキーだけを読む",
        "act": "キーの {share} を読まない",
        "probe": "スパース化でキーの {share} を省略",
        "rules": {
            "sampled": "クエリの標本が最も注意を向けるもの",
            "trained": "学習したスコアラーが選ぶもの",
            "queries": "クエリごとに低ランク予測で選ぶもの",
        },
        "summary": {
            "keys": "キーの {least}～{most} へのスパースアテンション",
            "key": "キーの {least} へのスパースアテンション",
            "queries": "クエリごとに選択",
            "none": "残りは捨てる",
            "one": "残りを 1 つに",
            "2x2": "残りを 2x2 に",
            "4x4": "残りを 4x4 に",
            "trained": "{predictor} による選択",
        },
        "pictures": {
            "sparsity": {
                "title": "パッチが読むもの",
                "hint": (
                    "パッチをポインターで指すか、矢印キーで選びます。色の付いた部分が、そのブロックとヘッドでパッチが読むキーです。"
                    "色が濃いほど多くの注意が向いています。覆われた部分は個別には読まれません。"
                ),
                "none": "読まれないキーのあるブロックはありません。",
                "block": "ブロック",
                "head": "ヘッド",
                "head_of": "ヘッド {head}",
                "patch": "画像 {index} のパッチ",
                "scale": "注意の少ない順から多い順。枠で囲んだパッチが読み手です",
                "reads": (
                    "{row} 行 {column} 列：{whole} 個中、読まれる {count} 個のキーに注意の {share} が向き、"
                    "最も多いのは {most_row} 行 {most_column} 列の {most}"
                ),
                "gone": "{row} 行 {column} 列：このブロックの前に除かれました",
                "rests": "{row} 行 {column} 列：このステップでは休みます",
                "fewer": "選べるのは均等に選んだ {whole} 個中 {count} 個のパッチです。画像を減らすと増えます。",
                "recall": "再現率",
                "recall_is": "全体のアテンションで最も重要な {count} 個のキーのうち読まれるもの。偶然なら {chance}",
                "mass": "アテンション量",
                "mass_is": "全体のアテンションのうち、読まれるキーとプレフィックストークンに向くもの",
                "drift": "ぼかし、ノイズ、低コントラスト",
                "drift_is": "上の画像を劣化させた場合。画像とすべてのヘッドの平均と、元の画像からの変化です。",
                "images": "画像",
                "in_block": "{name}、ブロック {block}",
                "in_all": "{name}、全ブロック",
                "as_they_are": "元のまま",
                "corrupted": {
                    "blur": "辺の {strength} のぼかし",
                    "noise": "値域の {strength} のノイズ",
                    "contrast": "コントラストを {strength} に",
                },
                "every": "すべてのブロックとヘッド",
                "every_is": "再現率とアテンション量（％）。上の画像の平均です。",
            }
        },
    },
}


class Sparsity(Reduction):
    """Read a share of the keys.

    Attributes:
        shares: of the patch tokens that enter, how many are read as keys in each block, rounded, at least one. 1 leaves a
            block alone, as does a share that with its rests is no fewer keys.
        form: whether the patch queries of a head share their keys (`keys`) or each has its own (`queries`).
        rests: what is made of the keys that are not read: nothing, their mean, or the mean of each part of the patch grid.
            Where tokens have been merged or pruned before there is no grid, and all of them have one mean.
        selection: by what keys are chosen: the attention that a sample of the queries pays them (`sampled`), which needs no
            training, or a `trained` scorer.
        predictor: the name of the trained weights that `trained` and `queries` choose by.
    """

    name: ClassVar[str] = "sparsity"
    words: ClassVar[Mapping[str, Any]] = WORDS
    picture: ClassVar[str] = "sparsity"

    shares: tuple[Share, ...] = Field(min_length=1)
    form: Form = "keys"
    rests: Rests = "2x2"
    selection: Selection = "sampled"
    predictor: ShortName | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.form == "queries" and (SIDES[self.rests] > 1 or self.selection == "sampled"):
            raise ValueError("form queries needs selection: trained, and rests: one or none")
        if (self.selection == "trained") != (self.predictor is not None):
            raise ValueError("selection trained needs the predictor that it chooses by, sampled has none")
        return self

    @property
    def adapter(self) -> str | None:
        return self.predictor

    def check(self, shape: BackboneShape) -> None:
        # Of blocks, not of visits: a block that runs again reads as many.
        if len(self.shares) != shape.depth:
            raise ScheduleError(f"sparsity has shares for {len(self.shares)} blocks, the model has {shape.depth}")

    def act(self, shape: BackboneShape, row: BlockWork) -> BlockWork:
        patches = row.keys - shape.prefix
        read, side = self.read(row.visit.block, patches), self.side(shape, row)
        if read + side**2 >= patches or row.queries < row.keys:  # a prefix tail has no patch queries
            return row
        pairs = shape.prefix * row.keys + patches * (shape.prefix + read + side**2)
        act = Act(
            self.name,
            "attention",
            row.keys,
            row.keys,
            strength=1 - read / patches,
            # How keys are chosen is no part of it. Measured in turns on a CPU, a scorer and a sample of queries differ by less
            # than a profile can tell, and a profile is measured before there is a scorer.
            variant=f"{self.name} {self.form} {side}x{side}",
            rule="queries" if self.form == "queries" else self.selection,
            macs=self._macs(shape, patches, side),
            parameters=self._parameters(shape),
        )
        return row.acting(act, key_share=1.0 if self.form == "queries" else pairs / (row.queries * row.keys))

    def acting_in(self, shape: BackboneShape, rows: Sequence[BlockWork]) -> Self | None:
        blocks = {row.visit.block for row in rows}
        if not blocks:
            return None
        shares = tuple(share if block in blocks else 1.0 for block, share in enumerate(self.shares))
        rests = self.rests if any(self.side(shape, row) == SIDES[self.rests] for row in rows) else "one"
        return self.model_copy(update={"shares": shares, "rests": rests})

    def read(self, block: int, patches: int) -> int:
        """Patch keys that a block reads of those that enter."""
        return max(1, round(self.shares[block] * patches))

    def side(self, shape: BackboneShape, row: BlockWork) -> int:
        """Into how many parts each side of the grid is cut for the rests of a visit; 0 for no rests."""
        return min(SIDES[self.rests], 1) if row.keys < shape.tokens else SIDES[self.rests]

    def _macs(self, shape: BackboneShape, patches: int, side: int) -> int:
        """Of choosing, and of the rests."""
        width = shape.attention_width
        if self.form == "queries":  # both projections, and every pair; a rest is made of logits and weights that are there
            return 2 * patches * width * RANK + patches**2 * shape.heads * RANK
        rests = 2 * side**2 * patches * width
        if self.selection == "trained":
            return patches * (width * (HIDDEN + 1) + shape.heads * HIDDEN) + rests
        # The sample's logits, the mean value of each part of the grid, and its products with all values.
        return patches * width * (min(SAMPLED, patches) + 2 * max(1, side) ** 2) + rests

    def _parameters(self, shape: BackboneShape) -> int:
        channels = shape.attention_width // shape.heads
        if self.form == "queries":
            return 2 * shape.attention_width * RANK
        scorer = channels * HIDDEN + 2 * HIDDEN + channels
        return shape.heads * scorer if self.selection == "trained" else 0

    def without_last_block(self) -> Self:
        return self.model_copy(update={"shares": (*self.shares[:-1], 1.0)})

    def phrases(self) -> Sequence[tuple[str, Mapping[str, object]]]:
        sparse = [share for share in self.shares if share < 1] or [1.0]
        span = {"least": f"{min(sparse):.0%}", "most": f"{max(sparse):.0%}"}
        said: list[tuple[str, Mapping[str, object]]] = [("keys" if min(sparse) < max(sparse) else "key", span)]
        said += [("queries", {})] if self.form == "queries" else []
        said += [(self.rests, {})]
        said += [("trained", {"predictor": self.predictor})] if self.selection == "trained" else []
        return said

    @classmethod
    def advice(cls, shape: BackboneShape) -> str | None:
        share = core_share(shape)
        if share >= PAYS:
            return None
        return (
            f"attention's core is {share:.0%} of a block's MACs on this model, the most that sparsity could save; "
            f"it pays from about {PAYS:.0%} on, with larger images"
        )

    @classmethod
    def parameters(cls, context: Context) -> tuple[Parameter | Choice, ...]:
        shares = (Parameter(name, LEAST, 1.0, log=True) for name in _names(context))
        rests = Choice("sparsity.rests", tuple(rests for rests in get_args(Rests) if rests != "none"))
        selections = get_args(Selection) if cls.name in context.adapters else ("sampled",)
        return (*shares, rests, *([Choice("sparsity.selection", selections)] if len(selections) > 1 else []))

    @classmethod
    def propose(cls, context: Context, values: Values) -> Self | None:
        searched = [round(share, 2) if (share := float(values[name])) <= MOST else 1.0 for name in _names(context)]
        shares = searched + [1.0] * (context.shape.depth - len(searched))
        if context.tail == "prefix":  # the last block, which may be the only one, has no patch queries
            shares[-1] = 1.0
        if min(shares) == 1:
            return None
        trained = context.adapters.get(cls.name) if values.get("sparsity.selection") == "trained" else None
        return cls.model_validate(
            {
                "shares": tuple(shares),
                "rests": values["sparsity.rests"],
                "selection": "sampled" if trained is None else "trained",
                "predictor": None if trained is None else trained.name,
            }
        )

    def encode(self, context: Context) -> Values:
        if self.form == "queries":
            raise VittleError("form queries is not searched; accepted: keys")
        there = context.adapters.get(self.name)
        if self.predictor is not None and (there is None or there.name != self.predictor):
            at_hand = "none" if there is None else there.name
            raise VittleError(f"sparsity chooses by {self.predictor}, which is not at hand; there is: {at_hand}")
        if any(MOST < share < 1 for share in self.shares):
            raise VittleError(f"shares above {MOST:g} are not searched; accepted: {LEAST:g} to {MOST:g}, or 1")
        values: dict[str, Value] = {**self.neutral(context), **dict(zip(_names(context), self.shares, strict=False))}
        if min(self.shares[: context.blocks]) == 1:
            return values
        values["sparsity.rests"] = self.rests
        if there is not None:
            values["sparsity.selection"] = self.selection
        return values

    @classmethod
    def neutral(cls, context: Context) -> Values:
        chosen: dict[str, Value] = {"sparsity.rests": "2x2"}
        if cls.name in context.adapters:
            chosen["sparsity.selection"] = "sampled"
        return dict.fromkeys(_names(context), 1.0) | chosen

    @classmethod
    def starting_points(cls, context: Context, end: float) -> tuple[Start, ...]:
        # `end` is how far the shares fall, from 1 down to the least that is searched.
        names = _names(context)
        delayed = names[len(names) // 3 :]
        neutral: dict[str, Value] = dict(cls.neutral(context))
        share: Value = LEAST ** (1 - end)
        starts = [Start("constant", neutral | dict.fromkeys(names, share))]
        starts += [Start("delayed", neutral | dict.fromkeys(delayed, share))]
        if cls.name in context.adapters:
            starts += [Start("learned", {**starts[0].values, "sparsity.selection": "trained"})]
        return tuple(starts)

    @classmethod
    def probes(cls, context: Context) -> Sequence[Probe]:
        patches, depth = context.shape.patches, context.shape.depth
        found: dict[tuple[int, float], Probe] = {}
        for block in range(context.blocks):
            for share in PROBED:
                part = cls(shares=tuple(share if at == block else 1.0 for at in range(depth)))
                count = part.read(block, patches)
                if count + SIDES[part.rests] ** 2 < patches:
                    strength = 1 - count / patches
                    found.setdefault((block, strength), Probe(block, strength, part))
        return list(found.values())

    @classmethod
    def joined(cls, parts: Sequence[Any]) -> Self | None:
        shares = tuple(min(each) for each in zip(*(part.shares for part in parts), strict=True))
        return parts[0].model_copy(update={"shares": shares}) if parts else None


def core_share(shape: BackboneShape) -> float:
    """The share of a block's MACs that are of attention's core: the logits, and the weights times the values."""
    n = shape.tokens
    return 2 * n * n * shape.attention_width / shape.block_macs(queries=n, keys=n, mlp=n)


def _names(context: Context) -> list[str]:
    """The shares that are searched, one for each block in which patches attend."""
    return [f"sparsity.share.{block}" for block in range(context.blocks)]
