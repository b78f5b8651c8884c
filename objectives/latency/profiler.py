"""Measuring a latency profile: parts of the backbone over token counts, what reductions take, and whole models to check with.

Parts are timed over all blocks in a chain, so that weights come from memory as they do in a whole model. Everything is timed in
turn with the backbone's fastest form and kept as a share of it, so that drift cancels. How much is measured follows from how
long the backbone takes: see `PLANS`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

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
from vittle.objectives.quality.decoding import Progress
from vittle.reductions.adapters import stand_ins
from vittle.reductions.backbone import Backbone
from vittle.reductions.block import classify, pass_attention, pass_mlp, weighted_form
from vittle.reductions.tokens import Operator, Tokens
from vittle.reductions.vit import ReducedViT, put_back, take_part
from vittle.spaces import costs
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.space import Space, fitting
from vittle.spaces.work import Act, BlockWork

T = TypeVar("T")
VERSION = 3  # of this protocol: a profile that was measured otherwise is not found again
LATE = 1.5  # times as long as it should take
SECONDS = 120.0  # that a profile should take, as far as the smallest plan allows
DRAWN = 160  # random schedules out of which whole models, and sites for every variant, are chosen
CHEAP = (0.2, 0.3, 0.4, 0.5)  # MACs of further schedules, as shares of the backbone's
VARIANTS = 24  # of reductions, about
SITES = 6  # where each variant is timed
TOGETHER = 3  # whole models in one round
OPERATORS_TOGETHER = 8


class TimingSite(NamedTuple):
    """Where something that acts is timed: a schedule that has it, the visit, and its position among what acts there."""

    schedule: Schedule
    visit: int
    position: int

    def acting(self, shape: BackboneShape) -> tuple[BlockWork, Act]:
        """The visit, and what acts."""
        row = costs.work(shape, self.schedule)[self.visit]
        return row, row.acts[self.position]


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
        self.adapters = stand_ins(backbone)
        others = [name for name in fitting(self.shape) if name not in self.adapters]
        records = {name: one.record for name, one in self.adapters.items()}
        self.space = Space(self.shape, others)
        # What replaces the blocks is timed by itself: it hardly combines with the others.
        spaces = [*self.space.parts(), *(Space(self.shape, (name,), adapters=records) for name in self.adapters)]
        self.schedules = _drawn(spaces, np.random.default_rng(seed))
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
        found: dict[str, list[tuple[tuple[int, int, int], Schedule, int, int]]] = {}
        for schedule in self.schedules:
            for row in costs.work(self.shape, schedule):
                for position, act in enumerate(row.acts):
                    size = (act.entering, act.leaving, row.pairs)
                    found.setdefault(act.variant, []).append((size, schedule, row.index, position))
        chosen: list[TimingSite] = []
        for _, there in sorted(found.items()):
            there.sort(key=lambda site: site[0])
            places = np.unique(np.linspace(0, len(there) - 1, SITES).round().astype(int))
            chosen += [TimingSite(*there[place][1:]) for place in places]
        return chosen

    def _acting(self, base: ReducedViT, mlp: Staircase, sites: Sequence[TimingSite]) -> dict[str, ActingCost]:
        rows: dict[str, list[tuple[BlockWork, Act, float]]] = {}
        count = self.shape.prefix + self.shape.patches // 4
        yardstick = _chain(base, MLP, count, self.stand)  # quicker than the backbone, and of a share that is known
        known = self.shape.depth * mlp.at(count)
        for some in _groups(sites, OPERATORS_TOGETHER):
            turns = self._turns([_acting_call(self.stand, site, self.adapters) for site in some], yardstick)
            shares = known * np.median(turns.ratios, 0)
            for site, share in zip(some, shares, strict=True):
                row, act = site.acting(self.shape)
                blocks = self.shape.depth if act.place == "attention" else 1
                rows.setdefault(act.variant, []).append((row, act, float(share) / blocks))
        return {variant: _cost(measured) for variant, measured in rows.items()}

    def _whole(self, bare: LatencyProfile) -> tuple[Correction, tuple[Check, ...], float, bool]:
        """Time whole models, fit the correction, check it; the backbone's time, and whether the device waits for the host."""
        chosen = _spread(self.schedules, [bare.ratio(schedule) for schedule in self.schedules], self.plan.models)
        measured: list[tuple[float, float, float]] = []
        references, waiting = [], []
        for some in _groups(chosen, 1 if self.stand.compiled else TOGETHER):
            models = [ReducedViT(self.stand.model, schedule, self.adapters) for schedule in some]
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
    return fingerprint({"shape": backbone.shape.sizes, **about})


