"""Migration m015: of the starter prompts of an older store, those that somebody imported too are the store's own."""

import json
import sqlite3

import pytest
import sqlite_utils

from storage.core.migrations import migrations

MIGRATION = "m015_starters"


def test_starters_are_marked_unless_an_import_brought_them_too(tmp_path):
    db = sqlite_utils.Database(sqlite3.connect(tmp_path / "old.db", isolation_level=None))
    migrations.apply(db, stop_before=MIGRATION)
    assert "starter" not in {row[1] for row in db.conn.execute("PRAGMA table_info(prompts)")}
    for import_id, undone_at in ((1, None), (2, "t"), (3, None)):
        report = "not json" if import_id == 3 else json.dumps({"reused": [[1, 1], [3, 4]] if import_id == 1 else [[5, 5]]})
        db.conn.execute(
            "INSERT INTO imports (id, format, source, report, created_at) VALUES (?, 'prompts', 'f', ?, 't')", [import_id, report]
        )
        db.conn.execute("UPDATE imports SET undone_at = ? WHERE id = ?", [undone_at, import_id])
    for prompt_id in range(1, 9):
        source = "f.jsonl" if prompt_id == 8 else "starter"
        db.conn.execute(
            "INSERT INTO prompts (id, messages, kind, split, source, digest, created_at) VALUES (?, '[]', 'k', 'train', ?, ?, 't')",
            [prompt_id, source, f"d{prompt_id}"],
        )
    for prompt_id, import_id in ((2, None), (6, 1)):
        db.conn.execute(
            "INSERT INTO comparisons (prompt_id, purpose, created_at, import_id) VALUES (?, 'imported', 't', ?)", [prompt_id, import_id]
        )
    before = db.conn.execute("SELECT id, messages, kind, split, source, digest, created_at, import_id, retired FROM prompts").fetchall()
    migrations.apply(db)
    after = db.conn.execute("SELECT id, messages, kind, split, source, digest, created_at, import_id, retired FROM prompts").fetchall()
    assert after == before
    # 1, 3 and 4 are of an import, and so is the comparison of 6; the import of 5 was undone, and 8 never was a starter.
    assert [row[0] for row in db.conn.execute("SELECT id FROM prompts WHERE starter = 1")] == [2, 5, 7]
    # Nobody had judged a starter prompt.
    assert db.conn.execute("SELECT count(*) FROM settings").fetchone() == (0,)
    db.close()


@pytest.mark.parametrize(
    "own_prompts, before, after",
    [
        (True, '{"overlap": 3}', {"overlap": 3, "starters": "on"}),
        (True, "x", {"starters": "on"}),
        (True, None, {"starters": "on"}),
        (False, '{"overlap": 3}', {"overlap": 3}),
    ],
)
def test_where_starters_were_judged_beside_other_prompts_they_stay_in_use(tmp_path, own_prompts, before, after):
    db = sqlite_utils.Database(sqlite3.connect(tmp_path / "old.db", isolation_level=None))
    migrations.apply(db, stop_before=MIGRATION)
    if before is not None:
        db.conn.execute("INSERT INTO settings (\"values\", created_at) VALUES (?, 't')", [before])
    for source in ("starter", "mine") if own_prompts else ("starter",):
        db.conn.execute(
            "INSERT INTO prompts (messages, kind, split, source, digest, created_at) VALUES ('[]', 'k', 'train', ?1, ?1, 't')", [source]
        )
    db.conn.execute("INSERT INTO comparisons (prompt_id, purpose, created_at) VALUES (1, 'collect', 't')")
    db.conn.execute("INSERT INTO annotators (name, kind, created_at) VALUES ('ann', 'human', 't')")
    db.conn.execute("INSERT INTO judgments (comparison_id, annotator_id, verdict, tiers, created_at) VALUES (1, 1, 'rank', '[]', 't')")
    migrations.apply(db)
    (values,) = db.conn.execute('SELECT "values" FROM settings ORDER BY id DESC LIMIT 1').fetchone()
    assert json.loads(values) == after
    db.close()
