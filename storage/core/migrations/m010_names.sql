-- The field's words for the queue, its cursors, released presentations, active judgments, leases and batches.

DROP VIEW audit;

DROP VIEW acts_of_judging;

DROP VIEW acts;

DROP VIEW standing_judgments;

DROP TRIGGER judgments_count;

DROP TRIGGER skips_by_people_are_counted;

DROP TRIGGER skipped_is_given_back;

DROP TRIGGER ranked_is_not_given_back;

DROP TRIGGER excluded_is_given_back;

DROP TRIGGER lifted_is_not_given_back;

DROP TRIGGER leases_reserve;

DROP TRIGGER leases_release;

DROP TRIGGER leases_are_not_changed;

DROP TRIGGER leases_are_not_deleted;

DROP TRIGGER lapsed_is_given_back;

DROP TRIGGER comparisons_join_the_line;

DROP TRIGGER comparisons_leave_the_line;

DROP TRIGGER comparisons_rejoin_the_line;

DROP TRIGGER comparisons_change_their_place;

DROP TRIGGER batches_are_not_changed;

-- Tables are made anew rather than renamed: what ALTER TABLE writes into the schema differs between versions of SQLite.
-- A comparison gets a position when it opens, and a new one when it opens again: cursors that have passed it meet it again.
CREATE TABLE queue (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    comparison_id INTEGER NOT NULL UNIQUE REFERENCES comparisons(id),
    priority INTEGER NOT NULL
);

INSERT INTO queue (position, comparison_id, priority) SELECT ticket, comparison_id, priority FROM line ORDER BY ticket;

-- The last position ever given may be higher than those in the queue. None is given twice.
DELETE FROM sqlite_sequence WHERE name = 'queue';

UPDATE sqlite_sequence SET name = 'queue' WHERE name = 'line';

DROP TABLE line;

CREATE INDEX queue_priority ON queue(priority, position);

-- The position up to which an annotator has gone through a priority of the queue, so that judged comparisons are not read again.
CREATE TABLE queue_cursors (
    annotator_id INTEGER NOT NULL REFERENCES annotators(id),
    priority INTEGER NOT NULL,
    position INTEGER NOT NULL,
    requested_at TEXT NOT NULL,
    PRIMARY KEY (annotator_id, priority)
) WITHOUT ROWID;

INSERT INTO queue_cursors (annotator_id, priority, position, requested_at)
SELECT annotator_id, priority, ticket, asked_at FROM line_places;

DROP TABLE line_places;

-- A gold comparison or a repeat whose lease expired, or that was skipped or excluded, and the last position of the queue at
-- that time: a vote would have been queued behind it. One that was ranked and counts as a vote would has no row.
CREATE TABLE released_presentations (
    presentation_id INTEGER PRIMARY KEY REFERENCES presentations(id),
    position INTEGER NOT NULL,
    released_at TEXT NOT NULL
);

INSERT INTO released_presentations (presentation_id, position, released_at) SELECT presentation_id, ticket, at FROM given_back;

DROP TABLE given_back;

DROP INDEX leases_presentation;

DROP INDEX leases_held;

DROP INDEX leases_expiring;

-- Nothing refers to this table, so the other statements of the schema stay as they are.
ALTER TABLE leases RENAME TO leases_before;

CREATE TABLE leases (
    id INTEGER PRIMARY KEY,
    presentation_id INTEGER NOT NULL REFERENCES presentations(id),
    comparison_id INTEGER NOT NULL REFERENCES comparisons(id),
    annotator_id INTEGER NOT NULL REFERENCES annotators(id),
    selection TEXT NOT NULL CHECK (selection IN ('queue', 'gold', 'repeat', 'undo')),
    propensity REAL NOT NULL CHECK (propensity > 0 AND propensity <= 1),
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    ended_at TEXT,
    outcome TEXT CHECK (outcome IN ('judged', 'expired')),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);

INSERT INTO leases (id, presentation_id, comparison_id, annotator_id, selection, propensity, created_at, expires_at, ended_at, outcome)
SELECT id, presentation_id, comparison_id, annotator_id, CASE policy WHEN 'oldest' THEN 'queue' ELSE policy END, propensity,
    created_at, expires_at, ended_at, CASE outcome WHEN 'lapsed' THEN 'expired' ELSE outcome END
FROM leases_before ORDER BY id;

DROP TABLE leases_before;

CREATE INDEX leases_presentation ON leases(presentation_id);

CREATE INDEX leases_active ON leases(annotator_id, id) WHERE ended_at IS NULL;

CREATE INDEX leases_expiring ON leases(expires_at) WHERE ended_at IS NULL;

ALTER TABLE batches RENAME COLUMN answers TO completions;

ALTER TABLE batches RENAME COLUMN asked TO requested;

ALTER TABLE batches RENAME COLUMN made TO generated;

