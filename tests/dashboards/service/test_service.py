"""What a launch becomes, and how a study goes on."""

import json

import pytest
from sqlalchemy import make_url
from typer.main import get_command

import vittle.cli.commands
from recorded import make_study
from refusals import KNOWN
from services import BEARER, client_of, make_service, service, signed_in
from vittle.dashboards.service.catalog import Catalog
from vittle.dashboards.service.jobs import Job, last_lines
from vittle.dashboards.service.service import Launch
from vittle.storage import address
from vittle.storage.claim import claimed

__all__ = ["service"]  # a fixture

LAUNCH = {"name": "mine", "model": "digits", "data": "digits"}
CATALOG = Catalog.model_validate(
    {
        "models": [
            {"name": "digits", "model": "digits"},
            {"name": "Ours", "model": "deit_small_patch16_224", "checkpoint": "/w/a.pth", "image_size": "192x320"},
        ],
        "data": [{"name": "digits", "source": "digits"}, {"name": "Photos", "source": "/data/photos"}],
        "limits": {"trials": 50, "workers": 2, "batch_size": 128, "jobs": 2, "devices": ["cuda", "cpu"]},
    }
)


class TestLaunching:
    def test_names_become_what_the_operator_wrote(self, store) -> None:
        service = make_service(store, CATALOG)
        asked = {"name": "a study", "model": "Ours", "data": "Photos", "latency_budget": "4ms", "trials": 50, "workers": 2,
                 "reductions": ["pruning", "merging"], "time_limit": 90, "image_passes": 1000, "seed": 7}  # fmt: skip
        answer = client_of(service, **BEARER).post("/api/studies", json=asked)
        assert answer.status_code == 202
        assert {**answer.json(), "started": None} == {
            "id": "job-1", "study": "a study", "action": "launch", "state": "running", "started": None,
            "exit_code": None, "url": None,
        }  # fmt: skip
        ((study, action, arguments),) = service.jobs.submitted
        assert (study, action) == ("a study", "launch")
        assert {"--model=deit_small_patch16_224", "--checkpoint=/w/a.pth", "--image-size=192x320", "--data=/data/photos",
                "--latency-budget=4ms",
                "--device=cuda", "--reductions=pruning,merging", "--time-limit=90s", "--study=a study"
                } <= set(arguments)  # fmt: skip

    def test_every_command_is_one_that_the_command_line_takes(self, store) -> None:
        service = make_service(store, CATALOG)
        complete = Launch(
            **LAUNCH, time_limit=1, trial_time_limit=1, image_passes=1, predict=False, until_flat=False, dtype="float16"
        )
        service.launch(complete)
        service.jobs.end()
        study = make_study(store)
        service.resume(study)
        service.jobs.end()
        service.extend(study, 5)
        service.jobs.end()
        service.retime(study)
        commands = get_command(vittle.cli.app).commands
        for _, action, arguments in service.jobs.submitted:
            command = commands[action]
            context = command.make_context(action, list(arguments), resilient_parsing=False)
            assert context.params["study"] in ("mine", "study")

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"latency_budget": "fast"}, "latency budget 'fast' is not a time; accepted: milliseconds such as 4ms"),
            ({"latency_budget": "-3ms"}, "latency budget '-3ms' is not a time"),
            ({"name": "a/b"}, "study name 'a/b' cannot be used; accepted: up to 100 letters"),
            ({"name": "--help"}, "study name '--help' cannot be used"),
            ({"name": "x.json"}, "study name 'x.json' cannot be used"),
            ({"name": ""}, "study name '' cannot be used"),
            ({"name": "a\nb"}, r"study name 'a\nb' cannot be used"),
            ({"name": "a" * 101}, "study name 'aaa"),
            ({"model": "resnet18"}, "no model named 'resnet18' in the catalog; there are: digits, Ours"),
            ({"model": "local-dir:/etc"}, "no model named 'local-dir:/etc' in the catalog"),
            ({"model": "Ours"}, "model 'Ours' needs images of its own; 'digits' are for the model digits"),
            ({"data": "/etc"}, "no data named '/etc' in the catalog; there are: digits, Photos"),
            ({"trials": 51}, "trials: 51 is too many; accepted: up to 50"),
            ({"workers": 3}, "workers: 3 is too many; accepted: up to 2"),
            ({"batch_size": 129}, "batch_size: 129 is too many; accepted: up to 128"),
            ({"trials": 0}, "trials: Input should be greater than or equal to 1"),
            ({"trials": "5"}, "trials: Input should be a valid integer"),
            ({"reductions": ["magic"]}, f"unknown reduction 'magic'; accepted: {KNOWN}"),
            ({"reductions": []}, "reductions: List should have at least 1 item"),
            ({"device": "tpu"}, "device: Input should be 'cpu' or 'cuda'"),
            ({"dtype": "int4"}, "dtype: Input should be 'float32', 'bfloat16' or 'float16'"),
            ({"checkpoint": "/tmp/x.pth"}, "checkpoint: Extra inputs are not permitted"),
            ({"storage": "sqlite:///x.db"}, "storage: Extra inputs are not permitted"),
            ({"adapter": "x.safetensors"}, "adapter: Extra inputs are not permitted"),
        ],
    )  # fmt: skip
    def test_anything_else_is_one_line_and_nothing_is_begun(self, store, change, error) -> None:
        service = make_service(store, CATALOG)
        answer = client_of(service, **BEARER).post("/api/studies", json={**LAUNCH, **change})
        assert answer.status_code == 422
        assert answer.json()["error"].startswith(error)
        assert "\n" not in answer.json()["error"]
        assert service.jobs.submitted == []

    def test_what_is_not_json_is_refused(self, service) -> None:
        program = client_of(service, **BEARER)
        for content in (b"", b"{", b"[]", b"null", b"\xff", b'{"name": NaN}'):
            assert program.post("/api/studies", content=content).status_code in (400, 422)

    def test_a_name_is_taken_once_it_is_a_study_or_a_job(self, service) -> None:
        program = client_of(service, **BEARER)
        taken = program.post("/api/studies", json={**LAUNCH, "name": "study"})
        assert (taken.status_code, taken.json()["error"]) == (409, "study 'study' exists; give another name, or extend it")
        assert program.post("/api/studies", json=LAUNCH).status_code == 202
        again = program.post("/api/studies", json=LAUNCH)
        assert (again.status_code, again.json()["error"][:35]) == (409, "a job of study 'mine' is running al")

    def test_as_many_jobs_run_as_the_operator_lets(self, store) -> None:
        service = make_service(store, CATALOG)
        program = client_of(service, **BEARER)
        codes = [program.post("/api/studies", json={**LAUNCH, "name": name, "device": "cpu"}).status_code for name in "abc"]
        assert codes == [202, 202, 409]
        service.jobs.end()
        assert program.post("/api/studies", json={**LAUNCH, "name": "c"}).status_code == 202

    def test_hostile_names_stay_text(self, store) -> None:
        name = "<script>alert(1)</script>/.."
        make_study(store, name)
        service = make_service(store)
        service.jobs.submit(name, "resume", [])
        service.jobs.written = "\x1b[31m<img src=x onerror=alert(2)>\n"
        browser, _ = signed_in(service)
        for path in ("/", "/launch", "/studies/%3Cscript%3Ealert(1)%3C%2Fscript%3E%2F.."):
            page = browser.get(path)
            assert page.status_code == 200
            assert "<script>alert" not in page.text
        assert browser.get("/api/studies/%3Cscript%3Ealert(1)%3C%2Fscript%3E%2F../activity").json()["job"]["study"] == name


