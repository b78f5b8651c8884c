"""Checks that the settings of several reductions share."""

import itertools


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
