"""The README is run, and compared with what there is."""

import json
import re
import statistics

import pytest
import timm
import torch
import yaml
from typer.main import get_command

import comparing
import vittle
import vittle.cli.commands
from static_checks import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False: original(name.split(".")[0]))
    model = original("deit_small_patch16_224")
    vittle.presets.constant(model, 8).save("best.yaml")
    return tmp_path


def test_the_python_runs(folder) -> None:
    names: dict[str, object] = {}
    blocks = [code for language, code in BLOCKS if language == "python"]
    assert len(blocks) == 3
    for code in blocks:
        exec(code, names)
    assert vittle.Schedule.load("mine.yaml") == names["schedule"]
    assert names["fast"].num_classes == 1000


def test_every_command_line_is_one_that_there_is() -> None:
    commands = get_command(vittle.cli.app).commands
    lines = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines()]
    seen = set()
    for line in lines:
        if line.startswith("vittle "):
            words = line.split("#")[0].split()
            known = {option for parameter in commands[words[1]].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known
            seen.add(words[1])
    assert {"launch", "front", "export", "dashboard", "profile"} <= seen
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(lines), re.MULTILINE):
        assert f"\n{target}:" in makefile


@pytest.mark.parametrize("example", ["kuberay.yaml", "slurm.sh", "cluster.md", "storage.md", "service.md"])
def test_what_the_examples_of_clusters_launch_can_be_launched(example) -> None:
    commands = get_command(vittle.cli.app).commands
    text = (ROOT / "docs" / example).read_text(encoding="utf-8")
    if example.endswith(".yaml"):
        text = yaml.safe_load(text)["spec"]["entrypoint"]
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("vittle ")]
    assert lines
    for line in lines:
        words = line.split("#")[0].split()
        known = {option for parameter in commands[words[1]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_every_option_of_launch_is_explained() -> None:
    launch = get_command(vittle.cli.app).commands["launch"]
    options = {option for parameter in launch.params for option in parameter.opts if option.startswith("--")}
    assert {option for option in options if f"`{option}`" not in README} == set()


def test_every_folder_and_picture_is_there() -> None:
    tree = re.findall(r"^    ([\w.]+)/? {2,}", README, re.MULTILINE)
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms - {"build"} <= set(tree)
    assert [name for name in tree if not (ROOT / name).exists()] == []
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).stat().st_size > 10_000


def test_the_numbers_of_the_merge_embedding_are_in_their_file() -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / "merge_embedding.json").read_text(encoding="utf-8"))
    text = " ".join(README.split())
    won = document["rows"][-2]
    low_to_high = "{:.1%} of accuracy ({:.1%} to {:.1%})".format(*won["difference"])
    counts = f"{won['only_decoupled']} images only by it, {won['only_key']} only by the keys"
    assert (
        f"at equal {won['equal']} where most are merged, at {won['macs']['key']:.0%} of the MACs: {counts}, {low_to_high}"
        in text
    )
    assert f"takes {won['macs']['decoupled'] / won['macs']['key'] - 1:.0%} more MACs" in text
    with torch.device("meta"):
        base = timm.create_model("vit_base_patch16_224")
    learned = {"metric": "decoupled", "embedding": "modular-0123456789ab", "embedding_width": 64}
    dearer = (
        vittle.macs(base, vittle.presets.constant(base, 16, **learned)) / vittle.macs(base, vittle.presets.constant(base, 16))
        - 1
    )
    assert f"a published ViT-B spends {dearer:.1%} on it" in text
    first, *others = [row for row in document["rows"] if row["equal"] == "macs"]
    said = [f"at {first['macs']['decoupled']:.0%} of the MACs {first['only_decoupled']} images only by it"]
    said.append(f"and {first['only_key']} only by the keys")
    said += [f"at {one['macs']['decoupled']:.0%} {one['only_decoupled']} and {one['only_key']}" for one in others]
    assert [words for words in said if words not in text] == []
    assert min(row["p"] for row in (first, *others)) > 0.05
    assert document["summary"][0]["met"] is False
    images = document["summary"][0]["images"]
    assert f"Trained on {images['train']:,} of them and asked for {images['verdict']:,} that chose nothing" in text


def test_every_number_on_speed_is_in_the_benchmarks_file() -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / "merging.json").read_text(encoding="utf-8"))
    rows = {(row["model"].split("_patch")[0], row["batch"], row["removed"]): row for row in document["rows"]}
    table = re.findall(r"^\| (deit_\w+) \| (\d+) \| (\d+) \| (.+%) \|$", README, re.MULTILINE)
    assert len(table) >= 6
    for model, batch, removed, numbers in table:
        row = rows[model, int(batch), int(removed)]
        expected = [row[name] for name in ("macs_ratio", "latency_ratio", "plain_latency_ratio", "matching_share")]
        assert numbers.split(" | ") == [f"{share:.0%}" for share in expected]
    assert document["environment"]["device"] in README
    for aim in document["summary"]:
        assert f"{aim['rows_met']} of {aim['rows']} rows" in README


