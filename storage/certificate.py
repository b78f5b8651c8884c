"""What an exported file claims of a schedule's latency, and what became of the claim when it was measured again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.measurement import Measurement
from vittle.spaces.errors import VittleError
from vittle.spaces.schedule import Schedule

State = Literal["holds", "drifted", "other device"]
EXIT_CODES: Mapping[State, int] = {"holds": 0, "drifted": 1, "other device": 3}


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
            VittleError: no such file, or a file without a certificate.
        """
        schedule = Schedule.load(path)
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        try:
            backbone, certificate = document["backbone"], document["certificate"]
            latency = {}
            for name in ("latency_ms", "latency_ratio"):
                one = document["measurements"][name]
                low, high = one["interval"]
                latency[name] = Measurement(name, one["value"], low, high, one["n"], certificate["protocol"])
            return cls(
                schedule,
                LatencyBudget.parse(document["budget"], certificate["stand"]["batch_size"]),
                latency,
                certificate["stand"],
                certificate["environment"],
                backbone["model"],
                backbone["fingerprint"],
                backbone["checkpoint"],
            )
        except (KeyError, TypeError, ValueError):
            raise VittleError(f"{path} has no certificate to verify; export it again with: vittle export") from None

    @property
    def limit(self) -> float:
        """The most that it may take: the budget, or what it took, whichever is more."""
        return max(self.budget.limit, self.budget.limited(self.latency).high)

    def covers(self, measured: Mapping[str, Measurement]) -> bool:
        """Whether a measured latency is within the limit, up to the noise of measuring."""
        return self.budget.limited(measured).low <= self.limit


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
