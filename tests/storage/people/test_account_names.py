"""Names that look alike are refused."""

import argon2
import pytest

from storage.core.database import StoreError
from storage.people import account_names, accounts

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ann", "ann"), ("Ann", "\u0410nn"), ("Ann", "A nn"), ("Ann", "Ａｎｎ"), ("mina", "min\u0430"), ("Bob", "B\u043eb"),
        ("Otto", "0tt0"), ("STRASSE", "straße"), ("Ann", "Ann\u3164"), ("Ann Lee", "Ann\u00a0Lee"), ("Ann", "\u0391nn"), ("ﬁn", "fin"),
    ],
)  # fmt: skip
def test_alike(store, one, other):
    assert account_names.look_alike_key(one) == account_names.look_alike_key(other)
    accounts.create(store, one, PASSWORD, ["lead"])
    with pytest.raises(StoreError, match=r"looks like the account|all of them visible"):
        accounts.create(store, other, PASSWORD, ["annotator"])
    assert len(accounts.all_accounts(store)) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("José", "Jose"), ("がん", "かん"), ("김", "깅"), ("Ann", "Anna"), ("Arne", "Ame"), ("A1", "A2"), ("Юля", "Яна")]
)
def test_not_alike(store, one, other):
    accounts.create(store, one, PASSWORD, ["lead"])
    accounts.create(store, other, PASSWORD, ["annotator"])


@pytest.mark.parametrize("name", ["\0", "a\0b", "\u200b", "a\u200bb", "\u3164", "\u2800", "\u0301", "x" * 81, " ", "", "a\nb", "\x1b[31m"])
def test_no_name(store, name):
    with pytest.raises(StoreError, match="name"):
        accounts.create(store, name, PASSWORD, ["lead"])


def test_an_account_that_was_there_before_keeps_its_name(store):
    """Alike names of older stores go on working: only new ones are refused."""
    accounts.create(store, "Ann", PASSWORD, ["lead"])
    accounts.create(store, "Bea", PASSWORD, ["annotator"])
    with store.atomic() as connection:
        connection.conn.execute("UPDATE annotators SET name = 'ann' WHERE name = 'Bea'")
    assert accounts.of_token(store, accounts.sign_in(store, "ann", PASSWORD)).name == "ann"
    assert accounts.of_token(store, accounts.sign_in(store, "Ann", PASSWORD)).name == "Ann"
