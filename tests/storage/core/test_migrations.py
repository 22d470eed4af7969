"""Each migration from the schema before it: build the old one, migrate, compare columns, keys and rows."""

import hashlib
import json
import re
import sqlite3
from dataclasses import dataclass
from importlib import resources

import pytest
import sqlite_utils

from storage.analytics import stats
from storage.content import comparisons, prompts
from storage.core.database import Database
from storage.core.migrations import migrations
from storage.judging import judgments, presentations, queue
from storage.people import annotators
from storage.project import runs

COLUMNS_OF_M001 = {
    "prompts": "id messages kind split source digest created_at",
    "runs": (
        "id status config seed versions snapshot stage progress eta_s cancel_requested pid heartbeat_at created_at "
        "started_at finished_at error result"
    ),
    "policy_versions": "id name kind base_model adapter_path run_id created_at",
    "completions": "id prompt_id policy_version_id text sampling seed finish_reason latency_s created_at",
    "comparisons": "id prompt_id purpose human_ranks human_skips created_at",
    "comparison_completions": "comparison_id position completion_id",
    "annotators": "id name kind rule created_at",
    "presentations": "id comparison_id annotator_id slots answered undone_by created_at",
    "judgments": ("id comparison_id presentation_id annotator_id verdict tiers all_bad skip_reason supersedes created_at"),
    "metrics": "run_id name step value",
    "run_samples": "run_id prompt_id before after score_before score_after",
}

KEYS_OF_M001 = {
    ("policy_versions", "run_id", "runs", "id"),
    ("completions", "prompt_id", "prompts", "id"),
    ("completions", "policy_version_id", "policy_versions", "id"),
    ("comparisons", "prompt_id", "prompts", "id"),
    ("comparison_completions", "comparison_id", "comparisons", "id"),
    ("comparison_completions", "completion_id", "completions", "id"),
    ("presentations", "comparison_id", "comparisons", "id"),
    ("presentations", "annotator_id", "annotators", "id"),
    ("presentations", "undone_by", "judgments", "id"),
    ("judgments", "comparison_id", "comparisons", "id"),
    ("judgments", "presentation_id", "presentations", "id"),
    ("judgments", "annotator_id", "annotators", "id"),
    ("judgments", "supersedes", "judgments", "id"),
    ("metrics", "run_id", "runs", "id"),
    ("run_samples", "run_id", "runs", "id"),
    ("run_samples", "prompt_id", "prompts", "id"),
}


M001_AS_SHIPPED = "15ef0328d30d0da860cce51493b4601a9fd1a76c9923805ce4631865df96abc0"
"""SHA-256 of m001_loop.sql in version 0.1.0, before any other."""


@pytest.fixture
def before(tmp_path):
    raw = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    raw.execute("PRAGMA foreign_keys=ON")
    raw.execute("PRAGMA synchronous=OFF")
    yield sqlite_utils.Database(raw)
    raw.close()


def migrate(db, *, up_to=None):
    names = [migration.name for migration in migrations.pending(db)]
    following = names[names.index(up_to) + 1 :] if up_to else []
    migrations.apply(db, stop_before=following[:1])


def test_m001_makes_the_whole_schema_out_of_nothing(before):
    migrate(before, up_to="m001_loop")
    columns = {
        table.name: " ".join(column.name for column in table.columns) for table in before.tables if table.name != "_sqlite_migrations"
    }
    assert columns == COLUMNS_OF_M001
    keys = {(key.table, key.column, key.other_table, key.other_column) for t in before.tables for key in t.foreign_keys}
    assert keys == KEYS_OF_M001
    assert before["metrics"].pks == ["run_id", "name", "step"]
    assert before["comparison_completions"].pks == ["comparison_id", "position"]
    assert before["run_samples"].pks == ["run_id", "prompt_id"]
    assert before["runs"].pks == ["id"]
    assert before.view_names() == ["standing_judgments"]
    assert {trigger.name for trigger in before.triggers} == {
        "judgments_are_not_changed",
        "judgments_are_not_deleted",
        "judgments_answer_presentations",
        "judgments_by_people_are_counted",
    }


def test_a_second_time_does_nothing(before):
    migrate(before)
    schema = before.schema
    migrate(before)
    assert before.schema == schema
    assert migrations.pending(before) == []


def test_a_migration_that_fails_leaves_the_old_schema(before):
    before.conn.execute("CREATE TABLE runs (id TEXT)")
    with pytest.raises(sqlite3.OperationalError, match="runs already exists"):
        migrate(before)
    assert set(before.table_names()) == {"runs", "_sqlite_migrations"}


def test_what_was_shipped_is_never_edited():
    shipped = resources.files("storage.core.migrations").joinpath("m001_loop.sql").read_bytes()
    assert hashlib.sha256(shipped).hexdigest() == M001_AS_SHIPPED


# ---- the store as 0.1.0 wrote it

ANN, BOB, RULE = 1, 2, 3

SAMPLING = '{"temperature":1.0,"top_p":1.0,"top_k":0,"max_new_tokens":64}'


def at(minute):
    return f"2026-10-01T08:{minute:02}:00.000+00:00"


def put(db, table, *rows):
    """Rows in raw SQL, as the version of that time wrote them. The first of them names the columns."""
    columns, *values = rows
    names = ", ".join(f'"{column}"' for column in columns.split())
    marks = ", ".join("?" * len(columns.split()))
    db.conn.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)


def fill_m001(db):
    """Seven comparisons: ranked anew after an undo, skipped, undone, a rule's, untouched, skipped and ranked, held."""
    put(db, "prompts", "messages kind split source digest created_at",
        ('[{"role":"user","content":"Why is the sky blue?"}]', "explain", "train", "starter", "d1", at(0)),
        ('[{"role":"system","content":"짧게."},{"role":"user","content":"하늘은 왜 파란가요?"}]', "ko", "heldout", "import", "d2", at(0)),
    )  # fmt: skip
    put(db, "runs", "id status config seed versions snapshot stage progress eta_s pid heartbeat_at created_at error result",
        ("round-1", "done", '{"steps":2}', 7, '{"torch":"2.13.0"}', '{"pairs":20}', "report", 1.0, 0.0, 99, at(9), at(8), None, "{}"),
        ("round-2", "lost", "{}", 8, "{}", None, "ppo", 0.4, 12.5, 98, at(9), at(8), "It stopped.", None),
    )  # fmt: skip
    put(db, "policy_versions", "name kind base_model adapter_path run_id created_at",
        ("tiny", "base", "hub/tiny", None, None, at(0)),
        ("tiny-r1", "tuned", "hub/tiny", "runs/round-1/adapter", "round-1", at(10)),
        ("gpt", "external", "gpt", None, None, at(0)),
    )  # fmt: skip
    put(db, "completions", "prompt_id policy_version_id text sampling seed finish_reason latency_s created_at",
        *((2 if n == 5 else 1, 1, f"Answer {n} {side}", SAMPLING, n, "stop", 0.5, at(1)) for n in range(1, 8) for side in "ab"),
        (1, 2, "Answer 7 c", SAMPLING, None, "length", 1.5, at(1)),
    )  # fmt: skip
    put(db, "comparisons", "prompt_id purpose created_at", *((2 if n == 5 else 1, "collect", at(2)) for n in range(1, 8)))
    put(db, "comparison_completions", "comparison_id position completion_id",
        *((n, place, 2 * n - 1 + place) for n in range(1, 8) for place in (0, 1)), (7, 2, 15),
    )  # fmt: skip
    put(db, "annotators", "name kind rule created_at",
        ("Ann", "human", None, at(0)), ("Bob", "human", None, at(0)), ("longest", "simulated", "length", at(0)),
    )  # fmt: skip
    put(db, "presentations", "comparison_id annotator_id slots created_at",
        (1, ANN, "[2,1]", at(3)), (2, ANN, "[3,4]", at(3)), (3, BOB, "[6,5]", at(3)), (4, RULE, "[7,8]", at(3)),
        (6, ANN, "[11,12]", at(3)), (6, BOB, "[12,11]", at(3)), (7, BOB, "[15,13,14]", at(3)),
    )  # fmt: skip
    put(db, "judgments", "comparison_id presentation_id annotator_id verdict tiers all_bad skip_reason supersedes created_at",
        (1, 1, ANN, "rank", "[[1],[2]]", 0, None, None, at(4)),
        (1, 1, ANN, "retract", "[]", 0, None, 1, at(4)),
        (1, 1, ANN, "rank", "[[2],[1]]", 1, None, None, at(4)),
        (2, 2, ANN, "skip", "[]", 0, "둘 다 모르겠음", None, at(5)),
        (3, 3, BOB, "rank", "[[5,6]]", 0, None, None, at(5)),
        (3, 3, BOB, "retract", "[]", 0, None, 5, at(5)),
        (4, 4, RULE, "rank", "[[8],[7]]", 0, None, None, at(5)),
        (6, 5, ANN, "skip", "[]", 0, "not sure", None, at(6)),
        (6, 6, BOB, "rank", "[[12],[11]]", 0, None, None, at(7)),
    )  # fmt: skip
    put(db, "metrics", "run_id name step value", ("round-1", "kl", 0, 0.0), ("round-1", "kl", 1, 0.25))
    put(db, "run_samples", "run_id prompt_id before after score_before score_after",
        ("round-1", 1, "b", "a", -0.5, 0.5), ("round-1", 2, "b", None, None, None),
    )  # fmt: skip


