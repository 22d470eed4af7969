"""Real Chromium as the way in: a site whose name points to this machine, and a page of another origin."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tiny
from policy_server import Server

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")

from playwright.sync_api import sync_playwright

from tests.browser import chromium

pytestmark = [pytest.mark.browser, pytest.mark.skipif(chromium.path() is None, reason="no chromium here")]

ASKED = '{"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}'


class OtherSite(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>other</title><iframe name=there></iframe>")

    def log_message(self, *_):
        pass


@pytest.fixture
def other_site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), OtherSite)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(store, tmp_path, monkeypatch):
    started = Server(store, tiny.write(tmp_path / "tiny"))
    started.spoken = []
    real = started.service.submit
    monkeypatch.setattr(started.service, "submit", lambda *given, **named: started.spoken.append(given) or real(*given, **named))
    yield started
    started.stop()


@pytest.fixture
def page():
    with sync_playwright() as playwright:
        rebound = [*chromium.ARGUMENTS, "--host-resolver-rules=MAP evil.test 127.0.0.1,MAP *.evil.test 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=chromium.path(), args=rebound)
        yield browser.new_page()
        browser.close()


FETCH = """async ([url, options]) => {
    try { const reply = await fetch(url, options); return `${reply.type} ${reply.status} ${await reply.text()}` }
    catch (error) { return `failed: ${error.message}` }
}"""


def test_a_name_that_points_here_reaches_nothing(server, page):
    """DNS rebinding: to the browser the page and the server are one origin, so nothing but the name tells them apart."""
    for path in ("/v1/models", "/status"):
        page.goto(f"http://evil.test:{server.port}{path}")
        assert "answers only on this machine" in page.content() and "owned_by" not in page.content()
    json = {"method": "POST", "body": ASKED, "headers": {"content-type": "application/json"}}
    assert "tiny" not in page.evaluate(FETCH, ["/v1/models", {}]).replace("/tiny", "")
    assert page.evaluate(FETCH, ["/v1/chat/completions", json]).startswith("basic 421")
    assert server.spoken == []
    # The same under its own name, so that the test above can fail.
    page.goto(f"http://localhost:{server.port}/v1/models")
    assert '"tiny"' in page.content()
    assert page.evaluate(FETCH, ["/v1/chat/completions", json]).startswith("basic 200") and len(server.spoken) == 1


@pytest.mark.parametrize("site", ["evil.test", "127.0.0.1", "localhost"])
def test_a_page_of_another_origin_neither_reads_nor_writes(server, page, other_site, site):
    page.goto(f"http://{site}:{other_site}/")
    chat = f"http://127.0.0.1:{server.port}/v1/chat/completions"
    for kind in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
        for mode in ("cors", "no-cors"):
            said = page.evaluate(FETCH, [chat, {"method": "POST", "mode": mode, "body": ASKED, "headers": {"content-type": kind}}])
            assert said.startswith(("failed", "opaque 0"))
    assert page.evaluate(FETCH, [f"http://127.0.0.1:{server.port}/v1/models", {}]).startswith("failed")
    page.evaluate(
        """([url, body]) => {
            const form = document.createElement("form");
            Object.assign(form, {method: "POST", action: url, enctype: "text/plain", target: "there"});
            form.append(Object.assign(document.createElement("input"), {name: body, value: ""}));
            document.body.append(form); form.submit();
        }""",
        [chat, ASKED],
    )
    page.wait_for_timeout(500)
    assert server.spoken == []
