"""A damaged file is found after it is opened, without a wait."""

from threading import Event

import pytest
from damaged import damage
from waiting import PATIENCE_S

from feedback_ui.shared.i18n import Translator
from feedback_ui.visitor import store_warnings
from storage.core import integrity
from storage.core.database import Database
from tests.storage.conftest import make_world


@pytest.fixture
def damaged(store):
    world = make_world(store)
    world.comparisons(5)
    world.rank(world.ann)
    store.close()
    damage(store.path, "prompts", "judgments")
    again = Database(store.path)
    yield again
    again.close()


def test_damage_is_found_at_the_start(damaged, caplog):
    assert integrity.start_quick_check(damaged, wait_s=60) and damaged.damage
    assert "is damaged" in caplog.text and "restore a backup (rankloop restore)" in caplog.text


def test_an_intact_store_reports_nothing(store, caplog):
    assert integrity.start_quick_check(store, wait_s=60) == "" and caplog.text == ""
    assert store_warnings(Translator("en"), store) == ""


def test_nobody_waits_long_for_it(store, monkeypatch):
    goes_on, ended = Event(), Event()

    def check(store):
        goes_on.wait(PATIENCE_S)
        ended.set()

    monkeypatch.setattr("storage.core.integrity._check", check)
    assert integrity.start_quick_check(store, wait_s=0.05) == "" and not ended.is_set()
    goes_on.set()
    assert ended.wait(PATIENCE_S)
