"""`vittle profile`, and the measuring that a launch does by itself."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import vittle.cli.commands
from dashboard_study import made_merge_start
from vittle.dashboards import text
from vittle.dashboards.terminal.study_tables import merge_start_table
from vittle.objectives.backbones.merge_start import MergeStart
from vittle.objectives.backbones.merge_start_measurement import find_merge_start as measured_alone
from vittle.objectives.latency.profile import Correction, LatencyProfile
from vittle.objectives.quality.images import load_images
from vittle.reductions.attention_statistics import Observer
from vittle.reductions.backbone import load_backbone
from vittle.search import inference
from vittle.search.inference import InferenceProblem
from vittle.search.reporter import Reporter
from vittle.search.schedules import Knowledge
from vittle.storage.settings import Settings
from vittle.storage.store import Store

QUICK = ("--batch-size", "2", "--time-limit", "1s")
pytestmark = pytest.mark.usefixtures("smallest_profile")


def invoke(*arguments: str):
    return CliRunner().invoke(vittle.cli.app, list(arguments), catch_exceptions=False)


@pytest.fixture
def job() -> InferenceProblem:
    backbone = load_backbone()
    return InferenceProblem(Settings(), backbone, load_images("digits", backbone.preprocessing, 10))


def test_what_is_printed_is_what_is_kept_and_a_second_run_looks_again_where_merging_may_start(url: str) -> None:
    printed = json.loads(invoke("profile", *QUICK, "--storage", url, "--images", "32", "--json").stdout)
    assert printed["model"] == "digits"
    merge_start = MergeStart.from_dict(printed["merge_start"])
    assert (merge_start.images, merge_start.depth) == (32, 12)
    assert Store.open(url).merge_start(load_backbone().fingerprint) == merge_start
    shown = invoke("profile", *QUICK, "--storage", url, "--images", "16").stdout
    again = Store.open(url).merge_start(load_backbone().fingerprint)
    assert again is not None
    assert again.images == 16
    assert text.merge_start(again) in shown
    assert "similarity" in shown


def test_bad_input_writes_nothing(tmp_path: Path, url: str) -> None:
    for arguments, message in (
        (["--model", "vit_nothing"], "unknown model 'vit_nothing'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--checkpoint", "nowhere.pth"], "no checkpoint at nowhere.pth"),
        (["--image-size", "wide"], "image size 'wide' is no size in pixels; accepted: 224, or 192x320"),
        (["--model", "test_vit", "--image-size", "100"], "image size 100x100 does not fit the model"),
        (["--image-size", "64"], "the weights of digits take images of 32x32 pixels"),
    ):
        with pytest.raises(vittle.VittleError, match=message):
            invoke("profile", "--storage", url, *arguments)
    assert invoke("profile", "--storage", url, "--images", "1").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def table_of(merge_start: MergeStart) -> list[str]:
    console = Console(width=80, force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(merge_start_table(merge_start))
    return captured.get().splitlines()


def test_the_table_has_a_line_per_block_and_marks_the_start() -> None:
    merge_start = made_merge_start()
    lines = [line.replace("▸", " ").split() for line in table_of(merge_start) if "±0" in line]
    similarity = merge_start.curve("similarity")
    assert [int(words[0]) for words in lines] == list(range(1, 13))
    assert [words[1] for words in lines] == [f"{value:.3f}" for value in similarity.values]
    assert [words[-1] for words in lines] == [f"{value:.1f}" for value in merge_start.curve("outlier").values]
    (marked,) = [line for line in table_of(merge_start) if line.strip().startswith("▸") and "±0" in line]
    assert marked.split()[1] == f"{merge_start.start + 1}"


def test_a_bar_is_as_long_as_its_block_is_high() -> None:
    merge_start = made_merge_start()
    values = merge_start.curve("similarity").values
    lines = [line.replace("▸", " ").split() for line in table_of(merge_start) if "±0" in line]
    eighths = [sum(" ▏▎▍▌▋▊▉█".index(cell) for cell in words[2]) for words in lines]
    expected = [64 * (value - min(values)) / (max(values) - min(values)) for value in values]
    assert eighths == pytest.approx(expected, abs=1)
    assert (min(eighths), max(eighths)) == (1, 64)


def test_the_sentence_says_where_how_sure_and_whether_it_is_a_rule_of_thumb() -> None:
    merge_start = made_merge_start()
    assert (merge_start.start, merge_start.low, merge_start.high) == (5, 4, 5)
    assert text.merge_start(merge_start) == (
        "Merging may start in block 6 of 12, after 5 dense blocks (95% interval: block 5 to 6; 256 images)."
    )
    thumb = made_merge_start(rising=False)
    assert "By rule of thumb, a sixth of the depth, merging may start in block 3 of 12, after 2 dense" in text.merge_start(
        thumb
    )


@pytest.fixture
def no_shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept for workers, and no Ray is asked for room."""
    nothing = (lambda packed: packed, lambda kept: kept, 0)
    monkeypatch.setattr(inference, "object_store", lambda _most: nothing)


