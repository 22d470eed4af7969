"""Fixtures that every floor's tests share."""

import pytest

from storage.database import Database


@pytest.fixture
def store(tmp_path):
    """A real, empty store in a data folder of its own."""
    database = Database(tmp_path / "data" / "rankloop.db")
    yield database
    database.close()
