"""Latency profiles in the terminal: tables, sentences, and the marks of what was not simply measured."""

import dataclasses
import itertools

import pytest

from browsing import printed
from dashboard_study import BACKBONE_MS, COUNTS, NOISE, PROFILE, SHAPE, Synthetic, curve, latency_profile, open_store
from rankings import ranked
from vittle.dashboards import text
from vittle.dashboards.documents import study_document
from vittle.dashboards.terminal.latency_tables import (
    ROWS,
    ExampleRow,
    RetimedRow,
    examples_table,
    profile_table,
    profiles_table,
    retimed_table,
)
from vittle.dashboards.terminal.study_tables import front_table, studies_table, trial_note, trials_table
from vittle.objectives.latency.profile import LatencyProfile, Staircase
from vittle.objectives.measurement import Measurement, proportion
from vittle.spaces import costs
from vittle.storage.records import Study, Trial

WHOLE = 0.08 * BACKBONE_MS  # milliseconds of a block with all tokens


def cells(table: object, contains: str) -> list[str]:
    """The words of the one line that contains something."""
    (line,) = [line for line in printed(table).splitlines() if contains in line]
    return line.split()


def caption(table: object) -> str:
    """What stands below the last empty line of a table, on one line."""
    return " ".join(printed(table).rstrip().split("\n" + " " * 5)[-1].split())


def ratio(value: float, **about: object) -> Measurement:
    return Measurement("latency_ratio", value, value - 0.01, value + 0.02, 9, about)


def finer(profile: LatencyProfile, flats: tuple[tuple[int, int], ...] = ()) -> LatencyProfile:
    """The same with every second count measured and a straight line but for the flats."""
    counts = tuple(range(3, 66, 2))
    times: list[float] = []
    for count in counts:
        flat = any(low < count <= high for low, high in flats)
        times.append(times[-1] if flat else count / 65)
    half = Staircase(counts, *(tuple(0.04 * time for time in times) for _ in range(3)))
    return dataclasses.replace(profile, parts=dict.fromkeys(profile.parts, half))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[Trial]]:
    """A study that predicts, and its trials; no test changes them."""
    store = open_store(tmp_path_factory.mktemp("profiled"))
    study = Synthetic(store, profile=PROFILE).fill(20)
    return study, store.trials(study.name)


class TestProfileTable:
    def test_a_row_for_each_count_with_its_time_spread_and_time_per_token(self) -> None:
        table = profile_table(latency_profile(flat=False))
        rows = [line.split() for line in printed(table).splitlines() if any(cell in line for cell in "█▏▎▍▌▋▊▉")]
        assert [int(row[0]) for row in rows] == list(COUNTS)
        for count, (_, ms, bar, spread, per_token) in zip(COUNTS, rows, strict=True):
            assert float(ms) == pytest.approx(WHOLE * count / 65, rel=0.005)
            assert sum(" ▏▎▍▌▋▊▉█".index(cell) for cell in bar) == pytest.approx(64 * count / 65, abs=1)
            assert float(spread) == pytest.approx(0.05 * WHOLE * count / 65, rel=0.05)
            assert float(per_token) == pytest.approx(1000 * WHOLE / 65, rel=0.005)
        assert "free" not in printed(table)
        assert "═" not in printed(table)

    def test_the_flat_stretch_is_marked_and_nothing_else(self) -> None:
        marked = [
            line.split()[0] for line in printed(profile_table(latency_profile())).splitlines() if line.rstrip().endswith("═")
        ]
        assert marked == ["48", "55"]
        assert "═ these tokens cost no more time" in caption(profile_table(latency_profile()))

    @pytest.mark.parametrize("flats", [(), ((11, 15), (37, 39)), tuple((low, low + 2) for low in range(5, 61, 4))])
    def test_a_fine_staircase_is_thinned_to_its_ends_and_its_widest_stretches(self, flats: tuple[tuple[int, int], ...]) -> None:
        profile = finer(latency_profile(), flats)
        assert profile.flats == flats
        rows = [line for line in printed(profile_table(profile)).splitlines() if any(cell in line for cell in "█▏▎▍▌▋▊▉")]
        shown = [int(row.split()[0]) for row in rows]
        assert ROWS - 3 <= len(shown) <= ROWS
        assert (shown[0], shown[-1]) == (3, 65)
        if len(flats) < 5:
            assert {edge for flat in flats for edge in flat} <= set(shown)
            assert max(after - before for before, after in itertools.pairwise(shown)) <= 8

    def test_the_caption_says_where_and_in_which_form(self) -> None:
        said = caption(profile_table(latency_profile(noisy=NOISE)))
        assert "backbone 8.20 ms (fused, eager 8.90 ms)" in said
        assert "Intel(R) Xeon(R) Gold 6448Y, 2 threads; batch of 64, float32" in said
        assert f"! noisy: {NOISE}" in said
        assert "noisy" not in caption(profile_table(latency_profile()))
        compiled = dataclasses.replace(latency_profile(), protocol={"batch_size": 1, "dtype": "float16", "compiled": True})
        assert "batch of 1, float16, compiled" in caption(profile_table(compiled))


