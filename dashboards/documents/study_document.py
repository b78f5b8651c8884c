"""What the pages show, as plain values: the JSON twins. Everything that is computed for a page is computed here."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from vittle.dashboards import text
from vittle.dashboards.words import ENGLISH, Words
from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.measurement import OBJECTIVES, Measurement, Phase
from vittle.objectives.parameter_importance import METHODS, Importance
from vittle.spaces import costs
from vittle.spaces.schedule import Schedule
from vittle.spaces.work import Visit
from vittle.storage.findings import MORE, Choice, Confirmation, Standing
from vittle.storage.ranking import Ranking
from vittle.storage.records import UNREADABLE, Study, Trial, UnreadableStudy, seconds_left
from vittle.storage.settings import Settings

COSTS = ("latency_ratio", "latency_ms", "macs", "memory")  # that a budget may be given in on a page
PACKED = ("right", "each", "samples", "classes")  # of a protocol: what every image, round and class showed


def study_url(name: str) -> str:
    """Where a study's page is; its JSON twin is at the same place with `.json` at the end."""
    return f"/studies/{quote(name, safe='')}"


def trial_url(study: str, number: int) -> str:
    """Where a trial's page is; its twin ends in `.json`, its schedule in `.yaml`, what its pictures draw in `/images.json`."""
    return f"{study_url(study)}/trials/{number}"


Listed = tuple[Study, Standing, Confirmation | None] | UnreadableStudy
"""A study with how far it is and, while its front is measured again, how far that is; or one that cannot be read."""


def listing(found: Iterable[Listed]) -> list[dict[str, Any]]:
    """The list of studies; of one that nobody here understands the name, and under `reason` why."""
    return [_unreadable(one) if isinstance(one, UnreadableStudy) else listed(*one) for one in found]


def listed(study: Study, standing: Standing, confirmation: Confirmation | None = None) -> dict[str, Any]:
    """A study of any kind in the list: what was asked, how far it is, the best candidate so far; None what it does not have.

    `phase` is its state, or `confirming` while its front is measured again; `confirmation` says how far that is.
    """
    asked = study.settings if isinstance(study.settings, Settings) else None
    return {
        "name": study.name,
        "kind": study.kind,
        "state": study.state,
        "phase": study.phase,
        "confirmation": confirmation and confirmation._asdict(),
        "ended": study.ended,
        "owner": study.owner,
        "created": study.created.isoformat(),
        "model": None if study.subject is None else study.subject.name,
        "data": None if asked is None else asked.data,
        "device": study.settings.device,
        "budget": asked.latency_budget if asked else str(study.budget) if study.known else None,
        "finished": standing.finished,
        "planned": study.settings.trials,
        "best": None if standing.best is None else _headline(study, standing.best),
        "url": study_url(study.name),
        "reason": None,
    }


def _unreadable(study: UnreadableStudy) -> dict[str, Any]:
    unknown = ("confirmation", "ended", "owner", "created", "model", "data", "device", "budget", "finished", "planned", "best")
    known = {"name": study.name, "url": study_url(study.name), "reason": study.reason}
    return {**known, **dict.fromkeys(("kind", "state", "phase"), UNREADABLE), **dict.fromkeys(unknown)}


