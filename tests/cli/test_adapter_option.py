"""`--adapter`, and the pair that `vittle export` writes: a schedule and the trained weights that it needs."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

import vittle
import vittle.cli.commands
from refusals import ADAPTED, refusal
from vittle import Schedule, VittleError, presets
from vittle.cli.options import parse_adapters
from vittle.objectives.latency.environment import environment
from vittle.objectives.measurement import Measurement, exact, proportion
from vittle.reductions.backbone import load_backbone
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.spaces import costs
from vittle.spaces.plain_yaml import to_yaml
from vittle.storage.certificate import Certificate
from vittle.storage.records import BackboneRecord
from vittle.storage.settings import Settings
from vittle.storage.store import Store


@pytest.fixture
def embedding(tmp_path: Path) -> MergeEmbedding:
    """In `tmp_path/trained.safetensors`."""
    backbone = load_backbone()
    found = MergeEmbedding.from_keys(backbone.model)
    found.save(tmp_path / "trained.safetensors", {"backbone": backbone.fingerprint})
    return found


@pytest.fixture
def studied(store: Store, url: str, embedding: MergeEmbedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with a study whose best schedule needs the embedding, and a working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    backbone = load_backbone()
    record = BackboneRecord("digits", backbone.fingerprint, 10, backbone.shape, {"merging": embedding.record})
    files = {"merging": str(tmp_path / "trained.safetensors")}
    store.create_study("a", Settings(latency_budget="500%", batch_size=2, adapters=files), record)
    learned = presets.constant(backbone.shape, 3, metric="decoupled", embedding=embedding.name, embedding_width=32)
    about = {**environment(torch.device("cpu")), "backbone_ms": 10.0}
    for schedule, ratio, right in ((Schedule(), 10.0, 446), (learned, 5.0, 445)):
        number = store.start_trial("a", "sampler" if schedule.reductions else "backbone", schedule, {})
        measured = {
            "accuracy": proportion("accuracy", right, 449, {"against": "labels"}),
            "latency_ratio": Measurement("latency_ratio", ratio, 0.99 * ratio, ratio, 15, about),
            "latency_ms": Measurement("latency_ms", 10 * ratio, 9.9 * ratio, 10 * ratio, 15, about),
            "macs": exact("macs", costs.macs(backbone.shape, schedule)),
        }
        store.finish_trial("a", number, "complete", measured)
    return url


def invoke(*arguments: str):
    return CliRunner().invoke(vittle.cli.app, list(arguments), catch_exceptions=False)


@torch.inference_mode()
def test_the_exported_pair_is_moved_applied_and_verified(studied, embedding, tmp_path) -> None:
    copy = f"best.merging.{embedding.name}.safetensors"
    assert invoke("export", "--storage", studied).exit_code == 0
    assert sorted(path.name for path in Path().iterdir()) == [copy, "best.yaml"]
    assert Path(copy).read_bytes() == (tmp_path / "trained.safetensors").read_bytes()
    text = Path("best.yaml").read_text()
    assert text.splitlines()[0].endswith(f"""Schedule.load("this file")), with '{copy}' beside it""")
    assert "Put beside" not in text
    assert str(tmp_path) not in text
    model = load_backbone().model
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    schedule = Schedule.load("best.yaml")
    expected = vittle.apply(model, Schedule(schedule.reductions, schedule.tail), tmp_path / "trained.safetensors")(images)
    shutil.move(tmp_path / "work", tmp_path / "elsewhere")
    (tmp_path / "trained.safetensors").unlink()
    moved = tmp_path / "elsewhere" / "best.yaml"
    torch.testing.assert_close(vittle.apply(model, Schedule.load(moved))(images), expected, rtol=0, atol=0)
    result = invoke("verify", str(moved), "--json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (0, "holds")

    (tmp_path / "elsewhere" / copy).rename(tmp_path / "other.safetensors")
    message = f"no merge embedding at .*elsewhere/{copy}; put it there"
    with pytest.raises(VittleError, match=message):
        vittle.apply(model, Schedule.load(moved))
    with pytest.raises(VittleError, match=message):
        invoke("verify", str(moved))
    given = Schedule.load(moved)
    torch.testing.assert_close(
        vittle.apply(model, given, {"merging": tmp_path / "other.safetensors"})(images), expected, rtol=0, atol=0
    )
    with pytest.raises(VittleError, match="the schedule needs no adapter of pruning; accepted: merging"):
        invoke("verify", str(moved), "--adapter", "pruning=p")
    for option in (f"merging={tmp_path / 'other.safetensors'}", f"{tmp_path / 'other.safetensors'}"):
        assert invoke("verify", str(moved), "--adapter", option).exit_code == 0


def test_a_file_from_before_names_a_path(studied, embedding, tmp_path) -> None:
    assert invoke("export", "--storage", studied).exit_code == 0
    document = yaml.safe_load(Path("best.yaml").read_text())
    del document["adapters"]
    Path("old.yaml").write_text(yaml.safe_dump({**document, "adapter": str(tmp_path / "trained.safetensors")}))
    Path(f"best.merging.{embedding.name}.safetensors").unlink()
    assert vittle.apply(load_backbone().model, Schedule.load("old.yaml")).num_classes == 10
    assert invoke("verify", "old.yaml").exit_code == 0
    assert Certificate.load(Path("old.yaml")).schedule.files == {"merging": tmp_path / "trained.safetensors"}


def test_the_names_follow_the_output(studied, embedding) -> None:
    copy = f"fast.v1.merging.{embedding.name}.safetensors"
    Path("out").mkdir()
    result = invoke("export", "--storage", studied, "--output", "out/fast.v1.yaml")
    assert f"wrote out/fast.v1.yaml with out/{copy}: trial 1 of a" in result.stdout
    assert sorted(path.name for path in Path("out").iterdir()) == [copy, "fast.v1.yaml"]


def test_an_export_that_is_interrupted_leaves_an_older_pair_whole(studied, embedding, monkeypatch) -> None:
    model, older = load_backbone().model, MergeEmbedding.from_keys(load_backbone().model, 16)
    copy = f"best.merging.{older.name}.safetensors"
    older.save(copy, {})
    kept = presets.constant(load_backbone().shape, 3, metric="decoupled", embedding=older.name, embedding_width=16)
    Path("best.yaml").write_text(to_yaml({"schedule": kept.to_dict(), "adapters": {"merging": copy}}))
    before, replace = {path.name: path.read_bytes() for path in Path().iterdir()}, os.replace

    def break_off(draft: Path, path: Path) -> None:
        if path.suffix == ".yaml":
            raise KeyboardInterrupt
        replace(draft, path)

    monkeypatch.setattr(os, "replace", break_off)
    assert invoke("export", "--storage", studied).exit_code == 130
    after = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert {name: after.pop(name) for name in before} == before
    assert list(after) == [f"best.merging.{embedding.name}.safetensors"]
    assert vittle.apply(model, Schedule.load("best.yaml")).num_classes == 10


def test_weights_do_not_fit_on_standard_output(studied) -> None:
    with pytest.raises(VittleError, match="trial 1 needs copies of its trained weights beside it; give --output a file"):
        invoke("export", "--storage", studied, "--output", "-")


def test_an_adapter_that_is_gone_or_another_one_leaves_nothing_behind(studied, tmp_path) -> None:
    trained = tmp_path / "trained.safetensors"
    MergeEmbedding.from_keys(load_backbone().model, 16).save(trained, {})
    with pytest.raises(VittleError, match="holds modular-.*, trial 1 was measured with modular-.*; put that back there"):
        invoke("export", "--storage", studied)
    trained.unlink()
    with pytest.raises(VittleError, match="no merge embedding at .*trained.safetensors; put it there"):
        invoke("export", "--storage", studied)
    assert list(Path().iterdir()) == []


def test_an_option_names_a_reduction_or_is_a_merge_embedding(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    assert parse_adapters(None) == {}
    assert parse_adapters(["e.safetensors"]) == {"merging": f"{here}/e.safetensors"}
    assert parse_adapters(["merging=/data/e=1", "sparsity=s"]) == {"merging": "/data/e=1", "sparsity": f"{here}/s"}
    assert parse_adapters(["./lr=3/e"]) == {"merging": f"{here}/lr=3/e"}
    with pytest.raises(VittleError, match="two files are given as adapter of merging; accepted: one for each reduction"):
        parse_adapters(["merging=a", "b"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--adapter", "mergin=e"], f"no reduction 'mergin' has an adapter; accepted: {ADAPTED}"),
        (["--adapter", "merging=e"], "no adapter of merging at "),
        (["--adapter", "a", "--adapter", "b"], "two files are given as adapter of merging; accepted: one for each reduction"),
        (
            ["--adapter", "trained.safetensors", "--reductions", "pruning"],
            "is an adapter of merging, and merging is not searched",
        ),
    ],
)
def test_a_wrong_one_is_refused_before_anything_is_written(options, message, embedding, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(monkeypatch, capsys, "launch", "--storage", "sqlite:///new.db", *options)
    assert not Path("new.db").exists()
