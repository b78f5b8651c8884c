"""What a search was asked to do: what every kind of study is asked, and the rest of an inference study."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import INFERENCE_OBJECTIVES, TOLERANCE, Goals, inference_goals
from vittle.spaces.errors import VittleError
from vittle.spaces.inputs import parse_image_size
from vittle.spaces.machine import check_device, check_dtype
from vittle.spaces.table import adapter_files, check_adapters, check_reductions
from vittle.spaces.validation import Count, ShortName, first_mistake

SAMPLERS = ("auto", "tpe", "nsga2", "nsga3", "gp", "random")

AtLeastOne = Annotated[Count, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]
Place = Annotated[str, Field(min_length=1, max_length=4096)]  # a name or a path
Bytes = Annotated[int, Field(ge=0, le=2**60)]
ImageSize = Annotated[tuple[AtLeastOne, AtLeastOne], BeforeValidator(parse_image_size)]
"""Height and width in pixels."""


def check_sampler(kind: str) -> None:
    """Refuse a sampler that there is not.

    Raises:
        VittleError: an unknown kind.
    """
    if kind not in SAMPLERS:
        raise VittleError(f"unknown sampler {kind!r}; accepted: {', '.join(SAMPLERS)}")


class SearchSettings(BaseModel):
    """What a search of any kind was asked to do. Written once, when the study is made; a kind adds its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str] = ""
    """The name of the kind; none of these alone."""

    device: ShortName = "cpu"
    sampler: ShortName = "auto"
    trials: Count = 40
    time_limit: Seconds | None = None
    trial_time_limit: Seconds | None = None
    until_flat: bool = True  # end where the front grows no more
    workers: AtLeastOne = 1
    cpus_per_worker: AtLeastOne = 1
    gpus_per_worker: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The settings with these values.

        Raises:
            VittleError: what no search can be asked.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise VittleError(first_mistake(error)) from None

    @property
    def goals(self) -> Goals:
        """What the search is after."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _is_a_search(self) -> Self:
        check_device(self.device)
        check_sampler(self.sampler)
        return self


class Settings(SearchSettings):
    """Of an inference study: schedules of a frozen backbone."""

    kind: ClassVar[str] = "inference"

    model: Place = "digits"
    checkpoint: Place | None = None
    image_size: ImageSize | None = None  # the model's own where none is given
    data: Place = "digits"
    classes: Place | None = None  # file with the names of the head's classes, by which folders are labelled
    latency_budget: ShortName = "60%"
    tolerance: ShortName = TOLERANCE  # accuracy that speed is worth
    max_accuracy_drop: ShortName | None = None  # against the backbone; in place of the tolerance
    objectives: tuple[ShortName, ...] = INFERENCE_OBJECTIVES
    batch_size: AtLeastOne = 64
    dtype: ShortName = "float32"
    compiled: bool = False
    predict: bool = True  # latency, from a profile that is measured once
    target: ShortName | None = None  # key of the latency profile of another device, whose budget this is
    reductions: tuple[ShortName, ...] = ("merging",)
    adapters: dict[ShortName, Place] = {}  # files of trained weights, by reduction
    # The most images to bring through the model, counted in whole passes of the backbone.
    image_passes: Annotated[float, Field(gt=0)] | None = None
    cache: Bytes = 2 * 2**30  # of the backbone's activations to keep

    @model_validator(mode="before")
    @classmethod
    def _of_today(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        # Studies from before every block had a share of its own hold this setting of their curves.
        settings = {name: value for name, value in given.items() if name not in ("residuals", "adapter")}
        # Those from before there were several adapters have the file of a merge embedding, or None.
        return settings | ({"adapters": adapter_files(given["adapter"])} if given.get("adapter") else {})

    @model_validator(mode="after")
    def _is_an_inference_search(self) -> Self:
        _ = self.goals  # first, because a budget is wrong most often
        check_dtype(self.dtype)
        check_reductions(self.reductions)
        check_adapters(self.adapters, self.reductions)
        return self

    @property
    def budget(self) -> LatencyBudget:
        return LatencyBudget.parse(self.latency_budget, self.batch_size)

    @property
    def goals(self) -> Goals:
        return inference_goals(self.budget, self.tolerance, self.max_accuracy_drop, self.objectives)

    @property
    def stand(self) -> dict[str, Any]:
        """Where latency is measured: the arguments of `vittle.objectives.evaluator.make_stand`."""
        return {name: getattr(self, name) for name in ("device", "batch_size", "dtype", "compiled")}
