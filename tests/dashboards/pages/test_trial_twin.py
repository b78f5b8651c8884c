"""The document of one trial, against the store."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fastapi.testclient import TestClient

from dashboard_study import SHAPE, Synthetic, open_store
from rankings import ranked
from studies_to_show import client, one_of, pictured, store
from vittle import Schedule
from vittle.dashboards.app import create_app
from vittle.dashboards.documents import trial_document
from vittle.dashboards.words import words
from vittle.objectives.measurement import Measurement
from vittle.spaces import costs
from vittle.spaces.table import REDUCTIONS
from vittle.storage.store import Store

__all__ = ["client", "pictured", "store"]  # fixtures

NAME = "digits-60"


class TestTwin:
    def test_every_trial_is_as_it_is_stored(self, client: TestClient, store: Store) -> None:
        trials, study = store.trials(NAME), store.study(NAME)
        best = ranked(trials, study.budget).best()
        assert best is not None
        listed = client.get(f"/studies/{NAME}.json").json()["trials"]
        for trial, entry in zip(trials, listed, strict=True):
            twin = client.get(f"/studies/{NAME}/trials/{trial.number}.json").json()
            assert {name: twin[name] for name in entry} == entry
            assert twin["url"] == f"/studies/{NAME}/trials/{trial.number}"
            assert datetime.fromisoformat(twin["started"]).tzinfo is not None
            assert (twin["finished"] is None) == (trial.state == "running")
            assert Schedule.from_dict(yaml.safe_load(twin["yaml"])) == trial.schedule
            assert twin["best"] == (trial.number == best.number)
            compare = f"/studies/{NAME}/compare?trials={best.number},{trial.number}"
            assert twin["compare"] == (None if trial.number == best.number else compare)
            assert sorted(twin["phases"]) == sorted(trial.measurements)
            for phase, measured in trial.measurements.items():
                ratio = measured.get("latency_ratio")
                samples = twin["samples"][phase]
                assert ratio is not None
                assert samples["ratios"] == ratio.protocol["samples"]
                assert samples["p50"] == ratio.value
                assert samples["p95"] == pytest.approx(np.quantile(samples["ratios"], 0.95))
                assert len(samples["ratios"]) == samples["rounds"]
                assert twin["environment"][phase]["device"] == ratio.protocol["device"]
                self.check_classes(twin, phase, measured.get("accuracy_drop"))

    @staticmethod
    def check_classes(twin: dict[str, Any], phase: str, drop: Measurement | None) -> None:
        if drop is None:
            assert phase not in twin["classes"]
            return
        rows = twin["classes"][phase]["rows"]
        kept = drop.protocol["classes"]
        assert twin["classes"][phase]["whole"]
        assert {row["class"]: row["images"] for row in rows} == {at: n for at, n in enumerate(kept["images"]) if n}
        assert {row["class"]: row["lost"] * row["images"] for row in rows} == pytest.approx(
            {at: lost for at, lost in enumerate(kept["lost"]) if kept["images"][at]}
        )
        shares = [row["lost"] for row in rows]
        assert shares == sorted(shares, reverse=True)
        total = sum(row["lost"] * row["images"] for row in rows) / sum(row["images"] for row in rows)
        assert total == pytest.approx(drop.value)

    def test_blocks_add_up_to_the_schedule_and_its_cost(self, client: TestClient, pictured: Store, store: Store) -> None:
        asked = [(client, NAME, trial) for trial in store.trials(NAME)]
        real = TestClient(create_app(pictured), base_url="http://127.0.0.1")
        asked += [(real, "real", trial) for trial in pictured.trials("real")]
        dense = SHAPE.block_macs(queries=65, keys=65, mlp=65)
        for whom, name, trial in asked:
            twin = whom.get(f"/studies/{name}/trials/{trial.number}.json").json()
            left = 65
            for block in twin["blocks"]:
                assert block["entering"] == left
                taking_part = left - block["resting"]
                for act in block["acts"]:
                    taking_part -= act["removed"]
                    assert act["left"] == taking_part
                left = block["resting"] + min(taking_part, block["queries"])
                assert block["leaving"] == left
            assert [block["leaving"] for block in twin["blocks"]] == twin["tokens"]
            spent = sum(block["macs_share"] for block in twin["blocks"]) * dense + SHAPE.embed_macs + SHAPE.head_macs
            assert spent == pytest.approx(costs.macs(SHAPE, trial.schedule))
            assert twin["macs_share"] == pytest.approx(spent / costs.macs(SHAPE, Schedule()))
        twin = real.get("/studies/real/trials/4.json").json()
        acts = [act for block in twin["blocks"] for act in block["acts"]]
        assert [(act["reduction"], act["rule"]) for act in acts[:2]] == [("pruning", "pruning"), ("merging", "bipartite")]

    def test_visits_are_told_where_blocks_run_again_or_tokens_rest(self, pictured: Store) -> None:
        real = TestClient(create_app(pictured), base_url="http://127.0.0.1")
        twins = [real.get(f"/studies/real/trials/{number}.json").json() for number in range(6)]
        assert [twin["visits"] for twin in twins[:-1]] == [None] * 5
        steps = [(block["block"], block["step"], block["steps"], block["resting"]) for block in twins[-1]["visits"]]
        shared = [(1, 0, 5, 0), (1, 1, 5, 16), (1, 2, 5, 32), (1, 3, 5, 32), (1, 4, 5, 48)]
        assert steps == [(0, 0, 1, 0), *shared, (11, 0, 1, 0)]
        assert twins[-1]["tokens"] == [65] * 6 + [1]

    def test_windows_are_named_where_they_act(self) -> None:
        document = {"merging": {"kept": [65, 61, 57, *[40] * 9], "window": 4, "global_from": 3, "matching": "energy"}}
        study = type("", (), {"backbone": type("", (), {"shape": SHAPE})})
        blocks = trial_document.blocks(study, Schedule.from_dict(document))  # type: ignore[arg-type]
        rules = [act["rule"] for block in blocks for act in block["acts"]]
        assert rules == ["windows", "windows", "energy"]

    def test_there_are_words_for_every_reduction_and_rule(self) -> None:
        catalog = words().catalog["reductions"]
        assert set(catalog) == set(REDUCTIONS)
        rules = {rule for one in catalog.values() for rule in one["rules"]}
        expected = {"bipartite", "energy", "importance", "windows", "pruning", "sampled", "trained", "queries"}
        assert rules == expected | {"all", "learned", "norm", "random"}

    def test_neighbours(self, client: TestClient, store: Store) -> None:
        last = len(store.trials(NAME)) - 1
        for number, before, after in ((0, None, 1), (5, 4, 6), (last, last - 1, None)):
            twin = client.get(f"/studies/{NAME}/trials/{number}.json").json()
            urls = [None if one is None else f"/studies/{NAME}/trials/{one}" for one in (before, after)]
            assert [twin["previous"], twin["next"]] == urls

    def test_the_log_is_in_order_of_time(self, client: TestClient, store: Store) -> None:
        confirmed = next(trial for trial in store.trials(NAME) if trial.confirmed and trial.number)
        twin = client.get(f"/studies/{NAME}/trials/{confirmed.number}.json").json()
        happened = [one["what"] for one in twin["log"]]
        assert happened == ["started", "seen", "ended", "confirmation"]
        times = [one["at"] for one in twin["log"] if one["at"]]
        assert times == sorted(times)
        assert len(times) == 3
        assert twin["log"][1] == {"what": "seen", "at": None, "rungs": [32, 64, 128, 256, 449], "total": 449}
        stopped = one_of(store, "stopped")
        log = client.get(f"/studies/{NAME}/trials/{stopped.number}.json").json()["log"]
        assert [one["what"] for one in log] == ["started", "seen", "ended"]
        assert log[1]["rungs"] == [32, 64, 128]
        assert (log[2]["state"], log[2]["reason"]) == ("stopped", stopped.reason)

    def test_a_trial_that_was_begun_again_timed_elsewhere_and_measured_late(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        study = Synthetic(opened, "one")
        schedule = study.proposal()
        number = opened.start_trial("one", "sampler", schedule, {})
        opened.retry_trial("one", number)
        opened.finish_trial("one", number, "failed", reason="worker lost")
        opened.finish_trial("one", number, "complete", study.latency(schedule, 5))
        opened.keep_again("one", number, "device:0123456789ab", study.latency(schedule, 15))
        twin = TestClient(create_app(opened), base_url="http://127.0.0.1").get(f"/studies/one/trials/{number}.json").json()
        assert twin["phases"] == ["device:0123456789ab", "late"]
        assert twin["devices"]["device:0123456789ab"] == "Intel(R) Xeon(R) Gold 6448Y, 2 threads"
        assert {one["what"] for one in twin["log"]} == {"started", "again", "ended", "device", "late"}
        assert next(one["count"] for one in twin["log"] if one["what"] == "again") == 2

    def test_a_trial_from_before_rounds_and_classes_were_kept(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        study = Synthetic(opened, "one")
        schedule = study.proposal()
        measured = {**study.latency(schedule, 5), **study.judge(schedule, "search")}
        for one in measured.values():
            for name in ("samples", "classes", "measured_at"):
                dict.pop(one.protocol, name, None)  # type: ignore[arg-type]
        number = opened.start_trial("one", "sampler", schedule, {})
        opened.finish_trial("one", number, "complete", measured)
        twin = TestClient(create_app(opened), base_url="http://127.0.0.1").get(f"/studies/one/trials/{number}.json").json()
        assert (twin["samples"]["search"]["ratios"], twin["samples"]["search"]["rounds"]) == (None, 5)
        assert not twin["classes"]["search"]["whole"]
        rows = twin["classes"]["search"]["rows"]
        assert [[row["class"], row["lost"], row["images"]] for row in rows] == measured["accuracy_drop"].protocol["worst"]

    def test_a_predicted_latency_has_no_rounds(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        study = Synthetic(opened, "one", profile="c4d91be07a35")
        number = study.add(Schedule.from_dict({"merging": {"kept": [60] * 12}}), "sampler")
        twin = TestClient(create_app(opened), base_url="http://127.0.0.1").get(f"/studies/one/trials/{number}.json").json()
        assert twin["predicted"]
        assert twin["samples"] == {}

    @pytest.mark.parametrize("number", ["999", "-1", "x", "1.5", "0.json.json"])
    def test_another_trial_is_a_404_in_one_line(self, client: TestClient, number: str) -> None:
        for ending in ("", ".json"):
            answer = client.get(f"/studies/{NAME}/trials/{number}{ending}")
            assert answer.status_code == 404
            assert "it has 41 trials" in answer.text

    def test_a_page_without_pictures_says_how_to_get_them(self, client: TestClient) -> None:
        text = client.get(f"/studies/{NAME}/trials/3").text
        assert "<code>vittle dashboard</code>" in text
        assert 'class="drawn"' not in text
        assert client.get(f"/studies/{NAME}/trials/3/images.json").json()["images"] == []