def _groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _affordable(seconds: float, backbone_ms: float) -> MeasuringPlan:
    return next((plan for plan in PLANS if plan.seconds(backbone_ms) <= seconds), PLANS[-1])


def _drawn(spaces: Sequence[Space], generator: np.random.Generator) -> list[Schedule]:
    """Random schedules of every space in turn, those that cost least, and none."""
    drawn = [spaces[index % len(spaces)] for index in range(DRAWN)]
    least = [schedule for one in spaces for schedule in one.cheapest()]
    # Few of them are cheap, and a search looks for those.
    cheap = [one.schedule(start.values) for one in spaces for start in one.starting_points(CHEAP)]
    every = [Schedule((), spaces[0].context.tail), *least, *cheap, *(one.schedule(one.draw(generator)) for one in drawn)]
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


def _acting_call(stand: Stand, site: TimingSite, adapters: Mapping[str, Any]) -> Call:
    """What acts at a site, on random tokens as they enter it; in place of a core, the attention halves of all blocks."""
    reduced = ReducedViT(stand.model, site.schedule, adapters)
    model: Any = stand.model
    row, act = site.acting(reduced.shape)
    block = model.blocks[row.visit.block]
    features = _tokens(stand, row.entering if act.place == "route" else row.keys, reduced.shape.width)
    sizes = torch.full((len(stand.images), features.shape[1]), 2.0, device=stand.device)
    weighted = sizes if reduced.proportional else None
    operators: Any = reduced.operators[site.visit]
    operator, state = operators[site.position], Tokens(features, sizes)
    if act.place == "route":
        return lambda: _route(operator, reduced.blocks[site.visit], state)
    core = reduced.core(site.visit)
    if act.place == "attention":
        # Over all blocks, as the parts are timed, so that weights come from memory.
        return lambda: [
            pass_attention(one, one.attn.qkv, features, weighted, row.queries, reduced.form, core) for one in model.blocks
        ]
    with torch.inference_mode():
        attended, features = pass_attention(block, block.attn.qkv, features, weighted, row.queries, reduced.form, core)
        state = Tokens(features, sizes)
        for before, earlier in zip(row.acts[: site.position], operators[: site.position], strict=True):
            if before.place == "tokens":
                state, attended = earlier.reduce(state, attended)
    return lambda: operator.reduce(state, attended)


def _route(operator: Operator, block: Any, state: Tokens) -> Tokens:
    """All that a visit with a route does besides the backbone's block."""
    selection = operator.select(state)
    part = state if selection is None else take_part(state, selection)
    part = part._replace(features=block.ls2(block.ls1(part.features)))
    return part if selection is None else put_back(state, part, selection)


def _staircase(measured: Sequence[tuple[int, Floats]]) -> Staircase:
    """The monotone fit to shares (rounds,) measured at some counts."""
    ordered = sorted(measured, key=lambda row: row[0])
    counts = [count for count, _ in ordered]
    low, middle, high = (np.array([np.quantile(shares, end) for _, shares in ordered]) for end in (0.025, 0.5, 0.975))
    fitted = IsotonicRegression().fit_transform(counts, middle)
    return Staircase(tuple(counts), *(tuple(map(float, row)) for row in (low, high, fitted)))


def _cost(measured: Sequence[tuple[BlockWork, Act, float]]) -> ActingCost:
    """The plane with least relative squared error that never falls."""
    _, first, _ = measured[0]
    shares = np.array([share for _, _, share in measured])
    tokens, removed, pairs = (
        np.array(column, float)
        for column in zip(*((act.entering, act.entering - act.leaving, row.pairs) for row, act, _ in measured), strict=True)
    )
    grown = pairs if first.place == "attention" else removed
    rows = np.stack([np.ones_like(tokens), tokens, grown], 1)
    (base, per_token, per_grown), _ = nnls(rows / shares[:, None], np.ones_like(shares))
    if first.place == "attention":
        return ActingCost(float(base), float(per_token), 0.0, float(per_grown))
    return ActingCost(float(base), float(per_token), float(per_grown))