def fill_m002(db):
    put(db, "accounts", "annotator_id password_hash roles created_at disabled_at",
        (ANN, "$argon2id$a", '["lead"]', at(11), None), (BOB, "$argon2id$b", '["annotator"]', at(11), at(12)),
    )  # fmt: skip
    put(db, "account_events", "annotator_id act detail by_id created_at",
        (ANN, "created", "lead", None, at(11)), (BOB, "created", "annotator", ANN, at(11)), (BOB, "disabled", "", ANN, at(12)),
    )  # fmt: skip
    put(db, "sessions", "token_hash account_id created_at expires_at", ("f00d", 1, at(13), at(59)))
    put(db, "sign_in_failures", "name created_at", ("eve", at(13)))


def fill_m003(db):
    """What a lead set, an import, a batch, and comparisons that are urgent, wanted twice, retired or imported."""
    put(db, "settings", "values by_id created_at", ('{"overlap":2}', ANN, at(20)))
    put(db, "guidelines", "text by_id created_at", ("Be kind.", ANN, at(20)), ("친절하게.", None, at(21)))
    put(db, "imports", "format source sha256 report by_id created_at undone_by_id undone_at",
        ("trl", "a.jsonl", "ab", "{}", ANN, at(22), None, None), ("csv", "b.csv", None, "{}", ANN, at(22), BOB, at(23)),
    )  # fmt: skip
    put(db, "batches", "policy_ids answers sampling asked made priority by_id created_at cancelled_at",
        ("[1,2]", 2, SAMPLING, 10, 4, 1, ANN, at(24), None), ("[1]", 9, SAMPLING, 5, 0, 0, None, at(24), at(25)),
    )  # fmt: skip
    put(db, "prompts", "messages kind split source digest created_at import_id retired",
        ('[{"role":"user","content":"imported"}]', "imported", "train", "b.csv", "d3", at(22), 2, 1),
    )  # fmt: skip
    put(db, "comparisons", "prompt_id purpose created_at import_id batch_id priority wanted retired digest",
        (1, "batch", at(24), None, 1, 5, 1, 0, "c8"), (1, "import", at(22), 1, None, 0, 2, 0, "c9"),
    )  # fmt: skip
    db.conn.execute("UPDATE comparisons SET wanted = 2 WHERE id = 6")


def fill_m004(db):
    """A judgment that says all it may, an imported one, and an exclusion that was lifted."""
    put(db, "presentations", "comparison_id annotator_id slots created_at purpose guidelines_id",
        (5, ANN, "[10,9]", at(30), "vote", 2), (4, ANN, "[8,7]", at(30), "repeat", 1),
    )  # fmt: skip
    put(db, "judgments",
        "comparison_id presentation_id annotator_id verdict tiers created_at strength partial rationale active_ms idle_ms "
        "client_ms server_ms import_id",
        (5, 8, ANN, "rank", "[[10],[9]]", at(31), "slightly", 1, "더 짧다.", 900, 100, 1000, 1200, None),
        (9, None, BOB, "rank", "[[1],[2]]", at(22), None, 0, "", None, None, None, None, 1),
    )  # fmt: skip
    put(db, "aspect_ratings", "judgment_id completion_id aspect rating", (10, 9, "helpful", 2), (10, 10, "helpful", 5))
    put(db, "ideal_answers", "judgment_id completion_id text edit_distance", (10, 9, "Answer 5", 2))
    put(db, "flags", "judgment_id completion_id kind note", (10, None, "broken_prompt", "?"), (10, 9, "unsafe", ""))
    put(db, "exclusions", "rule reason by_id created_at", ("too fast", "0.2 s", ANN, at(32)))
    put(db, "excluded_judgments", "judgment_id exclusion_id", (9, 1))
    put(db, "exclusion_lifts", "exclusion_id reason by_id created_at", (1, "It was not.", ANN, at(33)))


def fill_m005(db):
    put(db, "leases", "presentation_id comparison_id annotator_id policy propensity created_at expires_at ended_at outcome",
        (7, 7, BOB, "oldest", 1.0, at(40), at(59), None, None), (1, 1, ANN, "undo", 0.5, at(40), at(55), at(41), "judged"),
    )  # fmt: skip
    put(db, "line_places", "annotator_id priority ticket asked_at", (BOB, 0, 3, at(40)))
    put(db, "gold_answers", "comparison_id tiers note by_id created_at", (3, "[[5],[6]]", "checked", ANN, at(42)))


def fill_m006(db):
    """It only forbids and looks: there is nothing new to fill; m007 adds a column that old rows leave empty."""


def fill_m007(db):
    """What the reward model was worth, and somebody who guesses."""
    db.conn.execute("""UPDATE runs SET validation = '{"pairs":40}' WHERE id = 'round-1'""")
    put(db, "sign_in_failures", "name created_at", ("ann", at(60)), ("nobody", at(61)))


def fill_m008(db):
    """The key of the names that browsers know, and a repeat that was given back."""
    put(db, "keys", "name value", ("row tokens", b"0123456789abcdef"))
    put(db, "given_back", "presentation_id ticket at", (9, 3, at(63)))


def fill_m009(db):
    """Leases of every kind and outcome, and a queue whose last comparison is gone."""
    put(db, "sign_in_failures", "name created_at origin", ("ann", at(64), "10.0.0.1"))
    put(db, "leases", "presentation_id comparison_id annotator_id policy propensity created_at expires_at ended_at outcome",
        (9, 4, ANN, "repeat", 0.25, at(44), at(45), at(46), "lapsed"), (2, 2, ANN, "gold", 0.1, at(44), at(59), None, None),
        (3, 3, BOB, "oldest", 0.9, at(44), at(45), at(45), "lapsed"),
    )  # fmt: skip
    db.conn.execute("UPDATE comparisons SET retired = 1 WHERE id = (SELECT comparison_id FROM line ORDER BY ticket DESC LIMIT 1)")


