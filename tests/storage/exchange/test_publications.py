"""What an import changes of older rows: in slices, whoever judges meanwhile, and to its end if the process is killed."""

import os
import signal
import subprocess
import sys

import pytest

from storage.content import comparisons, prompts
from storage.core.database import Database, StoreLocked
from storage.exchange import import_records, import_writer, imports, interrupted, publications, undos
from storage.judging import exclusions, judgments, queue

ROWS = 60
"""Three slices at the slowest pace."""


def row(n, **more):
    return {"prompt": f"Question {n}?", "completions": [f"yes {n}", f"no {n}"], "models": ["m1", "m2"], **more}


def vote(n, choice, day):
    return row(n, choice=choice, annotator="Ann", created_at=f"2026-01-{day:02}T00:00:00Z")


def before(store):
    """Votes that later rows outdate, prompts of an import that was undone, and comparisons that wait."""
    imports.import_rows(store, [vote(n, 0, 2) for n in range(ROWS)], "plain", source="old")
    undone, _ = imports.import_rows(store, [row(1_000 + n) for n in range(ROWS)], "plain", source="undone")
    undos.undo(store, undone)


def rows():
    for n in range(ROWS):
        yield vote(n, 1, 3)
        yield vote(n, 1, 1)
        yield {"prompt": f"Question {1_000 + n}?", "completions": ["a", "b"]}


def state(store):
    """What pages, queue, training and figures are made of."""
    return {
        "votes": sorted((j.judgment.comparison_id, j.judgment.tiers) for j in judgments.active(store)),
        "ranks": [tuple(r) for r in store.rows("SELECT id, human_ranks, wanted, retired FROM comparisons ORDER BY id")],
        "queue": queue.depth(store),
        "prompts": [prompt.text for prompt in prompts.of_split(store)],
        "excluded": [tuple(r) for r in store.rows("SELECT judgment_id, exclusion_id FROM excluded_judgments ORDER BY 1, 2")],
        "reports": [found.report for found in import_records.all_imports(store)],
    }


def test_the_later_votes_count_and_everything_waits_in_the_queue(store):
    before(store)
    _, report = imports.import_rows(store, rows(), "plain")
    assert (report.judgments, report.outdated, report.unfinished) == (2 * ROWS, 2 * ROWS, {})
    found = state(store)
    assert len(found["votes"]) == ROWS and queue.depth(store) == ROWS and len(found["prompts"]) == 2 * ROWS
    # Each comparison from before has one vote, the later one.
    assert {ranks for _, ranks, _, _ in found["ranks"][:ROWS]} == {1}
    (exclusion,) = exclusions.all_exclusions(store)
    assert (exclusion.rule, exclusion.judgments) == ("judged again later", 2 * ROWS)
    assert not publications.is_unfinished(store)


def test_the_transaction_that_makes_an_import_visible_changes_a_row_of_each_table(store, monkeypatch):
    """However many rows the import has: others wait for it."""
    before(store)
    publish, changed = import_writer.ImportWriter.publish, []

    def counted(writer):
        was = store.connection.conn.total_changes
        publish(writer)
        changed.append(store.connection.conn.total_changes - was)

    monkeypatch.setattr(import_writer.ImportWriter, "publish", counted)
    imports.import_rows(store, rows(), "plain")
    # The import twice, its annotator and the exclusion.
    assert changed == [4]


CRASH = """
import os, signal, sys
from storage.core import unfinished_imports
from storage.core.database import Database
from storage.exchange import imports, publications
from storage.judging import exclusions, queue
from storage.content import comparisons, prompts
from tests.storage.exchange.test_publications import rows
module, name = {act!r}.split(".")
module = dict(exclusions=exclusions, queue=queue, comparisons=comparisons, prompts=prompts)[module]
act, calls = getattr(module, name), []
unfinished_imports.MAX_SLICE_ROWS = 20
def once(*args):
    act(*args)
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
setattr(module, name, once)
imports.import_rows(Database({path!r}), rows(), "plain")
"""


@pytest.mark.parametrize("act", ["prompts.reactivate", "comparisons.recount_votes", "exclusions.add", "queue.add_imported"])
def test_a_process_that_is_killed_in_between_leaves_the_rest_to_the_next_start(store, act):
    expected = Database(store.path.with_name("expected.db"))
    for one in (store, expected):
        before(one)
    imports.import_rows(expected, rows(), "plain")
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
    killed = subprocess.run([sys.executable, "-c", CRASH.format(path=str(store.path), act=act)], cwd=root, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # The import is there, and the rest is known.
    assert publications.is_unfinished(store) and len(import_records.all_imports(store)) == 3
    assert state(store) != state(expected)
    interrupted.finish(store)
    assert not publications.is_unfinished(store)
    assert state(store) == state(expected)


def test_the_next_import_and_an_undo_do_the_rest_first(store, monkeypatch):
    before(store)

    def locked(store, published):
        raise StoreLocked("busy")

    with monkeypatch.context() as patched:
        patched.setattr(publications, "finish", locked)
        import_id, report = imports.import_rows(store, rows(), "plain")
    assert set(report.unfinished) == {"restore", "recount", "exclude", "queue"} and queue.depth(store) == 0
    imports.import_rows(store, [row(5_000)], "plain")
    assert not publications.is_unfinished(store) and queue.depth(store) == ROWS + 1
    assert undos.undo(store, import_id).comparisons == ROWS
    # The votes from before count again.
    assert len(judgments.active(store)) == ROWS


def test_votes_are_counted_anew_whatever_was_counted(world):
    world.comparisons(1)
    world.rank(world.ann)
    store = world.store
    with store.atomic():
        comparisons.recount_votes(store, [1])
        comparisons.recount_votes(store, [1])
    assert store.value("SELECT human_ranks FROM comparisons WHERE id = 1") == 1