def test_every_number_on_prediction_is_in_the_benchmarks_file() -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / "latency.json").read_text(encoding="utf-8"))
    table = re.findall(r"^\| (deit_\w+) \| (\d+) \| (\d+) \| (.+ \| \d+ s) \|$", README, re.MULTILINE)
    assert len(table) == len(document["rows"])
    for row, (model, batch, schedules, numbers) in zip(document["rows"], table, strict=True):
        assert (row["model"].split("_patch")[0], f"{row['batch']}", f"{row['schedules']}") == (model, batch, schedules)
        assert numbers.split(" | ") == [
            f"{row['mape']:.1%}",
            f"{row['spearman']:.3f}",
            f"{row['macs_mape']:.0%}",
            f"{row['macs_spearman']:.2f}",
            f"{row['profile_seconds']:.0f} s",
        ]
    assert document["environment"]["device"] in README
    text = " ".join(README.split())
    for aim in document["summary"]:
        assert f"met in {aim['rows_met']} of {aim['rows']} rows" in text


SEARCHES = {
    "ToMe, every constant r": "constant",
    "ToMe, every decreasing r": "decreasing",
    "random": "random",
    "Ray Tune, `OptunaSearch`": "stock",
    "**Vittle**": "vittle",
}


def test_every_number_on_search_is_in_the_benchmarks_file() -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / "search.json").read_text(encoding="utf-8"))
    assert document["summary"] == comparing.summarise(document["rows"])
    table = re.findall(r"^\| (.+?) \| ([\d.]+ \| [\d.]+ \| \d+ s \| [\d.]+ \| [\d.]+ \| \d+ s) \|$", README, re.MULTILINE)
    assert [name for name, _ in table] == list(SEARCHES)
    for name, numbers in table:
        expected = []
        for dataset in ("digits", "photographs"):
            rows = [row for row in document["rows"] if (row["dataset"], row["method"]) == (dataset, SEARCHES[name])]
            assert len(rows) == (1 if SEARCHES[name] in comparing.SWEEPS else 5)
            volume = document["summary"][dataset]["hypervolume"][SEARCHES[name]]
            spent, seconds = (statistics.median(row[one] for row in rows) for one in ("image_macs", "wall_s"))
            expected += [f"{volume:.3f}", f"{spent / 1e12:.2f}", f"{seconds:.0f} s"]
        assert numbers.split(" | ") == expected
    text = " ".join(README.split())
    for dataset, name in (("digits", "the digits"), ("photographs", "the photographs")):
        found = document["summary"][dataset]
        assert f"{found['macs_fraction']:.1%} of its MACs and {found['wall_fraction']:.1%} of its time on {name}" in text
        assert f"{found['overhead_share']:.1%} of the workers' time on {name}" in text
    assert f"{document['summary']['224px']['overhead_share']:.1%} on a 224 px model" in text
    losses = document["summary"]["photographs"]["loss"]
    for share, loss in losses.items():
        assert f"{float(share):.0%} of the MACs it loses {loss['vittle']:.1%}, ToMe {loss['tome']:.1%}" in text
    assert document["environment"]["device"] in README


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_every_promise_names_a_test_that_there_is(page) -> None:
    promises = re.findall(r"^\| .+ \| (`test_.+`) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(promises) >= 5
    named = {name for promise in promises for name in re.findall(r"`(test_\w+\.py)`", promise)}
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert named <= there


def test_every_number_on_scale_is_in_the_benchmarks_file() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "scale.json").read_text(encoding="utf-8"))["rows"]
    workers = [row for row in rows if "workers" in row]
    for name, values in (
        ("workers", [str(row["workers"]) for row in workers]),
        ("share of their time that trials have", [f"{row['efficiency']:.0%}" for row in workers]),
    ):
        assert f"| {name} | {' | '.join(values)} |" in README
    for name in ("SQLite", "PostgreSQL"):
        (row,) = [row for row in rows if row.get("database") == name.lower() and row["trials"] == 100_000]
        milliseconds = [f"{row[one]:.1f} ms" for one in ("start_ms", "finish_ms", "open_ms", "front_ms")]
        assert f"| {name} | {' | '.join(milliseconds)} | {row['memory_mib_per_1000']:.1f} MiB |" in README


def test_every_number_on_the_dashboard_is_in_the_benchmarks_file() -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / "dashboard.json").read_text(encoding="utf-8"))
    assert document["environment"]["device"] in README
    for row in document["rows"]:
        first, changed = (f"{row[name] / 1000:.2f} s" for name in ("first_ms", "changed_ms"))
        seconds = [f"{row[f'{name}_ms'] / 1000:.1f} s" for name in ("contentful", "first_painted", "painted", "told")]
        numbers = [f"{row['trials']:,}", first, changed, f"{row['sent_bytes'] / 1000:.0f} kB", *seconds]
        assert f"| {' | '.join(numbers)} |" in README


def test_every_picture_is_there() -> None:
    assert all((ROOT / path).exists() for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README))
