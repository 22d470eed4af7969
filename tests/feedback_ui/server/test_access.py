"""Access to routes for visitors without accounts, for other sites, and for those who are not signed in."""

import json
from itertools import product

import httpx2
from small_site import PASSWORD
from waiting import PATIENCE_S

from feedback_ui.shared.scripts import modules

BROWSER = {"accept": "text/html,application/xhtml+xml"}


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
    "/manifest.json", f"/{modules().path('judging.js')}",
    "/sign-in%00", "/sign-in%0a", "/gradio_api/login_check", "/gradio_api/startup-events", "/gradio_api/heartbeat/x", "*",
]  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]


def test_without_a_session_only_the_sign_in_page_is_served(site, ann):
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


def test_a_refused_server_function_returns_a_message(site, ann):
    site.account("Eve", "annotator")
    assert site.call("lead_only", ann).json() == "Ann"
    reply = site.call("lead_only", site.cookie("Eve"))
    assert reply.status_code == 403 and "needs the role lead" in reply.json()["error"]


def test_a_link_from_another_site_reloads_the_page(site, ann):
    """A link from another site sends no strict cookie: a redirect would show the sign-in page to a signed-in user."""
    link = BROWSER | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    reply = site.get("/", **link)
    assert reply.status_code == 200 and 'content="0;url=/"' in reply.text and "component" not in reply.text


def test_only_leads_upload_files_and_only_their_owner_downloads_them(site, ann):
    for name, role in (("Bob", "annotator"), ("Rae", "researcher")):
        site.account(name, role)
    upload = {"files": ("p.jsonl", b"{}")}
    for name, status in (("Ann", 200), ("Bob", 403), ("Rae", 403)):
        reply = httpx2.post(site.url + "/gradio_api/upload", files=upload, headers={"cookie": site.cookie(name)}, timeout=PATIENCE_S)
        assert reply.status_code == status, name
        if name == "Ann":
            uploaded = reply.json()[0]
    for name, status in (("Ann", 200), ("Bob", 403), ("Rae", 403)):
        assert site.get(f"/gradio_api/file={uploaded}", cookie=site.cookie(name)).status_code == status, name
    assert site.get(f"/gradio_api/file={uploaded}").status_code == 401


def test_other_routes_of_gradio_are_not_found(site, ann):
    for path in (
        "/gradio_api/file=http://127.0.0.1:1/x", "/gradio_api/file=//evil.example/x", "/gradio_api/proxy=http://x", "/monitoring",
        "/gradio_api/openapi.json", "/gradio_api/deep_link?session_hash=s", "/docs", "/openapi.json",
    ):  # fmt: skip
        reply = site.get(path, cookie=ann)
        assert reply.status_code in (403, 404), path
