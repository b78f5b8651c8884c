"""What sparse attention does in a visit, what it costs, what a search varies of it, and what is refused."""

import json
from dataclasses import replace

import pytest

from recorded import SHAPE, neutral
from vittle import Schedule, ScheduleError, VittleError
from vittle.spaces import BackboneShape, Merging, Pruning, Space, Sparsity, Start, costs
from vittle.spaces.reduction import AdapterRecord
from vittle.spaces.sparsity import core_share

# A tiny ViT at 384 pixels, and a small one at 224.
LARGE = BackboneShape(
    depth=12, width=192, heads=3, grid=(24, 24), prefix=1, attention_width=192, key_macs=73728, query_macs=73728,
    mlp_macs=294912, embed_macs=84934656, head_macs=192000, reads_prefix_only=True,
)  # fmt: skip
SMALL = BackboneShape(
    depth=12, width=384, heads=6, grid=(14, 14), prefix=1, attention_width=384, key_macs=294912, query_macs=294912,
    mlp_macs=1179648, embed_macs=57802752, head_macs=384000, reads_prefix_only=True,
)  # fmt: skip
SCORED = {"selection": "trained", "predictor": "scored-0123456789ab"}
EACH = {"form": "queries", "rests": "one", **SCORED}
AT_HAND = {"sparsity": AdapterRecord("scored-0123456789ab", 16)}


def sparse(*shares: float, **settings: object) -> Sparsity:
    return Sparsity(shares=(*shares, *[1.0] * (12 - len(shares))), **settings)


def first(shape: BackboneShape, settings: Sparsity) -> costs.BlockWork:
    return costs.work(shape, Schedule((settings,)))[0]


def test_a_visit_reads_its_share_of_the_keys() -> None:
    row = first(SHAPE, sparse(0.1))
    (act,) = row.acts
    assert (act.reduction, act.place, act.entering, act.leaving, act.rule) == ("sparsity", "attention", 65, 65, "sampled")
    assert act.variant == "sparsity keys 2x2"
    assert act.strength == pytest.approx(1 - 6 / 64)  # 6.4 is 6
    assert (row.leaving, row.queries, row.mlp) == (65, 65, 65)
    assert row.pairs == 65 + 64 * (1 + 6 + 4)  # the class token reads all
    assert costs.work(SHAPE, Schedule((sparse(0.1),)))[1].acts == ()
    assert first(SHAPE, sparse(0.001)).pairs == 65 + 64 * (1 + 1 + 4)  # at least one


def test_a_share_that_with_its_rests_is_no_fewer_keys_leaves_a_block_alone() -> None:
    assert first(SHAPE, sparse(59 / 64)).acts != ()  # 59 and 4 rests are 63
    assert first(SHAPE, sparse(60 / 64)).acts == ()
    assert first(SHAPE, sparse(60 / 64, rests="one")).acts != ()
    assert first(SHAPE, sparse(48 / 64, rests="4x4")).acts == ()
    assert first(SHAPE, sparse(63 / 64, rests="none")).acts != ()
    assert first(SHAPE, sparse(1.0, rests="none")).acts == ()


def test_each_query_reads_keys_of_its_own_at_the_price_of_all() -> None:
    row = first(SHAPE, sparse(0.25, **EACH))
    (act,) = row.acts
    assert (act.rule, act.variant, act.strength) == ("queries", "sparsity queries 1x1", 0.75)
    assert row.pairs == 65 * 65


def test_what_it_computes_besides() -> None:
    p, d = 64, 96
    besides = {
        # A sample of 8 queries; means of 4 parts and their products; keys and values of 4 rests.
        "2x2": ({}, p * d * (8 + 2 * 4) + 2 * 4 * p * d),
        "4x4": ({"rests": "4x4"}, p * d * (8 + 2 * 16) + 2 * 16 * p * d),
        "one": ({"rests": "one"}, p * d * (8 + 2) + 2 * p * d),
        "none": ({"rests": "none"}, p * d * (8 + 2)),
        # A scorer of 16 hidden channels for each of 3 heads of 32.
        "trained": (SCORED, p * (d * 16 + 3 * 16 + d) + 2 * 4 * p * d),
        # Two bases of 8 channels, and every pair of them.
        "queries": (EACH, 2 * p * d * 8 + p * p * 3 * 8),
    }
    for name, (settings, expected) in besides.items():
        assert first(SHAPE, sparse(0.1, **settings)).extra_macs == expected, name
    dense = costs.macs(SHAPE, Schedule())
    saved = 2 * 96 * (65 * 65 - (65 + 64 * 11))
    assert costs.macs(SHAPE, Schedule((sparse(0.1),))) == dense - saved + besides["2x2"][1]


