-- A round is a run with its end: who judges its policy version, what its guards found, and which decision came of it. The policy that
-- is current, and the versions that new comparisons leave out, follow from the decisions alone, read in their order.

-- `baseline_version_id` is the policy that was current when the round began; NULL in rounds of older versions whose base is not known.
-- `guards` is NULL until the round has measured its version; rounds of older versions never did.
CREATE TABLE rounds (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE REFERENCES runs(id),
    "trigger" TEXT NOT NULL CHECK ("trigger" IN ('hand', 'judgments', 'schedule', 'loop')),
    judges TEXT NOT NULL CHECK (judges IN ('people', 'simulated')),
    baseline_version_id INTEGER REFERENCES policy_versions(id),
    guards TEXT CHECK (guards IN ('passed', 'failed')),
    created_at TEXT NOT NULL
);

INSERT INTO rounds (run_id, "trigger", judges, baseline_version_id, created_at)
SELECT runs.id, 'hand', 'people',
    (SELECT base.id FROM policy_versions tuned JOIN policy_versions base ON base.kind = 'base' AND base.base_model = tuned.base_model
    WHERE tuned.run_id = runs.id ORDER BY tuned.id LIMIT 1),
    runs.created_at
FROM runs ORDER BY runs.created_at, runs.id;

CREATE TRIGGER rounds_are_not_changed
BEFORE UPDATE OF id, run_id, "trigger", judges, baseline_version_id, created_at ON rounds
BEGIN SELECT RAISE(ABORT, 'rounds are append-only'); END;

CREATE TRIGGER rounds_are_guarded_once BEFORE UPDATE OF guards ON rounds WHEN OLD.guards IS NOT NULL AND NEW.guards IS NOT OLD.guards
BEGIN SELECT RAISE(ABORT, 'rounds are append-only'); END;

CREATE TRIGGER rounds_are_not_deleted BEFORE DELETE ON rounds
BEGIN SELECT RAISE(ABORT, 'rounds are append-only'); END;

-- `version_id` is the version that was promoted or rejected, or the one that a rollback went back to.
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    round_id INTEGER REFERENCES rounds(id),
    version_id INTEGER NOT NULL REFERENCES policy_versions(id),
    act TEXT NOT NULL CHECK (act IN ('promoted', 'rejected', 'rolled back')),
    decided_by TEXT NOT NULL CHECK (decided_by IN ('guards', 'comparisons', 'person')),
    by_id INTEGER REFERENCES annotators(id),
    reason TEXT NOT NULL CHECK (trim(reason) != ''),
    evidence TEXT NOT NULL DEFAULT '{}',
    current_before_id INTEGER NOT NULL REFERENCES policy_versions(id),
    created_at TEXT NOT NULL
);

CREATE INDEX decisions_round ON decisions(round_id);

-- Whatever is repeated after a crash: guards and comparisons decide a round once.
CREATE UNIQUE INDEX decisions_automatic ON decisions(round_id) WHERE decided_by != 'person';

CREATE TRIGGER decisions_are_not_changed BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;

CREATE TRIGGER decisions_are_not_deleted BEFORE DELETE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;

-- The round that a comparison helps to decide.
ALTER TABLE comparisons ADD COLUMN round_id INTEGER REFERENCES rounds(id);

CREATE INDEX comparisons_round ON comparisons(round_id) WHERE round_id IS NOT NULL;

DROP TRIGGER comparisons_are_not_changed;

CREATE TRIGGER comparisons_are_not_changed
BEFORE UPDATE OF id, prompt_id, purpose, created_at, import_id, batch_id, digest, round_id ON comparisons
BEGIN SELECT RAISE(ABORT, 'comparisons are append-only'); END;

DROP VIEW audit;

DROP VIEW acts;

CREATE VIEW acts AS
SELECT created_at AS at, by_id, 'excluded' AS act, 'exclusion' AS subject, CAST(id AS TEXT) AS subject_id,
    rule || ': ' || reason AS detail
FROM exclusions
UNION ALL
SELECT created_at, by_id, 'lifted', 'exclusion', CAST(exclusion_id AS TEXT), reason FROM exclusion_lifts
UNION ALL
SELECT created_at, by_id, 'set gold answer', 'comparison', CAST(comparison_id AS TEXT), note FROM gold_answers
WHERE coalesce((SELECT import_id FROM comparisons WHERE id = comparison_id), 0) NOT IN unfinished_imports
UNION ALL
SELECT created_at, by_id, 'changed settings', 'settings', CAST(id AS TEXT), "values" FROM settings
UNION ALL
SELECT created_at, by_id, 'published', 'guidelines', CAST(id AS TEXT), '' FROM guidelines
UNION ALL
SELECT created_at, by_id, 'imported', 'import', CAST(id AS TEXT), source FROM imports WHERE state = 'whole'
UNION ALL
SELECT undone_at, undone_by_id, 'undid', 'import', CAST(id AS TEXT), source FROM imports WHERE undone_at IS NOT NULL
UNION ALL
SELECT created_at, by_id, 'asked for', 'batch', CAST(id AS TEXT), requested || ' comparisons' FROM batches
UNION ALL
SELECT cancelled_at, cancelled_by_id, 'cancelled', 'batch', CAST(id AS TEXT), generated || ' of ' || requested || ' made'
FROM batches WHERE cancelled_at IS NOT NULL
UNION ALL
SELECT created_at, by_id, act, 'account', CAST(annotator_id AS TEXT), detail FROM account_events
UNION ALL
SELECT created_at, by_id, 'started', 'run', id, '' FROM runs
UNION ALL
SELECT created_at, by_id, act, 'prompt', CAST(prompt_id AS TEXT), '' FROM prompt_events
UNION ALL
SELECT created_at, by_id, act, 'policy', (SELECT name FROM policy_versions WHERE id = version_id), reason FROM decisions;

CREATE VIEW audit AS
SELECT * FROM acts
UNION ALL
SELECT at, by_id, act, subject, subject_id, detail FROM judging_acts;
