"""The web app over HTTP, with small pages: requests of browsers, of programs and of attackers."""

import asyncio
import http.client
import json
import re
import threading
import time
from contextlib import contextmanager
from itertools import product

import argon2
import gradio as gr
import httpx2
import pytest

from feedback_ui.server import access
from feedback_ui.server.auth import Auth
from feedback_ui.server.serving import Serving, bound
from feedback_ui.server.web import Web
from storage.core.database import Database
from storage.people import accounts

PASSWORD = "correct horse"
BROWSER = {"accept": "text/html,application/xhtml+xml"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def pages(gate: Auth) -> gr.Blocks:
    """One event that goes round the queue, one that streams through it, one server function."""

    def say(request: gr.Request) -> str:
        return gate.reads(request, "annotator").annotator.name

    def count(request: gr.Request):
        gate.reads(request, "annotator")
        for number in range(10_000):
            yield str(number)
            time.sleep(0.05)

    def lead_only(_: dict, request: gr.Request) -> str:
        return gate.acts(request, "lead").annotator.name

    with gr.Blocks(analytics_enabled=False) as made:
        text = gr.Textbox()
        gr.Button().click(say, outputs=text, queue=False, api_visibility="private")
        gr.Button().click(count, outputs=text, api_visibility="private")
        gr.HTML("", server_functions=[lead_only], elem_id="component")
    return made


class Site:
    """A served app with methods for its visitors' actions."""

    def __init__(self, serving: Serving, gate: Auth):
        self.serving, self.auth, self.store, self.url = serving, gate, gate.store, serving.url

    def get(self, path="/", **headers):
        return httpx2.get(self.url + path, headers=headers)

    def post(self, path, body=None, **headers):
        return httpx2.post(self.url + path, json=body or {}, headers=headers)

    def form(self, path="/sign-in", cookie="", **fields):
        return httpx2.post(self.url + path, data=fields, headers={"cookie": cookie})

    def account(self, name="Ann", *roles):
        return accounts.create(self.store, name, PASSWORD, roles or ["lead", "annotator"])

    def cookie(self, name="Ann") -> str:
        return f"{self.auth.cookie}={accounts.sign_in(self.store, name, PASSWORD)}"

    def say(self, cookie=""):
        return self.post("/gradio_api/run/predict", {"fn_index": 0, "data": [], "session_hash": "s"}, cookie=cookie)

    def call(self, function, cookie=""):
        component = next(c["id"] for c in self.get("/config", cookie=cookie).json()["components"] if c["props"].get("elem_id"))
        asked = {"data": {}, "component_id": component, "fn_name": function, "session_hash": "s"}
        return self.post("/gradio_api/component_server", asked, cookie=cookie)

    def raw(self, method: str, path: str, **headers) -> http.client.HTTPResponse:
        """Sends a request without normalising its path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.serving.port, timeout=10)
        connection.putrequest(method, path, skip_host="host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        return connection.getresponse()

    @contextmanager
    def streaming(self, path, cookie=""):
        """Reads a stream in the background into the returned list, with None at its end."""
        heard = []

        def listen():
            with httpx2.stream("GET", self.url + path, headers={"cookie": cookie}, timeout=30) as reply:
                heard.append(reply.status_code)
                for line in reply.iter_lines():
                    heard.append(line)
            heard.append(None)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        until(lambda: len(heard) > 1)
        yield heard
        thread.join(10)


def until(condition, within_s=10.0):
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def serve(store) -> Site:
    # Inside a running event loop: without one, Gradio opens one and never closes it.
    async def made() -> tuple[Web, Auth]:
        gate = Auth(store)
        return Web(pages(gate), gate), gate

    web, gate = asyncio.run(made())
    return Site(Serving(web, "127.0.0.1", 0), gate)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The app is served once; each test replaces its store."""
    store = Database(tmp_path_factory.mktemp("none") / "rankloop.db")
    site = serve(store)
    yield site
    site.serving.stop()
    assert not site.serving.alive
    store.close()


@pytest.fixture
def site(shared, store):
    shared.auth.store = shared.store = store
    return shared


@pytest.fixture
def ann(site):
    """A site with accounts, where Ann is signed in."""
    site.account()
    return site.cookie()


# ---- before the first account


def test_without_accounts_the_pages_are_open_on_this_machine(site):
    assert site.get(**BROWSER).status_code == 200
    assert site.say().json()["data"] == ["local"]
    assert site.get("/sign-in").headers["location"] == "/"
    assert site.form(name="Ann", password=PASSWORD).headers["location"] == "/"


def test_without_accounts_a_name_that_points_here_is_refused(site):
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.168.1.5", "", "localhost.evil.example"):
        for method, path in (("GET", "/"), ("POST", "/gradio_api/run/predict"), ("GET", "/sign-in")):
            reply = site.raw(method, path, host=host)
            assert reply.status in (400, 421), host
    assert "answers on this machine only" in json.loads(site.raw("GET", "/config", host="evil.example").read())["error"]


def test_this_machines_own_names_are_fine(site):
    for host in ("localhost", "localhost:9000", "127.0.0.1:1", "[::1]:7860", "rankloop.localhost"):
        assert site.raw("GET", "/config", host=host).status == 200, host


def test_without_accounts_a_proxy_does_not_open_the_app_to_others(site):
    assert site.get(**{"x-forwarded-for": "203.0.113.7"}).status_code == 421


def test_other_sites_cannot_act_through_the_browser(site):
    navigation = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"} | navigation,
    ):
        for path in ("/gradio_api/run/predict", "/gradio_api/component_server", "/gradio_api/queue/join", "/sign-in", "/sign-out"):
            reply = site.post(path, {"fn_index": 0, "data": [], "session_hash": "s"}, **headers)
            assert reply.status_code == 403 and "another site" in reply.json()["error"], (headers, path)