FILLS = {
    "m001_loop": fill_m001,
    "m002_people": fill_m002,
    "m003_project": fill_m003,
    "m004_detail": fill_m004,
    "m005_leases": fill_m005,
    "m006_audit": fill_m006,
    "m007_validation": fill_m007,
    "m008_blindness": fill_m008,
    "m009_sign_in": fill_m009,
}
LATER_FILLS = {
    "m014_refusals": lambda db: put(db, "prompt_refusals", "prompt_id base_model reason created_at", (1, "m", "long", at(74))),
    "m017_completion_labels": lambda db: put(
        db, "completion_labels", "id completion_id annotator_id good rationale created_at import_id", (1, 1, 1, 1, "why", at(75), 1)
    ),
    "m018_undos_and_prompt_events": lambda db: put(db, "prompt_events", "prompt_id act by_id created_at", (3, "retired", ANN, at(76))),
    "m019_rounds": lambda db: put(
        db,
        "decisions",
        "round_id version_id act decided_by reason current_before_id created_at",
        (1, 2, "promoted", "comparisons", "It wins.", 1, at(77)),
    ),
    "m020_queued_rounds": lambda db: put(db, "queued_rounds", "id trigger judges config created_at", (1, "hand", "people", "{}", at(78))),
    "m021_batch_choices": lambda db: (
        put(db, "batch_assignments", "batch_id annotator_ids by_id created_at", (1, "[1]", ANN, at(80))),
        put(db, "prompt_edits", "prompt_id from_id by_id created_at", (2, 1, ANN, at(81))),
    ),
    "m024_run_names": lambda db: put(db, "run_names", "run_id name note by_id created_at", ("round-1", "Baseline", "Slow.", ANN, at(82))),
}
"""Of tables that came after those whose views are compared below."""


@dataclass
class Step:
    """One migration as it went: what the database was before and what it became."""

    db: sqlite_utils.Database
    old: dict
    new: dict

    def added(self, kind):
        return self.new[kind] - self.old[kind]

    def dropped(self, kind):
        return self.old[kind] - self.new[kind]

    def rows(self, sql):
        return [tuple(row) for row in self.db.conn.execute(sql)]


def look(db):
    """The schema in sets to subtract, and every row of every table."""
    tables = [table for table in db.tables if table.name not in ("_sqlite_migrations", "sqlite_sequence")]
    named = db.conn.execute("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {
        "columns": {f"{table.name}.{column.name}" for table in tables for column in table.columns},
        "keys": {f"{key.table}.{key.column} -> {key.other_table}.{key.other_column}" for t in tables for key in t.foreign_keys},
        "indexes": {name for kind, name in named if kind == "index"},
        "triggers": {name for kind, name in named if kind == "trigger"},
        "views": {name for kind, name in named if kind == "view"},
        "rows": {table.name: list(table.rows) for table in tables},
    }


@pytest.fixture
def step(before):
    """Builds the schema that `name` meets, with rows of every kind that there were, and migrates that one."""

    def migrate_one(name):
        names = [migration.name for migration in migrations._migrations]
        for earlier in names[: names.index(name)]:
            migrate(before, up_to=earlier)
            if fill := (FILLS | LATER_FILLS).get(earlier):
                fill(before)
        old = look(before)
        migrate(before, up_to=name)
        assert before.conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert before.conn.execute("PRAGMA foreign_key_check").fetchall() == []
        for view in before.view_names():
            before.conn.execute(f"SELECT * FROM {view}").fetchall()
        return Step(before, old, look(before))

    return migrate_one


def assert_kept(step, *changed):
    """Every row is there with every value that it had, but for the columns in `changed`; nothing came to the old tables."""
    for table, rows in step.old["rows"].items():
        keep = [column for column in (rows[0] if rows else ()) if f"{table}.{column}" not in changed]
        was = [[row[column] for column in keep] for row in rows]
        assert [[row[column] for column in keep] for row in step.new["rows"][table]] == was, table
        assert rows, f"{table} had no row to lose"


def assert_dropped_nothing(step):
    for kind in ("columns", "keys", "indexes", "triggers", "views"):
        assert step.dropped(kind) == set(), kind


def words(text):
    return set(text.split())


def test_m002_gives_every_annotator_a_pseudonym_and_a_count(step):
    done = step("m002_people")
    assert_kept(done)
    assert done.added("columns") == words(
        "annotators.pseudonym annotators.shows_name annotators.judged "
        "accounts.id accounts.annotator_id accounts.password_hash accounts.roles accounts.created_at accounts.disabled_at "
        "account_events.id account_events.annotator_id account_events.act account_events.detail account_events.by_id "
        "account_events.created_at sessions.token_hash sessions.account_id sessions.created_at sessions.expires_at "
        "sign_in_failures.id sign_in_failures.name sign_in_failures.created_at"
    )
    assert done.added("keys") == {
        "accounts.annotator_id -> annotators.id",
        "account_events.annotator_id -> annotators.id",
        "account_events.by_id -> annotators.id",
        "sessions.account_id -> accounts.id",
    }
    assert done.added("indexes") == words("annotators_pseudonym sessions_account sign_in_failures_name")
    assert done.added("triggers") == {"annotators_get_a_pseudonym"}
    assert_dropped_nothing(done)
    # Ann: ranked anew, two skips. Bob: one of two, the other undone.
    assert done.rows("SELECT name, shows_name, judged FROM annotators") == [("Ann", 0, 3), ("Bob", 0, 1), ("longest", 0, 1)]
    pseudonyms = [row[0] for row in done.rows("SELECT pseudonym FROM annotators")]
    assert len(set(pseudonyms)) == 3
    assert all(len(name) == 12 and set(name) <= set("0123456789abcdef") for name in pseudonyms)


def test_m002_s_pseudonyms_are_random_and_kept_when_given(before):
    migrate(before, up_to="m001_loop")
    fill_m001(before)
    before.conn.execute("BEGIN")
    drawn = set()
    for _ in range(2):
        before.conn.execute("SAVEPOINT again")
        migrations._migrations[1].fn(before)
        drawn |= {row[0] for row in before.conn.execute("SELECT pseudonym FROM annotators")}
        before.conn.execute("ROLLBACK TO again")
    before.conn.execute("ROLLBACK")
    assert len(drawn) == 6
    migrate(before, up_to="m002_people")
    put(before, "annotators", "name kind created_at pseudonym", ("Cy", "human", at(1), "c0ffee"), ("Di", "human", at(1), None))
    given, made = [row[0] for row in before.conn.execute("SELECT pseudonym FROM annotators WHERE id > 3 ORDER BY id")]
    assert given == "c0ffee"
    assert len(made) == 12
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE constraint failed: annotators.pseudonym"):
        put(before, "annotators", "name kind created_at pseudonym", ("Ed", "human", at(1), "c0ffee"))


def test_m003_adds_what_a_project_says_and_leaves_comparisons_as_they_were(step):
    done = step("m003_project")
    assert_kept(done)
    assert done.added("columns") == words(
        "settings.id settings.values settings.by_id settings.created_at "
        "guidelines.id guidelines.text guidelines.by_id guidelines.created_at "
        "imports.id imports.format imports.source imports.sha256 imports.report imports.by_id imports.created_at "
        "imports.undone_by_id imports.undone_at "
        "batches.id batches.policy_ids batches.answers batches.sampling batches.asked batches.made batches.priority batches.by_id "
        "batches.created_at batches.cancelled_by_id batches.cancelled_at "
        "runs.by_id prompts.import_id prompts.retired comparisons.import_id comparisons.batch_id comparisons.priority "
        "comparisons.wanted comparisons.retired comparisons.digest"
    )
    assert done.added("keys") == {
        "settings.by_id -> annotators.id",
        "guidelines.by_id -> annotators.id",
        "imports.by_id -> annotators.id",
        "imports.undone_by_id -> annotators.id",
        "batches.by_id -> annotators.id",
        "batches.cancelled_by_id -> annotators.id",
        "runs.by_id -> annotators.id",
        "prompts.import_id -> imports.id",
        "comparisons.import_id -> imports.id",
        "comparisons.batch_id -> batches.id",
    }
    assert done.added("indexes") == words("comparisons_digest comparisons_import comparisons_batch prompts_import")
    assert done.added("triggers") == set()
    assert_dropped_nothing(done)
    assert done.rows("SELECT import_id, batch_id, priority, wanted, retired, digest FROM comparisons") == [(None, None, 0, 1, 0, None)] * 7
    assert done.rows("SELECT import_id, retired FROM prompts") == [(None, 0)] * 2
    assert done.rows("SELECT by_id FROM runs") == [(None,)] * 2


