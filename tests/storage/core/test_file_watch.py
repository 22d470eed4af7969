"""The database's files are deleted, replaced or moved away while it is open: nothing is acknowledged that would be gone."""

import os
import shutil
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.exchange import backup
from storage.judging import judgments
from storage.people import annotators

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no file that is open")


def delete(end):
    return lambda path: path.with_name(path.name + end).unlink()


def replace(end):
    def act(path):
        side = path.with_name(path.name + end)
        shutil.copy(side, side.with_name("other"))
        os.replace(side.with_name("other"), side)

    return act


def move_away(path):
    path.rename(path.with_name("elsewhere.db"))


def move_folder(path):
    path.parent.rename(path.parent.with_name("moved"))


def replace_folder(path):
    move_folder(path)
    path.parent.mkdir()
    Database(path).close()


def delete_folder(path):
    shutil.rmtree(path.parent)


MISCHIEF = {
    "wal deleted": (delete("-wal"), "rankloop.db-wal is gone"),
    "shm deleted": (delete("-shm"), "rankloop.db-shm is gone"),
    "database deleted": (delete(""), "rankloop.db is gone"),
    "wal replaced": (replace("-wal"), "rankloop.db-wal is another file now"),
    "shm replaced": (replace("-shm"), "rankloop.db-shm is another file now"),
    "database replaced": (replace(""), "rankloop.db is another file now"),
    "database moved": (move_away, "rankloop.db is gone"),
    "folder moved": (move_folder, "rankloop.db is gone"),
    "folder replaced": (replace_folder, "rankloop.db is another file now"),
    "folder deleted": (delete_folder, "rankloop.db is gone"),
}


@pytest.fixture(params=MISCHIEF, ids=str)
def mischief(request):
    return MISCHIEF[request.param]


def rescued(store):
    return sorted(store.path.parent.glob("rankloop-rescued-*.db"))


def test_a_write_to_deleted_files_fails_and_the_data_are_copied(world, mischief):
    act, says = mischief
    world.comparisons(6)
    acknowledged = {world.rank(world.ann).id for _ in range(3)}
    act(world.store.path)
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"{says}.*changes can no longer be saved.*rankloop restore rankloop-rescued-\S+ --force"):
            world.rank(world.ann)
    (copy,) = rescued(world.store)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    folder = DataFolder(copy.parents[1] / "restored")
    backup.restore(folder, copy)
    restored = Database(folder.database)
    assert {judged.judgment.id for judged in judgments.active(restored)} == acknowledged
    restored.close()


def test_a_later_thread_cannot_write_either(world, mischief):
    act, says = mischief
    world.comparisons(2)
    act(world.store.path)
    with ThreadPoolExecutor(1) as pool, pytest.raises(StoreError, match=says):
        pool.submit(world.rank, world.ann).result()


def test_a_replaced_file_is_not_backed_up(world, mischief, tmp_path):
    act, says = mischief
    act(world.store.path)
    with pytest.raises(StoreError, match=says):
        backup.backup(world.store, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_a_write_is_not_acknowledged_if_the_files_are_deleted_meanwhile(world):
    world.comparisons(1)
    with pytest.raises(StoreError, match="rankloop.db-wal is gone"), world.store.atomic():
        world.rank(world.ann)
        delete("-wal")(world.store.path)


def test_files_that_were_only_moved_may_come_back(world):
    world.comparisons(1)
    path = world.store.path
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).rename(path.with_name("away" + end))
    with pytest.raises(StoreError, match="If the files were only moved, move them back"):
        world.rank(world.ann)
    for end in ("", "-wal", "-shm"):
        path.with_name("away" + end).rename(path.with_name(path.name + end))
    assert world.rank(world.ann)


def test_a_failed_copy_is_reported_and_retried(world, monkeypatch):
    from storage.core import file_watch

    world.comparisons(1)
    delete("-wal")(world.store.path)
    monkeypatch.setattr("storage.core.file_watch.rescue", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(StoreError, match="A copy could not be written: free disk space for the data folder and leave rankloop running"):
        world.rank(world.ann)
    monkeypatch.undo()
    monkeypatch.setattr(file_watch, "RESCUE_RETRY_S", 0.0)
    with pytest.raises(StoreError, match="rankloop restore rankloop-rescued-"):
        world.rank(world.ann)


def test_a_database_behind_a_link_is_watched_at_its_target(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rankloop.db").symlink_to(tmp_path / "disk" / "big.db")
    Database(tmp_path / "disk" / "big.db").close()
    store = Database(tmp_path / "data" / "rankloop.db")
    annotators.ensure(store, "Ann")
    (tmp_path / "disk" / "big.db-wal").unlink()
    with pytest.raises(StoreError, match="rankloop.db-wal is gone"):
        annotators.ensure(store, "Bob")
    store.close()


def test_threads_and_other_processes_do_not_count_as_changes(world):
    world.comparisons(20)
    for _ in range(5):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(world.rank, world.ann).result()
        other = Database(world.store.path)
        annotators.ensure(other, "Cy")
        other.value("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(Database, world.store.path).result()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(annotators.ensure, made, "Di").result()
    assert annotators.ensure(made, "Ed").name == "Ed"
    made.close()
    assert annotators.ensure(made, "after close").name == "after close"
    made.close()


def test_files_that_came_back_and_went_again_are_copied_again(world):
    """The first copy does not hold what was judged in between."""
    world.comparisons(3)
    wal = world.store.path.with_name("rankloop.db-wal")
    wal.rename(wal.with_name("away"))
    with pytest.raises(StoreError, match="rankloop-rescued-"):
        world.rank(world.ann)
    wal.with_name("away").rename(wal)
    acknowledged = world.rank(world.ann).id
    time.sleep(1.1)
    wal.unlink()
    with pytest.raises(StoreError, match="rankloop-rescued-"):
        world.rank(world.ann)
    restored = Database(rescued(world.store)[-1])
    assert [judged.judgment.id for judged in judgments.active(restored)] == [acknowledged]
    restored.close()


def test_one_copy_is_enough_for_all_processes(world):
    world.comparisons(2)
    other = Database(world.store.path)
    delete("-wal")(world.store.path)
    for store in (world.store, other):
        with pytest.raises(StoreError, match="rankloop-rescued-"):
            annotators.ensure(store, "Di")
    assert len(rescued(world.store)) == 1
    other.close()
