"""Guessing a password is slowed down, and other people's sign-ins are not. Clocks are set by moving the rows."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from storage.people import accounts
from storage.people.accounts import SignInRefused

PASSWORD = "correct horse"


def ago(**time):
    return (datetime.now(UTC) - timedelta(**time)).isoformat(timespec="milliseconds")


def refused(store, name, password):
    with pytest.raises(SignInRefused) as caught:
        accounts.sign_in(store, name, password)
    return caught.value


@pytest.mark.parametrize("name", ["Ann", "Nobody"])
def test_repeated_failures_slow_down(store, ann, name):
    assert [refused(store, name, "wrong one").wait_s for _ in range(4)] == [0, 0, 0, 2]
    assert refused(store, name, PASSWORD).wait_s == 2
    waits = []
    for _ in range(9):
        # As if the wait were over.
        with store.atomic() as connection:
            connection.conn.execute("UPDATE sign_in_failures SET created_at = ? WHERE created_at > ?", [ago(minutes=6), ago(minutes=6)])
        waits.append(refused(store, name, "wrong one").wait_s)
    assert waits == [4, 8, 16, 32, 64, 128, 256, 300, 300]
    # Asking during the wait neither counts nor prolongs it.
    assert 295 < refused(store, name.upper(), "wrong one").wait_s <= 300
    assert store.value("SELECT count(*) FROM sign_in_failures") == 13


def test_the_right_password_begins_anew(store, ann):
    for _ in range(3):
        refused(store, "Ann", "wrong one")
    accounts.sign_in(store, "Ann", PASSWORD)
    assert [refused(store, "Ann", "wrong one").wait_s for _ in range(4)] == [0, 0, 0, 2]


def test_failures_are_forgotten_after_an_hour_and_with_a_new_password(store, ann):
    for _ in range(4):
        refused(store, "Ann", "wrong one")
    accounts.set_password(store, ann.id, "another one")
    accounts.sign_in(store, "Ann", "another one")
    for _ in range(4):
        refused(store, "Ann", "wrong one")
    with store.atomic() as connection:
        connection.conn.execute("UPDATE sign_in_failures SET created_at = ?", [ago(minutes=61)])
    accounts.sign_in(store, "Ann", "another one")
    assert store.value("SELECT count(*) FROM sign_in_failures") == 0


def test_guessing_side_by_side_is_no_faster(store, ann):
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: refused(store, "Ann", "wrong one"), range(40)))
    assert store.value("SELECT count(*) FROM sign_in_failures") == 4
    assert sum("do not match" in str(error) for error in waits) == 4


def test_others_are_not_slowed_down(store, ann, bob):
    for _ in range(5):
        refused(store, "Ann", "wrong one")
    accounts.sign_in(store, "Bob", "bob's password")