def test_m003_refuses_batches_that_make_no_sense(before):
    migrate(before, up_to="m003_project")
    for answers, asked in ((1, 5), (10, 5), (2, 0)):
        with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed"):
            put(before, "batches", "policy_ids answers sampling asked created_at", ("[1]", answers, SAMPLING, asked, at(1)))


def test_m004_gives_judgments_room_for_all_they_can_say(step):
    done = step("m004_detail")
    assert_kept(done)
    assert done.added("columns") == words(
        "presentations.purpose presentations.guidelines_id "
        "judgments.purpose judgments.strength judgments.partial judgments.rationale judgments.active_ms judgments.idle_ms "
        "judgments.client_ms judgments.server_ms judgments.import_id judgments.counts "
        "aspect_ratings.judgment_id aspect_ratings.completion_id aspect_ratings.aspect aspect_ratings.rating "
        "ideal_answers.judgment_id ideal_answers.completion_id ideal_answers.text ideal_answers.edit_distance "
        "flags.id flags.judgment_id flags.completion_id flags.kind flags.note "
        "exclusions.id exclusions.rule exclusions.reason exclusions.by_id exclusions.created_at "
        "excluded_judgments.judgment_id excluded_judgments.exclusion_id "
        "exclusion_lifts.exclusion_id exclusion_lifts.reason exclusion_lifts.by_id exclusion_lifts.created_at"
    )
    assert done.added("keys") == {
        "presentations.guidelines_id -> guidelines.id",
        "judgments.import_id -> imports.id",
        "aspect_ratings.judgment_id -> judgments.id",
        "aspect_ratings.completion_id -> completions.id",
        "ideal_answers.judgment_id -> judgments.id",
        "ideal_answers.completion_id -> completions.id",
        "flags.judgment_id -> judgments.id",
        "flags.completion_id -> completions.id",
        "exclusions.by_id -> annotators.id",
        "excluded_judgments.judgment_id -> judgments.id",
        "excluded_judgments.exclusion_id -> exclusions.id",
        "exclusion_lifts.exclusion_id -> exclusions.id",
        "exclusion_lifts.by_id -> annotators.id",
    }
    assert done.added("indexes") == words("judgments_import flags_judgment excluded_judgments_exclusion")
    assert done.db["aspect_ratings"].pks == ["judgment_id", "completion_id", "aspect"]
    assert done.db["excluded_judgments"].pks == ["judgment_id", "exclusion_id"]
    assert_dropped_nothing(done)
    assert done.rows("SELECT DISTINCT purpose, guidelines_id FROM presentations") == [("vote", None)]
    # Nothing counts before m005 has looked at what supersedes what.
    assert done.rows(
        "SELECT DISTINCT purpose, strength, partial, rationale, active_ms, idle_ms, client_ms, server_ms, import_id, counts FROM judgments"
    ) == [("vote", None, 0, "", None, None, None, None, None, 0)]


@pytest.mark.parametrize(
    ("table", "columns", "row"),
    [
        ("presentations", "comparison_id annotator_id slots created_at purpose", (1, ANN, "[1,2]", at(1), "practice")),
        ("judgments", "comparison_id annotator_id verdict created_at strength", (1, ANN, "rank", at(1), "hugely")),
        ("judgments", "comparison_id annotator_id verdict created_at purpose", (1, ANN, "rank", at(1), "practice")),
        ("flags", "judgment_id kind", (1, "boring")),
        ("exclusions", "rule reason created_at", ("too fast", None, at(1))),
    ],
)
def test_m004_refuses_words_that_nobody_agreed_on(before, table, columns, row):
    migrate(before, up_to="m003_project")
    put(before, "prompts", "messages kind split source digest created_at", ("[]", "k", "train", "s", "d", at(0)))
    put(before, "comparisons", "prompt_id purpose created_at", (1, "collect", at(0)))
    put(before, "annotators", "name kind created_at", ("Ann", "human", at(0)))
    put(before, "judgments", "comparison_id annotator_id verdict created_at", (1, ANN, "rank", at(0)))
    migrate(before, up_to="m004_detail")
    with pytest.raises(sqlite3.IntegrityError, match="constraint failed"):
        put(before, table, columns, row)


def test_m005_adds_the_queue_and_counts(step):
    done = step("m005_leases")
    assert_kept(done, "presentations.answered", "presentations.undone_by", "judgments.counts")
    assert done.added("columns") == words(
        "comparisons.leased comparisons.gold "
        "leases.id leases.presentation_id leases.comparison_id leases.annotator_id leases.policy leases.propensity "
        "leases.created_at leases.expires_at leases.ended_at leases.outcome "
        "line.ticket line.comparison_id line.priority "
        "line_places.annotator_id line_places.priority line_places.ticket line_places.asked_at "
        "gold_answers.id gold_answers.comparison_id gold_answers.tiers gold_answers.note gold_answers.by_id gold_answers.created_at"
    )
    assert done.dropped("columns") == {"presentations.answered", "presentations.undone_by"}
    assert done.added("keys") == {
        "leases.presentation_id -> presentations.id",
        "leases.comparison_id -> comparisons.id",
        "leases.annotator_id -> annotators.id",
        "line.comparison_id -> comparisons.id",
        "line_places.annotator_id -> annotators.id",
        "gold_answers.comparison_id -> comparisons.id",
        "gold_answers.by_id -> annotators.id",
    }
    assert done.dropped("keys") == {"presentations.undone_by -> judgments.id"}
    assert done.added("indexes") == words(
        "leases_presentation leases_held leases_expiring line_priority gold_answers_comparison comparisons_gold judgments_created"
    )
    assert done.dropped("indexes") == words("presentations_unanswered comparisons_unranked")
    assert done.added("triggers") == words(
        "judgments_count skips_by_people_are_counted leases_reserve leases_release comparisons_join_the_line "
        "comparisons_leave_the_line comparisons_rejoin_the_line comparisons_change_their_place gold_answers_mark "
        "exclusions_uncount exclusion_lifts_recount"
    )
    assert done.dropped("triggers") == {"judgments_answer_presentations"}
    assert done.new["views"] == {"standing_judgments", "votes"}
    assert done.db["line_places"].pks == ["annotator_id", "priority"]
    # Of 1, 2 and 3 only the last stands; 4 and 8 are skips, 6 retracts 5; 7 is the rule's; 9 was excluded and lifted.
    assert done.rows("SELECT id FROM judgments WHERE counts = 1") == [(3,), (7,), (9,), (10,), (11,)]
    assert done.rows("SELECT id, annotator_kind FROM votes") == [
        (3, "human"), (7, "simulated"), (9, "human"), (10, "human"), (11, "human"),
    ]  # fmt: skip
    assert done.rows("SELECT DISTINCT leased, gold FROM comparisons") == [(0, 0)]


def test_m005_queues_comparisons_that_need_votes_oldest_first_and_skipped_ones_last(step):
    done = step("m005_leases")
    # 1 and 5 have their one; 6 wants a second; 8 is urgent, 9 wants two. Skipped were 2 and 6.
    assert done.rows("SELECT comparison_id, priority FROM line ORDER BY ticket") == [
        (3, 0), (4, 0), (7, 0), (8, 5), (9, 0), (2, 0), (6, 0),
    ]  # fmt: skip


