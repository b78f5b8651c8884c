"""The budget slider of the study page: from a budget to the best schedule that fits it, and to the file that applies it."""

import re

import pytest
from playwright.sync_api import Page, expect

from browsing import click, show
from dashboard_study import Synthetic, open_store
from rankings import ranked
from studies_to_show import address
from vittle import Schedule
from vittle.dashboards import text
from vittle.objectives.budget import LatencyBudget
from vittle.storage.findings import Choice
from vittle.storage.ranking import Ranking
from vittle.storage.records import Trial
from vittle.storage.store import Store

__all__ = ["address"]  # a fixture

STEPS = 1000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    opened = open_store(tmp_path_factory.mktemp("studies"))
    Synthetic(opened, "digits-60").fill(60)
    Synthetic(opened, "in-ms", budget="4ms").fill(20)
    Synthetic(opened, "tolerant", tolerance="2%").fill(40)
    return opened


@pytest.fixture(scope="module")
def trials(store: Store) -> list[Trial]:
    return store.trials("digits-60")


def move(page: Page, step: int) -> float:
    """Put the slider onto a step, as a hand does, and return the budget there."""
    low, high = page.evaluate(
        """step => {
            const slider = document.getElementById("budget");
            slider.value = step;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
            return [Number(slider.dataset.low), Number(slider.dataset.high)];
        }""",
        step,
    )
    page.wait_for_timeout(60)  # it is drawn with the next frame
    return float(low + (high - low) * step / STEPS)


def line(page: Page) -> float:
    """Where the budget line stands, in pixels of the page."""
    lines = page.locator("#chart .shapelayer path")
    expect(lines).to_have_count(1)
    box = lines.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2


def across(page: Page, value: float) -> float:
    """Where a value of the horizontal axis is drawn, in pixels of the page."""
    found = page.evaluate(
        "x => { const a = chart._fullLayout.xaxis; return chart.getBoundingClientRect().left + a._offset + a.l2p(x) }", value
    )
    return float(found)


def test_every_budget_gives_the_trial_that_the_command_line_exports(
    page: Page, address: str, store: Store, trials: list[Trial]
) -> None:
    show(page, f"{address}/studies/digits-60")
    found = set()
    for step in range(0, STEPS + 1, 40):
        limit = move(page, step)
        best = ranked(trials, LatencyBudget(limit, relative=True)).best()
        shown = page.locator("#panel").get_attribute("data-trial")
        assert shown == ("" if best is None else str(best.number))
        assert line(page) == pytest.approx(across(page, 100 * limit), abs=1.5)
        assert page.locator("#budget").get_attribute("aria-valuetext").startswith(f"{limit:.1%}")  # type: ignore[union-attr]
        if best is not None and shown not in found:
            with page.expect_download() as download:
                page.get_by_role("link", name="Export schedule").click()
            assert Schedule.load(download.value.path()) == best.schedule
        found.add(shown)
    assert "" in found
    assert len(found) > 4


def test_where_nothing_fits_the_nearest_budget_is_one_click_away(page: Page, address: str, trials: list[Trial]) -> None:
    show(page, f"{address}/studies/digits-60")
    move(page, 0)
    expect(page.locator("#panel h2")).to_contain_text("Nothing holds")
    page.locator("#panel button").click()
    expect(page.locator("#panel h2")).to_have_text(f"Trial {ranked(trials).best_by_budget('latency_ratio')[0].trial}")


def test_the_fastest_so_far_is_the_first_of_the_table(page: Page, address: str) -> None:
    show(page, f"{address}/studies/digits-60")
    move(page, 0)
    rows = page.locator("#front tr").all_inner_texts()
    first = next(row for row in rows if "backbone" not in row)
    said = page.locator("#panel .origin").inner_text()
    number, share = re.fullmatch(r"The fastest trial so far, number (\d+), takes (\S+) of the backbone's time\.", said).groups()
    assert re.match(rf"Trial {number}\b", first)
    assert share in first


def test_the_backbone_is_no_budget_to_offer(page: Page, address: str, store: Store) -> None:
    made = Synthetic(store, "too-slow", budget="5%")
    made.add(Schedule(), "backbone")
    made.add(made.proposal(), "sampler")
    store.set_state("too-slow", "complete")
    slow = store.trials("too-slow")[1]
    assert slow.state == "infeasible"
    show(page, f"{address}/studies/too-slow")
    expect(page.locator("#panel h2")).to_have_text("Nothing holds 5%")
    expect(page.locator("#panel .origin")).to_contain_text(f"number 1, takes {slow.judged['latency_ratio'].value:.1%}")
    expect(page.locator("#panel button")).to_have_count(0)


