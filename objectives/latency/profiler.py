"""Measuring a latency profile: parts of the backbone over token counts, what reductions take, and whole models to check with.

Parts are timed over all blocks in a chain, so that weights come from memory as they do in a whole model. Everything is timed in
turn with the backbone's fastest form and kept as a share of it, so that drift cancels. How much is measured follows from how
long the backbone takes: see `PLANS`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.optimize import nnls
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from vittle.objectives.latency.clock import Call
from vittle.objectives.latency.environment import environment
from vittle.objectives.latency.profile import (
    LAST,
    MLP,
    PLAIN,
    WEIGHTED,
    ActingCost,
    Check,
    Correction,
    LatencyProfile,
    Staircase,
    fit,
    left_out,
)
from vittle.objectives.latency.provenance import fingerprint, identity
from vittle.objectives.latency.stand import Stand
from vittle.objectives.latency.turns import SAMPLE_MS, Floats, Turns, take_turns
from vittle.objectives.quality.images import Progress
from vittle.reductions.backbone import Backbone
from vittle.reductions.tokens import Tokens
from vittle.reductions.vit import ReducedViT, classify, pass_attention, pass_mlp, weighted_form
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space, fitting

T = TypeVar("T")
VERSION = 1  # of this protocol: a profile that was measured otherwise is not found again
LATE = 1.5  # times as long as it should take
SECONDS = 120.0  # that a profile should take, as far as the smallest plan allows
DRAWN = 160  # random schedules out of which whole models, and sites for every variant, are chosen
CHEAP = (0.2, 0.3, 0.4, 0.5)  # MACs of further schedules, as shares of the backbone's
VARIANTS = 17  # of reductions, about
SITES = 6  # where each variant is timed
TOGETHER = 3  # whole models in one round
OPERATORS_TOGETHER = 8
TimingSite = tuple[
    str, Schedule, int, int
]  # a variant, a schedule that has it, the block, and its position among what acts there


@dataclass(frozen=True, slots=True)
class MeasuringPlan:
    """How much to measure: token counts, rounds of everything, and whole models."""

    counts: int
    rounds: int
    models: int

    def seconds(self, backbone_ms: float) -> float:
        """About how long it takes, where the backbone takes `backbone_ms`."""

        def sample(share: float) -> float:
            return max(SAMPLE_MS, share * backbone_ms) / 1000

        # The four parts at half the tokens take a backbone together, a model under a schedule two thirds of one.
        parts = self.counts * (4 * (self.rounds + 2) * sample(0.25) + (self.rounds + 1) * sample(1))
        acting = VARIANTS * SITES * (self.rounds + 3) * sample(0.02)
        whole = self.models * ((self.rounds + 2) * sample(0.65) + (self.rounds + 1) * sample(1) / TOGETHER)
        return parts + acting + whole


COMPILED = MeasuringPlan(6, 5, 9)  # compiling takes longer than running
PLANS = (
    MeasuringPlan(25, 7, 24),
    MeasuringPlan(17, 5, 24),
    MeasuringPlan(13, 3, 18),
    MeasuringPlan(10, 3, 15),
    MeasuringPlan(8, 2, 12),
    MeasuringPlan(6, 1, 9),
)


class Profiler:
    """Measures the profile of one backbone at a stand.

    Args:
        backbone: its model is the stand's.
        stand: device, batch and rival.
        seconds: how long it may take; `SECONDS` where nothing is said.
        seed: of the random schedules.
        progress: told (done, total).
    """

    def __init__(
        self, backbone: Backbone, stand: Stand, *, seconds: float | None = None, seed: int = 0, progress: Progress | None = None
    ) -> None:
        self.backbone = backbone
        self.shape = backbone.shape
        self.stand = stand
        self.seconds = SECONDS if seconds is None else seconds
        self.progress = progress or (lambda _done, _total: None)
        self.space = Space(self.shape, fitting(self.shape))
        self.schedules = _drawn(self.space, np.random.default_rng(seed))
        self.disturbed: list[str] = []
        self.begun = 0.0
        self.done = 0

    def measure(self) -> LatencyProfile:
        """Measure everything.

        Raises:
            VittleError: the model cannot be compiled here.
        """
        self.begun = time.monotonic()
        baseline = self.stand.baseline
        self.plan = COMPILED if self.stand.compiled else _affordable(self.seconds, baseline.times_ms[baseline.form])
        sites = self._sites()
        self.total = self.plan.counts + -(-len(sites) // OPERATORS_TOGETHER) + -(-self.plan.models // TOGETHER)
        base = ReducedViT(self.stand.model, Schedule())
        embed, parts = self._parts(base)
        bare = LatencyProfile(
            key=key(self.backbone, self.stand),
            model=self.backbone.name,
            shape=self.shape,
            environment=environment(self.stand.device),
            protocol=self.stand.protocol(),
            backbone_ms=baseline.times_ms[baseline.form],
            forms_ms={**baseline.times_ms},
            embed=embed,
            parts=parts,
            acting=self._acting(base, parts[MLP], sites),
        )
        correction, checks, backbone_ms, launch_bound = self._whole(bare)
        found = {
            "correction": correction,
            "checks": checks,
            "backbone_ms": backbone_ms,
            "launch_bound": launch_bound,
            "noisy": self.disturbed[-1] if self.disturbed else None,
            "seconds": time.monotonic() - self.begun,
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return LatencyProfile(**{**bare.__dict__, **found})

    def _turns(self, calls: Sequence[Call], reference: Call | None = None) -> Turns:
        # On a busy machine everything takes longer than planned: then each of the rest has a single round.
        late = time.monotonic() - self.begun > LATE * self.seconds
        rounds = 1 if late else self.plan.rounds
        turns = take_turns(reference or self.stand.run_baseline, calls, self.stand.device, rounds=rounds)
        if turns.noise is not None:
            self.disturbed.append(turns.noise)
        self.done += 1
        self.progress(min(self.done, self.total), self.total)
        return turns

    def _parts(self, base: ReducedViT) -> tuple[float, dict[str, Staircase]]:
        """The share of embedding and head, and the staircase of every part."""
        names = [PLAIN, WEIGHTED, MLP, *([LAST] if self.shape.reads_prefix_only else [])]
        rows: dict[str, list[tuple[int, Floats]]] = {name: [] for name in names}
        depth = self.shape.depth
        counts = _counts(self.shape.prefix + 1, self.shape.tokens, self.plan.counts)
        ends = _ends(base, self.stand.images)
        shares = self._turns([ends, *(_chain(base, name, self.shape.tokens, self.stand) for name in names)]).ratios
        embed = float(np.median(shares[:, 0]))
        for index, name in enumerate(names, start=1):
            rows[name].append((self.shape.tokens, shares[:, index] / depth))
        for count in counts[:-1]:
            shares = self._turns([_chain(base, name, count, self.stand) for name in names]).ratios / depth
            for index, name in enumerate(names):
                rows[name].append((count, shares[:, index]))
        if self.shape.reads_prefix_only:  # its MLP sees the prefix tokens alone
            shares = self._turns([_chain(base, MLP, self.shape.prefix, self.stand)]).ratios / depth
            rows[MLP].append((self.shape.prefix, shares[:, 0]))
        return embed, {name: _staircase(measured) for name, measured in rows.items()}

    def _sites(self) -> list[TimingSite]:
        """Where to time what acts: a few sites for each variant, over all sizes."""
        found: dict[str, list[tuple[int, Schedule, int, int]]] = {}
        for schedule in self.schedules:
            reduced = ReducedViT(self.stand.model, schedule, form="mask")
            settings = {part.name: part for part in schedule.reductions}
            for index, block in enumerate(reduced.plan):
                entering = block.keys
                for position, (name, left) in enumerate(block.steps):
                    variant = settings[name].variant(self.shape, index)
                    found.setdefault(variant, []).append((entering * 1000 + left, schedule, index, position))
                    entering = left
        chosen: list[TimingSite] = []
        for variant, there in sorted(found.items()):
            there.sort(key=lambda site: site[0])
            places = np.unique(np.linspace(0, len(there) - 1, SITES).round().astype(int))
            chosen += [(variant, *there[place][1:]) for place in places]
        return chosen

    def _acting(self, base: ReducedViT, mlp: Staircase, sites: Sequence[TimingSite]) -> dict[str, ActingCost]:
        rows: dict[str, list[tuple[int, int, float]]] = {}
        count = self.shape.prefix + self.shape.patches // 4
        yardstick = _chain(base, MLP, count, self.stand)  # quicker than the backbone, and of a share that is known
        known = self.shape.depth * mlp.at(count)
        for some in _groups(sites, OPERATORS_TOGETHER):
            prepared = [_acting_call(self.stand, *site[1:]) for site in some]
            turns = self._turns([call for call, _, _ in prepared], yardstick)
            shares = known * np.median(turns.ratios, 0)
            for (variant, *_), (_, tokens, left), share in zip(some, prepared, shares, strict=True):
                rows.setdefault(variant, []).append((tokens, left, float(share)))
        return {variant: _cost(measured) for variant, measured in rows.items()}

    def _whole(self, bare: LatencyProfile) -> tuple[Correction, tuple[Check, ...], float, bool]:
        """Time whole models, fit the correction, check it; the backbone's time, and whether the device waits for the host."""
        chosen = _spread(self.schedules, [bare.ratio(schedule) for schedule in self.schedules], self.plan.models)
        measured: list[tuple[float, float, float]] = []
        references, waiting = [], []
        for some in _groups(chosen, 1 if self.stand.compiled else TOGETHER):
            models = [ReducedViT(self.stand.model, schedule) for schedule in some]
            turns = self._turns([self.stand.runner(model) for model in models])
            references.append(float(np.median(turns.reference)))
            waiting.append(turns.launch_bound)
            spread = np.quantile(turns.ratios, (0.5, 0.025, 0.975), axis=0).T
            measured += [(float(middle), float(low), float(high)) for middle, low, high in spread]
        sums = [bare.sums(schedule) for schedule in chosen]
        values = [middle for middle, _, _ in measured]
        shares = [self.space.macs_share(schedule) for schedule in chosen]
        checks = tuple(
            Check(schedule.id, share, *interval, predicted)
            for schedule, share, interval, predicted in zip(chosen, shares, measured, left_out(sums, values), strict=True)
        )
        waits = self.stand.device.type == "cuda" and np.mean(waiting) > 0.5
        return fit(sums, values), checks, float(np.median(references)), bool(waits)


