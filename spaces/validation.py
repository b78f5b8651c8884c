"""Checks that the settings of several reductions share, and how a mistake that Pydantic found is told in one line."""

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

MOST = 2**31 - 1  # of anything that is counted: it is an integer in every database
SHOWN = 100  # characters of a name that nobody expects
T = TypeVar("T")
Count = Annotated[int, Field(ge=0, le=MOST)]
ShortName = Annotated[str, Field(max_length=SHOWN)]


def falling(kept: tuple[int, ...]) -> tuple[int, ...]:
    """Token counts over depth: at least one block, never rising, never empty."""
    if not kept:
        raise ValueError("needs one token count per block")
    if kept[-1] < 1:
        raise ValueError(f"ends at {kept[-1]} tokens, at least 1 must be left")
    for block, (before, after) in enumerate(itertools.pairwise(kept), start=1):
        if after > before:
            raise ValueError(f"rises from {before} to {after} tokens in block {block}; counts can only fall")
    return kept


def read_as(kind: type[T], document: Mapping[str, Any]) -> T:
    """A dataclass as plain values, that is made of them where each is of the type that its field has.

    Raises:
        ValueError: a field is missing, or is something else.
    """
    known: Any = kind
    made: T = _reader(known).validate_python(dict(document))
    return made


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def first_mistake(error: ValidationError, *above: int | str) -> str:
    """Where the first mistake is, below what stands `above` it, and what it is."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return told((*above, *first["loc"]), first["msg"])


def told(place: Sequence[int | str], message: str) -> str:
    """A mistake as one line: where it is, and what it is."""
    where = shortened(".".join(f"{part}" for part in place))
    message = " ".join(message.removeprefix("Value error, ").split())
    said = f"{where}: {message}" if where else message
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in said)


def shortened(text: str, most: int = SHOWN) -> str:
    """The beginning of what may be of any length."""
    return text if len(text) <= most else f"{text[:most]}…"
