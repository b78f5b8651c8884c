"""What a schedule will cost before it is evaluated, and whether that is within the budget.

Where the backbone's latency profile predicts well, it says. Where it does not, or there is none, a schedule is ruled out only
where even the least latency for its MACs that was seen so far would put it well over the budget.
"""

from collections.abc import Mapping
from typing import Any

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.latency.provenance import hardware
from vittle.objectives.measurement import Measurement, exact
from vittle.spaces import costs
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space

HOPELESS = 1.1  # a schedule is not tried where even the best latency per MAC seen so far would put it this far over
SEEN = 5  # trials that have to be measured before their latency per MAC is believed; until then it is the backbone's


class CostEstimates:
    """The costs of one search.

    Args:
        space: of the search.
        budget: of the search.
        profile: the backbone's latency profile, where there is one.
        elsewhere: whether the profile is another device's, so that it is believed whatever is measured here.
    """

    def __init__(self, space: Space, budget: LatencyBudget, profile: LatencyProfile | None, *, elsewhere: bool) -> None:
        self.profile = profile
        self._space = space
        self._budget = budget
        self._elsewhere = elsewhere
        self._backbone_ms: float | None = None
        self._per_mac: list[float] = []

    @property
    def predicts(self) -> bool:
        """Whether latencies are predicted."""
        return self.profile is not None and (self.profile.trusted or self._elsewhere)

    @property
    def allowed(self) -> float:
        """The budget as a share of the backbone's latency, and no more than all of it, which is where a search begins."""
        return min(1.0, self._limit)

    @property
    def _limit(self) -> float:
        """The budget as a share of the backbone's latency; all of it while an absolute one cannot be compared yet."""
        if self._budget.relative:
            return self._budget.limit
        return 1.0 if self._backbone_ms is None else self._budget.limit / self._backbone_ms

    def predicted(self, schedule: Schedule) -> Mapping[str, Measurement] | None:
        """The latency of a schedule by the profile; None where it has to be measured, as the backbone's always is here."""
        if not self.predicts or not (schedule.reductions or self._elsewhere):
            return None
        assert self.profile is not None
        return self.profile.predict(schedule) if self.profile.knows(schedule) else None

    def share(self, schedule: Schedule) -> float:
        """The predicted latency as a share of the backbone's, or where it is not predicted the MACs."""
        predicted = self.predicted(schedule)
        return predicted["latency_ratio"].value if predicted else self._space.macs_share(schedule)

    def over(self, schedule: Schedule) -> Mapping[str, Measurement] | None:
        """What a schedule is estimated to cost, where that is over the budget for sure; None where it may be within."""
        counts = {"macs": costs.macs, "parameters": costs.parameters}
        counted = {name: exact(name, count(self._space.shape, schedule)) for name, count in counts.items()}
        predicted = self.predicted(schedule)
        if predicted is not None:
            over = predicted[self._budget.objective].low > self._budget.limit
            return {**counted, **predicted} if over else None
        ratio = self._space.macs_share(schedule) * self._latency_per_mac() / HOPELESS
        if ratio <= self._limit:
            return None
        estimate = {**counted, "latency_ratio": exact("latency_ratio", ratio)}
        backbone_ms = self._backbone_ms or (None if self._budget.relative else self._budget.limit)
        return estimate if backbone_ms is None else {**estimate, "latency_ms": exact("latency_ms", backbone_ms * ratio)}

    def note(self, schedule: Schedule, measured: Mapping[str, Measurement]) -> None:
        """Learn from what was measured."""
        if "latency_ms" not in measured:
            return
        protocol = measured["latency_ms"].protocol
        self._check_device(protocol)
        self._backbone_ms = protocol["backbone_ms"]
        if schedule.reductions:
            self._per_mac.append(measured["latency_ratio"].value / self._space.macs_share(schedule))

    def _latency_per_mac(self) -> float:
        """The least latency for its MACs that a trial took, as a multiple of the backbone's.

        Overhead makes this rise as schedules get cheaper, so the least seen is a bound that does not rule out too much.
        """
        return max(1.0, min(self._per_mac)) if len(self._per_mac) >= SEEN else 1.0

    def _check_device(self, protocol: Mapping[str, Any]) -> None:
        """Predict no more where workers turn out to run on another device than the one that the profile is of."""
        if self.profile is None or protocol.get("source") == "predicted" or "device" not in protocol:
            return
        if hardware(protocol) != hardware(self.profile.environment):
            self.profile = None