def test_weights_are_those_of_the_scorer() -> None:
    shape = replace(SHAPE, block_parameters=1000, other_parameters=100)
    dense = costs.parameters(shape, Schedule())
    for settings, weights in (
        ({}, 0),
        (SCORED, 3 * (32 * 16 + 16 + 16 + 32)),
        (EACH, 2 * 96 * 8),
    ):
        two = costs.parameters(shape, Schedule((sparse(0.1, 1.0, 0.2, **settings),)))
        assert two - dense == 2 * weights


def test_where_tokens_are_fewer_all_others_are_one_rest() -> None:
    kept = (65, 49, *[49] * 10)
    for before in (Merging(kept=kept), Pruning(kept=kept)):
        rows = costs.work(SHAPE, Schedule((sparse(0.25, 0.25, 0.25, rests="4x4"), before)))
        assert [row.acts[0].variant for row in rows[:3]] == ["sparsity keys 4x4"] * 2 + ["sparsity keys 1x1"]
        assert rows[2].pairs == 49 + 48 * (1 + 12 + 1)
        assert [act.reduction for act in rows[1].acts] == ["sparsity", before.name]
    none = costs.work(SHAPE, Schedule((sparse(0.25, 0.25, 0.25, rests="none"), Merging(kept=kept))))
    assert none[2].pairs == 49 + 48 * (1 + 12)


