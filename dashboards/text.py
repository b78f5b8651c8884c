"""Numbers, names and sentences as people read them, on the pages in their language and in the terminal in English."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from vittle.dashboards.plain import plain
from vittle.dashboards.words import ENGLISH, Words
from vittle.objectives.backbones.merge_start import MergeStart
from vittle.objectives.budget import Budget, LatencyBudget
from vittle.objectives.goals import Asked, Goals
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.latency.provenance import hardware
from vittle.objectives.measurement import OBJECTIVES, Measurement
from vittle.objectives.quality.paired import Interval
from vittle.spaces.reduction import Reduction
from vittle.spaces.schedule import Schedule
from vittle.storage.findings import MORE, Disturbance, Growth, Trade
from vittle.storage.ranking import Ranking
from vittle.storage.records import Trial

MARKS = {"~": "predicted", "!": "noisy", "†": "estimated"}  # with their words under `signs`
STRETCHES = 3  # of free tokens that a sentence names


def percent(share: float, digits: int = 1) -> str:
    """0.978 is 97.8%, and what rounds to nothing has no sign."""
    return f"{100 * share:z.{digits}f}%"


def milliseconds(value: float) -> str:
    """Three significant digits: 3.91 ms, 128 ms."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:#.3g}".removesuffix(".") + " ms"


def macs(value: float) -> str:
    """4.61 G or 34.2 M."""
    return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.1f} M"


def tokens(counts: Sequence[int]) -> str:
    """Tokens after each block, the middle of a deep model left out: 65 65 … 9 1."""
    shown = [str(count) for count in counts]
    return " ".join(shown if len(shown) <= 5 else [*shown[:2], "…", *shown[-2:]])


def budget(limit: Budget, speak: Words = ENGLISH) -> str:
    """60% of the backbone, or 4ms per batch; of another kind of study as it is written."""
    if not isinstance(limit, LatencyBudget):
        return str(limit)
    if limit.tail:
        return speak("sentences.budget.tail", limit=str(limit).removeprefix("p95 "))
    return speak(f"sentences.budget.{'share' if limit.relative else 'rate' if limit.batch else 'batch'}", limit=limit)


def joined(sentences: Iterable[str], speak: Words = ENGLISH) -> str:
    """Sentences as one text."""
    return reduce(lambda first, second: speak("sentences.after", first=first, second=second), sentences)


def merge_start(start: MergeStart, speak: Words = ENGLISH) -> str:
    """Where merging may start, and how sure that is. Blocks are counted from 1."""
    dense = speak("sentences.dense", count=start.start) if start.start else speak("sentences.no_dense")
    where = {"block": start.start + 1, "depth": start.depth, "dense": dense}
    if not start.detected:
        return speak("sentences.rule_of_thumb", **where)
    low, high = start.low + 1, start.high + 1
    span = speak("sentences.blocks", low=low, high=high) if high > low else speak("sentences.block", block=low)
    return speak("sentences.may_start", **where, span=span, images=start.images)


def predicted(measured: Measurement) -> bool:
    """Whether a value comes out of a latency profile."""
    return measured.protocol.get("source") == "predicted"


def noise(measured: Measurement) -> str | None:
    """What disturbed a measurement; None where nothing did."""
    reason = measured.protocol.get("noisy")
    return None if reason is None else str(reason)


def mark(measured: Measurement) -> str:
    """What stands before a value that is no plain measurement; see `MARKS`."""
    return "~" if predicted(measured) else "†" if measured.estimated_of else "!" if noise(measured) else ""


def meaning(sign: str, speak: Words = ENGLISH) -> str:
    """What one of `MARKS` says."""
    return speak(f"signs.{MARKS[sign]}")


def marks(measured: Iterable[Measurement], speak: Words = ENGLISH) -> list[str]:
    """What the marks before these values mean, each of them once."""
    there = {mark(one) for one in measured}
    return [f"{sign} {meaning(sign, speak)}" for sign in MARKS if sign in there]


def measured(one: Measurement, digits: int = 1) -> str:
    """A value of any objective with its unit: 97.8% (to so many digits), 3.91 ms, 4.61 G, or 12.5 steps."""
    match OBJECTIVES[one.objective].unit:
        case "share":
            shown = percent(one.value, digits)
        case "ms":
            shown = milliseconds(one.value)
        case "MACs":
            shown = macs(one.value)
        case unit:
            shown = f"{one.value:.4g} {unit}"
    return mark(one) + shown


