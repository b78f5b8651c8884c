"""Which images a study was judged on, in a few bytes, so that others are noticed. Starts without torch."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

DIGITS = 12  # hexadecimal


@dataclass(frozen=True)
class ImageDigest:
    """Images that were read, in the order in which they were chosen.

    Attributes:
        images: how many.
        names: hash of their names; of arrays, of their pixels.
        sizes: hash of their files' sizes.
        labels: hash of their labels.
    """

    images: int
    names: str
    sizes: str
    labels: str

    @classmethod
    def of(cls, images: int, names: Iterable[bytes], sizes: Iterable[int], labels: Iterable[int] | None) -> Self:
        """The digest of so many images with these names, sizes in bytes and labels, where there are any."""
        return cls(
            images,
            _hash(names),
            _hash(str(size).encode() for size in sizes),
            _hash(() if labels is None else (str(label).encode() for label in labels)),
        )

    @property
    def id(self) -> str:
        """All of it in one word."""
        return _hash([str(self.images).encode(), self.names.encode(), self.sizes.encode(), self.labels.encode()])

    def change_from(self, before: Self | None) -> str | None:
        """What is different from what there was before, in words; None where nothing is, or nobody knows what there was."""
        if before is None or self == before:
            return None
        if self.images != before.images:
            return f"there are {self.images:,} where there were {before.images:,}"
        if self.names != before.names:
            return "as many, but others or in another order"
        if self.sizes != before.sizes:
            return "files have the same names and other sizes"
        return "they have other labels"


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:DIGITS]
