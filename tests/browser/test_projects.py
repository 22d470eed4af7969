"""Several projects at one address: one sign-in, judging in two of them, and a project that somebody may not enter."""

import os
import re
import signal
import subprocess
import sys

import httpx2
import psutil
import pytest
from playwright.sync_api import expect

from feedback_ui.server.auth import Auth
from storage.people import accounts, members
from tests.browser.pages import ComparePage, open_tab
from tests.browser.program import HOST, ROOT, Program, as_if_started_by_hand, eventually, free_port
from tests.browser.test_accessibility import LOOKS, SIZES, violations
from tests.browser.test_processes import gone
from tests.browser.test_sign_in import PASSWORD, sign_in
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

SEEN = "for (const name of ['chat', 'code']) localStorage.setItem(`rankloop.p.${name}.practice`, 'done')"


class Projects:
    """`serve --projects` with the projects `chat` and `code`, each with eight comparisons."""

    def __init__(self, folder, model, options):
        self.folder = folder
        self.projects = {name: Program(folder / name, model) for name in ("chat", "code")}
        # Never started: it is there for what it reads and writes in the folder's store.
        self.shared = Program(folder / "accounts", model).store
        for name, project in self.projects.items():
            for number in range(8):
                project.put_in(f"First of {name} {number}.", f"Second of {name} {number}.")
        for name in ("Ann", "Ben", "Nobody"):
            members.add_account(self.shared, name, PASSWORD)
        for name in self.projects:
            members.add(self.projects[name].store, self.shared, "Ann", ["annotator", "lead"])
        members.add(self.projects["code"].store, self.shared, "Ben", ["annotator"])
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        command = [sys.executable, "launch.py", "serve", "--projects", str(folder), "--model", str(model), "--port", str(port), *options]
        with (folder / "front.log").open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"}, preexec_fn=as_if_started_by_hand,
            )  # fmt: skip
        eventually(self._serves, "both projects are served", within_s=300)

    def _serves(self):
        assert self.process.poll() is None, (self.folder / "front.log").read_text()
        try:
            ann = self.client("Ann")
            return all(ann.get(f"/p/{name}/config").is_success for name in self.projects)
        except httpx2.HTTPError:
            return False

    def client(self, name):
        token = accounts.sign_in(self.shared, name, PASSWORD)
        return httpx2.Client(base_url=self.url, headers={"cookie": f"{self.cookie}={token}"}, timeout=PATIENCE_S)

    @property
    def cookie(self):
        return Auth(self.shared).cookie

    def process_of(self, name):
        return next(
            child
            for child in psutil.Process(self.process.pid).children()
            if "project-server" in child.cmdline() and name in child.cmdline()
        )

    def policy_servers(self):
        every = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in every if "rlhf.generation.server" in child.cmdline()]

    def end(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=PATIENCE_S)
        for project in self.projects.values():
            project.store.close()
        self.shared.close()


@pytest.fixture(scope="module")
def projects(tmp_path_factory, tiny_model, silent):
    made = Projects(tmp_path_factory.mktemp("projects"), tiny_model, silent.options)
    yield made
    children = psutil.Process(made.process.pid).children(recursive=True)
    made.end()
    assert len(children) >= 2 and all(gone(child) for child in children), "a process is left"


def judged(projects, name, person):
    return next(a.annotator.judged for a in accounts.all_accounts(projects.projects[name].store) if a.name == person)


def test_one_sign_in_and_judging_in_two_projects(projects, page):
    page.add_init_script(SEEN)
    page.goto(projects.url)
    sign_in(page, "Ann")
    expect(page).to_have_url(f"{projects.url}/")
    expect(page.get_by_role("listitem")).to_have_text(["chatannotator, lead", "codeannotator, lead"])
    for name in ("chat", "code"):
        page.get_by_role("link", name=name).click()
        expect(page).to_have_url(f"{projects.url}/p/{name}/")
        expect(page).to_have_title(f"{name} · rankloop")
        compare = ComparePage(page, page.url)
        compare.ready()
        assert all(f" of {name} " in answer for answer in compare.answers())
        compare.judge(button="choose-a")
        # What the browser stores has a name of its own in each project.
        assert page.evaluate("localStorage.getItem(`rankloop.p.${location.pathname.split('/')[2]}.keyboard`)") is None
        compare.judge(key="2")
        assert page.evaluate("localStorage.getItem(`rankloop.p.${location.pathname.split('/')[2]}.keyboard`)") == "yes"
        assert compare.count() == judged(projects, name, "Ann") == 2
        # Addresses of what is open, and a permalink, as anywhere else.
        open_tab(page, "Data")
        expect(page).to_have_url(f"{projects.url}/p/{name}/#data")
        page.reload()
        expect(page.locator("#data-overview")).to_be_visible()
        shown = projects.projects[name].store.value("SELECT max(id) FROM comparisons")
        page.evaluate("(id) => { location.hash = `comparison-${id}` }", shown)
        expect(page.locator("#lead-linked [data-comparison]")).to_have_attribute("data-comparison", str(shown))
        page.locator("#visitor").get_by_role("link", name="Projects").click()
        expect(page).to_have_url(f"{projects.url}/")
    eventually(lambda: len(projects.policy_servers()) == 2, "each project that is used has a policy server")


