"""The dashboard, asked as a client and used in a real browser."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import BrowserContext, Page, expect
from plotly.offline import get_plotlyjs

from browsing import click, point, printed, serving, show
from dashboard_study import RECURSIVE, SHAPE, Synthetic, open_store
from rankings import ranked
from studies_to_show import HOSTILE, HOSTILE_REASON, address, client, store
from vittle import Schedule
from vittle.dashboards.app import create_app
from vittle.dashboards.pages import plotlyjs
from vittle.dashboards.terminal.study_tables import front_table, studies_table, trials_table
from vittle.spaces import costs
from vittle.storage import fronts, records
from vittle.storage.store import Store

__all__ = ["address", "client", "store"]  # fixtures


class TestTwins:
    def test_study_has_every_trial_as_it_is_stored(self, client: TestClient, store: Store) -> None:
        twin = client.get("/studies/digits-60.json").json()
        trials = store.trials("digits-60")
        assert [trial["number"] for trial in twin["trials"]] == list(range(41))
        for entry, trial in zip(twin["trials"], trials, strict=True):
            assert (entry["state"], entry["origin"], entry["reason"]) == (trial.state, trial.origin, trial.reason)
            assert entry["tokens"] == list(costs.tokens(SHAPE, trial.schedule))
            assert entry["schedule"] == trial.schedule.to_dict()
            values = {name: (one["value"], one["low"], one["high"], one["n"]) for name, one in entry["judged"].items()}
            assert values == {name: (one.value, one.low, one.high, one.n) for name, one in trial.judged.items()}
            assert (entry["held_out"] is None) == (not trial.confirmed)
            if trial.confirmed:
                assert entry["held_out"]["value"] == trial.measurements["confirmation"]["accuracy"].value
        time = trials[0].judged["latency_ms"].value
        told = {"value": 0.6, "objective": "latency_ratio", "text": "60% of the backbone", "tail": False, "backbone_ms": time}
        assert twin["limit"] == told
        assert sum(twin["counts"].values()) == 41
        assert (twin["finished"], twin["planned"]) == (40, 40)

    def test_front_dominates_every_other_complete_trial(self, client: TestClient) -> None:
        def oriented(trial: dict[str, Any]) -> list[float]:
            judged = trial["judged"]
            return [-judged["accuracy"]["value"], judged["latency_ratio"]["value"], judged["macs"]["value"]]

        complete = [trial for trial in client.get("/studies/digits-60.json").json()["trials"] if trial["state"] == "complete"]
        front = [trial for trial in complete if trial["front"]]
        assert 2 < len(front) < len(complete)
        for trial in complete:
            rivals = [other for other in front if other is not trial]
            beaten = any(all(a <= b for a, b in zip(oriented(one), oriented(trial), strict=True)) for one in rivals)
            assert beaten is not trial["front"]

    def test_best_is_the_most_accurate_within_the_budget(self, client: TestClient) -> None:
        twin = client.get("/studies/digits-60.json").json()
        within = [trial for trial in twin["trials"] if trial["within_budget"] and trial["state"] == "complete"]
        most = max(trial["judged"]["accuracy"]["value"] for trial in within)
        assert twin["trials"][twin["best"]["trial"]]["judged"]["accuracy"]["value"] == most

    def test_list_has_every_study(self, client: TestClient) -> None:
        listed = client.get("/studies.json").json()["studies"]
        assert [study["name"] for study in listed] == [HOSTILE, "digits-60"]
        assert listed[1]["best"] == client.get("/studies/digits-60.json").json()["best"]

    @pytest.mark.parametrize("name", ["a/b", "50% & more?#", "ümläut", "[red]x", "a b"])
    def test_any_name_has_a_page_and_a_twin(self, name: str, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        number = Synthetic(opened, name).add(Schedule(), "backbone")
        client = TestClient(create_app(opened), base_url="http://127.0.0.1")
        url = client.get("/studies.json").json()["studies"][0]["url"]
        assert client.get(url).status_code == 200
        twin = client.get(f"{url}.json").json()
        assert twin["name"] == name
        assert client.get(twin["trials"][number]["export"]).headers["content-disposition"].isascii()


class TestExport:
    def test_every_measured_trial_loads_back_as_its_schedule(self, client: TestClient, store: Store, tmp_path: Path) -> None:
        twin = client.get("/studies/digits-60.json").json()
        exported = [trial for trial in twin["trials"] if trial["export"]]
        assert len(exported) == sum("accuracy" in trial.judged for trial in store.trials("digits-60")) > 10
        for trial in exported:
            answer = client.get(trial["export"])
            best = trial["number"] == twin["best"]["trial"]
            name = "best.yaml" if best else f"digits-60-trial-{trial['number']}.yaml"
            assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
            (tmp_path / name).write_bytes(answer.content)
            assert Schedule.load(tmp_path / name) == store.trials("digits-60")[trial["number"]].schedule

    def test_a_trial_without_accuracy_says_so(self, client: TestClient, store: Store) -> None:
        failed = next(trial.number for trial in store.trials("digits-60") if trial.state == "failed")
        answer = client.get(f"/studies/digits-60/trials/{failed}.yaml")
        assert answer.status_code == 404
        assert f"trial {failed} is failed" in answer.text


class TestRefusals:
    @pytest.mark.parametrize("path", ["/studies/nope", "/studies/digits-60/trials/999.yaml", "/nowhere", "/static/nope.js"])
    def test_unknown_page_is_a_404_in_one_line(self, client: TestClient, path: str) -> None:
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.text.count('class="lead"') == 1

    def test_unknown_study_is_named_and_the_others_offered(self, client: TestClient) -> None:
        answer = client.get("/studies/nope.json")
        assert answer.status_code == 404
        assert "'nope'" in answer.json()["error"]
        assert "digits-60" in answer.json()["error"]

    def test_nothing_can_be_written(self, client: TestClient) -> None:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for path in ("/", "/studies/digits-60", "/studies/digits-60.json"):
                assert client.request(method, path).status_code == 405

    def test_another_host_name_is_refused(self, client: TestClient) -> None:
        assert client.get("/", headers={"host": "vittle.example"}).status_code == 400
        assert client.get("/", headers={"host": "localhost:8080"}).status_code == 200
        assert client.get("/", headers={"host": "[::1]:8080"}).status_code == 200


class TestSafety:
    PATHS = ("/", "/studies/digits-60", "/studies/digits-60.json", "/studies/nope", "/static/study.js", plotlyjs.PATH)

    @pytest.mark.parametrize("path", PATHS)
    def test_headers(self, client: TestClient, path: str) -> None:
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"

    @pytest.mark.parametrize("path", ["/", f"/studies/{HOSTILE}", f"/studies/{HOSTILE}x"])
    def test_a_hostile_name_is_text(self, client: TestClient, path: str) -> None:
        page = client.get(path).text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert HOSTILE not in page

    @pytest.mark.parametrize("path", ["/", "/studies/digits-60", "/studies/nope", "/static/study.js", "/static/style.css"])
    def test_nothing_comes_from_another_host(self, client: TestClient, path: str) -> None:
        text = client.get(path).text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "https://" not in text
        assert "http://" not in text
        assert 'src="//' not in text

    def test_plotly_is_the_installed_one_compressed_and_kept(self, client: TestClient) -> None:
        answer = client.get(plotlyjs.PATH)
        assert answer.headers["content-encoding"] == "gzip"
        assert "immutable" in answer.headers["cache-control"]
        assert answer.text == get_plotlyjs()
        assert client.get(plotlyjs.PATH, headers={"accept-encoding": "identity"}).text == get_plotlyjs()
        assert len(gzip.compress(get_plotlyjs().encode(), 1)) >= int(answer.headers["content-length"])

    def test_starts_without_torch_ray_and_timm(self) -> None:
        heavy = "{'torch', 'ray', 'timm', 'optuna'} & set(sys.modules)"
        rooms = "vittle.dashboards.app, vittle.dashboards.terminal.study_tables"
        code = (
            f"import sys, {rooms}; vittle.dashboards.pages.plotlyjs.bundled_styles(); sys.exit(str({heavy}) if {heavy} else 0)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestTerminal:
    def test_front(self, store: Store) -> None:
        study, trials = store.study("digits-60"), store.trials("digits-60")
        front = ranked(trials, study.budget).front(study.budget)
        best = ranked(trials, study.budget).best()
        assert best is not None
        lines = printed(front_table(front, study.goals.asked, ranked(trials, study.budget), shape=SHAPE)).splitlines()
        marked = next(line.split() for line in lines if line.strip().startswith("* "))
        assert marked[1] == str(best.number)
        assert f"{best.judged['accuracy'].value:.1%}" == marked[2]
        ms, beside = (best.judged["latency_ms"].value, best.judged["latency_ms"].protocol["backbone_ms"])
        assert f"{ms:#.3g}/{beside:#.3g}" in marked
        assert "65 65 … 65 65" in lines[-3]  # the backbone comes last
        assert len([line for line in lines if "±" in line and "M" in line]) == len(front) + 1

    def test_tokens_that_rest_are_not_counted_as_left(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        synthetic = Synthetic(opened, "recursive")
        for schedule in (Schedule(), RECURSIVE):
            synthetic.add(schedule, "plan")
        trials, study = opened.trials("recursive"), opened.study("recursive")
        ranking = ranked(trials, study.budget)
        lines = printed(front_table(trials[1:], study.goals.asked, ranking, shape=SHAPE)).splitlines()
        assert "65 65 … 33 65" in next(line for line in lines if "one shared block, 4 times" in line)

    def test_trials_and_studies_show_names_as_text(self, store: Store) -> None:
        store_trials = store.trials(HOSTILE)
        shown = printed(studies_table([(store.study(HOSTILE), fronts.standing(store, HOSTILE))]))
        assert HOSTILE in shown
        assert HOSTILE_REASON in printed(trials_table(store_trials))

    def test_a_name_cannot_command_the_terminal(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        study = Synthetic(opened, "[red]\x1b[2Jgone").store.studies()[0]
        shown = printed(studies_table([(study, fronts.standing(opened, study.name))]))
        assert "\x1b" not in shown
        assert "[red]" in shown


def assert_shown(page: Page, trial: records.Trial) -> None:
    """The panel has the trial's numbers, and a bar for each block, as high as its tokens are many."""
    panel = page.locator("#panel")
    expect(panel.get_by_role("heading", name=f"Trial {trial.number}", exact=True)).to_be_visible()
    tokens = costs.tokens(SHAPE, trial.schedule)
    heights = panel.locator(".bars i").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().height)")
    assert [height / heights[0] for height in heights] == pytest.approx([n / tokens[0] for n in tokens], abs=0.01)
    labels = panel.locator(".bars > div").evaluate_all("bars => bars.map(bar => bar.firstChild.textContent)")
    assert labels == [str(count) for count in tokens]
    shares = [measured for name, measured in trial.judged.items() if name in ("accuracy", "latency_ratio")]
    for measured in shares:
        assert f"{measured.value:.1%}" in panel.inner_text()