def key(backbone: Backbone, stand: Stand) -> str:
    """What the profile of a backbone at a stand is found by, before it is measured."""
    about = {"environment": identity(environment(stand.device)), "protocol": stand.protocol(), "version": VERSION}
    return fingerprint({"shape": asdict(backbone.shape), **about})


def _groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _affordable(seconds: float, backbone_ms: float) -> MeasuringPlan:
    return next((plan for plan in PLANS if plan.seconds(backbone_ms) <= seconds), PLANS[-1])


def _drawn(space: Space, generator: np.random.Generator) -> list[Schedule]:
    """Random schedules of every reduction that fits, each of them and all together in turn, those that cost least, and none."""
    spaces = space.parts()
    drawn = [spaces[index % len(spaces)] for index in range(DRAWN)]
    # Few of them are cheap, and a search looks for those.
    cheap = [one.schedule(start.values) for one in spaces for start in one.starting_points(CHEAP)]
    every = [Schedule((), space.context.tail), *space.cheapest(), *cheap, *(one.schedule(one.draw(generator)) for one in drawn)]
    return list({schedule.id: schedule for schedule in every}.values())


def _spread(schedules: Sequence[Schedule], costs: Sequence[float], count: int) -> list[Schedule]:
    """`count` of the schedules that cover all costs evenly."""
    order = np.argsort(costs, kind="stable")
    wanted = np.linspace(min(costs), max(costs), min(count, len(schedules)))
    left = list(order)
    chosen = []
    for cost in wanted:
        nearest = min(left, key=lambda index: abs(costs[index] - cost))
        left.remove(nearest)
        chosen.append(schedules[nearest])
    return chosen


