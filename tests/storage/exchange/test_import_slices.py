"""An import is written in slices: an incomplete one is invisible, and one that never completes leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlhf.analysis import agreement, leaderboard
from storage.analytics import rankings, stats
from storage.content import comparisons, policies, prompts
from storage.core import unfinished_imports
from storage.core.database import Database, StoreError, StoreLocked
from storage.exchange import export, import_records, import_writer, imports, interrupted, native, undos
from storage.judging import exclusions, gold, history, judgments, queue
from storage.people import annotators, audit
from storage.project import settings

ROWS = 450
"""More than two slices."""


def row(n, **more):
    return {"prompt": f"Question {n}?", "completions": [f"yes {n}", f"no {n}"], "models": ["m1", "m2"], **more}


def many(count=ROWS):
    """Votes of four annotators, comparisons that wait, known answers, and prompts that the store has."""
    for n in range(count):
        more = [{"choice": n % 2, "annotator": f"ann{n % 4}", "ideal": "so", "aspects": [{"good": 3}, {"good": 1}]}, {},
                {"tiers": [[0], [1]], "gold": True}][n % 3]  # fmt: skip
        yield row(n, **more)


def seen(store):
    """Everything that a page, the queue, a training round or an export may show."""
    with store.snapshot():
        exported = [(comparison, votes) for comparison, votes in export.grouped(store, simulated=True, names=True)]
    table = rankings.read(store)
    known = annotators.all_annotators(store)
    return {
        "stats": stats.stats(store),
        "prompts": [prompt.id for prompt in prompts.of_split(store)],
        "kinds": prompts.by_kind(store),
        "usage": comparisons.prompt_usage(store),
        "unsimulated": len(comparisons.without_simulated_judgment(store, 10_000)),
        "votes": [found.judgment for found in judgments.active(store, kinds=("human", "simulated"))],
        "exported": exported,
        "rankings": (
            table.judgment.tolist(),
            table.comparisons.tolist(),
            rankings.policy_versions(store).tolist(),
            rankings.prompts(store).tolist(),
        ),
        "agreement": agreement.report(store).to_dict(),
        "leaderboard": str(leaderboard.leaderboard(store)),
        "queue": (queue.depth(store), queue.least_waiting(store, 10_000)),
        "gold": gold.answers(store),
        "annotators": known,
        "history": {person.id: len(history.of_annotator(store, person.id, limit=10_000)) for person in known},
        "policies": policies.all_versions(store),
        "imports": import_records.all_imports(store),
        "audit": audit.entries(store, limit=100),
        "exclusions": exclusions.all_exclusions(store),
    }


def everything(store):
    """Every row of every table, but for what an import may leave: the numbers that were given."""
    return {table: [tuple(r) for r in store.rows(f'SELECT * FROM "{table}"')] for table in sorted(store.connection.table_names())}


def test_half_an_import_is_invisible_and_a_whole_one_appears_at_once(world, monkeypatch):
    store = world.store
    world.comparisons(3)
    world.rank(world.ann)
    imports.import_rows(store, [row(1, choice=0, annotator="Ann"), row(7)], "plain")
    before, during = seen(store), []
    write = import_writer.ImportWriter.write

    def look(writer, lines):
        write(writer, lines)
        during.append(seen(store))

    monkeypatch.setattr(import_writer.ImportWriter, "write", look)
    imports.import_rows(store, many(), "plain")
    assert len(during) > 2 and all(found == before for found in during)
    after = seen(store)
    # Row 1 waits and is known; row 7 as well.
    assert after["stats"]["comparisons"] == before["stats"]["comparisons"] + ROWS - 2
    assert after["stats"]["judgments"]["human"] == before["stats"]["judgments"]["human"] + ROWS // 3
    assert after["queue"][0] == before["queue"][0] + ROWS // 3 - 2
    assert len(after["gold"]) == ROWS // 3
    assert {person.name for person in after["annotators"]} >= {"ann0", "ann3"}


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt, StoreError, OSError])
def test_an_import_that_fails_leaves_every_row_as_it_was(world, monkeypatch, error):
    store = world.store
    imports.import_rows(store, [row(0, annotator="ann0", choice=0), row(3, annotator="ann3", choice=0), row(1)], "plain")
    world.comparisons(2)
    before = everything(store)

    def rows():
        yield from many()
        raise error

    with pytest.raises(error):
        imports.import_rows(store, rows(), "plain")
    assert everything(store) == before
    assert store.value("PRAGMA foreign_keys") == 1 and store.connection.conn.execute("PRAGMA foreign_key_check").fetchall() == []
    assert imports.import_rows(store, many(), "plain")[1].judgments == ROWS // 3


CRASH = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from storage.core.database import Database
from storage.exchange import imports
from tests.storage.exchange.test_import_slices import many
def rows():
    yield from many()
    print("written", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
imports.import_rows(Database({path!r}), rows(), "plain")
"""