@pytest.mark.usefixtures("no_shelf")
def test_a_search_measures_its_backbone_once(url: str, job: InferenceProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(url, create=True)
    told: list[tuple[int, int]] = []
    job.examine(store, Reporter(prepared=lambda _what, *done: told.append(done)))
    known = job.known
    merge_start, sensitivity = store.merge_start(job.backbone.fingerprint), store.sensitivity(job.backbone.fingerprint)
    assert merge_start is not None
    alone = measured_alone(job.backbone, job.splits.search, "cpu", digest=job.splits.digest.id)
    assert merge_start == alone  # the same images, in one pass for everything
    assert told[-1] == (len(job.splits.search), len(job.splits.search))

    def measured_again(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(inference, "Observer", measured_again)
    monkeypatch.setattr(inference, "measure", measured_again)
    job.examine(store, Reporter(warned=pytest.fail))
    again = job.known
    assert (again.merge_start, again.sensitivity) == (merge_start, sensitivity)
    assert 0 < again.image_macs < known.image_macs


@pytest.mark.usefixtures("no_shelf")
def test_a_failure_is_told_and_does_not_end_a_search(url: str, job: InferenceProblem) -> None:
    store = Store.open(url, create=True)
    with torch.no_grad():
        job.backbone.model.blocks[3].mlp.fc2.bias[0] = float("inf")
    warnings: list[str] = []
    job.examine(store, Reporter(warned=warnings.append))
    assert (job.dense, job.known) == (None, Knowledge())
    (warning,) = warnings
    assert warning.startswith(
        "the backbone's blocks cannot be looked at (this model cannot be reduced: an empty schedule changes its "
    )
    assert store.merge_start(job.backbone.fingerprint) is None
    with pytest.warns(UserWarning, match="cannot be looked at"):  # nobody listens: still not silent
        job.examine(store, Reporter())


@pytest.mark.usefixtures("no_shelf")
def test_attention_that_overflows_costs_the_start_and_nothing_else(
    url: str, job: InferenceProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(url, create=True)
    statistics = Observer.statistics
    monkeypatch.setattr(Observer, "statistics", lambda self: {**statistics(self), "sink": statistics(self)["sink"] * np.nan})
    warnings: list[str] = []
    job.examine(store, Reporter(warned=warnings.append))
    (warning,) = warnings
    assert warning.startswith("where merging may start is not known (the sink of block 0 is not finite")
    assert job.dense is not None
    assert job.known.sensitivity is not None


def test_images_without_labels_are_enough(tmp_path: Path, url: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    data = ("--data", str(tmp_path / "images.npz"))
    printed = json.loads(invoke("profile", *QUICK, *data, "--storage", url, "--json").stdout)
    assert printed["merge_start"]["images"] == 8  # two thirds; the rest stays unseen


def test_latency_is_measured_once_and_answers_for_a_budget(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = ["profile", *QUICK, "--storage", url, "--images", "8"]
    printed = json.loads(invoke(*measure, "--json").stdout)
    (kept,) = Store.open(url).profiles()
    assert LatencyProfile.from_dict(printed["latency"]["profile"]) == kept
    assert printed["latency"]["mape"] == kept.mape
    assert [one["name"] for one in printed["examples"]] == ["cheapest", "middle", "dense"]
    assert printed["choices"] == printed["examples"]  # as a release before called them

    def measured_again(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("vittle.objectives.latency.profiler.Profiler.measure", measured_again)
    # However busy this machine is, and whatever reducing so small a batch costs: something is faster than the backbone.
    checks = tuple(replace(one, predicted=one.measured) for one in kept.checks)
    kept = replace(kept, correction=Correction(0.3, 0.0, 0.0), checks=checks)
    Store.open(url).save_profile(kept)
    examples = json.loads(invoke(*measure, "--json").stdout)["examples"]
    cheapest, middle, dense = (one["latency_ratio"] for one in examples)
    assert cheapest < middle < dense
    shown = invoke(*measure, "--latency-budget", "500%")
    assert shown.exit_code == 0
    assert text.latency(kept) in shown.stdout
    unmet = invoke(*measure, "--latency-budget", "0.001ms")
    assert unmet.exit_code == 1
    near = unmet.stderr.split("--latency-budget ")[1].strip()
    assert invoke(*measure, "--latency-budget", near).exit_code == 0
    assert "digits" in invoke("profiles", "--storage", url).stdout
    with pytest.raises(AssertionError):
        invoke(*measure, "--again")


def test_latency_needs_neither_weights_nor_images(url: str) -> None:
    quick = ("--batch-size", "1", "--time-limit", "1s")
    printed = json.loads(invoke("profile", "--model", "test_vit", *quick, "--storage", url, "--json").stdout)
    assert printed["merge_start"] is None
    assert printed["latency"]["profile"]["model"] == "test_vit"