def detailed(
    study: Study, trials: Sequence[Trial], importance: Importance | None = None, speak: Words = ENGLISH
) -> dict[str, Any]:
    """A study with every trial, which of them are on the front, and the best one for the budget.

    Args:
        importance: what its parameters are worth.
        speak: the language of its sentences.
    """
    ranking = Ranking.of(trials, study.goals)
    standing = ranking.standing
    front = {trial.number for trial in standing.points}
    confirmation = ranking.confirmation if study.confirming else None
    fastest, bend = ranking.fastest(), ranking.knee()
    shape = study.backbone.shape
    return {
        **listed(study, standing, confirmation),
        "settings": study.settings.model_dump(mode="json"),
        "backbone": {
            "name": study.backbone.name,
            "fingerprint": study.backbone.fingerprint,
            "classes": study.backbone.classes,
            "blocks": shape.depth,
            "tokens": shape.tokens,
            "prefix": shape.prefix,
        },
        "limit": limit(study, ranking, speak),
        "choice": choice(ranking, speak),
        "against": _against(ranking),
        "objectives": {name: dataclasses.asdict(objective) for name, objective in OBJECTIVES.items()},
        "counts": dict(Counter(trial.state for trial in trials)),
        "fastest": None if fastest is None else _fastest(fastest),
        "importance": None if importance is None else _importance(importance, speak),
        "disturbance": _disturbance(ranking, speak),
        "optimism": _optimism(ranking, speak),
        "outlook": _outlook(ranking, speak),
        "unpaid": _unpaid(study, ranking, speak),
        "tied": sorted(ranking.tied_with_best()),
        **choices(ranking, speak),
        "knee": None if bend is None else bend.number,
        "seconds_left": time_left(study, ranking),
        "trials": [listed_trial(study, trial, ranking, speak, on_front=trial.number in front) for trial in trials],
    }


def limit(study: Study, ranking: Ranking, speak: Words = ENGLISH) -> dict[str, Any]:
    """The study's budget, and what turns a share of the backbone's time into milliseconds and back: its own time."""
    budget = study.budget
    reference = None if ranking.baseline is None else ranking.baseline.judged.get("latency_ms")
    return {
        "value": budget.limit,
        "objective": budget.objective,
        "text": text.budget(budget, speak),
        "tail": isinstance(budget, LatencyBudget) and budget.tail,
        "backbone_ms": None if reference is None else reference.value,
    }


def choice(ranking: Ranking, speak: Words = ENGLISH) -> dict[str, Any]:
    """By which rule a trial is recommended, and which one, None where none is; amounts in the unit of the quality."""
    asked, found = ranking.goals.asked, ranking.choice()
    trade = None if found is None else ranking.trade(found)
    return {
        "trial": None if found is None else found.recommended.number,
        "most_accurate": None if found is None else found.finest.number,
        "ranked_by": f"expected {ranking.goals.quality}",
        "tolerance": asked.tolerance if asked.most_lost is None else None,
        "max_drop": asked.most_lost,
        "rule": text.rule(asked, ranking.goals, speak),
        "trade": None if trade is None else text.trade(trade, ranking.goals, speak),
    }


def choices(ranking: Ranking, speak: Words = ENGLISH) -> dict[str, Any]:
    """What is recommended from each budget on, by cost, and from each loss of accuracy on; with the words for every trade."""
    steps = {**{name: ranking.best_by_budget(name) for name in COSTS}, "loss": ranking.best_by_loss()}
    numbered = {trial.number: trial for trial in ranking}
    pairs = sorted({(one.trial, one.finest) for found in steps.values() for one in found})
    trades = {pair: ranking.trade(Choice(*(numbered[number] for number in pair))) for pair in pairs}
    return {
        "choices": {
            name: [{"limit": one.limit, "trial": one.trial, "most_accurate": one.finest} for one in found]
            for name, found in steps.items()
        },
        "trades": {
            f"{one}-{other}": text.trade(found, ranking.goals, speak) for (one, other), found in trades.items() if found
        },
    }


def time_left(study: Study, ranking: Ranking) -> float | None:
    """Seconds that what a study is at will take, the search or the confirmation; None where it is at nothing, or none tells."""
    if study.confirming:
        return ranking.confirmation.seconds_left
    return seconds_left(ranking, study.settings.trials) if study.state == "running" else None


def worth(importance: Importance | None, sensitivity: Sensitivity | None, speak: Words = ENGLISH) -> dict[str, Any]:
    """What parameters and single blocks are worth, None for what is not known."""
    return {
        "importance": None if importance is None else _importance(importance, speak),
        "sensitivity": None if sensitivity is None else sensitivity.to_dict(),
    }