def killed(path):
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
    done = subprocess.run([sys.executable, "-c", CRASH.format(tests=root, path=str(path))], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "written\n"), done.stderr


def test_an_import_that_was_killed_is_invisible_and_gone_when_the_store_is_opened_again(world):
    store = world.store
    world.comparisons(2)
    shown, before = seen(store), everything(store)
    killed(store.path)
    assert store.value("SELECT count(*) FROM judgments WHERE import_id IS NOT NULL") > 0
    assert seen(store) == shown
    Database(store.path).close()
    assert everything(store) == before


def test_an_import_that_was_killed_is_gone_with_the_next_one(store):
    killed(store.path)
    _, report = imports.import_rows(store, [row(1, choice=1, annotator="ann1")], "plain")
    assert (report.prompts, report.comparisons, report.judgments) == (1, 1, 1)
    assert [tuple(r) for r in store.rows("SELECT id, state FROM imports")] == [(1, "whole")]


def test_one_import_at_a_time(store, monkeypatch):
    monkeypatch.setattr(unfinished_imports, "LOCK_WAIT_S", 0.1)

    def rows():
        with pytest.raises(StoreLocked, match="dataset is being imported. Nothing was changed: try again when it is done"):
            imports.import_rows(store, [row(1)], "plain")
        Database(store.path).close()
        yield from many(3)

    assert imports.import_rows(store, rows(), "plain")[1].comparisons == 3


def test_an_account_with_a_name_of_an_unfinished_import_is_kept(store):
    def rows():
        yield from many()
        annotators.ensure(store, "ann0")
        assert [person.name for person in annotators.all_annotators(store)] == ["ann0"]
        raise Stopped

    with pytest.raises(Stopped):
        imports.import_rows(store, rows(), "plain")
    assert [person.name for person in annotators.all_annotators(store)] == ["ann0"]


def test_a_native_export_waits_for_an_import(store, tmp_path):
    def rows():
        yield from many()
        with pytest.raises(StoreError, match="import is under way"):
            native.write(store, tmp_path / "out")

    imports.import_rows(store, rows(), "plain")


def test_overlap_of_the_project_holds_for_what_waits(world):
    settings.change(world.store, settings.current(world.store), by=None)
    imports.import_rows(world.store, [row(0), row(0, choice=1, annotator="Bob"), row(1)], "plain")
    found = [tuple(r) for r in world.store.rows("SELECT human_ranks, wanted FROM comparisons ORDER BY id")]
    assert found == [(1, 1), (0, 1)] and queue.depth(world.store) == 1


# ---- the latest vote of an annotator


def voted(choice, at=None, who="Ann", n=0):
    return row(n, choice=choice, annotator=who, **({"created_at": f"2025-01-0{at}T00:00:00Z"} if at else {}))


def counting(store):
    """Which answer each vote that counts prefers, by the position in the file."""
    positions = {r[0]: r[1] for r in store.rows("SELECT completion_id, position FROM comparison_completions")}
    return [(found.annotator.name, positions[found.judgment.tiers[0][0]]) for found in judgments.active(store)]


@pytest.mark.parametrize("times", [(1, 2, 3), (3, 1, 2), (2, 3, 1), (3, 2, 1)])
def test_the_later_time_counts_in_any_order_of_rows(store, times):
    # Between the rows there are two slices of others.
    filler = [row(n) for n in range(1, 300)]
    first, second, third = (voted(int(at == 3), at) for at in times)
    _, report = imports.import_rows(store, [first, *filler, second, third], "plain")
    assert counting(store) == [("Ann", 1)]
    assert (report.judgments, report.outdated, report.undated) == (3, 2, 0)
    assert tuple(store.row("SELECT human_ranks, wanted FROM comparisons WHERE id = 1")) == (1, 1)
    (exclusion,) = exclusions.all_exclusions(store)
    assert (exclusion.rule, exclusion.judgments) == ("judged again later", 2)


