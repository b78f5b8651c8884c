"""Recursion: a few shared blocks that run again and again, for fewer patches each time, in place of most of the backbone's.

Bae et al., "Mixture-of-Recursions", arXiv 2507.10524, and Li, "MoR-ViT", arXiv 2507.21761. The first and the last block have
weights of their own; between them one or two blocks, whose weights are shared, recur up to a cap. A router decides how deep
each patch goes: in every step a share of the patches takes part, those that rested once rest until the last block. Prefix
tokens go all the way. All these weights are trained (`vittle train recursion`); none of the backbone's blocks is left.

A step's capacity is a share of all patches, so counts are known before anything runs. A search varies how often the blocks
recur and the share of the last step; the shares between fall evenly.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator

from vittle.spaces.errors import ScheduleError, VittleError
from vittle.spaces.reduction import AdapterRecord, Choice, Context, Parameter, Reduction, Start, Values
from vittle.spaces.shape import BackboneShape
from vittle.spaces.validation import ShortName
from vittle.spaces.work import Act, BlockWork, Visit

Router = Literal["learned", "norm", "random"]
Capacity = Annotated[float, Field(gt=0, le=1)]

LEAST = 0.2  # share of the patches in the last step that is searched
STEP_VECTORS = 6  # of the width, that a step has of its own: weight and bias of two norms, and two scales

WORDS = {
    "en": {
        "name": "recursion",
        "title": "Recursion: a few blocks run again and again",
        "act": "{share} of the patches rest",
        "probe": "recursion",
        "rules": {
            "all": "all patches take part",
            "learned": "those that a trained router scores highest take part",
            "norm": "those that are longest take part",
            "random": "some of them take part, drawn once for all images",
        },
        "summary": {
            "one": "one shared block, {steps} times",
            "two": "two shared blocks, {steps} times",
            "last": "down to {share} of the patches",
            "learned": "routed by what was learned",
            "norm": "routed by norm",
            "random": "routed by chance",
        },
        "pictures": {
            "recursion": {
                "title": "How deep each patch goes",
                "hint": (
                    "In how many steps of the shared blocks each patch takes part: the deeper, the stronger its colour. Those "
                    "that rest pass unchanged until the last block. Prefix tokens go all the way."
                ),
                "slider": "Step",
                "depth": "All {steps} steps: how deep each patch goes",
                "step": "Step {step} of {steps}: {count} of {whole} patch tokens take part",
                "scale": "Steps:",
                "gone": "dropped before",
                "canvas": "Image {index}, patches by steps: {depths}",
                "canvas_step": "Image {index}, step {step}: {count} of {whole} patches take part",
                "depth_of": "{count} in {steps}",
                "scores": "What the router chooses by",
                "scores_of": {
                    "learned": (
                        "The scores of a trained router, over all images above. In each step those patches of an image go on "
                        "that have its highest scores; scores of different steps cannot be compared."
                    ),
                    "norm": "The norms of the patches, over all images above. In each step the largest of an image go on.",
                },
                "go_on": "go on",
                "rest": "rest from here on",
                "row": "Step {step}",
                "row_is": "{count} of {whole} go on",
                "histogram": "Step {step}: from {low} to {high}, median {on} of those that go on and {off} of those that rest",
                "same": "the same patches as in the step before",
                "everyone": "all patches",
                "all": "All patches take part in every step, so there is nothing to choose and there are no scores.",
                "random": (
                    "Router random looks at no image: which patches go on was drawn once and is the same for all of them. "
                    "There are no scores, only depth."
                ),
            }
        },
    },
    "ja": {
        "name": "再帰",
        "title": "再帰：少数のブロックを繰り返し使う",
        "act": "パッチの {share} が休む",
        "probe": "再帰",
        "rules": {
            "all": "すべてのパッチが参加",
            "learned": "学習したルーターのスコアが高いパッチが参加",
            "norm": "ノルムの大きいパッチが参加",
            "random": "全画像に共通の乱数で選んだパッチが参加",
        },
        "summary": {
            "one": "共有ブロック 1 個を {steps} 回",
            "two": "共有ブロック 2 個を {steps} 回",
            "last": "最後はパッチの {share}",
            "learned": "学習したルーター",
            "norm": "ノルムによるルーター",
            "random": "乱数によるルーター",
        },
        "pictures": {
            "recursion": {
                "title": "パッチごとの再帰の深さ",
                "hint": (
                    "各パッチが共有ブロックのステップに何回参加するかを示します。色が濃いほど深く進みます。"
                    "休んだパッチは最後のブロックまで変化しません。プレフィックストークンは常に参加します。"
                ),
                "slider": "ステップ",
                "depth": "全 {steps} ステップ：各パッチの深さ",
                "step": "ステップ {step} / {steps}：パッチトークン {whole} 個中 {count} 個が参加",
                "scale": "ステップ数：",
                "gone": "以前に除去",
                "canvas": "画像 {index}、ステップ数ごとのパッチ：{depths}",
                "canvas_step": "画像 {index}、ステップ {step}：{whole} パッチ中 {count} が参加",
                "depth_of": "{steps} 回が {count}",
                "scores": "ルーターの判断基準",
                "scores_of": {
                    "learned": (
                        "学習したルーターのスコア（上の全画像）。各ステップで、画像ごとにスコアの高いパッチが先へ進みます。"
                        "異なるステップのスコアは比較できません。"
                    ),
                    "norm": "パッチのノルム（上の全画像）。各ステップで、画像ごとにノルムの大きいパッチが先へ進みます。",
                },
                "go_on": "先へ進む",
                "rest": "以後は休む",
                "row": "ステップ {step}",
                "row_is": "{whole} 個中 {count} 個が進む",
                "histogram": "ステップ {step}：{low}～{high}、中央値は進むもの {on}、休むもの {off}",
                "same": "直前のステップと同じパッチ",
                "everyone": "すべてのパッチ",
                "all": "すべてのステップに全パッチが参加するため、選択もスコアもありません。",
                "random": (
                    "random ルーターは画像を見ません。どのパッチが進むかは一度だけ乱数で決まり、全画像に共通です。"
                    "スコアはなく、深さだけを表示します。"
                ),
            }
        },
    },
}


class Recursion(Reduction):
    """Run shared blocks again and again.

    Attributes:
        weights: the name of the trained weights that run in place of the backbone's blocks.
        shared: blocks whose weights are shared; all of them run in every step.
        capacities: of the patches, how many take part in each step, rounded; they never rise.
        router: by what those are chosen: a `learned` score, their `norm`, or at `random`, always the same positions.
    """

    name: ClassVar[str] = "recursion"
    words: ClassVar[Mapping[str, Any]] = WORDS
    picture: ClassVar[str] = "recursion"
    needs_adapter: ClassVar[bool] = True

    weights: ShortName
    shared: Literal[1, 2] = 1
    capacities: tuple[Capacity, ...] = Field(min_length=1)
    router: Router = "random"

    @field_validator("capacities")
    @classmethod
    def _never_rise(cls, capacities: tuple[float, ...]) -> tuple[float, ...]:
        if any(after > before for before, after in pairwise(capacities)):
            raise ValueError("capacities rise; accepted: shares that stay or fall from step to step")
        return capacities

    @property
    def steps(self) -> int:
        """How often the shared blocks run."""
        return len(self.capacities)

    @property
    def adapter(self) -> str | None:
        return self.weights

    def check(self, shape: BackboneShape) -> None:
        if shape.depth < self.shared + 2:
            least = self.shared + 2
            raise ScheduleError(f"recursion with {self.shared} shared blocks needs {least} blocks, the model has {shape.depth}")

    def route(self, shape: BackboneShape) -> list[Visit]:
        recurring = [
            Visit(1 + block, step, capacity)
            for step, capacity in enumerate(self.capacities)
            for block in range(min(self.shared, shape.depth))
        ]
        return [Visit(0), *recurring, Visit(shape.depth - 1)]

    def act(self, shape: BackboneShape, row: BlockWork) -> BlockWork:
        patches = row.entering - shape.prefix
        rests = row.resting / patches
        # With two blocks the first one chooses for both.
        learned = self.router == "learned" and row.visit.block == 1 and self._chooses(row.visit.step, patches)
        recurs = row.visit.block not in (0, shape.depth - 1)
        return row.acting(
            Act(
                self.name,
                "route",
                row.entering,
                row.keys,
                strength=rests,
                variant=f"{self.name} {self.router if rests else 'all'}",
                rule=self.router if rests else "all",
                macs=patches * shape.width if learned else 0,
                parameters=self._parameters(shape, row.visit.block) if recurs else 0,
            )
        )

    def _parameters(self, shape: BackboneShape, block: int) -> int:
        """What all steps of a shared block have of their own. The first step has what the block has."""
        own = (self.steps - 1) * STEP_VECTORS * shape.width
        routers = self.steps * (shape.width + 1) if block == 1 else 0  # there whatever the rule, so that they can be watched
        return own + routers

    def _chooses(self, step: int, patches: int) -> bool:
        """Whether fewer patches take part in a step than in the one before."""
        before = self.capacities[step - 1] if step else 1.0
        return round(self.capacities[step] * patches) < round(before * patches)

    def without_last_block(self) -> Self:
        return self  # the last block takes what comes

    def phrases(self) -> Sequence[tuple[str, Mapping[str, object]]]:
        said: list[tuple[str, Mapping[str, object]]] = [("one" if self.shared == 1 else "two", {"steps": self.steps})]
        if (last := self.capacities[-1]) < 1:
            said += [("last", {"share": f"{last:.0%}"}), (self.router, {})]
        return said

    @classmethod
    def refusal(cls, shape: BackboneShape) -> str | None:
        return None if shape.depth > 2 else "it has no blocks between its first and its last one"

    @classmethod
    def parameters(cls, context: Context) -> tuple[Parameter | Choice, ...]:
        there = context.adapters.get(cls.name)
        if there is None:
            return ()
        return (
            Parameter("recursion.steps", 0, most_steps(context, there), integer=True),  # 0: the backbone's own blocks
            Parameter("recursion.share", LEAST, 1.0),
            Choice("recursion.router", get_args(Router)),
        )

    @classmethod
    def propose(cls, context: Context, values: Values) -> Self | None:
        there = context.adapters.get(cls.name)
        if there is None or (steps := int(values["recursion.steps"])) == 0:
            return None
        capacities = falling(steps, float(values["recursion.share"]))
        by = {} if capacities[-1] == 1 else {"router": values["recursion.router"]}
        return cls.model_validate({"weights": there.name, "shared": there.width, "capacities": capacities, **by})

    def encode(self, context: Context) -> Values:
        there = context.adapters.get(self.name)
        if there is None or (there.name, there.width) != (self.weights, self.shared):
            at_hand = "none" if there is None else there.name
            raise VittleError(f"recursion runs {self.weights}, which are not at hand; there is: {at_hand}")
        if self.capacities != falling(self.steps, self.capacities[-1]):
            raise VittleError("capacities that do not fall evenly from 1 are not searched")
        values = {**self.neutral(context), "recursion.steps": self.steps}
        if (share := self.capacities[-1]) < 1:
            values |= {"recursion.share": share, "recursion.router": self.router}
        return values

    @classmethod
    def neutral(cls, context: Context) -> Values:
        if cls.name not in context.adapters:
            return {}
        return {"recursion.steps": 0, "recursion.share": 1.0, "recursion.router": cls.model_fields["router"].default}

    @classmethod
    def starting_points(cls, context: Context, end: float) -> tuple[Start, ...]:
        there = context.adapters.get(cls.name)
        if there is None:
            return ()
        # `constant` takes steps away, `delayed` patches from the later ones as well; whole is what the backbone has.
        steps = 0 if end >= 1 else max(1, round(end * most_steps(context, there)))
        constant = {**cls.neutral(context), "recursion.steps": steps}
        share = round(LEAST + (1 - LEAST) * end, 2) if steps > 1 else 1.0
        return (Start("constant", constant), Start("delayed", {**constant, "recursion.share": share}))


def most_steps(context: Context, weights: AdapterRecord) -> int:
    """How often shared blocks may recur before they cost more than the blocks that they stand for."""
    return max(1, min(weights.steps, (context.shape.depth - 2) // weights.width))


def falling(steps: int, last: float) -> tuple[float, ...]:
    """Capacities that fall evenly from 1 to the last one, in hundredths; a single step is for all."""
    last = round(last, 2)
    return tuple(round(1 - (1 - last) * step / max(1, steps - 1), 2) for step in range(steps))
