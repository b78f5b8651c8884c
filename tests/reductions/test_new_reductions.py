"""A reduction that nobody has touched anything for is run, costed, timed, told and drawn, by its line in the table alone."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import vittle
from counting import count_macs
from models import make_model
from new_reductions import ENTRIES, Averaging, Looping
from recorded import neutral
from vittle import Schedule, ScheduleError
from vittle.dashboards import text, words
from vittle.dashboards.documents import pictures, trial_document
from vittle.objectives.backbones.sensitivity import measure
from vittle.objectives.evaluator import make_stand
from vittle.objectives.latency.profiler import MeasuringPlan, Profiler
from vittle.objectives.quality.images import load_images
from vittle.reductions.backbone import describe_backbone, load_backbone, shape_of
from vittle.reductions.vit import ReducedViT
from vittle.search.illustrator import Illustrator
from vittle.spaces import Merging, Space, Sparsity, Visit, combination, costs
from vittle.spaces.table import REDUCTIONS


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, entry in ENTRIES.items():
        monkeypatch.setitem(REDUCTIONS, name, entry)


@pytest.fixture
def model() -> nn.Module:
    return make_model("plain")


def averaged(start: int) -> Schedule:
    return Schedule((Averaging(start=start),))


class TestAttention:
    """What replaces the core of attention and removes no token."""

    def test_it_runs_in_its_blocks_alone(self, model, images_for) -> None:
        images, seen = images_for(model), []
        fast = ReducedViT(model, averaged(2))
        for block in model.blocks:
            block.attn.proj.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        fast(images)
        alike = [bool((one - one[:, :1]).abs().max() < 1e-6) for one in seen]  # all queries get the same
        assert alike == [False, False, True, True]
        with pytest.raises(ScheduleError, match="starts in block 4; accepted: 0 to 3"):
            ReducedViT(model, averaged(4))

    def test_its_work_is_an_act_although_no_token_goes(self, model, images_for, monkeypatch) -> None:
        schedule = averaged(1)
        rows = costs.work(shape_of(model), schedule)
        assert [[act.reduction for act in row.acts] for row in rows] == [[], ["averaging"], ["averaging"], ["averaging"]]
        assert [row.leaving for row in rows] == [65] * 4
        assert vittle.macs(model, schedule) == count_macs(ReducedViT(model, schedule), images_for(model), monkeypatch)

    def test_it_composes_with_merging(self, model, images_for) -> None:
        merging = Merging(kept=(60, 50, 40, 30))
        both = Schedule((merging, Averaging(start=2)))
        rows = costs.work(shape_of(model), both)
        assert [[act.reduction for act in row.acts] for row in rows][2] == ["merging", "averaging"]
        assert ReducedViT(model, both).forward_features(images_for(model)).shape[1] == 30

    def test_where_another_acts_in_place_of_the_same_attention_it_is_refused(self, model) -> None:
        early = Sparsity(shares=(0.1, 0.1, 1.0, 1.0))
        apart, both = (Schedule((early, Averaging(start=start))) for start in (2, 1))
        assert [[act.reduction for act in row.acts] for row in ReducedViT(model, apart).work] == [
            *[["sparsity"]] * 2,
            *[["averaging"]] * 2,
        ]
        message = "sparsity and averaging each act on the attention of visit 1; accepted: one of them"
        for refusing in (costs.work, vittle.macs, ReducedViT):
            with pytest.raises(ScheduleError, match=message):
                refusing(*((shape_of(model), both) if refusing is costs.work else (model, both)))

    def test_a_search_leaves_one_attention_to_one_of_two(self, model) -> None:
        shape = shape_of(model)
        space = Space(shape, ("sparsity", "averaging", "merging"))

        def proposed(start: int, *shares: float) -> Schedule:
            named = {f"sparsity.share.{block}": share for block, share in enumerate(shares)}
            return space.schedule({**neutral(space), **named, "averaging.start": start})

        first = Sparsity(shares=(1.0, 0.1, 1.0, 1.0))
        assert proposed(2, 1.0, 0.1, 1.0).reductions == (first, Averaging(start=2))
        assert proposed(1, 1.0, 0.1, 1.0).reductions == (first,)  # it cannot be written without one of its blocks
        rng = np.random.default_rng(0)
        drawn = [space.schedule(space.draw(rng)) for _ in range(150)]
        assert any(len(one.reductions) == 3 for one in drawn)
        for schedule in (*drawn, *space.cheapest(), *(space.schedule(one.values) for one in space.starting_points([0.7]))):
            assert all(len(row.at("attention")) < 2 for row in costs.work(shape, schedule))
            assert space.schedule(space.encode(schedule)) == schedule

    def test_who_comes_later_is_written_without_what_is_taken(self, model, monkeypatch) -> None:
        monkeypatch.setattr("vittle.spaces.schedule.REDUCTIONS", {name: REDUCTIONS[name] for name in ("averaging", "sparsity")})
        shape = shape_of(model)
        settings = Schedule((Averaging(start=2), Sparsity(shares=(0.1,) * 4)))
        assert combination.effective(shape, settings).reductions == (
            Averaging(start=2),
            Sparsity(shares=(0.1, 0.1, 1.0, 1.0)),
        )

    def test_a_dense_pass_is_resumed_before_its_first_block(self, model) -> None:
        assert [ReducedViT(model, averaged(start)).resumable for start in range(4)] == [-1, 0, 1, 2]

    def test_a_compiled_graph_has_no_breaks(self, model, images_for) -> None:
        torch._dynamo.reset()
        fast = ReducedViT(model, averaged(2))
        compiled = torch.compile(fast, fullgraph=True, dynamic=False, backend="eager")
        with torch.inference_mode():
            torch.testing.assert_close(compiled(images_for(model)), fast(images_for(model)))

    def test_it_is_searched(self, model) -> None:
        space = Space(shape_of(model), ("averaging", "merging"))
        assert "averaging.start" in {one.name for one in space.parameters}
        rng = np.random.default_rng(0)
        drawn = [space.schedule(space.draw(rng)) for _ in range(50)]
        assert {len(one.reductions) for one in drawn} >= {1, 2}
        for schedule in drawn:
            assert space.schedule(space.encode(schedule)) == schedule
            assert Schedule.from_dict(schedule.to_dict()) == schedule
        assert any(part.name == "averaging" for one in space.cheapest() for part in one.reductions)

    def test_what_each_block_can_spare_is_probed(self, model) -> None:
        context = Space(shape_of(model), ("averaging",)).context
        seen: list[Schedule] = []

        def evaluate(schedule: Schedule) -> np.ndarray:
            seen.append(schedule)
            return np.linspace(0.1, 0.2, 8)

        found = measure(evaluate, context, ["averaging"], fingerprint="", data="")
        assert found.blocks("averaging") == context.blocks
        assert [one.reductions[0].start for one in seen] == list(range(context.blocks))

    def test_it_is_timed_and_predicted(self, model, monkeypatch) -> None:
        monkeypatch.setattr("vittle.objectives.latency.profiler.PLANS", (MeasuringPlan(3, 1, 4),))
        backbone = describe_backbone(model, "tiny")
        found = Profiler(backbone, make_stand(backbone, device="cpu", batch_size=2)).measure()
        cost = found.acting["averaging"]
        assert cost.base + cost.per_token + cost.per_pair > 0
        schedule = averaged(0)
        assert found.knows(schedule)
        plain, replaced = found.sums(Schedule()), found.sums(schedule)
        assert replaced.acting == 0.0
        assert replaced.blocks != plain.blocks
        other = replace(found, acting={**found.acting, "averaging": replace(cost, base=cost.base + 0.25)})
        assert other.sums(schedule).blocks - replaced.blocks == pytest.approx(4 * 0.25)

    def test_it_is_told_in_words_of_its_own(self) -> None:
        schedule = averaged(2)
        assert schedule.summary == text.summary(schedule) == "averaging from block 3"
        japanese = words.words("ja").catalog["reductions"]
        assert japanese["averaging"]["act"] == "attention averaged"  # English, where it has no Japanese
        assert words.words().catalog["pictures"]["averages"]["title"] == "What is averaged"
        assert pictures.drawn(schedule) == ("averages",)

    def test_it_is_drawn_and_listed_block_by_block(self) -> None:
        backbone = load_backbone()
        illustrator = Illustrator(backbone, load_images("digits", backbone.preprocessing, backbone.classes).search)
        document = illustrator(averaged(5), [0, 1])
        (first, second) = document["images"]
        assert [sorted(block["told"]) for block in first["blocks"]] == [[]] * 5 + [["averaging"]] * 7
        means = first["blocks"][5]["told"]["averaging"]["mean"]
        assert len(means) == backbone.shape.heads
        assert means != second["blocks"][5]["told"]["averaging"]["mean"]
        study = type("", (), {"backbone": type("", (), {"shape": backbone.shape})})
        acts = [block["acts"] for block in trial_document.blocks(study, averaged(11))]  # type: ignore[arg-type]
        assert acts[:11] == [[]] * 11
        assert acts[11] == [{"reduction": "averaging", "rule": "mean", "removed": 0, "left": 65, "strength": 1.0}]


class TestRoute:
    """What runs blocks again, for some of the tokens."""

    @pytest.fixture
    def looping(self) -> Iterator[Schedule]:
        return Schedule((Looping(blocks=2),))

    def test_its_rows_are_visits(self, model, looping: Schedule) -> None:
        rows = costs.work(shape_of(model), looping)
        assert [row.visit for row in rows] == [Visit(0), Visit(0, 1, 0.5), Visit(1), Visit(1, 1, 0.5)]
        assert [(row.entering, row.keys, row.mlp, row.leaving) for row in rows] == [(65, 65, 65, 65), (65, 33, 33, 65)] * 2

    def test_macs_count_who_takes_part_and_weights_count_once(self, model, images_for, monkeypatch, looping: Schedule) -> None:
        assert vittle.macs(model, looping) == count_macs(ReducedViT(model, looping), images_for(model), monkeypatch)
        dense, shape = sum(weight.numel() for weight in model.parameters()), shape_of(model)
        assert costs.parameters(shape, Schedule()) == dense
        two = sum(weight.numel() for block in model.blocks[2:] for weight in block.parameters())
        assert costs.parameters(shape, looping) == dense - two

    @torch.inference_mode()
    def test_who_rests_passes_unchanged(self, model, images_for, looping: Schedule) -> None:
        fast = ReducedViT(model, looping)
        first, second, *_ = (one.tokens.features for one in fast.trace(images_for(model)))
        assert torch.equal(first[:, 33:], second[:, 33:])
        assert not torch.equal(first[:, :33], second[:, :33])

    def test_tokens_are_not_merged_where_some_rest(self, model, looping: Schedule) -> None:
        merging = Merging(kept=(65, 60, 60, 60))
        with pytest.raises(ScheduleError, match="merging acts in visit 1, in which 32 tokens rest"):
            costs.work(shape_of(model), Schedule((*looping.reductions, merging)))
