"""Several projects at one address, walked across: who has no role in a project learns nothing about it, and opens nothing of it.

The front and the projects' apps are the real ones, each behind its own socket, in one process. `Ann` leads `alpha` and `beta`, `Ben`
judges in `beta`, `Rea` is a researcher in `beta`, and `Nobody` has an account and no project. The walks ask for `alpha`.
"""

import asyncio
import http.client
import json
import re

import argon2
import httpx2
import pytest
from starlette.requests import Request
from waiting import PATIENCE_S, until

from feedback_ui.app import build_app
from feedback_ui.projects.front import PROJECT_ROUTES, Front
from feedback_ui.projects.project_web import ProjectWeb
from feedback_ui.projects.running import RunningProjects
from feedback_ui.server.auth import Auth, SharedAccounts
from feedback_ui.server.serving import Serving
from rlhf.config import RoundConfig
from rlhf.serving.client import PolicyClient
from storage.content import prompts
from storage.core.database import Database
from storage.core.projects_folder import ProjectsFolder
from storage.people import accounts, members

PASSWORD = "correct horse"
PEOPLE = ("Ann", "Ben", "Rea", "Nobody")
STRANGERS = ("Ben", "Rea", "Nobody")

EXAMPLES = (
    ("GET", "/"), ("HEAD", "/"), ("GET", "/config"), ("GET", "/theme.css"), ("GET", "/assets/x"), ("GET", "/static/x"),
    ("GET", "/modules/a/b.js"), ("GET", "/gradio_api/info"), ("GET", "/gradio_api/startup-events"), ("GET", "/gradio_api/heartbeat/s"),
    ("GET", "/gradio_api/queue/data?session_hash=s"), ("GET", "/gradio_api/file=x"), ("GET", "/runs/r1/adapter.zip"),
    ("GET", "/runs/r1/metrics.csv"), ("GET", "/download/a/b"), ("GET", "/favicon.ico"), ("GET", "/manifest.json"), ("GET", "/robots.txt"),
    ("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/run/predict"), ("POST", "/gradio_api/component_server"),
    ("POST", "/gradio_api/cancel"), ("POST", "/gradio_api/reset"), ("POST", "/gradio_api/upload"),
    ("GET", "/nothing"), ("GET", "/sign-in"), ("POST", "/sign-in"), ("GET", "/password"), ("POST", "/sign-out"), ("GET", ""), ("PUT", "/"),
)  # fmt: skip
"""A request for each route of a project, and some that are none."""


class InThisProcess:
    """Serves a project here, where `serve --projects` starts a process."""

    def __init__(self, folder, shared, name, path):
        self.store = Database(folder.project(name).database)
        self._shared = SharedAccounts(name, Database(shared.path))
        self._path = path

    def start(self):
        # In a loop that runs: Gradio opens one and never closes it where there is none.
        async def made():
            auth = Auth(self.store, self._shared)
            pages = build_app(self.store, None, PolicyClient("http://127.0.0.1:9/v1"), auth, default_config=RoundConfig())
            return ProjectWeb(pages, auth, self._shared)

        self.web = asyncio.run(made())
        self._serving = Serving(self.web, "", 0, socket_path=self._path)

    def stop(self):
        self._serving.stop()
        self.store.close()
        self._shared.store.close()


