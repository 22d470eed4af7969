-- A batch says which prompts it takes, how many judgments each of its comparisons needs, and which annotators get it; an edited prompt is
-- a new prompt that names the one it replaces.

ALTER TABLE batches ADD COLUMN prompts TEXT NOT NULL DEFAULT '{}';

-- NULL takes the number from the settings, as every batch of older versions did.
ALTER TABLE batches ADD COLUMN wanted INTEGER CHECK (wanted BETWEEN 1 AND 20);

DROP TRIGGER batches_are_not_changed;

CREATE TRIGGER batches_are_not_changed
BEFORE UPDATE OF id, policy_ids, completions, sampling, requested, priority, by_id, created_at, prompts, wanted ON batches
BEGIN SELECT RAISE(ABORT, 'batches are append-only'); END;

-- The newest row of a batch holds: the annotators who get its comparisons. An empty list, or no row, means everybody.
CREATE TABLE batch_assignments (
    id INTEGER PRIMARY KEY,
    batch_id INTEGER NOT NULL REFERENCES batches(id),
    annotator_ids TEXT NOT NULL,
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL
);

CREATE INDEX batch_assignments_batch ON batch_assignments(batch_id);

CREATE TRIGGER batch_assignments_are_not_changed BEFORE UPDATE ON batch_assignments
BEGIN SELECT RAISE(ABORT, 'batch_assignments are append-only'); END;

CREATE TRIGGER batch_assignments_are_not_deleted BEFORE DELETE ON batch_assignments
BEGIN SELECT RAISE(ABORT, 'batch_assignments are append-only'); END;

-- `prompt_id` is the new prompt, `from_id` the one that it replaces.
CREATE TABLE prompt_edits (
    id INTEGER PRIMARY KEY,
    prompt_id INTEGER NOT NULL UNIQUE REFERENCES prompts(id),
    from_id INTEGER NOT NULL REFERENCES prompts(id),
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL
);

CREATE INDEX prompt_edits_from ON prompt_edits(from_id);

CREATE TRIGGER prompt_edits_are_not_changed BEFORE UPDATE ON prompt_edits
BEGIN SELECT RAISE(ABORT, 'prompt_edits are append-only'); END;

CREATE TRIGGER prompt_edits_are_not_deleted BEFORE DELETE ON prompt_edits
BEGIN SELECT RAISE(ABORT, 'prompt_edits are append-only'); END;

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
SELECT created_at, by_id, act, 'prompt', CAST(prompt_id AS TEXT), '' FROM prompt_events
UNION ALL
SELECT created_at, by_id, 'edited', 'prompt', CAST(prompt_id AS TEXT), CAST(from_id AS TEXT) FROM prompt_edits
UNION ALL
SELECT created_at, by_id, act, 'policy', (SELECT name FROM policy_versions WHERE id = version_id), reason FROM decisions;

CREATE VIEW audit AS
SELECT * FROM acts
UNION ALL
SELECT at, by_id, act, subject, subject_id, detail FROM judging_acts;