def test_m006_adds_only_triggers_and_views(step):
    done = step("m006_audit")
    assert_kept(done)
    for kind in ("columns", "keys", "indexes"):
        assert done.old[kind] == done.new[kind]
    assert_dropped_nothing(done)
    assert done.added("views") == words("acts acts_of_judging audit")
    guarded = words(
        "prompts policy_versions completions comparisons comparison_completions annotators presentations leases aspect_ratings "
        "ideal_answers flags gold_answers exclusions excluded_judgments exclusion_lifts settings guidelines account_events imports "
        "batches"
    )
    assert {f"{table}_are_not_{done_to}" for table in guarded for done_to in ("changed", "deleted")} | {
        "accounts_are_not_deleted",
        "pseudonyms_are_not_changed",
    } == done.added("triggers")


def test_m006_audit_includes_earlier_acts(step):
    done = step("m006_audit")
    assert done.rows("SELECT at, by_id, act, subject, subject_id, detail FROM audit ORDER BY at, subject, act, subject_id, by_id") == [
        (at(4), ANN, "judged", "comparison", "1", ""),
        (at(4), ANN, "judged", "comparison", "1", ""),
        (at(4), ANN, "undid", "comparison", "1", ""),
        (at(5), BOB, "judged", "comparison", "3", ""),
        (at(5), RULE, "judged", "comparison", "4", ""),
        (at(5), ANN, "skipped", "comparison", "2", "둘 다 모르겠음"),
        (at(5), BOB, "undid", "comparison", "3", ""),
        (at(6), ANN, "skipped", "comparison", "6", "not sure"),
        (at(7), BOB, "judged", "comparison", "6", ""),
        (at(8), None, "started", "run", "round-1", ""),
        (at(8), None, "started", "run", "round-2", ""),
        (at(11), None, "created", "account", "1", "lead"),
        (at(11), ANN, "created", "account", "2", "annotator"),
        (at(12), ANN, "disabled", "account", "2", ""),
        (at(20), ANN, "published", "guidelines", "1", ""),
        (at(20), ANN, "changed settings", "settings", "1", '{"overlap":2}'),
        (at(21), None, "published", "guidelines", "2", ""),
        (at(22), ANN, "imported", "import", "1", "a.jsonl"),
        (at(22), ANN, "imported", "import", "2", "b.csv"),
        (at(23), BOB, "undid", "import", "2", "b.csv"),
        (at(24), ANN, "asked for", "batch", "1", "10 comparisons"),
        (at(24), None, "asked for", "batch", "2", "5 comparisons"),
        (at(25), None, "cancelled", "batch", "2", "0 of 5 made"),
        (at(31), ANN, "judged", "comparison", "5", ""),
        (at(32), ANN, "excluded", "exclusion", "1", "too fast: 0.2 s"),
        (at(33), ANN, "lifted", "exclusion", "1", "It was not."),
        (at(42), ANN, "set gold answer", "comparison", "3", "checked"),
    ]


def test_m007_gives_a_run_room_for_its_validation(step):
    done = step("m007_validation")
    assert_kept(done)
    assert done.added("columns") == {"runs.validation"}
    for kind in ("keys", "indexes", "triggers", "views"):
        assert done.old[kind] == done.new[kind]
    assert_dropped_nothing(done)
    assert done.rows("SELECT id, status, result, validation FROM runs ORDER BY id") == [
        ("round-1", "done", "{}", None), ("round-2", "lost", None, None),
    ]  # fmt: skip


def test_m008_records_released_gold_and_repeats(step):
    done = step("m008_blindness")
    assert_kept(done)
    assert done.added("columns") == words("keys.name keys.value given_back.presentation_id given_back.ticket given_back.at")
    assert done.added("keys") == {"given_back.presentation_id -> presentations.id"}
    assert done.added("triggers") == words(
        "lapsed_is_given_back skipped_is_given_back ranked_is_not_given_back excluded_is_given_back lifted_is_not_given_back"
    )
    assert done.added("indexes") == done.added("views") == set()
    assert_dropped_nothing(done)
    assert done.rows("SELECT * FROM keys") == done.rows("SELECT * FROM given_back") == []
    # Nine comparisons have drawn a ticket. Presentation 9 is a repeat, 7 a vote that its annotator holds.
    put(done.db, "leases", "id presentation_id comparison_id annotator_id policy propensity created_at expires_at",
        (20, 9, 4, ANN, "repeat", 0.5, at(50), at(51)),
    )  # fmt: skip
    last = done.rows("SELECT seq FROM sqlite_sequence WHERE name = 'line'")[0][0]
    done.db.conn.execute("UPDATE leases SET ended_at = ?, outcome = 'lapsed' WHERE id = 20", [at(52)])
    assert done.rows("SELECT * FROM given_back") == [(9, last, at(52))]
    done.db.conn.execute("UPDATE leases SET ended_at = ?, outcome = 'lapsed' WHERE presentation_id = 7", [at(53)])
    assert done.rows("SELECT presentation_id FROM given_back") == [(9,)]
    judged = "id comparison_id presentation_id annotator_id verdict skip_reason tiers supersedes purpose created_at"
    put(done.db, "judgments", judged, (30, 4, 9, ANN, "rank", None, "[[7],[8]]", None, "repeat", at(54)))
    assert done.rows("SELECT * FROM given_back") == []
    put(done.db, "judgments", judged, (31, 4, 9, ANN, "skip", "x", "[]", 30, "repeat", at(55)))
    assert done.rows("SELECT presentation_id, at FROM given_back") == [(9, at(55))]
    put(done.db, "judgments", judged, (32, 4, 9, ANN, "rank", None, "[[7],[8]]", 31, "repeat", at(56)))
    put(done.db, "exclusions", "id rule reason created_at", (9, "r", "r", at(57)))
    put(done.db, "excluded_judgments", "judgment_id exclusion_id", (32, 9))
    assert done.rows("SELECT presentation_id, at FROM given_back") == [(9, at(57))]
    put(done.db, "exclusion_lifts", "exclusion_id reason created_at", (9, "no", at(58)))
    assert done.rows("SELECT * FROM given_back") == []


def test_m009_counts_wrong_passwords_by_where_they_came_from(step):
    done = step("m009_sign_in")
    assert_kept(done)
    assert done.added("columns") == {"sign_in_failures.origin"}
    for kind in ("keys", "indexes", "triggers", "views"):
        assert done.old[kind] == done.new[kind]
    assert_dropped_nothing(done)
    # From nowhere that is known: they count against every address together.
    assert done.rows("SELECT name, origin FROM sign_in_failures ORDER BY id")[-2:] == [("ann", ""), ("nobody", "")]


NAMES_OF_M010 = {
    "line.ticket": "queue.position", "line.comparison_id": "queue.comparison_id", "line.priority": "queue.priority",
    "line_places.annotator_id": "queue_cursors.annotator_id", "line_places.priority": "queue_cursors.priority",
    "line_places.ticket": "queue_cursors.position", "line_places.asked_at": "queue_cursors.requested_at",
    "given_back.presentation_id": "released_presentations.presentation_id", "given_back.ticket": "released_presentations.position",
    "given_back.at": "released_presentations.released_at", "leases.policy": "leases.selection", "batches.answers": "batches.completions",
    "batches.asked": "batches.requested", "batches.made": "batches.generated",
}  # fmt: skip
"""Columns before and after m010."""

VALUES_OF_M010 = {("leases.selection", "oldest"): "queue", ("leases.outcome", "lapsed"): "expired"}


def after_m010(rows_of):
    """Rows of every table of m009 under the names and values of m010."""
    renamed = {}
    for table, rows in rows_of.items():
        new = {column: NAMES_OF_M010.get(f"{table}.{column}", f"{table}.{column}") for column in rows[0]}
        name = new[next(iter(new))].split(".")[0]
        renamed[name] = [{new[c].split(".")[1]: VALUES_OF_M010.get((new[c], value), value) for c, value in row.items()} for row in rows]
    return renamed


