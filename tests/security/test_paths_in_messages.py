"""Error messages in a browser name no folder of the server; the log does."""

import ast
import json
import logging
import re
import sqlite3
from pathlib import Path

import gradio as gr
import httpx2
import pytest
from served_app import PASSWORD, served
from waiting import PATIENCE_S

import feedback_ui
from storage.core import database
from storage.core.records import ACCOUNT_ROLES
from storage.people import accounts


def raw_errors(source: Path):
    """Where the text of an exception is made without `browser_message`: `str(error)`, `f"{error}"`, `error.args`."""
    for handler in (node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.ExceptHandler) and node.name):
        for node in ast.walk(handler):
            inner = None
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("str", "repr"):
                inner = node.args[0]
            elif isinstance(node, ast.FormattedValue) or (isinstance(node, ast.Attribute) and node.attr == "args"):
                inner = node.value
            if isinstance(inner, ast.Name) and inner.id == handler.name:
                yield f"{source.name}:{node.lineno}"


def test_every_page_formats_errors_by_the_shared_function():
    sources = list(Path(feedback_ui.__file__).parent.rglob("*.py"))
    found = [place for source in sources for place in raw_errors(source)]
    # Of what the browser itself has sent.
    assert [place for place in found if not place.startswith("acts.py")] == []
    assert len(sources) > 30


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """The app over a store into which something else writes without end; its wait for that is short."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(database, "BUSY_TIMEOUT_MS", 20)
        folder = tmp_path_factory.mktemp("a folder with spaces") / "inner data"
        with served(folder) as site:
            site.add_accounts()
            accounts.create(site.store, "everybody", PASSWORD, ACCOUNT_ROLES)
            cookie = site.cookie("everybody")
            site.clients["everybody"] = httpx2.Client(base_url=site.url, headers={"cookie": cookie}, timeout=60)
            other = sqlite3.connect(site.store.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            yield site
            other.execute("ROLLBACK")
            other.close()


def start_value(block):
    value = getattr(block, "value", None)
    if isinstance(block, gr.State) or callable(value):
        return None
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return None


def answers(site):
    """Everything that may be asked of the app by somebody with every role."""
    client = site.clients["everybody"]
    for number, event in site.pages.fns.items():
        if event.fn is not None and not event.queue:
            data = [start_value(block) for block in event.inputs]
            filled = ["something" if isinstance(block, gr.Textbox) else value for block, value in zip(event.inputs, data, strict=True)]
            for values in (data, filled):
                body = {"fn_index": number, "data": values, "session_hash": "paths", "event_data": {"act": "cancel", "row": 1}}
                yield client.post("/gradio_api/run/predict", json=body)
    for number, block in site.pages.blocks.items():
        for name, function in vars(block).items():
            if getattr(function, "_is_server_fn", False) is True:
                asked = {"data": {"presentation_id": 1, "judgment_id": 1}, "component_id": number, "fn_name": name, "session_hash": "paths"}
                yield client.post("/gradio_api/component_server", json=asked)
    yield httpx2.post(site.url + "/sign-in", data={"name": "lead", "password": PASSWORD}, timeout=PATIENCE_S)
    uploaded = site.upload("lead", b'{"prompt": "Why?"}\n')
    yield uploaded
    found = {"path": uploaded.json()[0], "meta": {"_type": "gradio.FileData"}}
    yield site.predict("lead", "import_file", [found, "recognised", "", "", False])
    yield site.predict("lead", "import_file", [found, "recognised", "", "", False])
    for path in ("/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd", "/gradio_api/startup-events", "/assets/x", "/static/../x"):
        yield client.get(path)


@pytest.mark.slow
def test_no_answer_of_a_store_that_fails_names_its_folder(locked, caplog):
    caplog.set_level(logging.WARNING)
    named, failed = [], 0
    for reply in answers(locked):
        text = reply.text.encode().decode("unicode_escape", "replace") + reply.text
        failed += "rankloop.db: database is locked" in text
        if str(locked.folder) in text or "inner data" in text or re.search(r"/tmp/|/root/|site-packages", text):
            named.append((reply.request.url.path, reply.request.content[:100], text[:300]))
    assert not named, named
    assert failed > 10, "the store has hardly failed: this looked at nothing"
    assert str(locked.folder) in caplog.text
