"""Real Chromium and the real program. The tests are skipped, with the reason, where either is missing."""

from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")

from playwright.sync_api import expect

from storage.people import accounts
from tests.browser import chromium
from tests.browser.program import Endpoint, Program
from tests.support import tiny
from tests.support.waiting import PATIENCE_S

expect.set_options(timeout=1000 * PATIENCE_S)


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")
            if chromium.path() is None:
                item.add_marker(pytest.mark.skip(reason="no chromium here: apt-get install chromium, or set CHROMIUM"))


@pytest.fixture(scope="module")
def browser():
    """One Chromium for each module: Playwright's event loop must end before tests that run one of their own."""
    with chromium.opened() as opened:
        yield opened


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(1000 * PATIENCE_S)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny-model")


@pytest.fixture
def new_program(tmp_path, tiny_model):
    """Makes programs over the test's own data folder; they end with the test."""
    made = []

    def make(*options: str) -> Program:
        made.append(Program(tmp_path / "data", tiny_model, *options))
        return made[-1]

    yield make
    for program in made:
        program.end()


@pytest.fixture
def endpoint():
    made = Endpoint()
    yield made
    made.close()


@pytest.fixture(scope="session")
def silent():
    """An endpoint that never answers, and the proxy for outgoing requests of the shared program."""
    made = Endpoint()
    yield made
    made.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory, tiny_model, silent):
    """A program that several tests share. Its queue holds only what a test put in."""
    program = Program(tmp_path_factory.mktemp("served") / "data", tiny_model, *silent.options, environment=silent.as_proxy)
    program.put_in("First answer.", "Second answer.")
    yield program.start()
    program.end()


@pytest.fixture
def program(served):
    """The shared program with nothing waiting."""
    served.clear_queue()
    return served


@pytest.fixture(scope="session")
def served_with_accounts(tmp_path_factory, tiny_model, silent):
    """As `served`, with accounts on. Accounts cannot be deleted: each test makes its own, under names of its own."""
    program = Program(tmp_path_factory.mktemp("accounts") / "data", tiny_model, *silent.options, environment=silent.as_proxy)
    program.start()
    accounts.create(program.store, "The first lead", "correct horse", ["lead"])
    yield program
    program.end()


@pytest.fixture
def guarded(served_with_accounts):
    """The shared program with accounts on, the default settings, and five comparisons waiting."""
    served_with_accounts.clear_queue()
    served_with_accounts.ask_for()
    for i in range(5):
        served_with_accounts.put_in(f"First {i}.", f"Second {i}.")
    return served_with_accounts


@pytest.fixture
def project(program):
    """Changes the settings of the shared program's project, and restores them after the test."""
    yield program.ask_for
    program.ask_for()