class TestGoingOn:
    def test_a_study_goes_on_by_jobs_and_is_stopped_through_the_database(self, service, store) -> None:
        program = client_of(service, **BEARER)
        assert program.get("/api/studies/study/activity").json()["actions"] == ["resume", "extend", "retime"]
        assert program.post("/api/studies/study/stop").status_code == 409
        with claimed(store, "study"):
            assert program.get("/api/studies/study/activity").json()["actions"] == ["stop"]
            for action in ("resume", "extend", "retime"):
                assert program.post(f"/api/studies/study/{action}", json={}).status_code == 409
            assert program.post("/api/studies/study/stop").json() == {"study": "study"}
            with store.transaction() as session:
                assert store.row(session, "study").stop is not None
        assert program.post("/api/studies/study/extend", json={"trials": 5}).status_code == 202
        assert service.jobs.submitted[-1] == ("study", "extend", ["--trials=5", "--", "study"])
        assert program.get("/api/studies/study/activity").json()["actions"] == ["stop"]  # while it gets ready, too
        assert program.post("/api/studies/study/stop").json() == {"study": "study"}
        assert service.jobs.jobs[0].state == "interrupted"
        service.jobs.end()
        store.set_state("study", "complete", "all done")
        assert program.get("/api/studies/study/activity").json()["actions"] == ["extend", "retime"]
        assert program.post("/api/studies/study/resume").json() == {"error": "study 'study' is complete; extend it"}
        assert program.post("/api/studies/study/extend", json={"trials": 1000}).status_code == 422

    def test_a_study_of_other_weights_images_or_devices_is_left_to_the_command_line(self, store) -> None:
        service = make_service(store, CATALOG)
        program = client_of(service, **BEARER)
        others = {"checkpoint": "/tmp/x.pth", "data": "/etc", "model": "local-dir:/etc", "adapter": "/tmp/x.safetensors"}
        for name, value in others.items():
            make_study(store, name, **{name: value})
            answer = program.post(f"/api/studies/{name}/resume")
            assert answer.status_code == 409
            assert "is not of this catalog's models, data and devices" in answer.json()["error"]
            assert program.get(f"/api/studies/{name}/activity").json()["actions"] == []
        make_study(
            store,
            "known",
            model="deit_small_patch16_224",
            checkpoint="/w/a.pth",
            image_size=(192, 320),
            data="/data/photos",
            device="cuda",
        )
        assert program.post("/api/studies/known/resume").status_code == 202

    def test_what_is_not_there_is_named(self, service) -> None:
        program = client_of(service, **BEARER)
        for path in ("/api/studies/x/stop", "/api/studies/x/resume", "/api/studies/x/retime"):
            answer = program.post(path)
            assert (answer.status_code, answer.json()["error"]) == (404, "no study named 'x'; there are: study")
        assert program.get("/api/jobs/x").json() == {"error": "no job 'x'; they are listed at /api/jobs"}
        assert program.get("/api/nothing").json()["error"].startswith("no page at /api/nothing")

    def test_no_password_leaves_in_a_log(self, store, monkeypatch) -> None:
        service = make_service(store)
        secret = make_url("postgresql://mia:hunter2-of-mine@host/db")
        monkeypatch.setattr(type(store), "hidden", lambda _, text: address.hidden(text, secret))
        service.jobs.submit("x", "launch", [])
        service.jobs.written = "cannot reach postgresql://mia:hunter2-of-mine@host/db\n"
        answer = client_of(service).get("/api/jobs/job-1")
        assert answer.json()["log"] == ["cannot reach postgresql://mia:***@host/db"]


def test_a_log_is_its_last_lines_as_plain_text() -> None:
    assert last_lines("a\n\n10%\r50%\r100%\n\x1b[1mb\x00\tc\n", 2) == [
        "100%",
        "\N{REPLACEMENT CHARACTER}[1mb\N{REPLACEMENT CHARACTER}  c",
    ]


def test_the_description_names_every_refusal_and_needs_the_token_to_change(service) -> None:
    described = client_of(service).get("/api/openapi.json").json()
    for path, methods in described["paths"].items():
        assert path.startswith("/api/")
        for method, one in methods.items():
            assert one["summary"]
            assert {"401", "413", "422", "429"} <= set(one["responses"])
            assert ("security" in one) == (method == "post")
            for status, answer in one["responses"].items():
                if int(status) >= 400:
                    assert json.dumps(answer["content"]).endswith('schemas/Refusal"}}}')
    assert not hasattr(Job, "command")