class Site:
    def __init__(self, root, sockets):
        self.folder = ProjectsFolder(root)
        self.shared = Database(self.folder.accounts.database)
        for name in PEOPLE:
            members.add_account(self.shared, name, PASSWORD)
        for name, people in {"alpha": ["Ann"], "beta": ["Ann", "Ben", "Rea"]}.items():
            store = Database(self.folder.project(name).database)
            prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": f"Only in {name}?"},), split="train")], source="test")
            for person in people:
                roles = {"Ann": ["lead", "annotator"], "Ben": ["annotator"], "Rea": ["researcher"]}[person]
                members.add(store, self.shared, person, roles)
            store.close()
        self.running = {}
        self.projects = RunningProjects(self.folder, self.shared, sockets, self._process)
        self.projects.look()
        self.serving = Serving(Front(self.shared, self.projects), "127.0.0.1", 0)
        self.url = self.serving.url
        self.cookie_name = Auth(self.shared).cookie
        self.clients = {"nobody": httpx2.Client(base_url=self.url, timeout=PATIENCE_S)}
        for name in PEOPLE:
            cookie = f"{self.cookie_name}={accounts.sign_in(self.shared, name, PASSWORD)}"
            self.clients[name] = httpx2.Client(base_url=self.url, headers={"cookie": cookie}, timeout=PATIENCE_S)

    def _process(self, name, path):
        self.running[name] = InThisProcess(self.folder, self.shared, name, path)
        return self.running[name]

    def store(self, name):
        return self.running[name].store

    def ask(self, who, method, path, **options):
        """The response to a request whose path is sent as it is; of a stream only its beginning."""
        url = httpx2.URL(self.url, raw_path=path.encode())
        content = b"{}" if method == "POST" else None
        with self.clients[who].stream(method, url, **{"content": content} | options) as reply:
            if reply.headers.get("content-type", "").startswith("text/event-stream"):
                return reply
            reply.read()
            return reply

    def raw(self, who, method, path, **headers):
        """Sends a request whose path and headers nothing has normalised."""
        connection = http.client.HTTPConnection("127.0.0.1", self.serving.port, timeout=PATIENCE_S)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in {"cookie": self.clients[who].headers["cookie"], **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        reply = connection.getresponse()
        connection.close()
        return reply

    def predict(self, who, project, handler, data):
        pages = self.running[project].web.pages
        number = next(n for n, event in pages.fns.items() if event.fn and event.fn.__qualname__.endswith(handler))
        sent = {"fn_index": number, "data": data, "session_hash": "session"}
        return self.clients[who].post(f"/p/{project}/gradio_api/run/predict", json=sent)

    def end(self):
        for client in self.clients.values():
            client.close()
        self.serving.stop()
        self.projects.stop()
        self.shared.close()
        assert not self.serving.alive


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        patched.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        made = Site(tmp_path_factory.mktemp("all"), tmp_path_factory.mktemp("s"))
        yield made
        made.end()


def told(reply, name):
    """All that a response says, with the name that was asked for taken out."""
    headers = {key: value for key, value in reply.headers.items() if key != "date"}
    body = b"" if reply.headers.get("content-type", "").startswith("text/event-stream") else reply.content
    return reply.status_code, {key: value.replace(name, "NAME") for key, value in headers.items()}, body.replace(name.encode(), b"NAME")


def test_each_route_of_a_project_has_an_example():
    for route in PROJECT_ROUTES:
        paths = [path.partition("?")[0] for method, path in EXAMPLES if method == route.method]
        assert any(re.fullmatch(route.path, path) for path in paths), route


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize("who", ["nobody", *STRANGERS])
def test_a_project_that_one_may_not_enter_is_like_one_that_does_not_exist(site, who, accept):
    for method, path in EXAMPLES:
        asked = {name: site.ask(who, method, f"/p/{name}{path}", headers={"accept": accept}) for name in ("alpha", "nopes")}
        there, not_there = (told(reply, name) for name, reply in asked.items())
        assert there == not_there, (method, path)
        # Somebody who has not signed in is led to the sign-in page.
        expected = {303, 401} if who == "nobody" else {404}
        assert there[0] in expected, (method, path)
        assert b"alpha" not in there[2]


def test_who_has_a_role_enters_and_the_role_is_the_one_of_this_project(site):
    page = site.clients["Ann"].get("/p/alpha/", headers={"accept": "text/html"})
    assert page.status_code == 200 and '"root":"' + site.url + '/p/alpha"' in page.text.replace(" ", "")
    cookies = page.headers.get_list("set-cookie")
    assert len(cookies) == 1 and f"{site.cookie_name}-roles-alpha=annotator.lead;" in cookies[0] and "Path=/p/alpha/;" in cookies[0]
    statuses = {who: [site.ask(who, "GET", f"/p/{name}/gradio_api/file=x").status_code for name in ("alpha", "beta")] for who in PEOPLE}
    # 403 is what a lead gets for a file that is none, too: `Rea` may read there, `Ben` may not.
    assert statuses == {"Ann": [403, 403], "Ben": [404, 403], "Rea": [404, 403], "Nobody": [404, 404]}
    assert [site.ask(who, "GET", "/p/beta/runs/r/metrics.csv").status_code for who in ("Ann", "Ben", "Rea")] == [403, 403, 404]
    lists = {who: re.findall(r'href="(/p/[^"]+)"', site.clients[who].get("/").text) for who in PEOPLE}
    assert lists == {"Ann": ["/p/alpha/", "/p/beta/"], "Ben": ["/p/beta/"], "Rea": ["/p/beta/"], "Nobody": []}


def test_handlers_check_the_role_in_their_own_project(site):
    assert site.predict("Ann", "beta", "AccountsSection.open", []).status_code == 200
    assert site.predict("Ben", "beta", "AccountsSection.open", []).status_code == 403
    assert site.predict("Ben", "alpha", "AccountsSection.open", []).status_code == 404
    # A password is not a matter of one project.
    number = accounts.named(site.store("beta"), "Ben").id
    refused = site.predict("Ann", "beta", "AccountsSection.set_password", [number, "another horse"])
    assert "A password is the same for all projects" in refused.text


def test_the_session_is_read_in_the_project_itself(site):
    """Whoever could get past the front, to the socket, would still have to bring the session of a member."""
    transport = httpx2.HTTPTransport(uds=str(site.projects._sockets / "alpha.sock"))
    with httpx2.Client(transport=transport, base_url="http://project") as client:
        for who, status in (("Ann", 200), ("Ben", 401), ("Nobody", 401)):
            cookie = site.clients[who].headers["cookie"]
            assert client.get("/config", headers={"cookie": cookie}).status_code == status, who
        assert client.get("/config").status_code == 401
        forged = {"x-forwarded-user": "Ann", "x-remote-user": "Ann", "remote-user": "Ann", "authorization": "Basic QW5uOg=="}
        assert client.get("/config", headers=forged).status_code == 401


def test_no_session_and_no_cookie_of_a_project_opens_anything(site):
    # A session that a project's own store would know, as if its password had been set there.
    store = site.store("beta")
    account = accounts.named(store, "Ben")
    accounts.set_password(store, account.id, PASSWORD)
    token = accounts.sign_in(store, "Ben", PASSWORD)
    own = Auth(store).cookie
    for cookie in (f"{own}={token}", f"{site.cookie_name}={token}", f"{site.cookie_name}-roles-alpha=lead", f"{own}-roles-alpha=lead"):
        for path in ("/", "/p/beta/config", "/p/alpha/config"):
            assert httpx2.get(site.url + path, headers={"cookie": cookie}, timeout=PATIENCE_S).status_code == 401, (cookie, path)
    # The roles in a cookie are for the page's scripts alone.
    forged = site.clients["Ben"].headers["cookie"] + f"; {site.cookie_name}-roles-beta=lead"
    assert site.ask("Ben", "GET", "/p/beta/download/a/b", headers={"cookie": forged}).status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/p/beta/../alpha/config", "/p/beta/%2e%2e/alpha/config", "/p/beta/..%2falpha%2fconfig", "/p/beta%2f..%2falpha/config",
     "/p//alpha/config", "//p/alpha/config", "/p/./alpha/config", "/p/beta//config", "/p/BETA/config", "/p/beta%00/config",
     "/p/beta/config%00", "/p/beta/config/", "/p/beta/gradio_api/../config", "/p/beta\\config", "/p/accounts/config", "/p/%2e%2e/config",
     "/p/beta;/config", "/p/beta/./config", "/p/be%74a/../alpha/", "/alpha/config", "/config", "/gradio_api/info", "/modules/a/b", "/p/",
     "/p"],
)  # fmt: skip
def test_no_spelling_of_a_path_leads_elsewhere(site, path):
    assert site.raw("Ben", "GET", path).status == 404


