"""What an exported file claims of a schedule's latency, and what became of the claim when it was measured again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.measurement import Measurement
from vittle.spaces.errors import VittleError
from vittle.spaces.machine import Dtype
from vittle.spaces.plain_yaml import read_yaml
from vittle.spaces.schedule import Schedule
from vittle.spaces.validation import Count, first_mistake
from vittle.storage.settings import ImageSize

State = Literal["holds", "drifted", "cannot tell", "other device"]
EXIT_CODES: Mapping[State, int] = {"holds": 0, "drifted": 1, "other device": 3, "cannot tell": 4}
SHARP = 0.02  # of the limit, by which the end of an interval may be over it: two careful measurements differ by as much
DOUBT = 0.5  # of the limit, by which a disturbed measurement has to be over it to say that a claim has drifted


class _Part(BaseModel):
    """Of an exported file; what it says besides is for people."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _Measured(_Part):
    value: float
    interval: list[float] = Field(min_length=2, max_length=2)
    n: Count


class _Measurements(_Part):
    latency_ms: _Measured
    latency_ratio: _Measured


class _Stand(_Part):
    model_config = ConfigDict(extra="forbid")

    device: str
    batch_size: Annotated[Count, Field(ge=1)]
    dtype: Dtype
    compiled: bool


class _Environment(_Part):
    model_config = ConfigDict(extra="allow")

    threads: Annotated[Count, Field(ge=1)] | None = None


class _Claimed(_Part):
    stand: _Stand
    environment: _Environment
    protocol: dict[str, Any]


class _Backbone(_Part):
    model: str
    fingerprint: str
    checkpoint: str | None
    image_size: ImageSize | None = None


class _Document(_Part):
    """What has to be in an exported file for its claim to be measured again."""

    budget: str
    backbone: _Backbone
    measurements: _Measurements
    certificate: _Claimed


@dataclass(frozen=True)
class Certificate:
    """What an exported file claims of a schedule's latency, and how to measure it again.

    Attributes:
        schedule: what is certified, with where its adapters lie.
        budget: what it was exported for.
        latency: `latency_ms` and `latency_ratio` as certified.
        stand: device, batch size, dtype and whether compiled.
        environment: where it was measured.
        model: the backbone's name.
        fingerprint: of its weights.
        checkpoint: where they lay.
        image_size: height and width of its images, where they were not its own.
    """

    schedule: Schedule
    budget: LatencyBudget
    latency: Mapping[str, Measurement]
    stand: Mapping[str, Any]
    environment: Mapping[str, Any]
    model: str
    fingerprint: str
    checkpoint: str | None
    image_size: tuple[int, int] | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `vittle export` writes.

        Raises:
            VittleError: no such file, or a file without a certificate, or one that says something else than an export does.
        """
        schedule = Schedule.load(path)
        try:
            document = _Document.model_validate(read_yaml(path, "give what vittle export writes"))
            claimed = {name: getattr(document.measurements, name) for name in _Measurements.model_fields}
            budget = LatencyBudget.parse(document.budget, document.certificate.stand.batch_size)
            protocol = document.certificate.protocol
            latency = {
                name: Measurement(name, one.value, one.interval[0], one.interval[1], one.n, protocol)
                for name, one in claimed.items()
            }
        except ValidationError as error:
            reason = first_mistake(error)
        except ValueError as error:
            reason = str(error)
        else:
            return cls(
                schedule,
                budget,
                latency,
                document.certificate.stand.model_dump(),
                document.certificate.environment.model_dump(exclude_unset=True),
                **document.backbone.model_dump(),
            )
        raise VittleError(f"{path} has no certificate to verify ({reason}); export it again with: vittle export")

    def check_adapters(self, given: Iterable[str]) -> None:
        """Refuse trained weights of reductions that need none here.

        Raises:
            VittleError: such a reduction.
        """
        needed = [part.name for part in self.schedule.reductions if part.adapter]
        for name in given:
            if name not in needed:
                raise VittleError(f"the schedule needs no adapter of {name}; accepted: {', '.join(needed) or 'none'}")

    @property
    def limit(self) -> float:
        """The most that it may take: the budget, or what it took, whichever is more."""
        return max(self.budget.limit, self.budget.limited(self.latency).high)

    def covers(self, measured: Mapping[str, Measurement]) -> bool | None:
        """Whether a measured latency is within the limit; None where the noise of measuring is too much to tell.

        It is where its whole interval is, but for `SHARP`. It is not where none of the interval is, and where something
        disturbed the measurement, that has to be by `DOUBT`.
        """
        one = self.budget.limited(measured)
        if one.high <= self.limit * (1 + SHARP):
            return True
        doubt = 0.0 if noise(measured) is None else DOUBT
        return None if one.low <= self.limit * (1 + doubt) else False


@dataclass(frozen=True)
class Verdict:
    """What became of a certificate on one machine.

    Attributes:
        state: `holds` where the latency is within the certificate's limit, `drifted` where it is not, `cannot tell` where the
            noise of measuring exceeds the claim; `other device` where the hardware is another, whatever the latency.
        certificate: what was certified.
        measured: as now, by objective.
        here: the environment as it is now.
        changed: what of the environment is another, as (name, then, now).
    """

    state: State
    certificate: Certificate
    measured: Mapping[str, Measurement]
    here: Mapping[str, Any]
    changed: tuple[tuple[str, Any, Any], ...]

    @property
    def within(self) -> bool | None:
        """Whether the latency measured here is within the limit, whatever the device; None where that cannot be told."""
        return self.certificate.covers(self.measured)

    @property
    def noisy(self) -> str | None:
        """What disturbed the measurement; None where nothing did."""
        return noise(self.measured)


def noise(measured: Mapping[str, Measurement]) -> str | None:
    """What disturbed a latency while it was measured; None where nothing did."""
    reason = measured["latency_ratio"].protocol.get("noisy")
    return None if reason is None else str(reason)