def test_the_thumb_is_below_the_line_and_the_study_s_own_budget_comes_back(page: Page, address: str, store: Store) -> None:
    show(page, f"{address}/studies/digits-60")
    best = ranked(store.trials("digits-60"), store.study("digits-60").budget).best()
    assert best is not None
    assert line(page) == pytest.approx(across(page, 60), abs=1.5)
    expect(page.locator("#chart .shapelayer text")).to_have_text("budget 60%")
    slider = page.locator("#budget")
    box, share = slider.bounding_box(), int(slider.input_value()) / STEPS
    assert box is not None
    assert box["x"] + 8 + share * (box["width"] - 16) == pytest.approx(line(page), abs=4)

    move(page, 300)
    expect(page.locator("#panel h2")).not_to_have_text(f"Trial {best.number}")
    page.get_by_role("button", name="back to 60%").click()
    expect(page.locator("#panel h2")).to_have_text(f"Trial {best.number}")
    expect(page.locator("#panel .tag")).to_have_text("recommended for 60%")
    expect(slider).to_be_focused()
    assert line(page) == pytest.approx(across(page, 60), abs=1.5)


def test_arrow_keys_move_it_and_a_chosen_trial_gives_way(page: Page, address: str, trials: list[Trial]) -> None:
    show(page, f"{address}/studies/digits-60")
    dense = trials[0]
    click(page, dense.number)
    expect(page.locator("#panel h2")).to_have_text("Trial 0")
    before = page.locator("#budget").input_value()
    page.locator("#budget").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#panel h2")).not_to_have_text("Trial 0")
    assert int(page.locator("#budget").input_value()) == int(before) - 1
    assert "#" not in page.url


def turn(page: Page, axis: str) -> None:
    page.locator(f"input[value={axis}]").check(force=True)
    page.wait_for_function("axis => chart.layout.uirevision === axis", arg=axis)


@pytest.mark.parametrize("axis", ["latency_ms", "macs", "memory"])
def test_a_budget_can_be_given_on_every_axis(page: Page, address: str, trials: list[Trial], axis: str) -> None:
    show(page, f"{address}/studies/digits-60")
    chosen = page.locator("#panel").get_attribute("data-trial")
    turn(page, axis)
    assert page.locator("#panel").get_attribute("data-trial") == chosen
    limit = move(page, 500)
    fits = [one for one in ranked(trials).best_by_budget(axis) if one.limit <= limit]
    assert page.locator("#panel").get_attribute("data-trial") == str(fits[-1].trial)
    asked = page.locator("#budget-value").inner_text()
    turn(page, "latency_ratio")  # budget and schedule stay
    assert page.locator("#panel").get_attribute("data-trial") == str(fits[-1].trial)
    assert page.locator("#budget-value").inner_text() == asked


def test_percent_and_milliseconds_are_one_budget(page: Page, address: str, trials: list[Trial]) -> None:
    """Whatever the axis, and as the command line has it in either unit; the line stands where the backbone's time says."""
    backbone = trials[0].judged["latency_ms"].value
    show(page, f"{address}/studies/digits-60")
    expect(page.locator("#budget-also")).to_contain_text(f"= {0.6 * backbone:.2f} ms, as the backbone takes {backbone:.2f} ms")
    for step in range(100, STEPS, 150):
        turn(page, "latency_ratio")
        share = move(page, step)
        shown = page.locator("#panel").get_attribute("data-trial")
        turn(page, "latency_ms")
        assert line(page) == pytest.approx(across(page, share * backbone), abs=1.5)
        assert page.locator("#panel").get_attribute("data-trial") == shown
        page.evaluate("limit => ask(limit)", share * backbone)  # the same, asked for in milliseconds
        page.wait_for_timeout(60)
        assert page.locator("#panel").get_attribute("data-trial") == shown
        for budget in (LatencyBudget(share, relative=True), LatencyBudget(share * backbone, relative=False)):
            best = ranked(trials, budget).best()
            assert shown == ("" if best is None else str(best.number))


