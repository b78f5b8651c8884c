"""Trained weights on their way: from a file into a search, its trials, the exported schedule, and the model that runs it."""

from pathlib import Path

import pytest
import torch
import yaml

import vittle
from models import make_model
from recorded import BACKBONE, make_study, run
from vittle import ScheduleError, VittleError, presets
from vittle.objectives.evaluator import Evaluator
from vittle.objectives.quality.accuracy import to_input
from vittle.objectives.quality.images import load_images
from vittle.reductions import digits
from vittle.reductions.backbone import load_backbone
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.search.coordinator import Coordinator
from vittle.search.study import prepare
from vittle.spaces.reduction import AdapterRecord
from vittle.storage import export
from vittle.storage.records import Settings


def save(path: Path, decoupled: int) -> MergeEmbedding:
    """A merge embedding of the digits backbone as it starts, said to have answered `decoupled` images, and the keys 440."""
    backbone = load_backbone()
    embedding = MergeEmbedding.from_keys(backbone.model)
    validation = {"images": 449, "against": "labels", "decoupled": decoupled, "key": 440}
    embedding.save(path, {"backbone": backbone.fingerprint, "removed": 6, "validation": validation})
    return embedding


def test_an_embedding_that_beats_the_keys_is_searched_with(tmp_path) -> None:
    embedding = save(tmp_path / "good.safetensors", 441)
    job = prepare(Settings(adapter=str(tmp_path / "good.safetensors")))
    assert job.record.adapters == {"merging": AdapterRecord(embedding.name, 32)}
    assert job.notes == []


def test_one_that_does_not_is_left_out_and_the_user_is_told(tmp_path) -> None:
    embedding = save(tmp_path / "tied.safetensors", 440)
    job = prepare(Settings(adapter=str(tmp_path / "tied.safetensors")))
    assert job.record.adapters == {}
    (note,) = job.notes
    assert note == (
        f"merge embedding {embedding.name} does not beat the metric key at 6 tokens a block "
        f"(440 of 449 validation images against 440); the search keeps metric key"
    )


def test_an_adapter_for_what_is_not_searched_is_refused(tmp_path) -> None:
    save(tmp_path / "good.safetensors", 441)
    with pytest.raises(VittleError, match="is a merge embedding, and merging is not searched; add it to --reductions"):
        prepare(Settings(adapter=str(tmp_path / "good.safetensors"), reductions=("pruning",)))
    with pytest.raises(VittleError, match="no merge embedding at nowhere"):
        prepare(Settings(adapter="nowhere"))


def test_a_search_proposes_it_remembers_it_and_says_where_it_is(store, monkeypatch) -> None:
    record = {"merging": AdapterRecord("modular-0123456789ab", 32)}
    monkeypatch.setattr("recorded.BACKBONE", BACKBONE.__class__(**{**BACKBONE.__dict__, "adapters": record}))
    study = make_study(store, adapter="/data/embedding.safetensors", trials=40)
    assert store.study("study").backbone.adapters == record
    run(Coordinator(study, store))
    learned = [trial for trial in store.trials("study") if any(part.adapter for part in trial.schedule.reductions)]
    assert learned
    assert all(trial.schedule.reductions[-1].embedding_width == 32 for trial in learned)
    exported = next(export.document(study, trial) for trial in learned if trial.state == "complete")
    assert exported["adapter"] == "/data/embedding.safetensors"
    text = export.to_yaml(exported)
    assert text.startswith(
        '# Apply with: vittle.apply(model, vittle.Schedule.load("this file"), "/data/embedding.safetensors")\n'
    )
    assert vittle.Schedule.from_dict(yaml.safe_load(text)["schedule"]).id == exported["id"]
    plain = next(trial for trial in store.trials("study") if trial.schedule.reductions and trial not in learned)
    assert "adapter" not in export.document(study, plain)


@torch.inference_mode()
def test_a_model_runs_with_it(tmp_path) -> None:
    embedding = save(tmp_path / "good.safetensors", 441)
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
    embedding = save(tmp_path / "good.safetensors", 441)
    job = prepare(Settings(adapter=str(tmp_path / "good.safetensors")))
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
