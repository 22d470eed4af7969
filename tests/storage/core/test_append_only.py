"""What people did stays in the store: the database itself refuses to change or delete it, table by table.

Every table stands in one of the two lists below. A new one that stands in neither makes the first test fail.
"""

import sqlite3

import pytest

from storage.content import batches, policies, refusals
from storage.core.database import now
from storage.core.records import Details, Flag, IdealAnswer, ProjectSettings, Sampling
from storage.judging import exclusions, gold, judgments, queue
from storage.project import guidelines, queued_rounds, rounds, runs, settings

MAY_CHANGE = {
    "prompts": "retired starter",
    "policy_versions": "",
    "completions": "",
    "comparisons": "human_ranks human_skips leased gold priority wanted retired",
    "comparison_completions": "",
    "annotators": "name shows_name judged",
    "presentations": "",
    "leases": "expires_at ended_at outcome",
    "judgments": "counts",
    "aspect_ratings": "",
    "ideal_answers": "",
    "flags": "",
    "completion_labels": "",
    "gold_answers": "",
    "prompt_events": "",
    "exclusions": "",
    "excluded_judgments": "",
    "exclusion_lifts": "",
    "settings": "",
    "guidelines": "",
    "account_events": "",
    "imports": "report undone_by_id undone_at undoing",
    "batches": "generated cancelled_by_id cancelled_at",
    "batch_assignments": "",
    "prompt_edits": "",
    "rounds": "guards",
    "decisions": "",
    "run_names": "",
    "queued_rounds": "state run_id reason ended_by_id ended_at worker_at",
}
"""Tables that record an act, with the columns that may change: where a thing stands now, which other rows tell again."""

BOOKKEEPING = {
    "runs": "the state of a process",
    "metrics": "a resumed run writes its steps again",
    "run_samples": "the second half comes later",
    "accounts": "the password and roles of now; account_events has what was done",
    "sessions": "end",
    "sign_in_failures": "are forgotten",
    "queue": "which comparisons are open now",
    "queue_cursors": "how far each annotator has come",
    "released_presentations": "which gold comparisons and repeats are open now",
    "prompt_refusals": "are forgotten when a lead has the models asked again",
    "keys": "drawn once; a copy of the store draws its own",
}
"""Tables whose rows come and go, and why that loses nothing."""


@pytest.fixture
def full(world):
    """At least one row in every table."""
    store = world.store
    one, two, _, _ = world.comparisons(4)
    settings.change(store, ProjectSettings(overlap=2), by=world.bob.id)
    guidelines.publish(store, "Be kind.", by=world.bob.id)
    shown = queue.next_presentation(store, world.ann.id)[1]
    said = Details(
        "better",
        {shown.order[0]: {"helpful": 3}},
        "It is shorter.",
        IdealAnswer("Answer", shown.order[1]),
        (Flag("unsafe", "why", shown.order[0]),),
    )
    tiers = tuple((item,) for item in shown.order)
    first = judgments.save(store, shown.id, world.ann.id, verdict="rank", tiers=tiers, details=said)
    second = judgments.correct(store, first.id, world.ann.id, verdict="rank", tiers=tiers[::-1])
    excluded = exclusions.exclude(store, [second.id], rule="too fast", reason="0.2 s", by=world.bob.id)
    exclusions.lift(store, excluded.id, reason="It was not.", by=world.bob.id)
    gold.set_answer(store, two, ((3,), (4,)), by=world.bob.id)
    batches.request(store, [world.policy.id], completions=2, sampling=Sampling(), count=5, by=world.bob.id)
    runs.create(store, "round-1", config={}, seed=7, versions={})
    tuned = policies.register_tuned(store, name="tuned", base_model="hub/tiny", adapter_path="runs/round-1/adapter", run_id="round-1")
    rounds.create(store, "round-1", trigger="hand", judges="people", baseline=world.policy)
    rounds.decide(store, tuned, "promoted", decided_by="comparisons", reason="It wins.")
    queued_rounds.add(store, {"method": "ppo"}, trigger="schedule")
    runs.describe(store, "round-1", name="First", by=world.bob.id)
    for table, values in {
        "imports": {"format": "csv", "source": "a.csv", "report": "{}"},
        "accounts": {"annotator_id": world.bob.id, "password_hash": "$argon2id$", "roles": '["lead"]'},
        "account_events": {"annotator_id": world.bob.id, "act": "created", "by_id": world.bob.id},
        "sessions": {"token_hash": "f00d", "account_id": 1, "expires_at": now()},
        "sign_in_failures": {"name": "eve"},
    }.items():
        store.insert(table, {**values, "created_at": now()})
    store.insert("batch_assignments", {"batch_id": 1, "annotator_ids": [world.ann.id], "created_at": now()})
    store.insert("prompt_edits", {"prompt_id": world.prompt("Why, then?"), "from_id": 1, "created_at": now()})
    store.insert("prompt_events", {"prompt_id": 1, "act": "retired", "created_at": now()})
    store.insert("completion_labels", {"completion_id": 1, "annotator_id": 1, "good": 1, "created_at": now(), "import_id": 1})
    store.insert("keys", {"name": "x", "value": b"x"})
    refusals.add(store, 1, world.policy, "too long")
    store.insert("released_presentations", {"presentation_id": shown.id, "position": 1, "released_at": now()})
    store.insert("metrics", {"run_id": "round-1", "name": "kl", "step": 0, "value": 0.5})
    store.insert("run_samples", {"run_id": "round-1", "prompt_id": 1, "before": "b"})
    assert world.next(world.ann) not in (None, one, two)
    assert all(store.value(f"SELECT count(*) FROM {table}") for table in tables(store))
    return store


