"""The one loop of every training: the best epoch is kept, it ends where nothing improves, and goes on where it was killed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from vittle.training.resumable import Course, Judged, part_of, run


class Steps:
    """A lesson that walks by random steps; `scores` says how good each epoch is, the start first."""

    def __init__(self, *scores: int) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=0.1)
        self.decay = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 100)
        self.generator = torch.Generator().manual_seed(0)
        self.steps = 3
        self.scores = scores
        self.judged = list[float]()

    def learn(self, stepped: Callable[[], object]) -> float:
        for _ in range(self.steps):
            self.optimizer.zero_grad()
            (self.module.weight.sum() * torch.rand((), generator=self.generator)).backward()
            self.optimizer.step()
            self.decay.step()
            stepped()
        return self.module.weight.item()

    def judge(self) -> Judged:
        self.judged.append(self.module.weight.item())
        return Judged(self.scores[self.decay.last_epoch // self.steps], 10, 1.0)


def walk(lesson: Steps, output: Path, epochs: int = 5, patience: int = 9) -> Course:
    return run(lesson, output, {"seed": 0}, epochs=epochs, patience=patience, rivals={}, progress=False)


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    lesson = Steps(5, 6, 8, 7, 8, 2)
    course = walk(lesson, tmp_path / "e")
    assert (course.best_epoch, course.best.correct, course.latest.correct, course.epoch) == (2, 8, 2, 5)
    assert lesson.module.weight.item() == lesson.judged[2] == course.losses[1]
    assert len(set(lesson.judged)) == 6


def test_where_nothing_improves_the_start_is_kept(tmp_path: Path) -> None:
    lesson = Steps(5, 5, 4, 5, 3, 5)
    assert walk(lesson, tmp_path / "e").best_epoch == 0
    assert lesson.module.weight.item() == 0


@pytest.mark.parametrize(("patience", "epochs", "best"), [(1, 2, 1), (2, 3, 1), (3, 5, 4)])
def test_it_ends_where_nothing_improves(tmp_path: Path, patience: int, epochs: int, best: int) -> None:
    course = walk(Steps(5, 6, 6, 5, 7, 6), tmp_path / "e", patience=patience)
    assert (course.epoch, course.best_epoch) == (epochs, best)


@pytest.mark.parametrize("killed", range(1, 5))
def test_a_killed_one_goes_on_and_ends_the_same(tmp_path: Path, killed: int) -> None:
    scores = (5, 6, 8, 7, 8, 2)
    whole = walk(Steps(*scores), tmp_path / "whole")

    class Killed(Steps):
        def judge(self) -> Judged:
            if len(self.judged) == killed:
                raise KeyboardInterrupt
            return super().judge()

    with pytest.raises(KeyboardInterrupt):
        walk(Killed(*scores), tmp_path / "e")
    assert part_of(tmp_path / "e").exists()
    lesson = Steps(*scores)
    assert walk(lesson, tmp_path / "e") == whole
    assert lesson.module.weight.item() == whole.losses[1]
    assert len(lesson.judged) == 6 - killed  # what was judged before is not judged again


def test_one_that_had_ended_does_not_go_on(tmp_path: Path) -> None:
    course = walk(Steps(5, 6, 6, 5, 7, 6), tmp_path / "e", patience=2)
    again = Steps(5, 6, 6, 5, 7, 6)
    assert walk(again, tmp_path / "e", patience=2) == course
    assert again.judged == []


def test_more_right_answers_win_and_then_the_lower_loss() -> None:
    assert Judged(5, 9, 2.0).better_than(Judged(4, 9, 1.0))
    assert Judged(5, 9, 1.0).better_than(Judged(5, 9, 2.0))
    assert not Judged(5, 9, 1.0).better_than(Judged(5, 9, 1.0))
    assert not Judged(4, 9, 1.0).better_than(Judged(5, 9, 2.0))
