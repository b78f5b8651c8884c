"""Schedules of a frozen backbone as a problem: which are worth trying, by what is known of the backbone. It runs no model.

Where the backbone's latency profile predicts well, a proposal that it puts over the budget is never evaluated, token counts are
raised to what costs the device no more, and a trial's latency is measured only where the trial enters the front. Where it does
not, or there is none, every trial is measured, and only what is hopeless by its MACs is ruled out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vittle.objectives.backbones.merge_start import MergeStart
from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.goals import Measured
from vittle.objectives.latency.profile import LatencyProfile
from vittle.search.cost_estimates import CostEstimates
from vittle.search.problem import Problem
from vittle.search.starts import starts
from vittle.spaces import costs
from vittle.spaces.reduction import Start
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space
from vittle.storage.records import BackboneRecord
from vittle.storage.settings import Settings

SHARE_SEEN = 0.3  # of a pass over all images, that a typical trial takes: it starts late, merges, and stops early


@dataclass(frozen=True)
class Knowledge:
    """What is known of a backbone before a search begins.

    Attributes:
        profile: its latency.
        sensitivity: what reducing each of its blocks alone loses.
        merge_start: where merging may start.
        image_macs: what finding that out has cost.
        pass_seconds: that a worker takes for all search images; 0 where nobody knows.
    """

    profile: LatencyProfile | None = None
    sensitivity: Sensitivity | None = None
    merge_start: MergeStart | None = None
    image_macs: int = 0
    pass_seconds: float = 0.0


class ScheduleProblem(Problem[Schedule]):
    """Which schedules to propose; who evaluates them is left to a subclass.

    Args:
        settings: of the study.
        subject: the backbone.
        known: of the backbone.
    """

    baseline_origin: ClassVar[str] = "backbone"
    noun: ClassVar[str] = "schedule"
    settings: Settings

    def __init__(self, settings: Settings, subject: BackboneRecord, known: Knowledge = Knowledge()) -> None:
        super().__init__(settings)
        self.baseline = Schedule()
        self.subject = subject
        self._backbone = subject
        self.know(known)

    def know(self, known: Knowledge) -> None:
        """Go on with what is known now."""
        self.known = known
        self.work_before = known.image_macs
        self.trial_seconds = SHARE_SEEN * known.pass_seconds
        profile, settings = known.profile, self.settings
        self.space = self._space = Space(
            self._backbone.shape,
            settings.reductions,
            start=known.merge_start.start if known.merge_start else None,
            adapters=self._backbone.adapters,
            free=profile.free if profile is not None and profile.trusted else (),
        )
        self._costs = CostEstimates(self._space, settings.budget, profile, elsewhere=settings.target is not None)

    @property
    def profile(self) -> LatencyProfile | None:
        """The latency profile that is predicted by."""
        return self._costs.profile

    def starts(self) -> Iterable[Start]:
        cost = self._costs
        profile, sensitivity = cost.profile if cost.predicts else None, self.known.sensitivity
        return starts(self._space, allowed=cost.allowed, cost=cost.share, profile=profile, sensitivity=sensitivity)

    def estimate(self, candidate: Schedule) -> Measured | None:
        return self._costs.over(candidate)

    def hints(self, candidate: Schedule) -> Mapping[str, Any]:
        """`profile`, the key of the latency profile, and `predicted`, the latency where that can be believed; or None."""
        key = None if self.profile is None else self.profile.key
        return {"profile": key, "predicted": self._costs.predicted(candidate)}

    def note(self, candidate: Schedule, measured: Measured) -> None:
        self._costs.note(candidate, measured)

    def work(self, measured: Measured) -> float:
        """MACs of everything that images went through."""
        macs: float = measured["accuracy"].protocol.get("image_macs", 0) if "accuracy" in measured else 0
        return macs

    def exhausted(self, work: float) -> str | None:
        most = self.settings.image_passes
        if most is None or work / costs.macs(self._backbone.shape, Schedule()) < most:
            return None
        return f"{most:g} image passes are spent"

    def group(self, candidate: Schedule) -> str:
        return f"schedules with {_reductions(candidate)}"

    def advice(self, candidate: Schedule, reason: str) -> str:
        if "OutOfMemory" in reason or "MemoryError" in reason:
            return "a smaller --batch-size or --cache leaves more memory"
        if reason.startswith("over its time limit") or "died" in reason:
            return super().advice(candidate, reason)
        return f"leave {_reductions(candidate)} out of --reductions, or report it with this model's name"


def _reductions(schedule: Schedule) -> str:
    return ",".join(dict.fromkeys(part.name for part in schedule.reductions))