class TestSentences:
    def test_what_a_block_takes_and_which_tokens_are_free(self) -> None:
        assert text.staircase(latency_profile()) == (
            "A dense block takes 0.656 ms for 64 images with all 65 tokens, 0.323 ms with half of them. "
            "48 to 55 tokens cost the same time."
        )
        assert text.staircase(latency_profile(flat=False)).endswith("with half of them.")

    def test_many_stretches_are_cut_short(self) -> None:
        few = finer(latency_profile(), ((5, 7), (11, 17)))
        assert text.staircase(few).endswith("5 to 7 tokens cost the same time, and so do 11 to 17.")
        many = finer(latency_profile(), ((5, 7), (11, 17), (21, 25), (31, 33), (37, 41)))
        assert text.staircase(many).endswith(
            "11 to 17 tokens cost the same time, and so do 21 to 25, and so do 37 to 41 (and 2 shorter stretches)."
        )

    def test_predictions_are_used_only_where_they_are_good(self) -> None:
        assert text.trust(latency_profile(off=0.02)) == (
            "Predictions for 12 held-out schedules are 2.0% off on average (rank correlation 1.000), so they are used."
        )
        far = text.trust(latency_profile(off=0.3))
        assert "30.0% off" in far
        assert far.endswith("too far off to be used, so every latency is measured.")
        assert text.trust(latency_profile(checks=0)) == "Its predictions were not checked, so every latency is measured."


class TestOtherTables:
    def test_choices_answer_the_budget_only_where_there_is_one(self) -> None:
        profile = latency_profile()
        rows = []
        for name, schedule, holds in (("cheapest", curve(0, 0.02, 0.5), True), ("dense", curve(0, 1.0, 1.0), False)):
            latency = profile.predict(schedule)
            rows.append(ExampleRow(name, costs.tokens(SHAPE, schedule), latency["latency_ratio"], latency["latency_ms"], holds))
        table = examples_table(rows)
        assert cells(table, "cheapest")[1:5] == [
            f"~{rows[0].ratio.value:.1%}",
            f"±{50 * (rows[0].ratio.high - rows[0].ratio.low):.1f}",
            f"~{rows[0].ms.value:#.3g}",
            "yes",
        ]
        assert cells(table, "cheapest")[5:] == text.tokens(rows[0].tokens).split()
        assert cells(table, "dense")[4] == "no"
        assert "~ predicted from the latency profile" in caption(table)
        measured = examples_table([ExampleRow("dense", (65,), ratio(0.9), ratio(0.9))])
        assert cells(measured, "dense")[1] == "90.0%"
        assert "holds" not in printed(measured)
        assert "predicted" not in printed(measured)

    def test_profiles_are_told_apart(self) -> None:
        other = dataclasses.replace(latency_profile(off=0.3, noisy=NOISE), key="0123456789ab", model="[red]deit_tiny")
        bare = dataclasses.replace(latency_profile(checks=0), key="ffffffffffff", measured_at="")
        table = profiles_table([latency_profile(), other, bare])
        good = cells(table, PROFILE)
        assert good[1] == "digits"
        assert good[-9:] == ["64", "float32", "8.20", "2.0%", "1.000", "yes", "24", "Nov", "20:57"]
        assert cells(table, "0123456789ab")[-7:-3] == ["!8.20", "30.0%", f"{other.spearman:.3f}", "no"]
        assert "[red]deit_tiny" in printed(table)
        assert "! noisy" in caption(table)
        assert "noisy" not in printed(profiles_table([bare]))
        assert cells(table, "ffffffffffff")[-4:] == ["–", "–", "no", "–"]

    def test_what_is_timed_again_shows_which_ranks_changed(self) -> None:
        accuracy = proportion("accuracy", 440, 449, {})
        rows = [
            RetimedRow(3, accuracy, ratio(0.4), ratio(0.5), 1, 3, True, False),
            RetimedRow(5, accuracy, ratio(0.45), ratio(0.44, noisy=NOISE), 2, 1, True, True),
            RetimedRow(8, accuracy, ratio(0.48), ratio(0.46), 3, 2, False, True),
            RetimedRow(9, accuracy, ratio(0.7), ratio(0.8), 4, 4, False, False),
        ]
        table = retimed_table(rows)
        assert cells(table, "50.0%") == ["3", "98.0%", "±1.4", "40.0%", "±1.5", "50.0%", "±1.5", "3", "↓2", "yes", "→", "no"]
        assert cells(table, "44.0%")[5:] == ["!44.0%", "±1.5", "1", "↑1", "yes"]
        assert cells(table, "46.0%")[7:] == ["2", "↑1", "no", "→", "yes"]
        assert cells(table, "80.0%")[7:] == ["4", "=", "no"]
        assert "3 of 4 ranks changed" in caption(table)
        assert "! noisy" in caption(table)
        still = retimed_table(rows[3:])
        assert "all ranks as they were" in caption(still)
        assert "noisy" not in caption(still)


