"""Backups while people judge, and what a restore refuses."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage.content import prompts
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.exchange import backup
from storage.judging import judgments


@pytest.fixture
def folder(tmp_path):
    return DataFolder(tmp_path / "restored")


def opened(folder):
    return Database(folder.database)


def standing(store):
    return {item.judgment.id for item in judgments.active(store)}


def test_everything_acknowledged_before_is_in_the_copy(world, folder, tmp_path):
    with world.store.atomic():
        world.comparisons(400)
    acknowledged: list[int] = []
    stop = threading.Event()
    errors = []

    def judge():
        try:
            while not stop.is_set() and (judgment := world.rank(world.ann)):
                acknowledged.append(judgment.id)
        except Exception as error:
            errors.append(error)

    judging = threading.Thread(target=judge)
    judging.start()
    try:
        while len(acknowledged) < 20:
            pass
        before = set(acknowledged)
        path = tmp_path / "copy.db"
        size = backup.backup(world.store, path)
        during = set(acknowledged) - before
    finally:
        stop.set()
        judging.join()
    assert not errors and size == path.stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir() if "copy" in p.name) == ["copy.db"]
    assert backup.restore(folder, path) is None
    restored = opened(folder)
    kept = standing(restored)
    assert before <= kept <= set(acknowledged)
    assert restored.value("PRAGMA integrity_check") == "ok"
    assert restored.value("SELECT count(*) FROM judgments") == len(kept)
    restored.close()
    assert during or len(acknowledged) > len(before)


def test_a_large_copy_ends_although_judgments_never_stop(world, tmp_path, monkeypatch):
    """A copy that began anew at each write would never end; it is of one moment instead."""
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 1)
    with world.store.atomic():
        world.comparisons(60)
    written, steps = [], []

    def judge_between_steps(done, total):
        steps.append(total)
        if len(written) < 50 and world.rank(world.ann):
            written.append(1)

    backup.backup(world.store, tmp_path / "copy.db", progress=judge_between_steps)
    assert len(written) == 50 and len(set(steps)) == 1 and len(steps) == steps[0]
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        assert connection.execute("SELECT count(*) FROM judgments").fetchone() == (0,)
    connection.close()


def test_nothing_is_written_over_without_force(world, tmp_path):
    path = tmp_path / "copy.db"
    path.write_text("mine")
    with pytest.raises(StoreError, match="exists already: choose another name, or replace it with --force"):
        backup.backup(world.store, path)
    assert path.read_text() == "mine"
    backup.backup(world.store, path, force=True)
    assert path.read_bytes().startswith(b"SQLite format 3")
    with pytest.raises(StoreError, match="could not be copied|cannot be written"):
        backup.backup(world.store, tmp_path / "nowhere" / "copy.db")


def test_a_store_with_something_in_it_is_kept(world, folder, tmp_path):
    path = tmp_path / "copy.db"
    backup.backup(world.store, path)
    own = opened(folder)
    prompts.add(own, [prompts.NewPrompt([{"role": "user", "content": "Mine"}])], source="mine")
    own.close()
    with pytest.raises(StoreError, match=r"holds a store \(1 rows in prompts\): .* with --force"):
        backup.restore(folder, path)
    kept = backup.restore(folder, path, force=True)
    assert kept.name.startswith("rankloop-before-2") and sorted(p.name for p in folder.root.iterdir()) == sorted([kept.name, "rankloop.db"])
    old, new = Database(kept), opened(folder)
    assert [p.text for p in prompts.of_split(old)] == ["Mine"] and prompts.of_split(new) == prompts.of_split(world.store)
    old.close()
    new.close()


def test_a_store_with_starter_prompts_alone_gives_way(world, folder, tmp_path):
    backup.backup(world.store, tmp_path / "copy.db")
    own = opened(folder)
    prompts.load_starter(own)
    own.close()
    assert backup.restore(folder, tmp_path / "copy.db") is None
    assert [p.name for p in folder.root.iterdir()] == ["rankloop.db"]


@pytest.mark.parametrize("force", [False, True])
def test_a_store_that_another_process_has_open_is_left_alone(world, folder, tmp_path, force):
    backup.backup(world.store, tmp_path / "copy.db")
    opened(folder).close()
    code = (
        "import sys; from storage.core.database import Database; d = Database(sys.argv[1]); d.value('SELECT 1 FROM prompts'); "
        "print('open', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    try:
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match="is in use: stop rankloop"):
            backup.restore(folder, tmp_path / "copy.db", force=force)
    finally:
        process.communicate()
    assert backup.restore(folder, tmp_path / "copy.db", force=force) is None
    assert not [p.name for p in folder.root.iterdir() if "restoring" in p.name]


def broken(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 30_000] = b"\xff" * 30_000
    path.write_bytes(content)


def foreign(path):
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE prompts (id)")
    connection.close()


def newer(path):
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('rankloop', 'm999_future')")
    connection.close()


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda path: path.write_text("text"), "no SQLite database"),
        (lambda path: path.write_bytes(b""), "no SQLite database"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "damaged|could not be copied"),
        (broken, "damaged|could not be copied"),
        (foreign, "no backup of rankloop"),
        (newer, "written by a newer rankloop .it has m999_future"),
    ],
)
def test_a_damaged_backup_is_refused_before_anything_is_changed(world, folder, tmp_path, spoil, reason):
    with world.store.atomic():
        world.comparisons(150)
    path = tmp_path / "copy.db"
    backup.backup(world.store, path)
    spoil(path)
    own = opened(folder)
    prompts.load_starter(own)
    number = len(prompts.of_split(own))
    own.close()
    with pytest.raises(StoreError, match=reason):
        backup.restore(folder, path)
    own = opened(folder)
    assert len(prompts.of_split(own)) == number
    own.close()
    assert not [p.name for p in folder.root.iterdir() if "restoring" in p.name]


def test_a_damaged_store_is_put_aside_for_its_backup(world, folder, tmp_path):
    backup.backup(world.store, tmp_path / "copy.db")
    folder.root.mkdir()
    folder.database.write_bytes(b"no database at all" * 500)
    with pytest.raises(StoreError, match="holds a store .file is not a database"):
        backup.restore(folder, tmp_path / "copy.db")
    kept = backup.restore(folder, tmp_path / "copy.db", force=True)
    assert kept.read_bytes().startswith(b"no database")
    opened(folder).close()


def test_a_copy_of_the_bare_file_of_an_older_schema_is_migrated(world, folder, tmp_path):
    """A backup is opened like any store: what it lacks is added then."""
    path = tmp_path / "copy.db"
    backup.backup(world.store, path)
    shutil.copy(path, tmp_path / "again.db")
    assert backup.restore(folder, tmp_path / "again.db") is None
    store = opened(folder)
    assert store.unknown_migrations() == [] and store.value("PRAGMA journal_mode") == "wal"
    store.close()
