"""Certificates that are verified, and fronts that are timed again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

import vittle.cli.commands
from rankings import ranked
from vittle import VittleError, presets
from vittle.objectives.latency.environment import environment
from vittle.objectives.measurement import Measurement, exact, proportion
from vittle.reductions.backbone import load_backbone
from vittle.search.remeasure import retime, verify
from vittle.spaces import Schedule, costs
from vittle.storage import export, fronts
from vittle.storage.certificate import EXIT_CODES, Certificate
from vittle.storage.findings import Disturbance
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


def test_a_certificate_says_the_image_size_that_was_asked_for(tmp_path, store) -> None:
    model = timm.create_model("test_vit", num_classes=10, img_size=(64, 96))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone("test_vit", tmp_path / "w.safetensors", (64, 96))
    settings = Settings(
        model="test_vit", checkpoint=str(tmp_path / "w.safetensors"), image_size=(64, 96), batch_size=2, cpus_per_worker=THREADS
    )
    study = store.create_study("a", settings, BackboneRecord("test_vit", backbone.fingerprint, 10, backbone.shape))
    number = store.start_trial("a", "start", presets.constant(backbone.shape, 2), {})
    store.finish_trial("a", number, "complete", {**measured(1e6, 440), "macs": exact("macs", 1)})
    (trial,) = store.trials("a")
    path = tmp_path / "best.yaml"
    path.write_text(export.to_yaml(export.document(study, trial)))
    assert Certificate.load(path).image_size == (64, 96)
    assert verify(path, device="cpu").state == "holds"
    # Without it the patches of the file form no square.
    path.write_text(path.read_text().replace("image_size: 64x96", "image_size: null"))
    with pytest.raises(VittleError, match="24 patches that w.safetensors was trained with form no square"):
        verify(path, device="cpu")


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


def interval(low: float, high: float, **about: object) -> dict[str, Measurement]:
    return {"latency_ratio": Measurement("latency_ratio", (low + high) / 2, low, high, 15, about)}


class TestNoise:
    """A schedule that was exported for 60 %, and took 50 % of the backbone's latency."""

    @pytest.fixture
    def certificate(self, tmp_path: Path, store: Store) -> Certificate:
        return Certificate.load(certified(tmp_path, store, "60%", ratio=0.5))

    @pytest.mark.parametrize(
        ("low", "high", "covered"),
        [
            (0.48, 0.52, True),
            (0.45, 0.60, True),  # noise that the claim leaves room for
            (0.59, 0.611, True),  # over it by less than two measurements differ
            (0.59, 0.62, None),
            (0.30, 0.90, None),  # the value alone would hold
            (0.599, 0.70, None),
            (0.601, 0.62, False),
            (0.90, 0.95, False),
        ],
    )
    def test_what_the_interval_leaves_open_is_not_told(
        self, certificate: Certificate, low: float, high: float, covered: bool | None
    ) -> None:
        assert certificate.covers(interval(low, high)) is covered

    @pytest.mark.parametrize(
        ("low", "high", "covered"), [(0.45, 0.55, True), (0.59, 0.70, None), (0.65, 0.70, None), (0.91, 0.95, False)]
    )
    def test_what_was_disturbed_has_to_be_far_off_to_accuse(
        self, certificate: Certificate, low: float, high: float, covered: bool | None
    ) -> None:
        assert certificate.covers(interval(low, high, noisy="something else had the processor")) is covered

    @pytest.mark.parametrize(
        ("noisy", "said"),
        [
            ({}, "the noise exceeds the claim: at most 60.0% holds, and it may be less or more; verify again where nothing"),
            ({"noisy": "a compiler ran"}, "noisy: a compiler ran; close what else runs here and verify again"),
        ],
    )
    def test_it_is_a_verdict_of_its_own(self, tmp_path: Path, store: Store, monkeypatch, noisy: dict, said: str) -> None:
        path = certified(tmp_path, store, "60%", ratio=0.5)
        loud = {
            name: Measurement(name, scale * 0.6, scale * 0.4, scale * 0.9, 15, {**protocol(), **noisy})
            for name, scale in (("latency_ratio", 1.0), ("latency_ms", 10.0))
        }
        monkeypatch.setattr("vittle.objectives.latency.stand.Stand.measure", lambda *_: loud)
        shown = invoke("verify", str(path))
        assert shown.exit_code == EXIT_CODES["cannot tell"] == 4
        assert shown.stdout.startswith("cannot tell: 60.0% of the backbone's latency (40.0% to 90.0%), 6.00 ms")
        assert said in shown.stdout
        assert "vittle retime" not in shown.stdout
        told = json.loads(invoke("verify", str(path), "--json").stdout)
        assert (told["state"], told["within"], told["noisy"]) == ("cannot tell", None, noisy.get("noisy"))

    def test_on_another_device_it_is_said_too(self, tmp_path: Path, store: Store, monkeypatch) -> None:
        path = certified(tmp_path, store, "60%", ratio=0.5, device="an abacus")
        loud = {name: Measurement(name, 0.6, 0.4, 0.9, 15, protocol()) for name in ("latency_ratio", "latency_ms")}
        monkeypatch.setattr("vittle.objectives.latency.stand.Stand.measure", lambda *_: loud)
        shown = invoke("verify", str(path))
        assert shown.exit_code == 3
        assert "whether it is within the claim here is lost in the noise" in shown.stdout


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
        ({"budget": "soon"}, "has no certificate to verify .latency budget 'soon' is not a time"),
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
    assert retiming.before == f"an abacus, {THREADS} thread{'s' * (THREADS != 1)}"
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


