"""Migration m012: results, validations and metrics of old runs under the names of today, with every digit."""

import json

import pytest
from sqlite_utils import Database

from storage.core.migrations import NAMES, migrations

MIGRATION = "m012_results"
BEFORE = NAMES[NAMES.index(MIGRATION) - 1]

RESULT = (
    '{"rule": "kept\\": of", "kl": 2.2094666957855225, '
    '"kept": {"step": 5, "of": 6, "score": 1.1017720699310303, "kl": 17.379667282104492}, '
    '"best_of_n": {"n": 3, "kl": 0.43194562200144315, "policy_kl": 15.711289405822754, "most": 3, "beyond_most": true, '
    '"win_rate": {"value": 0.5535714285714286, "low": 0.375, "high": 0.75, "cases": 7}}}'
)
VALIDATION = (
    '{"pairs": 40, "accuracy": null, "calibration": {"ece": 0.02709316692179157, "by_chance": 0.09527498510360975}, '
    '"curve": {"points": [], "reach": 0.2, "half": 123.45678901234567, "more": 200, "gain": null}, '
    '"by_kind": [{"kind": "more"}], "surprises": [{"judgment_id": 31, "probability": 0.004}]}'
)
ROWS = {"done": (RESULT, VALIDATION), "new": (None, None), "odd": ("{", "[1]"), "bytes": (b"\xff", "7")}
METRICS = {"rloo/rewards/paid/mean": 0.25, "grpo/rewards/paid/std": 0.125, "rloo/reward_std": 0.5, "objective/kl": 2.2094666957855225}


@pytest.fixture
def migrated():
    """The rows of version 0.1.0, before and after the migration."""
    db = Database(memory=True)
    migrations.apply(db, stop_before=MIGRATION)
    for run_id, (result, validation) in ROWS.items():
        db.conn.execute(
            "INSERT INTO runs (id, status, config, seed, versions, created_at, result, validation) "
            "VALUES (?, 'done', '{}', 0, '{}', '2026-11-01', ?, ?)",
            [run_id, result, validation],
        )
    for name, value in METRICS.items():
        db.conn.execute("INSERT INTO metrics (run_id, name, step, value) VALUES ('done', ?, 1, ?)", [name, value])
    db.conn.commit()
    columns = [row[1] for row in db.conn.execute("PRAGMA table_info(runs)")]
    migrations.apply(db)
    # Later migrations add columns after these.
    assert [row[1] for row in db.conn.execute("PRAGMA table_info(runs)")][: len(columns)] == columns
    yield db
    db.close()


def of(db, run_id):
    return db.conn.execute("SELECT result, validation FROM runs WHERE id = ?", [run_id]).fetchone()


def test_a_result_keeps_every_digit_under_new_names(migrated):
    assert json.loads(of(migrated, "done")[0]) == {
        "rule": 'kept": of',
        "kl": 2.2094666957855225,
        "best_checkpoint": {"step": 5, "steps": 6, "conservative_score": 1.1017720699310303, "kl": 17.379667282104492},
        "best_of_n": {
            "n": 3, "kl": 0.43194562200144315, "policy_kl": 15.711289405822754, "max_n": 3, "beyond_max_n": True,
            "win_rate": {"value": 0.5535714285714286, "low": 0.375, "high": 0.75, "cases": 7},
        },
    }  # fmt: skip


def test_a_validation_keeps_every_digit_under_new_names(migrated):
    assert json.loads(of(migrated, "done")[1]) == {
        "pairs": 40, "accuracy": None, "calibration": {"ece": 0.02709316692179157, "ece_by_chance": 0.09527498510360975},
        "curve": {"points": [], "asymptote": 0.2, "half_saturation": 123.45678901234567, "additional_judgments": 200, "gain": None},
        "by_kind": [{"kind": "more"}], "high_loss_judgments": [{"judgment_id": 31, "probability": 0.004}],
    }  # fmt: skip


@pytest.mark.parametrize("run_id", ["new", "odd", "bytes"])
def test_what_is_no_result_stays_as_it_is(migrated, run_id):
    assert tuple(of(migrated, run_id)) == ROWS[run_id]


def test_metrics_of_the_scores_are_named_after_them(migrated):
    found = dict(migrated.conn.execute("SELECT name, value FROM metrics").fetchall())
    assert found == {name.replace("/paid/", "/score/"): value for name, value in METRICS.items()}
