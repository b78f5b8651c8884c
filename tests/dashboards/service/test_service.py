"""The service: who may read, who may change what, and what a launch becomes."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.main import get_command

import vittle.cli.commands
from recorded import make_study
from services import BEARER, HOST, TOKEN, client_of, make_service
from static_checks import ROOT
from vittle import VittleError
from vittle.dashboards import server
from vittle.dashboards.app import create_app
from vittle.dashboards.security import sessions
from vittle.dashboards.security.middleware import MOST_BYTES
from vittle.dashboards.service.catalog import Catalog
from vittle.dashboards.service.jobs import Job, last_lines
from vittle.dashboards.service.service import Launch, Service
from vittle.storage.claim import claimed

LAUNCH = {"name": "mine", "model": "digits", "data": "digits"}
READS = ("/", "/launch", "/launch.json", "/studies.json", "/studies/study", "/api/catalog", "/api/studies",
         "/api/studies/study", "/api/studies/study/activity", "/api/jobs", "/api/jobs/job-1", "/api/openapi.json")  # fmt: skip
CHANGES = ("/api/studies", "/api/studies/study/stop", "/api/studies/study/resume", "/api/studies/study/extend",
           "/api/studies/study/retime", "/sign-out")  # fmt: skip
OPEN = ("/sign-in", "/static/core.js")


@pytest.fixture
def service(store) -> Service:
    made = make_service(store, often=1000)
    make_study(store)
    made.jobs.submit("other", "launch", [])
    return made


@pytest.fixture
def public(store, service) -> Service:
    made = make_service(store, public=True, often=1000)
    made.jobs.submit("other", "launch", [])
    return made


def signed_in(service: Service, **headers: str) -> tuple[TestClient, str]:
    """A browser with a session, and the CSRF token that its pages have."""
    browser = client_of(service, **headers)
    assert browser.post("/sign-in", json={"token": TOKEN}).status_code == 204
    (csrf,) = re.findall(r'data-csrf="(\w+)"', browser.get("/launch").text)
    return browser, csrf


def statuses(client: TestClient, paths: tuple[str, ...], method: str = "GET", **options: object) -> set[int]:
    return {client.request(method, path, **options).status_code for path in paths}


class TestWhoMayDoWhat:
    def test_on_loopback_everybody_reads_and_nobody_changes_without_the_token(self, service) -> None:
        anybody = client_of(service)
        assert statuses(anybody, READS + OPEN) == {200}
        assert statuses(anybody, CHANGES, "POST", json={}) == {401}
        wrong = client_of(service, Authorization="Bearer wrong")
        assert statuses(wrong, CHANGES, "POST", json={}) == {401}
        assert statuses(wrong, READS) == {401}  # who says who they are is checked
        assert service.jobs.submitted == [("other", "launch", [])]

    def test_elsewhere_nobody_reads_without_the_token_either(self, public) -> None:
        anybody = client_of(public)
        assert statuses(anybody, READS) == {401}
        assert statuses(anybody, OPEN) == {200}
        assert statuses(anybody, CHANGES, "POST", json={}) == {401}
        assert anybody.get("/api/jobs").headers["www-authenticate"] == "Bearer"
        for scheme in ("Basic", "bearer wrong", "Bearer", f"Bearer {TOKEN}x", TOKEN):
            assert statuses(client_of(public, Authorization=scheme), READS) == {401}
        assert statuses(client_of(public, **BEARER), READS) == {200}

    def test_who_opens_a_page_elsewhere_is_asked_to_sign_in_and_comes_back_to_it(self, public) -> None:
        answer = client_of(public, Accept="text/html,*/*").get("/studies/study")
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/studies/study")
        page = client_of(public).get("/sign-in", params={"next": "/studies/study"}).text
        assert 'data-next="/studies/study"' in page
        for outside in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a b", "\\", ""):
            assert 'data-next="/"' in client_of(public).get("/sign-in", params={"next": outside}).text

    @pytest.mark.parametrize("where", ["service", "public"])
    def test_a_program_with_the_token_may_do_everything(self, where, request) -> None:
        client = client_of(request.getfixturevalue(where), **BEARER)
        assert statuses(client, READS) == {200}
        assert client.post("/api/studies", json=LAUNCH).status_code == 202

    @pytest.mark.parametrize("where", ["service", "public"])
    def test_a_page_of_whoever_signed_in_may_with_the_sessions_token(self, where, request) -> None:
        browser, csrf = signed_in(request.getfixturevalue(where))
        assert statuses(browser, READS) == {200}
        assert statuses(browser, CHANGES, "POST", json={}) == {403}
        assert statuses(browser, CHANGES, "POST", json={}, headers={"X-CSRF-Token": "0" * 64}) == {403}
        answer = browser.post("/api/studies", json=LAUNCH, headers={"X-CSRF-Token": csrf})
        assert (answer.status_code, answer.json()["study"]) == (202, "mine")
        assert browser.post("/sign-out", headers={"X-CSRF-Token": csrf}).status_code == 204
        assert statuses(browser, CHANGES, "POST", json={}, headers={"X-CSRF-Token": csrf}) == {401}

    def test_what_another_site_sends_is_refused_whoever_is_signed_in(self, service) -> None:
        browser, csrf = signed_in(service)
        for says in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
                     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):  # fmt: skip
            assert statuses(browser, (*CHANGES, "/sign-in"), "POST", json={}, headers={"X-CSRF-Token": csrf, **says}) == {403}
            assert statuses(client_of(service, **BEARER), CHANGES, "POST", json={}, headers=says) == {403}
        ours = {"Origin": HOST, "Sec-Fetch-Site": "same-origin", "X-CSRF-Token": csrf}
        assert browser.post("/api/studies", json=LAUNCH, headers=ours).status_code == 202

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.1/static/", "evil/static/x?"])
    def test_other_names_are_not_answered(self, service, public, host) -> None:
        for one in (service, public):
            assert statuses(client_of(one, **BEARER), READS + OPEN, headers={"Host": host}) == {400}
            assert statuses(client_of(one, **BEARER), CHANGES, "POST", json={}, headers={"Host": host}) == {400}

    def test_the_cookie_is_not_the_token_and_no_script_and_no_other_site_gets_it(self, service) -> None:
        browser = client_of(service)
        answer = browser.post("/sign-in", json={"token": f" {TOKEN}\n"})
        cookie = answer.headers["set-cookie"]
        assert TOKEN not in cookie
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert "Secure" not in cookie  # http on loopback
        secure = TestClient(create_app(service.store, service=service), base_url="https://127.0.0.1")
        assert "Secure" in secure.post("/sign-in", json={"token": TOKEN}).headers["set-cookie"]

    def test_a_session_ends_and_cannot_be_forged_but_outlives_a_restart_with_the_same_token(self, store, monkeypatch) -> None:
        make_study(store)
        mine = make_service(store).access
        cookie = mine.cookie()
        assert mine.session(cookie) == make_service(store).access.session(cookie) is not None
        assert sessions.Access("another-token-of-some-length", public=False).session(cookie) is None
        until, name, signature = cookie.split(".")
        later = int(until) + 1
        for forged in ("", ".", "..", "x.y.z", f"{later}.{name}.{signature}", f"{until}.{name}x.{signature}",
                       f"{until}.{name}.", f"{until}.{name}.{signature[:-1]}é", f"{cookie}0"):  # fmt: skip
            assert mine.session(forged) is None
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + sessions.SESSION_SECONDS + 2)
        assert mine.session(cookie) is None

    def test_the_dashboard_without_a_service_changes_nothing_and_offers_nothing(self, store) -> None:
        make_study(store)
        reader = TestClient(create_app(store), base_url=HOST)
        assert statuses(reader, (*CHANGES, "/sign-in"), "POST", json={}, headers=BEARER) <= {404, 405}
        assert statuses(reader, ("/launch", "/sign-in", "/api/catalog", "/api/openapi.json")) == {404}
        for page in ("/", "/studies/study"):
            assert "/launch" not in reader.get(page).text
            assert "actions.js" not in reader.get(page).text


class TestLimits:
    def test_who_guesses_tokens_has_to_wait(self, store) -> None:
        service = make_service(store)
        browser = client_of(service)
        answers = [browser.post("/sign-in", json={"token": "wrong"}) for _ in range(11)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert browser.post("/sign-in", json={"token": TOKEN}).status_code == 429
        program = client_of(service, **BEARER)
        assert program.post("/api/studies", json=LAUNCH).status_code == 429  # the same client, by the other door

    def test_wrong_bearers_count_and_right_ones_do_not(self, store) -> None:
        service = make_service(store)
        assert [client_of(service, **BEARER).get("/api/jobs").status_code for _ in range(15)] == [200] * 15
        wrong = client_of(service, Authorization="Bearer wrong")
        assert [wrong.get("/api/jobs").status_code for _ in range(11)] == [401] * 10 + [429]

    def test_changes_are_limited_and_reading_is_not(self, store) -> None:
        make_study(store)
        program = client_of(make_service(store, often=3), **BEARER)
        answers = [program.post("/api/studies/study/stop") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [409] * 3 + [429]
        assert re.fullmatch(r"too many; again in \d+ s", answers[-1].json()["error"])
        assert {program.get("/api/jobs").status_code for _ in range(10)} == {200}

    def test_large_requests_are_refused_announced_or_not(self, service) -> None:
        def pieces(size: int) -> Iterator[bytes]:
            yield from (b"x" * 1024 for _ in range(size // 1024))
            yield b"x" * (size % 1024)

        program = client_of(service, **BEARER)
        for path in ("/api/studies", "/sign-in", "/nothing", "/"):
            for content in (b"x" * (MOST_BYTES + 1), pieces(MOST_BYTES + 1)):
                answer = program.post(path, content=content)
                assert (answer.status_code, answer.json()) == (413, {"error": "a request may have 65536 bytes"})
            assert program.post(path, content=pieces(MOST_BYTES)).status_code != 413
        reader = TestClient(create_app(service.store), base_url=HOST)
        assert reader.post("/", content=b"x" * (MOST_BYTES + 1)).status_code == 413


CATALOG = Catalog.model_validate(
    {
        "models": [
            {"name": "digits", "model": "digits"},
            {"name": "Ours", "model": "deit_small_patch16_224", "checkpoint": "/w/a.pth"},
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
        assert {"--model=deit_small_patch16_224", "--checkpoint=/w/a.pth", "--data=/data/photos", "--latency-budget=4ms",
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
            ({"reductions": ["magic"]}, "unknown reduction 'magic'; accepted: pruning, merging"),
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
        told = program.post("/api/studies/study/stop").json()["error"]
        assert told == "study 'study' is being made ready and cannot be stopped yet; again in some seconds"
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
        make_study(store, "known", model="deit_small_patch16_224", checkpoint="/w/a.pth", data="/data/photos", device="cuda")
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
        monkeypatch.setattr(type(store), "password", "hunter2-of-mine")
        service.jobs.submit("x", "launch", [])
        service.jobs.written = "cannot reach postgresql://mia:hunter2-of-mine@host/db\n"
        answer = client_of(service).get("/api/jobs/job-1")
        assert answer.json()["log"] == ["cannot reach postgresql://mia:***@host/db"]


class TestCatalog:
    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("models: [{name: a, model: digits, pickle: x}]", "models.0.pickle: Extra inputs are not permitted"),
            ("extra: 1", "extra: Extra inputs are not permitted"),
            ("models: []", "models: Tuple should have at least 1 item"),
            ("models: [{name: a, model: x}, {name: a, model: y}]", "two entries have the same name"),
            ("limits: {trials: 0}", "limits.trials: Input should be greater than or equal to 1"),
            ("limits: {devices: [tpu]}", "limits.devices.0: Input should be 'cpu' or 'cuda'"),
            ("[1]", "Input should be a valid dictionary"),
            ("a: [", "is not YAML"),
        ],
    )
    def test_a_mistake_in_the_file_is_one_line(self, tmp_path: Path, text: str, error: str) -> None:
        path = tmp_path / "serve.yaml"
        path.write_text(text)
        with pytest.raises(VittleError, match=re.escape(error)) as refused:
            Catalog.load(path)
        assert "\n" not in str(refused.value)

    def test_without_a_file_there_are_the_embedded_digits(self, tmp_path: Path) -> None:
        assert Catalog.load(None) == Catalog()
        assert [one.name for one in Catalog().models] == [one.name for one in Catalog().data] == ["digits"]
        with pytest.raises(VittleError, match="cannot read nowhere.yaml"):
            Catalog.load(Path("nowhere.yaml"))

    def test_the_documented_file_is_one(self, tmp_path: Path) -> None:
        (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "service.md").read_text(encoding="utf-8"), re.DOTALL)
        (tmp_path / "serve.yaml").write_text(example)
        assert Catalog.load(tmp_path / "serve.yaml").limits.devices == ("cuda",)

    def test_paths_are_known_as_a_study_keeps_them(self, tmp_path: Path, monkeypatch, store) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "w.pth").touch()
        (tmp_path / "photos").mkdir()
        given = {"models": [{"name": "a", "model": "m", "checkpoint": "w.pth"}], "data": [{"name": "b", "source": "photos"}]}
        study = make_study(store, model="m", checkpoint=str(tmp_path / "w.pth"), data=str(tmp_path / "photos"))
        assert Catalog.model_validate(given).holds(study.settings)


def test_a_server_answers_to_the_names_that_it_listens_at() -> None:
    assert [server.is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.0.1", "node7")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert "node7" in server.names("node7")
    assert "[fe80::1]" in server.names("fe80::1")
    everywhere = server.names("0.0.0.0")
    assert "127.0.0.1" in everywhere
    assert not {"0.0.0.0", "*"} & set(everywhere)


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
