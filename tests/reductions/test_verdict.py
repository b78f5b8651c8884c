"""The paired test behind a verdict: its values, and what it says."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from vittle.reductions.verdict import LEVEL, Comparison, Verdict

RIVAL, KEEPS = "the metric key", "the search keeps metric key"


def compared(ours: int, theirs: int, at: str = "50%", images: int = 4000) -> Comparison:
    return Comparison(at=at, images=images, both=images // 2, ours=ours, theirs=theirs)


def test_pairs_are_counted() -> None:
    ours, theirs = np.array([1, 1, 0, 0, 1, 1], bool), np.array([1, 0, 1, 0, 0, 1], bool)
    assert Comparison.of("r", ours, theirs) == Comparison(at="r", images=6, both=2, ours=2, theirs=1)
    with pytest.raises(ValueError, match="6 and 5 answers are not pairs"):
        Comparison.of("r", ours, theirs[:5])


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),  # both tails together are more than everything
        (5, 0, 2 / 32),
        (0, 6, 2 / 64),
        (9, 1, 2 * (1 + 10) / 1024),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_the_test_is_exact(ours: int, theirs: int, p: float) -> None:
    assert compared(ours, theirs).p_value == pytest.approx(p, rel=1e-12)


def test_it_is_exact_of_many_images_too() -> None:
    tail = sum(math.comb(515, k) for k in range(229)) / 2**515
    assert compared(287, 228).p_value == pytest.approx(2 * tail, rel=1e-9)
    assert 0.01 < compared(287, 228).p_value < 0.0107


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [(5, 0, "cannot be told from"), (6, 0, "beats"), (0, 6, "loses to"), (3, 3, "cannot be told from")],
)
def test_only_beyond_chance_is_it_better(ours: int, theirs: int, outcome: str) -> None:
    assert compared(ours, theirs).outcome() == outcome


def test_equals_are_seldom_said_to_differ() -> None:
    rng = np.random.default_rng(0)
    wins = rng.binomial(100, 0.5, 2000)
    said = [compared(int(won), 100 - int(won)).outcome() != "cannot be told from" for won in wins]
    assert 0.01 < np.mean(said) < LEVEL


def test_a_tie_does_not_beat() -> None:
    for ours, theirs in ((0, 0), (15, 15), (1282 - 1150, 1267 - 1150)):
        worth_it, sentence = Verdict(rival=RIVAL, comparisons=(compared(ours, theirs),)).tell("scores", KEEPS)
        assert not worth_it
        assert sentence == (
            f"scores cannot be told from the metric key at 50% of the MACs ({ours} images only by it, "
            f"{theirs} only by the metric key), of 4000 images; the search keeps metric key"
        )


def test_it_is_said_where_it_wins_and_where_not() -> None:
    rates = (
        compared(30, 60, "61%"),
        compared(40, 45, "45%"),
        compared(90, 91, "35%"),
        compared(7, 7, "29%"),
        compared(300, 220, "20%"),
    )
    verdict = Verdict(rival=RIVAL, comparisons=rates)
    assert verdict.tell("scores", KEEPS) == (
        True,
        "scores beats the metric key at 20% of the MACs (300 images only by it, 220 only by the metric key), "
        "loses to it at 61% (30, 60), cannot be told from it at 45% (40, 45), 35% (90, 91) and 29% (7, 7), of 4000 images",
    )
    assert Verdict.model_validate(verdict.document()) == verdict


def test_many_rates_share_the_level() -> None:
    alone, two = (Verdict(rival=RIVAL, comparisons=(compared(6, 0),) * count) for count in (1, 2))
    assert alone.worth_it  # p is 0.031
    assert not two.worth_it


def test_what_was_not_compared_is_not_worth_it() -> None:
    assert Verdict(rival=RIVAL).tell("scores", KEEPS) == (
        False,
        "scores was not compared with the metric key; the search keeps metric key",
    )


@pytest.mark.parametrize("damage", [{"ours": -1}, {"ours": "many"}, {"more": 1}])
def test_a_damaged_one_is_refused(damage: dict[str, object]) -> None:
    document = Verdict(rival=RIVAL, comparisons=(compared(1, 2),)).document()
    document["comparisons"][0] |= damage
    with pytest.raises(ValidationError):
        Verdict.model_validate(document)