def tables(store):
    return sorted(set(store.connection.table_names()) - {"_sqlite_migrations", "sqlite_sequence"})


def columns(store, table):
    return [column.name for column in store.connection[table].columns]


def refusal(store, sql):
    """Why the database refuses this; None if it does not. Nothing is kept either way."""
    connection = store.connection.conn
    connection.execute("BEGIN")
    try:
        connection.execute(sql)
    except sqlite3.Error as error:
        return str(error)
    finally:
        connection.rollback()
    return None


def everything(store):
    return {table: [tuple(row) for row in store.rows(f"SELECT * FROM {table}")] for table in tables(store)}


def test_every_table_is_in_one_of_the_two_lists(store):
    assert tables(store) == sorted([*MAY_CHANGE, *BOOKKEEPING])


def test_rows_cannot_be_changed(full):
    before = everything(full)
    refused = {
        f"{table}.{column}": refusal(full, f'UPDATE {table} SET "{column}" = "{column}"')
        for table in MAY_CHANGE
        for column in columns(full, table)
    }
    passed = {name for name, why in refused.items() if why is None}
    assert passed == {f"{table}.{column}" for table, mutable in MAY_CHANGE.items() for column in mutable.split()}
    unclear = {name: why for name, why in refused.items() if name not in passed and "append-only" not in why}
    assert unclear == {}
    assert everything(full) == before


def test_rows_cannot_be_deleted(full):
    before = everything(full)
    refused = {table: refusal(full, f"DELETE FROM {table}") for table in MAY_CHANGE}
    assert refused == {table: f"{table} are append-only" for table in MAY_CHANGE}
    assert everything(full) == before


def test_rows_cannot_be_replaced(full):
    # REPLACE deletes what is in its way, and SQLite tells the triggers only if it is asked to.
    before = everything(full)
    refused = {table: refusal(full, f"REPLACE INTO {table} SELECT * FROM {table}") for table in MAY_CHANGE}
    assert refused == {table: f"{table} are append-only" for table in MAY_CHANGE}
    # Another id, but the same conversation.
    assert "append-only" in refusal(
        full,
        "REPLACE INTO prompts (messages, kind, split, source, digest, created_at) "
        "SELECT '[]', kind, split, source, digest, created_at FROM prompts",
    )
    assert everything(full) == before


def test_an_account_is_disabled_and_not_deleted(full):
    full.connection.conn.execute("DELETE FROM sessions")
    assert refusal(full, "DELETE FROM accounts") == "accounts are disabled, not deleted"


def test_the_refusal_is_raised_as_a_store_error(full):
    with pytest.raises(sqlite3.IntegrityError, match="guidelines are append-only"), full.atomic() as connection:
        connection.conn.execute("UPDATE guidelines SET text = 'Be quick.'")
    assert guidelines.current(full).text == "Be kind."
