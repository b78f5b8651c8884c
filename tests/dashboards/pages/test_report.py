"""The report: one file that shows what the page shows, without a server and without a network."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from playwright.sync_api import BrowserContext, Page, expect
from plotly.offline import get_plotlyjs

from browsing import click, show
from dashboard_study import Synthetic, importance, latency_profile, made_merge_start, open_store, repeated, sensitivity
from rankings import ranked
from studies_to_show import pictured
from vittle import Schedule, VittleError
from vittle.cli import commands
from vittle.cli.options import illustrate
from vittle.dashboards import words
from vittle.dashboards.app import create_app
from vittle.dashboards.pages import report
from vittle.storage.store import Store

__all__ = ["pictured"]  # a fixture

NAME = "digits-60"
HOSTILE = '</script><script>alert("1")</script> href="/x" & <!--'


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Studies that no test changes."""
    opened = open_store(tmp_path_factory.mktemp("studies"))
    opened.save_merge_start(made_merge_start())
    opened.save_profile(latency_profile())
    opened.save_sensitivity(sensitivity())
    hostile = Synthetic(opened, HOSTILE)
    hostile.fill(12)
    number = opened.start_trial(HOSTILE, "<i>sampler</i>", hostile.proposal(), {})
    opened.finish_trial(HOSTILE, number, "failed", reason=HOSTILE)
    Synthetic(opened, NAME).fill(40)
    opened.save_importance(NAME, importance())
    return opened


