"""What was measured again, as rows and sentences: a certificate on this machine, a front on another device."""

from collections.abc import Mapping, Sequence
from typing import Any

from vittle.dashboards import text
from vittle.dashboards.terminal.latency_tables import RetimedRow
from vittle.objectives.budget import Budget
from vittle.objectives.measurement import Measurement
from vittle.storage.certificate import Certificate, Verdict
from vittle.storage.records import Trial

HERE = {
    True: "it is within the claim here, too",
    False: "it is over the claim here",
    None: "whether it is within the claim here is lost in the noise",
}


def retimed(trials: Sequence[Trial], measured: Mapping[int, Mapping[str, Measurement]], budget: Budget) -> list[RetimedRow]:
    """A row for each trial of a front that was timed again, fastest before first."""
    name = budget.objective
    before = {trial.number: trial.judged[name] for trial in trials}
    after = {trial.number: measured[trial.number][name] for trial in trials}
    ranks = [_ranks(latencies) for latencies in (before, after)]
    rows = [
        RetimedRow(
            number=trial.number,
            accuracy=trial.judged["accuracy"],
            before=before[trial.number],
            after=after[trial.number],
            rank_before=ranks[0][trial.number],
            rank_after=ranks[1][trial.number],
            holds_before=budget.holds(trial.judged),
            holds_after=budget.holds(measured[trial.number]),
        )
        for trial in trials
    ]
    return sorted(rows, key=lambda row: row.rank_before)


def plain_retimed(row: RetimedRow) -> dict[str, Any]:
    """A row as plain values."""
    found = {name: value for name, value in row._asdict().items() if not isinstance(value, Measurement)}
    values = {name: _plain(value) for name, value in row._asdict().items() if isinstance(value, Measurement)}
    return {**found, **values}


def plain_verdict(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain values."""
    certificate = verdict.certificate
    names = ("latency_ratio", "latency_ms")
    return {
        "state": verdict.state,
        "within": verdict.within,
        "budget": str(certificate.budget),
        "limit": certificate.limit,
        "certified": {name: _plain(certificate.latency[name]) for name in names},
        "measured": {name: _plain(verdict.measured[name]) for name in names},
        "noisy": verdict.noisy,
        "changed": [{"name": name, "then": then, "now": now} for name, then, now in verdict.changed],
        "environment": dict(verdict.here),
    }


def verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict, the numbers behind it, and what to do next."""
    certificate, measured = verdict.certificate, verdict.measured
    lines = [
        f"{verdict.state}: {_latency(measured)}",
        f"certified: {_latency(certificate.latency)}, for a budget of {text.budget(certificate.budget)}",
    ]
    lines += [f"{name} was {then}, is {now}" for name, then, now in verdict.changed]
    if verdict.noisy is not None:
        lines.append(f"noisy: {verdict.noisy}; close what else runs here and verify again")
    if verdict.state == "other device":
        lines.append(f"{HERE[verdict.within]}; to search for this device: vittle profile here, then vittle launch")
    elif verdict.state == "cannot tell":
        lines.append(
            f"the noise exceeds the claim: at most {_limit(certificate)} holds, and it may be less or more; "
            "verify again where nothing else runs"
        )
    elif verdict.state == "drifted":
        lines.append("time the study's front again with: vittle retime, and export what holds now")
    return lines


def _limit(certificate: Certificate) -> str:
    return text.percent(certificate.limit) if certificate.budget.relative else text.milliseconds(certificate.limit)


def _latency(measured: Mapping[str, Measurement]) -> str:
    ratio, ms = measured["latency_ratio"], measured["latency_ms"]
    return (
        f"{text.percent(ratio.value)} of the backbone's latency ({text.percent(ratio.low)} to {text.percent(ratio.high)}), "
        f"{text.milliseconds(ms.value)} ({text.milliseconds(ms.low)} to {text.milliseconds(ms.high)})"
    )


def _ranks(latencies: Mapping[int, Measurement]) -> dict[int, int]:
    """The place of each trial by latency, 1 the fastest."""
    order = sorted(latencies, key=lambda number: latencies[number].value)
    return {number: place for place, number in enumerate(order, start=1)}


def _plain(measured: Measurement) -> dict[str, Any]:
    return {"value": measured.value, "low": measured.low, "high": measured.high}
