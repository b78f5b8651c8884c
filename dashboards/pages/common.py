"""What every page is made with: its templates in the reader's language, the open store, and what an address names."""

import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.responses import Response
from fastapi.templating import Jinja2Templates
from jinja2 import StrictUndefined

from vittle.dashboards import text, words
from vittle.dashboards.documents import study_document
from vittle.dashboards.pages import plotlyjs
from vittle.dashboards.pages.cache import Snapshot, Watch
from vittle.dashboards.words import ENGLISH, Words
from vittle.spaces.errors import VittleError
from vittle.storage.records import STRANGE, OtherKindError, Study, Trial, UnreadableError, strangeness
from vittle.storage.store import Store

HERE = Path(__file__).parent.parent
OFFERED = 5  # names of other studies that a refusal tells


def _open_store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def spoken(request: Request) -> Words:
    """The words of the reader's language."""
    return words.asked_for(request.headers.get("accept-language", ""))


def _watch(request: Request) -> Watch:
    watch: Watch = request.app.state.watch
    return watch


OpenStore = Annotated[Store, Depends(_open_store)]
Watching = Annotated[Watch, Depends(_watch)]
Spoken = Annotated[Words, Depends(spoken)]


def _known(request: Request) -> dict[str, Any]:
    """What every template knows: the words, whether searches can be launched here, and the token of whoever signed in."""
    session = getattr(request.state, "session", None)
    return {
        "t": spoken(request),
        "can_change": request.app.state.service is not None,
        "csrf": None if session is None else session.csrf,
    }


templates = Jinja2Templates(directory=HERE / "templates", context_processors=[_known])
templates.env.undefined = StrictUndefined
templates.env.globals.update(plotlyjs=plotlyjs, study_url=study_document.study_url, report=None, can_change=False)
templates.env.filters.update(percent=text.percent)


def find_study(store: Store, name: str, speak: Words = ENGLISH) -> Study:
    """The study of that name; another name is a 404 that names those there are."""
    with _or_not_found(store, name, speak):
        return store.study(name)


def find_snapshot(watch: Watch, name: str, speak: Words = ENGLISH) -> Snapshot:
    """The study of that name with its trials; another name is a 404 that names those there are."""
    with _or_not_found(watch.store, name, speak):
        return watch.snapshot(name)


def find_trial(study: Study, trials: Sequence[Trial], number: str, speak: Words = ENGLISH) -> Trial:
    """The trial with that number, out of the trials of a study; another number is a 404 that says how many there are.

    One that nobody here understands is a 422 that says why.
    """
    trial = next((trial for trial in trials if str(trial.number) == number), None)
    if trial is None:
        asked = {"number": number, "study": repr(study.name), "count": len(trials)}
        raise HTTPException(HTTPStatus.NOT_FOUND, speak("sentences.no_trial", **asked))
    if not trial.readable:
        raise UnreadableError("trial", trial.number, trial.reason or "")
    return trial


def cached_json(request: Request, watch: Watch, name: str, key: str, make: Callable[[Snapshot], Mapping[str, Any]]) -> Response:
    """A JSON document about a study in the reader's language (see `Watch.document`), or 304 where the browser has it."""
    speak = spoken(request)
    with _or_not_found(watch.store, name, speak):
        document = watch.document(name, f"{key} {speak.language}", make)
    headers = {"ETag": document.etag, "Vary": "Accept-Encoding, Accept-Language"}
    if document.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(gzip.decompress(document.body), media_type="application/json", headers=headers)
    return Response(document.body, media_type="application/json", headers={**headers, "Content-Encoding": "gzip"})


def inference_only(name: str, store: OpenStore, speak: Spoken) -> None:
    """Refuse a page that only inference studies have, where the study is of another kind."""
    _ = find_study(store, name, speak).inference


INFERENCE = [Depends(inference_only)]


@contextmanager
def _or_not_found(store: Store, name: str, speak: Words) -> Iterator[None]:
    try:
        yield
    except (OtherKindError, UnreadableError):
        raise
    except VittleError:
        names = store.names()[:OFFERED]
        others = speak("sentences.there_are", names=", ".join(names)) if names else speak("sentences.there_are_none")
        raise HTTPException(HTTPStatus.NOT_FOUND, speak("sentences.no_study", name=repr(name), others=others)) from None
    except STRANGE as error:  # what its trials say does not go together
        raise UnreadableError("study", name, strangeness(error)) from error
