"""What a block's sparse attention reads of an image, and how much of what matters is among it.

Both are said against the true attention: what the queries of the patches would pay each key, were every key read, given the
tokens that reach the block. With A_ij of query i to key j, S_i the patch keys that it reads and T_i as many that matter most,

    recall = |S and T| / |T|                                 T by the mean of A over the queries where they all read the same
    mass   = mean over i of the sum of A_ij over j in S_i and the prefix tokens, which every query reads

Shapes: b images, h heads, p patch tokens, n tokens, k keys that are read.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from vittle.reductions.tokens import Heads

TOLD_BYTES = 1_100_000  # of all images and blocks together: 1.5 MB as text
FINEST = 255  # a byte of w stands for (w / 255)^2, so that weak attention is told from none


def explained(
    heads: Heads, prefix: int, positions: Tensor, passed_over: Tensor, grid: tuple[int, int], blocks: int
) -> Mapping[str, Tensor]:
    """What is read, by whom, and what is missed.

    Args:
        heads: what attention is given, prefix tokens first.
        prefix: how many they are.
        positions: (b, h, k) of the patch keys that are read, or (b, h, p, k) where each query has its own.
        passed_over: (b, h, p) or (b, h, p, p), 1 for those that are not.
        grid: rows and columns of the p tokens; one row where they are no grid.
        blocks: of the model, which share the room that there is for `weights`.

    Returns:
        By name, for each head:

        * `recall` and `mass` (b, h);
        * `positions`, int16, of the patch keys that are read: (b, h, k), or (b, h, a, k) for each of the `asked`;
        * `asked` (b, a), int16, the patch tokens whose reading is told: all, or an even choice where that were too much;
        * `weights` (b, h, a, k), bytes: the true attention that each of them pays to what is read, as a share of all it pays.
          A byte of w stands for (w / 255)^2.
    """
    paid = attention(heads, prefix)  # (b, h, p, n)
    each = positions.ndim == 4
    b, h, *_, k = positions.shape
    judged = paid if each else paid.mean(2)  # where all read the same, the mean of what they pay is all that it takes
    read = 1 - passed_over
    most = judged[..., prefix:].argsort(dim=-1, descending=True, stable=True)[..., :k]
    mass = (judged[..., prefix:] * read).sum(-1) + judged[..., :prefix].sum(-1)
    asked = lattice(grid, TOLD_BYTES // ((3 if each else 1) * b * h * k * blocks)).to(positions.device)
    positions = positions[:, :, asked] if each else positions
    told = (positions if each else positions[:, :, None]).expand(-1, -1, len(asked), -1)
    return {
        "recall": read.gather(-1, most).flatten(2).mean(-1),
        "mass": mass.mean(-1) if each else mass,
        "positions": positions.to(torch.int16),
        "asked": asked.expand(b, -1).to(torch.int16),
        "weights": (paid[:, :, asked].gather(-1, told + prefix).sqrt() * FINEST).round().to(torch.uint8),
    }


def attention(heads: Heads, prefix: int) -> Tensor:
    """What the queries of the patches would pay to all keys: (b, h, p, n), float32."""
    logits = heads.queries[:, :, prefix:] * heads.scale @ heads.keys.mT  # scaled first, as in `attended`
    if heads.log_sizes is not None:
        logits = logits + heads.log_sizes
    return logits.softmax(-1, dtype=torch.float32)


def lattice(grid: tuple[int, int], most: int) -> Tensor:
    """Positions on a grid, in reading order, of every s-th row and column: the least s with which they are `most`, or one."""
    step = 1
    while True:
        rows, columns = (torch.arange(min(step, length) // 2, length, step) for length in grid)
        if len(rows) * len(columns) <= max(1, most):
            return (rows[:, None] * grid[1] + columns).flatten()
        step += 1