CREATE VIEW active_judgments AS
SELECT j.*, a.kind AS annotator_kind
FROM judgments j JOIN annotators a ON a.id = j.annotator_id
WHERE j.verdict != 'retract' AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id);

CREATE TRIGGER judgments_update_counts AFTER INSERT ON judgments
BEGIN
    -- The lease ends first: a vote and its lease counted together would exceed what is wanted, and take the comparison out of the queue.
    UPDATE leases SET ended_at = NEW.created_at, outcome = 'judged'
    WHERE presentation_id = NEW.presentation_id AND ended_at IS NULL AND NEW.verdict != 'retract';
    UPDATE judgments SET counts = 1 WHERE id = NEW.id AND verdict = 'rank' AND purpose = 'vote';
    UPDATE judgments SET counts = 0 WHERE id = NEW.supersedes AND counts = 1;
    UPDATE annotators SET judged = judged + (NEW.verdict != 'retract') - (NEW.supersedes IS NOT NULL)
    WHERE id = NEW.annotator_id;
END;

CREATE TRIGGER skips_by_people_are_counted AFTER INSERT ON judgments
WHEN NEW.purpose = 'vote' AND (SELECT kind FROM annotators WHERE id = NEW.annotator_id) = 'human'
    AND (NEW.verdict = 'skip' OR NEW.supersedes IS NOT NULL)
BEGIN
    UPDATE comparisons
    SET human_skips = human_skips + (NEW.verdict = 'skip')
        - EXISTS (SELECT 1 FROM judgments old WHERE old.id = NEW.supersedes AND old.verdict = 'skip')
    WHERE id = NEW.comparison_id;
    -- A skip puts the comparison at the end of the queue, for another annotator.
    DELETE FROM queue WHERE comparison_id = NEW.comparison_id AND NEW.verdict = 'skip';
    INSERT INTO queue (comparison_id, priority)
    SELECT id, priority FROM comparisons
    WHERE id = NEW.comparison_id AND NEW.verdict = 'skip'
        AND human_ranks + leased < wanted AND retired = 0 AND gold = 0;
END;

CREATE TRIGGER skipped_presentations_are_released AFTER INSERT ON judgments
WHEN NEW.purpose != 'vote' AND NEW.verdict = 'skip' AND NEW.presentation_id IS NOT NULL
BEGIN
    INSERT OR REPLACE INTO released_presentations (presentation_id, position, released_at)
    VALUES (NEW.presentation_id, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'queue'), 0), NEW.created_at);
END;

CREATE TRIGGER ranked_presentations_are_not_released AFTER INSERT ON judgments
WHEN NEW.purpose != 'vote' AND NEW.verdict = 'rank'
BEGIN DELETE FROM released_presentations WHERE presentation_id = NEW.presentation_id; END;

CREATE TRIGGER excluded_presentations_are_released AFTER INSERT ON excluded_judgments
WHEN EXISTS (SELECT 1 FROM judgments j WHERE j.id = NEW.judgment_id AND j.purpose != 'vote' AND j.verdict = 'rank'
    AND j.presentation_id IS NOT NULL)
BEGIN
    INSERT OR REPLACE INTO released_presentations (presentation_id, position, released_at)
    SELECT j.presentation_id, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'queue'), 0), e.created_at
    FROM judgments j JOIN exclusions e ON e.id = NEW.exclusion_id WHERE j.id = NEW.judgment_id;
END;

CREATE TRIGGER lifted_presentations_are_not_released AFTER INSERT ON exclusion_lifts
BEGIN
    DELETE FROM released_presentations WHERE presentation_id IN (
        SELECT j.presentation_id FROM judgments j JOIN excluded_judgments x ON x.judgment_id = j.id
        WHERE x.exclusion_id = NEW.exclusion_id AND j.purpose != 'vote' AND j.verdict = 'rank'
            AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id)
            AND NOT EXISTS (
                SELECT 1 FROM excluded_judgments e
                WHERE e.judgment_id = j.id AND e.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts)
            )
    );
END;

CREATE TRIGGER leases_reserve AFTER INSERT ON leases WHEN NEW.selection IN ('queue', 'undo') AND NEW.ended_at IS NULL
BEGIN
    UPDATE comparisons SET leased = leased + 1
    WHERE id = NEW.comparison_id AND (SELECT purpose FROM presentations WHERE id = NEW.presentation_id) = 'vote';
END;

CREATE TRIGGER leases_release AFTER UPDATE OF ended_at ON leases
WHEN OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL AND NEW.selection IN ('queue', 'undo')
BEGIN
    UPDATE comparisons SET leased = leased - 1
    WHERE id = NEW.comparison_id AND (SELECT purpose FROM presentations WHERE id = NEW.presentation_id) = 'vote';
    -- An expired lease puts its comparison at the end of the queue: its annotator may be the only one left to judge it.
    DELETE FROM queue WHERE comparison_id = NEW.comparison_id AND NEW.outcome = 'expired';
    INSERT INTO queue (comparison_id, priority)
    SELECT id, priority FROM comparisons
    WHERE id = NEW.comparison_id AND NEW.outcome = 'expired'
        AND human_ranks + leased < wanted AND retired = 0 AND gold = 0;
