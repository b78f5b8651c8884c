"""Certificates that are verified, and fronts that are timed again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

import vittle.cli.commands
from vittle import VittleError, presets
from vittle.objectives.latency.environment import environment
from vittle.objectives.measurement import Measurement, exact, proportion
from vittle.reductions.backbone import load_backbone
from vittle.search.remeasure import retime, verify
from vittle.spaces import Schedule, costs
from vittle.storage import export
from vittle.storage.certificate import EXIT_CODES, Certificate
from vittle.storage.records import BackboneRecord, Study
from vittle.storage.settings import Settings
from vittle.storage.store import Store

THREADS = torch.get_num_threads()


def protocol(**changes: object) -> dict[str, object]:
    return {**environment(torch.device("cpu")), "backbone_ms": 10.0, "rounds": 15, **changes}


def measured(ratio: float, accuracy: int = 440, **changes: object) -> dict[str, Measurement]:
    about = protocol(**changes)
    return {
        "accuracy": proportion("accuracy", accuracy, 449, {"against": "labels"}),
        "latency_ratio": Measurement("latency_ratio", ratio, 0.99 * ratio, 1.01 * ratio, 15, about),
        "latency_ms": Measurement("latency_ms", 10 * ratio, 9.9 * ratio, 10.1 * ratio, 15, about),
        "macs": exact("macs", round(1e6 * ratio)),
    }


def study_of(store: Store, budget: str = "500%", **changes: object) -> Study:
    """The backbone and a front of three schedules, as if they had been searched."""
    backbone = load_backbone()
    record = BackboneRecord("digits", backbone.fingerprint, 10, backbone.shape)
    settings = Settings(latency_budget=budget, batch_size=2, cpus_per_worker=THREADS)
    study = store.create_study("a", settings, record)
    schedules = [Schedule(), *(presets.constant(backbone.shape, removed, tail="prefix") for removed in (1, 3, 5))]
    for schedule, (ratio, right) in zip(schedules, ((1.0, 446), (0.5, 444), (0.4, 442), (0.3, 440)), strict=True):
        number = store.start_trial("a", "start" if schedule.reductions else "backbone", schedule, {})
        found = {**measured(ratio, right, **changes), "macs": exact("macs", costs.macs(backbone.shape, schedule))}
        store.finish_trial("a", number, "complete", found)
    return study


def certified(folder: Path, store: Store, budget: str = "500%", ratio: float = 50.0, **changes: object) -> Path:
    study = study_of(store, budget)
    trial = store.trials("a")[1]
    judged = {**trial.measurements["search"], **measured(ratio, **changes)}
    path = folder / "best.yaml"
    path.write_text(export.to_yaml(export.document(study, replace(trial, measurements={"search": judged}))))
    return path


def invoke(*arguments: str):
    return CliRunner().invoke(vittle.cli.app, list(arguments), catch_exceptions=False)


def test_a_certificate_says_what_was_measured_how_and_where(tmp_path, store) -> None:
    path = certified(tmp_path, store)
    certificate = Certificate.load(path)
    assert certificate.schedule == Schedule.load(path)
    assert certificate.stand == {"device": "cpu", "batch_size": 2, "dtype": "float32", "compiled": False}
    assert certificate.environment == environment(torch.device("cpu"))
    assert certificate.latency["latency_ratio"].high == pytest.approx(50.5)
    document = yaml.safe_load(path.read_text())
    assert document["certificate"]["protocol"] == {"backbone_ms": 10.0, "rounds": 15}


def test_what_is_no_slower_than_certified_holds(tmp_path, store) -> None:
    path = certified(tmp_path, store, "1%", ratio=50.0)  # over its budget, as any trial of a page can be exported
    verdict = verify(path, device="cpu")
    assert (verdict.state, verdict.within, verdict.changed) == ("holds", True, ())
    result = invoke("verify", str(path))
    assert result.exit_code == EXIT_CODES["holds"] == 0
    assert result.stdout.startswith("holds: ")
    assert "certified: 5000.0% of the backbone's latency" in result.stdout


def test_what_takes_longer_has_drifted(tmp_path, store) -> None:
    path = certified(tmp_path, store, "1%", ratio=0.01)
    result = invoke("verify", str(path), "--json")
    verdict = json.loads(result.stdout)
    assert (verdict["state"], verdict["within"], result.exit_code) == ("drifted", False, 1)
    assert verdict["limit"] == pytest.approx(0.0101)
    assert verdict["measured"]["latency_ratio"]["low"] > verdict["limit"]
    assert "vittle retime" in invoke("verify", str(path)).stdout


def test_another_device_is_said_whatever_the_latency(tmp_path, store) -> None:
    path = certified(tmp_path, store, ratio=50.0, device="an abacus")
    result = invoke("verify", str(path))
    assert result.exit_code == 3
    assert "device was an abacus, is " in result.stdout
    assert "it is within the claim here, too" in result.stdout
    path = certified(tmp_path, Store.open("sqlite://", create=True), "1%", ratio=0.01, device="an abacus")
    assert "it is over the claim here" in invoke("verify", str(path)).stdout


def test_another_library_is_told_but_is_not_another_device(tmp_path, store) -> None:
    path = certified(tmp_path, store, ratio=50.0, torch="1.0")
    verdict = verify(path, device="cpu")
    assert verdict.state == "holds"
    assert verdict.changed == (("torch", "1.0", torch.__version__),)


def test_threads_are_those_of_the_certificate(tmp_path, store) -> None:
    other = THREADS % 2 + 1
    verdict = verify(certified(tmp_path, store, threads=other), device="cpu")
    assert verdict.here["threads"] == other
    assert verdict.state == "holds"
    assert torch.get_num_threads() == THREADS


def changed(document: dict[str, Any], **values: object) -> dict[str, Any]:
    """The measurements of an exported document, one of them with other values."""
    return {**document["measurements"], "latency_ms": {**document["measurements"]["latency_ms"], **values}}


def test_other_weights_and_other_files_are_refused(tmp_path, store) -> None:
    path = certified(tmp_path, store)
    document = yaml.safe_load(path.read_text())
    for changes, message in (
        ({"backbone": {**document["backbone"], "fingerprint": "0" * 12}}, "are not those of certificate .* --checkpoint"),
        ({"certificate": None}, r"has no certificate to verify \(certificate: Input .*\); export it again with: vittle export"),
        ({"measurements": {}}, "has no certificate to verify"),
        ({"budget": "soon"}, "has no certificate to verify .budget: latency budget 'soon' is not a time"),
        ({"certificate": {**document["certificate"], "stand": {"device": "cpu", "os": "rm"}}}, "certificate.stand.batch_size"),
        ({"certificate": {**document["certificate"], "environment": {"threads": "all"}}}, "certificate.environment.threads"),
        ({"backbone": {**document["backbone"], "model": ["a"]}}, "backbone.model: Input should be a valid string"),
        (
            {"measurements": changed(document, value=float("nan"))},
            "measurements.latency_ms.value: Input should be a finite number",
        ),
        ({"measurements": changed(document, interval=[5.0])}, "measurements.latency_ms.interval: List should have at least 2"),
        ({"measurements": changed(document, value=1e9)}, r"latency_ms is 1000000000.0 in \["),
    ):
        path.write_text(yaml.safe_dump({**document, **changes}))
        with pytest.raises(VittleError, match=message) as refused:
            verify(path, device="cpu")
        assert "\n" not in str(refused.value)
    presets.constant(load_backbone().shape, 2).save(path)
    with pytest.raises(VittleError, match="has no certificate to verify"):
        verify(path, device="cpu")


def test_a_front_is_timed_again_and_kept_beside_what_the_search_saw(store, url) -> None:
    study = study_of(store, device="an abacus")
    before = store.trials("a")
    told: list[tuple[int, int]] = []
    retiming = retime(study, store, "cpu", lambda *done: told.append(done))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert retiming.before == f"an abacus, {THREADS} threads"
    after = store.trials("a")
    assert [trial.judged for trial in after] == [trial.judged for trial in before]
    (phase,) = set(after[1].measurements) - {"search"}
    assert phase.startswith("device:")
    for trial in after:
        kept = trial.measurements[phase]
        assert "accuracy" not in kept
        assert kept["latency_ms"] == retiming.measured[trial.number]["latency_ms"]
    retime(study, store, "cpu")  # in place of what was kept
    assert set(store.trials("a")[1].measurements) == {"search", phase}


def test_ranks_that_change_are_shown(store, url, monkeypatch) -> None:
    study = study_of(store)
    times = {1: 20.0, 3: 40.0, 5: 30.0}

    def timed(_stand: object, schedule: Schedule, _adapters: object) -> dict[str, Measurement]:
        removed = 0 if not schedule.reductions else 65 - costs.tokens(load_backbone().shape, schedule)[0]
        one = measured(times.get(removed, 10.0) / 10)
        return {name: one[name] for name in ("latency_ms", "latency_ratio")}

    monkeypatch.setattr("vittle.search.remeasure._timed", timed)
    shown = json.loads(invoke("retime", "a", "--storage", url, "--json").stdout)["trials"]
    assert [(row["number"], row["rank_before"], row["rank_after"]) for row in shown] == [
        (3, 1, 3), (2, 2, 4), (1, 3, 2), (0, 4, 1),
    ]  # fmt: skip
    table = invoke("retime", study.name, "--storage", url).stdout
    assert "4 of 4 ranks changed" in table


def test_nothing_to_time_is_said(store, url) -> None:
    backbone = load_backbone()
    store.create_study("a", Settings(), BackboneRecord("digits", backbone.fingerprint, 10, backbone.shape))
    with pytest.raises(VittleError, match="study 'a' has no front to time yet; continue it with: vittle resume a"):
        retime(store.study("a"), store, "cpu")
