"""One loop for whatever is trained beside a frozen backbone: every epoch is judged, the best is kept, a kill costs nothing.

After every epoch all that is needed to go on is in OUTPUT.part, so the same call continues where it was interrupted. On the
CPU, with the same number of threads, it ends at the same weights as if it had not been.
"""

import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from vittle.spaces.errors import VittleError
from vittle.spaces.files import write_at_once


class Judged(NamedTuple):
    """How good weights are, on images that nothing is learned from; the loss decides between equal counts."""

    correct: int
    asked: int
    loss: float  # mean cross-entropy

    @property
    def share(self) -> float:
        """Of what was asked, from 0 to 1."""
        return self.correct / self.asked

    def better_than(self, other: "Judged") -> bool:
        return (self.correct, -self.loss) > (other.correct, -other.loss)


class Lesson(Protocol):
    """What is learned, and how. Everything that an epoch changes is in its first four attributes."""

    @property
    def module(self) -> nn.Module:
        """The weights that are trained."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def decay(self) -> torch.optim.lr_scheduler.LRScheduler:
        """Of the learning rate."""
        ...

    @property
    def generator(self) -> torch.Generator:
        """The only source of randomness."""
        ...

    @property
    def steps(self) -> int:
        """Of an epoch."""
        ...

    def learn(self, stepped: Callable[[], object]) -> float:
        """One epoch, calling `stepped` after every step; the mean loss."""
        ...

    def judge(self) -> Judged:
        """The weights as they are, on the images that choose between epochs."""
        ...


@dataclass
class Course:
    """How far a training is; epoch 0 is the start, which is judged too.

    Attributes:
        latest: the last epoch, judged.
        best: the best one, which is `best_epoch`.
        best_weights: of the module, after it.
        losses: mean training loss of each epoch.
    """

    latest: Judged
    best: Judged
    best_weights: dict[str, Any]
    best_epoch: int = 0
    epoch: int = 0
    losses: list[float] = field(default_factory=list)


def part_of(output: Path) -> Path:
    """Where a training that writes `output` keeps what it needs to go on; to be removed once that is written."""
    return output.with_name(output.name + ".part")


def run(
    lesson: Lesson,
    output: Path,
    settings: Mapping[str, Any],
    *,
    epochs: int,
    patience: int,
    rivals: Mapping[str, float],
    progress: bool = True,
) -> Course:
    """Train until `epochs` are done or `patience` of them in a row were no better than the best; leave the best weights.

    Args:
        lesson: what is learned.
        output: the file that will be written; beside it is what is needed to go on.
        settings: all that the result depends on, plain values by name: a .part with others is refused.
        epochs: at most.
        patience: in epochs.
        rivals: shares that the bar shows beside the lesson's own, by name.
        progress: show a bar on stderr.

    Raises:
        VittleError: a file that cannot be written, or a .part of another training.
    """
    part = part_of(output)
    if part.exists():
        course = _restore(lesson, _read(part, settings))
    else:
        start = lesson.judge()
        course = Course(start, start, copy.deepcopy(lesson.module.state_dict()))
        write_at_once(part, _snapshot(lesson, course, settings))
    steps = lesson.steps
    columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        begun, note = f"{course.epoch}/{epochs}", _note(course, rivals)
        task = bar.add_task("", total=epochs * steps, completed=course.epoch * steps, epoch=begun, note=note)
        while course.epoch < epochs and course.epoch - course.best_epoch < patience:
            bar.update(task, epoch=f"{course.epoch + 1}/{epochs}")
            course.losses.append(lesson.learn(lambda: bar.advance(task)))
            course.epoch += 1
            course.latest = lesson.judge()
            if course.latest.better_than(course.best):
                course.best, course.best_epoch = course.latest, course.epoch
                course.best_weights = copy.deepcopy(lesson.module.state_dict())
            write_at_once(part, _snapshot(lesson, course, settings))
            bar.update(task, note=_note(course, rivals))
    lesson.module.load_state_dict(course.best_weights)
    return course


def _note(course: Course, rivals: Mapping[str, float]) -> str:
    loss = [f"loss {course.losses[-1]:.3f}"] if course.losses else []
    shares = {"now": course.latest.share, "best": course.best.share, **rivals}
    return "  ".join(loss + [f"{name} {share:.2%}" for name, share in shares.items()])


def _snapshot(lesson: Lesson, course: Course, settings: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    document = {
        "settings": dict(settings),
        "epoch": course.epoch,
        "losses": course.losses,
        "latest": tuple(course.latest),
        "best": tuple(course.best),
        "best_epoch": course.best_epoch,
        "best_weights": course.best_weights,
        "weights": lesson.module.state_dict(),
        "optimizer": lesson.optimizer.state_dict(),
        "decay": lesson.decay.state_dict(),
        "generator": lesson.generator.get_state(),
    }
    torch.save(document, file)
    return file.getvalue()


def _restore(lesson: Lesson, document: Mapping[str, Any]) -> Course:
    lesson.module.load_state_dict(document["weights"])
    lesson.optimizer.load_state_dict(document["optimizer"])
    lesson.decay.load_state_dict(document["decay"])
    lesson.generator.set_state(document["generator"])
    return Course(
        Judged(*document["latest"]),
        Judged(*document["best"]),
        document["best_weights"],
        document["best_epoch"],
        document["epoch"],
        document["losses"],
    )


def _read(part: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed to go on.

    Raises:
        VittleError: a file of another training, or none at all.
    """
    try:
        document: dict[str, Any] = torch.load(part, map_location="cpu", weights_only=True)
        theirs = document["settings"]
    except (OSError, RuntimeError, UnpicklingError, KeyError, TypeError, EOFError):
        raise VittleError(f"{part} is not an interrupted training; remove it to begin anew") from None
    for name, ours in settings.items():
        if theirs.get(name) != ours:
            raise VittleError(
                f"{part} is of a training with another {name} ({theirs.get(name)}, here {ours}); "
                "give the same to continue it, or remove the file to begin anew"
            )
    return document