def test_a_name_may_be_spelled_with_escapes_and_is_the_same_project(site):
    assert site.ask("Ben", "GET", "/p/%62eta/config").status_code == 200
    assert site.ask("Ben", "GET", "/p/%61lpha/config").status_code == 404


def test_other_sites_are_refused_before_anything_else(site):
    for name in ("beta", "alpha", "nopes"):
        for path in ("/", "/sign-out", f"/p/{name}/gradio_api/run/predict"):
            for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
                assert site.ask("Ben", "POST", path, headers=headers).status_code == 403
    linked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html"}
    # The link has no cookie. As with one project, the first page is loaded, which gets it.
    replies = [site.ask("nobody", "GET", f"/p/{name}/", headers=linked) for name in ("beta", "nopes")]
    assert [reply.status_code for reply in replies] == [200, 200] and replies[0].text == replies[1].text
    assert 'content="0;url=/"' in replies[0].text


def test_sign_out_ends_the_session_everywhere_and_its_streams(site):
    token = accounts.sign_in(site.shared, "Ann", PASSWORD)
    client = httpx2.Client(base_url=site.url, headers={"cookie": f"{site.cookie_name}={token}"}, timeout=PATIENCE_S)
    with client.stream("GET", "/p/beta/gradio_api/heartbeat/s") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "data: ALIVE"
        out = httpx2.post(f"{site.url}/sign-out", headers={"cookie": client.headers["cookie"]}, timeout=PATIENCE_S)
        assert (out.status_code, out.headers["location"]) == (303, "/sign-in")
        assert [client.get(path).status_code for path in ("/", "/p/alpha/config", "/p/beta/config")] == [401] * 3
        # The project looks every few seconds whether the session is still there.
        assert set(lines) <= {"", "data: ALIVE"}
    client.close()


def test_roles_change_with_the_next_request(site):
    store = site.store("alpha")
    assert site.ask("Nobody", "GET", "/p/alpha/config").status_code == 404
    account = members.add(store, site.shared, "Nobody", ["annotator"])
    assert site.ask("Nobody", "GET", "/p/alpha/config").status_code == 200
    assert site.ask("Nobody", "POST", "/p/alpha/gradio_api/upload").status_code == 403
    accounts.disable(store, account.id)
    assert site.ask("Nobody", "GET", "/p/alpha/config").status_code == 404
    assert 'href="/p/' not in site.clients["Nobody"].get("/").text


