"""Two accounts, whose passwords are hashed fast."""

import argon2
import pytest

from storage.people import accounts

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    """Hashes with little work: the real parameters take 64 MiB and a good part of a second, and one slow test uses them."""
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def ann(store):
    return accounts.create(store, "Ann", PASSWORD, ["lead"])


@pytest.fixture
def bob(store, ann):
    return accounts.create(store, "Bob", "bob's password", ["annotator"], by=ann.annotator.id)
