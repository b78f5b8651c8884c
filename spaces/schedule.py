"""The schedule: the complete, immutable description of every reduction over depth. It is searched, stored and applied.

As text it is one mapping, written as YAML or JSON:

    tail: prefix
    merging:
      kept: [65, 65, 58, 51, 44, 37, 30, 23, 16, 9, 8, 8]
      metric: feature

A setting that has its default value is left out, so that a schedule keeps its id when reductions learn new settings.

`tail: prefix` lets the last block compute queries, projection and MLP for the prefix tokens alone. Where nothing else is read
after it (a class-token head) the output is the same. `tail: full` computes the last block for every token.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import ValidationError

from vittle.spaces.errors import ScheduleError, VittleError
from vittle.spaces.files import write_at_once
from vittle.spaces.plain_yaml import read_yaml, to_yaml
from vittle.spaces.reduction import Reduction, Tail
from vittle.spaces.table import REDUCTIONS, adapter_files
from vittle.spaces.validation import first_mistake, shortened


@dataclass(frozen=True)
class Schedule:
    """Which reductions act in which block. An empty schedule is the untouched backbone.

    Equal schedules have equal `id`s: reductions are kept in the order in which they act, and with `tail: prefix` whatever
    would act on patch tokens of the last block is left out, since nobody reads them.

    Attributes:
        reductions: one of each name.
        tail: what of the last block is computed.
        files: where the trained weights that it needs lie, by reduction; known of an exported file, and no part of what it is.

    Raises:
        ScheduleError: reductions that contradict each other, or an unknown tail.
    """

    reductions: tuple[Reduction, ...] = ()
    tail: Tail = "full"
    files: Mapping[str, Path] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.tail not in get_args(Tail):
            raise ScheduleError(f"tail is {shortened(repr(self.tail))}; accepted: {', '.join(get_args(Tail))}")
        by_name = {reduction.name: reduction for reduction in self.reductions}
        if len(by_name) < len(self.reductions):
            raise ScheduleError("a schedule holds each reduction once")
        depths = {reduction.name: reduction.depth for reduction in self.reductions if reduction.depth is not None}
        if len(set(depths.values())) > 1:
            written = ", ".join(f"{name} {depth}" for name, depth in depths.items())
            raise ScheduleError(f"the reductions are written for different depths: {written} blocks")
        ordered = tuple(by_name[name] for name in REDUCTIONS if name in by_name)
        if self.tail == "prefix":
            ordered = tuple(reduction.without_last_block() for reduction in ordered)
        object.__setattr__(self, "reductions", ordered)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that are the same for the same schedule, everywhere and always."""
        return self._id

    @cached_property
    def _id(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    @property
    def summary(self) -> str:
        """What reduces and how, in a few words."""
        return "; ".join(reduction.summary() for reduction in self.reductions) or "nothing reduced"

    @property
    def is_baseline(self) -> bool:
        """Whether nothing is reduced."""
        return not self.reductions

    def to_dict(self) -> dict[str, Any]:
        parts = {reduction.name: reduction.model_dump(mode="json", exclude_defaults=True) for reduction in self.reductions}
        return {"tail": self.tail, **parts}

    def to_json(self) -> str:
        """The canonical text: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read the mapping that `to_dict` writes.

        Raises:
            ScheduleError: an unknown key, or a value that its reduction does not accept.
        """
        if not isinstance(document, Mapping):
            raise ScheduleError(f"a schedule is a mapping; accepted keys: tail, {', '.join(REDUCTIONS)}")
        unknown = sorted(shortened(repr(key)) for key in document.keys() - {"tail", *REDUCTIONS})
        if unknown:
            raise ScheduleError(f"unknown key {unknown[0]} in a schedule; accepted: tail, {', '.join(REDUCTIONS)}")
        parts = []
        for name in REDUCTIONS.keys() & document.keys():
            try:
                parts.append(REDUCTIONS[name].settings.model_validate(document[name]))
            except ValidationError as error:
                raise ScheduleError(first_mistake(error, name)) from None
        return cls(tuple(parts), document.get("tail", "full"))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML or JSON file that holds a schedule, or a document with one under `schedule` (as `export` writes).

        Raises:
            ScheduleError: no such file, or no schedule in it.
        """
        files: dict[str, Path] = {}
        try:
            document = read_yaml(Path(path), "give a schedule file such as best.yaml")
        except VittleError as error:
            raise ScheduleError(str(error)) from None
        if isinstance(document, dict) and isinstance(document.get("schedule"), dict):
            files = _adapter_files(document, Path(path))
            document = document["schedule"]
        if not isinstance(document, dict):
            raise ScheduleError(f"{path} holds no schedule; accepted keys: tail, {', '.join(REDUCTIONS)}")
        try:
            return replace(cls.from_dict(document), files=files)
        except ScheduleError as error:
            raise ScheduleError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the schedule alone, as YAML that `load` reads.

        Raises:
            VittleError: the file cannot be written.
        """
        write_at_once(Path(path), to_yaml(self.to_dict()).encode())


def _adapter_files(document: Mapping[str, Any], path: Path) -> dict[str, Path]:
    """The files that an exported document names, which lie beside it; an old one has a single path under `adapter`."""
    given = document.get("adapters", document.get("adapter"))
    if given is None:
        return {}
    if not isinstance(given, str) and not (isinstance(given, dict) and all(isinstance(one, str) for one in given.values())):
        raise ScheduleError(
            f"{path}: adapters is {shortened(repr(given))}; accepted: a file for each reduction, such as "
            "merging: best.safetensors"
        )
    return {name: path.parent / file for name, file in adapter_files(given).items()}
