"""What a search was asked to do: what every kind of study is asked, and the rest of an inference study."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import Goals, inference_goals
from vittle.spaces.errors import VittleError
from vittle.spaces.table import REDUCTIONS, adapter_files
from vittle.spaces.validation import Count, ShortName, first_mistake, shortened

Dtype = Literal["float32", "bfloat16", "float16"]
AtLeastOne = Annotated[Count, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]
Place = Annotated[str, Field(min_length=1, max_length=4096)]  # a name or a path
Bytes = Annotated[int, Field(ge=0, le=2**60)]


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


class Settings(SearchSettings):
    """Of an inference study: schedules of a frozen backbone."""

    kind: ClassVar[str] = "inference"

    model: Place = "digits"
    checkpoint: Place | None = None
    data: Place = "digits"
    latency_budget: ShortName = "60%"
    batch_size: AtLeastOne = 64
    dtype: ShortName = "float32"
    compiled: bool = False
    predict: bool = True  # latency, from a profile that is measured once
    target: ShortName | None = None  # key of the latency profile of another device, whose budget this is
    reductions: Annotated[tuple[str, ...], Field(min_length=1)] = ("merging",)
    adapters: dict[str, Place] = {}  # files of trained weights, by reduction
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

    @field_validator("latency_budget")
    @classmethod
    def _is_a_budget(cls, given: str) -> str:
        LatencyBudget.parse(given)
        return given

    @field_validator("dtype")
    @classmethod
    def _is_a_dtype(cls, given: str) -> str:
        if given not in get_args(Dtype):
            raise ValueError(f"unknown dtype {given!r}; accepted: {', '.join(get_args(Dtype))}")
        return given

    @field_validator("reductions")
    @classmethod
    def _are_known(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(given) - REDUCTIONS.keys())
        if unknown:
            raise ValueError(f"unknown reduction {shortened(unknown[0])!r}; accepted: {', '.join(REDUCTIONS)}")
        return given

    @field_validator("adapters")
    @classmethod
    def _have_adapters(cls, given: dict[str, str]) -> dict[str, str]:
        known = [name for name, entry in REDUCTIONS.items() if entry.adapter is not None]
        unknown = sorted(given.keys() - set(known))
        if unknown:
            raise ValueError(f"no reduction {shortened(unknown[0])!r} has an adapter; accepted: {', '.join(known)}")
        return given

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
