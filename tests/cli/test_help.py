"""`--help` in a terminal of 80 columns: there is room for what it says, and options stand with what they are about."""

from collections.abc import Iterator

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import vittle.cli.commands

ROOM = 28  # columns that are left for what an option does
PAGES = ["", "launch", "resume", "extend", "stop", "studies", "trials", "front", "importance", "export", "export-study"]
PAGES += ["import-study", "report", "dashboard", "serve", "profile", "profiles", "retime", "verify", "train"]
PAGES += ["train backbone", "train merge-embedding", "train sparsity", "train recursion"]


def page(of: str) -> list[str]:
    shown = CliRunner().invoke(vittle.cli.app, [*of.split(), "--help"], terminal_width=80, env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    return shown.stdout.splitlines()


def options(of: str) -> Iterator[tuple[str, str, int]]:
    """The panel, the name and the column at which the text begins, of every option on a page."""
    command = get_command(vittle.cli.app)
    for name in of.split():
        command = command.commands[name]
    texts = {one.opts[0]: (one.help or "").split(" ")[0] for one in command.params} | {"--help": "Show"}
    panel = ""
    for line in page(of):
        if line.startswith("╭─"):
            panel = line.strip("╭─╮ ")
        word = next((one for one in line.split() if one.startswith("--")), None)
        if word in texts and line.strip("│* ").startswith(word):
            yield panel, word, line.index(texts[word], line.index(word) + len(word))


@pytest.mark.parametrize("of", PAGES)
def test_there_is_room_for_what_it_says(of: str) -> None:
    assert all(len(line) <= 80 for line in page(of))
    found = list(options(of))
    assert "--help" in [name for _, name, _ in found]
    assert [(name, start) for _, name, start in found if 80 - 2 - start < ROOM] == []


def test_every_page_is_looked_at() -> None:
    group = get_command(vittle.cli.app)
    train = group.commands["train"]
    assert {*group.commands, *(f"train {name}" for name in train.commands)} == set(PAGES) - {""}


def test_options_stand_with_what_they_are_about() -> None:
    panels = {name: panel for panel, name, _ in options("launch")}
    about = {
        "Options": ("--storage", "--study", "--json", "--help"),
        "Budget": ("--latency-budget", "--target"),
        "Model and images": ("--model", "--checkpoint", "--data", "--adapter"),
        "How latency is measured": ("--batch-size", "--dtype", "--compile", "--predict"),
        "Search": (
            "--reductions",
            "--objectives",
            "--trials",
            "--time-limit",
            "--trial-time-limit",
            "--image-passes",
            "--until-flat",
        ),
        "Machine": ("--device", "--cache", "--workers", "--cpus-per-worker", "--gpus-per-worker", "--ray-address"),
    }
    for panel, names in about.items():
        assert {name: panels[name] for name in names} == dict.fromkeys(names, panel)
    assert list(dict.fromkeys(panel for panel, _, _ in options("launch"))) == list(about)