@pytest.fixture(scope="module")
def written(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reports of all studies."""
    folder = tmp_path_factory.mktemp("reports")
    for language in words.languages():
        text = report.render(store, store.study(NAME), language)
        (folder / f"{language}.html").write_text(text, encoding="utf-8")
    (folder / "hostile.html").write_text(report.render(store, store.study(HOSTILE)), encoding="utf-8")
    return folder


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    """A page without a network that may read files, and nothing else, and must not write errors to its console."""
    browser.set_offline(True)
    opened = browser.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    allowed = re.compile(r"file:.*\.html(#.*)?$|data:|blob:")
    opened.on("request", lambda sent: None if allowed.match(sent.url) else complaints.append(sent.url))
    yield opened
    opened.close()
    browser.set_offline(False)
    assert complaints == []


def inside(text: str, name: str) -> object:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


class TestFile:
    def test_it_holds_what_the_dashboard_shows(self, store: Store, written: Path) -> None:
        client = TestClient(create_app(store), base_url="http://127.0.0.1")
        twin = client.get(f"/studies/{NAME}.json").json()
        del twin["revision"]
        text = (written / "en.html").read_text()
        assert inside(text, "twin") == {**twin, "trials": [{**trial, "url": None} for trial in twin["trials"]]}
        files = inside(text, "files")
        assert isinstance(files, dict)
        exported = {str(trial["number"]): trial["export"] for trial in twin["trials"] if trial["export"]}
        assert set(files) == set(exported)
        for number, address in exported.items():
            answer = client.get(address)
            assert files[number]["text"] == answer.text
            assert files[number]["name"] in answer.headers["content-disposition"]

    def test_nothing_in_it_is_elsewhere(self, written: Path) -> None:
        for path in written.iterdir():
            text = path.read_text()
            assert get_plotlyjs() in text
            rest = text.replace(get_plotlyjs(), "")
            assert set(re.findall(r"https?://[^\s\"'<)]+", rest)) <= {"http://www.w3.org/2000/svg"}
            markup = re.sub(r"<script.*?</script>", "", rest, flags=re.DOTALL)
            assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', markup) == []
            assert len(text.encode()) < 8e6

    def test_only_its_own_scripts_may_run(self, written: Path) -> None:
        text = (written / "en.html").read_text()
        (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert len(re.findall("'sha256-", policy)) == len(re.findall(r"<script>", text)) + len(re.findall(r"<style ", text))
        assert text.index("Content-Security-Policy") < text.index("<style")

    def test_a_hostile_name_is_text(self, written: Path) -> None:
        text = (written / "hostile.html").read_text()
        assert HOSTILE not in text
        assert 'alert("1")</script>' not in text
        assert inside(text, "twin")["name"] == HOSTILE  # type: ignore[index]

    def test_of_very_many_schedules_the_best_go_along(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report, "MOST", 3)
        opened = open_store(tmp_path)
        Synthetic(opened, NAME).fill(40)
        repeated(opened, NAME, 60)
        study, trials = opened.study(NAME), opened.trials(NAME)
        files = inside(report.render(opened, study), "files")
        assert isinstance(files, dict)
        front = {str(trial.number) for trial in ranked(trials).front()}
        assert front < set(files)
        assert len(files) == len(front) + 3
        others = [trial for trial in trials if "accuracy" in trial.judged and str(trial.number) not in files]
        worst = min(trials[int(number)].judged["accuracy"].value for number in set(files) - front)
        assert (
            max(trial.judged["accuracy"].value for trial in others if ranked(trials, study.budget).within(trial, study.budget))
            <= worst
        )

    def test_pictures_have_a_place(self, store: Store) -> None:
        text = report.render(store, store.study(NAME), pictures={3: {"images": []}})
        assert inside(text, "pictures") == {"3": {"images": []}}

    def test_pictures_of_some_trials_stand_in_it(self, store: Store) -> None:
        text = report.render(store, store.study(NAME), pictures={3: {"images": []}})
        assert re.findall(r'class="drawn" data-trial="(\d+)" data-picture="(\w+)"', text) == [("3", "patches")]
        assert "Trial 3: Patches that are one token" in text
        assert "PICTURES.patches =" in text
        plain = report.render(store, store.study(NAME))
        assert "PICTURES.patches =" not in plain
        assert 'class="drawn"' not in plain


class TestCommand:
    def run(self, monkeypatch: pytest.MonkeyPatch, store: Store, *arguments: str) -> int:
        url = store.engine.url.render_as_string(hide_password=False)
        monkeypatch.setattr("sys.argv", ["vittle", "report", "--storage", url, *arguments])
        with pytest.raises(SystemExit) as ended:
            commands.main()
        return int(ended.value.code or 0)

    def test_a_report_is_written(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.run(monkeypatch, store, NAME, "--language", "ja") == 0
        assert '<html lang="ja">' in (tmp_path / f"{NAME}.html").read_text()
        assert self.run(monkeypatch, store, HOSTILE, "--output", "mine.html") == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{NAME}.html", "mine.html"]
        assert HOSTILE in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("nope",), "no study named 'nope'; there are: "),
            ((NAME, "--language", "fr"), "no words in language 'fr'; accepted: en, ja"),
            ((NAME, "--output", "no/such/folder.html"), "give --output a file in an existing folder"),
            ((NAME, "--pictures", "0", "--pictures", "77"), "no trial 77 to draw in study 'digits-60'; accepted: 0 to 40"),
        ],
    )
    def test_bad_input_is_one_line_and_nothing_is_written(
        self,
        arguments: tuple[str, ...],
        message: str,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.run(monkeypatch, store, *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_language_is_refused(self, store: Store) -> None:
        with pytest.raises(VittleError, match="accepted: en, ja"):
            report.render(store, store.study(NAME), "fr")


class TestPictures:
    """Of a sparse trial, of one that prunes and merges as well, and of a recursive one."""

    def test_they_are_drawn_without_a_server(
        self, page: Page, pictured: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn, url = tmp_path / "real.html", pictured.engine.url.render_as_string(hide_password=False)
        asked = ["report", "real", "--storage", url, "--output", f"{drawn}"]
        asked += [word for number in (3, 4, 5) for word in ("--pictures", f"{number}")]
        monkeypatch.setattr("sys.argv", ["vittle", *asked])
        with pytest.raises(SystemExit, match="0"):
            commands.main()
        documents = inside(drawn.read_text(), "pictures")
        assert isinstance(documents, dict)
        study, trials = pictured.study("real"), pictured.trials("real")
        assert documents == {f"{number}": illustrate(study, trials[number].schedule, ()) for number in (3, 4, 5)}
        page.goto(drawn.as_uri())
        expect(page.locator(".pictures h2")).to_have_text(
            [
                "Trial 3: What a patch reads",
                "Trial 4: What a patch reads",
                "Trial 4: Patches that are one token",
                "Trial 5: How deep each patch goes",
            ]
        )
        expect(page.locator(".pictures .images canvas")).to_have_count(24)
        expect(page.locator(".pictures").last.locator(".bins")).to_have_count(3)
        page.get_by_role("slider", name="Step").focus()
        page.keyboard.press("End")
        expect(page.locator(".pictures output").last).to_have_text("Step 5 of 5: 16 of 64 patch tokens take part")
        for place, number in ((0, 3), (1, 4)):
            shown = page.locator(".pictures").nth(place)
            shown.get_by_role("combobox", name="Head").select_option(label="2")
            block = int(shown.get_by_role("combobox", name="Block").input_value())
            told = [image["blocks"][block]["told"]["sparsity"] for image in documents[f"{number}"]["images"]]
            expected = [f"{100 * sum(one[name][1] for one in told) / len(told):.1f}%" for name in ("recall", "mass")]
            expect(shown.locator(".rates dd:not(.hint)")).to_have_text(expected)
            patch = shown.get_by_role("slider", name="Patch of image 0")
            before = patch.get_attribute("aria-valuetext")
            patch.focus()
            page.keyboard.press("ArrowRight")
            assert patch.get_attribute("aria-valuetext") != before


class TestBrowser:
    @pytest.mark.parametrize("language", words.languages())
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_everything_works_from_a_file(
        self, page: Page, store: Store, written: Path, language: str, scheme: str, tmp_path: Path
    ) -> None:
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        show(page, (written / f"{language}.html").as_uri())
        spoken = words.words(language)
        expect(page.locator("#state")).to_have_text(spoken("states.complete"))
        for chart in ("growth-chart", "importance-blocks", "importance-parameters"):
            page.wait_for_selector(f"#{chart} .plot-container")
        trials, study = store.trials(NAME), store.study(NAME)
        best = ranked(trials, study.budget).best()
        assert best is not None
        for trial in (best, ranked(trials).front()[-2]):
            if trial is not best:
                click(page, trial.number)
            expect(page.locator("#panel")).to_have_attribute("data-trial", str(trial.number))
            with page.expect_download() as download:
                page.locator("#panel a.button").click()
            name = "best.yaml" if trial is best else f"{NAME}-trial-{trial.number}.yaml"
            assert download.value.suggested_filename == name
            download.value.save_as(tmp_path / name)
            assert Schedule.load(tmp_path / name) == trial.schedule
            assert yaml.safe_load((tmp_path / name).read_text())["trial"] == trial.number
        page.locator("#budget").focus()
        page.keyboard.press("End")  # any budget
        expect(page.locator("#panel")).to_have_attribute(
            "data-trial", str(ranked(trials).best_by_budget("latency_ratio")[-1].trial)
        )
        page.locator("#front button").first.click()
        expect(page.locator("#panel")).to_have_attribute("data-trial", str(ranked(trials).front()[0].number))

    def test_a_hostile_study_is_text(self, page: Page, written: Path) -> None:
        show(page, (written / "hostile.html").as_uri())
        expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
        page.locator("#failures summary").click()
        expect(page.locator("#failures li")).to_contain_text([HOSTILE])

    def test_what_does_not_go_along_is_said(self, page: Page, store: Store, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(report, "MOST", 0)
        path = tmp_path / "few.html"
        path.write_text(report.render(store, store.study(NAME)), encoding="utf-8")
        front = {trial.number for trial in ranked(store.trials(NAME)).front()}
        other = next(one for one in store.trials(NAME) if one.state == "complete" and one.number not in front)
        show(page, f"{path.as_uri()}#trial-{other.number}")
        expect(page.locator("#panel")).to_contain_text(words.words()("report.elsewhere"))
        expect(page.locator("#panel a.button")).to_have_count(0)
