"""The contract of every operator, on every supported kind of model."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import vittle
from models import FAMILIES, make_model
from operators import CONSERVING, NEED_CLASS, OPERATORS, reduced
from vittle import ScheduleError, presets
from vittle.reductions.backbone import shape_of
from vittle.reductions.tokens import Attention, Tokens

CASES = [
    pytest.param((family, name), id=f"{family}-{name}")
    for family in FAMILIES
    for name in OPERATORS
    if name not in NEED_CLASS or shape_of(make_model(family)).has_class
]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, str]:
    family, name = request.param
    return make_model(family), name


def watch(model: nn.Module) -> list[tuple[Tokens, Tokens]]:
    """What goes into each operator and comes out, in order, filled in as the model runs."""
    seen: list[tuple[Tokens, Tokens]] = []
    for operators in model.operators:
        for operator in operators:
            operator.reduce = watched(operator.reduce, seen)
    return seen


def watched(reduce: Callable[..., Any], seen: list[tuple[Tokens, Tokens]]) -> Callable[..., Any]:
    def reducing(tokens: Tokens, attended: Attention) -> tuple[Tokens, Attention]:
        made = reduce(tokens, attended)
        seen.append((tokens, made[0]))
        return made

    return reducing


@torch.inference_mode()
def test_counts_are_the_promised_ones_and_prefix_tokens_are_untouched(case, images_for) -> None:
    model, name = case
    fast = reduced(model, name)
    seen = watch(fast)
    left = []
    for mlp in {block.mlp for block in fast.blocks}:
        mlp.register_forward_pre_hook(lambda _, inputs: left.append(inputs[0].shape[1]))
    features = fast.forward_features(images_for(model))
    assert features.shape[1] == vittle.tokens(model, fast.schedule)[-1]
    assert left == [row.mlp for row in fast.work]
    assert sum(len(row.acts) for row in fast.work) >= 2
    assert len(seen) == sum(len(row.at("tokens")) for row in fast.work)
    assert (left[-1] < shape_of(model).tokens) == bool(seen)
    prefix = model.num_prefix_tokens
    for before, after in seen:
        assert torch.equal(before.features[:, :prefix], after.features[:, :prefix])
        if after.sizes is not None:
            assert (after.sizes[:, :prefix] == 1).all()
            assert (after.sizes >= 1).all()


@torch.inference_mode()
def test_what_conserves_weighted_sums_does(case, images_for) -> None:
    model, name = case
    if name not in CONSERVING:
        return
    fast = reduced(model, name)
    seen = watch(fast)
    fast(images_for(model))
    for before, after in seen:
        sizes = before.sizes if before.sizes is not None else torch.ones(before.features.shape[:2])
        expected = (before.features * sizes[..., None]).sum(1)
        torch.testing.assert_close((after.features * after.sizes[..., None]).sum(1), expected, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(after.sizes.sum(1), sizes.sum(1))


@torch.inference_mode()
def test_images_of_a_batch_do_not_mix(case, images_for) -> None:
    model, name = case
    fast, images = reduced(model, name), images_for(model)
    together = fast(images)
    torch.testing.assert_close(fast(images[1:2]), together[1:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast(images[[2, 0, 1]]), together[[2, 0, 1]], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_bfloat16_runs_and_stays_close(case, images_for) -> None:
    model, name = case
    images = images_for(model)
    exact = reduced(model, name)(images)
    fast = reduced(copy.deepcopy(model).bfloat16(), name)
    seen = watch(fast)
    half = fast(images.bfloat16())
    assert half.dtype == torch.bfloat16
    # A rounded similarity may choose another partner, so single values differ; the answers as a whole may not.
    assert torch.nn.functional.cosine_similarity(half.float(), exact, dim=-1).mean() > 0.95
    for before, after in seen:
        assert after.features.dtype == torch.bfloat16
        if name in CONSERVING:
            sizes = before.sizes if before.sizes is not None else torch.ones(before.features.shape[:2])
            assert torch.equal(after.sizes.sum(1), sizes.sum(1))  # counted in float32, so exact
            expected = (before.features.float() * sizes[..., None]).sum(1)
            torch.testing.assert_close((after.features.float() * after.sizes[..., None]).sum(1), expected, atol=0.5, rtol=0.02)


def test_gradients_reach_every_weight(case, images_for) -> None:
    model, name = case
    fast = reduced(model, name).train()
    fast(images_for(model)).sum().backward()
    fused = {f"backbone.blocks.{block}.attn.qkv" for block in fast.projections}  # the matrix that runs is the stacked one
    for parameter_name, parameter in fast.named_parameters():
        if parameter_name.rpartition(".")[0] in fused or not parameter.requires_grad:
            continue
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


@torch.inference_mode()
def test_a_prefix_tail_changes_nothing(case, images_for) -> None:
    model, name = case
    if model.global_pool != "token":
        return
    images = images_for(model)
    torch.testing.assert_close(reduced(model, name, "prefix")(images), reduced(model, name)(images), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["energy", "importance", "pruning", "pruning and merging"])
def test_rules_without_positions_do_not_depend_on_them(name: str, images_for) -> None:
    model = make_model("registers")
    plain, shuffled = reduced(model, name), reduced(model, name)
    order = torch.cat([torch.arange(5), 5 + torch.randperm(64, generator=torch.Generator().manual_seed(0))])
    # Attention, norms and MLPs do not see positions either, once the embedding has added them.
    model.norm_pre.register_forward_hook(lambda _, given, made: made[:, order] if shuffling else made)
    shuffling = False
    expected = plain(images_for(model))
    shuffling = True
    torch.testing.assert_close(shuffled(images_for(model)), expected, atol=1e-5, rtol=1e-5)
    bipartite = reduced(model, "key")(images_for(model))
    shuffling = False
    assert not torch.allclose(reduced(model, "key")(images_for(model)), bipartite, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("name", OPERATORS)
def test_a_compiled_graph_has_no_breaks_and_is_made_once(name: str, images_for) -> None:
    model = make_model("plain")
    fast = reduced(model, name)
    compiled_for = []

    def backend(graph, inputs):
        compiled_for.append(len(inputs))
        return graph.forward

    compiled = torch.compile(fast, backend=backend, fullgraph=True)
    for seed in range(3):
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(compiled(images), fast(images), atol=1e-5, rtol=1e-5)
    assert len(compiled_for) == 1
    torch._dynamo.reset()


@torch.inference_mode()
def test_windows_that_do_not_fit_together_are_refused(tiny) -> None:
    def windows(*kept: int, **more: object) -> vittle.Schedule:
        return vittle.Schedule.from_dict({"merging": {"kept": kept, "window": 4, "global_from": 2}, **more})

    with pytest.raises(ScheduleError, match="merging removes 6 tokens in block 0, not the same in each of 4 windows"):
        vittle.apply(tiny, windows(59, 55, 50, 50))
    with pytest.raises(ScheduleError, match="removes 9 tokens from each window in block 0; at most half of the smallest, 8"):
        vittle.apply(tiny, windows(29, 29, 29, 29))
    with pytest.raises(ScheduleError, match="merging inside windows in block 1 needs a whole grid"):
        vittle.apply(tiny, windows(61, 53, 53, 53, pruning={"kept": [65, 57, 57, 57]}))


@pytest.mark.parametrize("name", sorted(NEED_CLASS))
def test_what_needs_a_class_token_refuses_a_model_without(name: str) -> None:
    model = make_model("pooled, no class token")
    with pytest.raises(ScheduleError, match="ranks tokens by the attention of the class token, and this model has none"):
        vittle.apply(model, OPERATORS[name](model))


def test_a_schedule_without_its_trained_weights_is_refused(tiny) -> None:
    schedule = presets.constant(tiny, 7, metric="decoupled", embedding="modular-ffffffffffff", embedding_width=8)
    with pytest.raises(ScheduleError, match="merging needs the trained weights modular-ffffffffffff, none is given"):
        vittle.apply(tiny, schedule)
