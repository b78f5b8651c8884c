"""A study as one HTML file, to be sent to somebody: the page of the study with all that it needs inside, and nothing outside.

It is made of the same template and scripts; only what the scripts would ask the server for is in it already. Its own content
security policy lets nothing run but these scripts, known by their hashes, and nothing be fetched at all.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from plotly.offline import get_plotlyjs

from vittle.dashboards import words
from vittle.dashboards.documents import study_document
from vittle.dashboards.documents.pictures import drawn
from vittle.dashboards.pages import plotlyjs, studies
from vittle.dashboards.pages.common import HERE, templates
from vittle.dashboards.pages.trials import exported, file_name
from vittle.spaces.errors import VittleError
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

MOST = 500  # schedules that go along as files, besides those of the front

SCRIPT = re.compile(r'<script src="([^"]+)" defer></script>\s*')
STYLE = re.compile(r'<link ([^>]*)rel="stylesheet" href="([^"]+)">')
ICON = re.compile(r'\b(src|href)="(/static/[\w.-]+\.svg)"')
LINK = re.compile(r' href="/[^"]*"')  # to another page


def render(
    store: Store, study: Study, language: str = words.DEFAULT, pictures: Mapping[int, Mapping[str, Any]] | None = None
) -> str:
    """The report of a study as it is now.

    Args:
        store: of the study.
        study: the one to report.
        language: of all that the page says.
        pictures: by the number of a trial, what its pictures draw (`vittle.dashboards.documents.pictures`); none where not
            given.

    Raises:
        VittleError: there are no words in that language.
    """
    if language not in words.languages():
        raise VittleError(f"no words in language {language!r}; accepted: {', '.join(words.languages())}")
    spoken, trials = words.words(language), Ranking.of(store.trials(study.name), study.goals)
    context = {
        **studies.context(study, spoken),
        "t": spoken,
        "report": datetime.now(UTC),
        "pictured": {trial.number: drawn(trial.schedule) for trial in trials if trial.number in (pictures or {})},
    }
    data = {
        "twin": _here(studies.twin(store, study, trials, spoken)),
        "files": {trial.number: _file(study, trials, trial) for trial in _exported(study, trials)},
        "pictures": pictures or {},
    }
    return _alone(templates.env.get_template("study.html").render(context), data)


def _here(twin: dict[str, Any]) -> dict[str, Any]:
    """The twin without addresses of pages that only a dashboard has; `export` still tells that there is a file somewhere."""
    return {**twin, "trials": [{**trial, "url": None} for trial in twin["trials"]]}


def _exported(study: Study, trials: Sequence[Trial]) -> list[Trial]:
    """The trials whose files go along: all of them, or the front and those that rank best within the budget."""
    ranking = Ranking.of(trials, study.goals)
    expected, front = ranking.expected, {trial.number for trial in ranking.front()}

    def place(trial: Trial) -> tuple[bool, bool, float]:
        accuracy = expected.get(trial.number, trial.judged)["accuracy"]
        fits = ranking.within(trial, study.budget)
        return trial.number not in front, not fits, -accuracy.value

    ordered = sorted((trial for trial in trials if study_document.exportable(study, trial)), key=place)
    return ordered[: len(front) + MOST]


def _file(study: Study, trials: Sequence[Trial], trial: Trial) -> dict[str, str]:
    return {"name": file_name(study, trials, trial), "text": exported(study, trials, trial)}


def _alone(page: str, data: Mapping[str, object]) -> str:
    """A page of the dashboard with its files and some data inside."""
    scripts = [_content(path) for path in SCRIPT.findall(page)]
    styles = [_content(path) for _, path in STYLE.findall(page)]
    page = SCRIPT.sub("", page)
    page = STYLE.sub(lambda found: f"<style {found[1].strip()}>{_content(found[2])}</style>", page)
    page = ICON.sub(lambda found: f'{found[1]}="data:image/svg+xml;base64,{_base64(_content(found[2]).encode())}"', page)
    page = LINK.sub("", page)
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head, charset, rest = page.partition('<meta charset="utf-8">')
    body, end, after = rest.rpartition("</body>")
    inside = [f'<script type="application/json" id="{name}">{_json(value)}</script>' for name, value in data.items()]
    inside += [f"<script>{script}</script>" for script in scripts]
    meta = f'\n  <meta http-equiv="Content-Security-Policy" content="{policy}">'
    return "".join([head, charset, meta, body, "\n".join(inside), "\n", end, after])


def _content(path: str) -> str:
    """A file of the dashboard by its address, as a browser reads it."""
    text = get_plotlyjs() if path == plotlyjs.PATH else (HERE / path.lstrip("/")).read_text(encoding="utf-8")
    if re.search(r"</(script|style)|<!--", text, re.IGNORECASE):
        raise ValueError(f"{path} cannot stand inside a page")
    return text.replace("\r\n", "\n")


def _json(value: object) -> str:
    """JSON in which nothing is markup."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hashes(contents: Sequence[str]) -> str:
    return " ".join(f"'sha256-{_base64(hashlib.sha256(one.encode()).digest())}'" for one in contents)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