@pytest.mark.parametrize("at", [None, 1])
def test_at_equal_or_missing_times_the_order_of_the_file_counts_and_is_named(store, at):
    _, report = imports.import_rows(store, [voted(0, at), voted(0, 2, "Bob"), voted(1, at)], "plain")
    assert sorted(counting(store)) == [("Ann", 1), ("Bob", 0)]
    assert (report.outdated, report.undated, report.undated_rows) == (1, 1, [(3, "Ann")])


def test_votes_of_people_without_names_all_count(store):
    _, report = imports.import_rows(store, [row(0, choice=0), row(0, choice=1), row(0, choice=0)], "plain")
    assert (len(counting(store)), report.outdated) == (3, 0)


def test_a_later_vote_outdates_one_of_an_earlier_import_and_gives_it_back_when_undone(store):
    imports.import_rows(store, [voted(0, 2)], "plain")
    second, report = imports.import_rows(store, [voted(1, 5)], "plain")
    assert counting(store) == [("Ann", 1)] and report.outdated == 1
    assert store.value("SELECT human_ranks FROM comparisons") == 1
    undos.undo(store, second)
    assert counting(store) == [("Ann", 0)] and store.value("SELECT human_ranks FROM comparisons") == 1


def test_an_earlier_or_equal_vote_does_not_outdate_what_the_store_has(store):
    imports.import_rows(store, [voted(0, 4)], "plain")
    assert imports.import_rows(store, [voted(1, 3)], "plain")[1].outdated == 1
    assert imports.import_rows(store, [voted(1, 4)], "plain")[1].outdated == 1
    assert counting(store) == [("Ann", 0)] and store.value("SELECT human_ranks FROM comparisons") == 1


def test_statistics_take_the_later_of_votes_that_all_count(store):
    def unnamed(choice, at):
        return {"prompt": "Q?", "completions": ["a", "b"], "choice": choice, "created_at": f"2025-01-0{at}T00:00:00Z"}

    imports.import_rows(store, [unnamed(0, 3), unnamed(1, 1), unnamed(1, 2)], "plain")
    (latest,) = agreement.latest_votes(rankings.read(store)).ranks.tolist()
    assert latest == [0, 1]


# ---- sides


CHOICES = [(0, 0, 1), (0, 0, 0), (1, 1, 1), (1, 0, 1), (1, 1, 0)] * 4
"""Which of two answers three people prefer; .45 of the votes go to the second."""


def as_plain():
    for n, choices in enumerate(CHOICES):
        for who, choice in zip("ABC", choices, strict=True):
            yield {"prompt": f"Q{n}", "completions": ["a", "b"], "choice": choice, "annotator": who}


def as_trl():
    for n, choices in enumerate(CHOICES):
        for who, choice in zip("ABC", choices, strict=True):
            yield {"prompt": f"Q{n}", "chosen": "ab"[choice], "rejected": "ba"[choice], "annotator": who}


def test_figures_do_not_depend_on_which_answer_a_file_calls_chosen(store, tmp_path):
    imports.import_rows(store, as_plain(), "plain")
    other = Database(tmp_path / "other.db")
    imports.import_rows(other, as_trl(), "trl")
    one, two = agreement.report(store), agreement.report(other)
    assert one == two
    # Three of five comparisons have one pair of three apart: 2/3 of their ordered pairs, so 2/5 of all; by chance 30/59 of 60 values.
    assert one.alpha_nominal.value == pytest.approx(1 - (2 / 5) / (30 / 59))
    assert (one.left_share.n, one.left_share.share) == (0, None)
    assert [person.left_share.n for person in one.annotators] == [0, 0, 0]
    other.close()


def test_sides_that_a_file_records_count_and_are_exported(store):
    shown = {"prompt": "Q?", "completions": ["a", "b"], "choice": 0, "annotator": "Ann"}
    imports.import_rows(store, [shown | {"shown": [1, 0]}, shown | {"annotator": "Bob"}], "plain")
    found = agreement.report(store).left_share
    assert (found.n, found.share) == (1, 0)
    with store.snapshot():
        ((_, votes),) = export.grouped(store, names=True)
    assert [(vote.annotator, vote.sides_known) for vote in votes] == [("Ann", True), ("Bob", False)]