def test_what_a_person_may_not_enter_looks_like_nothing(projects, page):
    page.add_init_script(SEEN)
    page.goto(f"{projects.url}/p/chat/")
    expect(page).to_have_url(f"{projects.url}/sign-in")
    sign_in(page, "Ben")
    expect(page.get_by_role("listitem")).to_have_text(["codeannotator"])
    seen = []
    for name in ("chat", "nothing-there"):
        assert page.goto(f"{projects.url}/p/{name}/").status == 404
        expect(page.get_by_role("alert")).to_have_text("There is no such project, or you may not enter it.")
        seen.append(page.locator("body").inner_html())
    assert seen[0] == seen[1]
    compare = ComparePage(page, f"{projects.url}/p/code/")
    compare.judge(button="choose-b")
    assert judged(projects, "code", "Ben") == 1
    # Only the roles of this project count for the tabs.
    expect(page.locator("#tab-lead-button").first).to_be_hidden()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{projects.url}/sign-in")
    page.goto(f"{projects.url}/p/code/")
    expect(page).to_have_url(f"{projects.url}/sign-in")


def test_a_lead_lets_somebody_in(projects, page):
    page.goto(projects.url)
    sign_in(page, "Ann")
    page.goto(f"{projects.url}/p/chat/#lead/accounts")
    adding = page.locator("#account-add")
    expect(adding).to_be_visible()
    expect(adding.get_by_label("Password")).to_have_count(0)
    adding.get_by_label("Name").fill("Stranger")
    page.locator("#account-create").click()
    expect(page.locator("#accounts-message")).to_contain_text("There is no account named 'Stranger'")
    ben = projects.client("Ben")
    assert ben.get("/p/chat/").status_code == 404
    adding.get_by_label("Name").fill("Ben")
    page.locator("#account-create").click()
    expect(page.locator("#accounts-message")).to_contain_text("Ben may enter this project now.")
    assert ben.get("/p/chat/").status_code == 200
    accounts.disable(projects.projects["chat"].store, accounts.named(projects.projects["chat"].store, "Ben").id)
    assert ben.get("/p/chat/").status_code == 404
    assert ben.get("/p/code/").status_code == 200


def test_the_fault_of_one_project_leaves_the_others(projects):
    ann, killed = projects.client("Ann"), projects.process_of("chat")
    killed.kill()
    eventually(lambda: gone(killed), "it is gone")
    refused = ann.get("/p/chat/", headers={"accept": "text/html"})
    assert ann.get("/p/code/config").status_code == 200
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5") and "is being started" in refused.text
    eventually(lambda: ann.get("/p/chat/config").is_success, "it is started again", within_s=300)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: "-".join(look))
def test_the_list_is_accessible(projects, browser, look):
    size, scheme = look
    # axe adds a style, which the page's own policy refuses.
    options = {"locale": "ko-KR" if size == "phone" else "en-US", "bypass_csp": True}
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, **options)
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    for name, listed in (("Ann", 2), ("Nobody", 0)):
        context.add_cookies([{"name": projects.cookie, "value": accounts.sign_in(projects.shared, name, PASSWORD), "url": projects.url}])
        page.goto(projects.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("프로젝트" if size == "phone" else "Projects")
        expect(page.get_by_role("listitem")).to_have_count(listed)
        expect(page.get_by_text(re.compile("No project yet|아직 프로젝트가 없습니다"))).to_have_count(int(not listed))
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
