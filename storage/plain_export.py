"""What leaves the database of a study of any kind, as plain values: what a kind does not say in words of its own."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from vittle.objectives.goals import Asked, write_quality
from vittle.objectives.measurement import Measurement, Phase
from vittle.spaces import plain_yaml
from vittle.spaces.errors import VittleError
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial


def front_entry(study: Study, trial: Trial, ranking: Ranking | None = None) -> dict[str, Any]:
    """One point of a front. The quality in `measurements` is that of the search; `confirmed` is on data that no search saw.

    With all trials of the study, `expected` is what ranks them.
    """
    goals = study.goals
    return {
        "trial": trial.number,
        "expected": expected(trial, ranking, goals.quality),
        "measurements": measured({name: trial.judged[name] for name in goals.objectives}),
        "confirmed": measured({goals.quality: trial.measurements["confirmation"][goals.quality]}) if trial.confirmed else None,
        "origin": trial.origin,
        "candidate": trial.candidate.to_dict(),
    }


def document(
    study: Study, trial: Trial, ranking: Ranking | None = None, asked: Asked | None = None, file: str = "best.yaml"
) -> dict[str, Any]:
    """The exported file: the candidate, and what was measured of it and of the baseline.

    Args:
        study: whose candidate it is.
        trial: the candidate and its measurements.
        ranking: all trials of the study: what ranks this one, and the baseline.
        asked: what it is exported for; what the study was launched for where not given.
        file: what it will be called, where it says that.

    Raises:
        VittleError: the trial's quality was not measured, so there is no evidence to export.
    """
    del file
    check_exportable(study, trial)
    phase: Phase = "confirmation" if trial.confirmed else "search"
    exported = {
        "kind": study.kind,
        "candidate": trial.candidate.to_dict(),
        "summary": trial.candidate.summary,
        **wanted(study, trial, ranking, asked),
        "measured_on": "held-out" if trial.confirmed else "search",
        "measurements": {
            **measured({**trial.judged, **trial.measurements[phase]}),
            **ranked(trial, ranking, study.goals.quality),
        },
        "study": study.name,
        "trial": trial.number,
        "id": trial.candidate.id,
    }
    baseline = None if ranking is None else ranking.baseline
    if baseline is not None and phase in baseline.measurements:
        exported["baseline"] = {"measurements": measured(baseline.measurements[phase])}
    return exported


def to_yaml(exported: dict[str, Any], missing: Mapping[str, str] = MappingProxyType({})) -> str:
    """The document as text; nothing is `missing` beside it."""
    del missing
    return plain_yaml.to_yaml(exported)


def check_exportable(study: Study, trial: Trial) -> None:
    """Refuse a trial without evidence.

    Raises:
        VittleError: its quality was not measured.
    """
    quality = study.goals.quality
    if quality not in trial.judged:
        reason = f"trial {trial.number} of {study.name} is {trial.state}; accepted: one whose {quality} was measured"
        raise VittleError(reason)


def wanted(study: Study, trial: Trial, ranking: Ranking | None, asked: Asked | None) -> dict[str, Any]:
    """What a trial is exported for, in the words of `vittle export`, and whether it is what is recommended for that."""
    goals = study.goals
    asked = asked or goals.asked
    name, amount = ("tolerance", asked.tolerance) if asked.most_lost is None else (f"max_{goals.quality}_drop", asked.most_lost)
    choice = None if ranking is None else ranking.choice(asked)
    recommended = {} if ranking is None else {"recommended": choice is not None and choice.recommended.number == trial.number}
    return {"budget": str(asked.budget), name: write_quality(amount, goals.quality), **recommended}


def ranked(trial: Trial, ranking: Ranking | None, quality: str) -> dict[str, Any]:
    """The quality that ranks a trial, by a name that tells it from the measured one; empty where it is not known."""
    known = {} if ranking is None else ranking.expected.get(trial.number, {})
    return {f"expected_{quality}": measured({quality: known[quality]})[quality]} if quality in known else {}


def expected(trial: Trial, ranking: Ranking | None, quality: str) -> dict[str, Any] | None:
    """The quality that ranks a trial, with its interval; None where it is not known."""
    return ranked(trial, ranking, quality).get(f"expected_{quality}")


def measured(measurements: Mapping[str, Measurement]) -> dict[str, Any]:
    """Values with their intervals, and what was compared with and predicted."""
    return {
        name: {
            "value": one.value,
            "interval": [one.low, one.high],
            "n": one.n,
            **({"against": one.protocol["against"]} if "against" in one.protocol else {}),
            **({} if one.estimated_of is None else {"estimated_of": one.estimated_of}),
            **({"source": one.protocol["source"]} if "source" in one.protocol else {}),
        }
        for name, one in sorted(measurements.items())
    }
