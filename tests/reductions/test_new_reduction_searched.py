"""A reduction that nobody has touched anything for is searched on a real backbone, exported, applied and shown."""

from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

import vittle
from new_reductions import ENTRIES
from vittle.dashboards.app import create_app
from vittle.objectives.evaluation import Evaluation
from vittle.reductions.backbone import load_backbone
from vittle.search.coordinator import Coordinator
from vittle.search.inference import InferenceProblem
from vittle.search.schedules import Knowledge
from vittle.spaces.table import REDUCTIONS
from vittle.storage import kinds
from vittle.storage.certificate import Certificate
from vittle.storage.ranking import Ranking
from vittle.storage.settings import Settings
from vittle.storage.store import Store


@pytest.fixture
def store(url: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with a study of it; a budget that everything holds, since time is not what is tested."""
    monkeypatch.setitem(REDUCTIONS, "averaging", ENTRIES["averaging"])
    monkeypatch.setattr("vittle.search.cost_estimates.HOPELESS", 1e9)  # on a busy machine, too
    asked = {"latency_budget": "200%", "batch_size": 8, "reductions": ("averaging", "merging"), "trials": 12}
    settings = Settings(**asked, predict=False, until_flat=False)
    store = Store.open(url, create=True)
    problem = InferenceProblem.load(settings)
    problem.know(Knowledge())
    coordinator = Coordinator(store.create_study("study", settings, problem.subject), problem, store)
    evaluator = problem.evaluator()
    while (one := coordinator.next()) is not None:
        seen = Evaluation(verdict="going")
        for seen in evaluator.climb(one.candidate, one.rivals, one.hints):
            if coordinator.judge(one.number, seen).ended:
                break
        coordinator.finish(one.number, seen)
    return store


def test_it_is_searched_exported_applied_and_shown(store: Store, tmp_path: Path) -> None:
    study, trials = store.study("study"), store.trials("study")
    averaged = [trial for trial in trials if any(part.name == "averaging" for part in trial.schedule.reductions)]
    assert {trial.state for trial in trials} <= {"complete", "stopped"}
    assert len(averaged) >= 3
    assert {trial.origin for trial in averaged} >= {"late"}  # a start of its own
    assert all(trial.judged["macs"].value < trials[0].judged["macs"].value for trial in averaged)
    assert {trial.judged["parameters"].value for trial in trials} == {trials[0].judged["parameters"].value}

    chosen = averaged[0]
    path = tmp_path / "best.yaml"
    exported = kinds.document(study, chosen, Ranking.of(trials, study.goals))
    path.write_text(kinds.to_yaml(study, exported))
    assert Certificate.load(path).schedule == chosen.schedule
    model = load_backbone().model
    applied = vittle.apply(model, vittle.Schedule.load(path))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert not torch.allclose(applied(images), model(images))

    client = TestClient(create_app(store), base_url="http://127.0.0.1")
    twin = client.get(f"/studies/study/trials/{chosen.number}.json").json()
    assert "averaging from block" in twin["summary"]
    assert "averaging" in {act["reduction"] for block in twin["blocks"] for act in block["acts"]}
    assert "averages" in twin["pictures"]
    page = client.get(f"/studies/study/trials/{chosen.number}", headers={"accept-language": "ja"}).text
    assert "What is averaged" in page
    assert "attention averaged" in page  # among the words that scripts speak