def test_other_sites_cannot_read_or_frame_the_app_but_may_link_to_it(site):
    elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}
    assert site.get("/config", **elsewhere).status_code == 403
    assert site.get("/", **elsewhere | {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}).status_code == 403
    assert site.get("/", **elsewhere | {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}).status_code == 200
    own = site.url.replace("http://", "")
    assert site.get("/config", origin=f"http://{own}").status_code == 200
    reply = site.get("/config", origin="http://localhost:3000")
    assert reply.status_code == 403 and "access-control-allow-origin" not in reply.headers


def test_every_answer_has_the_security_headers(site):
    for reply in (site.get(), site.get("/nowhere"), site.get(host="evil.example"), site.get("/sign-in"), site.say()):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert "server" not in reply.headers
    assert site.get().headers["cache-control"] == "no-store"


# ---- with accounts


def test_nobody_is_led_to_the_sign_in_page(site, ann):
    reply = site.get(**BROWSER)
    assert (reply.status_code, reply.headers["location"]) == (303, "/sign-in")
    page = site.get("/sign-in", **BROWSER)
    assert page.status_code == 200 and "<h2>Sign in</h2>" in page.text and "https://" not in page.text
    assert "로그인" in site.get("/sign-in", **{"accept-language": "ko"}).text
    assert site.get("/config").status_code == 401
    assert site.say().json()["error"].startswith("You are not signed in")


PATHS = [
    "/", "//", "/config", "//config", "/./config", "/sign-in/../config", "/sign-in/", "/sign-in//", "/sign-in/config", "/sign-in;/config",
    "/sign-in%2f..%2fconfig", "/SIGN-IN", "/gradio_api/info", "//gradio_api/info", "/gradio_api//info", "/gradio_api/../config",
    "/gradio_api/file=/etc/passwd", "/assets/../config", "/assets/%2e%2e/config", "/static/x", "/theme.css", "/favicon.ico", "/%2fconfig",
    "/sign-in?/config", "/config?/sign-in", "/config#/sign-in", "/login", "/logout", "/gradio_api/token", "/gradio_api/user",
    "/manifest.json",
    "/sign-in%00", "/sign-in%0a", "/gradio_api/login_check", "/gradio_api/startup-events", "/gradio_api/heartbeat/x", "*",
]  # fmt: skip


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]


def test_nobody_reaches_anything_but_the_sign_in_page_by_whatever_path(site, ann):
    for method, path in product(METHODS, PATHS):
        reply = site.raw(method, path, content_length="0")
        body = reply.read()
        if path == "/sign-in?/config" and method in ("GET", "HEAD", "POST"):
            assert reply.status in (200, 401)
        else:
            assert reply.status in (400, 401), (method, path)
        assert b"components" not in body and b"root:" not in body


def test_the_host_header_of_the_request_line_changes_nothing(site, ann):
    assert site.raw("GET", f"{site.url}/config", host="127.0.0.1").status == 401
    assert site.raw("GET", "http://127.0.0.1/sign-in/../config", host="127.0.0.1").status == 401


def test_websockets_are_refused(site, ann):
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_version": "13", "sec_websocket_key": "eA=="}
    for cookie, path in product(("", ann), ("/", "/sign-in", "/gradio_api/queue/data?session_hash=s")):
        assert site.raw("GET", path, cookie=cookie, **upgrade).status != 101


