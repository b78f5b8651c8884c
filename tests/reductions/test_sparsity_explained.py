"""What is said of sparse attention, against attention that is worked out here, query by query."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from vittle import Schedule
from vittle.reductions import sparsity_explained
from vittle.reductions.backbone import shape_of
from vittle.reductions.sparsity import Sparsify
from vittle.reductions.sparsity_explained import explained, lattice
from vittle.reductions.sparsity_predictor import SparsityPredictor
from vittle.reductions.tokens import Heads
from vittle.reductions.vit import ReducedViT
from vittle.spaces import Merging
from vittle.spaces.sparsity import Sparsity

PREFIX, PATCHES, READ = 2, 12, 4
GRID = (3, 4)


def made(*, sizes: bool) -> Heads:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, PREFIX + PATCHES, 5, generator=generator) for _ in range(3))
    log_sizes = torch.rand(2, 1, 1, PREFIX + PATCHES, generator=generator) if sizes else None
    return Heads(2 * queries, keys, values, log_sizes, 0.7, "mask")


def by_hand(heads: Heads, image: int, head: int) -> np.ndarray:
    """What each patch query pays to all tokens: (p, n)."""
    rows = []
    for query in heads.queries[image, head, PREFIX:].double().numpy():
        logits = heads.keys[image, head].double().numpy() @ query * heads.scale
        if heads.log_sizes is not None:
            logits += heads.log_sizes[image, 0, 0].double().numpy()
        raised = [math.exp(logit) for logit in logits]
        rows.append([one / sum(raised) for one in raised])
    return np.array(rows)


@pytest.mark.parametrize("sizes", [False, True])
def test_recall_and_mass_where_all_queries_read_the_same(sizes: bool) -> None:
    heads = made(sizes=sizes)
    positions = torch.randn(2, 3, PATCHES, generator=torch.Generator().manual_seed(1)).argsort(-1)[..., :READ]
    passed_over = torch.ones(2, 3, PATCHES).scatter(-1, positions, 0)
    told = explained(heads, PREFIX, positions, passed_over, GRID, 1)
    recalls = set()
    for image in range(2):
        for head in range(3):
            paid, read = by_hand(heads, image, head), positions[image, head].tolist()
            order = sorted(range(PATCHES), key=lambda key: -paid[:, PREFIX + key].mean())
            recall = len(set(order[:READ]) & set(read)) / READ
            mass = np.mean([row[:PREFIX].sum() + sum(row[PREFIX + key] for key in read) for row in paid])
            assert told["recall"][image, head] == pytest.approx(recall)
            assert told["mass"][image, head] == pytest.approx(mass, abs=1e-5)
            assert told["positions"][image, head].tolist() == read
            assert told["asked"][image].tolist() == list(range(PATCHES))
            shares = (told["weights"][image, head].double() / 255) ** 2
            assert shares.numpy() == pytest.approx(paid[:, [PREFIX + key for key in read]], abs=4e-3)
            recalls.add(recall)
    assert len(recalls) > 1


@pytest.mark.parametrize("sizes", [False, True])
def test_recall_and_mass_where_each_query_reads_its_own(sizes: bool) -> None:
    heads = made(sizes=sizes)
    positions = torch.randn(2, 3, PATCHES, PATCHES, generator=torch.Generator().manual_seed(1)).argsort(-1)[..., :READ]
    passed_over = torch.ones(2, 3, PATCHES, PATCHES).scatter(-1, positions, 0)
    told = explained(heads, PREFIX, positions, passed_over, GRID, 1)
    for image in range(2):
        for head in range(3):
            paid = by_hand(heads, image, head)
            recalls, masses = [], []
            for query, row in enumerate(paid):
                read = positions[image, head, query].tolist()
                order = sorted(range(PATCHES), key=lambda key, row=row: -row[PREFIX + key])
                recalls.append(len(set(order[:READ]) & set(read)) / READ)
                masses.append(row[:PREFIX].sum() + sum(row[PREFIX + key] for key in read))
                shares = (told["weights"][image, head, query].double() / 255) ** 2
                assert shares.numpy() == pytest.approx(row[[PREFIX + key for key in read]], abs=4e-3)
                assert told["positions"][image, head, query].tolist() == read
            assert told["recall"][image, head] == pytest.approx(np.mean(recalls))
            assert told["mass"][image, head] == pytest.approx(np.mean(masses), abs=1e-5)


def test_whoever_reads_what_matters_most_misses_nothing() -> None:
    heads = made(sizes=True)
    paid = sparsity_explained.attention(heads, PREFIX)[..., PREFIX:]
    for judged in (paid.mean(2), paid):
        best = judged.argsort(dim=-1, descending=True)
        for positions, recall in ((best[..., :READ], 1.0), (best[..., -READ:], 0.0)):
            passed_over = torch.ones_like(judged).scatter(-1, positions, 0)
            told = explained(heads, PREFIX, positions, passed_over, GRID, 1)
            assert told["recall"].unique().tolist() == [recall]
    everything = explained(heads, PREFIX, best, torch.zeros_like(judged), GRID, 1)
    torch.testing.assert_close(everything["mass"], torch.ones(2, 3))


@torch.inference_mode()
@pytest.mark.parametrize("form", ["keys", "queries"])
def test_what_is_told_is_what_runs(tiny: nn.Module, images_for, form: str) -> None:
    """The values of patch keys that are told to be unread change nothing of the output, and each of the others does."""
    shape = shape_of(tiny)
    predictor = SparsityPredictor.for_backbone(shape)
    generator = torch.Generator().manual_seed(3)
    for weight in predictor.parameters():
        weight.copy_(torch.randn(weight.shape, generator=generator))
    about = {"selection": "trained", "predictor": predictor.name} if form == "queries" else {}
    settings = Sparsity.model_validate({"shares": (0.1,) * shape.depth, "form": form, "rests": "none", **about})
    model = ReducedViT(tiny, Schedule((settings,)), {"sparsity": predictor} if about else None)
    there: list[Sparsify] = [one for row in model.operators for one in row]
    operator = there[1]
    given: list[Heads] = []
    attend = operator.attend
    operator.attend = lambda heads: given.append(heads) or attend(heads)  # type: ignore[method-assign, func-returns-value]
    told = [one.told["sparsity"] for one in model.trace(images_for(tiny))][1]
    (heads,) = given
    mixed = attend(heads)
    # What is read is chosen by the values, too; so the choice is held while a value changes.
    choice = operator.choose(operator._split(heads)[1])
    operator.choose = lambda _: choice  # type: ignore[method-assign]
    for place, query in list(enumerate(told["asked"][0].tolist()))[:3]:
        positions = told["positions"][0, 0]
        read = set((positions[place] if form == "queries" else positions).tolist())
        assert len(read) == 6
        moved = set()
        for key in range(shape.patches):
            values = heads.values.clone()
            values[0, 0, shape.prefix + key] += 100
            changed = attend(heads._replace(values=values))[0, 0, shape.prefix + query]
            moved |= set() if torch.allclose(changed, mixed[0, 0, shape.prefix + query]) else {key}
        assert moved == read


@torch.inference_mode()
def test_after_merging_it_is_told_of_the_tokens_that_are_left(tiny: nn.Module, images_for) -> None:
    shape = shape_of(tiny)
    schedule = Schedule((Sparsity(shares=(1, 0.2, 0.2, 0.2)), Merging(kept=(45, 41, 31, 31))))
    told = [one.told for one in ReducedViT(tiny, schedule).trace(images_for(tiny))]
    assert not told[0].get("sparsity")
    for one, patches in zip(told[1:], (44, 40, 30), strict=True):
        found = one["sparsity"]
        assert found["positions"].shape == (3, shape.heads, round(0.2 * patches))
        assert found["asked"][0].tolist() == list(range(patches))
        assert found["weights"].shape == (3, shape.heads, patches, round(0.2 * patches))
        assert ((found["mass"] > 0) & (found["mass"] < 1)).all()


def test_where_everything_were_too_much_an_even_choice_of_patches_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = made(sizes=False)
    positions = torch.arange(READ).expand(2, 3, READ)
    passed_over = torch.ones(2, 3, PATCHES).scatter(-1, positions, 0)
    whole = explained(heads, PREFIX, positions, passed_over, GRID, 5)
    monkeypatch.setattr(sparsity_explained, "TOLD_BYTES", 5 * whole["weights"].numel() - 1)
    told = explained(heads, PREFIX, positions, passed_over, GRID, 5)
    assert told["asked"][0].tolist() == [5, 7]
    assert torch.equal(told["weights"], whole["weights"][:, :, [5, 7]])
    assert torch.equal(told["recall"], whole["recall"])
    monkeypatch.setattr(sparsity_explained, "TOLD_BYTES", 0)
    assert explained(heads, PREFIX, positions, passed_over, GRID, 5)["weights"].shape == (2, 3, 1, READ)


@pytest.mark.parametrize("grid", [(14, 14), (24, 24), (5, 7), (1, 30), (1, 1)])
@pytest.mark.parametrize("most", [1, 5, 24, 10_000])
def test_a_lattice_is_as_fine_as_may_be(grid: tuple[int, int], most: int) -> None:
    found = lattice(grid, most)
    assert 1 <= len(found) <= most
    assert found.tolist() == sorted(set(found.tolist()))
    assert found.max() < grid[0] * grid[1]
    rows, columns = np.unique(found // grid[1]), np.unique(found % grid[1])
    assert len(rows) * len(columns) == len(found)
    steps = {int(step) for places in (rows, columns) for step in np.diff(places)}
    assert len(steps) <= 1
    step = max(steps, default=max(grid))
    finer = [math.ceil((length - min(step - 1, length) // 2) / (step - 1)) for length in grid] if step > 1 else [most + 1]
    assert step == 1 or len(found) == 1 or math.prod(finer) > most
