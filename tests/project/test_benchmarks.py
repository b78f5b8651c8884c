"""The benchmarks run, and what they compare with is right."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch
from torch import nn

import comparing
import judging
import latency
import merge_embedding
import merging
import methods
import photographs
from methods import Run, Trial
from models import make_model
from problem import Source, load
from recorded import SHAPE
from static_checks import ROOT
from tome import PlainToMe
from vittle import Schedule, apply, macs, presets
from vittle.reductions import digits
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import Choice, Parameter


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
    parts = {name: (images[:64], labels[:64]) for name, (images, labels) in digits.splits().items()}
    monkeypatch.setattr(digits, "splits", lambda: parts)
    monkeypatch.setattr(merge_embedding, "REMOVED", (3, 6))
    merge_embedding.compare(epochs=1, output=tmp_path / "merge_embedding.json")
    document = json.loads((tmp_path / "merge_embedding.json").read_text())
    assert [(row["removed"], row["images"]) for row in document["rows"]] == [
        (3, "search"), (3, "held-out"), (6, "search"), (6, "held-out")
    ]  # fmt: skip
    for row in document["rows"]:
        assert (row["mode"], row["n"], row["left"]) == ("modular", 64, {3: 29, 6: 3}[row["removed"]])
        assert 48 < row["key"] <= 64
        assert 48 < row["decoupled"] <= 64
    search = [row for row in document["rows"] if row["images"] == "search"]
    assert document["summary"][0]["met"] == all(row["decoupled"] >= row["key"] for row in search)


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


def search_benchmark():
    """By its path: its name is that of a folder of the package."""
    spec = importlib.util.spec_from_file_location("search_benchmark", ROOT / "benchmarks" / "search.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.ray
def test_a_quick_comparison_of_searches_writes_the_document(tmp_path) -> None:
    output = tmp_path / "search.json"
    benchmark = search_benchmark()
    benchmark.compare(quick=True, methods="decreasing,stock", output=output)
    first = json.loads(output.read_text())
    benchmark.compare(quick=True, methods="random", output=output)
    document = json.loads(output.read_text())
    assert set(document) == {"environment", "rows", "summary"}
    assert [(row["method"], row["trials"]) for row in document["rows"]] == [("decreasing", 17), ("random", 2), ("stock", 2)]
    assert [row for row in document["rows"] if row["method"] != "random"] == first["rows"]
    for row in document["rows"]:
        assert (row["dataset"], row["seed"], row["images"]) == ("digits", 0, [32, 32])
        assert 0 <= row["hypervolume"] == row["curve"][-1][-1] <= 1
        assert 0 < row["overhead_share"] < 1
        assert row["curve"][-1][:2] == [row["trials"], row["image_macs"]]
        assert row["curve"][-1][2] <= row["wall_s"]
        assert [macs for macs, _, _ in row["front"]] == sorted(macs for macs, _, _ in row["front"])
    assert set(document["summary"]["digits"]["hypervolume"]) == {"decreasing", "random", "stock"}
    assert document["summary"]["digits"]["macs_fraction"] is None


def test_the_sweeps_are_all_distinct_schedules_with_the_lossless_tail() -> None:
    problem = load(Source(limit=4))
    run = methods.run_constant(problem, 1, 0)
    macs = [trial.macs for trial in run.trials]
    assert len({trial.schedule.id for trial in run.trials}) == len(macs) == 33
    assert macs == sorted(macs, reverse=True)
    assert {trial.schedule.tail for trial in run.trials} == {"prefix"}
    assert run.trials[-1].image_macs == 4 * sum(macs)
    assert 0 < run.forward_s < run.wall_s
    assert run.wall_s >= run.trials[-1].wall_s > run.trials[0].wall_s


def test_random_search_draws_from_the_space_by_its_seed() -> None:
    problem = load(Source(limit=4))
    first, again, other = ([trial.schedule.id for trial in methods.run_random(problem, 3, seed).trials] for seed in (0, 0, 1))
    assert first == again != other


def test_the_stock_search_has_the_same_space() -> None:
    import vittle.search.workers  # noqa: F401, Ray reads its settings when it is imported

    stock = importlib.import_module("stock")
    space = [
        Parameter("share", 0, 1),
        Parameter("exponent", 0.25, 4, log=True),
        Parameter("start", 0, 9, integer=True),
        Parameter("width", 1, 8, integer=True, log=True),
        Choice("metric", ("key", "feature")),
    ]
    assert stock.OptunaSearch.convert_search_space(stock.param_space(space)) == {
        "share": optuna.distributions.FloatDistribution(0, 1),
        "exponent": optuna.distributions.FloatDistribution(0.25, 4, log=True),
        "start": optuna.distributions.IntDistribution(0, 9),
        "width": optuna.distributions.IntDistribution(1, 8, log=True),
        "metric": optuna.distributions.CategoricalDistribution(("key", "feature")),
    }


def made_up(*outcomes: tuple[float, int], stopped: tuple[int, ...] = ()) -> list[Trial]:
    """Trials of accuracies and percents of the backbone's MACs; one second and ten images each."""
    spent = np.cumsum([10 * macs for _, macs in outcomes]).tolist()
    return [
        Trial(presets.constant(SHAPE, index), accuracy, macs, spent[index], index + 1.0, index not in stopped)
        for index, (accuracy, macs) in enumerate(outcomes)
    ]


