"""Each kind of act once, with its time and the person who acted, newest first, page by page."""

import re

import pytest
from argon2 import PasswordHasher

from storage.content import batches
from storage.core.records import ProjectSettings, Sampling
from storage.judging import exclusions, gold, judgments
from storage.people import accounts, audit
from storage.people.audit import AuditEntry
from storage.project import guidelines, queued_rounds, runs, settings

pytestmark = pytest.mark.usefixtures("distinct_times")


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def acts_of(store, **options):
    """The acts, oldest first, without their times."""
    return [(entry.who, entry.act, entry.subject, entry.subject_id, entry.detail) for entry in audit.entries(store, **options)][::-1]


def at(second):
    return f"2026-11-01T10:00:{second:02}.000+00:00"


def add_acts(store, *seconds, by=None):
    """One act each second."""
    for second in seconds:
        store.insert("guidelines", {"text": f"version {second}", "by_id": by, "created_at": at(second)})


def add_votes(world, annotator, *seconds, **values):
    """One vote each second, on a comparison of its own."""
    for second in seconds:
        row = {"comparison_id": world.comparison(), "annotator_id": annotator.id, "verdict": "rank", "tiers": [[1], [2]]}
        world.store.insert("judgments", {**row, "created_at": at(second), **values})


def test_a_presentation_is_no_act(world):
    assert audit.entries(world.store) == []
    world.comparisons(2)
    world.next(world.ann)
    assert audit.entries(world.store) == []


def test_acts_of_annotators(world):
    world.comparisons(3)
    first = world.rank(world.ann)
    world.skip(world.bob)
    judgments.correct(world.store, first.id, world.ann.id, verdict="skip", skip_reason="두 답이 같음")
    judgments.undo(world.store, world.bob.id)
    world.rule_ranks(3)
    assert acts_of(world.store) == [
        ("Ann", "judged", "comparison", "1", ""),
        ("Bob", "skipped", "comparison", "2", "not sure"),
        ("Ann", "corrected", "comparison", "1", "두 답이 같음"),
        ("Bob", "undid", "comparison", "2", ""),
        ("longest", "judged", "comparison", "3", ""),
    ]


def test_acts_of_a_lead(world):
    store, bob = world.store, world.bob.id
    world.comparisons(2)
    vote = world.rank(world.ann)
    excluded = exclusions.exclude(store, [vote.id], rule="too fast", reason="0.2 s", by=bob)
    exclusions.lift(store, excluded.id, reason="It was not.", by=bob)
    gold.set_answer(store, 2, ((3,), (4,)), by=bob, note="checked")
    settings.change(store, ProjectSettings(overlap=2), by=bob)
    guidelines.publish(store, "Be kind.", by=bob)
    batch = batches.request(store, [world.policy.id], completions=2, sampling=Sampling(), count=7, by=bob)
    batches.add_generated(store, batch.id, 3)
    batches.cancel(store, batch.id, by=world.ann.id)
    acts = {(who, act, subject, number): detail for who, act, subject, number, detail in acts_of(store)}
    assert '"overlap":2' in acts.pop(("Bob", "changed settings", "settings", "1"))
    assert acts == {
        ("Ann", "judged", "comparison", "1"): "",
        ("Bob", "excluded", "exclusion", "1"): "too fast: 0.2 s",
        ("Bob", "lifted", "exclusion", "1"): "It was not.",
        ("Bob", "set gold answer", "comparison", "2"): "checked",
        ("Bob", "published", "guidelines", "1"): "",
        ("Bob", "asked for", "batch", "1"): "7 comparisons",
        ("Ann", "cancelled", "batch", "1"): "3 of 7 made",
    }
    assert len(audit.entries(store)) == 8


def test_acts_on_accounts_name_the_person_who_acted(world):
    store, ann, bob = world.store, str(world.ann.id), str(world.bob.id)
    lead = accounts.create(store, "Ann", "long enough", ["lead"])
    other = accounts.create(store, "Bob", "long enough", ["annotator"], by=lead.annotator.id)
    accounts.set_roles(store, other.id, ["annotator", "researcher"], by=lead.annotator.id)
    accounts.set_password(store, other.id, "longer than before", by=other.annotator.id)
    accounts.disable(store, other.id, by=lead.annotator.id)
    accounts.enable(store, other.id, by=lead.annotator.id)
    assert sorted((who or "", act, subject, number) for who, act, subject, number, _ in acts_of(store)) == [
        ("", "created", "account", ann),
        ("Ann", "created", "account", bob),
        ("Ann", "disabled", "account", bob),
        ("Ann", "enabled", "account", bob),
        ("Ann", "roles", "account", bob),
        ("Bob", "password", "account", bob),
    ]


def test_the_start_of_a_run_names_the_person(world):
    runs.create(world.store, "round-1", config={}, seed=7, versions={}, by=world.bob.id)
    assert acts_of(world.store) == [("Bob", "started", "run", "round-1", "")]


def test_an_import_is_one_act_however_large_and_undoing_it_another(world):
    store = world.store
    values = {"format": "csv", "source": "a.csv", "report": "{}", "by_id": world.bob.id, "created_at": at(1)}
    source = store.insert("imports", values)
    add_votes(world, world.ann, 0, 2, 3, import_id=source)
    assert audit.entries(store) == [AuditEntry(at(1), "Bob", "imported", "import", "1", "a.csv")]
    store.connection.conn.execute("UPDATE imports SET undone_by_id = ?, undone_at = ?", [world.ann.id, at(4)])
    assert audit.entries(store) == [
        AuditEntry(at(4), "Ann", "undid", "import", "1", "a.csv"),
        AuditEntry(at(1), "Bob", "imported", "import", "1", "a.csv"),
    ]


