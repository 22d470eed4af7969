-- A researcher names a run and writes a note about it. The newest row of a run holds, and the audit says who wrote each.

CREATE TABLE run_names (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs(id),
    name TEXT NOT NULL,
    note TEXT NOT NULL,
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL
);

CREATE INDEX run_names_run ON run_names(run_id);

CREATE TRIGGER run_names_are_not_changed BEFORE UPDATE ON run_names
BEGIN SELECT RAISE(ABORT, 'run_names are append-only'); END;

CREATE TRIGGER run_names_are_not_deleted BEFORE DELETE ON run_names
BEGIN SELECT RAISE(ABORT, 'run_names are append-only'); END;

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
SELECT created_at, by_id, 'assigned', 'batch', CAST(batch_id AS TEXT), annotator_ids FROM batch_assignments
UNION ALL
SELECT cancelled_at, cancelled_by_id, 'cancelled', 'batch', CAST(id AS TEXT), generated || ' of ' || requested || ' made'
FROM batches WHERE cancelled_at IS NOT NULL
UNION ALL
SELECT created_at, by_id, act, 'account', CAST(annotator_id AS TEXT), detail FROM account_events
UNION ALL
SELECT created_at, by_id, 'started', 'run', id, '' FROM runs
UNION ALL
SELECT created_at, by_id, 'named', 'run', run_id, name FROM run_names
UNION ALL
SELECT created_at, by_id, 'queued', 'round', CAST(id AS TEXT), '' FROM queued_rounds
UNION ALL
SELECT ended_at, ended_by_id, 'took out', 'round', CAST(id AS TEXT), '' FROM queued_rounds WHERE state = 'taken out'
UNION ALL
SELECT created_at, by_id, act, 'prompt', CAST(prompt_id AS TEXT), '' FROM prompt_events
UNION ALL
SELECT created_at, by_id, 'edited', 'prompt', CAST(prompt_id AS TEXT), CAST(from_id AS TEXT) FROM prompt_edits
UNION ALL
SELECT created_at, by_id, act, 'policy', (SELECT name FROM policy_versions WHERE id = version_id), reason FROM decisions;

CREATE VIEW audit AS
SELECT * FROM acts
UNION ALL
SELECT at, by_id, act, subject, subject_id, detail FROM judging_acts;
