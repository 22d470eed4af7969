"""Each migration from the schema before it: build the old one, migrate, compare columns, keys and rows."""

import sqlite3

import pytest
import sqlite_utils

from storage.migrations import migrations

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
    "judgments": (
        "id comparison_id presentation_id annotator_id verdict tiers all_bad skip_reason supersedes created_at"
    ),
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


@pytest.fixture
def before(tmp_path):
    raw = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    yield sqlite_utils.Database(raw)
    raw.close()


def migrate(db, *, up_to=None):
    names = [migration.name for migration in migrations.pending(db)]
    following = names[names.index(up_to) + 1 :] if up_to else []
    migrations.apply(db, stop_before=following[:1])


def test_m001_makes_the_whole_schema_out_of_nothing(before):
    migrate(before, up_to="m001_loop")
    columns = {
        table.name: " ".join(column.name for column in table.columns)
        for table in before.tables
        if table.name != "_sqlite_migrations"
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
