"""The line about the visitor, where the store's files are gone."""

import threading

import gradio as gr
import pytest
from called_pages import ENGLISH

from feedback_ui.server.auth import Auth
from feedback_ui.visitor import visitor_line
from storage.core.database import Database, StoreError
from storage.people import accounts


def test_a_thread_that_has_read_nothing_yet_says_that_the_files_are_gone(tmp_path):
    store = Database(tmp_path / "rankloop.db")
    accounts.local(store)
    with gr.Blocks() as app:
        visitor_line(app, Auth(store))
    (show,) = [fn.fn for fn in app.fns.values()]
    said = []
    (tmp_path / "rankloop.db-wal").unlink()
    thread = threading.Thread(target=lambda: said.append(show(ENGLISH)))
    thread.start()
    thread.join()
    assert len(said) == 1 and 'data-testid="trouble"' in said[0] and "nothing is saved any more" in said[0]


def test_another_error_is_not_hidden(tmp_path, monkeypatch):
    store = Database(tmp_path / "rankloop.db")
    with gr.Blocks() as app:
        visitor_line(app, Auth(store))
    (show,) = [fn.fn for fn in app.fns.values()]

    def locked(*_):
        raise StoreError("locked")

    monkeypatch.setattr(Auth, "reads", locked)
    with pytest.raises(StoreError, match="locked"):
        show(ENGLISH)
