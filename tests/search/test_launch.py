"""Real searches: Ray workers, real clocks, real processes that are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from sqlalchemy import update
from typer.testing import CliRunner

import recorded
import vittle
import vittle.cli.commands
from rankings import ranked
from vittle.objectives.evaluation import Evaluation
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.quality.images import load_images
from vittle.reductions.backbone import load_backbone
from vittle.search import inference
from vittle.search import study as studies
from vittle.search.coordinator import Assignment, Coordinator
from vittle.search.inference import InferenceProblem
from vittle.search.reporter import Reporter
from vittle.search.scheduler import SEEN
from vittle.search.study import run
from vittle.search.workers import Bridge, Pool, Worker, ray_session
from vittle.storage import records
from vittle.storage.holder import Holder
from vittle.storage.settings import Settings
from vittle.storage.tables import StudyRow, now

pytestmark = pytest.mark.ray
# A wide budget and few small trials: what is tested is the machinery, not the speed of a busy test machine.
QUICK = {"latency_budget": "500%", "trials": 4, "batch_size": 4, "predict": False}


@pytest.fixture(scope="module", autouse=True)
def running_ray() -> Iterator[None]:
    """A Ray with two CPUs and a GPU that it only believes in, as a user may have started it."""
    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_search_ends_with_a_confirmed_front(store) -> None:
    settings = Settings(**QUICK)
    job = InferenceProblem.load(settings)
    told: list[int] = []
    confirmed: list[int] = []
    reporter = Reporter(lambda trial: told.append(trial.number), lambda trial, left: confirmed.append(trial.number))
    study = run(store.create_study("a", settings, job.subject), job, store, reporter)
    assert study.state == "complete"
    assert sorted(told) == [0, 1, 2, 3, 4]
    trials = store.trials("a")
    assert {trial.state for trial in trials} <= {"complete", "stopped"}
    front = ranked(trials, study.budget).front(study.budget)
    assert front
    assert all(trial.confirmed for trial in front)
    assert {trial.number for trial in front} | {0} <= set(confirmed)  # others may have left the front since
    measured = front[0].measurements["confirmation"]
    assert measured["accuracy"].n == len(job.splits.held_out)
    assert measured["latency_ms"].protocol["batch_size"] == 4


def test_a_search_that_predicts_measures_what_enters_its_front(store, monkeypatch) -> None:
    monkeypatch.setattr(inference, "LAUNCH_SECONDS", 1.0)
    # However busy this machine is: what is tested is what is done with predictions.
    monkeypatch.setattr(LatencyProfile, "trusted", property(lambda self: True))
    settings = Settings(**{**QUICK, "trials": 8, "predict": True})
    job = InferenceProblem.load(settings)
    told: list[tuple[str, int, int]] = []
    reporter = Reporter(prepared=lambda what, *done: told.append((what, *done)))
    study = run(store.create_study("a", settings, job.subject), job, store, reporter)
    assert study.state == "complete"
    assert {what for what, _, _ in told} == {"latency profile", "backbone on images"}
    assert told[-1][1] == told[-1][2]
    (profile,) = store.profiles()
    trials = store.trials("a")
    assert records.profiled(trials) == profile.key
    searched = [trial.measurements["search"]["latency_ratio"].protocol for trial in trials[1:]]
    measured = [protocol for protocol in searched if protocol.get("source") != "predicted"]
    assert measured  # the first trial enters an empty front
    assert all(protocol["profile"] == profile.key for protocol in measured)
    assert any(protocol.get("predicted", 0) > 0 for protocol in measured)  # what the short profile knows
    for trial in ranked(trials, study.budget).front(study.budget):
        assert trial.judged["latency_ratio"].protocol.get("source") != "predicted"
        assert trial.confirmed


def steps(worker: Worker) -> list[tuple[int, Evaluation]]:
    """Every outcome until the worker is done."""
    outcomes = []
    done = False
    while not done:
        result = worker.step()
        outcomes += result[SEEN]
        done = result["done"]
    return outcomes


def test_a_worker_measures_no_latency_for_another_device() -> None:
    profile = recorded.latency_profile()
    job = InferenceProblem.load(Settings(**QUICK))
    schedule = vittle.presets.constant(job.backbone.model, 5, tail="prefix")
    assigned = Assignment(1, schedule, {"profile": profile.key, "predicted": profile.predict(schedule)})
    for target, source in ((profile.key, "predicted"), (None, None)):
        worker = Worker.__new__(Worker)
        problem = InferenceProblem(Settings(**QUICK, target=target), job.backbone, job.splits)
        worker.setup({"assignments": [assigned]}, problem=problem)
        *_, (_, outcome) = steps(worker)
        measured = outcome.measurements
        assert measured["accuracy"].n == len(job.splits.search)
        assert measured["latency_ratio"].protocol.get("source") == source


def test_prefixes_in_the_object_store_change_no_outcome_and_save_work(store, monkeypatch) -> None:
    """Two workers read what the launching process has kept; a search without a cache finds the same, for more MACs."""
    profile = recorded.latency_profile()
    store.save_profile(profile)
    found, processes = {}, set()
    completed = Bridge.on_trial_complete

    def listen(self: Bridge, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if result and result[SEEN]:
            processes.add(result["pid"])
        completed(self, trial_id, result, error)

    monkeypatch.setattr(Bridge, "on_trial_complete", listen)
    for name, cache in (("with", 2**30), ("without", 0)):
        settings = Settings(target=profile.key, trials=10, sampler="random", until_flat=False, workers=2, cache=cache)
        job = InferenceProblem.load(settings)
        job.prepare(store, Reporter())
        study = store.create_study(name, settings, job.subject)
        coordinator = studies.search(study, job, store, Reporter())
        assert coordinator.done
        trials = store.trials(name)
        assert {trial.state for trial in trials} <= {"complete", "stopped"}
        assert {"backbone", "plan"} <= {trial.origin for trial in trials}
        found[name] = {trial.schedule.id: trial.judged["accuracy"] for trial in trials}
    assert len(processes) == 4  # however short trials are, both workers of both searches had some
    both = found["with"].keys() & found["without"].keys()
    assert len(both) >= 7  # the sampler's answers may come back in another order
    # Which rivals there are when a trial is judged is a matter of time, so one search may stop what the other does not.
    alike = [pair for one in both if (pair := (found["with"][one], found["without"][one]))[0].n == pair[1].n]
    assert len(alike) >= 6
    assert all(mine.protocol["right"] == plain.protocol["right"] for mine, plain in alike)
    saved = [(mine.protocol["image_macs"], plain.protocol["image_macs"]) for mine, plain in alike]
    assert sum(mine for mine, _ in saved) < 0.95 * sum(plain for _, plain in saved)


def test_a_study_that_another_process_runs_is_refused_and_left_as_it_is(store) -> None:
    job = InferenceProblem.load(Settings(**QUICK))
    study = store.create_study("busy", job.settings, job.subject)
    elsewhere = Holder("mia", "node 7", 4711, 1.5)
    with store.transaction() as session:
        session.execute(update(StudyRow).values(holder=str(elsewhere), heartbeat=now()))
    store.set_state("busy", "running")
    with pytest.raises(vittle.VittleError, match="study 'busy' is being run by mia on node 7"):
        run(study, job, store, Reporter())
    assert (store.study("busy").state, store.trials("busy")) == ("running", [])


def test_workers_share_a_gpu_and_load_their_model_once(store, monkeypatch, tmp_path) -> None:
    settings = Settings(**{**QUICK, "trials": 6}, workers=2, gpus_per_worker=0.5)
    job = InferenceProblem.load(settings)
    setup = Worker.setup

    class Counted(Worker):
        def setup(self, config, **built) -> None:
            with (tmp_path / str(os.getpid())).open("a") as file:
                file.write("load\n")
            setup(self, config, **built)

    monkeypatch.setattr("vittle.search.workers.Worker", Counted)
    study = run(store.create_study("a", settings, job.subject), job, store, Reporter())
    assert study.state == "complete"
    trials = store.trials("a")
    assert len(trials) == 7
    assert {trial.state for trial in trials} <= {"complete", "stopped"}
    assert {trial.measurements["search"]["latency_ms"].protocol["threads"] for trial in trials} == {1}  # the CPU it was granted
    assert [file.read_text() for file in tmp_path.glob("[0-9]*")] == ["load\n"] * 2


def test_workers_that_die_hang_or_lack_memory_fail_the_trial_that_is_to_blame_and_are_replaced(
    store, monkeypatch, tmp_path
) -> None:
    profile = recorded.latency_profile()
    store.save_profile(profile)
    settings = Settings(target=profile.key, latency_budget="500%", trials=14, workers=2, trial_time_limit=20.0)
    job = InferenceProblem.load(settings)
    job.prepare(store, Reporter())

    class Dying(Worker):
        """Dies whenever it evaluates trial 3, and once with trial 5; says in files what it did."""

        def step(self):
            if 3 in self._assigned or (5 in self._assigned and not (tmp_path / "died.5").exists()):
                (tmp_path / f"died.{5 if 5 in self._assigned else os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().step()

        def _begin(self, one: Assignment, evaluator):
            (tmp_path / f"{os.getpid()}.worked").touch()
            if one.number == 7:
                time.sleep(1000)
            if one.number == 9:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super()._begin(one, evaluator)

    monkeypatch.setattr("vittle.search.workers.Worker", Dying)
    coordinator = Coordinator(store.create_study("a", settings, job.subject), job, store)
    Pool(job).search(coordinator)
    assert coordinator.done
    trials = store.trials("a")
    assert {trial.number: trial.reason for trial in trials if trial.state == "failed"} == {
        3: "its worker died, each of 3 times",
        7: "over its time limit: no result within 20 s",
        9: "OutOfMemoryError: CUDA out of memory",
    }
    assert {trial.state for trial in trials} <= {"complete", "stopped", "failed"}
    assert (trials[5].attempts, trials[9].attempts) == (2, 1)
    assert len(trials) == 15
    # Two at first; five in the place of those that died with trials 3 and 5, hung, and were without memory.
    assert len(list(tmp_path.glob("*.worked"))) >= 5


def test_an_error_in_a_trial_is_its_reason(monkeypatch) -> None:
    settings = Settings(**QUICK)
    job = InferenceProblem.load(settings)
    with torch.no_grad():
        job.backbone.model.head.bias[0] = float("nan")
    monkeypatch.setattr("vittle.objectives.evaluator.check_identity", lambda model: None)
    worker = Worker.__new__(Worker)
    assignments = {"assignments": [Assignment(0, vittle.Schedule())]}
    worker.setup(assignments, problem=job)
    ((_, outcome),) = steps(worker)
    assert outcome.reason == "FloatingPointError: the model's logits are not finite"
    assert not outcome.measurements


def test_a_model_that_a_worker_cannot_load_fails_the_study_with_the_reason(store) -> None:
    settings = Settings(**QUICK)
    job = InferenceProblem.load(settings)
    with torch.no_grad():
        job.backbone.model.head.bias[0] = float("nan")
    warned: list[str] = []
    study = run(store.create_study("a", settings, job.subject), job, store, Reporter(warned=warned.append))
    assert study.state == "failed"
    assert "the backbone's blocks cannot be looked at" in warned[-1]
    (trial,) = store.trials("a")
    assert trial.reason.startswith("UnsupportedBackboneError: this model cannot be reduced")


def test_more_than_ray_has_is_refused() -> None:
    refused = pytest.raises(vittle.VittleError, match="a worker wants 2 GPUs, Ray has 1")
    with refused, ray_session(Settings(**QUICK, gpus_per_worker=2.0)):
        pass


@torch.inference_mode()
def test_the_demo_path_from_launch_to_apply(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launch in a process of its own, export, apply: the accuracy in the file is the accuracy that one gets."""
    launch = [sys.executable, "-m", "vittle", "launch", "--batch-size", "4", "--measure-all", "--trials", "5"]
    launch += ["--latency-budget", "500%", "--study", "drill", "--storage", url, "--json"]
    subprocess.run(launch, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    command = CliRunner()
    assert command.invoke(vittle.cli.app, ["export", "drill", "--storage", url, "--output", "best.yaml"]).exit_code == 0
    import yaml

    exported = yaml.safe_load((tmp_path / "best.yaml").read_text())
    backbone = load_backbone()
    fast = vittle.apply(backbone.model, vittle.Schedule.load(tmp_path / "best.yaml"))
    held_out = load_images("digits", backbone.preprocessing, 10).held_out
    from vittle.objectives.quality.accuracy import predict

    predicted = predict(fast, held_out.pixels, backbone.preprocessing, torch.device("cpu"))
    claimed = exported["measurements"]["accuracy"]
    assert (predicted == held_out.labels).mean() == pytest.approx(claimed["value"], abs=1e-12)
    assert claimed["n"] == len(held_out)
    assert exported["measured_on"]["images"] == "held-out"
    assert exported["backbone"]["fingerprint"] == backbone.fingerprint
    verified = command.invoke(vittle.cli.app, ["verify", "best.yaml", "--json"])
    verdict = json.loads(verified.stdout)
    assert (verdict["state"], verdict["within"], verified.exit_code) == ("holds", True, 0)
