"""What a search was asked to do: what every kind of study is asked, and the rest of an inference study."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import TOLERANCE, Goals, inference_goals
from vittle.spaces.table import adapter_files


class SearchSettings(BaseModel):
    """What a search of any kind was asked to do. Written once, when the study is made; a kind adds its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str] = ""
    """The name of the kind; none of these alone."""

    device: str = "cpu"
    sampler: str = "auto"
    trials: int = 40
    time_limit: float | None = None
    trial_time_limit: float | None = None
    until_flat: bool = True  # end where the front grows no more
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0
    seed: int = 0

    @property
    def goals(self) -> Goals:
        """What the search is after."""
        raise NotImplementedError


class Settings(SearchSettings):
    """Of an inference study: schedules of a frozen backbone."""

    kind: ClassVar[str] = "inference"

    model: str = "digits"
    checkpoint: str | None = None
    data: str = "digits"
    latency_budget: str = "60%"
    tolerance: str = TOLERANCE  # accuracy that speed is worth
    max_accuracy_drop: str | None = None  # against the backbone; in place of the tolerance
    batch_size: int = 64
    dtype: str = "float32"
    compiled: bool = False
    predict: bool = True  # latency, from a profile that is measured once
    target: str | None = None  # key of the latency profile of another device, whose budget this is
    reductions: tuple[str, ...] = ("merging",)
    adapters: dict[str, str] = {}  # files of trained weights, by reduction
    image_passes: float | None = None  # the most images to bring through the model, counted in whole passes of the backbone
    cache: int = 2 * 2**30  # bytes of the backbone's activations to keep

    @model_validator(mode="before")
    @classmethod
    def _of_today(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        # Studies from before every block had a share of its own hold this setting of their curves.
        settings = {name: value for name, value in given.items() if name not in ("residuals", "adapter")}
        # Those from before there were several adapters have the file of a merge embedding, or None.
        return settings | ({"adapters": adapter_files(given["adapter"])} if given.get("adapter") else {})

    @property
    def budget(self) -> LatencyBudget:
        return LatencyBudget.parse(self.latency_budget, self.batch_size)

    @property
    def goals(self) -> Goals:
        return inference_goals(self.budget, self.tolerance, self.max_accuracy_drop)

    @property
    def stand(self) -> dict[str, Any]:
        """Where latency is measured: the arguments of `vittle.objectives.evaluator.make_stand`."""
        return {name: getattr(self, name) for name in ("device", "batch_size", "dtype", "compiled")}
