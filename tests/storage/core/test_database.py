import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import storage
from storage.content import policies
from storage.core import database
from storage.core.database import Database, StoreError
from storage.judging import judgments, queue
from storage.people import annotators

REPOSITORY = Path(storage.__file__).parents[1]


def test_what_was_written_is_there_when_opened_again(tmp_path):
    first = Database(tmp_path / "new" / "folder" / "rankloop.db")
    annotators.ensure(first, "Ann")
    first.close()
    again = Database(tmp_path / "new" / "folder" / "rankloop.db")
    assert [annotator.name for annotator in annotators.all_annotators(again)] == ["Ann"]
    again.close()


def test_a_store_of_a_newer_version_is_not_changed(store):
    store.insert("_sqlite_migrations", {"migration_set": "rankloop", "name": "m999_later", "applied_at": "2099"})
    with pytest.raises(StoreError, match="newer rankloop .*m999_later.*upgrade rankloop, or name another folder"):
        Database(store.path)


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path):
    path = tmp_path / "rankloop.db"
    path.write_text("dear diary, " * 100)
    with pytest.raises(StoreError, match="not a database.*name another with --data"):
        Database(path)
    assert path.read_text().startswith("dear diary")


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="name another with --data"):
        Database(tmp_path / "file" / "rankloop.db")
    (tmp_path / "rankloop.db").mkdir()
    with pytest.raises(StoreError, match="unable to open.*name another with --data"):
        Database(tmp_path / "rankloop.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Check the folder's permissions"):
        Database(tmp_path / "rankloop.db")
    tmp_path.chmod(0o700)


def test_a_transaction_is_saved_completely_or_not_at_all(store):
    with pytest.raises(ZeroDivisionError), store.atomic():
        annotators.ensure(store, "Ann")
        _ = 1 / 0
    assert annotators.all_annotators(store) == []
    annotators.ensure(store, "Bob")
    assert [annotator.name for annotator in annotators.all_annotators(store)] == ["Bob"]


def test_a_failed_commit_does_not_affect_the_next_transaction(store):
    with pytest.raises(sqlite3.IntegrityError), store.atomic() as connection:
        connection.conn.execute("PRAGMA defer_foreign_keys=ON")
        connection.conn.execute("INSERT INTO comparisons (prompt_id, purpose, created_at) VALUES (99, 'x', 'now')")
    annotators.ensure(store, "Ann")
    other = Database(store.path)
    assert [annotator.name for annotator in annotators.all_annotators(other)] == ["Ann"]
    other.close()


def test_a_store_that_stays_locked_is_an_error(store, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    patient = Database(store.path)
    with store.atomic(), pytest.raises(StoreError, match="locked. Nothing was saved.*try again"):
        annotators.ensure(patient, "Ann")
    assert annotators.ensure(patient, "Ann").name == "Ann"
    patient.close()


def test_a_snapshot_does_not_move_and_does_not_write(store):
    annotators.ensure(store, "Ann")
    with store.snapshot():
        before = annotators.all_annotators(store)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(annotators.ensure, store, "Bob").result()
        with store.snapshot():
            assert annotators.all_annotators(store) == before
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            annotators.ensure(store, "Cy")
    assert [annotator.name for annotator in annotators.all_annotators(store)] == ["Ann", "Bob"]
    assert annotators.ensure(store, "Cy").name == "Cy"


def test_eight_threads_lose_no_judgment(world):
    ids = world.comparisons(40)
    people = [annotators.ensure(world.store, f"person {n}") for n in range(8)]
    start = threading.Barrier(8)

    def judge(person):
        start.wait()
        saved = []
        while (judgment := world.rank(person)) is not None:
            saved.append(judgment.id)
        return saved

    with ThreadPoolExecutor(8) as pool:
        saved = [judgment_id for ids_of_one in pool.map(judge, people) for judgment_id in ids_of_one]
    stored = [judged.judgment.id for judged in judgments.active(world.store)]
    assert sorted(saved) == stored
    assert {judged.judgment.comparison_id for judged in judgments.active(world.store)} == set(ids)


def test_one_presentation_saved_from_eight_threads_counts_once(world):
    world.comparison()
    _, shown = queue.next_presentation(world.store, world.ann.id)
    start = threading.Barrier(8)

    def click(_):
        start.wait()
        return judgments.save(world.store, shown.id, world.ann.id, verdict="rank", tiers=(shown.order,)).id

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(click, range(8))) == {1}
    assert annotators.get(world.store, world.ann.id).judged == 1


def test_a_double_load_makes_one_presentation(world):
    world.comparisons(3)
    start = threading.Barrier(8)

    def load(_):
        start.wait()
        return queue.next_presentation(world.store, world.ann.id)[1]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(load, range(8)))) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files the Linux way")
def test_threads_that_ended_leave_no_connection_behind(store):
    for _ in range(20):
        thread = threading.Thread(target=annotators.all_annotators, args=(store,))
        thread.start()
        thread.join()
    opened = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert opened.count(str(store.path)) <= 3


OPEN = "import sys; from storage.core.database import Database; sys.stdin.read(1); Database(sys.argv[1]).close()"


def test_processes_that_open_a_new_store_at_once_all_succeed(tmp_path):
    path = tmp_path / "rankloop.db"
    processes = [subprocess.Popen([sys.executable, "-c", OPEN, path], cwd=REPOSITORY, stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        process.stdin.write(b"x")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0]
    again = Database(path)
    assert policies.all_versions(again) == []
    again.close()


JUDGE = """
import sys
from storage.people import annotators
from storage.judging import judgments, queue
from storage.core.database import Database
store = Database(sys.argv[1])
ann = annotators.ensure(store, "Ann")
while (shown := queue.next_presentation(store, ann.id)) is not None:
    saved = judgments.save(store, shown[1].id, ann.id, verdict="rank", tiers=(shown[1].order,))
    print(saved.id, flush=True)
"""


def test_every_acknowledged_judgment_outlives_kill_9(world):
    world.comparisons(400)
    enough = random.SystemRandom().randint(1, 60)
    with subprocess.Popen([sys.executable, "-c", JUDGE, world.store.path], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(enough)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().splitlines()]
    assert process.returncode == -signal.SIGKILL
    world.store.close()
    again = Database(world.store.path)
    stored = {judged.judgment.id for judged in judgments.active(again)}
    assert len(acknowledged) >= enough
    assert set(acknowledged) <= stored
    assert len(stored - set(acknowledged)) <= 1
    assert again.value("PRAGMA integrity_check") == "ok"
    again.close()


def test_opening_and_closing_causes_no_warnings(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = Database(tmp_path / "rankloop.db")
        store.close()
        assert annotators.ensure(store, "after close").name == "after close"
        store.close()
