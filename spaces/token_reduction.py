"""Reductions that leave fewer tokens: what is common to merging and pruning.

Their settings hold the *realised* counts, tokens left after each block. A search varies the share of patch tokens kept after
each block (`shares`), and `combination` makes counts of the shares of all such reductions together.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

from vittle.spaces.errors import ScheduleError
from vittle.spaces.reduction import Context, Probe, Reduction
from vittle.spaces.shape import BackboneShape
from vittle.spaces.work import Act, BlockWork

Counts = Sequence[tuple[int, int]]
"""Tokens before and after a reduction, block by block."""

# Strengths of probes, as shares of the patch tokens, as far as a reduction can remove as many at once. The most that it can is
# among them: a plan is drawn to whatever is judged too kindly, and what lies beyond the measured strengths easily is. More
# strengths make no better plans (simulated on recorded evaluations), and every one costs images.
PROBED = (1 / 2, 1.0)


class TokenReduction(Reduction):
    """A reduction that is token counts over depth.

    `propose` gives settings that still keep every token, and `encode` leaves the shares kept out: counts follow from the shares
    of all token reductions together.
    """

    @abstractmethod
    def tokens_after(self, shape: BackboneShape, block: int, tokens: int) -> int:
        """Tokens left once this reduction has acted in `block`, which it enters with `tokens` of them.

        Raises:
            ScheduleError: the block cannot do what the settings say; the message has the value and the limit.
        """

    @abstractmethod
    def nearest(self, shape: BackboneShape, passed: Counts, tokens: int, wanted: int) -> int:
        """The count nearest to `wanted` that a block entered with `tokens` can realise.

        Args:
            shape: the backbone's.
            passed: what this reduction did in the blocks before, which says which block this is.
            tokens: tokens that enter.
            wanted: tokens that should be left.
        """

    @abstractmethod
    def realising(self, shape: BackboneShape, counts: Counts) -> Self | None:
        """These settings with other token counts, one pair per block; None where they would change nothing."""

    def attends_in_proportion(self, shape: BackboneShape) -> bool:
        """Whether tokens are attended to in proportion to the patches in them, on this backbone."""
        del shape
        return True

    def variant(self, shape: BackboneShape, block: int) -> str:
        """What decides how long it takes to act in `block`, besides token counts."""
        del shape, block
        return self.name

    def rule(self, shape: BackboneShape, block: int) -> str:
        """By what it chooses tokens in `block`, one of the rules in its `words`."""
        del shape, block
        return self.name

    def embedding_macs(self, shape: BackboneShape, tokens: int) -> int:
        """MACs that this reduction itself adds to a block in which it acts on `tokens` tokens."""
        del shape, tokens
        return 0

    def embedding_parameters(self, shape: BackboneShape) -> int:
        """Trained weights that it reads in a block in which it acts."""
        del shape
        return 0

    def act(self, shape: BackboneShape, row: BlockWork) -> BlockWork:
        tokens = row.leaving
        left = self.tokens_after(shape, row.index, tokens)
        if left == tokens:
            return row
        if row.resting:
            raise ScheduleError(
                f"{self.name} acts in visit {row.index}, in which {row.resting} tokens rest; accepted: where all take part"
            )
        act = Act(
            self.name,
            "tokens",
            tokens,
            left,
            strength=(tokens - left) / max(1, tokens - shape.prefix),
            variant=self.variant(shape, row.index),
            rule=self.rule(shape, row.index),
            macs=self.embedding_macs(shape, row.keys),
            parameters=self.embedding_parameters(shape),
        )
        return row.acting(act)

    def following(self, shape: BackboneShape, wanted: Callable[[int, int], int]) -> Self | None:
        """These settings with the counts nearest to what is wanted, where nothing else acts; None where they change nothing.

        Args:
            shape: the backbone's.
            wanted: tokens that should be left, of a block and the tokens that enter it.
        """
        counts: list[tuple[int, int]] = []
        tokens = shape.tokens
        for block in range(shape.depth):
            left = self.nearest(shape, counts, tokens, wanted(block, tokens))
            counts.append((tokens, left))
            tokens = left
        return self.realising(shape, counts)

    @classmethod
    def keeping_all(cls, context: Context) -> Self:
        """The plain settings, with counts that keep every token."""
        settings = cls.propose(context, cls.neutral(context))
        assert settings is not None  # without counts there are always some
        return settings

    @classmethod
    def probes(cls, context: Context) -> list[Probe]:
        """Plain settings that remove each of `PROBED` in one block, or the nearest to it that a block can."""
        shape, settings = context.shape, cls.keeping_all(context)
        wanted = [shape.tokens - round(share * shape.patches) for share in PROBED]
        left = sorted({settings.nearest(shape, (), shape.tokens, count) for count in wanted} - {shape.tokens}, reverse=True)
        found = []
        for block in range(context.blocks):
            for count in left:
                part = settings.following(shape, lambda at, tokens: count if at == block else tokens)  # noqa: B023
                assert part is not None  # it removes something in one block
                found.append(Probe(block, (shape.tokens - count) / shape.patches, part))
        return found
