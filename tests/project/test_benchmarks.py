"""The benchmarks run, and what they compare with is right."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import latency
import merge_embedding
import merging
import photographs
import vittle
import watching
from models import make_model
from static_checks import ROOT
from tome import PlainToMe
from vittle import Schedule, apply, macs, presets
from vittle.objectives.quality.accuracy import to_input
from vittle.reductions import digits
from vittle.reductions.backbone import load_backbone
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.spaces.errors import VittleError


def candidates(removed: int, merged: int) -> merging.Models:
    backbone = make_model("plain")
    return merging.Models(backbone, apply(backbone, presets.constant(backbone, merged)), PlainToMe(backbone, removed))


def test_a_quick_run_writes_the_document(tmp_path) -> None:
    output = tmp_path / "results" / "merging.json"
    options = ["--quick", "--device", "cpu", "--threads", "1", "--output", str(output)]
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "merging.py"), *options], check=True)
    document = json.loads(output.read_text())
    assert set(document) == {"environment", "rows", "summary"}
    assert {"device", "torch", "threads", "python", "date"} <= set(document["environment"])
    assert document["environment"]["threads"] == 1
    assert [(row["batch"], row["removed"], row["mode"]) for row in document["rows"]] == [(1, 8, "eager"), (2, 8, "eager")]
    for row in document["rows"]:
        assert row["latency_ratio"] == pytest.approx(row["vittle_ms"] / row["backbone_ms"], rel=0.01)
        assert row["vittle_to_plain"] == pytest.approx(row["vittle_ms"] / row["plain_ms"], rel=0.01)
        assert row["macs_ratio"] == pytest.approx(0.737, abs=0.001)
        assert 0 < row["matching_share"] < 1
    assert [aim["rows"] for aim in document["summary"]] == [2, 2]
    assert {path.name for path in output.parent.iterdir()} == {"merging.json"}


@pytest.mark.usefixtures("smallest_profile")
def test_predictions_are_compared_with_what_is_measured(tmp_path, monkeypatch) -> None:
    output = tmp_path / "latency.json"
    monkeypatch.setattr(sys, "argv", ["latency.py", "--quick", "--device", "cpu", "--output", str(output)])
    monkeypatch.setattr(latency, "EFFORT", latency.Effort(rounds=1))
    with pytest.raises(SystemExit) as ended:
        latency.main()
    assert ended.value.code == 0
    document = json.loads(output.read_text())
    (row,) = document["rows"]
    assert {"device", "model", "batch", "schedules", "mape", "spearman"} <= set(row)
    assert row["schedules"] == len(row["checks"]) == 4
    off = [abs(check["predicted"] / check["measured"] - 1) for check in row["checks"]]
    assert row["mape"] == pytest.approx(sum(off) / 4, abs=1e-4)
    assert [aim["rows"] for aim in document["summary"]] == [1, 1]


def test_aims_of_prediction_are_met_by_the_rows_that_meet_them() -> None:
    rows = [
        {"model": "a", "batch": 1, "mape": 0.04, "spearman": 0.97},
        {"model": "b", "batch": 8, "mape": 0.06, "spearman": 0.99},
    ]
    mape, rank = latency.summarise(rows)
    assert (mape["rows_met"], mape["worst"], mape["worst_row"], mape["met"]) == (1, 0.06, "b, batch 8", False)
    assert (rank["rows_met"], rank["worst"], rank["worst_row"], rank["met"]) == (1, 0.97, "a, batch 1", False)


def test_the_merge_embedding_is_compared_with_the_keys(tmp_path, monkeypatch) -> None:
    images, labels = (np.concatenate(parts) for parts in zip(*digits.splits().values(), strict=True))
    np.savez(tmp_path / "p.npz", images=images[:160], labels=labels[:160])
    monkeypatch.setattr(photographs, "PARTS", {"train": slice(64), "search": slice(64, 96), "held-out": slice(96, 160)})
    monkeypatch.setattr(merge_embedding, "REMOVED", (4, 16))
    monkeypatch.setattr(merge_embedding, "VALIDATION", 20)
    given = {"backbone": digits.WEIGHTS, "epochs": 1, "output": tmp_path / "merge_embedding.json"}
    merge_embedding.compare(tmp_path / "p.npz", **given)
    document = json.loads((tmp_path / "merge_embedding.json").read_text())
    assert [(row["removed"], row["equal"]) for row in document["rows"]] == [
        (4, "tokens"), (4, "macs"), (16, "tokens"), (16, "macs")
    ]  # fmt: skip
    for row in document["rows"]:
        assert row["n"] == 64
        dearer = row["macs"]["decoupled"] / row["macs"]["key"] - 1
        assert 0.03 < dearer < 0.05 if row["equal"] == "tokens" else abs(dearer) < 0.01
        assert 48 < row["key"] <= 64
        assert row["decoupled"] - row["key"] == row["only_decoupled"] - row["only_key"]
        assert row["difference"][0] == round((row["decoupled"] - row["key"]) / 64, 4)
        assert row["difference"][1] <= row["difference"][0] <= row["difference"][2]
    (summary,) = document["summary"]
    assert summary["images"] == {"train": 64, "validation": 20, "verdict": 64}
    assert summary["met"] == ("beats" in summary["sentence"])
    monkeypatch.setattr("vittle.training.merge_embedding.train", None)  # what is there is not trained again
    merge_embedding.compare(tmp_path / "p.npz", **given)
    assert json.loads((tmp_path / "merge_embedding.json").read_text()) == document


@pytest.mark.parametrize("removed", [0, 5, 20])
@torch.inference_mode()
def test_vittle_and_the_published_method_agree(removed) -> None:
    merging.check(candidates(removed, removed))


@torch.inference_mode()
def test_other_logits_are_not_accepted() -> None:
    with pytest.raises(RuntimeError, match="logits differ"):
        merging.check(candidates(5, 6))


@torch.inference_mode()
def test_the_share_of_matching_leaves_the_model_as_it_was() -> None:
    models = candidates(5, 5)
    images = merging.make_images(models.backbone, 2)
    before, operators = models.vittle(images), [list(block) for block in models.vittle.operators]
    assert 0 < merging.matching_share(models.vittle, images) < 1
    assert [list(block) for block in models.vittle.operators] == operators
    assert torch.equal(models.vittle(images), before)
    unmerged = apply(models.backbone, Schedule())
    assert merging.matching_share(unmerged, images) == 0


def test_the_summary_names_the_worst_row() -> None:
    def row(batch: int, latency: float, plain: float) -> merging.Row:
        common = {"device": "cpu", "mode": "eager", "model": "m", "removed": 13, "macs_ratio": 0.5, "matching_share": 0.01}
        return {**common, "batch": batch, "latency_ratio": latency, "vittle_to_plain": plain}

    slower, following, share = merging.summarise([row(1, 0.9, 0.8), row(8, 0.55, 1.1), row(32, 0.6, 0.7)])
    assert (slower["met"], slower["worst"], slower["rows_met"], slower["rows"]) == (False, 1.1, 2, 3)
    assert "batch 8" in slower["worst_row"]
    assert (following["met"], following["worst"], following["rows_met"], following["rows"]) == (False, 1.2, 1, 2)
    assert share["met"] is True


def test_the_plain_model_merges_at_most_half() -> None:
    model = make_model("plain")  # 64 patches and a class token: 65, 33, 17, 9, 5
    seen: list[int] = []
    handle = model.norm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[1]))
    with torch.inference_mode():
        PlainToMe(model, 100)(merging.make_images(model, 1))
    handle.remove()
    assert seen == [5]
    assert macs(model, presets.constant(model, 100)) == macs(model, presets.kept(model, [33, 17, 9, 5]))


@pytest.mark.parametrize("family", ["pooled, no class token", "registers", "pooled with class token"])
def test_other_models_are_refused(family) -> None:
    model: nn.Module = make_model(family)
    with pytest.raises(VittleError, match="one class token"):
        PlainToMe(model, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--models", "deit_huge"), "error: unknown model 'deit_huge'"),
        (("--batches", "1,x"), "error: --batches is '1,x'; accepted: whole numbers from 1 on"),
        (("--removed", "-1"), "error: --removed is '-1'; accepted: whole numbers from 0 on"),
        (("--device", "abacus"), "error: device is 'abacus'; accepted: cpu"),
    ],
)
def test_bad_input_is_one_line(options, message, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["merging.py", *options])
    with pytest.raises(SystemExit) as exit_:
        merging.main()
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


@pytest.mark.ray
def test_scale_measures_workers_and_databases(tmp_path) -> None:
    output = tmp_path / "scale.json"
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "scale.py"), "--quick", "--output", str(output)], check=True)
    document = json.loads(output.read_text())
    workers = [row for row in document["rows"] if "workers" in row]
    assert [(row["workers"], row["trials"]) for row in workers] == [(1, 3), (2, 6)]
    for row in workers:
        assert row["efficiency"] == pytest.approx(row["trials"] * row["trial_s"] / (row["workers"] * row["wall_s"]), rel=0.01)
        assert 0 < row["efficiency"] < 1
    databases = [row for row in document["rows"] if "database" in row]
    assert [(row["database"], row["trials"]) for row in databases] == [("sqlite", 200), ("sqlite", 400)]
    assert document["summary"]["sqlite"]["front_ms"] == databases[-1]["front_ms"] > 0


def test_the_dashboard_is_measured_from_the_database_to_the_screen(tmp_path) -> None:
    output = tmp_path / "dashboard.json"
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "dashboard.py"), "--quick", "--output", str(output)], check=True)
    document = json.loads(output.read_text())
    (row,) = document["rows"]
    assert document["summary"] == row
    assert row["trials"] == 40
    assert 0 <= row["kept_ms"] < row["first_ms"]
    assert row["sent_bytes"] < row["json_bytes"]
    assert all(row[f"{name}_ms"] > 0 for name in ("changed", "contentful", "first_painted", "painted", "slider", "told"))


def test_what_is_said_of_watching_is_what_a_watch_does(tmp_path, monkeypatch) -> None:
    parts = digits.splits()
    few = {name: (parts[name][0][::10], parts[name][1][::10]) for name in ("search", "held-out")}  # 45 of each
    for owner, name, value in (
        (watching.digits, "splits", lambda: few),
        (watching, "FALL_BACKS", {"merging": ("backbone",)}),
        (watching, "WINDOWS", (20,)),
        (watching, "HALVINGS", 2),
        (watching, "SEEN_IN", 1),
        (watching, "ORDERS", 3),
        (watching, "ODD", (0.0, 1.0)),
    ):
        monkeypatch.setattr(owner, name, value)
    backbone = load_backbone()
    blocks = RecursiveBlocks.from_backbone(backbone.model, steps=1)
    blocks.save(tmp_path / "blocks", {})
    watching.quality(tmp_path / "blocks", tmp_path / "watching.json")
    document = json.loads((tmp_path / "watching.json").read_text())
    (alarms,) = document["false_alarms"]["rows"]
    assert (alarms["halvings"], alarms["orders"], alarms["windows"]) == (2, 6, 6 * 6)  # after 20, 25 ... 45 images
    assert alarms["over"] <= alarms["worst"] < 0.5
    pixels, labels = (np.concatenate([few[name][part] for name in ("search", "held-out")]) for part in (0, 1))
    order = np.random.default_rng(0).permutation(90)
    calm, entering = order[:45], order[45:]
    model = watching._model(backbone, blocks, "merging")
    watched = vittle.watch(model, to_input(pixels[calm], backbone.preprocessing, torch.device("cpu")), window=20)
    first = np.concatenate([entering, calm])
    found = vittle.worst_cases(watched, pixels[first], labels[first])
    rows = document["worst_cases"]["rows"]
    assert [(row["kind"], row["strength"]) for row in rows] == [(case.kind, case.strength) for case in found]
    for row, case in zip(rows, found, strict=True):
        if case.kind != "noise":  # which goes by an image's place
            assert (row["seen"], row["stays"]) == (case.alarm, case.alarm and case.stays)
            assert (row["scheduled"], row["uniform"]) == (round(90 * case.scheduled), round(90 * case.uniform))
            assert row["watched"] == row["uniform" if case.alarm else "scheduled"]
    assert {case.alarm for case in found} == {True, False}
    diluted = {row["share"]: row["seen"] for row in document["dilution"]["rows"]}
    assert diluted == {0.0: rows[0]["seen"], 1.0: next(row["seen"] for row in rows if row["kind"] == "noise")}
    assert diluted[1.0] == 1
