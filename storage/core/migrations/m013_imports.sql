-- An import is written in slices and seen as a whole: while its row says `writing`, no page, queue, count, export or training
-- sees its rows, and an import that never gets whole is deleted. A presentation also says whether anybody recorded the sides.

ALTER TABLE imports ADD COLUMN state TEXT NOT NULL DEFAULT 'whole' CHECK (state IN ('writing', 'whole'));

CREATE INDEX imports_writing ON imports(id) WHERE state = 'writing';

CREATE VIEW unfinished_imports AS SELECT id FROM imports WHERE state = 'writing';

ALTER TABLE annotators ADD COLUMN import_id INTEGER REFERENCES imports(id);

ALTER TABLE policy_versions ADD COLUMN import_id INTEGER REFERENCES imports(id);

ALTER TABLE completions ADD COLUMN import_id INTEGER REFERENCES imports(id);

-- What was imported before keeps the order that was stored: whether its file recorded the sides cannot be told from its rows.
ALTER TABLE presentations ADD COLUMN sides_known INTEGER NOT NULL DEFAULT 1;

DROP VIEW votes;

DROP VIEW active_judgments;

CREATE VIEW active_judgments AS
SELECT j.*, a.kind AS annotator_kind
FROM judgments j JOIN annotators a ON a.id = j.annotator_id
WHERE j.verdict != 'retract' AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id)
    AND coalesce(j.import_id, 0) NOT IN unfinished_imports;

CREATE VIEW votes AS
SELECT j.*, a.kind AS annotator_kind
FROM judgments j JOIN annotators a ON a.id = j.annotator_id
WHERE j.counts = 1 AND coalesce(j.import_id, 0) NOT IN unfinished_imports;

-- While an import is written it keeps its own counts; when it is whole, they are added to those of the store at once.
DROP TRIGGER judgments_update_counts;

CREATE TRIGGER judgments_update_counts AFTER INSERT ON judgments
WHEN NEW.import_id IS NULL OR NEW.import_id NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN
    -- The lease ends first: a vote and its lease counted together would exceed what is wanted, and take the comparison out of the queue.
    UPDATE leases SET ended_at = NEW.created_at, outcome = 'judged'
    WHERE presentation_id = NEW.presentation_id AND ended_at IS NULL AND NEW.verdict != 'retract';
    UPDATE judgments SET counts = 1 WHERE id = NEW.id AND verdict = 'rank' AND purpose = 'vote';
    UPDATE judgments SET counts = 0 WHERE id = NEW.supersedes AND counts = 1;
    UPDATE annotators SET judged = judged + (NEW.verdict != 'retract') - (NEW.supersedes IS NOT NULL)
    WHERE id = NEW.annotator_id;
END;

DROP TRIGGER judgments_by_people_are_counted;

CREATE TRIGGER judgments_by_people_are_counted AFTER UPDATE OF counts ON judgments
WHEN NEW.counts != OLD.counts AND (SELECT kind FROM annotators WHERE id = NEW.annotator_id) = 'human'
    AND (NEW.import_id IS NULL OR NEW.import_id NOT IN (SELECT id FROM imports WHERE state = 'writing'))
BEGIN
    UPDATE comparisons SET human_ranks = human_ranks + NEW.counts - OLD.counts WHERE id = NEW.comparison_id;
END;

DROP TRIGGER comparisons_enter_queue;

CREATE TRIGGER comparisons_enter_queue AFTER INSERT ON comparisons
WHEN NEW.human_ranks + NEW.leased < NEW.wanted AND NEW.retired = 0 AND NEW.gold = 0
    AND (NEW.import_id IS NULL OR NEW.import_id NOT IN (SELECT id FROM imports WHERE state = 'writing'))
BEGIN INSERT INTO queue (comparison_id, priority) VALUES (NEW.id, NEW.priority); END;

DROP TRIGGER comparisons_enter_queue_again;

CREATE TRIGGER comparisons_enter_queue_again AFTER UPDATE OF human_ranks, leased, wanted, retired, gold ON comparisons
WHEN NEW.human_ranks + NEW.leased < NEW.wanted AND NEW.retired = 0 AND NEW.gold = 0
    AND (OLD.human_ranks + OLD.leased >= OLD.wanted OR OLD.retired OR OLD.gold)
    AND (NEW.import_id IS NULL OR NEW.import_id NOT IN (SELECT id FROM imports WHERE state = 'writing'))
BEGIN INSERT OR IGNORE INTO queue (comparison_id, priority) VALUES (NEW.id, NEW.priority); END;

