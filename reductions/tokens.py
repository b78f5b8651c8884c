"""What flows from block to block, and what a reduction sees of a block's attention."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Tokens(NamedTuple):
    """The tokens of a batch between two blocks.

    Attributes:
        features: (b, n, d), prefix tokens first.
        sizes: (b, n) float32, how many patches a token stands for; None while all are 1.
    """

    features: Tensor
    sizes: Tensor | None = None


class Attended(NamedTuple):
    """The heads of the attention that has just run: queries (b, h, q, c) and keys (b, h, n, c)."""

    queries: Tensor
    keys: Tensor


class Operator(Protocol):
    """A reduction in one block: called between attention and MLP, it returns fewer tokens.

    It is made from the reduction's settings, the block's index, the number of prefix tokens and the tokens to keep.
    """

    def __call__(self, tokens: Tokens, attended: Attended) -> Tokens: ...
