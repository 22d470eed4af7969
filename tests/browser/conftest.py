"""Real Chromium before the real program. Left out, with the reason, where either cannot be had."""

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")

from playwright.sync_api import sync_playwright

from tests.browser.program import Endpoint, Program
from tests.support import tiny

CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str | None:
    """The system's Chromium; `CHROMIUM` names another."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")
            if chromium() is None:
                item.add_marker(pytest.mark.skip(reason="no chromium here: apt-get install chromium, or set CHROMIUM"))


@pytest.fixture(scope="module")
def browser():
    """One Chromium a module: Playwright's event loop must not live on beside tests that run one of their own."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny-model")


@pytest.fixture
def new_program(tmp_path, tiny_model):
    """Makes programs over the test's own data folder; they end with it."""
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
def served(tmp_path_factory, tiny_model):
    """A program that several tests share. Its endpoint never answers, so nothing is queued that no test put in."""
    silent = Endpoint()
    program = Program(tmp_path_factory.mktemp("served") / "data", tiny_model, *silent.options)
    program.put_in("First answer.", "Second answer.")
    yield program.start()
    program.end()
    silent.close()


@pytest.fixture
def program(served):
    """The shared program with nothing waiting."""
    served.clear_queue()
    return served