def test_m010_renames_and_keeps_every_row(step):
    done = step("m010_names")
    assert all(done.old["rows"].values()), "a table had no row to lose"
    assert done.new["rows"] == after_m010(done.old["rows"])
    assert done.dropped("columns") == set(NAMES_OF_M010)
    assert done.added("columns") == set(NAMES_OF_M010.values())
    assert done.dropped("keys") == {
        "line.comparison_id -> comparisons.id",
        "line_places.annotator_id -> annotators.id",
        "given_back.presentation_id -> presentations.id",
    }
    assert done.added("keys") == {
        "queue.comparison_id -> comparisons.id",
        "queue_cursors.annotator_id -> annotators.id",
        "released_presentations.presentation_id -> presentations.id",
    }
    assert (done.dropped("indexes"), done.added("indexes")) == (words("line_priority leases_held"), words("queue_priority leases_active"))
    assert (done.dropped("views"), done.added("views")) == (
        words("standing_judgments acts_of_judging"),
        words("active_judgments judging_acts"),
    )
    assert done.dropped("triggers") == words(
        "judgments_count comparisons_join_the_line comparisons_leave_the_line comparisons_rejoin_the_line comparisons_change_their_place "
        "lapsed_is_given_back skipped_is_given_back ranked_is_not_given_back excluded_is_given_back lifted_is_not_given_back"
    )
    assert done.added("triggers") == words(
        "judgments_update_counts comparisons_enter_queue comparisons_leave_queue comparisons_enter_queue_again comparisons_change_priority "
        "expired_presentations_are_released skipped_presentations_are_released ranked_presentations_are_not_released "
        "excluded_presentations_are_released lifted_presentations_are_not_released"
    )
    assert [done.db[table].pks for table in ("queue", "queue_cursors", "released_presentations", "leases")] == [
        ["position"], ["annotator_id", "priority"], ["presentation_id"], ["id"],
    ]  # fmt: skip
    assert {
        (leases["selection"], leases["outcome"]) for leases in done.new["rows"]["leases"]
    } == {("queue", None), ("undo", "judged"), ("repeat", "expired"), ("gold", None), ("queue", "expired")}  # fmt: skip


def test_m010_s_views_show_what_the_old_ones_showed(before):
    for name, fill in FILLS.items():
        migrate(before, up_to=name)
        fill(before)
    views = ("standing_judgments", "votes", "acts", "acts_of_judging", "audit")
    old = {view: before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() for view in views}
    migrate(before, up_to="m010_names")
    today = {"standing_judgments": "active_judgments", "acts_of_judging": "judging_acts"}
    for view, rows in old.items():
        assert rows
        assert before.conn.execute(f"SELECT * FROM {today.get(view, view)} ORDER BY 1, 2, 3, 4, 5").fetchall() == rows, view


def test_m010_leaves_no_old_word_in_the_schema(step):
    done = step("m010_names")
    statements = " ".join(row[0] for row in done.rows("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")).lower()
    for word in ("line", "ticket", "tickets", "standing", "lapsed", "given", "asked_at", "oldest", "leases_before", "at_at"):
        assert not re.search(rf"\b{word}\b|\b{word}_|_{word}\b", statements), word


def test_m010_gives_no_position_twice(step):
    done = step("m010_names")
    last = max(row["ticket"] for row in done.old["rows"]["line"])
    # The comparison that had the highest position was retired before.
    assert done.rows("SELECT name, seq FROM sqlite_sequence") == [("queue", last + 1)]
    put(done.db, "comparisons", "prompt_id purpose created_at", (1, "collect", at(70)))
    assert done.rows("SELECT max(position) FROM queue") == [(last + 2,)]


@pytest.mark.parametrize("queued", [True, False])
def test_m010_of_a_queue_that_is_empty(before, queued):
    migrate(before, up_to="m009_sign_in")
    if queued:
        put(before, "prompts", "messages kind split source digest created_at", ("[]", "k", "train", "s", "d", at(0)))
        put(before, "comparisons", "prompt_id purpose created_at", (1, "collect", at(0)))
        before.conn.execute("UPDATE comparisons SET retired = 1")
    migrate(before, up_to="m010_names")
    assert before.conn.execute("SELECT count(*) FROM queue").fetchone() == (0,)
    assert before.conn.execute("SELECT name, seq FROM sqlite_sequence").fetchall() == [("queue", int(queued))]


def test_m010_s_triggers_do_what_the_old_ones_did(step):
    done = step("m010_names")

    def queued():
        return [row[0] for row in done.rows("SELECT comparison_id FROM queue ORDER BY position")]

    first, second, *others = queued()
    put(done.db, "presentations", "id comparison_id annotator_id slots created_at", (30, first, BOB, "[1,2]", at(70)))
    lease = "id presentation_id comparison_id annotator_id selection propensity created_at expires_at"
    put(done.db, "leases", lease, (30, 30, first, BOB, "queue", 1.0, at(70), at(71)))
    assert queued() == [second, *others]
    done.db.conn.execute("UPDATE leases SET ended_at = ?, outcome = 'expired' WHERE id = 30", [at(71)])
    assert queued() == [second, *others, first]
    done.db.conn.execute("UPDATE comparisons SET priority = 3 WHERE id = ?", [second])
    assert queued() == [*others, first, second]
    assert done.rows("SELECT priority FROM queue WHERE comparison_id = ?".replace("?", str(second))) == [(3,)]
    done.db.conn.execute("UPDATE comparisons SET retired = 1 WHERE id = ?", [second])
    done.db.conn.execute("UPDATE comparisons SET retired = 0 WHERE id = ?", [second])
    assert queued() == [*others, first, second]
    # Presentation 9 is a repeat: it has no place in the queue, and the last position is noted when it is released.
    put(done.db, "leases", lease, (31, 9, 4, ANN, "repeat", 0.5, at(72), at(73)))
    done.db.conn.execute("UPDATE leases SET ended_at = ?, outcome = 'expired' WHERE id = 31", [at(73)])
    last = done.rows("SELECT seq FROM sqlite_sequence WHERE name = 'queue'")[0][0]
    assert done.rows("SELECT * FROM released_presentations") == [(9, last, at(73))]
    with pytest.raises(sqlite3.IntegrityError, match="leases are append-only"):
        done.db.conn.execute("UPDATE leases SET selection = 'gold'")
    with pytest.raises(sqlite3.IntegrityError, match="batches are append-only"):
        done.db.conn.execute("UPDATE batches SET requested = 1")
    for value in ("oldest", "policy"):
        with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed"):
            put(done.db, "leases", lease, (40, 9, 4, ANN, value, 0.5, at(72), at(73)))


# ---- a whole data folder of version 0.1.0, opened by this one


@pytest.fixture
def shipped(before, tmp_path):
    """Opened by this version: Ann ranked 1 and skipped 2 and 6, Bob ranked 6 and took back 3, the rule ranked 4."""
    migrate(before, up_to="m001_loop")
    fill_m001(before)
    rows = look(before)["rows"]
    before.conn.close()
    store = Database(tmp_path / "old.db")
    yield store, rows
    store.close()


def test_a_shipped_store_keeps_every_row(shipped):
    store, rows = shipped
    assert migrations.pending(store.connection) == []
    left_out = {"presentations": {"answered", "undone_by"}}
    for table, old in rows.items():
        keep = [column for column in old[0] if column not in left_out.get(table, ())]
        now = [tuple(row) for row in store.rows(f"SELECT {', '.join(keep)} FROM {table}")]
        if table == "runs":
            old = [row | ({"config": '{"at_chance":"continue"}'} if row["status"] == "lost" else {}) for row in old]
        assert now == [tuple(row[column] for column in keep) for row in old], table
    assert [tuple(row) for row in store.rows("PRAGMA integrity_check")] == [("ok",)]
    assert store.rows("PRAGMA foreign_key_check").fetchall() == []


