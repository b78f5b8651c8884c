"""What a search was asked to do: what every kind of study is asked, and the rest of an inference study."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveInt, model_validator

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import Goals, inference_goals
from vittle.spaces.errors import VittleError
from vittle.spaces.table import adapter_files


def parse_image_size(given: Any) -> Any:
    """Read 192x320 (height x width) or 224 (both); what is no text is returned as it is.

    Raises:
        VittleError: a text that is neither.
    """
    if not isinstance(given, str):
        return given
    match = re.fullmatch(r"\s*([1-9]\d{0,4})(?:\s*[x×]\s*([1-9]\d{0,4}))?\s*", given)
    if match is None:
        raise VittleError(f"image size {given!r} is no size in pixels; accepted: 224, or 192x320 for height x width")
    return int(match[1]), int(match[2] or match[1])


ImageSize = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(parse_image_size)]
"""Height and width in pixels."""


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
    image_size: ImageSize | None = None  # the model's own where none is given
    data: str = "digits"
    latency_budget: str = "60%"
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
        return LatencyBudget.parse(self.latency_budget)

    @property
    def goals(self) -> Goals:
        return inference_goals(self.budget)

    @property
    def stand(self) -> dict[str, Any]:
        """Where latency is measured: the arguments of `vittle.objectives.evaluator.make_stand`."""
        return {name: getattr(self, name) for name in ("device", "batch_size", "dtype", "compiled")}