class TestOnTheSameDevice:
    """A front that was disturbed while it was timed, timed again where it was timed before."""

    @pytest.fixture
    def disturbed(self, store: Store) -> Study:
        return study_of(store, "60%", noisy="a compiler ran")

    @staticmethod
    def again(monkeypatch: pytest.MonkeyPatch, ratio: float, **about: object) -> None:
        one = measured(ratio, **about)
        found = {name: one[name] for name in ("latency_ms", "latency_ratio")}
        monkeypatch.setattr("vittle.search.remeasure._timed", lambda *_: found)

    def test_it_is_judged_by_what_was_timed_again(self, disturbed: Study, store: Store, url: str, monkeypatch) -> None:
        ranking = ranked(store.trials("a"), disturbed.budget)
        assert ranking.disturbance == Disturbance(4, 4, "a compiler ran")
        shown = invoke("front", "a", "--storage", url).stdout
        assert (
            "Timed under disturbance: 4 of 4 latencies that the front is chosen by are noisy (last: a compiler ran)." in shown
        )
        assert "Time them again with: vittle retime a" in shown
        self.again(monkeypatch, 0.45)
        retime(disturbed, store, "cpu")
        trials = store.trials("a")
        assert {trial.judged["latency_ratio"].value for trial in trials} == {0.45}
        assert all(trial.judged["accuracy"] == trial.measurements["search"]["accuracy"] for trial in trials)
        assert ranked(trials, disturbed.budget).disturbance is None
        assert fronts.standing(store, "a") == ranked(trials, disturbed.budget).standing
        assert "disturbance" not in invoke("front", "a", "--storage", url).stdout
        exported = export.document(store.study("a"), trials[1])
        assert exported["measurements"]["latency_ratio"]["value"] == 0.45
        assert "noisy" not in exported["certificate"]["protocol"]

    def test_a_confirmation_gives_way_too(self, disturbed: Study, store: Store, monkeypatch) -> None:
        store.confirm_trial("a", 1, measured(0.52, 430, noisy="a compiler ran"))
        self.again(monkeypatch, 0.45)
        retime(disturbed, store, "cpu")
        trial = store.trials("a")[1]
        assert trial.judged["latency_ratio"].value == 0.45
        exported = export.document(store.study("a"), trial)["measurements"]
        assert (exported["latency_ratio"]["value"], exported["accuracy"]["value"]) == (0.45, pytest.approx(430 / 449))

    def test_what_is_disturbed_again_is_no_better_than_calm(self, store: Store, monkeypatch) -> None:
        calm = study_of(store, "60%")
        self.again(monkeypatch, 0.45, noisy="a compiler ran")
        retime(calm, store, "cpu")
        assert [trial.judged["latency_ratio"].value for trial in store.trials("a")] == [1.0, 0.5, 0.4, 0.3]

    def test_few_noisy_ones_are_marked_and_no_more(self, store: Store) -> None:
        study_of(store, "60%")
        store.confirm_trial("a", 1, measured(0.5, 444, noisy="a compiler ran"))
        assert ranked(store.trials("a")).disturbance is None  # one of four


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
    times.update({0: 40.0, 1: 30.0, 3: 10.0, 5: 20.0})
    table = invoke("retime", study.name, "--storage", url).stdout
    assert "4 of 4 ranks changed" in table


def test_nothing_to_time_is_said(store, url) -> None:
    backbone = load_backbone()
    store.create_study("a", Settings(), BackboneRecord("digits", backbone.fingerprint, 10, backbone.shape))
    with pytest.raises(VittleError, match="study 'a' has no front to time yet; continue it with: vittle resume a"):
        retime(store.study("a"), store, "cpu")
