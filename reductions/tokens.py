"""What flows from block to block, what a reduction sees of a block's attention, and what every operator is."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vittle.reductions.attention import Form
from vittle.spaces.shape import BackboneShape
from vittle.spaces.work import Act, BlockWork


class Tokens(NamedTuple):
    """The tokens of a batch between two blocks.

    Attributes:
        features: (b, n, d), prefix tokens first.
        sizes: (b, n) float32, how many patches a token stands for; None while all are 1.
        source: (b, m) for each of the m tokens of the first block, the position of the token that it is part of now; None
            where nobody asks.
        active: (b, k) positions of those that took part in the last visit where some rested; None while none has.
    """

    features: Tensor
    sizes: Tensor | None = None
    source: Tensor | None = None
    active: Tensor | None = None


class FinalTokens(NamedTuple):
    """The tokens after the last block; see `Tokens`.

    Attributes:
        features: (b, n, d), prefix tokens first.
        sizes: (b, n) float32, how many patches a token stands for.
        source: (b, m) for each of the m tokens of the first block, the position of the token that it is part of.
    """

    features: Tensor
    sizes: Tensor
    source: Tensor


Told = dict[str, Mapping[str, Tensor]]
"""What operators say of what they decided, by the name of the reduction (`Operator.explain`)."""


class Traced(NamedTuple):
    """The tokens after a block, and what has become of those of the first block.

    Attributes:
        tokens: with their `source`, which for a dropped token is the most similar one that stayed.
        dropped: (b, m) which tokens of the first block, with all that merged with them, have been dropped.
        told: what the reductions that acted have to say for their pictures.
        taking_part: (b, k) positions of those of the tokens before that did; None for all.
    """

    tokens: Tokens
    dropped: Tensor
    told: Told
    taking_part: Tensor | None = None


class Attended(NamedTuple):
    """The attention that has just run, for those tokens that are still there.

    Attributes:
        queries: (b, h, q, c).
        keys: (b, h, m, c) of all tokens that entered the block.
        scale: what logits are multiplied by.
        bias: (b, 1, 1, m) log sizes that were added to the logits, or None.
        embedding: (b, m, e) merge embedding of the tokens that entered, or None where there is none.
        remaining: (b, n) which of the m tokens are still there, in their order; None for all.
    """

    queries: Tensor
    keys: Tensor
    scale: float
    bias: Tensor | None = None
    embedding: Tensor | None = None
    remaining: Tensor | None = None

    def mean_keys(self) -> Tensor:
        """The keys summed over heads, (b, n, c): compared by cosine, so their mean."""
        return self._of_those_left(self.keys.sum(1))

    def embedded(self) -> Tensor:
        """The merge embedding (b, n, e)."""
        if self.embedding is None:
            raise RuntimeError("the block has computed no merge embedding")
        return self._of_those_left(self.embedding)

    @torch.no_grad()
    def importance(self) -> Tensor:
        """The attention that the class token, the first one, pays to each token, mean over heads: (b, n)."""
        logits = self.queries[:, :, :1] @ self.keys.mT * self.scale  # (b, h, 1, m)
        if self.bias is not None:
            logits = logits + self.bias
        return self._of_those_left(logits.softmax(-1, dtype=torch.float32).mean((1, 2)))

    def keep(self, positions: Tensor) -> "Attended":
        """The attention of the tokens at `positions` (b, k) of those left."""
        remaining = positions if self.remaining is None else self.remaining.gather(1, positions)
        return self._replace(remaining=remaining)

    def _of_those_left(self, values: Tensor) -> Tensor:
        return values if self.remaining is None else take(values, self.remaining)


class Remembered(NamedTuple):
    """The attention of a block that ran before, as far as operators ask about it; nothing had been removed until then.

    Attributes:
        keys: (b, m, c) summed over heads, of all tokens that entered the block.
        weights: (b, m) attention of the class token, mean over heads; None where there is no class token.
        remaining: (b, n) which of the m tokens are still there, in their order; None for all.
    """

    keys: Tensor
    weights: Tensor | None
    remaining: Tensor | None = None

    def mean_keys(self) -> Tensor:
        """As of `Attended`."""
        return self._of_those_left(self.keys)

    def embedded(self) -> Tensor:
        """A dense pass makes no merge embedding."""
        raise RuntimeError("no merge embedding is remembered")

    def importance(self) -> Tensor:
        """As of `Attended`."""
        if self.weights is None:
            raise RuntimeError("no class token, so no importance is remembered")
        return self._of_those_left(self.weights)

    def keep(self, positions: Tensor) -> "Remembered":
        """As of `Attended`."""
        remaining = positions if self.remaining is None else self.remaining.gather(1, positions)
        return self._replace(remaining=remaining)

    def _of_those_left(self, values: Tensor) -> Tensor:
        return values if self.remaining is None else take(values, self.remaining)


Attention = Attended | Remembered
"""What an operator sees of its block's attention."""


