"""The kinds of study: what storage, the command line and the pages need to know of each. The one table of them is `KINDS`.

A kind has settings, candidates that are stored as documents, and a problem that is searched (`vittle.search.problem`), which is
named in text, since this starts without torch. A database may hold studies of kinds that are not in the table, written by a
newer version: they are listed with what every kind has, and no more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vittle.objectives.goals import Asked
from vittle.spaces import costs
from vittle.spaces.candidate import Candidate, SearchSpace
from vittle.spaces.errors import VittleError
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space
from vittle.storage import export, plain_export
from vittle.storage.ranking import Ranking
from vittle.storage.records import OtherKindError, Study, Trial
from vittle.storage.settings import SearchSettings, Settings


@dataclass(frozen=True)
class Kind:
    """One kind of study; its name is that of its settings.

    Attributes:
        settings: what a search is asked to do, its goals among it.
        decode: makes a candidate of the document that its `to_dict` has written.
        space: what a study may propose, by its record alone, to explain its parameters.
        problem: where the problem is, as `module:Class`.
        check: refuses a candidate that none of its studies can have tried.
        entry: one point of a front as plain values.
        document: what an exported file holds.
        to_yaml: that as text.
    """

    settings: type[SearchSettings]
    decode: Callable[[Mapping[str, Any]], Candidate]
    space: Callable[[Study], SearchSpace]
    problem: str
    check: Callable[[Study, Any], object] = lambda study, candidate: None
    entry: Callable[[Study, Trial, Ranking | None], dict[str, Any]] = plain_export.front_entry
    document: Callable[[Study, Trial, Ranking | None, Asked | None, str], dict[str, Any]] = plain_export.document
    to_yaml: Callable[[dict[str, Any], Mapping[str, str]], str] = plain_export.to_yaml

    @property
    def name(self) -> str:
        return self.settings.kind


KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Add a kind to the table.

    Raises:
        ValueError: there is one of that name, or it has no name.
    """
    if not kind.name or kind.name in KINDS:
        raise ValueError(f"a kind of study named {kind.name!r} is there already" if kind.name else "a kind needs a name")
    KINDS[kind.name] = kind


def find(name: str) -> Kind:
    """The kind of that name.

    Raises:
        OtherKindError: it is not known here.
    """
    if name not in KINDS:
        raise OtherKindError(f"unknown kind of study {name!r}; accepted: {', '.join(KINDS)}")
    return KINDS[name]


def read_settings(kind: str, document: Mapping[str, Any]) -> SearchSettings:
    """The settings of a study; of a kind that is not known here, those that every kind has.

    Raises:
        VittleError: they are none that a study can have.
    """
    if kind in KINDS:
        return KINDS[kind].settings.of(**document)
    return SearchSettings.of(**{name: document[name] for name in SearchSettings.model_fields if name in document})


def front_entry(study: Study, trial: Trial, ranking: Ranking | None = None) -> dict[str, Any]:
    """One point of a front, as plain values; with what ranks it among all trials of the study, where these are given."""
    return find(study.kind).entry(study, trial, ranking)


def document(
    study: Study, trial: Trial, ranking: Ranking | None = None, asked: Asked | None = None, file: str = "best.yaml"
) -> dict[str, Any]:
    """What the exported file of one candidate holds, with its evidence.

    Args:
        study: whose candidate it is.
        trial: the candidate and its measurements.
        ranking: all trials of the study: what ranks this one, and the baseline.
        asked: what it is exported for; what the study was launched for where not given.
        file: what the file will be called, after which files that lie beside it are called.

    Raises:
        VittleError: its quality was not measured.
    """
    return find(study.kind).document(study, trial, ranking, asked, file)


def to_yaml(study: Study, exported: dict[str, Any], missing: Mapping[str, str] = MappingProxyType({})) -> str:
    """That document as text; `missing` are files that it names and nobody puts beside it."""
    return find(study.kind).to_yaml(exported, missing)


def check_settings(settings: SearchSettings) -> None:
    """Refuse settings that no study can have.

    Raises:
        VittleError: they are of no kind that is in the table.
    """
    if settings.kind not in KINDS:
        raise VittleError(f"settings of an unknown kind {settings.kind!r}; accepted: {', '.join(KINDS)}")


register(
    Kind(
        Settings,
        Schedule.from_dict,
        lambda study: Space(study.backbone.shape, study.inference.reductions, adapters=study.backbone.adapters),
        "vittle.search.inference:InferenceProblem",
        check=lambda study, schedule: costs.work(study.backbone.shape, schedule),
        entry=export.front_entry,
        document=export.document,
        to_yaml=export.to_yaml,
    )
)
