"""The words of the pages: every language says the same, and says everything."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from vittle.dashboards import words

DASHBOARDS = Path(words.__file__).parent
SOURCES = [path for path in DASHBOARDS.rglob("*") if path.suffix in (".py", ".js", ".html")]
USED = re.compile(r"""\b(?:t|speak)\(\s*["'`]([a-z_]+(?:\.[a-zA-Z0-9_-]+)+)["'`]""")
QUOTED = re.compile(r"""["'`]([a-z_]+(?:\.[a-zA-Z0-9_-]+)+)["'`]""")  # also where a condition chooses between two
BEGUN = re.compile(r"""\b(?:t|speak)\(\s*(?:"([a-z_.]+\.)" ~|f?["`]([a-z_.]+\.)[{$])""")  # the rest of the key is a value


def leaves(catalog: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, word in catalog.items():
        if isinstance(word, Mapping) and "other" not in word:
            yield from leaves(word, f"{above}{name}.")
        else:
            yield above + name, word


def named(word: Any) -> set[str]:
    forms = word.values() if isinstance(word, Mapping) else [word]
    return {name for form in forms for name in re.findall(r"\{(\w+)\}", form)}


@pytest.mark.parametrize("language", words.languages())
def test_every_language_has_the_same_words_with_the_same_values(language: str) -> None:
    english, other = (dict(leaves(words.words(one).catalog)) for one in (words.DEFAULT, language))
    assert other.keys() == english.keys()
    for key, word in other.items():
        assert named(word) == named(english[key]), key
        assert all(form.strip() for form in (word.values() if isinstance(word, Mapping) else [word])), key


def test_every_word_that_is_used_is_there_and_every_word_that_is_there_is_used() -> None:
    text = "\n".join(path.read_text() for path in SOURCES)
    keys = set(dict(leaves(words.words().catalog)))
    families = {one or other for one, other in BEGUN.findall(text)}
    assert set(USED.findall(text)) <= keys
    assert {key for key in keys - set(QUOTED.findall(text)) if not key.startswith(tuple(families))} == set()


def test_a_form_is_chosen_by_count() -> None:
    spoken = words.Words("en", {"trials": {"one": "{count} trial", "other": "{count} trials"}, "plain": "as it is"})
    assert [spoken("trials", count=count) for count in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
    assert spoken("plain") == "as it is"
    with pytest.raises(KeyError):
        spoken("missing")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("ja", "ja"),
        ("ja-JP,ja;q=0.9,en-US;q=0.8", "ja"),
        ("en-GB,ja;q=0.5", "en"),
        ("fr, ja;q=0.5, en;q=0.4", "ja"),
        ("ja;q=0, en", "en"),
        ("", "en"),
        ("fr", "en"),
        ("ja;q=x,,;q=", "en"),
        ("*", "en"),
    ],
)
def test_the_browser_chooses(header: str, language: str) -> None:
    assert words.asked_for(header).language == language