class Heads(NamedTuple):
    """What the core of a block's attention is given.

    Attributes:
        queries: (b, h, q, c), of the first q tokens that take part.
        keys: (b, h, n, c).
        values: (b, h, n, c).
        log_sizes: (b, 1, 1, n) to be added to the logits, or None.
        scale: what logits are multiplied by.
        form: how a fused kernel is told what is added to the logits.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    log_sizes: Tensor | None
    scale: float
    form: Form


class Site(NamedTuple):
    """Where an operator stands: in a visit of a block of a backbone, for one act of it."""

    shape: BackboneShape
    row: BlockWork
    act: Act


class Operator(nn.Module):
    """One act of a reduction, carried out. Which of its methods is called is said by the act's place.

    It is made from the reduction's settings, its `Site`, and the trained weights of the reduction, None where there are none.
    It must not depend on how many images a batch has, nor have shapes that depend on their content, so that it can be compiled
    and exported. What it precomputes is a buffer that is not saved, so that it follows the model to its device.

    Attributes:
        measures: names of what it explains that say how well it does, (b, h) shares; pictures show how they fall on images
            that are blurred, noisy or pale.
        signals: whether there is something to watch in what it is given; see `signalled`.
    """

    measures: ClassVar[tuple[str, ...]] = ()
    signals: bool = False

    def projection(self) -> nn.Linear | None:
        """A layer (d to e) to be made of the normalised tokens together with queries, keys and values; `Attended.embedding`.

        Called once, when the model is built; only what acts on tokens can have one.
        """
        return None

    def dress(self, block: nn.Module) -> Any:
        """What runs in this visit, in place of the block that it is for: the same, or one with the names of timm's parts.

        Called once, when the model is built; only what routes can have another.
        """
        return block

    def select(self, tokens: Tokens) -> Tensor | None:
        """Who of the tokens that enter takes part (`route`): positions (b, k), rising, prefix tokens first; None for all."""
        raise NotImplementedError

    def attend(self, heads: Heads) -> Tensor:
        """What attention mixes for each query (b, h, q, c), in place of the fused core (`attention`)."""
        raise NotImplementedError

    def reduce(self, tokens: Tokens, attended: Attention) -> tuple[Tokens, Attention]:
        """The tokens left between attention and MLP, and the attention of those that are still what they were (`tokens`)."""
        raise NotImplementedError

    def signalled(self, *given: Any) -> tuple[Any, Tensor]:
        """What its own method makes of what that is given, and what is to be watched in it: (b, m), m always the same.

        Asked in place of its own method where the model's signals are wanted and it `signals`.
        """
        raise NotImplementedError

    def explain(self, *given: Any) -> Mapping[str, Tensor]:
        """What it decides of what its own method is given, for its picture: tensors (b, ...) by name."""
        del given
        return {}


class Telling(Operator):
    """An operator that also tells what it decides.

    Args:
        operator: what acts.
        reduction: its name.
        told: where it is told to.
    """

    def __init__(self, operator: Operator, reduction: str, told: Told) -> None:
        super().__init__()
        self._operator, self._reduction, self._told = operator, reduction, told

    def select(self, tokens: Tokens) -> Tensor | None:
        return self._tell(tokens).select(tokens)

    def attend(self, heads: Heads) -> Tensor:
        return self._tell(heads).attend(heads)

    def reduce(self, tokens: Tokens, attended: Attention) -> tuple[Tokens, Attention]:
        return self._tell(tokens, attended).reduce(tokens, attended)

    def _tell(self, *given: Any) -> Operator:
        self._told[self._reduction] = self._operator.explain(*given)
        return self._operator


class Signalling(Operator):
    """An operator whose signal is heard as well.

    Args:
        operator: what acts, and `signals`.
        heard: where its signal is added.
    """

    def __init__(self, operator: Operator, heard: list[Tensor]) -> None:
        super().__init__()
        self._operator, self._heard = operator, heard

    def select(self, tokens: Tokens) -> Tensor | None:
        taking_part: Tensor | None = self._hear(tokens)
        return taking_part

    def attend(self, heads: Heads) -> Tensor:
        mixed: Tensor = self._hear(heads)
        return mixed

    def reduce(self, tokens: Tokens, attended: Attention) -> tuple[Tokens, Attention]:
        reduced: tuple[Tokens, Attention] = self._hear(tokens, attended)
        return reduced

    def _hear(self, *given: Any) -> Any:
        made, signal = self._operator.signalled(*given)
        self._heard.append(signal.detach().float())
        return made


def take(values: Tensor, positions: Tensor) -> Tensor:
    """The rows of values (b, n) or (b, n, d) at positions (b, k)."""
    if values.ndim == 2:
        return values.gather(1, positions)
    b, n, _ = values.shape
    if b > 1:
        positions = positions + torch.arange(0, b * n, n, device=positions.device)[:, None]
    # Rows of a matrix are copied whole, three times as fast as `gather` copies elements on a CPU.
    return functional.embedding(positions, values.flatten(0, 1))


def unmerge(features: Tensor, source: Tensor) -> Tensor:
    """Restore every token of the first block: each gets the features of the token that it is part of.

    Args:
        features: (b, n, d) after any block of a reduced model.
        source: (b, m) from `ReducedViT.forward_tokens`, the position in `features` of each token of the first block.

    Returns:
        (b, m, d), prefix tokens first and patches in the order of their grid.
    """
    return take(features, source)