class RecordedJudge:
    """Held-out accuracy is a hundredth below that on the images searched on."""

    backbone = 0.95

    def point(self, trial: Trial) -> tuple[float, float]:
        return trial.macs / 100, trial.accuracy - 0.01


def test_a_front_holds_complete_trials_that_no_other_beats() -> None:
    trials = made_up((0.9, 60), (0.9, 50), (0.8, 50), (0.7, 40), (0.7, 40), (0.99, 30), (0.95, 90), stopped=(5,))
    assert [trials.index(one) for one in judging.front(trials)] == [3, 4, 1, 6]


def test_the_hypervolume_is_a_share_of_the_box() -> None:
    assert judging.volume([(0.0, 0.95)], 0.95) == pytest.approx(1)
    assert judging.volume([(0.5, 0.90)], 0.95) == pytest.approx(0.25)
    both = judging.volume([(0.5, 0.90), (0.75, 0.95)], 0.95)
    assert both == pytest.approx(0.25 + 0.25 * 0.5)
    assert judging.volume([(0.5, 0.90), (0.75, 0.95), (0.6, 0.89), (0.1, 0.84), (1.0, 0.99)], 0.95) == pytest.approx(both)
    assert judging.volume([], 0.95) == 0


def test_progress_is_noted_when_the_front_changes_and_at_the_end() -> None:
    run = Run(tuple(made_up((0.91, 50), (0.8, 60), (0.96, 75), (0.5, 99))), wall_s=5, forward_s=2, workers=2)
    curve = judging.progress(run, RecordedJudge())
    assert [point[:3] for point in curve] == [[1, 500, 1.0], [3, 1850, 3.0], [4, 2840, 4.0]]
    assert [point[3] for point in curve] == pytest.approx([0.25, 0.375, 0.375])
    row = judging.judge_run(run, RecordedJudge())
    assert (row["trials"], row["image_macs"], row["wall_s"], row["hypervolume"]) == (4, 2840, 5, curve[-1][3])
    assert row["overhead_share"] == pytest.approx(0.8)
    assert row["front"] == [[0.5, 0.9, 0.91], [0.75, 0.95, 0.96]]


def test_no_schedule_is_judged_twice() -> None:
    asked = []
    problem = SimpleNamespace(
        splits=SimpleNamespace(held_out="held out"),
        judge=lambda schedule, images: (asked.append((schedule.id, images)) or 0.9, 1.0),
        macs=lambda schedule: 100,
    )
    judge = judging.Judge(problem)
    first, second = made_up((0.9, 50), (0.8, 40))
    assert [judge.point(one) for one in (first, second, first)] == [(0.5, 0.9), (0.4, 0.9), (0.5, 0.9)]
    assert asked == [(schedule.id, "held out") for schedule in (Schedule(), first.schedule, second.schedule)]


def searched(method: str, seed: int, *curve: tuple[int, int, float, float], front=(), overhead=0.1) -> comparing.Row:
    trials, image_macs, wall_s, hypervolume = curve[-1]
    return {
        "dataset": "digits", "method": method, "seed": seed, "backbone_accuracy": 0.95, "trials": trials,
        "hypervolume": hypervolume, "image_macs": image_macs, "wall_s": wall_s + 1, "overhead_share": overhead,
        "front": [list(one) for one in front], "curve": [list(point) for point in curve],
    }  # fmt: skip


def test_fractions_are_what_it_took_to_reach_the_stock_result_with_the_same_seed() -> None:
    stock = [searched("stock", seed, (5, 500, 49, 0.3), (10, 1000, 99, 0.6)) for seed in range(3)]
    ours = [
        searched("vittle", 0, (2, 100, 5, 0.5), (4, 200, 10, 0.6), (9, 900, 50, 0.7), overhead=0.02),
        searched("vittle", 1, (2, 100, 5, 0.65), (8, 300, 20, 0.8), overhead=0.03),
        searched("vittle", 2, (8, 100, 5, 0.59), overhead=0.04),
    ]
    summary = comparing.summarise([*stock, *ours])["digits"]
    assert summary["macs_fractions"] == {"0": 0.2, "1": 0.1, "2": None}
    assert summary["wall_fractions"] == {"0": 0.1, "1": 0.05, "2": None}
    assert (summary["macs_fraction"], summary["wall_fraction"]) == (0.2, 0.1)
    assert (summary["reached"], summary["seeds"]) == (2, 3)
    assert summary["overhead_share"] == 0.03
    fewer = comparing.summarise([*stock[1:], *ours[1:]])["digits"]
    assert (fewer["macs_fraction"], fewer["wall_fraction"], fewer["reached"]) == (None, None, 1)