def test_a_shipped_store_reads_as_before(shipped):
    store, _ = shipped
    assert stats.stats(store) == {
        "prompts": 2,
        "prompts_in_use": 2,
        "demo_votes": 0,
        "unused_starter_votes": 0,
        "completions": 15,
        "comparisons": 7,
        "judgments": {"human": 4, "simulated": 1},
        "labels_not_used_in_training": {"good": 0, "bad": 0},
        "annotators": {"human": 2, "simulated": 1},
        "runs": {"done": 1, "lost": 1},
        "policy_versions": 3,
        "queue_depth": 5,
    }
    votes = judgments.active(store, kinds=("human", "simulated"))
    assert [(vote.judgment.id, vote.judgment.tiers, vote.annotator.name) for vote in votes] == [
        (3, ((2,), (1,)), "Ann"), (7, ((8,), (7,)), "longest"), (9, ((12,), (11,)), "Bob"),
    ]  # fmt: skip
    assert votes[0].judgment.all_bad
    assert presentations.get(store, 7).order == (15, 13, 14)
    assert prompts.get(store, 2).text == "하늘은 왜 파란가요?"
    assert [run.id for run in runs.all_runs(store)] == ["round-2", "round-1"]
    assert [(item.name, item.judged) for item in annotators.all_annotators(store)] == [("Ann", 3), ("Bob", 1), ("longest", 1)]


def test_a_shipped_store_is_judged_to_its_end(shipped):
    store, _ = shipped

    def judge(annotator):
        done = []
        while (shown := queue.next_presentation(store, annotator)) is not None:
            tiers = tuple((item,) for item in shown[1].order)
            done.append(judgments.save(store, shown[1].id, annotator, verdict="rank", tiers=tiers).comparison_id)
        return done

    # Skipped ones are last and not for who skipped them; what a rule ranked or was taken back is open.
    assert judge(ANN) == [3, 4, 5, 7]
    assert judge(BOB) == [2]
    assert queue.depth(store) == 0
    assert [tuple(row) for row in store.rows("SELECT human_ranks, human_skips, leased FROM comparisons")] == [
        (1, 0, 0), (1, 1, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 1, 0), (1, 0, 0),
    ]  # fmt: skip


def test_judgments_of_a_shipped_store_can_be_undone_and_corrected(shipped):
    store, _ = shipped
    undone = judgments.undo(store, BOB)
    assert (undone.id, undone.comparison_id) == (9, 6)
    comparison, shown = queue.next_presentation(store, BOB)
    assert (comparison.id, shown.id, shown.order) == (6, 6, (12, 11))
    corrected = judgments.correct(store, 3, ANN, verdict="rank", tiers=((1,), (2,)))
    assert (corrected.supersedes, corrected.counts) == (3, True)
    assert [vote.judgment.id for vote in judgments.active(store)] == [corrected.id]
    assert (annotators.get(store, ANN).judged, annotators.get(store, BOB).judged) == (3, 0)


def test_a_shipped_store_takes_new_comparisons_after_the_old_ones(shipped):
    store, _ = shipped
    new = comparisons.add(store, 1, [1, 3], purpose="collect")
    assert store.value("SELECT comparison_id FROM queue ORDER BY position DESC LIMIT 1") == new
    assert json.loads(store.value("SELECT slots FROM presentations WHERE id = 1")) == [2, 1]


def test_opening_it_again_changes_nothing(shipped):
    store, _ = shipped
    schema = store.connection.schema
    pseudonyms = [annotator.pseudonym for annotator in annotators.all_annotators(store)]
    again = Database(store.path)
    assert again.connection.schema == schema
    assert [annotator.pseudonym for annotator in annotators.all_annotators(again)] == pseudonyms
    again.close()


def test_m013_keeps_every_row_and_says_that_each_import_is_whole(step):
    done = step("m013_imports")
    assert_kept(done)
    assert done.added("columns") == words(
        "imports.state annotators.import_id policy_versions.import_id completions.import_id presentations.sides_known"
    )
    assert done.added("keys") == {f"{table}.import_id -> imports.id" for table in ("annotators", "policy_versions", "completions")}
    assert (done.added("indexes"), done.added("views")) == ({"imports_writing"}, {"unfinished_imports"})
    assert done.added("triggers") == words("imports_stay_whole annotators_keep_their_import policy_versions_keep_their_import")
    assert_dropped_nothing(done)
    assert {row["state"] for row in done.new["rows"]["imports"]} == {"whole"}
    # Whether the file of an earlier import recorded the sides cannot be told from its rows.
    assert {row["sides_known"] for row in done.new["rows"]["presentations"]} == {1}


def test_m013_s_views_show_what_they_showed(before):
    for name, fill in FILLS.items():
        migrate(before, up_to=name)
        fill(before)
    migrate(before, up_to="m012_results")
    views = ("active_judgments", "votes", "acts", "judging_acts", "audit")
    old = {view: before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() for view in views}
    migrate(before, up_to="m013_imports")
    for view, rows in old.items():
        assert rows
        assert before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() == rows, view


def test_m013_lets_only_rows_of_an_unfinished_import_be_deleted(step):
    done = step("m013_imports")
    put(done.db, "imports", "id format source report created_at state", (90, "csv", "c.csv", "{}", at(80), "writing"))
    put(done.db, "prompts", "messages kind split source digest created_at import_id", ("[]", "k", "train", "s", "d90", at(80), 90))
    with pytest.raises(sqlite3.IntegrityError, match="prompts are append-only"):
        done.db.conn.execute("DELETE FROM prompts WHERE import_id = 2")
    assert done.db.conn.execute("DELETE FROM prompts WHERE import_id = 90").rowcount == 1
    done.db.conn.execute("UPDATE imports SET state = 'whole' WHERE id = 90")
    for statement in ("UPDATE imports SET state = 'writing'", "DELETE FROM imports WHERE id = 90"):
        with pytest.raises(sqlite3.IntegrityError, match="imports are append-only"):
            done.db.conn.execute(statement)


def test_m017_adds_a_table_of_labels_and_touches_no_other(step):
    done = step("m017_completion_labels")
    assert_kept(done)
    assert_dropped_nothing(done)
    assert done.added("columns") == {
        f"completion_labels.{column}" for column in words("id completion_id annotator_id good rationale created_at import_id")
    }
    assert done.added("keys") == {
        f"completion_labels.{column} -> {table}.id"
        for column, table in (("completion_id", "completions"), ("annotator_id", "annotators"), ("import_id", "imports"))
    }
    assert (done.added("indexes"), done.added("views")) == (
        words("completion_labels_completion completion_labels_import"), {"active_completion_labels"},
    )  # fmt: skip
    assert done.added("triggers") == words("completion_labels_are_not_changed completion_labels_are_not_deleted")


def test_m018_marks_imports_whose_undo_goes_on_and_hides_their_votes(step):
    done = step("m018_undos_and_prompt_events")
    assert_kept(done)
    assert_dropped_nothing(done)
    assert done.added("columns") == {
        "imports.undoing", *(f"prompt_events.{column}" for column in words("id prompt_id act by_id created_at")),
    }  # fmt: skip
    assert done.added("keys") == {"prompt_events.prompt_id -> prompts.id", "prompt_events.by_id -> annotators.id"}
    assert (done.added("indexes"), done.added("views")) == ({"imports_undoing", "prompt_events_prompt"}, {"hidden_imports"})
    assert done.added("triggers") == words("prompt_events_are_not_changed prompt_events_are_not_deleted")
    assert {row["undoing"] for row in done.new["rows"]["imports"]} == {None}