class TestMarks:
    def test_predicted_and_noisy_latencies_are_marked_and_explained(self, found: tuple[Study, list[Trial]]) -> None:
        trials = found[1]
        table = trials_table(trials)
        lines = printed(table).splitlines()
        signs = set()
        for trial in trials:
            latency = trial.judged.get("latency_ratio")
            if latency is None:
                continue
            (line,) = [line.split() for line in lines if line.split()[:2] == [f"{trial.number}", trial.state]]
            sign = "~" if latency.protocol.get("source") else "!" if latency.protocol.get("noisy") else ""
            assert f"{sign}{latency.value:.1%}" in line
            assert f"{sign}{trial.judged['latency_ms'].value:#.3g}" in line
            signs.add(sign)
        assert signs == {"~", "!", ""}
        assert "~ predicted from the latency profile, not measured; ! noisy" in caption(table)

    def test_a_front_explains_only_the_marks_it_has(self, found: tuple[Study, list[Trial]]) -> None:
        study, trials = found
        front = ranked(trials).front()
        (noisy,) = [trial for trial in front if text.noise(trial.judged["latency_ratio"])]
        said = caption(front_table(front, study.goals.asked, ranked(trials, study.budget), shape=SHAPE))
        assert "! noisy" in said
        assert "~" not in said
        calm = [trial for trial in front if trial is not noisy]
        assert "!" not in printed(front_table(calm, study.goals.asked, ranked(trials, study.budget), shape=SHAPE))

    def test_notes_and_headlines_are_marked(self, found: tuple[Study, list[Trial]]) -> None:
        study, trials = found
        predicted = [trial for trial in trials if trial.state == "complete" and not trial.confirmed and trial.profile]
        guess = next(trial for trial in predicted if study.budget.holds(trial.judged))
        assert f"at ~{guess.judged['latency_ratio'].value:.0%} latency" in trial_note(guess, study.goals)
        searching = dataclasses.replace(guess, number=0)
        shown = printed(studies_table([(study, ranked([searching], study.budget).standing)]))
        assert f"at ~{guess.judged['latency_ratio'].value:.1%}" in shown
        assert "~ predicted" in shown
        assert study_document.listed(study, ranked([searching], study.budget).standing)["best"]["mark"] == "~"
        assert "~" not in printed(studies_table([(study, ranked(trials[:1], study.budget).standing)]))


def test_a_device_that_waits_for_its_host_is_told_of() -> None:
    waiting = dataclasses.replace(latency_profile(), launch_bound=True)
    assert text.latency(waiting) == f"{text.latency(latency_profile())} {WAITS}"


WAITS = "The device waits for the host: a larger batch, or --compile, gains more here."