def test_hypervolumes_are_compared_after_equally_many_trials() -> None:
    rows = [
        searched("constant", 0, (1, 10, 1, 0.2), (33, 330, 33, 0.4)),
        searched("random", 0, (1, 10, 1, 0.1), (9, 90, 9, 0.5), (12, 120, 12, 0.9)),
        searched("random", 1, (2, 20, 2, 0.3), (12, 120, 12, 0.3)),
        searched("vittle", 0, (11, 10, 1, 0.7)),
    ]
    summary = comparing.summarise(rows)["digits"]
    assert summary["trials"] == 11
    assert summary["hypervolume"] == {"constant": 0.4, "random": 0.4, "vittle": 0.7}
    assert (summary["macs_fraction"], summary["seeds"]) == (None, 0)


def test_losses_are_those_of_what_searching_would_choose() -> None:
    sweeps = [
        searched("constant", 0, (2, 20, 2, 0.1), front=[(0.4, 0.80, 0.80), (0.55, 0.93, 0.90), (0.8, 0.95, 0.95)]),
        searched("decreasing", 0, (2, 20, 2, 0.1), front=[(0.5, 0.85, 0.84), (0.58, 0.91, 0.92)]),
    ]
    ours = [
        searched("vittle", seed, (2, 20, 2, 0.1), front=[(0.45, 0.92 - seed / 100, 0.90), (0.65, held_out, 0.94)])
        for seed, held_out in enumerate((0.95, 0.94, 0.93))
    ]
    summary = comparing.summarise([*sweeps, *ours])["digits"]
    assert summary["loss"]["0.5"] == {"tome": pytest.approx(0.10), "vittle": pytest.approx(0.04)}
    assert summary["loss"]["0.6"] == {"tome": pytest.approx(0.04), "vittle": pytest.approx(0.04)}  # not the luckier 0.93
    assert summary["loss"]["0.7"] == {"tome": pytest.approx(0.04), "vittle": pytest.approx(0.01)}
    assert summary["loss_ratio"] == {"0.3": None, "0.4": None, "0.5": 0.4, "0.6": 1.0, "0.7": 0.25}
    lossless = searched("constant", 0, (2, 20, 2, 0.1), front=[(0.6, 0.96, 0.95)])
    summary = comparing.summarise([lossless, *ours])["digits"]
    assert summary["loss"]["0.5"]["tome"] is None
    assert summary["loss_ratio"] == dict.fromkeys(["0.3", "0.4", "0.5", "0.6", "0.7"])


def test_rows_are_kept_where_they_can_be_compared() -> None:
    about = {"dataset": "digits", "backbone": "0123", "images": [449, 449]}
    rows = [{**about, "method": method, "seed": 0} for method in ("constant", "vittle")]
    rows.append({**about, "dataset": "photographs", "backbone": "4567", "method": "vittle"})
    earlier = {"environment": {"device": "a processor", "date": "2026-01-01"}, "rows": rows}
    here = {"device": "a processor", "date": "2026-02-02"}
    assert comparing.kept(earlier, ["vittle"], [about], here) == [rows[0], rows[2]]
    for abouts, environment in (([about], {**here, "device": "another"}), ([{**about, "backbone": "89ab"}], here)):
        with pytest.raises(VittleError, match="another machine or backbone"):
            comparing.kept(earlier, ["vittle"], abouts, environment)
    only = {**earlier, "rows": rows[:2]}
    assert comparing.kept(only, ["constant", "vittle"], [about], {**here, "device": "another"}) == []


def test_a_backbone_is_trained_on_photographs_and_searched_on_others(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(photographs, "PARTS", {"train": slice(32), "search": slice(32, 40), "held-out": slice(40, 44)})
    monkeypatch.setattr(photographs, "BATCH_SIZE", 16)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (44, 32, 32, 3), np.uint8), rng.integers(0, 10, 44)
    np.savez(tmp_path / "photographs.npz", images=images, labels=labels)
    source = Source("photographs", tmp_path / "photographs.npz", tmp_path / "photographs.safetensors")
    photographs.train(source.images, source.weights, epochs=1, progress=False)
    problem = load(source)
    assert sorted(map(bytes, problem.splits.search.pixels)) == sorted(map(bytes, images[32:40]))  # in an order of their own
    assert np.array_equal(problem.splits.held_out.labels, labels[40:])
    assert problem.backbone.fingerprint != load(Source(limit=1)).backbone.fingerprint
    np.savez(tmp_path / "photographs.npz", images=images[:40], labels=labels)
    with pytest.raises(VittleError, match=r"accepted: uint8 \(44, 32, 32, 3\)"):
        load(source)
    with pytest.raises(VittleError, match="no images and labels"):
        photographs.splits(source.weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "grid"), "error: unknown method 'grid'; accepted: constant, decreasing, random, stock, vittle"),
        (("--photographs", "x.npz"), "error: --photographs and --backbone go together"),
    ],
)
def test_bad_input_of_the_search_is_one_line(options, message, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["search.py", "--quick", *options])
    with pytest.raises(SystemExit) as exit_:
        search_benchmark().main()
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
