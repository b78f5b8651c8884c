"""What an exported file claims of a schedule's latency, and what became of the claim when it was measured again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.measurement import Measurement
from vittle.spaces.errors import VittleError
from vittle.spaces.plain_yaml import read_yaml
from vittle.spaces.schedule import Schedule
from vittle.spaces.validation import Count, first_mistake
from vittle.storage.settings import Dtype

State = Literal["holds", "drifted", "other device"]
EXIT_CODES: Mapping[State, int] = {"holds": 0, "drifted": 1, "other device": 3}


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


class _Document(_Part):
    """What has to be in an exported file for its claim to be measured again."""

    budget: str
    backbone: _Backbone
    measurements: _Measurements
    certificate: _Claimed

    _is_one = field_validator("budget")(lambda text: str(LatencyBudget.parse(text)))


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
    """

    schedule: Schedule
    budget: LatencyBudget
    latency: Mapping[str, Measurement]
    stand: Mapping[str, Any]
    environment: Mapping[str, Any]
    model: str
    fingerprint: str
    checkpoint: str | None

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
                LatencyBudget.parse(document.budget),
                latency,
                document.certificate.stand.model_dump(),
                document.certificate.environment.model_dump(exclude_unset=True),
                **document.backbone.model_dump(),
            )
        raise VittleError(f"{path} has no certificate to verify ({reason}); export it again with: vittle export")

    @property
    def limit(self) -> float:
        """The most that it may take: the budget, or what it took, whichever is more."""
        return max(self.budget.limit, self.latency[self.budget.objective].high)

    def covers(self, measured: Mapping[str, Measurement]) -> bool:
        """Whether a measured latency is within the limit, up to the noise of measuring."""
        return measured[self.budget.objective].low <= self.limit


@dataclass(frozen=True)
class Verdict:
    """What became of a certificate on one machine.

    Attributes:
        state: `holds` where the latency is within the certificate's limit up to the noise of measuring, else `drifted`;
            `other device` where the hardware is another, whatever the latency.
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
    def within(self) -> bool:
        """Whether the latency measured here is within the limit, whatever the device."""
        return self.certificate.covers(self.measured)

    @property
    def noisy(self) -> str | None:
        """What disturbed the measurement; None where nothing did."""
        reason = self.measured["latency_ratio"].protocol.get("noisy")
        return None if reason is None else str(reason)