def test_m018_s_views_show_what_they_showed(before):
    for name, fill in FILLS.items():
        migrate(before, up_to=name)
        fill(before)
    migrate(before, up_to="m017_completion_labels")
    views = ("active_judgments", "votes", "acts", "audit")
    old = {view: before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() for view in views}
    migrate(before, up_to="m018_undos_and_prompt_events")
    for view, rows in old.items():
        assert rows
        assert before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() == rows, view


def test_m019_gives_every_run_a_round_and_leaves_the_base_current(step):
    done = step("m019_rounds")
    assert_kept(done)
    assert_dropped_nothing(done)
    assert done.added("columns") == {
        "comparisons.round_id",
        *(f"rounds.{column}" for column in words("id run_id trigger judges baseline_version_id guards created_at")),
        *(
            f"decisions.{column}"
            for column in words("id round_id version_id act decided_by by_id reason evidence current_before_id created_at")
        ),
    }
    assert done.added("keys") == {
        "comparisons.round_id -> rounds.id",
        "rounds.run_id -> runs.id",
        "rounds.baseline_version_id -> policy_versions.id",
        "decisions.round_id -> rounds.id",
        "decisions.version_id -> policy_versions.id",
        "decisions.by_id -> annotators.id",
        "decisions.current_before_id -> policy_versions.id",
    }
    assert (done.added("indexes"), done.added("views")) == (words("comparisons_round decisions_round decisions_automatic"), set())
    assert done.added("triggers") == words(
        "rounds_are_not_changed rounds_are_guarded_once rounds_are_not_deleted decisions_are_not_changed decisions_are_not_deleted"
    )
    assert done.rows('SELECT run_id, "trigger", judges, baseline_version_id, guards, created_at FROM rounds ORDER BY id') == [
        ("round-1", "hand", "people", 1, None, at(8)),
        ("round-2", "hand", "people", None, None, at(8)),
    ]
    assert {row["round_id"] for row in done.new["rows"]["comparisons"]} == {None}


def test_m019_s_views_show_what_they_showed_and_decisions_besides(before):
    for name, fill in FILLS.items():
        migrate(before, up_to=name)
        fill(before)
    migrate(before, up_to="m018_undos_and_prompt_events")
    views = ("active_judgments", "votes", "acts", "judging_acts", "audit")
    old = {view: before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() for view in views}
    migrate(before, up_to="m019_rounds")
    for view, rows in old.items():
        assert rows
        assert before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() == rows, view
    put(before, "decisions", "version_id act decided_by by_id reason current_before_id created_at",
        (2, "promoted", "person", ANN, "It is kinder.", 1, at(90)),
    )  # fmt: skip
    assert before.conn.execute("SELECT * FROM audit WHERE subject = 'policy'").fetchall() == [
        (at(90), ANN, "promoted", "policy", "tiny-r1", "It is kinder."),
    ]


def test_m020_adds_the_queue_of_rounds(step):
    done = step("m020_queued_rounds")
    assert_kept(done)
    assert_dropped_nothing(done)
    assert done.added("columns") == {
        f"queued_rounds.{column}"
        for column in words("id trigger judges config by_id created_at state run_id reason ended_by_id ended_at worker_at")
    }
    assert done.added("keys") == {
        "queued_rounds.by_id -> annotators.id", "queued_rounds.run_id -> runs.id", "queued_rounds.ended_by_id -> annotators.id",
    }  # fmt: skip
    assert (done.added("indexes"), done.added("views")) == (words("queued_rounds_waiting queued_rounds_without_worker"), set())
    assert done.added("triggers") == words(
        "queued_rounds_are_not_changed queued_rounds_end_once queued_rounds_start_once queued_rounds_are_not_deleted"
    )
    assert done.new["rows"]["queued_rounds"] == []


def test_m021_lets_every_batch_take_every_prompt_for_everybody(step):
    done = step("m021_batch_choices")
    assert_kept(done)
    assert_dropped_nothing(done)
    assert done.added("columns") == {
        "batches.prompts",
        "batches.wanted",
        *(f"batch_assignments.{column}" for column in words("id batch_id annotator_ids by_id created_at")),
        *(f"prompt_edits.{column}" for column in words("id prompt_id from_id by_id created_at")),
    }
    assert done.added("keys") == {
        "batch_assignments.batch_id -> batches.id",
        "batch_assignments.by_id -> annotators.id",
        "prompt_edits.prompt_id -> prompts.id",
        "prompt_edits.from_id -> prompts.id",
        "prompt_edits.by_id -> annotators.id",
    }
    assert (done.added("indexes"), done.added("views")) == (words("batch_assignments_batch prompt_edits_from"), set())
    assert done.added("triggers") == words(
        "batch_assignments_are_not_changed batch_assignments_are_not_deleted prompt_edits_are_not_changed prompt_edits_are_not_deleted"
    )
    assert {(row["prompts"], row["wanted"]) for row in done.new["rows"]["batches"]} == {("{}", None)}


def test_m021_s_views_show_what_they_showed_and_edits_and_assignments_besides(before):
    for name, fill in (FILLS | {"m019_rounds": LATER_FILLS["m019_rounds"], "m020_queued_rounds": lambda db: None}).items():
        migrate(before, up_to=name)
        fill(before)
    views = ("active_judgments", "votes", "acts", "judging_acts", "audit")
    old = {view: before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() for view in views}
    migrate(before, up_to="m021_batch_choices")
    for view, rows in old.items():
        assert rows
        assert before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() == rows, view
    LATER_FILLS["m021_batch_choices"](before)
    assert before.conn.execute("SELECT * FROM audit WHERE at >= ? ORDER BY at", [at(80)]).fetchall() == [
        (at(80), ANN, "assigned", "batch", "1", "[1]"),
        (at(81), ANN, "edited", "prompt", "2", "1"),
    ]


def test_m024_adds_the_names_of_runs(step):
    done = step("m024_run_names")
    assert_kept(done)
    assert_dropped_nothing(done)
    assert done.added("columns") == {f"run_names.{column}" for column in words("id run_id name note by_id created_at")}
    assert done.added("keys") == {"run_names.run_id -> runs.id", "run_names.by_id -> annotators.id"}
    assert (done.added("indexes"), done.added("views")) == ({"run_names_run"}, set())
    assert done.added("triggers") == words("run_names_are_not_changed run_names_are_not_deleted")
    assert done.new["rows"]["run_names"] == []


def test_m024_s_views_show_what_they_showed_and_names_besides(before):
    for name, fill in (FILLS | {name: LATER_FILLS[name] for name in ("m019_rounds", "m020_queued_rounds", "m021_batch_choices")}).items():
        migrate(before, up_to=name)
        fill(before)
    migrate(before, up_to="m023_at_chance_of_old_runs")
    views = ("active_judgments", "votes", "acts", "judging_acts", "audit")
    old = {view: before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() for view in views}
    migrate(before, up_to="m024_run_names")
    for view, rows in old.items():
        assert rows
        assert before.conn.execute(f"SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5").fetchall() == rows, view
    LATER_FILLS["m024_run_names"](before)
    assert before.conn.execute("SELECT * FROM audit WHERE act = 'named'").fetchall() == [
        (at(82), ANN, "named", "run", "round-1", "Baseline")
    ]


def test_m025_adds_what_an_active_run_does(step):
    done = step("m025_run_activity")
    assert_kept(done)
    assert_dropped_nothing(done)
    assert done.added("columns") == {f"runs.{column}" for column in words("activity activity_done activity_count")}
    assert (done.added("keys"), done.added("indexes"), done.added("views"), done.added("triggers")) == (set(), set(), set(), set())


def test_m026_adds_the_jobs_of_runs(step):
    done = step("m026_run_jobs")
    assert_kept(done)
    assert_dropped_nothing(done)
    assert done.added("columns") == {"runs.job"}
    assert all(done.added(kind) == set() for kind in ("keys", "indexes", "triggers", "views"))
    assert {row["job"] for row in done.new["rows"]["runs"]} == {None}
