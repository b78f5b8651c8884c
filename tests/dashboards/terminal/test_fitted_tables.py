"""Every table in a narrow terminal, with long names: no header is cut, no column is lost without a word, numbers are whole."""

import dataclasses
import re
from collections.abc import Callable

import pytest
from rich.console import Console
from rich.table import Table

import toy
from dashboard_study import (
    NOISE,
    PROFILE,
    SHAPE,
    Synthetic,
    curve,
    importance,
    latency_profile,
    made_merge_start,
    open_store,
    sensitivity,
)
from rankings import ranked
from vittle.dashboards.terminal import importance_tables, latency_tables, plain_tables, study_tables, tables
from vittle.dashboards.terminal.latency_tables import ExampleRow, RetimedRow
from vittle.objectives.measurement import Measurement, exact, proportion
from vittle.spaces import costs
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

STUDY = "imagenet-val-deit3_large_patch16_384.fb_in22k_ft_in1k-night-run-number-twelve"
MODEL = "hf-hub:timm/vit_large_patch14_reg4_dinov2.lvd142m"
DEVICE = "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"
WIDTHS = (200, 100, 80, 60, 40)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def found(store: Store) -> tuple[Study, list[Trial]]:
    """A study with long names that predicts, and its trials, which hold reasons and marks; no test changes them."""
    study = Synthetic(store, STUDY, profile=PROFILE).fill(20)
    assert study.subject is not None
    return dataclasses.replace(study, subject=dataclasses.replace(study.subject, name=MODEL)), store.trials(STUDY)


@pytest.fixture(scope="module")
def plain(store: Store) -> tuple[Study, list[Trial]]:
    """A study of another kind."""
    store.create_study("toy", toy.ToySettings())
    for candidate in (toy.BASELINE, toy.Toy(3, 48)):
        number = store.start_trial("toy", "baseline" if candidate.is_baseline else "sampler", candidate, {})
        score = Measurement("score", 71.25, 70.1, 72.4, 9, {})
        store.finish_trial("toy", number, "complete", {"score": score, "steps": exact("steps", 10.0 * candidate.layers)})
    number = store.start_trial("toy", "sampler", toy.Toy(2, 16), {})
    store.finish_trial("toy", number, "failed", reason="OutOfMemoryError: the worker was ended by the system")
    return store.study("toy"), store.trials("toy")


def ratio(value: float, **about: object) -> Measurement:
    return Measurement("latency_ratio", value, value - 0.01, value + 0.02, 9, about)


def examples(found: tuple[Study, list[Trial]]) -> Table:
    predicted = {name: latency_profile().predict(one) for name, one in (("cheapest merging", curve(0, 0.02, 0.5)),)}
    tokens = costs.tokens(SHAPE, curve(0, 0.02, 0.5))
    rows = [ExampleRow(name, tokens, one["latency_ratio"], one["latency_ms"], True) for name, one in predicted.items()]
    return latency_tables.examples_table(rows)


def retimed(found: tuple[Study, list[Trial]]) -> Table:
    accuracy = proportion("accuracy", 440, 449, {})
    return latency_tables.retimed_table(
        [
            RetimedRow(103, accuracy, ratio(0.4), ratio(0.5), 1, 12, True, False),
            RetimedRow(5, accuracy, ratio(0.45), ratio(0.44, noisy=NOISE), 2, 1, True, True),
        ]
    )


def profiles(found: tuple[Study, list[Trial]]) -> Table:
    there = latency_profile()
    protocol = {"batch_size": 1024, "dtype": "bfloat16", "compiled": True}
    other = dataclasses.replace(
        latency_profile(noisy=NOISE), model=MODEL, protocol=protocol, environment={**there.environment, "device": DEVICE}
    )
    return latency_tables.profiles_table([there, other])