def offered(study: Study, trials: Sequence[Trial], chosen: Iterable[Trial], speak: Words = ENGLISH) -> list[tuple[int, str]]:
    """Trials to choose from, as a number and a line each: those on the front, the best one, and the chosen ones."""
    ranking = Ranking.of(trials, study.goals)
    best = ranking.best()
    there = {trial.number: trial for trial in (*ranking.front(), *chosen, *([] if best is None else [best]))}
    return [(number, text.trial_label(trial, speak, best=trial is best)) for number, trial in sorted(there.items())]


def exportable(study: Study, trial: Trial) -> bool:
    """Whether there is evidence to export a candidate with: its quality was measured."""
    return study.goals.quality in trial.judged


def quoted(study: Study, trial: Trial) -> Measurement:
    """The quality to tell of a complete trial: on data that no search saw, once it was measured on them."""
    phase: Phase = "confirmation" if trial.confirmed else "search"
    return trial.measurements[phase][study.goals.quality]


def _importance(importance: Importance, speak: Words) -> dict[str, Any]:
    """Shares by method and objective: of `parameters`, and of the `blocks` that some of them add up."""
    shares = importance.shares
    return {
        "trials": importance.trials,
        "methods": {method: speak(f"importance.methods.{method}") for method in METHODS},
        "parameters": {method: {name: importance.grouped(method, name) for name in by} for method, by in shares.items()},
        "blocks": {method: {name: text.over_depth(one) for name, one in by.items()} for method, by in shares.items()},
    }


def _optimism(ranking: Ranking, speak: Words) -> dict[str, Any] | None:
    found = ranking.optimism()
    return None if found is None else {**found._asdict(), "text": text.optimism(found, speak)}


def _disturbance(ranking: Ranking, speak: Words) -> dict[str, Any] | None:
    found = ranking.disturbance
    return None if found is None else {**found._asdict(), "text": text.disturbance(found, speak)}


def _outlook(ranking: Ranking, speak: Words) -> dict[str, Any] | None:
    """The front's hypervolume, and what more trials are expected to add to it, as shares."""
    grown = ranking.growth()
    if grown is None:
        return None
    rises = np.flatnonzero(np.diff(grown.volumes, prepend=0.0)) + 1  # elsewhere nothing changes
    steps = [[0, 0.0], *([int(count), float(grown.volumes[count - 1])] for count in rises), [len(grown.volumes), grown.volume]]
    return {
        "hypervolume": grown.volume,
        "trials": MORE,
        **grown.outlook._asdict(),
        "steps": steps,
        "text": text.outlook(grown, speak),
    }


def _unpaid(study: Study, ranking: Ranking, speak: Words) -> dict[str, Any] | None:
    """The reductions that were searched and are not on the front, once the search is over."""
    names = ranking.unpaid(study.settings.reductions) if isinstance(study.settings, Settings) else []
    return {"reductions": names, "text": text.unpaid(names, speak)} if names and study.state == "complete" else None


def _fastest(trial: Trial) -> dict[str, Any]:
    latency = trial.judged["latency_ratio"]
    return {"trial": trial.number, "latency_ratio": latency.value, "mark": text.mark(latency)}


def _against(ranking: Ranking) -> str | None:
    """What an answer is compared with: labels, or the backbone's answer."""
    backbone = ranking.baseline
    return None if backbone is None else backbone.judged["accuracy"].protocol.get("against")


def _headline(study: Study, trial: Trial) -> dict[str, Any]:
    """The quality and the charted cost of a trial, each by its name and as a text."""
    goals = study.goals
    quality, cost = quoted(study, trial), trial.judged[goals.charted]
    return {
        "trial": trial.number,
        goals.quality: quality.value,
        "images": "held-out" if trial.confirmed else "search",
        goals.charted: cost.value,
        "mark": text.mark(cost),
        "quality": text.measured(quality),
        "cost": text.measured(cost),
    }