class TestBrowser:
    def test_the_best_trial_is_shown_and_a_clicked_one_in_its_place(self, page: Page, address: str, store: Store) -> None:
        show(page, f"{address}/studies/digits-60")
        trials = store.trials("digits-60")
        best = ranked(trials, store.study("digits-60").budget).best()
        assert best is not None
        slow = [trial for trial in trials if trial.state == "infeasible"]
        infeasible = max(slow, key=lambda trial: trial.judged["latency_ratio"].value)  # no other is drawn near it
        assert_shown(page, best)
        for trial in [*ranked(trials).front()[::2], infeasible]:
            click(page, trial.number)
            assert_shown(page, trial)
        expect(page.get_by_role("link", name="Export schedule")).to_have_count(0)  # it has no accuracy

        for trial, name in ((best, "best.yaml"), (trials[8], "digits-60-trial-8.yaml")):
            click(page, trial.number)
            assert_shown(page, trial)
            with page.expect_download() as download:
                page.get_by_role("link", name="Export schedule").click()
            assert download.value.suggested_filename == name
            assert Schedule.load(download.value.path()) == trial.schedule

    def test_studies_with_nothing_to_draw_say_why(self, page: Page, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        Synthetic(opened, "new")
        Synthetic(opened, "broken")
        number = opened.start_trial("broken", "backbone", Schedule(), {})
        opened.finish_trial("broken", number, "failed", reason="OutOfMemoryError")
        opened.set_state("broken", "failed", f"search failed: {HOSTILE_REASON}")
        Synthetic(opened, "tight", budget="5%").fill(8)
        with serving(opened) as address:
            inside = page.context.new_page()
            inside.goto(f"{address}/studies/new")
            expect(inside.locator("#blank")).to_contain_text("untouched backbone")
            expect(inside.locator("#chart, #slider, #front-card, .picker").locator("visible=true")).to_have_count(0)
            inside.goto(f"{address}/studies/broken")
            expect(inside.get_by_role("alert")).to_have_text(f"search failed: {HOSTILE_REASON}")
            inside.goto(f"{address}/studies/tight")
            expect(inside.locator("#panel h2")).to_have_text("Nothing holds 5%")
            expect(inside.locator("#panel button")).to_have_count(0)  # the backbone is no budget to offer
            inside.close()

    def test_a_row_can_be_chosen_with_the_keyboard(self, page: Page, address: str, store: Store) -> None:
        show(page, f"{address}/studies/digits-60")
        first, second = ranked(store.trials("digits-60")).front()[:2]
        button = page.get_by_role("button", name=f"Trial {first.number}", exact=True)
        button.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#panel h2")).to_have_text(f"Trial {first.number}")
        expect(button).to_be_focused()  # though the table was drawn again
        expect(button).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("Tab")  # the box that compares the next one
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        expect(page.locator("#panel h2")).to_have_text(f"Trial {second.number}")
        page.reload()
        expect(page.locator("#panel h2")).to_have_text(f"Trial {second.number}")

    def test_a_hostile_study_is_text_wherever_it_is_shown(self, page: Page, address: str, store: Store) -> None:
        infeasible, failed = store.trials(HOSTILE)[-2:]
        page.goto(address)
        page.get_by_role("link", name=HOSTILE).click()
        page.wait_for_selector(".scatterlayer .point")
        page.mouse.move(*point(page, infeasible.number))
        expect(page.locator("#chart .hoverlayer")).to_contain_text(HOSTILE_REASON)
        click(page, infeasible.number)
        expect(page.locator("#panel")).to_contain_text(HOSTILE_REASON)
        page.locator("#failures summary").click()
        expect(page.locator("#failures li")).to_contain_text([f"Trial {failed.number}: {HOSTILE_REASON}"])
        expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
        assert page.locator("main img, main b:text('bold')").count() == 0

    @pytest.mark.parametrize("language", ["en", "ja"])
    @pytest.mark.parametrize("width", [360, 800, 1024, 1280, 1440, 1920])
    def test_no_page_scrolls_sideways_and_no_table_leaves_its_card(
        self, page: Page, address: str, width: int, language: str
    ) -> None:
        page.set_viewport_size({"width": width, "height": 800})
        page.set_extra_http_headers({"Accept-Language": language})
        for path, drawn in (("/", "td"), ("/studies/digits-60", ".scatterlayer .point")):
            page.goto(f"{address}{path}")
            page.wait_for_selector(drawn)
            assert page.evaluate("() => document.documentElement.scrollWidth") == width
        if width > 700:  # on a phone the table scrolls within its card
            table, card = (page.locator(at).bounding_box() for at in (".front", "#front-card"))
            assert table is not None
            assert card is not None
            assert table["x"] + table["width"] <= card["x"] + card["width"]


def test_a_running_study_grows_on_the_page(browser: BrowserContext, tmp_path: Path) -> None:
    """The best trial follows the search until one is chosen; then choice and zoom stay, and nothing is loaded again."""
    opened = open_store(tmp_path)
    study = Synthetic(opened, "live")
    study.fill(16, "running")
    axes = "() => [chart.layout.xaxis.range, chart.layout.yaxis.range].flat().map(Number)"
    with serving(opened) as address:
        page = browser.new_page()
        show(page, f"{address}/studies/live")
        page.evaluate("() => { window.sameDocument = true }")
        new = study.add_best(right=446)
        expect(page.locator("#panel h2")).to_have_text(f"Trial {new}", timeout=15000)

        chosen = next(trial.number for trial in opened.trials("live") if trial.state == "infeasible")
        click(page, chosen)
        expect(page.locator("#panel h2")).to_have_text(f"Trial {chosen}")
        page.wait_for_timeout(350)
        left, top = point(page, new)
        page.mouse.move(left + 100, top - 10)
        page.mouse.down()
        page.mouse.move(left - 20, top + 150, steps=4)
        page.mouse.up()
        page.wait_for_function("() => chart.layout.xaxis.autorange === false")
        zoomed = page.evaluate(axes)

        newer = study.add_best(right=448)
        row = page.locator("#front tr", has_text=f"Trial {newer}")
        expect(row).to_contain_text("recommended for 60%", timeout=15000)
        point(page, newer)  # it is in the chart too
        expect(page.locator("#panel h2")).to_have_text(f"Trial {chosen}")
        assert page.evaluate(axes) == zoomed
        opened.set_state("live", "complete")
        expect(page.locator("#state")).to_have_text("complete", timeout=15000)
        assert page.evaluate("() => window.sameDocument")
        page.close()