TABLES: dict[str, Callable[[tuple[Study, list[Trial]]], Table]] = {
    "studies": lambda of: study_tables.studies_table([(of[0], ranked(of[1]).standing)]),
    "trials": lambda of: study_tables.trials_table(of[1]),
    "trials without reasons": lambda of: study_tables.trials_table([trial for trial in of[1] if not trial.reason]),
    "front": lambda of: study_tables.front_table(ranked(of[1]).front(), of[0].goals.asked, ranked(of[1]), shape=SHAPE),
    "profile": lambda of: latency_tables.profile_table(latency_profile(noisy=NOISE)),
    "profiles": profiles,
    "examples": examples,
    "retimed": retimed,
    "importance": lambda of: importance_tables.importance_table(importance()),
    "sensitivity": lambda of: importance_tables.sensitivity_table(sensitivity(), "merging"),
    "merge start": lambda of: study_tables.merge_start_table(made_merge_start()),
}


def shown(table: Table, width: int) -> list[str]:
    """The lines of a table in a terminal of that width."""
    console = Console(width=width, force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


def check(table: Table, width: int) -> None:
    """No line too long, headers and values whole, and the columns that are left out are named."""
    lines = shown(table, width)
    assert max(map(len, lines)) <= width
    ruler = next(index for index, line in enumerate(lines) if "──" in line)
    said = re.findall(r"no room for (.*?); --json has all", " ".join(" ".join(lines[ruler:]).split()))
    left_out = said[0].split(", ") if said else []
    kept = [column for column in table.columns if str(column.header) not in left_out]
    assert len(kept) == len(table.columns) - len(left_out)
    assert lines[ruler - 1].split() == " ".join(str(column.header) for column in kept).split()
    rows = "\n".join(lines[ruler + 1 :])
    for column in kept:
        if str(column.header) not in {*tables.WRAPPED, *tables.CUT}:
            assert [cell for cell in map(str, column.cells) if cell not in rows] == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_every_table_fits(name: str, width: int, found: tuple[Study, list[Trial]]) -> None:
    check(TABLES[name](found), width)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_tables_of_another_kind_fit_too(width: int, plain: tuple[Study, list[Trial]]) -> None:
    study, trials = plain
    ranking = Ranking.of(trials, study.goals)
    check(plain_tables.trials_table(study, trials), width)
    check(plain_tables.front_table(study, ranking.front(), study.goals.asked, ranking), width)


def test_at_80_columns_only_what_is_said_gives_way(found: tuple[Study, list[Trial]]) -> None:
    wanted = {"trials": "images, origin, took", "front": "tokens left, how", "profiles": "rank, when"}
    for name, table in TABLES.items():
        said = re.findall(r"no room for (.*?); --json", " ".join(" ".join(shown(table(found), 80)).split()))
        assert (name, said) == (name, [wanted[name]] if name in wanted else [])
    assert not any("no room" in line for table in TABLES.values() for line in shown(table(found), 200))


def test_how_gives_way_first_and_is_cut_before_it_does() -> None:
    table = tables.table("trial>", "latency>", "tokens left", "how", gives_way=("how", "tokens left"))
    how = "sampler: merging by key from block 3 on, sizes weighed"
    table.add_row("12", "41.6% ±0.8", "65 65 … 9 1", how)
    assert how in "".join(shown(table, 100))
    narrow = shown(table, 60)
    assert "sampler: merging by" in "".join(narrow)
    assert how not in "".join(narrow)
    assert "no room" not in "".join(narrow)
    narrower = shown(table, 50)
    assert "how" not in narrower[1]
    assert "tokens left" in narrower[1]
    assert "no room for how; --json has all" in " ".join(narrower)
    assert "tokens left" not in shown(table, 25)[1]


def test_long_names_wrap_and_are_whole(found: tuple[Study, list[Trial]]) -> None:
    lines = shown(TABLES["studies"](found), 80)
    for column, name in ((0, STUDY), (2, MODEL)):
        starts = [match.start() for match in re.finditer(r"(?<=\s)\S", lines[1])]
        at = lines[1].index(("study", "state", "model")[column])
        end = min([start for start in starts if start > at], default=80)
        assert "".join(line[at:end].strip() for line in lines[3:]) == name


def test_a_table_is_printed_again_in_a_wider_terminal_as_if_it_had_never_been_narrow(found: tuple[Study, list[Trial]]) -> None:
    table = TABLES["front"](found)
    before = shown(table, 200)
    shown(table, 60)
    assert shown(table, 200) == before
