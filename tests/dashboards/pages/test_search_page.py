"""What a search leaves behind, on the page, in its twin and in the terminal: origins, estimates, what the front is worth."""

import json

from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect

from browsing import click, point, printed, show
from dashboard_study import SHAPE
from rankings import ranked
from studies_to_show import address, client, store
from vittle.dashboards.terminal.study_tables import front_table, standing, trial_note, trials_table
from vittle.storage.store import Store

__all__ = ["address", "client", "store"]  # fixtures


def test_answers_to_single_images_are_left_out(client: TestClient, store: Store) -> None:
    whole = client.get("/studies/digits-60.json").text
    for trial in store.trials("digits-60"):
        twin = client.get(f"/studies/digits-60/trials/{trial.number}.json").json()
        for phase, measured in trial.measurements.items():
            kept = {name: {**one.protocol} for name, one in measured.items()}
            for name in ("right", "samples", "classes"):
                packed = [about.pop(name) for about in kept.values() if name in about]
                assert not any(json.dumps(one, separators=(",", ":")) in whole for one in packed)
            assert {name: one["protocol"] for name, one in twin["measurements"][phase].items()} == kept


def test_an_estimate_says_of_how_many_images(client: TestClient) -> None:
    for trial in client.get("/studies/digits-60.json").json()["trials"]:
        assert trial["estimated_of"] == (449 if trial["state"] == "stopped" else None)
        assert not (trial["front"] and trial["state"] == "stopped")


def test_what_the_front_is_worth(client: TestClient, store: Store) -> None:
    twin = client.get("/studies/digits-60.json").json()
    trials, budget = store.trials("digits-60"), store.study("digits-60").budget
    curse, grown = ranked(trials, budget).optimism(), ranked(trials, budget).growth()
    assert curse is not None
    assert grown is not None
    assert [twin["optimism"][name] for name in curse._fields] == list(curse)
    assert [twin["outlook"][name] for name in grown.outlook._fields] == list(grown.outlook)
    assert (twin["outlook"]["hypervolume"], twin["outlook"]["trials"]) == (grown.volume, 100)
    assert [twin[name]["text"] for name in ("optimism", "outlook")] == standing(ranked(trials, budget), ["merging"])


def test_a_front_says_where_its_schedules_come_from(store: Store) -> None:
    study, trials = store.study("digits-60"), store.trials("digits-60")
    front = ranked(trials).front()
    lines = printed(front_table(front, study.goals.asked, ranked(trials, study.budget), shape=SHAPE)).splitlines()
    for trial in front:
        (line,) = [line for line in lines if line.replace("*", "").replace("+", "").split()[:1] == [f"{trial.number}"]]
        how = trial.schedule.summary if trial.origin == "backbone" else f"{trial.origin}: {trial.schedule.summary}"
        assert line.rstrip().endswith(how)


def test_a_stopped_trial_is_an_estimate(store: Store) -> None:
    trials = store.trials("digits-60")
    shown = printed(trials_table(trials))
    for trial in trials:
        (line,) = [line.split() for line in shown.splitlines() if line.split()[:2] == [f"{trial.number}", trial.state]]
        if "accuracy" in trial.judged:
            sign, images = ("†", "128/449") if trial.state == "stopped" else ("", "449")
            assert line[2] == f"{sign}{trial.judged['accuracy'].value:.1%}"
            assert line[4] == images
        assert trial.origin in line
    assert "† estimated from the images seen" in shown
    stopped = next(trial for trial in trials if trial.state == "stopped")
    assert trial_note(stopped, store.study("digits-60").goals).startswith(
        f"trial {stopped.number}: †{stopped.judged['accuracy'].value:.2%} at "
    )
    assert trial_note(stopped, store.study("digits-60").goals).endswith("latency, stopped")
    assert "†" not in printed(trials_table([trial for trial in trials if trial.state != "stopped"]))


def test_a_stopped_trial_is_shown_as_an_estimate(page: Page, address: str, store: Store) -> None:
    show(page, f"{address}/studies/digits-60")
    stopped = [trial for trial in store.trials("digits-60") if trial.state == "stopped"]
    marker = page.evaluate("() => chart._fullData.find(({ name }) => name === 'stopped').marker")
    assert marker["symbol"].endswith("-open")
    assert marker["opacity"] < 1
    chosen = min(stopped, key=lambda trial: trial.judged["latency_ratio"].value)  # no other is drawn near it
    page.mouse.move(*point(page, chosen.number))
    hover = page.locator("#chart .hoverlayer")
    accuracy = chosen.judged["accuracy"]
    expect(hover).to_contain_text(f"Trial {chosen.number}, {chosen.origin}")
    expect(hover).to_contain_text(f"accuracy †{accuracy.value:.1%}")
    expect(hover).to_contain_text("128 of 449 images")
    click(page, chosen.number)
    panel = page.locator("#panel")
    expect(panel).to_contain_text(f"†{accuracy.value:.1%}")
    expect(panel).to_contain_text("128 of 449 search images")
    expect(panel).to_contain_text("† estimated from the images seen")
    expect(panel).to_contain_text(str(chosen.reason))


def test_what_the_best_trial_loses_most_and_what_the_front_is_worth(page: Page, address: str, store: Store) -> None:
    show(page, f"{address}/studies/digits-60")
    trials, budget = store.trials("digits-60"), store.study("digits-60").budget
    best = ranked(trials, budget).best()
    assert best is not None
    label, lost, images = best.measurements["confirmation"]["accuracy_drop"].protocol["worst"][0]
    expect(page.locator("#panel")).to_contain_text(f"Loses most in class {label}: {lost:.1%} of {images} images.")
    expect(page.locator("#standing p")).to_have_text(standing(ranked(trials, budget), ["merging"]))
    row = page.locator("#front tr", has_text=f"Trial {best.number}")
    expect(row.locator("td").nth(6)).to_have_text(best.origin)