def lose(page: Page, tenths: int) -> None:
    """Put the other slider onto so many tenths of a point."""
    page.evaluate(
        """tenths => {
            const slider = document.getElementById("loss");
            slider.value = tenths;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        tenths,
    )
    page.wait_for_timeout(60)


def test_every_loss_gives_the_trial_that_the_command_line_exports(page: Page, address: str, trials: list[Trial]) -> None:
    ranking = ranked(trials)
    show(page, f"{address}/studies/digits-60")
    expect(page.locator("#loss-value")).to_have_text("not limited")
    found = set()
    for tenths in range(0, int(page.locator("#loss").get_attribute("max") or 0), 4):
        lose(page, tenths)
        choice = ranking.choice(ranking.goals.asking(most_lost=tenths / 1000))
        shown = page.locator("#panel").get_attribute("data-trial")
        assert shown == ("" if choice is None else str(choice.recommended.number))
        expect(page.locator("#loss-value")).to_have_text(f"{tenths / 10:g} points")
        if choice is not None:
            latency = choice.recommended.judged["latency_ratio"].value
            expect(page.locator("#loss-found")).to_have_text(f"trial {shown}, {latency:.1%} of the latency")
        found.add(shown)
    assert len(found) > 3
    page.get_by_role("button", name="back to 60%").click()
    expect(page.locator("#loss-value")).to_have_text("not limited")
    expect(page.locator("#panel .tag")).to_have_text("recommended for 60%")


def test_what_is_recommended_is_marked_beside_the_most_accurate_with_the_trade(page: Page, address: str, store: Store) -> None:
    trials = store.trials("tolerant")
    ranking = Ranking.of(trials, store.study("tolerant").goals)
    steps = ranking.best_by_budget("latency_ratio")
    step = next(one for one in reversed(steps) if one.trial != one.finest)
    show(page, f"{address}/studies/tolerant")
    page.evaluate("limit => ask(limit)", step.limit)
    page.wait_for_timeout(60)
    rows = {number: page.locator("#front tr", has=page.locator(f'[data-trial="{number}"]')) for number in step[1:]}
    expect(rows[step.trial].locator(".tag")).to_have_text(f"recommended for {step.limit:.1%}")
    expect(rows[step.finest].locator(".tag")).to_have_text("most accurate")
    trade = ranking.trade(Choice(*(trials[number] for number in step[1:])))
    assert trade is not None
    expect(page.locator("#panel .trade")).to_have_text(text.trade(trade, ranking.goals))
    expected = ranking.expected[step.trial]["accuracy"].value
    expect(rows[step.trial].locator("td").first).to_contain_text(f"{expected:.1%}")
    expect(page.locator("#rule")).to_have_text(text.rule(ranking.goals.asked, ranking.goals))


def test_a_budget_in_milliseconds_begins_on_that_axis(page: Page, address: str) -> None:
    show(page, f"{address}/studies/in-ms")
    expect(page.locator("input[value=latency_ms]")).to_be_checked()
    expect(page.locator("#chart .shapelayer text")).to_have_text("budget 4ms")
    assert line(page) == pytest.approx(across(page, 4), abs=1.5)


def test_the_cloud_is_not_drawn_again(page: Page, address: str) -> None:
    show(page, f"{address}/studies/digits-60")
    page.evaluate(
        "() => { window.drawn = 0; const react = Plotly.react; "
        "Plotly.react = (...args) => { window.drawn += 1; return react(...args); } }"
    )
    for step in (100, 400, 700):
        move(page, step)
    assert page.evaluate("() => window.drawn") == 0


def test_knee_and_starting_points_are_marked(page: Page, address: str, trials: list[Trial]) -> None:
    show(page, f"{address}/studies/digits-60")
    knee = ranked(trials).knee()
    assert knee is not None
    note = page.evaluate("() => chart.layout.annotations.map(({ name, x }) => [name, x])")
    assert note == [["knee", pytest.approx(100 * knee.judged["latency_ratio"].value)]]
    named = page.evaluate("""() => {
        const { text, x } = chart.data.find(({ name }) => name === "starts");
        return text.map((one, at) => [one, x[at]]);
    }""")
    assert {"ToMe", "ToMe ↘", "DiffRate", "plan"} <= {name for name, _ in named}
    for name, origin in (("ToMe", "constant"), ("DiffRate", "published")):
        best = max(
            (one for one in trials if one.origin == origin and one.state == "complete"),
            key=lambda one: one.judged["accuracy"].value,
        )
        assert dict(named)[name] == pytest.approx(100 * best.judged["latency_ratio"].value)


def test_growth_is_drawn_step_by_step(page: Page, address: str, store: Store, trials: list[Trial]) -> None:
    show(page, f"{address}/studies/digits-60")
    grown = ranked(trials, store.study("digits-60").budget).growth()
    assert grown is not None
    page.wait_for_selector("#growth-chart .scatterlayer path")
    x, y = page.evaluate("() => { const [{ x, y }] = document.getElementById('growth-chart').data; return [x, y] }")
    for count, volume in enumerate(grown.volumes, start=1):
        drawn = [height for at, height in zip(x, y, strict=True) if at <= count][-1]
        assert drawn == pytest.approx(100 * volume)
