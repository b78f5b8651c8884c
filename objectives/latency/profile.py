"""The latency staircase of one backbone on one device, and what it predicts for a schedule. Starts without torch.

Every time is a share of the backbone's in its fastest form, measured in turn with it. The latency of a schedule is

    embed + head + sum over visits of  attention(keys) + mlp(tokens)  +  sum over what acts of  base + a * tokens + b * removed

and, because a whole model is not quite the sum of its parts, each of the two sums and a constant are scaled by what whole
models under random schedules took. How wrong that is, is measured on schedules that it was not fitted to, and where it is more
wrong than `TRUSTED` allows it is not used: everything is measured then.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np

from vittle.objectives.measurement import Measurement
from vittle.spaces import costs
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.validation import read_as
from vittle.spaces.work import Act, BlockWork

PLAIN, WEIGHTED, LAST, MLP = "attention", "weighted attention", "last attention", "mlp"
PARTS = {
    PLAIN: "attention half of a block, by tokens that enter",
    WEIGHTED: "the same, attending to each token in proportion to the patches in it",
    LAST: "attention half of a last block that asks for the prefix tokens alone",
    MLP: "MLP half of a block, by tokens that enter it",
}
FREE = 0.15  # a token that costs less than this share of the average token's cost there counts as free
PULL = 0.05  # how strongly the correction is drawn to none, as the relative error that it would accept to stay there

LEAST = 0.001  # of the backbone's time: what is fitted to noise may say less, even less than none


class Trust(NamedTuple):
    """The most that predictions may be wrong to be used."""

    mape: float
    spearman: float


TRUSTED = Trust(mape=0.1, spearman=0.9)


@dataclass(frozen=True)
class Staircase:
    """The time of one of `PARTS` over token counts, as shares of the backbone's.

    Attributes:
        counts: what was measured, rising.
        low: lower ends of the 95 % intervals.
        high: upper ends.
        fitted: the nearest times that never fall.
    """

    counts: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    fitted: tuple[float, ...]

    def __post_init__(self) -> None:
        if list(self.counts) != sorted(set(self.counts)) or list(self.fitted) != sorted(self.fitted):
            raise ValueError(f"a staircase rises: counts {self.counts}, times {self.fitted}")

    def at(self, tokens: int) -> float:
        """The time at any count, on a straight line between measured ones."""
        return float(np.interp(tokens, self.counts, self.fitted))


@dataclass(frozen=True, slots=True)
class ActingCost:
    """What one variant of a reduction takes in a visit, as a share of the backbone's time.

        base + per_token * tokens that enter + per_removed * tokens removed + per_pair * pairs of a query and a key

    Of what acts in place of the attention's core it is the whole attention half, and pairs count; of all else it is what comes
    on top, and they do not.
    """

    base: float
    per_token: float
    per_removed: float
    per_pair: float = 0.0

    def of(self, row: BlockWork, act: Act) -> float:
        """What an act takes."""
        return (
            self.base
            + self.per_token * act.entering
            + self.per_removed * (act.entering - act.leaving)
            + self.per_pair * row.pairs
        )


@dataclass(frozen=True, slots=True)
class Correction:
    """Scales of the two sums, and a constant."""

    blocks: float = 1.0
    acting: float = 1.0
    constant: float = 0.0

    def apply(self, sums: "Sums") -> float:
        return max(LEAST, self.blocks * sums.blocks + self.acting * sums.acting + self.constant)


class Sums(NamedTuple):
    """The uncorrected parts of a schedule's latency: whatever the backbone has too, and what its reductions take."""

    blocks: float
    acting: float


@dataclass(frozen=True, slots=True)
class Check:
    """A whole model under a schedule: its latency as measured, and as predicted by a correction that did not know it."""

    schedule: str
    macs: float
    measured: float
    low: float
    high: float
    predicted: float


