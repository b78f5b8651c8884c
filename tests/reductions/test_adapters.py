"""Trained weights on their way: from a file into a search, its trials, the exported schedule, and the model that runs it."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import vittle
from models import make_model
from recorded import BACKBONE, coordinate, make_study, run
from vittle import ScheduleError, VittleError, presets
from vittle.objectives.evaluator import Evaluator
from vittle.objectives.quality.accuracy import to_input
from vittle.objectives.quality.images import load_images
from vittle.reductions import digits
from vittle.reductions.adapters import Adapter, load_adapters
from vittle.reductions.backbone import Backbone, load_backbone, shape_of
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.sparsity_predictor import SparsityPredictor
from vittle.reductions.verdict import Comparison, Verdict
from vittle.search.inference import InferenceProblem
from vittle.spaces.reduction import AdapterRecord
from vittle.spaces.table import REDUCTIONS
from vittle.storage import export
from vittle.storage.settings import Settings


class Scores(nn.Module):
    """What another reduction might have trained: one weight, kept as text."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    @classmethod
    def load(cls, path: str | Path, backbone: Backbone | None = None) -> "Scores":
        found = cls(float(Path(path).read_text()))
        if backbone is not None:
            found.check(backbone)
        return found

    name = property(lambda self: f"scores-{self.weight.item():g}")
    record = property(lambda self: AdapterRecord(self.name, 1))

    def check(self, backbone: Backbone) -> None:
        if self.weight < 0:
            raise VittleError(f"the scores were not trained for {backbone.name}")

    def verdict(self) -> tuple[bool, str]:
        return bool(self.weight > 1), f"{self.name} are worth {self.weight.item():g}; the search prunes by attention"


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table in which pruning has an adapter, too."""
    monkeypatch.setitem(REDUCTIONS, "pruning", REDUCTIONS["pruning"]._replace(adapter=f"{__name__}:Scores"))


def save(path: Path, ours: int = 12) -> MergeEmbedding:
    """A merge embedding of the digits backbone as it starts, said to be alone right on `ours` images, the keys on 2."""
    backbone = load_backbone()
    embedding = MergeEmbedding.from_keys(backbone.model)
    compared = Comparison(at="45%", images=449, both=430, ours=ours, theirs=2)
    verdict = Verdict(rival="the metric key", comparisons=(compared,))
    embedding.save(path, {"backbone": backbone.fingerprint, "removed": [6], "verdict": verdict.document()})
    return embedding


def test_what_a_reduction_cannot_do_without_is_searched_with_whatever_its_verdict(tmp_path) -> None:
    blocks = RecursiveBlocks.from_backbone(load_backbone().model)
    blocks.save(tmp_path / "r.safetensors", {})
    settings = Settings(reductions=("recursion",), adapters={"recursion": str(tmp_path / "r.safetensors")})
    job = InferenceProblem.load(settings)
    assert job.subject.adapters == {"recursion": AdapterRecord(blocks.name, 1, 10)}
    assert job.notes == [f"recursion {blocks.name} was not compared with patches drawn by chance; take router random"]


def test_an_embedding_that_beats_the_keys_is_searched_with(tmp_path) -> None:
    embedding = save(tmp_path / "good.safetensors")
    job = InferenceProblem.load(Settings(adapters={"merging": str(tmp_path / "good.safetensors")}))
    assert job.subject.adapters == {"merging": AdapterRecord(embedding.name, 32)}
    assert job.notes == [
        f"merge embedding {embedding.name} beats the metric key at 45% of the MACs "
        "(12 images only by it, 2 only by the metric key), of 449 images"
    ]


def test_one_that_does_not_is_left_out_and_the_user_is_told(tmp_path) -> None:
    embedding = save(tmp_path / "tied.safetensors", ours=8)
    job = InferenceProblem.load(Settings(adapters={"merging": str(tmp_path / "tied.safetensors")}))
    assert job.subject.adapters == {}
    (note,) = job.notes
    assert note == (
        f"merge embedding {embedding.name} cannot be told from the metric key at 45% of the MACs "
        "(8 images only by it, 2 only by the metric key), of 449 images; the search keeps metric key"
    )


def test_more_right_answers_of_the_images_that_chose_it_are_no_verdict(tmp_path) -> None:
    backbone = load_backbone()
    embedding = MergeEmbedding.from_keys(backbone.model)
    validation = {"images": 2000, "against": "labels", "decoupled": 1282, "key": 1267}  # as files of old have it
    embedding.save(tmp_path / "old.safetensors", {"backbone": backbone.fingerprint, "removed": 6, "validation": validation})
    job = InferenceProblem.load(Settings(adapters={"merging": str(tmp_path / "old.safetensors")}))
    assert job.subject.adapters == {}
    told = f"merge embedding {embedding.name} was not compared with the metric key; the search keeps metric key"
    assert job.notes == [told]


def test_an_adapter_for_what_is_not_searched_is_refused(tmp_path) -> None:
    save(tmp_path / "good.safetensors")
    with pytest.raises(VittleError, match="is an adapter of merging, and merging is not searched; add it to --reductions"):
        Settings.of(adapters={"merging": str(tmp_path / "good.safetensors")}, reductions=("pruning",))
    with pytest.raises(VittleError, match="no merge embedding at nowhere"):
        InferenceProblem.load(Settings(adapters={"merging": "nowhere"}))


def test_a_search_proposes_it_remembers_it_and_says_where_it_is(store, monkeypatch) -> None:
    record = {"merging": AdapterRecord("modular-0123456789ab", 32)}
    monkeypatch.setattr("recorded.BACKBONE", BACKBONE.__class__(**{**BACKBONE.__dict__, "adapters": record}))
    study = make_study(store, adapters={"merging": "/data/embedding.safetensors"}, trials=40)
    assert store.study("study").backbone.adapters == record
    run(coordinate(study, store))
    learned = [trial for trial in store.trials("study") if any(part.adapter for part in trial.schedule.reductions)]
    assert learned
    assert all(trial.schedule.reductions[-1].embedding_width == 32 for trial in learned)
    exported = next(export.document(study, trial) for trial in learned if trial.state == "complete")
    copy = "best.merging.modular-0123456789ab.safetensors"
    assert exported["adapters"] == {"merging": copy}
    text = export.to_yaml(exported)
    apply_with, check_with = text.splitlines()[:2]
    assert apply_with == (f"# Apply with: vittle.apply(model, vittle.Schedule.load(\"this file\")), with '{copy}' beside it")
    assert check_with.startswith("# Check that it still holds")
    alone = export.to_yaml(exported, missing=study.settings.adapters).splitlines()
    assert alone[1] == f"# Put beside this file: a copy of '/data/embedding.safetensors', as '{copy}'"
    assert [alone[0], *alone[2:]] == text.splitlines()
    assert vittle.Schedule.from_dict(yaml.safe_load(text)["schedule"]).id == exported["id"]
    plain = next(trial for trial in store.trials("study") if trial.schedule.reductions and trial not in learned)
    assert "adapters" not in export.document(study, plain)


@torch.inference_mode()
def test_a_model_runs_with_it(tmp_path) -> None:
    embedding = save(tmp_path / "good.safetensors")
    backbone = load_backbone()
    images = to_input(digits.splits()["search"][0][:16], backbone.preprocessing, torch.device("cpu"))
    by = {"metric": "decoupled", "embedding": embedding.name, "embedding_width": 32}
    schedule = presets.constant(backbone.model, 3, **by)
    # It starts as the keys' mean over heads, so it merges as they do.
    expected = vittle.apply(backbone.model, presets.constant(backbone.model, 3))(images)
    fast = vittle.apply(backbone.model, schedule, tmp_path / "good.safetensors")
    torch.testing.assert_close(fast(images), expected, atol=1e-4, rtol=1e-4)
    half = vittle.apply(load_backbone().model.bfloat16(), schedule, tmp_path / "good.safetensors")
    assert half(images.bfloat16()).dtype == torch.bfloat16
    with pytest.raises(ScheduleError, match=f"needs the trained weights {embedding.name}, none is given; give their file"):
        vittle.apply(backbone.model, schedule)
    other = presets.constant(backbone.model, 3, **{**by, "embedding": "modular-ffffffffffff"})
    with pytest.raises(ScheduleError, match=f"needs the trained weights modular-ffffffffffff, {embedding.name} is given"):
        vittle.apply(backbone.model, other, tmp_path / "good.safetensors")
    with pytest.raises(VittleError, match="the merge embedding is for 12 blocks of width 96, this model has 4 of width 32"):
        vittle.apply(make_model("plain"), schedule, tmp_path / "good.safetensors")


def test_a_worker_measures_it_and_says_how_attention_was_told_the_sizes(tmp_path) -> None:
    embedding = save(tmp_path / "good.safetensors")
    job = InferenceProblem.load(Settings(adapters={"merging": str(tmp_path / "good.safetensors")}))
    splits = load_images("digits", job.backbone.preprocessing, 10)
    evaluator = Evaluator(job.backbone, splits, device="cpu", batch_size=4)
    schedule = presets.constant(
        job.backbone.model, 3, metric="decoupled", embedding=embedding.name, embedding_width=embedding.width
    )
    measured = evaluator.measure(schedule)
    assert measured["accuracy"].value > 0.9
    assert measured["latency_ms"].protocol["attention"]["form"] in ("mask", "channel")
    embedding_macs = 12 * 96 * 32 * 65 - sum(3 * block for block in range(12)) * 96 * 32
    plain = presets.constant(job.backbone.model, 3)
    assert measured["macs"].value - vittle.macs(job.backbone.model, plain) == embedding_macs


def test_an_old_setting_is_of_merging(tmp_path) -> None:
    old = {name: value for name, value in Settings().model_dump(mode="json").items() if name != "adapters"}
    assert Settings.model_validate({**old, "adapter": None}) == Settings()
    read = Settings.model_validate({**old, "adapter": "/data/embedding.safetensors"})
    assert read.adapters == {"merging": "/data/embedding.safetensors"}
    assert Settings.model_validate(read.model_dump(mode="json")) == read


@pytest.mark.parametrize("weight", [2, 1])
def test_two_adapters_at_once(two, tmp_path, weight: int) -> None:
    embedding = save(tmp_path / "good.safetensors")
    (tmp_path / "scores").write_text(str(weight))
    files = {"pruning": str(tmp_path / "scores"), "merging": str(tmp_path / "good.safetensors")}
    job = InferenceProblem.load(Settings(adapters=files, reductions=("pruning", "merging")))
    assert job.backbone.adapters.keys() == {"pruning", "merging"}
    both = {"pruning": AdapterRecord(f"scores-{weight}", 1), "merging": AdapterRecord(embedding.name, 32)}
    worth_it = [name for name in both if name == "merging" or weight > 1]
    assert job.subject.adapters == {name: both[name] for name in worth_it}
    assert job.notes == [adapter.verdict()[1] for adapter in job.backbone.adapters.values()]
    assert f"scores-{weight} are worth {weight}; the search prunes by attention" in job.notes
    with pytest.raises(VittleError, match="scores is an adapter of pruning, and pruning is not searched"):
        Settings.of(adapters=files)
    evaluator = Evaluator(job.backbone, load_images("digits", job.backbone.preprocessing, 10), device="cpu", batch_size=4)
    assert isinstance(evaluator.adapters["pruning"], Scores)


def test_what_cannot_be_loaded_is_one_line(two, tmp_path) -> None:
    save(tmp_path / "good.safetensors")
    (tmp_path / "scores").write_text("-1")
    good, scores, backbone = tmp_path / "good.safetensors", tmp_path / "scores", load_backbone()
    for files, message in (
        ({"magic": good}, "no reduction 'magic' has an adapter; accepted: recursion, sparsity, pruning, merging"),
        ({"sparsity": good}, "good.safetensors is not a sparsity predictor; accepted: what vittle train sparsity writes"),
        ({"merging": scores}, "scores is not a merge embedding; accepted: what vittle train merge-embedding writes"),
        ({"merging": good, "pruning": scores}, "the scores were not trained for digits"),
        ({"merging": tmp_path / "gone"}, "no merge embedding at .*gone; put it there, or make one with: vittle train"),
    ):
        with pytest.raises(VittleError, match=message) as refused:
            load_adapters(files, backbone)
        assert "\n" not in str(refused.value)
    assert load_adapters({"pruning": scores})["pruning"].name == "scores--1"  # of whatever backbone


def test_a_reduction_without_one_says_which_have() -> None:
    with pytest.raises(VittleError, match="no reduction 'pruning' has an adapter; accepted: recursion, sparsity, merging"):
        load_adapters({"pruning": "scores"})


def test_every_class_of_the_table_is_an_adapter(tiny: nn.Module, two) -> None:
    trained = [
        RecursiveBlocks.from_backbone(tiny),
        SparsityPredictor.for_backbone(shape_of(tiny)),
        MergeEmbedding.from_keys(tiny),
    ]
    found = [*trained, Scores(1.0)]
    named = {entry.adapter.rpartition(":")[2] for entry in REDUCTIONS.values() if entry.adapter is not None}
    assert {type(one).__name__ for one in found} == named
    assert all(isinstance(one, Adapter) for one in found)
    for one, otherwise in zip(
        trained,
        (
            "patches drawn by chance; take router random",
            "keys chosen by a sample of queries; the search keeps selection sampled",
            "the metric key; the search keeps metric key",
        ),
        strict=True,
    ):
        assert one.verdict() == (False, f"{one.kind} {one.name} was not compared with {otherwise}")


@torch.inference_mode()
def test_adapters_are_given_by_reduction_too(two, tmp_path) -> None:
    embedding = save(tmp_path / "good.safetensors")
    (tmp_path / "scores").write_text("2")
    backbone = load_backbone()
    schedule = presets.constant(backbone.model, 3, metric="decoupled", embedding=embedding.name, embedding_width=32)
    files = {"merging": tmp_path / "good.safetensors", "pruning": tmp_path / "scores"}
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = vittle.apply(backbone.model, schedule, tmp_path / "good.safetensors")(images)
    torch.testing.assert_close(vittle.apply(backbone.model, schedule, files)(images), expected, rtol=0, atol=0)
