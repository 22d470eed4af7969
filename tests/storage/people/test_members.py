"""Members of a project whose accounts are those of several projects: roles here, passwords there."""

import argon2
import pytest

from storage.core.database import Database, StoreError
from storage.people import accounts, audit, members

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def shared(tmp_path):
    store = Database(tmp_path / "accounts" / "rankloop.db")
    for name in ("Ann", "Ben"):
        members.add_account(store, name, PASSWORD)
    yield store
    store.close()


def test_a_member_has_roles_in_the_project_and_no_password_there(store, shared):
    lead = members.add(store, shared, " Ann ", ["lead", "annotator"])
    ben = members.add(store, shared, "Ben", ["annotator"], by=lead.annotator.id)
    assert [(a.name, accounts.in_order(a.roles)) for a in accounts.all_accounts(store)] == [
        ("Ann", ["annotator", "lead"]),
        ("Ben", ["annotator"]),
    ]
    assert accounts.in_use(store, "Ben") == ben and accounts.in_use(store, "ben") is None
    # It is the store of accounts that knows the password.
    with pytest.raises(accounts.SignInRefused):
        accounts.sign_in(store, "Ann", PASSWORD)
    assert accounts.session(shared, accounts.sign_in(shared, "Ann", PASSWORD)).account.name == "Ann"
    assert {(entry.who, entry.detail) for entry in audit.entries(store, act="created")} == {("Ann", "annotator"), (None, "annotator, lead")}


def test_only_somebody_with_an_account_becomes_a_member(store, shared):
    members.add(store, shared, "Ann", ["lead"])
    for name, said in (("Cat", "no account named 'Cat'"), ("", "no account named ''"), ("Ann", "Ann is a member already")):
        with pytest.raises(StoreError, match=said):
            members.add(store, shared, name, ["annotator"])
    with pytest.raises(StoreError, match="needs a role"):
        members.add(store, shared, "Ben", [])
    assert [a.name for a in accounts.all_accounts(store)] == ["Ann"]


def test_roles_are_given_replaced_taken_and_given_again(store, shared):
    with pytest.raises(StoreError, match="The first account needs the role lead"):
        members.give_roles(store, shared, "Ben", ["annotator"])
    members.give_roles(store, shared, "Ann", ["lead"])
    members.give_roles(store, shared, "Ben", ["annotator"])
    assert members.give_roles(store, shared, "Ben", ["researcher"]).roles == {"researcher"}
    members.remove(store, "Ben")
    assert accounts.in_use(store, "Ben") is None
    assert members.give_roles(store, shared, "Ben", ["annotator"]).roles == {"annotator"}
    assert accounts.in_use(store, "Ben").roles == {"annotator"}
    with pytest.raises(StoreError, match="Ann is the only lead"):
        members.remove(store, "Ann")
    with pytest.raises(StoreError, match="Cat is not a member"):
        members.remove(store, "Cat")