def test_a_class_token_tail_has_no_patch_queries() -> None:
    everywhere = Sparsity(shares=(0.1,) * 12)
    tail = Schedule((everywhere,), "prefix")
    assert tail.reductions == (Sparsity(shares=(*(0.1,) * 11, 1.0)),)
    assert tail == Schedule(tail.reductions, "prefix")
    assert [len(row.acts) for row in costs.work(SHAPE, tail)] == [1] * 11 + [0]
    assert [len(row.acts) for row in costs.work(SHAPE, Schedule((everywhere,)))] == [1] * 12
    assert Sparsity(shares=(0.1,)).without_last_block() == Sparsity(shares=(1.0,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": []}, "sparsity.shares: Tuple should have at least 1 item"),
        ({"shares": [0]}, "sparsity.shares.0: Input should be greater than 0"),
        ({"shares": [0.5, 1.1]}, "sparsity.shares.1: Input should be less than or equal to 1"),
        ({"shares": [float("nan")]}, "sparsity.shares.0: "),
        ({"shares": ["much"]}, "sparsity.shares.0: Input should be a valid number"),
        ({}, "sparsity.shares: Field required"),
        ({"shares": [0.5], "rests": "3x3"}, "sparsity.rests: Input should be 'none', 'one', '2x2' or '4x4'"),
        ({"shares": [0.5], "form": "rows"}, "sparsity.form: Input should be 'keys' or 'queries'"),
        ({"shares": [0.5], "selection": "best"}, "sparsity.selection: Input should be 'sampled' or 'trained'"),
        ({"shares": [0.5], "magic": 1}, "sparsity.magic: Extra inputs are not permitted"),
        (
            {"shares": [0.5], "selection": "trained"},
            "selection trained needs the predictor that it chooses by, sampled has none",
        ),
        ({"shares": [0.5], "predictor": "scored-1"}, "selection trained needs the predictor that it chooses by"),
        ({"shares": [0.5], "form": "queries", "rests": "one"}, "form queries needs selection: trained, and rests: one or none"),
        ({"shares": [0.5], "form": "queries", **SCORED}, "form queries needs selection: trained, and rests: one or none"),
        ({"shares": [0.5], "selection": "trained", "predictor": "p" * 200}, "sparsity.predictor: "),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        Schedule.from_dict({"sparsity": settings})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_another_depth_is_refused() -> None:
    with pytest.raises(ScheduleError, match="sparsity has shares for 3 blocks, the model has 12"):
        costs.work(SHAPE, Schedule((Sparsity(shares=(0.1, 0.1, 0.1)),)))


def test_it_is_written_in_few_words_and_read_again() -> None:
    plain = Schedule((sparse(0.1),), "prefix")
    assert plain.to_dict() == {"tail": "prefix", "sparsity": {"shares": [0.1, *[1.0] * 11]}}
    assert plain.id == "80bec6ca9a7c"  # stored in databases and exported files
    for settings in ({}, {"rests": "4x4"}, SCORED, EACH):
        schedule = Schedule((sparse(0.1, 0.25, **settings), Merging(kept=(60,) * 12)))
        assert Schedule.from_dict(json.loads(schedule.to_json())) == schedule


def test_a_summary_says_how() -> None:
    assert sparse(0.1).summary() == "sparse attention to 10% of the keys, the rest as 2x2"
    assert sparse(0.05, 0.5, rests="one").summary() == "sparse attention to 5% to 50% of the keys, the rest as one"
    assert sparse(0.1, **SCORED).summary().endswith("the rest as 2x2, chosen by scored-0123456789ab")
    assert sparse(0.1, **EACH).summary() == (
        "sparse attention to 10% of the keys, each query its own, the rest as one, chosen by scored-0123456789ab"
    )
    assert sparse().summary() == "sparse attention to 100% of the keys, the rest as 2x2"


def test_a_model_on_which_it_cannot_pay_is_told() -> None:
    assert core_share(LARGE) == pytest.approx(2 * 577**2 * 192 / (12 * 577 * 192**2 + 2 * 577**2 * 192))
    assert Sparsity.advice(LARGE) is None
    assert Sparsity.advice(SMALL) == (
        "attention's core is 8% of a block's MACs on this model, the most that sparsity could save; "
        "it pays from about 15% on, with larger images"
    )


class TestSearch:
    """Shares on a logarithmic scale, above half all keys."""

    def test_what_is_varied(self) -> None:
        named = {one.name: one for one in Space(SHAPE, ("sparsity",)).parameters}
        assert list(named) == [*(f"sparsity.share.{block}" for block in range(11)), "sparsity.rests"]
        share = named["sparsity.share.3"]
        assert (share.low, share.high, share.log, share.integer) == (0.05, 1.0, True, False)
        assert named["sparsity.rests"].options == ("one", "2x2", "4x4")
        trained = Space(SHAPE, ("sparsity",), adapters=AT_HAND).parameters
        assert (trained[-1].name, trained[-1].options) == ("sparsity.selection", ("sampled", "trained"))
        assert len(Space(replace(SHAPE, reads_prefix_only=False), ("sparsity",)).parameters) == 13

    def test_values_choose_settings_and_settings_values(self) -> None:
        space = Space(SHAPE, ("sparsity",), adapters=AT_HAND)
        values = {**neutral(space), "sparsity.share.2": 0.1234, "sparsity.share.5": 0.501, "sparsity.rests": "one"}
        schedule = space.schedule(values)
        assert schedule == Schedule((sparse(1.0, 1.0, 0.12, rests="one"),), "prefix")
        assert space.encode(schedule) == {**values, "sparsity.share.2": 0.12, "sparsity.share.5": 1.0}
        (trained,) = space.schedule({**values, "sparsity.selection": "trained"}).reductions
        assert (trained.selection, trained.predictor, trained.adapter) == ("trained", *["scored-0123456789ab"] * 2)
        assert space.encode(Schedule((trained,)))["sparsity.selection"] == "trained"

    def test_what_has_no_effect_is_neutral(self) -> None:
        space = Space(SHAPE, ("sparsity",), adapters=AT_HAND)
        for rests in ("one", "4x4"):
            values = {**neutral(space), "sparsity.rests": rests, "sparsity.selection": "trained", "sparsity.share.4": 0.7}
            assert space.schedule(values).reductions == ()
            # By hand, and where only the block that nobody reads would be sparse.
            for tail in ("full", "prefix"):
                idle = Schedule((Sparsity(shares=(*[1.0] * 11, 0.1), rests=rests, **SCORED),), tail)
                assert space.encode(idle) == neutral(space)

    def test_a_single_block_of_a_class_token_head_reads_all(self) -> None:
        one = replace(SHAPE, depth=1)
        space = Space(one, ("sparsity",))
        for share in (0.05, 0.2, 1.0):
            schedule = space.schedule({"sparsity.share.0": share, "sparsity.rests": "one"})
            assert schedule == Schedule((), "prefix")
        assert space.encode(schedule) == neutral(space)
        pooled = Space(replace(one, reads_prefix_only=False), ("sparsity",))
        assert pooled.schedule({"sparsity.share.0": 0.2, "sparsity.rests": "one"}).reductions == (
            Sparsity(shares=(0.2,), rests="one"),
        )

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (sparse(0.1, **EACH), "form queries is not searched; accepted: keys"),
            (sparse(0.1, 0.7), "shares above 0.5 are not searched; accepted: 0.05 to 0.5, or 1"),
            (sparse(0.01), "sparsity.share.0 is 0.01 in this schedule; the space has 0.05 to 1"),
            (sparse(0.1, rests="none"), "sparsity.rests is none in this schedule; the space has one, 2x2, 4x4"),
            (
                sparse(0.1, selection="trained", predictor="scored-ffffffffffff"),
                "sparsity chooses by scored-ffffffffffff, which is not at hand; there is: scored-0123456789ab",
            ),
        ],
    )
    def test_what_is_not_searched_is_refused(self, settings: Sparsity, message: str) -> None:
        with pytest.raises(VittleError) as refused:
            Space(SHAPE, ("sparsity",), adapters=AT_HAND).encode(Schedule((settings,)))
        assert str(refused.value) == message

    def test_without_a_predictor_a_trained_one_is_refused(self) -> None:
        with pytest.raises(VittleError, match="chooses by scored-0123456789ab, which is not at hand; there is: none"):
            Space(SHAPE, ("sparsity",)).encode(Schedule((sparse(0.1, **SCORED),)))

    def test_starting_points_fall_from_all_keys_to_the_fewest(self) -> None:
        context = Space(LARGE, ("sparsity",), adapters=AT_HAND).context
        ends = (0.0, 0.5, 1.0)
        turned = [Sparsity.starting_points(context, end) for end in ends]
        assert [start.origin for start in turned[0]] == ["constant", "delayed", "learned"]
        for starts, share in zip(turned, (0.05, 0.05**0.5, 1.0), strict=True):
            constant, delayed, learned = (start.values for start in starts)
            assert [constant[f"sparsity.share.{block}"] for block in range(11)] == [pytest.approx(share)] * 11
            sparse_from = [block for block in range(11) if delayed[f"sparsity.share.{block}"] == pytest.approx(share)]
            assert sparse_from == list(range(3 if share < 1 else 0, 11))
            assert learned == {**constant, "sparsity.selection": "trained"}
        assert all(isinstance(start, Start) for start in turned[0])

    def test_on_large_images_less_costs_less_all_the_way(self) -> None:
        space = Space(LARGE, ("sparsity",), adapters=AT_HAND)
        turned = zip(*(Sparsity.starting_points(space.context, step / 50) for step in range(51)), strict=True)
        for starts in turned:
            shares = [space.macs_share(space.schedule(start.values)) for start in starts]
            assert shares == sorted(shares)
            assert shares[0] < 0.86

    def test_probes_and_what_they_join_to(self) -> None:
        found = Sparsity.probes(Space(SHAPE, ("sparsity",)).context)
        assert [(one.block, round(64 * (1 - one.strength))) for one in found] == [
            (block, read) for block in range(11) for read in (16, 6, 3)
        ]
        joined = Sparsity.joined([found[0].settings, found[4].settings, found[11].settings])
        assert joined == sparse(0.25, 0.1, 1.0, 0.05)
        assert Sparsity.joined([]) is None
