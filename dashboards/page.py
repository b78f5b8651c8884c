"""What every page is made with: its templates in the reader's language, the open store, and what an address names."""

from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.templating import Jinja2Templates
from jinja2 import StrictUndefined

from vittle.dashboards import plotlyjs, text, words
from vittle.dashboards.words import Words
from vittle.spaces.errors import VittleError
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

HERE = Path(__file__).parent


def _open_store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _words(request: Request) -> Words:
    return words.asked_for(request.headers.get("accept-language", ""))


OpenStore = Annotated[Store, Depends(_open_store)]
Spoken = Annotated[Words, Depends(_words)]

templates = Jinja2Templates(directory=HERE / "templates", context_processors=[lambda request: {"t": _words(request)}])
templates.env.undefined = StrictUndefined
templates.env.globals["plotlyjs"] = plotlyjs
templates.env.filters.update(percent=text.percent)


def find_study(store: Store, name: str) -> Study:
    """The study of that name; another name is a 404 that names those there are."""
    try:
        return store.study(name)
    except VittleError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from None


def find_trial(study: Study, trials: list[Trial], number: str) -> Trial:
    """The trial with that number, out of the trials of a study; another number is a 404 that says how many there are."""
    trial = next((trial for trial in trials if str(trial.number) == number), None)
    if trial is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"no trial {number} in study {study.name!r}; it has {len(trials)} trials")
    return trial