def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_do_not_get(site):
    site.account()
    reply = site.form(name="Ann", password=PASSWORD)
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    attributes = [part.strip().lower() for part in reply.headers.get_list("set-cookie")[0].split(";")[1:]]
    assert {"httponly", "samesite=strict", "path=/", "max-age=604800"} == set(attributes)
    cookie = reply.headers.get_list("set-cookie")[0].split(";")[0]
    assert site.say(cookie).json()["data"] == ["Ann"]
    assert site.get("/sign-in", cookie=cookie).headers["location"] == "/"


def test_the_page_may_know_which_tabs_are_its_own_and_nothing_believes_it(site, ann):
    site.account("Bob", "annotator")
    reply = site.form(name="Bob", password=PASSWORD).headers.get_list("set-cookie")
    session, (name, said) = reply[0].split(";")[0], reply[1].split(";")[0].split("=")
    assert said == "annotator" and name in site.get("/", cookie=session).text
    raised = f"{session}; {name}=annotator.lead.researcher"
    assert site.get("/gradio_api/file=/etc/hostname", cookie=raised).status_code == 403


def test_the_cookie_is_secure_behind_https(site):
    site.account()
    fields = f"name=Ann&password={PASSWORD}".replace(" ", "+")
    reply = httpx2.post(site.url + "/sign-in", content=fields, headers=FORM | {"x-forwarded-proto": "https"})
    assert "; Secure" in reply.headers["set-cookie"]


def test_a_wrong_password_says_so_and_repeats_the_name_made_safe(site, ann):
    reply = site.form(name='<img src=x onerror="alert(1)">', password="x")
    assert reply.status_code == 401 and "do not fit" in reply.text and "set-cookie" not in reply.headers
    assert "<img" not in reply.text and "&lt;img src=x onerror=&#34;alert(1)&#34;&gt;" in reply.text
    assert 'role="alert"' in reply.text


def test_too_many_wrong_passwords_say_how_long_to_wait(site, ann):
    replies = [site.form(name="Ann", password="x") for _ in range(4)]
    assert [reply.status_code for reply in replies] == [401, 401, 401, 429]
    refused = site.form(name="Ann", password=PASSWORD)
    assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 2
    assert re.search(r"Try again in \d seconds?", refused.text)


def test_what_is_no_sign_in_form_is_refused(site, ann):
    assert site.form(name="x" * 20_000, password="x").status_code == 413
    assert httpx2.post(site.url + "/sign-in", content=b"\xff\xfe=%zz&&&=;", headers=FORM).status_code == 401
    assert httpx2.post(site.url + "/sign-in", json={"name": "Ann", "password": PASSWORD}).status_code == 401


def test_signing_out_ends_the_session_for_a_stolen_cookie_too(site, ann):
    assert site.say(ann).status_code == 200
    reply = site.form("/sign-out", cookie=ann)
    assert (reply.status_code, reply.headers["location"]) == (303, "/sign-in")
    assert f'{site.auth.cookie}=""' in reply.headers["set-cookie"] and "Max-Age=0" in reply.headers["set-cookie"]
    assert site.say(ann).status_code == 401
    assert site.get("/sign-out", cookie=ann).status_code == 401


def test_a_session_that_somebody_else_laid_is_not_taken_over(site):
    site.account()
    site.account("Eve", "annotator")
    laid = site.cookie("Eve")
    reply = site.form(cookie=laid, name="Ann", password=PASSWORD)
    got = reply.headers.get_list("set-cookie")[0].split(";")[0]
    assert got != laid
    assert site.say(got).json()["data"] == ["Ann"]
    assert site.say(laid).status_code == 401
    made_up = f"{site.auth.cookie}=chosen-by-an-attacker"
    assert site.form(cookie=made_up, name="Ann", password=PASSWORD).status_code == 303
    assert site.say(made_up).status_code == 401


@pytest.mark.parametrize("act", ["disable", "roles", "password"])
def test_the_next_request_knows_that_an_account_was_changed(site, ann, act):
    eve = site.account("Eve", "annotator")
    cookie = site.cookie("Eve")
    assert site.say(cookie).status_code == 200
    if act == "disable":
        accounts.disable(site.store, eve.id)
    elif act == "roles":
        accounts.set_roles(site.store, eve.id, ["researcher"])
    else:
        accounts.set_password(site.store, eve.id, "another one")
    assert site.say(cookie).status_code == 401


def test_the_first_account_ends_the_local_visit(site):
    assert site.say().status_code == 200
    site.account()
    assert site.say().status_code == 401
    assert site.get(**BROWSER).headers["location"] == "/sign-in"


def test_a_server_function_is_refused_in_words(site, ann):
    site.account("Eve", "annotator")
    assert site.call("lead_only", ann).json() == "Ann"
    reply = site.call("lead_only", site.cookie("Eve"))
    assert reply.status_code == 403 and "needs the role lead" in reply.json()["error"]


