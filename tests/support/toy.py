"""A kind of study of its own: which number of layers and which width reach a score for the fewest steps. Nothing is trained.

It is here to prove that a search, its store and its pages know no kind but through `Problem` and `Kind`.

    python -c "import toy; toy.main()" COMMAND ...    `vittle` with this kind; `launch NAME URL TRIALS` begins a study
"""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from vittle.objectives.budget import CostBudget
from vittle.objectives.evaluation import Evaluation
from vittle.objectives.goals import Goals, Measured
from vittle.objectives.measurement import Measurement, Objective, define, exact
from vittle.search.problem import Problem
from vittle.spaces.reduction import Parameter, Start, Values
from vittle.storage.kinds import Kind, register
from vittle.storage.settings import SearchSettings

define(
    Objective("score", "points", "maximize", "what the judges gave", chosen_by=True),
    Objective("steps", "steps", "minimize", "how long it took"),
)


@dataclass(frozen=True)
class Toy:
    """So many layers of a width."""

    layers: int
    width: int

    @property
    def id(self) -> str:
        return f"{self.layers}x{self.width}"

    @property
    def summary(self) -> str:
        return f"{self.layers} layers <b>of {self.width}</b>"

    @property
    def is_baseline(self) -> bool:
        return self == BASELINE

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


BASELINE = Toy(10, 64)


class ToySettings(SearchSettings):
    """With a budget in steps, and seconds that each rung takes."""

    kind: ClassVar[str] = "toy"
    most: float = 400.0
    seconds: float = 0.0

    @property
    def goals(self) -> Goals:
        return Goals("score", ("steps",), CostBudget(self.most, "steps"), worth=20.0)


class ToySpace:
    """1 to 10 layers, 8 to 64 wide."""

    parameters = (Parameter("layers", 1, 10, integer=True), Parameter("width", 8, 64, integer=True, log=True))

    def candidate(self, values: Values, /) -> Toy:
        return Toy(int(values["layers"]), int(values["width"]))

    def encode(self, candidate: Toy, /) -> Values:
        return {"layers": candidate.layers, "width": candidate.width}


class ToyProblem(Problem[Toy]):
    """What a study of this kind searches."""

    space = ToySpace()
    baseline = BASELINE
    noun = "toy"

    def starts(self) -> Iterator[Start]:
        yield Start("small", {"layers": 3, "width": 16})

    def estimate(self, candidate: Toy) -> Measured | None:
        steps = {"steps": exact("steps", candidate.layers * candidate.width)}
        return steps if self.goals.budget.excess(steps) > 0.5 else None

    def evaluator(self) -> "ToyEvaluator":
        return ToyEvaluator(self.settings)


class ToyEvaluator:
    """Two rungs, the first of which tells the cost."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def climb(self, candidate: Toy, rivals: Mapping[int, Measured], hints: Mapping[str, Any]) -> Iterator[Evaluation]:
        del rivals, hints
        time.sleep(self._settings.seconds)
        steps = {"steps": exact("steps", candidate.layers * candidate.width)}
        if not candidate.is_baseline and self._settings.goals.budget.excess(steps) > 0:
            yield Evaluation(steps, "over budget")
            return
        if candidate.layers == 7:
            raise RuntimeError("seven layers fall over")
        yield Evaluation(steps, "going")
        time.sleep(self._settings.seconds)
        yield Evaluation({**steps, "score": self._score(candidate, 1.0)})

    def confirm(self, candidate: Toy) -> Measured:
        return {"steps": exact("steps", candidate.layers * candidate.width), "score": self._score(candidate, 0.2)}

    @staticmethod
    def _score(candidate: Toy, error: float) -> Measurement:
        score = 100 * (1 - 0.5**candidate.layers) * (1 - 0.9**candidate.width)
        return Measurement("score", score, score - error, score + error, 10)


register(Kind(ToySettings, lambda document: Toy(**document), lambda _: ToySpace(), "toy:ToyProblem"))


def main() -> None:
    """`vittle` with this kind, or the launch of a study."""
    from vittle.cli.commands import main as vittle
    from vittle.search.reporter import Reporter
    from vittle.search.study import run
    from vittle.storage.store import Store

    if sys.argv[1] != "launch":
        vittle()
        return
    _, _, name, url, trials = sys.argv
    settings = ToySettings(trials=int(trials), seconds=0.05, workers=2, until_flat=False)
    store = Store.open(url, create=True)
    run(store.create_study(name, settings), ToyProblem(settings), store, Reporter())