def test_an_account_that_is_disabled_enters_nothing(site):
    token = accounts.sign_in(site.shared, "Rea", PASSWORD)
    headers = {"cookie": f"{site.cookie_name}={token}"}
    assert httpx2.get(f"{site.url}/p/beta/config", headers=headers, timeout=PATIENCE_S).status_code == 200
    rea = accounts.named(site.shared, "Rea")
    accounts.disable(site.shared, rea.id)
    try:
        assert httpx2.get(f"{site.url}/p/beta/config", headers=headers, timeout=PATIENCE_S).status_code == 401
    finally:
        accounts.enable(site.shared, rea.id)
        site.clients["Rea"].headers["cookie"] = f"{site.cookie_name}={accounts.sign_in(site.shared, 'Rea', PASSWORD)}"


def test_uploads_pass_through_are_bounded_and_stay_in_their_project(site):
    ann = site.clients["Ann"]
    file = json.dumps({"prompt": "x"}).encode() * 20_000
    sent = ann.post("/p/alpha/gradio_api/upload", files={"files": ("p.jsonl", file)})
    assert sent.status_code == 200
    (name,) = sent.json()
    assert ann.get(f"/p/alpha/gradio_api/file={name}").content == file
    assert ann.get(f"/p/beta/gradio_api/file={name}").status_code == 403
    assert site.raw("Ann", "POST", "/p/alpha/gradio_api/upload", content_length=str(2**40)).status == 413
    assert site.ask("Ben", "POST", "/p/beta/gradio_api/upload").status_code == 403


def test_each_project_has_its_own_rows(site):
    pages = {name: site.clients["Ann"].get(f"/p/{name}/config").text for name in ("alpha", "beta")}
    assert all(len(page) > 10_000 for page in pages.values())
    found = {name: site.predict("Ann", name, "PromptBrowserSection.open", []) for name in ("alpha", "beta")}
    for name, other in (("alpha", "beta"), ("beta", "alpha")):
        assert f"Only in {name}?" in found[name].text and f"Only in {other}?" not in found[name].text


def test_a_project_knows_whether_it_is_used(site):
    web = site.running["beta"].web
    before = web.idle_s
    with site.clients["Ben"].stream("GET", "/p/beta/gradio_api/heartbeat/s") as stream:
        lines = stream.iter_lines()
        next(lines)
        assert web.idle_s == 0
    until(lambda: web.idle_s > 0)
    assert before is None or before >= 0
    # What the front refuses does not reach it: an account without a role there, and a route that needs another role.
    last = web._last_request
    assert site.ask("Nobody", "GET", "/p/beta/config").status_code == 404
    assert site.ask("Ben", "GET", "/p/beta/download/a/b").status_code == 403
    assert web._last_request == last


def test_projects_come_and_go_with_their_folders(site):
    store = Database(site.folder.project("gamma").database)
    members.add(store, site.shared, "Ann", ["lead"])
    store.close()
    (site.folder.root / "broken").mkdir()
    (site.folder.root / "broken" / "rankloop.db").write_bytes(b"no database" * 1000)
    assert site.ask("Ann", "GET", "/p/gamma/config").status_code == 404
    site.projects.look()
    assert site.ask("Ann", "GET", "/p/gamma/config").status_code == 200
    # One that cannot be opened leaves the others, and is not told.
    assert site.ask("Ann", "GET", "/p/broken/config").status_code == 404
    site.folder.project("gamma").root.rename(site.folder.root / "Gone")
    site.projects.look()
    assert site.ask("Ann", "GET", "/p/gamma/config").status_code == 404
    assert site.ask("Ann", "GET", "/p/alpha/config").status_code == 200


def test_a_store_that_cannot_be_read_lets_nobody_in(site, monkeypatch):
    store = site.projects._running["alpha"].store

    def unreadable(*_):
        from storage.core.database import StoreError

        raise StoreError("the disk is gone")

    monkeypatch.setattr(store, "row", unreadable)
    assert site.ask("Ann", "GET", "/p/alpha/config").status_code == 404
    assert re.findall(r'href="(/p/[^"]+)"', site.clients["Ann"].get("/").text) == ["/p/beta/"]


def test_the_front_has_no_local_visitor(tmp_path):
    """A project without any account of its own lets nobody in, from this machine neither."""
    store, shared = Database(tmp_path / "p" / "rankloop.db"), Database(tmp_path / "accounts" / "rankloop.db")
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1)}
    assert Auth(store).visitor(Request(scope)).roles
    assert Auth(store, SharedAccounts("p", shared)).visitor(Request(scope)) is None
    store.close()
    shared.close()