END;

CREATE TRIGGER leases_are_not_changed
BEFORE UPDATE OF id, presentation_id, comparison_id, annotator_id, selection, propensity, created_at ON leases
BEGIN SELECT RAISE(ABORT, 'leases are append-only'); END;

CREATE TRIGGER leases_are_not_deleted BEFORE DELETE ON leases
BEGIN SELECT RAISE(ABORT, 'leases are append-only'); END;

CREATE TRIGGER expired_presentations_are_released AFTER UPDATE OF ended_at ON leases
WHEN OLD.ended_at IS NULL AND NEW.outcome = 'expired'
    AND (SELECT purpose FROM presentations WHERE id = NEW.presentation_id) != 'vote'
BEGIN
    INSERT OR REPLACE INTO released_presentations (presentation_id, position, released_at)
    VALUES (NEW.presentation_id, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'queue'), 0), NEW.ended_at);
END;

CREATE TRIGGER comparisons_enter_queue AFTER INSERT ON comparisons
WHEN NEW.human_ranks + NEW.leased < NEW.wanted AND NEW.retired = 0 AND NEW.gold = 0
BEGIN INSERT INTO queue (comparison_id, priority) VALUES (NEW.id, NEW.priority); END;

CREATE TRIGGER comparisons_leave_queue AFTER UPDATE OF human_ranks, leased, wanted, retired, gold ON comparisons
WHEN NEW.human_ranks + NEW.leased >= NEW.wanted OR NEW.retired OR NEW.gold
BEGIN DELETE FROM queue WHERE comparison_id = NEW.id; END;

CREATE TRIGGER comparisons_enter_queue_again AFTER UPDATE OF human_ranks, leased, wanted, retired, gold ON comparisons
WHEN NEW.human_ranks + NEW.leased < NEW.wanted AND NEW.retired = 0 AND NEW.gold = 0
    AND (OLD.human_ranks + OLD.leased >= OLD.wanted OR OLD.retired OR OLD.gold)
BEGIN INSERT OR IGNORE INTO queue (comparison_id, priority) VALUES (NEW.id, NEW.priority); END;

CREATE TRIGGER comparisons_change_priority AFTER UPDATE OF priority ON comparisons WHEN NEW.priority != OLD.priority
BEGIN
    DELETE FROM queue WHERE comparison_id = NEW.id;
    INSERT INTO queue (comparison_id, priority)
    SELECT NEW.id, NEW.priority
    WHERE NEW.human_ranks + NEW.leased < NEW.wanted AND NEW.retired = 0 AND NEW.gold = 0;
END;

CREATE TRIGGER batches_are_not_changed
BEFORE UPDATE OF id, policy_ids, completions, sampling, requested, priority, by_id, created_at ON batches
BEGIN SELECT RAISE(ABORT, 'batches are append-only'); END;

-- What was done besides judging.
CREATE VIEW acts AS
SELECT created_at AS at, by_id, 'excluded' AS act, 'exclusion' AS subject, CAST(id AS TEXT) AS subject_id,
    rule || ': ' || reason AS detail
FROM exclusions
UNION ALL
SELECT created_at, by_id, 'lifted', 'exclusion', CAST(exclusion_id AS TEXT), reason FROM exclusion_lifts
UNION ALL
SELECT created_at, by_id, 'set gold answer', 'comparison', CAST(comparison_id AS TEXT), note FROM gold_answers
UNION ALL
SELECT created_at, by_id, 'changed settings', 'settings', CAST(id AS TEXT), "values" FROM settings
UNION ALL
SELECT created_at, by_id, 'published', 'guidelines', CAST(id AS TEXT), '' FROM guidelines
UNION ALL
SELECT created_at, by_id, 'imported', 'import', CAST(id AS TEXT), source FROM imports
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

CREATE VIEW judging_acts AS
SELECT created_at AS at, annotator_id AS by_id,
    CASE WHEN verdict = 'retract' THEN 'undid' WHEN supersedes IS NOT NULL THEN 'corrected'
        WHEN verdict = 'skip' THEN 'skipped' ELSE 'judged' END AS act,
    'comparison' AS subject, CAST(comparison_id AS TEXT) AS subject_id, coalesce(skip_reason, '') AS detail,
    id AS judgment_id
FROM judgments WHERE import_id IS NULL;

CREATE VIEW audit AS
SELECT * FROM acts
UNION ALL
SELECT at, by_id, act, subject, subject_id, detail FROM judging_acts;
