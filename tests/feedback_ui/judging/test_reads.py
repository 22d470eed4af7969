"""How often an act on the Compare or History page reads the store: each row once."""

import re
from collections import Counter
from contextlib import contextmanager

import pytest

from feedback_ui.judging.history import HistoryService
from feedback_ui.shared.i18n import Translator
from storage.core.records import ProjectSettings
from storage.people import annotators
from storage.project import guidelines, settings

EN = Translator("en")

WITH_ALL = ProjectSettings(overlap=2, gold_share=0.3, repeat_share=0.3, rationale="required", rationale_min_chars=2, ideal_answers=True)

NEXT, RELOAD, SAVE, UNDO, CORRECT = 12, 8, 17, 18, 17
"""SELECT statements of each act, with gold comparisons and repeats. More of them need a reason.

One of them counts today's judgments. An undo reads the undone judgment's order and, with four, its details, which the form shows again.
"""

ROWS_OF_A_CORRECTION = {
    "judgments": 2, "aspect_ratings": 2, "ideal_answers": 2, "flags": 2, "comparisons": 1, "prompts": 1, "presentations": 1, "leases": 1,
}  # fmt: skip
"""Two of the earlier judgment and the new one, one of what both share."""

ONE_ROW_OF = {"settings", "guidelines", "presentations", "annotators", "prompts", "leases", "judgments"}
"""Tables of which an act needs one row, or the newest."""


@contextmanager
def reads(store):
    """The SELECT statements, with their values, that run in the block; those of triggers are left out."""
    queries = []
    store.connection.conn.set_trace_callback(lambda sql: queries.append(" ".join(sql.split())))
    try:
        yield queries
    finally:
        store.connection.conn.set_trace_callback(None)
        queries[:] = [sql for sql in queries if sql.startswith(("SELECT", "WITH"))]


def rows_of(statements):
    """How many statements read the rows of each table by what they select from."""
    return Counter(re.search(r"\bFROM (\w+)", sql)[1] for sql in statements if sql.startswith("SELECT *") or 'SELECT "values"' in sql)


def assert_read_once(statements):
    assert {sql: n for sql, n in Counter(statements).items() if n > 1} == {}
    assert {table: n for table, n in rows_of(statements).items() if table in ONE_ROW_OF and n > 1} == {}


@pytest.fixture
def project(store, service, local, waiting):
    settings.change(store, WITH_ALL, None)
    guidelines.publish(store, "Be kind.", None)
    # The key of the tokens is read once in the life of a program.
    service.tokens.seal("presentation", 1, local.id)
    return store


def act(view, choice, **more):
    return {"presentation_id": view["presentation_id"], "choice": choice, "rationale": "shorter", "flags": [{"kind": "unsafe"}]} | more


def test_next_comparison(project, service, local):
    with reads(project) as found:
        view = service.next_for(local, EN, {})
    assert view["state"] == "comparison"
    assert_read_once(found)
    assert len(found) == NEXT
    with reads(project) as found:
        assert service.next_for(local, EN, {})["presentation_id"] == view["presentation_id"]
    assert_read_once(found)
    assert len(found) == RELOAD


@pytest.mark.parametrize("choice", [{"choice": "a"}, {"choice": "skip", "reason": "unsure"}], ids=["rank", "skip"])
def test_a_judgment_and_what_comes_next(project, service, local, choice):
    view = service.next_for(local, EN, {})
    with reads(project) as found:
        reply = service.judge(local, EN, act(view, **choice))
    assert reply["next"]["state"] == "comparison"
    assert reply["next"]["count"] != view["count"], "the number of judgments is the one after this"
    assert_read_once(found)
    assert len(found) == SAVE


def test_an_undo_and_what_comes_back(project, service, local):
    service.judge(local, EN, act(service.next_for(local, EN, {}), "a"))
    with reads(project) as found:
        assert service.undo(local, EN, {})["next"]["state"] == "comparison"
    assert rows_of(found)["settings"] == rows_of(found)["guidelines"] == 1
    assert len(found) == UNDO


def test_a_correction(project, service, local):
    service.judge(local, EN, act(service.next_for(local, EN, {}), "a"))
    past = HistoryService(project)
    (row,) = past.rows(local, EN, {})["rows"]
    with reads(project) as found:
        reply = past.correct(local, EN, act({"presentation_id": ""}, "b", judgment_id=row["id"]))
    assert reply["replaces"] == row["id"]
    # The earlier judgment and the new one.
    assert {sql: n for sql, n in Counter(found).items() if n > 1} == {}
    assert rows_of(found) == ROWS_OF_A_CORRECTION
    assert annotators.get(project, local.id).judged == 1
    assert len(found) == CORRECT