def test_a_plain_export_says_what_was_shown_only_where_that_is_known(store, tmp_path):
    from storage.exchange import plain

    shown = {"prompt": "Q?", "completions": ["a", "b"], "choice": 0, "annotator": "Ann"}
    imports.import_rows(store, [shown | {"shown": [1, 0]}, shown | {"annotator": "Bob"}], "plain")
    plain.write_jsonl(store, tmp_path / "out.jsonl", names=True)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [item.get("shown") for item in rows] == [[1, 0], None]


# ---- waiting


def test_a_round_waits_for_minutes_where_a_page_gives_up(store, monkeypatch):
    from storage.core import database

    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    page, worker = Database(store.path), Database(store.path)
    worker.use_training_timeout()
    assert worker.value("PRAGMA busy_timeout") == 600_000
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import sqlite3,sys; c=sqlite3.connect({str(store.path)!r}); c.execute('BEGIN IMMEDIATE'); "
         "print('held', flush=True); sys.stdin.readline()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StoreLocked), page.atomic():
        pass

    def write():
        with worker.atomic():
            pass

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        time.sleep(0.3)
        assert not written.done(), "six times as long as the page waits"
        holder.communicate("let go\n")
        written.result()
    page.close()
    worker.close()


class PowerCut(BaseException):
    pass


def break_off(when):
    """A callback that ends an undo after some of its slices."""

    def progress(done, total):
        if done and done >= when:
            raise PowerCut

    return progress


def test_an_undo_is_done_in_slices_and_its_votes_are_gone_at_once(store):
    import_id, _ = imports.import_rows(store, many(), "plain")
    seen_so_far = []

    def progress(done, total):
        seen_so_far.append((done, total))
        assert judgments.active(store, kinds=("human", "simulated")) == []
        assert len(rankings.read(store).judgment) == 0

    undone = undos.undo(store, import_id, progress=progress)
    assert len(seen_so_far) > 4 and seen_so_far[-1] == (ROWS + ROWS // 3, ROWS + ROWS // 3)
    assert (undone.judgments, undone.comparisons, undone.prompts) == (ROWS // 3, ROWS, ROWS)
    assert store.value("SELECT undoing FROM imports") is None and queue.depth(store) == 0


@pytest.mark.parametrize("when", [1, ROWS + 1])
def test_an_undo_that_was_broken_off_is_finished_by_the_next_start_or_import(world, when):
    store = world.store
    import_id, _ = imports.import_rows(store, [*many(), row(9_999)], "plain")
    expected = Database(store.path.with_name("other.db"))
    imports.import_rows(expected, [*many(), row(9_999)], "plain")
    undos.undo(expected, import_id)
    with pytest.raises(PowerCut):
        undos.undo(store, import_id, progress=break_off(when))
    assert import_records.is_being_undone(store, import_id)
    assert judgments.active(store, kinds=("human", "simulated")) == []
    interrupted.finish(store)
    assert not import_records.is_being_undone(store, import_id)
    for sql in ("SELECT retired, wanted, gold FROM comparisons WHERE import_id = 1 ORDER BY id", "SELECT counts FROM judgments ORDER BY id",
                "SELECT judgment_id FROM excluded_judgments ORDER BY 1",
                "SELECT retired FROM prompts WHERE import_id = 1 ORDER BY id"):  # fmt: skip
        assert [tuple(r) for r in store.rows(sql)] == [tuple(r) for r in expected.rows(sql)], sql
    assert len(exclusions.all_exclusions(store)) == 1
    imports.import_rows(store, many(3), "plain")


def test_an_import_finishes_the_undo_that_was_broken_off_before_it(store):
    import_id, _ = imports.import_rows(store, many(), "plain")
    with pytest.raises(PowerCut):
        undos.undo(store, import_id, progress=break_off(1))
    again, report = imports.import_rows(store, many(), "plain")
    assert again != import_id and report.comparisons == ROWS and len(judgments.active(store)) == ROWS // 3


def test_a_vote_after_an_undo_has_begun_is_excluded_too(world):
    store = world.store
    import_id, _ = imports.import_rows(store, [row(1), row(2)], "plain")
    store.connection.conn.execute("UPDATE imports SET undone_at = created_at, undoing = 0 WHERE id = ?", [import_id])
    world.rank(world.ann)
    assert len(judgments.active(store)) == 1
    interrupted.finish(store)
    assert judgments.active(store) == [] and exclusions.all_exclusions(store)[0].judgments == 1
