"""What the pages say, in the language that the browser asks for. A language is one file in `languages`.

What is said of a reduction stands beside its settings (`Reduction.words`), and is found under `reductions.NAME`.

A word may name values, `{count} trials`, and may have two forms, `one` and `other`, of which `count` chooses.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vittle.spaces.table import REDUCTIONS

FOLDER = Path(__file__).parent / "languages"
DEFAULT = "en"


class Words:
    """The words of one language; called with a key, `studies.title`, and the values that the word names.

    Attributes:
        language: its code in HTML, such as `ja`.
    """

    def __init__(self, language: str, words: Mapping[str, Any]) -> None:
        self.language, self._words = language, words

    @property
    def catalog(self) -> dict[str, Any]:
        """All words by their keys, nested as in the file, with those of the reductions."""
        spoken = {name: entry.settings.words for name, entry in REDUCTIONS.items()}
        reductions = {name: by.get(self.language, by[DEFAULT]) for name, by in spoken.items()}
        brought = {picture: said for words in reductions.values() for picture, said in words.get("pictures", {}).items()}
        return {**self._words, "reductions": reductions, "pictures": {**self._words.get("pictures", {}), **brought}}

    def __call__(self, key: str, /, **values: object) -> str:
        found: Any = self.catalog
        for part in key.split("."):
            found = found[part]
        if isinstance(found, Mapping):
            found = found["one" if values.get("count") == 1 and "one" in found else "other"]
        return str(found).format_map(values)


@cache
def languages() -> tuple[str, ...]:
    """All languages that there is a file of."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


@cache
def words(language: str = DEFAULT) -> Words:
    """The words of a language that there is a file of."""
    return Words(language, json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8")))


ENGLISH = words()


def asked_for(accept_language: str) -> Words:
    """The words of the language that a browser likes best of those there are, by its `Accept-Language` header; else English."""
    wanted = []
    for place, part in enumerate(accept_language.split(",")):
        code, _, quality = part.strip().partition(";q=")
        try:
            wanted.append((-float(quality or 1), place, code.split("-")[0].lower()))
        except ValueError:
            continue
    return words(next((code for weight, _, code in sorted(wanted) if weight < 0 and code in languages()), DEFAULT))
