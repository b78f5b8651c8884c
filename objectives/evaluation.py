"""What an evaluator has found out of a candidate so far, and what is to become of it. Starts without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vittle.objectives.measurement import Measurement

Verdict = Literal["going", "complete", "over budget", "beaten", "failed"]
"""How far an evaluation is. Only `going` goes on."""


@dataclass(frozen=True)
class Evaluation:
    """What is known of a candidate. The verdict is said, never implied by what is missing; a failure is a reason, not a number.

    Attributes:
        measurements: by objective.
        verdict: how far the evaluation is.
        reason: why it failed.
        rival: the number of the trial that beats it.

    Raises:
        ValueError: failed without a reason, or beaten by nobody.
    """

    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    verdict: Verdict = "complete"
    reason: str | None = None
    rival: int | None = None

    def __post_init__(self) -> None:
        if (self.verdict == "failed") != (self.reason is not None) or (self.verdict == "beaten") != (self.rival is not None):
            raise ValueError(f"an evaluation that is {self.verdict} has reason {self.reason!r} and rival {self.rival!r}")

    @property
    def ended(self) -> bool:
        return self.verdict != "going"


def failed(reason: str) -> Evaluation:
    """An evaluation that failed, and why."""
    return Evaluation(verdict="failed", reason=reason)