@dataclass(frozen=True)
class LatencyProfile:
    """What is known of the time that one backbone takes on one device.

    Attributes:
        key: of shape, environment and protocol; equal keys are the same measurement.
        model: the name that the backbone was called by.
        shape: the backbone's.
        environment: where it was measured.
        protocol: batch size, dtype, whether compiled.
        backbone_ms: the backbone's fastest form.
        forms_ms: every form of it.
        embed: patch embedding and head.
        parts: a staircase for each of `PARTS` that the backbone has.
        acting: by variant of a reduction.
        correction: fitted on whole models.
        checks: those whole models.
        launch_bound: whether the device waits for the host in most whole models.
        noisy: what disturbed the measurement; None where nothing did.
        seconds: how long it took.
        measured_at: when, ISO 8601 in UTC.
    """

    key: str
    model: str
    shape: BackboneShape
    environment: Mapping[str, Any]
    protocol: Mapping[str, Any]
    backbone_ms: float
    forms_ms: Mapping[str, float]
    embed: float
    parts: Mapping[str, Staircase]
    acting: Mapping[str, ActingCost]
    correction: Correction = field(default_factory=Correction)
    checks: tuple[Check, ...] = ()
    launch_bound: bool = False
    noisy: str | None = None
    seconds: float = 0.0
    measured_at: str = ""

    @property
    def mape(self) -> float:
        """Mean absolute percentage error of the checks, as a share."""
        return float(np.mean([abs(one.predicted / one.measured - 1) for one in self.checks])) if self.checks else np.inf

    @property
    def spearman(self) -> float:
        """Rank correlation of predicted and measured latencies of the checks; 0 where it is not defined."""
        return spearman([one.predicted for one in self.checks], [one.measured for one in self.checks])

    @property
    def trusted(self) -> bool:
        """Whether predictions are good enough to stand in for measurements."""
        return self.mape <= TRUSTED.mape and self.spearman >= TRUSTED.spearman

    @cached_property
    def margin(self) -> float:
        """How far off a prediction is with 95 % confidence, as a share of it, from the checks."""
        errors = [abs(one.predicted / one.measured - 1) for one in self.checks]
        return float(np.quantile(errors, 0.95)) if errors else np.inf

    def knows(self, schedule: Schedule) -> bool:
        """Whether everything that acts in the schedule was measured."""
        return self._variants(schedule) <= self.acting.keys()

    def ratio(self, schedule: Schedule) -> float:
        """The predicted latency as a share of the backbone's.

        Raises:
            KeyError: something acts that was not measured; see `knows`.
            ScheduleError: the schedule does not fit the backbone.
        """
        return self.correction.apply(self.sums(schedule))

    def predict(self, schedule: Schedule) -> dict[str, Measurement]:
        """`latency_ratio`, `latency_ms` and `throughput` with the margin of prediction as their interval."""
        ratio = self.ratio(schedule)
        about = {
            "source": "predicted",
            "profile": self.key,
            "mape": self.mape,
            **self.environment,
            **self.protocol,
            "backbone_ms": self.backbone_ms,
        }
        images = 1000 * self.protocol["batch_size"] / self.backbone_ms
        values = {"latency_ratio": ratio, "latency_ms": ratio * self.backbone_ms, "throughput": images / ratio}
        below, above = 1 / (1 + self.margin), 1 + self.margin
        return {
            name: Measurement(name, value, value * below, value * above, len(self.checks), about)
            for name, value in values.items()
        }

    def sums(self, schedule: Schedule) -> Sums:
        """The parts of a schedule's latency before correction."""
        shape = self.shape
        blocks, acting = self.embed, 0.0
        for row in costs.work(shape, schedule):
            last = row.queries < row.keys
            part = LAST if last else WEIGHTED if row.in_proportion else PLAIN
            attention = self.parts[part].at(row.keys)
            replaced = [self.acting[act.variant].of(row, act) for act in row.at("attention")]
            blocks += (sum(replaced) if replaced else attention) + self.parts[MLP].at(row.mlp)
            besides = sum(act.macs for act in row.at("tokens"))  # made together with queries, keys and values
            if besides:
                acting += attention * besides / shape.block_macs(queries=row.queries, keys=row.keys, mlp=0)
            acting += sum(self.acting[act.variant].of(row, act) for act in row.acts if act.place != "attention")
        return Sums(blocks, acting)

    def _variants(self, schedule: Schedule) -> set[str]:
        """The variants of all that acts in a schedule."""
        return {act.variant for row in costs.work(self.shape, schedule) for act in row.acts}

    @cached_property
    def block(self) -> Staircase:
        """A whole dense block over its tokens."""
        attention, mlp = self.parts[PLAIN], self.parts[MLP]
        at = [mlp.counts.index(count) for count in attention.counts]  # the MLP was also timed with the prefix tokens alone
        rows = (
            tuple(ours + theirs[place] for ours, place in zip(row, at, strict=True))
            for row, theirs in ((attention.low, mlp.low), (attention.high, mlp.high), (attention.fitted, mlp.fitted))
        )
        return Staircase(attention.counts, *rows)

    @cached_property
    def free(self) -> tuple[int, ...]:
        """For each token count from 0 on, the most tokens that take a block no longer: the upper edge of its step."""
        found = list(range(self.shape.tokens + 1))
        for low, high in self.flats:
            for count in range(low, high + 1):
                found[count] = high
        return tuple(found)

    @cached_property
    def flats(self) -> tuple[tuple[int, int], ...]:
        """The stretches (first, last) of token counts over which a block's time hardly rises, apart from each other.

        Hardly: by less than `FREE` of what as many tokens cost on average.
        """
        steps = self.block
        slope = (steps.fitted[-1] - steps.fitted[0]) / max(1, steps.counts[-1] - steps.counts[0])
        flat: list[tuple[int, int]] = []
        for (low, before), (high, after) in itertools.pairwise(zip(steps.counts, steps.fitted, strict=True)):
            if after - before < FREE * slope * (high - low):
                if flat and flat[-1][1] == low:
                    flat[-1] = (flat[-1][0], high)
                else:
                    flat.append((low, high))
        return tuple(flat)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_dict` writes.

        Raises:
            ValueError: something else.
        """
        return read_as(cls, {"forms_ms" if name == "rivals_ms" else name: value for name, value in document.items()})


def fit(sums: Sequence[Sums], measured: Sequence[float]) -> Correction:
    """The correction with the least relative squared error, drawn a little to none at all."""
    if not sums:
        return Correction()
    rows = np.array([[one.blocks, one.acting, 1.0] for one in sums]) / np.array(measured)[:, None]
    wanted = np.ones(len(rows))
    neutral = np.array([1.0, 1.0, 0.0])
    size = np.sqrt((rows**2).mean(0)) * PULL
    size[size == 0] = 1.0  # nothing speaks for or against this scale
    scales = np.linalg.lstsq(np.vstack([rows, np.diag(size)]), np.concatenate([wanted, size * neutral]), rcond=None)[0]
    return Correction(*map(float, scales))


def left_out(sums: Sequence[Sums], measured: Sequence[float]) -> list[float]:
    """For each whole model what a correction predicts that was fitted to all the others."""
    predicted = []
    for index, one in enumerate(sums):
        others = [other for other in range(len(sums)) if other != index]
        correction = fit([sums[other] for other in others], [measured[other] for other in others])
        predicted.append(correction.apply(one))
    return predicted


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation; 0 where it is not defined."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    from scipy import stats  # here, because it takes long to import, and what is only shown needs none of it

    correlation: Any = stats.spearmanr(first, second)
    return float(correlation.statistic)
