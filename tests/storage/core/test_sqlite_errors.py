"""Each error is one that SQLite really raises."""

import sqlite3

import pytest

from storage.core import sqlite_errors


def error_of(act) -> Exception:
    with pytest.raises(Exception) as caught:
        act()
    return caught.value


@pytest.fixture
def raw(tmp_path):
    connection = sqlite3.connect(tmp_path / "some.db", timeout=0, isolation_level=None)
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")
    yield connection
    connection.close()


def test_another_writer_is_a_lock_and_no_damage(raw, tmp_path):
    other = sqlite3.connect(tmp_path / "some.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    error = error_of(lambda: raw.execute("INSERT INTO rows VALUES (1, 'a')"))
    other.close()
    assert sqlite_errors.is_lock(error) and sqlite_errors.is_of_file(error) and not sqlite_errors.is_damage(error)
    assert sqlite_errors.remedy(error) == "something else is writing, such as an import; wait until it is done"


def test_a_full_disk_is_no_damage(raw):
    raw.execute("PRAGMA max_page_count=2")
    error = error_of(lambda: raw.execute("INSERT INTO rows VALUES (1, ?)", ["long" * 10_000]))
    assert sqlite_errors.is_of_file(error) and not sqlite_errors.is_damage(error) and not sqlite_errors.is_lock(error)
    assert sqlite_errors.remedy(error) == "make room on the disk"


def test_a_file_that_is_no_database_is_damage(tmp_path):
    (tmp_path / "diary.db").write_text("dear diary, " * 100)
    with sqlite3.connect(tmp_path / "diary.db") as diary:
        error = error_of(lambda: diary.execute("SELECT * FROM rows"))
    diary.close()
    assert sqlite_errors.is_damage(error) and sqlite_errors.is_of_file(error)
    assert sqlite_errors.remedy(error) == sqlite_errors.DAMAGED


def test_an_extended_code_counts_as_its_primary_one(tmp_path):
    """A folder in the place of the file gives SQLITE_CANTOPEN_ISDIR, 526."""
    (tmp_path / "folder.db").mkdir()
    error = error_of(lambda: sqlite3.connect(tmp_path / "folder.db"))
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN_ISDIR
    assert sqlite_errors.is_of_file(error)
    assert sqlite_errors.remedy(error) == "check the disk's free space, the folder's permissions and what else has the file open"


def test_a_wrong_statement_is_not_the_files_fault(raw):
    error = error_of(lambda: raw.execute("SELECT nothing FROM rows"))
    assert not sqlite_errors.is_of_file(error)
    assert sqlite_errors.value_problem(error) == ""


@pytest.mark.parametrize(
    "value, problem",
    [
        (2**63, sqlite_errors.TOO_LARGE),
        ("\ud83d", sqlite_errors.HALF_SURROGATE),
        ({"a": 1}, "A value of this type cannot be in the store (Error binding parameter 1: type 'dict' is not supported)"),
    ],
    ids=["2^63", "half a surrogate pair", "a dict"],
)
def test_a_value_that_sqlite_cannot_take_is_named(raw, value, problem):
    error = error_of(lambda: raw.execute("SELECT ?", [value]))
    assert sqlite_errors.value_problem(error).startswith(problem)
    assert not sqlite_errors.is_of_file(error)
