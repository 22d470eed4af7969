"""The app with small pages, served once for a file, over a store for each test."""

import argon2
import pytest
from small_site import serve

from storage.core.database import Database
from storage.people import accounts


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The app is served once; each test replaces its store."""
    store = Database(tmp_path_factory.mktemp("none") / "rankloop.db")
    site = serve(store)
    yield site
    site.serving.stop()
    assert not site.serving.alive
    store.close()


@pytest.fixture
def site(shared, store):
    shared.auth.store = shared.store = store
    return shared


@pytest.fixture
def ann(site):
    """A site with accounts, where Ann is signed in."""
    site.account()
    return site.cookie()
