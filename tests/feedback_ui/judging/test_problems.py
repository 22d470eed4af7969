"""Errors as an annotator reads them: without ids, with the answers' names of the page."""

import logging

import pytest

from feedback_ui.judging.problems import problem, slot_name
from feedback_ui.shared.i18n import Translator
from storage.core.database import StoreError, StoreLocked

EN = Translator("en")


def test_two_answers_have_letters_and_more_have_numbers():
    assert [slot_name(slot, 2) for slot in (0, 1)] == ["A", "B"]
    assert [slot_name(slot, 3) for slot in (0, 1, 2)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreLocked("database is locked: /srv/data/rankloop.db"), "locked by another write"),
        (StoreError("disk I/O error at presentation 4711"), "the store failed"),
    ],
)
def test_a_failure_of_the_store_gets_a_message_and_is_logged_in_full(caplog, error, expected):
    with caplog.at_level(logging.WARNING):
        message = problem(EN, error)
    assert expected in message and "4711" not in message and "/srv" not in message
    assert str(error) in caplog.text
