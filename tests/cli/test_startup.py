"""What is not loaded: help, a mistake and a list are answered without the libraries that a search needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recorded import coordinate, make_study, run
from refusals import KNOWN
from vittle.storage.store import Store

SEARCHING = ("torch", "timm", "ray", "optuna", "scipy", "sklearn", "fastapi", "uvicorn", "plotly")
STORING = ("sqlalchemy", "alembic")
COUNTING = ("numpy",)

# Runs one command line after the other in one process, and says of each how it ended and what of all this is loaded by then.
PROGRAM = f"""
import contextlib, io, json, sys
from vittle.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["vittle", *arguments]
    complaints = io.StringIO()
    with contextlib.redirect_stderr(complaints), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    loaded = [name for name in {[*SEARCHING, *STORING, *COUNTING]} if name in sys.modules]
    print(json.dumps([code, complaints.getvalue(), loaded]))
"""


def answers(*lines: list[str], folder: Path) -> list[tuple[int, str, list[str]]]:
    """Of each command line, one after the other in one process: its exit code, its complaint, and what is loaded after it."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(lines)]
    shown = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return [tuple(json.loads(line)) for line in shown.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with files that are not what they should be."""
    (tmp_path / "broken.yaml").write_text("merging: [")
    (tmp_path / "other.yaml").write_text("name: x")
    (tmp_path / "jobs.yaml").write_text("limits: many")
    return tmp_path


def test_help_loads_neither_a_database_nor_what_searches(folder: Path) -> None:
    for code, complaint, loaded in answers(["--help"], ["launch", "--help"], ["serve", "--help"], folder=folder):
        assert (code, complaint, loaded) == (0, "", [])


def test_a_mistake_in_what_is_written_is_told_before_anything_heavy_is_loaded(folder: Path) -> None:
    mistakes = {
        ("launch", "--latency-budget", "fast"): "latency budget 'fast' is not a time",
        ("launch", "--reductions", "wings"): f"unknown reduction 'wings'; accepted: {KNOWN}",
        ("launch", "--reductions", ","): "no reduction to search",
        ("launch", "--dtype", "int4"): "unknown dtype 'int4'",
        ("launch", "--device", "tpu"): "unknown device 'tpu'",
        ("launch", "--sampler", "dice"): "unknown sampler 'dice'; accepted: auto, tpe",
        ("launch", "--cache", "much"): "cache 'much' is not a size",
        ("launch", "--time-limit", "soon"): "time limit 'soon' is not a time",
        ("launch", "--study", "a/b"): "study name 'a/b' cannot be used",
        ("launch", "--data", "nowhere.npz"): "no file at nowhere.npz; accepted: digits, a folder",
        ("launch", "--data", "./nowhere"): "no images at ./nowhere; accepted: digits, a folder",
        ("launch", "--data", "imagenet/val"): "no images at imagenet/val; accepted: digits, a folder",
        ("launch", "--model", "vit_tiny_patch16_224"): "needs images; give --data",
        ("launch", "--checkpoint", "nowhere.pth"): "no checkpoint at nowhere.pth",
        ("launch", "--adapter", "nowhere.safetensors"): "no adapter of merging at ",
        ("launch", "--adapter", "pruning=broken.yaml"): "no reduction 'pruning' has an adapter",
        ("launch", "--adapter", "broken.yaml", "--reductions", "pruning"): "merging is not searched; add it to --reductions",
        ("profile", "--latency-budget", "fast"): "latency budget 'fast' is not a time",
        ("profile", "--dtype", "int4"): "unknown dtype 'int4'",
        ("profile", "--data", "nowhere.npz"): "no file at nowhere.npz",
        ("profile", "--checkpoint", "nowhere.pth"): "no checkpoint at nowhere.pth",
        ("verify", "nowhere.yaml"): "cannot read nowhere.yaml",
        ("verify", "broken.yaml"): "broken.yaml is not YAML",
        ("verify", "other.yaml"): "unknown key 'name' in a schedule",
        ("verify", "broken.yaml", "--device", "tpu"): "unknown device 'tpu'",
        ("verify", "broken.yaml", "--checkpoint", "nowhere.pth"): "no checkpoint at nowhere.pth",
        ("train", "merge-embedding", "--output", "x", "--data", "nowhere.npz"): "no file at nowhere.npz",
        ("train", "merge-embedding", "--output", "x", "--device", "tpu"): "unknown device 'tpu'",
        ("import-study", "nowhere.jsonl"): "cannot read nowhere.jsonl",
        ("serve", "--config", "broken.yaml"): "broken.yaml is not YAML",
        ("serve", "--config", "jobs.yaml"): "jobs.yaml: limits",
    }
    found = answers(*map(list, mistakes), folder=folder)
    for (line, message), (code, complaint, loaded) in zip(mistakes.items(), found, strict=True):
        assert (line, code, set(loaded) - set(COUNTING)) == (line, 2, set())
        assert message in complaint
        assert complaint.count("\n") == 1


def test_a_text_that_is_no_database_is_told_before_a_model_is_loaded(folder: Path) -> None:
    ((code, complaint, loaded),) = answers(["launch", "--storage", "nonsense"], folder=folder)
    assert (code, set(loaded) & set(SEARCHING)) == (2, set())
    assert "storage 'nonsense' is not a database" in complaint


def test_lists_and_what_only_needs_the_database_load_nothing_that_searches(folder: Path) -> None:
    url = f"sqlite:///{folder}/studied.db"
    store = Store.open(url, create=True)
    run(coordinate(make_study(store, "demo", trials=8), store))
    store.set_state("demo", "complete")
    lines = [
        ["studies"],
        ["trials"],
        ["front"],
        ["front", "--json"],
        ["profiles"],
        ["export", "--output", "best.yaml", "--latency-budget", "90%"],
        ["front", "nope"],
        ["front", "--latency-budget", "fast"],
        ["retime", "nope"],
        ["importance", "nope"],
        ["resume", "nope"],
        ["extend", "nope"],
        ["stop", "demo", "--wait", "soon"],
    ]
    for line, (code, _, loaded) in zip(
        lines, answers(*[[*line, "--storage", url] for line in lines], folder=folder), strict=True
    ):
        wrong = {"nope", "fast", "soon"} & set(line)
        assert (line, code) == (line, 2 if wrong else 0)
        assert (line, set(loaded) - {*STORING, *COUNTING}) == (line, set())
