"""A study goes on with the images that it began with; others are refused, or named where that is wanted."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vittle.cli.commands
from refusals import refusal
from vittle import VittleError
from vittle.objectives.backbones import sensitivity as sensitivities
from vittle.search import inference
from vittle.search.illustrator import illustrate
from vittle.search.inference import InferenceProblem, make_evaluator
from vittle.search.problem import Problem
from vittle.search.reporter import Reporter
from vittle.spaces.schedule import Schedule
from vittle.storage.records import Study
from vittle.storage.settings import SearchSettings, Settings
from vittle.storage.store import Store


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders called as the digits are in another language, with the file that says which is which."""
    root = tmp_path_factory.mktemp("drawn")
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    (root / "classes.txt").write_text("\n".join(names))
    for name in names[:4]:  # fewer than the head has
        (root / "images" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{number}.png")
    return root


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(drawn, tmp_path / "drawn"))


@pytest.fixture
def study(folder: Path, store: Store) -> Study:
    settings = Settings(data=str(folder / "images"), classes=str(folder / "classes.txt"), trials=5, batch_size=4)
    problem = InferenceProblem.load(settings)
    return store.create_study("mine", settings, problem.subject, images=problem.images)


def another(folder: Path) -> None:
    (folder / "images" / "one" / "0.png").unlink()


def test_a_study_says_which_images_and_finds_the_names_of_its_classes(study: Study, store: Store) -> None:
    again = InferenceProblem.load(store.study("mine").settings)
    assert again.splits.search.labels is not None
    assert set(again.splits.search.labels.tolist()) <= {0, 1, 2, 3}
    assert again.images == study.images == store.study("mine").images
    again.check(study)


def test_a_folder_that_was_moved_holds_the_same_images(study: Study, folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "images", tmp_path / "elsewhere")
    moved = study.inference.model_copy(update={"data": str(tmp_path / "elsewhere")})
    InferenceProblem.load(moved).check(study)


@pytest.mark.parametrize("command", [["resume", "mine"], ["extend", "mine", "--trials", "7"]])
def test_others_are_refused_in_one_line_and_nothing_is_changed(
    study: Study, folder: Path, store: Store, url: str, command: list[str], monkeypatch, capsys
) -> None:
    another(folder)
    line = refusal(monkeypatch, capsys, *command, "--storage", url)
    assert "the images are not those that study 'mine' began with: there are 11 where there were 12; give back those" in line
    assert line.endswith("or go on with --other-images")
    assert store.study("mine") == study


@pytest.mark.parametrize("command", [["resume", "mine"], ["extend", "mine", "--trials", "7"]])
def test_others_are_named_where_they_are_wanted(
    study: Study, folder: Path, store: Store, url: str, command: list[str], monkeypatch, capsys
) -> None:
    another(folder)
    began: list[Study] = []

    def run(study: Study, problem: Problem, store: Store, *_: object) -> Study:
        assert problem.settings.trials == study.settings.trials
        began.append(study)
        store.set_state(study.name, "interrupted")
        return store.study(study.name)

    monkeypatch.setattr("vittle.search.study.run", run)
    monkeypatch.setattr("sys.argv", ["vittle", *command, "--other-images", "--storage", url])
    with pytest.raises(SystemExit) as ended:
        vittle.cli.main()
    assert ended.value.code == 130  # interrupted, as `run` has it
    (one,) = began
    assert one.images == InferenceProblem.load(study.settings).images != study.images
    assert one.settings.trials == (5 if command[0] == "resume" else 12)
    told = " ".join(capsys.readouterr().err.split())
    assert "from here on the images are others: trials of before and after are not compared image by image" in told
    InferenceProblem.load(study.settings).check(store.study("mine"))  # from now on


def test_a_study_from_before_that_was_kept_goes_on(study: Study, folder: Path) -> None:
    another(folder)
    InferenceProblem.load(study.settings).check(replace(study, images=None))


def test_a_problem_without_images_has_none_to_compare(study: Study) -> None:
    class Bare(Problem):
        def evaluator(self) -> None:
            raise NotImplementedError

    Bare(SearchSettings()).check(study)


def test_what_a_trial_measured_says_on_which_images(study: Study) -> None:
    problem = InferenceProblem.load(study.settings)
    measured = make_evaluator(problem.settings, problem.backbone, problem.splits).judge(Schedule(), "search")
    assert problem.images is not None
    assert measured["accuracy"].protocol["images"] == problem.images.id


def test_what_was_learnt_on_other_images_is_learnt_again(folder: Path, store: Store, monkeypatch) -> None:
    looked: list[str] = []
    measure = sensitivities.measure

    def counted(*given: object, **how: object) -> object:
        looked.append(str(how["digest"]))
        return measure(*given, **how)

    monkeypatch.setattr(inference, "measure", counted)
    monkeypatch.setattr(inference, "object_store", lambda _: (lambda packed: packed, lambda kept: kept, 0))  # without a Ray
    settings = Settings(data=str(folder / "images"), classes=str(folder / "classes.txt"), batch_size=4, predict=False, cache=0)

    def examine() -> tuple[str, str]:
        problem = InferenceProblem.load(settings)
        assert problem.images is not None
        problem._look_at(problem.backbone, store, Reporter())
        found = store.merge_start(problem.backbone.fingerprint)
        assert found is not None
        return problem.images.id, found.digest

    first = examine()
    assert examine() == first == (looked[0], looked[0])
    another(folder)
    second = examine()
    assert second == (looked[1], looked[1])
    assert first != second
    assert len(looked) == 2  # not a second time on the same ones


def test_no_schedule_is_drawn_over_other_images(study: Study, folder: Path) -> None:
    another(folder)
    with pytest.raises(VittleError, match="not those that study 'mine' was judged on: there are 11 where there were 12"):
        illustrate(study, Schedule(), [0])