def test_each_act_has_the_time_of_its_row(world):
    world.comparison()
    vote = world.rank(world.ann)
    excluded = exclusions.exclude(world.store, [vote.id], rule="r", reason="r", by=None)
    assert {entry.act: entry.at for entry in audit.entries(world.store)} == {
        "judged": vote.created_at,
        "excluded": excluded.created_at,
    }


def test_judgments_and_other_acts_are_one_list_newest_first(world):
    add_acts(world.store, 1, 4)
    add_votes(world, world.ann, 0, 2, 3, 5)
    assert [entry.at for entry in audit.entries(world.store)] == [at(second) for second in (5, 4, 3, 2, 1, 0)]


def test_pages_meet_without_gap_or_overlap(world):
    add_acts(world.store, 1, 4, 4, 4)
    add_votes(world, world.ann, 0, 2, 4, 4, 5)
    whole = audit.entries(world.store)
    assert len(whole) == 9
    pages = [audit.entries(world.store, skip=skip, limit=2) for skip in range(0, 10, 2)]
    assert [entry for page in pages for entry in page] == whole
    assert [len(page) for page in pages] == [2, 2, 2, 2, 1]
    assert audit.entries(world.store, skip=9) == []
    assert audit.entries(world.store, limit=0) == []


def test_before_excludes_that_time(world):
    add_acts(world.store, 1, 3)
    add_votes(world, world.ann, 2, 4)
    assert [entry.at for entry in audit.entries(world.store, before=at(4))] == [at(3), at(2), at(1)]
    assert [entry.at for entry in audit.entries(world.store, before=at(4), skip=1, limit=1)] == [at(2)]
    assert audit.entries(world.store, before=at(1)) == []


def test_a_round_in_the_queue_is_an_act_of_who_asked_and_of_who_took_it_out(world):
    asked = queued_rounds.add(world.store, {}, trigger="hand", judges="people", by=world.ann.id)
    queued_rounds.take_out(world.store, asked.id, by=world.bob.id)
    queued_rounds.add(world.store, {}, trigger="schedule", judges="people")
    assert acts_of(world.store) == [
        ("Ann", "queued", "round", "1", ""),
        ("Bob", "took out", "round", "1", ""),
        (None, "queued", "round", "2", ""),
    ]


def test_who_named_a_run_is_told_with_the_name(world):
    runs.create(world.store, "r1", config={}, seed=0, versions={})
    runs.describe(world.store, "r1", name="Baseline", by=world.ann.id)
    runs.describe(world.store, "r1", note="Its KL is too high.", by=world.bob.id)
    assert [act for act in acts_of(world.store) if act[1] == "named"] == [
        ("Ann", "named", "run", "r1", "Baseline"),
        ("Bob", "named", "run", "r1", "Baseline"),
    ]


def test_acts_of_the_program_have_no_name(world):
    add_acts(world.store, 1)
    add_acts(world.store, 2, by=world.rule.id)
    assert [entry.who for entry in audit.entries(world.store)] == ["longest", None]


def test_the_view_has_every_by_id_column(store):
    sql = store.value("SELECT sql FROM sqlite_master WHERE name = 'acts'")
    for table in store.connection.tables:
        for column in table.columns:
            if column.name.endswith("by_id"):
                assert f"FROM {table.name}" in sql, table.name
                assert column.name in sql, f"{table.name}.{column.name}"


def test_the_view_audit_has_the_same_rows(world):
    add_acts(world.store, 1, 4)
    add_votes(world, world.ann, 0, 5)
    rows = world.store.rows("SELECT at, act, subject_id FROM audit ORDER BY at DESC")
    assert [tuple(row) for row in rows] == [(entry.at, entry.act, entry.subject_id) for entry in audit.entries(world.store)]


def test_a_page_of_judgments_is_read_by_their_ids_and_not_sorted(store):
    plan = store.rows("EXPLAIN QUERY PLAN SELECT at FROM judging_acts WHERE at < ? ORDER BY judgment_id DESC LIMIT ?", ["9999", 100])
    steps = [row["detail"] for row in plan]
    assert not [step for step in steps if "TEMP B-TREE" in step], steps


def test_acts_are_chosen_by_person_and_kind(world):
    add_acts(world.store, 1, 3, by=world.ann.id)
    add_acts(world.store, 2, by=world.bob.id)
    add_votes(world, world.ann, 4)
    assert [entry.at for entry in audit.entries(world.store, by=world.ann.id)] == [at(4), at(3), at(1)]
    assert [entry.at for entry in audit.entries(world.store, act="published")] == [at(3), at(2), at(1)]
    assert [entry.at for entry in audit.entries(world.store, by=world.ann.id, act="published", skip=1)] == [at(1)]
    assert audit.entries(world.store, by=world.rule.id) == []


def test_every_act_of_the_views_is_known(store):
    """What the views write as an act is in `ACTS`, so that a page can name and choose it."""
    written = {name for table, acts in ACTS_OF.items() for name in acts}
    assert written == set(audit.ACTS), "a view has an act that the page does not know, or the other way round"
    for view in ("acts", "judging_acts"):
        sql = store.value("SELECT sql FROM sqlite_master WHERE name = ?", [view])
        assert set(re.findall(r"by_id, '([a-z ]+)'(?: AS act)?, '", sql)) <= set(audit.ACTS)


ACTS_OF = {
    "judging_acts": ("judged", "skipped", "corrected", "undid"),
    "acts": (
        "excluded", "lifted", "set gold answer", "changed settings", "published", "imported", "asked for", "assigned", "cancelled",
        "edited", "started", "queued", "took out", "named",
    ),
    "prompt_events": ("retired", "restored"),
    "account_events": ("created", "roles", "password", "disabled", "enabled"),
    "decisions": ("promoted", "rejected", "rolled back"),
}  # fmt: skip
