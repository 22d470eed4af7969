"""Fixtures that every floor's tests share."""

import shutil

import pytest

from storage.core.database import Database


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store that was just made, to be copied: making one costs more than most tests."""
    path = tmp_path_factory.mktemp("empty") / "rankloop.db"
    Database(path).close()
    return path


@pytest.fixture
def store(tmp_path, empty_store):
    """A real, empty store in a data folder of its own."""
    path = tmp_path / "data" / "rankloop.db"
    path.parent.mkdir()
    shutil.copyfile(empty_store, path)
    database = Database(path)
    yield database
    database.close()
