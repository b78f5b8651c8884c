"""The process that computes pictures: one, started when it is asked, and gone when nobody asks."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import illustrators
from dashboard_study import Synthetic, curve, open_store
from vittle import Schedule
from vittle.dashboards.app import create_app
from vittle.dashboards.documents import pictures
from vittle.dashboards.documents.pictures import KEPT, PATCHES, Illustrations
from vittle.spaces.errors import VittleError
from vittle.spaces.table import REDUCTIONS
from vittle.storage.records import Study

HERE = Path(pictures.__file__).parent


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Synthetic(open_store(tmp_path_factory.mktemp("pictures")), "one").store.study("one")


@pytest.fixture
def illustrations() -> Iterator[Illustrations]:
    with closing(Illustrations(illustrators.told)) as made:
        yield made


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_is_one_other_process_and_asked_once(illustrations: Illustrations, study: Study) -> None:
    assert illustrations.process is None
    schedules = [Schedule(), curve(2, 0.3, 1.0)]
    found = [illustrations(study, schedule, [0, 2]) for schedule in schedules]
    assert [one["id"] for one in found] == [schedule.id for schedule in schedules]
    assert {one["process"] for one in found} == {illustrations.process}
    assert illustrations.process != os.getpid()
    assert illustrations(study, schedules[0], (0, 2)) is found[0]
    assert illustrations(study, schedules[0], [2, 0])["indices"] == [2, 0]


def test_what_is_kept_is_bounded(illustrations: Illustrations, study: Study) -> None:
    first = illustrations(study, Schedule(), [0])
    second = illustrations(study, Schedule(), [1])
    assert illustrations(study, Schedule(), [0]) is first  # and so it was asked for last
    for index in range(2, KEPT + 1):
        illustrations(study, Schedule(), [index])
    assert illustrations(study, Schedule(), [0]) is first
    assert illustrations(study, Schedule(), [1])["at"] > second["at"]


def test_it_ends_when_nobody_asks_and_starts_again(study: Study) -> None:
    with closing(Illustrations(illustrators.told, idle=0.2)) as made:
        first = made(study, Schedule(), [0])["process"]
        wait_for(lambda: not alive(first))
        assert made.process is None
        assert made(study, Schedule(), [0])["process"] == first  # that is still known
        assert made(study, Schedule(), [1])["process"] != first


def test_it_ends_when_it_is_closed(study: Study) -> None:
    made = Illustrations(illustrators.told)
    made.close()
    process = made(study, Schedule(), [0])["process"]
    made.close()
    wait_for(lambda: not alive(process))


def test_a_process_that_dies_is_told_and_replaced(study: Study) -> None:
    with closing(Illustrations(illustrators.dying)) as made:
        first = made(study, Schedule(), [0])["process"]
        with pytest.raises(VittleError, match="has ended; ask again"):
            made(study, Schedule(), [1])
        assert made(study, Schedule(), [2])["process"] != first


def test_what_goes_wrong_is_one_line(study: Study) -> None:
    with closing(Illustrations(illustrators.refusing)) as made:
        with pytest.raises(VittleError, match="no images at <b>/nowhere</b>; accepted: a folder"):
            made(study, Schedule(), [0])
        with pytest.raises(VittleError, match=r"the pictures cannot be computed \(MemoryError: not enough\)"):
            made(study, Schedule(), [1])
    with pytest.raises(VittleError, match="start it with: vittle dashboard"):
        Illustrations()(study, Schedule(), [0])


@pytest.mark.parametrize("indices", ["", "a", "-1", "0,", "1.5", "0,1,x", ",".join(map(str, range(13))), "9" * 10, "²"])
def test_images_are_numbers_up_to_twelve(study: Study, tmp_path: Path, indices: str) -> None:
    store = open_store(tmp_path)
    Synthetic(store, "one").add(Schedule(), "backbone")
    client = TestClient(create_app(store, illustrators.told), base_url="http://127.0.0.1")
    answer = client.get("/studies/one/trials/0/images.json", params={"indices": indices})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(f"indices is {indices!r}; accepted: 1 to 12 numbers")


def test_images_of_a_trial(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    Synthetic(store, "a/b").add(Schedule(), "backbone")
    app = create_app(store, illustrators.told)
    client = TestClient(app, base_url="http://127.0.0.1")
    with closing(app.state.illustrations):
        url = client.get("/studies.json").json()["studies"][0]["url"]
        answer = client.get(f"{url}/trials/0/images.json", params={"indices": "3, 1,3"}).json()
        assert (answer["study"], answer["indices"], answer["id"]) == ("a/b", [3, 1], Schedule().id)
        assert client.get(f"{url}/trials/0/images.json").json()["indices"] == []
        assert client.get(f"{url}/trials/7/images.json").status_code == 404
        assert client.get("/studies/nope/trials/0/images.json").status_code == 404


def test_every_reduction_has_a_picture_and_its_script(study: Study) -> None:
    for name in {entry.settings.picture for entry in REDUCTIONS.values()}:
        assert f"PICTURES.{name} = " in (HERE.parent / "static" / f"{name}.js").read_text()
    both = Schedule.from_dict({"pruning": {"kept": [40] * 12}, "merging": {"kept": [30] * 12}})
    assert pictures.drawn(both) == pictures.drawn(Schedule()) == (PATCHES,)


def test_neither_the_dashboard_nor_the_command_line_loads_torch_for_it() -> None:
    code = (
        "import pickle, sys; from vittle.cli.options import illustrate; from vittle.dashboards import server;"
        "pickle.dumps(illustrate); sys.exit(str({'torch', 'timm', 'ray'} & set(sys.modules) or ''))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=120, capture_output=True, text=True)
    assert ended.stderr.strip() == ""


def test_scripts_of_pictures_share_no_name_with_other_scripts() -> None:
    """They stand beside each other on pages and in reports, and the second of two names would end the script."""
    folder = HERE.parent / "static"
    names = {
        path.stem: set(re.findall(r"^(?:async )?(?:const|let|class|function) (\w+)", path.read_text(), re.MULTILINE))
        for path in folder.glob("*.js")
    }
    assert {"patchPlaces", "imageCaption"} <= names["images"]
    pictures = {"images", "pictured", *(entry.settings.picture for entry in REDUCTIONS.values())}
    for one in pictures:
        for other in names.keys() - {one}:
            assert not names[one] & names[other], (one, other)