def _counts(least: int, most: int, number: int) -> list[int]:
    """Token counts to measure, rising: closer together where there are few tokens, where a token is a larger share."""
    return sorted({round(least + (most - least) * share**1.3) for share in np.linspace(0, 1, number)})


def _tokens(stand: Stand, count: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(len(stand.images), count, width, generator=generator).to(stand.images)


def _ends(base: ReducedViT, images: Tensor) -> Call:
    """Embedding and head alone."""
    return lambda: classify(base.backbone, base.embed(images))


def _chain(base: ReducedViT, part: str, count: int, stand: Stand) -> Call:
    """One half of every block, one after the other, on `count` tokens."""
    model: Any = base.backbone
    features = _tokens(stand, count, base.shape.width)
    half = _half(base, part, count, stand)

    def run() -> Tensor:
        state = features
        for block in model.blocks:
            passed = half(block, state)
            state = passed if passed.shape == features.shape else state
        return state

    if stand.compiled:  # now, and not within the first time that is taken
        with torch.inference_mode():
            run()
    return run


def _half(base: ReducedViT, part: str, count: int, stand: Stand) -> Callable[[Any, Tensor], Tensor]:
    if part == MLP:
        return _compiled(pass_mlp, stand)
    shape = base.shape
    sizes = torch.full((len(stand.images), count), 2.0, device=stand.device) if part == WEIGHTED else None
    queries = shape.prefix if part == LAST else count
    form = weighted_form(base.backbone, shape)

    def attention(block: Any, features: Tensor) -> Tensor:
        return pass_attention(block, block.attn.qkv, features, sizes, queries, form)[1]

    return _compiled(attention, stand)


def _compiled(half: Callable[[Any, Tensor], Tensor], stand: Stand) -> Callable[[Any, Tensor], Tensor]:
    return torch.compile(half, dynamic=False) if stand.compiled else half


def _acting_call(stand: Stand, schedule: Schedule, index: int, position: int) -> tuple[Call, int, int]:
    """One operator on random tokens as they enter it, with the tokens before and after it."""
    reduced = ReducedViT(stand.model, schedule)
    model: Any = stand.model
    block, plan = model.blocks[index], reduced.plan[index]
    features = _tokens(stand, plan.keys, reduced.shape.width)
    sizes = torch.full((len(stand.images), plan.keys), 2.0, device=stand.device)
    weighted = sizes if reduced.proportional else None
    with torch.inference_mode():
        attended, features = pass_attention(block, block.attn.qkv, features, weighted, plan.queries, reduced.form)
        state = Tokens(features, sizes)
        operators: Any = reduced.operators[index]
        for operator in operators[:position]:
            state, attended = operator(state, attended)
    counts = [plan.keys, *(left for _, left in plan.steps)]
    return lambda: operators[position](state, attended), counts[position], counts[position + 1]


def _staircase(measured: Sequence[tuple[int, Floats]]) -> Staircase:
    """The monotone fit to shares (rounds,) measured at some counts."""
    ordered = sorted(measured, key=lambda row: row[0])
    counts = [count for count, _ in ordered]
    low, middle, high = (np.array([np.quantile(shares, end) for _, shares in ordered]) for end in (0.025, 0.5, 0.975))
    fitted = IsotonicRegression().fit_transform(counts, middle)
    return Staircase(tuple(counts), *(tuple(map(float, row)) for row in (low, high, fitted)))


def _cost(measured: Sequence[tuple[int, int, float]]) -> ActingCost:
    """The plane with least relative squared error that never falls."""
    tokens, left, shares = (np.array(column, float) for column in zip(*measured, strict=True))
    rows = np.stack([np.ones_like(tokens), tokens, tokens - left], 1)
    coefficients, _ = nnls(rows / shares[:, None], np.ones_like(shares))
    return ActingCost(*map(float, coefficients))