def listed_trial(study: Study, trial: Trial, ranking: Ranking, speak: Words = ENGLISH, *, on_front: bool) -> dict[str, Any]:
    """A trial among the others of its study.

    Args:
        study: the trial's.
        trial: one of them.
        ranking: all trials of the study.
        speak: the language of its sentences.
        on_front: whether none is better in everything.
    """
    accuracy, latency = (trial.judged.get(name) for name in ("accuracy", "latency_ratio"))
    held_out = trial.measurements.get("confirmation", {})
    return {
        "number": trial.number,
        "url": trial_url(study.name, trial.number),
        "state": trial.state,
        "kind": kind(trial, on_front=on_front),
        "origin": trial.origin,
        "front": on_front,
        "within_budget": ranking.within(trial, study.budget),
        "confirmed": trial.confirmed,
        "estimated_of": None if accuracy is None else accuracy.estimated_of,
        "worst": text.worst_class(trial, speak),
        "predicted": latency is not None and text.predicted(latency),
        "noisy": None if latency is None else text.noise(latency),
        "reason": trial.reason,
        "attempts": trial.attempts,
        "seconds": trial.seconds,
        **(work(study, trial.schedule) if trial.readable else {"tokens": [], "visits": None}),
        "schedule": trial.candidate.to_dict(),
        "summary": text.summary(trial.schedule, speak) if trial.readable else trial.candidate.summary,
        "id": trial.candidate.id,
        "judged": {name: interval(one) for name, one in trial.judged.items()},
        "expected": measured(ranking.expected.get(trial.number, {}).get("accuracy")),
        "backbone_ms": _backbone_ms(trial),
        "held_out": measured(held_out.get("accuracy")),
        "timed_on": _timed_on(trial),
        "export": f"{trial_url(study.name, trial.number)}.yaml" if exportable(study, trial) else None,
    }


def work(study: Study, schedule: Schedule) -> dict[str, Any]:
    """The `tokens` after each visit of a block, and which block that is (`costs.visits_told`).

    `visits` is None where every block runs once and for all tokens.
    """
    rows = costs.work(study.backbone.shape, schedule)
    plain = all(row.visit == Visit(row.index) for row in rows)
    return {"tokens": [row.leaving for row in rows], "visits": None if plain else costs.visits_told(rows)}


def kind(trial: Trial, *, on_front: bool) -> str:
    """How a trial is drawn: its state, with the complete ones told apart."""
    if trial.state != "complete":
        return trial.state
    return "backbone" if trial.is_baseline else "front" if on_front else "dominated"


def measurements(trial: Trial) -> dict[str, dict[str, Any]]:
    """All that was measured of a trial, by phase and objective, and how."""
    return {phase: {name: _with_protocol(one) for name, one in values.items()} for phase, values in trial.measurements.items()}


def measured(one: Measurement | None) -> dict[str, Any] | None:
    """A value with its interval, where there is one."""
    return None if one is None else interval(one)


def interval(one: Measurement) -> dict[str, Any]:
    """A value with its interval, and the samples behind it."""
    return {"value": one.value, "low": one.low, "high": one.high, "n": one.n}


def _with_protocol(one: Measurement) -> dict[str, Any]:
    about = {name: value for name, value in one.protocol.items() if name not in PACKED}
    return {**interval(one), "protocol": about}


def _backbone_ms(trial: Trial) -> float | None:
    """What the backbone took in the same run; None where nobody kept it."""
    latency = trial.judged.get("latency_ms")
    return None if latency is None else latency.protocol.get("backbone_ms")


def _timed_on(trial: Trial) -> str | None:
    """The device and the number format."""
    latency = trial.judged.get("latency_ms")
    told = [] if latency is None else [latency.protocol[about] for about in ("device", "dtype") if about in latency.protocol]
    return ", ".join(told) or None