def device(environment: Mapping[str, Any]) -> str:
    """AMD EPYC, 2 threads."""
    return plain(hardware(environment))


def staircase(profile: LatencyProfile, speak: Words = ENGLISH) -> str:
    """What a dense block takes with all tokens and with half of them, and which tokens cost no time."""
    block, ms = profile.block, profile.backbone_ms
    whole, half = profile.shape.tokens, round(profile.shape.tokens / 2)
    images = speak("sentences.images", count=profile.protocol["batch_size"])
    times = {"time": milliseconds(ms * block.at(whole)), "half_time": milliseconds(ms * block.at(half))}
    taken = speak("sentences.staircase", **times, images=images, tokens=whole)
    widest = sorted(profile.flats, key=lambda flat: flat[0] - flat[1])[:STRETCHES]
    if not widest:
        return taken
    first, *others = [speak("sentences.stretch", low=low, high=high) for low, high in sorted(widest)]
    listed = "".join(speak("sentences.free_too", stretch=other) for other in others)
    count = len(profile.flats) - len(widest)
    more = speak("sentences.free_more", count=count) if count else ""
    return joined([taken, speak("sentences.free", first=first, others=listed, more=more)], speak)


def trust(profile: LatencyProfile, speak: Words = ENGLISH) -> str:
    """How good predictions are on schedules that they were not fitted to, and whether they are used."""
    checks = len(profile.checks)
    if not checks:
        return speak("sentences.predictions.unchecked")
    known = {"checks": checks, "off": percent(profile.mape), "correlation": f"{profile.spearman:.3f}"}
    return speak(f"sentences.predictions.{'used' if profile.trusted else 'unused'}", **known)


def latency(profile: LatencyProfile, speak: Words = ENGLISH) -> str:
    """What a latency profile says, in two or three sentences."""
    waits = [speak("sentences.waits")] if profile.launch_bound else []
    return joined([staircase(profile, speak), trust(profile, speak), *waits], speak)


def over_depth(shares: Mapping[str, float]) -> dict[str, list[float]]:
    """Of parameters that every block has one of, `merging.kept.0` and so on: what each block's is worth, by their name."""
    found: dict[str, dict[int, float]] = {}
    for parameter, share in shares.items():
        name, _, block = parameter.rpartition(".")
        if block.isdecimal():
            found.setdefault(name, {})[int(block)] = share
    return {name: [blocks[block] for block in sorted(blocks)] for name, blocks in found.items()}


def optimism(found: Interval, speak: Words = ENGLISH) -> str:
    """How much more the front loses on images that no search saw."""
    sure = found.low > 0 or found.high < 0
    side = "more" if found.value >= 0 else "less"
    case = side if sure else f"{side}_by_chance"
    half = percent((found.high - found.low) / 2)
    return speak(f"sentences.optimism.{case}", share=percent(abs(found.value)), half=half)


def outlook(grown: Growth, speak: Words = ENGLISH) -> str:
    """What more trials are expected to add."""
    expected = grown.outlook
    shares = {"gain": percent(expected.gain), "most": percent(expected.high), "now": percent(grown.volume)}
    return speak("sentences.outlook", trials=MORE, **shares)


def unpaid(names: Sequence[str], speak: Words = ENGLISH) -> str:
    """Which of the reductions that were searched never paid."""
    return " ".join(speak("sentences.unpaid", reduction=speak(f"reductions.{name}.name")) for name in names)


def points(share: float) -> str:
    """0.003 is 0.3."""
    return f"{100 * share:.1f}".removesuffix(".0")


def rule(asked: Asked, goals: Goals, speak: Words = ENGLISH) -> str:
    """By which rule a trial is recommended."""
    if asked.most_lost is None and asked.tolerance == 0:
        return speak("sentences.rule.finest", **_quality_words(goals, speak))
    case, amount = ("tolerance", asked.tolerance) if asked.most_lost is None else ("lost", asked.most_lost)
    return speak(f"sentences.rule.{case}", amount=_amount(amount, goals, speak), **_quality_words(goals, speak))


def trade(found: Trade, goals: Goals, speak: Words = ENGLISH) -> str:
    """What is given for speed, and whether single answers show that it is anything."""
    recommended, finest = found.choice
    quality = _quality_words(goals, speak)
    pair = {"number": recommended.number, "other": finest.number}
    saved = percent(found.saved, 0 if found.saved >= 0.01 else 1)
    in_time = goals.charted == "latency_ratio"
    first = (
        speak("sentences.trade.time", saved=saved, **pair)
        if in_time
        else speak("sentences.trade.cost", saved=saved, cost=goals.charted, **quality, **pair)
    )
    second = speak("sentences.trade.lost", amount=_amount(found.lost, goals, speak), **quality)
    return joined([first, second], speak) + _answers(found, speak)


