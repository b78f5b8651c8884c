"""Searches are compared on the same problem, by the same judge."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

import comparing
import judging
import methods
import photographs
from methods import Run, Trial
from problem import Source, load
from recorded import SHAPE
from static_checks import ROOT
from vittle import Schedule, presets
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import Choice, Parameter


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
