"""What a watch knows of images that are as they should be: by mode and signal, their histogram and how far chance takes it.

It is a JSON file of its own, so that a service needs no images when it starts.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from vittle.spaces.errors import VittleError
from vittle.spaces.files import write_at_once
from vittle.spaces.validation import first_mistake

Mode = Literal["scheduled", "uniform"]
"""Whether the schedule runs as it is, or the mode that treats every patch alike."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class WatchedSignal(BaseModel):
    """One signal in one mode, on the calibration images.

    Attributes:
        name: the reduction, and the step of a recursion or the visit.
        values: m, of an image.
        edges: (k - 1,) of its bins, rising; the outer bins are open.
        counts: (k,) values in each bin.
        threshold: the Jensen-Shannon distance that an ordinary window does not exceed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    values: Positive
    edges: tuple[FiniteFloat, ...] = Field(min_length=1)
    counts: tuple[Annotated[int, Field(ge=0)], ...]
    threshold: Annotated[float, Field(gt=0, lt=float("inf"))]

    @model_validator(mode="after")
    def _rise(self) -> Self:
        if any(after <= before for before, after in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges do not rise")
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError("counts are not one more than edges")
        if not sum(self.counts):
            raise ValueError("counts are all 0")
        return self


class WatchedMode(BaseModel):
    """One mode on the calibration images.

    Attributes:
        schedule: that it runs, as a document.
        macs: of an image, without what is computed for the watch.
        watching_macs: of an image, what is computed for the watch besides.
        accuracy: the share of the images that are answered as labelled; None without labels.
        signals: that are watched, in the order in which the model tells them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedule: dict[str, Any]
    macs: Positive
    watching_macs: Annotated[int, Field(ge=0)]
    accuracy: Share | None
    signals: tuple[WatchedSignal, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if len({len(one.edges) for one in self.signals}) > 1:
            raise ValueError("signals have different numbers of edges")
        return self

    @property
    def counts(self) -> NDArray[np.int64]:
        """(s, k)."""
        return np.array([one.counts for one in self.signals])

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """(s,)."""
        return np.array([one.threshold for one in self.signals])


class Calibration(BaseModel):
    """What is known of both modes.

    Attributes:
        weights: a fingerprint of the model's, in full precision.
        images: that it was calibrated on.
        window: images whose histogram is compared.
        false_alarms: the share of windows of such images that exceed a threshold.
        agreement: the share of the images that both modes answer alike; None where the model gives no answers.
        modes: both.
    """

    FORMAT: ClassVar[str] = "vittle watch 1"

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vittle watch 1"] = "vittle watch 1"
    weights: str
    images: Positive
    window: Positive
    false_alarms: Annotated[float, Field(gt=0, lt=1)]
    agreement: Share | None
    modes: Mapping[Mode, WatchedMode]

    @model_validator(mode="after")
    def _both(self) -> Self:
        if len(self.modes) != 2:
            raise ValueError("modes lacks one of scheduled, uniform")
        return self

    def save(self, path: str | Path) -> None:
        """Write it as JSON, all at once.

        Raises:
            VittleError: the file cannot be written.
        """
        write_at_once(Path(path), (self.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` has written.

        Raises:
            VittleError: no such file, or none of these.
        """
        accepted = "accepted: what the calibration of a watch saves"
        try:
            return cls.model_validate(json.loads(Path(path).read_bytes()))
        except FileNotFoundError:
            raise VittleError(f"no calibration of a watch at {path}; {accepted}") from None
        except OSError as error:
            raise VittleError(f"cannot read {path}: {error.strerror}; {accepted}") from None
        except ValidationError as error:
            raise VittleError(f"{path} is no calibration of a watch ({first_mistake(error)}); {accepted}") from None
        except ValueError:
            raise VittleError(f"{path} is no calibration of a watch (it is no JSON); {accepted}") from None