def unmet(study: str, ranking: Ranking, asked: Asked, nearest: Trial) -> str:
    """That nothing in a study is as asked, and the nearest loss or budget that something is within.

    Args:
        study: its name.
        ranking: all its trials.
        asked: what nothing is recommended for.
        nearest: the cheapest of the trials that may be offered.
    """
    budget, within = asked.budget, ranking.choice(Asked(asked.budget))
    if asked.most_lost is None or within is None:
        if not ranking.saves(nearest):
            return f"nothing in study {study} fits {budget}, and nothing in it takes less than the baseline itself"
        near = ranking.covering(budget, nearest)
        return f"nothing in study {study} fits {budget}; the nearest feasible budget is {near} (trial {nearest.number})"
    most, goals = _amount(asked.most_lost, ranking.goals, ENGLISH), ranking.goals
    told = f"nothing in study {study} within {budget} loses at most {most} of expected {goals.quality}"
    lost = ranking.lost(within.finest)
    if lost is None:
        return f"{told}: its baseline is not measured yet"
    return f"{told}; the least is {_amount(lost, goals, ENGLISH)} (trial {within.finest.number})"


def _answers(found: Trade, speak: Words) -> str:
    """What the answers to single samples say of a trade."""
    if found.phase is None or found.more is None:
        return speak("sentences.trade.end")
    samples = speak(f"sentences.trade.{found.phase}", count=found.samples)
    if found.more.low <= 0 <= found.more.high:
        return speak("sentences.trade.alike", samples=samples)
    low, high = sorted(map(abs, found.more[1:]))
    case = "less" if found.more.high < 0 else "more"
    return speak(f"sentences.trade.{case}", samples=samples, low=points(low), high=points(high))


def _amount(amount: float, goals: Goals, speak: Words) -> str:
    """An amount of quality: 0.3 points of a share, else in its own unit."""
    unit = OBJECTIVES[goals.quality].unit
    told = points(amount)
    return speak("sentences.points", points=told, count=told == "1") if unit == "share" else f"{amount:.4g} {unit}"


def _quality_words(goals: Goals, speak: Words) -> dict[str, str]:
    return {"quality": speak("sentences.accuracy") if goals.quality == "accuracy" else goals.quality}


def disturbance(found: Disturbance, speak: Words = ENGLISH) -> str:
    """How many of a front's latencies were measured under disturbance, and what that means for them."""
    return speak("sentences.disturbance", noisy=found.noisy, measured=found.measured, reason=plain(found.reason))


def worst_class(trial: Trial, speak: Words = ENGLISH) -> str | None:
    """The class that loses most against the backbone, on the images that no search saw where they were looked at."""
    phase = "confirmation" if trial.confirmed else "search"
    drop = trial.measurements.get(phase, {}).get("accuracy_drop")
    worst = [] if drop is None else drop.protocol.get("worst", [])
    if not worst:
        return None
    index, lost, images = worst[0]
    return speak("sentences.worst_class", index=index, lost=percent(lost), count=images)


def summary(schedule: Schedule, speak: Words = ENGLISH) -> str:
    """What reduces and how, in a few words: `Schedule.summary` in any language."""
    parts = [_how(reduction, speak) for reduction in schedule.reductions]
    return speak("sentences.schedule.and").join(parts) or speak("sentences.schedule.none")


def _how(reduction: Reduction, speak: Words) -> str:
    parts = (speak(f"reductions.{reduction.name}.summary.{key}", **values) for key, values in reduction.phrases())
    return speak("sentences.schedule.with").join(parts)


def trial_label(trial: Trial, speak: Words = ENGLISH, *, best: bool = False) -> str:
    """A trial in a list to choose from: its number, what it is, its accuracy and its latency."""
    judged = trial.judged
    parts = [speak("sentences.trial", number=trial.number)]
    parts += [speak("sentences.backbone")] if trial.is_baseline else [speak("sentences.best")] if best else []
    shown = [percent(judged[name].value) for name in ("accuracy", "latency_ratio") if name in judged]
    if len(shown) == 2:
        parts.append(speak("sentences.at_latency", accuracy=shown[0], latency=mark(judged["latency_ratio"]) + shown[1]))
    return " · ".join(parts)
