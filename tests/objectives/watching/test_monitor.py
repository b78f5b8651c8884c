"""When windows change the mode, and what is remembered of it. Nothing runs but histograms."""

import copy
import json
import pickle
import threading

import numpy as np
import pytest

from vittle.objectives.watching.calibration import Calibration
from vittle.objectives.watching.histograms import distances
from vittle.objectives.watching.monitor import Monitor, judged
from vittle.spaces.errors import VittleError

ORDINARY = np.array([[8, 2]])
STRANGE = np.array([[2, 8]])


def mode(threshold: float = 0.2, counts: tuple[int, int] = (80, 20)) -> dict:
    signal = {"name": "recursion step 1", "values": 10, "edges": [0.5], "counts": counts, "threshold": threshold}
    return {"schedule": {"tail": "full"}, "macs": 10, "watching_macs": 1, "accuracy": 0.5, "signals": [signal]}


def calibration(window: int = 8) -> Calibration:
    about = {"weights": "0123456789ab", "images": 100, "window": window, "false_alarms": 0.01, "agreement": 0.9}
    return Calibration.model_validate({**about, "modes": {"scheduled": mode(), "uniform": mode()}})


def images(kind: np.ndarray, n: int) -> np.ndarray:
    return np.repeat(kind[None], n, 0)


def test_a_shift_changes_the_mode_after_enough_windows_and_clean_ones_change_it_back() -> None:
    monitor = Monitor(calibration(), alarm_after=3, return_after=4)
    assert monitor.take("scheduled", images(ORDINARY, 20)) == []
    # Windows of 8 are judged every 2 images. 4 of 8 strange ones are not far enough, 6 are: the third in a row is at 30.
    apart = {n: distances(8 * ORDINARY + n * (STRANGE - ORDINARY), ORDINARY)[0] for n in (2, 4, 6, 8)}
    over = [n for n in (2, 4, 6, 8) if apart[n] > 0.2]
    assert over == [4, 6, 8]
    (switch,) = monitor.take("scheduled", images(STRANGE, 30))
    assert (switch.to, switch.images, switch.signal, switch.threshold) == ("uniform", 28, "recursion step 1", 0.2)
    assert switch.distance == pytest.approx(apart[8], abs=1e-4)
    assert monitor.mode == "uniform"
    assert monitor.take("scheduled", images(STRANGE, 50)) == []  # they began before the change
    assert monitor.report()["images"] == 28
    assert monitor.take("uniform", images(STRANGE, 50)) == []
    assert monitor.take("uniform", images(ORDINARY, 11)) == []
    (switch,) = monitor.take("uniform", images(ORDINARY, 3))
    assert switch.to == "scheduled"
    report = monitor.report()
    assert (report["mode"], report["alarms"], report["returns"], len(report["switches"])) == ("scheduled", 1, 1, 2)
    assert json.loads(json.dumps(report)) == report


def test_single_strange_images_and_a_window_that_is_not_full_change_nothing() -> None:
    monitor = Monitor(calibration(), alarm_after=1)
    assert monitor.take("scheduled", images(STRANGE, 7)) == []
    monitor = Monitor(calibration(), alarm_after=1)
    for _ in range(50):
        assert monitor.take("scheduled", images(ORDINARY, 7)) == []
        assert monitor.take("scheduled", images(STRANGE, 1)) == []
    assert (monitor.report()["windows"], monitor.report()["windows_over"]) == (197, 0)


def test_batches_of_any_size_are_judged_alike() -> None:
    seen = np.concatenate([images(ORDINARY, 9), images(STRANGE, 40)])
    found = []
    for size in (1, 3, 8, 49):
        monitor = Monitor(calibration())
        batches = [seen[start : start + size] for start in range(0, 49, size)]
        switches = [switch for batch in batches for switch in monitor.take("scheduled", batch)]
        found.append((switches, monitor.report()["windows"]))
    assert len(found[0][0]) == 1
    assert all(one == found[0] for one in found)


def test_a_window_is_compared_with_the_mode_that_it_ran_in() -> None:
    document = calibration().model_dump()
    document["modes"]["uniform"] = mode(counts=(20, 80))
    known = Calibration.model_validate(document)
    assert not judged(known, "scheduled", ORDINARY).over
    assert judged(known, "uniform", ORDINARY).over


def test_many_threads_lose_no_image_and_switch_once() -> None:
    monitor = Monitor(calibration(64), alarm_after=1, return_after=10**6)
    switches: list = []

    def feed() -> None:
        for _ in range(200):
            switches.extend(monitor.take("scheduled", images(STRANGE, 1)))
            monitor.take("uniform", images(STRANGE, 2))

    threads = [threading.Thread(target=feed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(switches) == 1
    report = monitor.report()
    # Until the change each scheduled image counts, and after it each of the others.
    assert report["alarms"] == 1
    assert 64 + 2 * (800 - 64) - 8 <= report["images"] <= 64 + 2 * 800


def test_a_copy_goes_on_from_where_it_was() -> None:
    monitor = Monitor(calibration(), alarm_after=1)
    monitor.take("scheduled", images(STRANGE, 7))
    for other in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        assert len(other.take("scheduled", images(STRANGE, 1))) == 1
    assert monitor.mode == "scheduled"


def test_a_calibration_is_the_same_again_from_its_file(tmp_path) -> None:
    calibration().save(tmp_path / "best.watch.json")
    assert Calibration.load(tmp_path / "best.watch.json") == calibration()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "it is no JSON"),
        ("{}", "weights: Field required"),
        ('{"format": "vittle watch 2"}', "format: Input should be 'vittle watch 1'"),
    ],
)
def test_what_is_no_calibration_is_refused_in_one_line(content: str, reason: str, tmp_path) -> None:
    path = tmp_path / "best.watch.json"
    with pytest.raises(VittleError, match="no calibration of a watch at .*; accepted: what the calibration of a watch saves"):
        Calibration.load(path)
    path.write_text(content)
    with pytest.raises(VittleError, match=reason) as caught:
        Calibration.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"edges": [0.5, 0.5], "counts": [1, 2, 3]}, "edges do not rise"),
        ({"counts": [1, 2, 3]}, "counts are not one more than edges"),
        ({"counts": [0, 0]}, "counts are all 0"),
        ({"threshold": 0}, "greater than 0"),
        ({"edges": ["nan"]}, "finite number"),
    ],
)
def test_a_damaged_calibration_is_refused(change: dict, reason: str, tmp_path) -> None:
    document = calibration().model_dump(mode="json")
    document["modes"]["uniform"]["signals"][0].update(change)
    (tmp_path / "it.json").write_text(json.dumps(document))
    with pytest.raises(VittleError, match=reason):
        Calibration.load(tmp_path / "it.json")


def test_a_calibration_of_one_mode_is_refused(tmp_path) -> None:
    document = calibration().model_dump(mode="json")
    del document["modes"]["uniform"]
    (tmp_path / "it.json").write_text(json.dumps(document))
    with pytest.raises(VittleError, match="modes lacks one of scheduled, uniform"):
        Calibration.load(tmp_path / "it.json")


def test_fewer_than_one_window_is_refused() -> None:
    with pytest.raises(VittleError, match="return_after is 0; accepted: 1 or more windows"):
        Monitor(calibration(), return_after=0)
