"""Who may read, who may change what, and how often."""

import re
import time
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from recorded import make_study
from services import BEARER, HOST, TOKEN, client_of, make_service, service, signed_in
from vittle.dashboards import server
from vittle.dashboards.app import create_app
from vittle.dashboards.security import sessions
from vittle.dashboards.security.middleware import MOST_BYTES
from vittle.dashboards.service.service import Service
from vittle.spaces.errors import VittleError

__all__ = ["service"]  # a fixture

LAUNCH = {"name": "mine", "model": "digits", "data": "digits"}
READS = ("/", "/launch", "/launch.json", "/studies.json", "/studies/study", "/api/catalog", "/api/studies",
         "/api/studies/study", "/api/studies/study/activity", "/api/jobs", "/api/jobs/job-1", "/api/openapi.json")  # fmt: skip
CHANGES = ("/api/studies", "/api/studies/study/stop", "/api/studies/study/resume", "/api/studies/study/extend",
           "/api/studies/study/retime", "/api/jobs/job-1/stop", "/sign-out")  # fmt: skip
OPEN = ("/sign-in", "/static/core.js")


@pytest.fixture
def public(store, service) -> Service:
    made = make_service(store, public=True, often=1000)
    made.jobs.submit("other", "launch", [])
    return made


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
        wrong = client_of(service, Authorization="Bearer wrong")
        assert wrong.get("/api/jobs").status_code == 429  # the same client, by the other door

    def test_a_right_token_is_never_locked_out_by_wrong_ones(self, store) -> None:
        service = make_service(store)
        browser, wrong = client_of(service), client_of(service, Authorization="Bearer wrong")
        for _ in range(15):
            wrong.get("/api/jobs")
            browser.post("/sign-in", json={"token": "wrong"})
        assert (wrong.get("/api/jobs").status_code, browser.post("/sign-in", json={"token": "wrong"}).status_code) == (429, 429)
        program = client_of(service, **BEARER)
        assert program.get("/api/jobs").status_code == 200
        assert program.post("/api/studies", json=LAUNCH).status_code == 202
        assert [browser.post("/sign-in", json={"token": TOKEN}).status_code for _ in range(15)] == [204] * 15
        assert browser.get("/launch").status_code == 200

    def test_who_asks_is_told_by_trusted_proxies_alone(self, store) -> None:
        def guess(asked_from: str, forwarded: str, *proxies: str, times: int = 11) -> list[int]:
            given = server.Server(create_app(store, service=service), server.networks(proxies))
            given.config.load()
            headers = {"X-Forwarded-For": forwarded, "Authorization": "Bearer wrong"}
            guessing = TestClient(given.config.loaded_app, base_url=HOST, headers=headers, client=(asked_from, 5000))
            return [guessing.get("/api/jobs").status_code for _ in range(times)]

        waits = [401] * 10 + [429]
        for proxies, proxy in ((["10.0.0.2"], "10.0.0.2"), (["fd00::/8", "10.0.0.0/24"], "::ffff:10.0.0.9"), (["::1"], "::1")):
            service = make_service(store)
            assert guess(proxy, "1.1.1.1", *proxies) == waits
            assert guess(proxy, "2.2.2.2", *proxies, times=1) == [401]  # another client of the same proxy
            assert guess(proxy, "6.6.6.6, 1.1.1.1", *proxies, times=1) == [429]  # a client that has made up another one
        for stranger in ("127.0.0.1", "::1", "10.0.1.2"):
            for proxies in ([], ["10.0.0.2"]):
                service = make_service(store)
                assert [guess(stranger, f"1.1.1.{last}", *proxies, times=1)[0] for last in range(11)] == waits

    def test_the_scheme_is_told_by_trusted_proxies_alone(self, store) -> None:
        for proxies, secure in ((["127.0.0.1"], True), ([], False)):
            given = server.Server(create_app(store, service=make_service(store)), server.networks(proxies))
            given.config.load()
            headers = {"X-Forwarded-Proto": "https"}
            browser = TestClient(given.config.loaded_app, base_url=HOST, headers=headers, client=("127.0.0.1", 5000))
            assert ("; Secure" in browser.post("/sign-in", json={"token": TOKEN}).headers["set-cookie"]) == secure

    @pytest.mark.parametrize("proxy", ["*", "", "proxy.example.org", "10.0.0.1/24", "10.0.0.0/33", "300.1.1.1"])
    def test_a_proxy_is_an_address(self, proxy: str) -> None:
        with pytest.raises(VittleError, match="is no address; accepted: 10.0.0.2, ::1, or a network such as 10.0.0.0/24"):
            server.networks([proxy])

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


def test_a_server_answers_to_the_names_that_it_listens_at() -> None:
    assert [server.is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.0.1", "node7")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert "node7" in server.names("node7")
    assert "[fe80::1]" in server.names("fe80::1")
    everywhere = server.names("0.0.0.0")
    assert "127.0.0.1" in everywhere
    assert not {"0.0.0.0", "*"} & set(everywhere)
