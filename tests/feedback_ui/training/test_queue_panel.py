"""The handlers of the queue on the Training page, called as Gradio calls them."""

from types import SimpleNamespace

import pytest
from called_pages import ENGLISH, filled_in

from storage.project import queued_rounds


@pytest.fixture
def panel(training):
    return training.queue


def ask(store, trigger="hand"):
    return queued_rounds.add(store, {"method": "ppo"}, trigger=trigger).id


def click(row, act="take-out"):
    return SimpleNamespace(_data={"act": act, "row": row})


def test_the_queue_is_shown_when_the_page_opens_and_is_sent_again_only_when_it_changed(panel, store):
    first = ask(store)
    shown = panel.open(ENGLISH)
    assert f'data-row="{first}"' in shown[panel.list]
    state = shown[panel.shown_state]
    assert panel.list not in panel.follow(state, ENGLISH)
    ask(store)
    assert panel.follow(state, ENGLISH)[panel.list].count("<li") == 2


def test_a_round_is_taken_out_by_its_button(panel, store, local):
    first, second = ask(store), ask(store)
    shown = panel.take_out(click(first), ENGLISH)
    assert [one.id for one in queued_rounds.waiting(store)] == [second]
    assert shown[panel.list].count("<li") == 1 and shown[panel.message] == ""
    assert store.value("SELECT ended_by_id FROM queued_rounds WHERE id = ?", [first]) == local.id


@pytest.mark.parametrize("row, why", [(9, "There is no queued round 9"), (None, "no such row")])
def test_a_click_on_what_is_gone_says_so(panel, store, row, why):
    ask(store)
    shown = panel.take_out(click(row), ENGLISH)
    assert why in shown[panel.message] and shown[panel.list].count("<li") == 1


def test_a_round_that_is_started_while_another_trains_is_shown_in_the_queue(training, jobs, store, monkeypatch):
    monkeypatch.setattr(jobs, "start", lambda config, by=None: queued_rounds.get(store, ask(store)))
    shown = training.start_round(filled_in(training), ENGLISH)
    assert "waits for its turn" in shown[training.refusal] and "<li" in shown[training.queue.list]
    assert training.progress not in shown, "the run on the page stays"