def test_a_link_from_another_site_asks_again_as_itself(site, ann):
    """A link from another site sends no strict cookie: a redirect would show the sign-in page to a signed-in user."""
    link = BROWSER | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    reply = site.get("/", **link)
    assert reply.status_code == 200 and 'content="0;url=/"' in reply.text and "component" not in reply.text


def test_files_come_in_from_leads_only_and_go_out_to_who_brought_them(site, ann):
    for name, role in (("Bob", "annotator"), ("Rae", "researcher")):
        site.account(name, role)
    upload = {"files": ("p.jsonl", b"{}")}
    for name, status in (("Ann", 200), ("Bob", 403), ("Rae", 403)):
        reply = httpx2.post(site.url + "/gradio_api/upload", files=upload, headers={"cookie": site.cookie(name)})
        assert reply.status_code == status, name
        if name == "Ann":
            uploaded = reply.json()[0]
    for name, status in (("Ann", 200), ("Bob", 403), ("Rae", 403)):
        assert site.get(f"/gradio_api/file={uploaded}", cookie=site.cookie(name)).status_code == status, name
    assert site.get(f"/gradio_api/file={uploaded}").status_code == 401


def test_what_no_page_needs_does_not_exist(site, ann):
    for path in (
        "/gradio_api/file=http://127.0.0.1:1/x", "/gradio_api/file=//evil.example/x", "/gradio_api/proxy=http://x", "/monitoring",
        "/gradio_api/openapi.json", "/gradio_api/deep_link?session_hash=s", "/docs", "/openapi.json",
    ):  # fmt: skip
        reply = site.get(path, cookie=ann)
        assert reply.status_code in (403, 404), path


# ---- sessions and streams


@pytest.fixture
def quick_recheck(monkeypatch):
    monkeypatch.setattr(access, "RECHECK_S", 0.1)


@pytest.mark.parametrize("way", ["sign out", "expire"])
def test_a_stream_ends_with_its_session(site, ann, quick_recheck, way):
    with site.streaming("/gradio_api/heartbeat/s", ann) as heard:
        assert heard[0] == 200
        time.sleep(0.5)
        assert None not in heard
        if way == "sign out":
            accounts.sign_out(site.store, ann.split("=")[1])
        else:
            with site.store.atomic() as connection:
                connection.conn.execute("UPDATE sessions SET expires_at = '2020-01-01'")
        until(lambda: None in heard, within_s=3)


def test_a_generator_that_streams_is_cut_off_with_its_session(site, ann, quick_recheck):
    joined = site.post("/gradio_api/queue/join", {"fn_index": 1, "data": [], "session_hash": "g"}, cookie=ann)
    assert joined.status_code == 200
    with site.streaming("/gradio_api/queue/data?session_hash=g", ann) as heard:
        until(lambda: len(heard) > 20)
        accounts.disable(site.store, site.account("Bob", "lead").id)
        assert None not in heard
        accounts.sign_out(site.store, ann.split("=")[1])
        until(lambda: None in heard, within_s=3)
    assert site.get("/gradio_api/queue/data?session_hash=g").status_code == 401


def test_a_session_in_use_is_renewed_by_any_request(site, ann):
    soon = time.strftime("%Y-%m-%dT%H:%M:%S.000+00:00", time.gmtime(time.time() + 3600))
    with site.store.atomic() as connection:
        connection.conn.execute("UPDATE sessions SET expires_at = ?", [soon])
    site.say(ann)
    assert site.store.value("SELECT expires_at FROM sessions") > soon


def test_the_server_stops_at_once_with_streams_open(store, caplog):
    site = serve(store)
    site.account()
    ann = site.cookie()
    with site.streaming("/gradio_api/heartbeat/s", ann) as heard:
        site.post("/gradio_api/queue/join", {"fn_index": 1, "data": [], "session_hash": "g"}, cookie=ann)
        with site.streaming("/gradio_api/queue/data?session_hash=g", ann) as more:
            begun = time.monotonic()
            site.serving.stop()
            assert time.monotonic() - begun < 2.5
            until(lambda: None in heard and None in more)
    assert not site.serving.alive
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_a_store_that_cannot_be_read_is_said(site):
    with site.store.atomic() as connection:
        connection.conn.execute("PRAGMA legacy_alter_table=ON")
        connection.conn.execute("ALTER TABLE accounts RENAME TO elsewhere")
    reply = site.get("/config")
    assert reply.status_code == 503 and "cannot be read" in reply.json()["error"]


def test_a_taken_port_is_an_error_that_says_so(site):
    with pytest.raises(OSError, match="Address already in use"):
        bound("127.0.0.1", site.serving.port)
