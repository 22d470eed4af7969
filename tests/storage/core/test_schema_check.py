"""A store that somebody else made: its file may hold nothing but the schema and rows, and its rows cannot make the program run anything."""

import sqlite3
from contextlib import closing

import pytest

from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.core.examine import examine
from storage.core.migrations import NAMES, migrations
from storage.exchange import backup
from storage.people import accounts

EVERY_ROLE = """CREATE TRIGGER welcome AFTER INSERT ON sessions BEGIN
    UPDATE accounts SET roles = '["annotator","lead","researcher"]' WHERE id = NEW.account_id; END"""

FOREIGN = {
    "trigger welcome": EVERY_ROLE,
    "trigger quiet": "CREATE TRIGGER quiet BEFORE INSERT ON judgments WHEN NEW.annotator_id = 1 BEGIN SELECT RAISE(IGNORE); END",
    "table extra": "CREATE TABLE extra (id INTEGER PRIMARY KEY, twice INTEGER GENERATED ALWAYS AS (id * 2))",
    "table sought": "CREATE VIRTUAL TABLE sought USING fts5(text)",
    "table shape": "CREATE VIRTUAL TABLE shape USING rtree(id, low, high)",
    "view looks": "CREATE VIEW looks AS SELECT writefile('/tmp/x', 'y') FROM accounts",
    "index odd": "CREATE INDEX odd ON prompts(length(messages))",
    "index alone": "CREATE UNIQUE INDEX alone ON judgments(annotator_id)",
}
"""By what the refusal says."""

CHANGED = {
    "table accounts": "ALTER TABLE accounts ADD COLUMN note TEXT DEFAULT (randomblob(1000000))",
    "table runs": "ALTER TABLE runs ADD COLUMN more TEXT CHECK (casefold(more) != 'x')",
    "table prompts": "ALTER TABLE prompts ADD COLUMN long INTEGER GENERATED ALWAYS AS (length(messages)) VIRTUAL",
}

MISSING = {
    "trigger judgments_are_not_changed": "DROP TRIGGER judgments_are_not_changed",
    "index annotators_pseudonym": "DROP INDEX annotators_pseudonym",
    "view audit": "DROP VIEW audit",
}

REPLACED = {
    "view votes": ("DROP VIEW votes", "CREATE VIEW votes AS SELECT j.*, 'human' AS annotator_kind FROM judgments j"),
    "trigger gold_answers_mark": (
        "DROP TRIGGER gold_answers_mark",
        "CREATE TRIGGER gold_answers_mark AFTER INSERT ON gold_answers BEGIN UPDATE comparisons SET gold = 0; END",
    ),
}

CASES = [
    *((name, (sql,)) for name, sql in (FOREIGN | CHANGED | MISSING).items()),
    *((name, statements) for name, statements in REPLACED.items()),
]


def change(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.create_function("casefold", 1, str.casefold, deterministic=True)
        for statement in statements:
            raw.execute(statement)


@pytest.mark.parametrize("name, statements", CASES, ids=[name for name, _ in CASES])
def test_a_schema_that_is_not_ours_is_refused_with_its_name(store, name, statements):
    store.close()
    change(store.path, *statements)
    kept = store.path.read_bytes()
    with pytest.raises(StoreError, match=rf"(?s){name}\b.*(restore a backup|with the sqlite3 program)"):
        Database(store.path)
    assert store.path.read_bytes() == kept
    folder = DataFolder(store.path.parents[1] / "other")
    with pytest.raises(StoreError, match=name):
        backup.restore(folder, store.path)
    assert not folder.database.exists()
    assert name in examine(store.path).foreign


def test_a_trigger_that_gives_roles_at_sign_in_never_runs(store, tmp_path):
    accounts.create(store, "ann", "correct horse battery", ["lead"])
    accounts.create(store, "eve", "correct horse battery", ["annotator"])
    backup.backup(store, tmp_path / "copy.db")
    change(tmp_path / "copy.db", EVERY_ROLE)
    with pytest.raises(StoreError, match="trigger welcome"):
        backup.restore(DataFolder(tmp_path / "new"), tmp_path / "copy.db")


def test_a_foreign_trigger_does_not_run_while_an_older_store_is_brought_up_to_date(tmp_path):
    """m002 updates each annotator: whatever hangs on that must be found before."""
    path = tmp_path / "old" / "rankloop.db"
    path.parent.mkdir()
    made = sqlite3.connect(path, isolation_level=None)
    import sqlite_utils

    migrations.apply(sqlite_utils.Database(made), stop_before="m002_people")
    made.execute("INSERT INTO annotators (name, kind, created_at) VALUES ('Ann', 'human', 'then')")
    made.execute("CREATE TRIGGER sly AFTER UPDATE ON annotators BEGIN UPDATE annotators SET name = 'Eve'; END")
    made.close()
    with pytest.raises(StoreError, match="trigger sly"):
        Database(path)
    change(path, "DROP TRIGGER sly")
    store = Database(path)
    assert store.value("SELECT name FROM annotators") == "Ann"
    store.close()


def test_migrations_that_do_not_follow_each_other_are_refused(store):
    with store.atomic() as connection:
        connection.conn.execute("DELETE FROM _sqlite_migrations WHERE name = ?", [NAMES[1]])
    store.close()
    with pytest.raises(StoreError, match=f"{NAMES[2]}.*without {NAMES[1]}"):
        Database(store.path)


def test_a_migration_that_is_there_twice_is_refused(store):
    with store.atomic() as connection:
        connection.conn.execute("DROP INDEX idx__sqlite_migrations_migration_set_name")
        connection.conn.execute("INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('rankloop', ?)", [NAMES[0]])
    store.close()
    with pytest.raises(StoreError, match="a migration twice"):
        Database(store.path)


def test_another_programs_database_is_left_alone(tmp_path):
    change(tmp_path / "rankloop.db", "CREATE TABLE contacts (name)", "INSERT INTO contacts VALUES ('mine')")
    with pytest.raises(StoreError, match="table contacts"):
        Database(tmp_path / "rankloop.db")
    with closing(sqlite3.connect(tmp_path / "rankloop.db")) as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("contacts",)]


@pytest.mark.parametrize(
    "statements",
    [
        ("ANALYZE",),
        ("VACUUM",),
        # As Litestream makes them in every database that it copies (docs/how-to/back-up.md).
        ("CREATE TABLE IF NOT EXISTS _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)",
         "CREATE TABLE IF NOT EXISTS _litestream_lock (id INTEGER)"),
    ],
)  # fmt: skip
def test_tables_of_sqlite_and_litestream_are_allowed(store, statements):
    store.close()
    change(store.path, *statements)
    Database(store.path).close()


def test_a_foreign_object_under_a_known_name_is_refused(store):
    store.close()
    change(store.path, "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER, more TEXT)")
    with pytest.raises(StoreError, match="table _litestream_seq"):
        Database(store.path)


def test_connections_do_not_trust_the_schema(store):
    assert store.value("PRAGMA trusted_schema") == 0
    assert store.value("PRAGMA cell_size_check") == 1