-- An import that is whole stays whole, and what came with it stays attributed to it.
CREATE TRIGGER imports_stay_whole BEFORE UPDATE OF state ON imports WHEN OLD.state = 'whole'
BEGIN SELECT RAISE(ABORT, 'imports are append-only'); END;

CREATE TRIGGER annotators_keep_their_import BEFORE UPDATE OF import_id ON annotators
WHEN coalesce(OLD.import_id, 0) NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'annotators are append-only'); END;

DROP TRIGGER policy_versions_are_not_changed;

CREATE TRIGGER policy_versions_are_not_changed
BEFORE UPDATE OF id, name, kind, base_model, adapter_path, run_id, created_at ON policy_versions
BEGIN SELECT RAISE(ABORT, 'policy_versions are append-only'); END;

CREATE TRIGGER policy_versions_keep_their_import BEFORE UPDATE OF import_id ON policy_versions
WHEN coalesce(OLD.import_id, 0) NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'policy_versions are append-only'); END;

-- Only the rows of an import that is not whole may be deleted.
DROP TRIGGER imports_are_not_deleted;

CREATE TRIGGER imports_are_not_deleted BEFORE DELETE ON imports WHEN OLD.state = 'whole'
BEGIN SELECT RAISE(ABORT, 'imports are append-only'); END;

DROP TRIGGER annotators_are_not_deleted;

CREATE TRIGGER annotators_are_not_deleted BEFORE DELETE ON annotators
WHEN coalesce(OLD.import_id, 0) NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'annotators are append-only'); END;

DROP TRIGGER policy_versions_are_not_deleted;

CREATE TRIGGER policy_versions_are_not_deleted BEFORE DELETE ON policy_versions
WHEN coalesce(OLD.import_id, 0) NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'policy_versions are append-only'); END;

DROP TRIGGER prompts_are_not_deleted;

CREATE TRIGGER prompts_are_not_deleted BEFORE DELETE ON prompts
WHEN coalesce(OLD.import_id, 0) NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'prompts are append-only'); END;

DROP TRIGGER completions_are_not_deleted;

CREATE TRIGGER completions_are_not_deleted BEFORE DELETE ON completions
WHEN coalesce(OLD.import_id, 0) NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'completions are append-only'); END;

DROP TRIGGER comparisons_are_not_deleted;

CREATE TRIGGER comparisons_are_not_deleted BEFORE DELETE ON comparisons
WHEN coalesce(OLD.import_id, 0) NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'comparisons are append-only'); END;

DROP TRIGGER comparison_completions_are_not_deleted;

CREATE TRIGGER comparison_completions_are_not_deleted BEFORE DELETE ON comparison_completions
WHEN coalesce((SELECT import_id FROM comparisons WHERE id = OLD.comparison_id), 0)
    NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'comparison_completions are append-only'); END;

DROP TRIGGER gold_answers_are_not_deleted;

CREATE TRIGGER gold_answers_are_not_deleted BEFORE DELETE ON gold_answers
WHEN coalesce((SELECT import_id FROM comparisons WHERE id = OLD.comparison_id), 0)
    NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'gold_answers are append-only'); END;

DROP TRIGGER judgments_are_not_deleted;

CREATE TRIGGER judgments_are_not_deleted BEFORE DELETE ON judgments
WHEN coalesce(OLD.import_id, 0) NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'judgments are append-only'); END;

DROP TRIGGER presentations_are_not_deleted;

CREATE TRIGGER presentations_are_not_deleted BEFORE DELETE ON presentations
WHEN NOT EXISTS (
    SELECT 1 FROM judgments j JOIN imports i ON i.id = j.import_id
    WHERE j.presentation_id = OLD.id AND i.state = 'writing'
)
BEGIN SELECT RAISE(ABORT, 'presentations are append-only'); END;

DROP TRIGGER aspect_ratings_are_not_deleted;

CREATE TRIGGER aspect_ratings_are_not_deleted BEFORE DELETE ON aspect_ratings
WHEN coalesce((SELECT import_id FROM judgments WHERE id = OLD.judgment_id), 0)
    NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'aspect_ratings are append-only'); END;

DROP TRIGGER ideal_answers_are_not_deleted;

CREATE TRIGGER ideal_answers_are_not_deleted BEFORE DELETE ON ideal_answers
WHEN coalesce((SELECT import_id FROM judgments WHERE id = OLD.judgment_id), 0)
    NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'ideal_answers are append-only'); END;

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
SELECT created_at, by_id, 'started', 'run', id, '' FROM runs;

CREATE VIEW audit AS
SELECT * FROM acts
UNION ALL
SELECT at, by_id, act, subject, subject_id, detail FROM judging_acts;
