-- An import is undone in slices, and retiring a prompt is an act. While `undoing` is not NULL none of an import's votes counts,
-- and the rest of its undo is still to be done: by the process that began it, or the next start or import. It holds the id of the exclusion
-- of the undo, 0 if that excludes nothing.

ALTER TABLE imports ADD COLUMN undoing INTEGER;

CREATE INDEX imports_undoing ON imports(id) WHERE undoing IS NOT NULL;

CREATE VIEW hidden_imports AS SELECT id FROM imports WHERE state = 'writing' UNION ALL SELECT id FROM imports WHERE undoing IS NOT NULL;

DROP VIEW votes;

DROP VIEW active_judgments;

CREATE VIEW active_judgments AS
SELECT j.*, a.kind AS annotator_kind
FROM judgments j JOIN annotators a ON a.id = j.annotator_id
WHERE j.verdict != 'retract' AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id)
    AND coalesce(j.import_id, 0) NOT IN hidden_imports;

CREATE VIEW votes AS
SELECT j.*, a.kind AS annotator_kind
FROM judgments j JOIN annotators a ON a.id = j.annotator_id
WHERE j.counts = 1 AND coalesce(j.import_id, 0) NOT IN hidden_imports;

CREATE TABLE prompt_events (
    id INTEGER PRIMARY KEY,
    prompt_id INTEGER NOT NULL REFERENCES prompts(id),
    act TEXT NOT NULL CHECK (act IN ('retired', 'restored')),
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL
);

CREATE INDEX prompt_events_prompt ON prompt_events(prompt_id);

CREATE TRIGGER prompt_events_are_not_changed BEFORE UPDATE ON prompt_events
BEGIN SELECT RAISE(ABORT, 'prompt_events are append-only'); END;

CREATE TRIGGER prompt_events_are_not_deleted BEFORE DELETE ON prompt_events
BEGIN SELECT RAISE(ABORT, 'prompt_events are append-only'); END;

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
SELECT created_at, by_id, act, 'prompt', CAST(prompt_id AS TEXT), '' FROM prompt_events;

CREATE VIEW audit AS
SELECT * FROM acts
UNION ALL
SELECT at, by_id, act, subject, subject_id, detail FROM judging_acts;
