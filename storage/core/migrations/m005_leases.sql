-- Who judges what: leases, the line of open comparisons, gold answers, and the triggers that keep the counts.

DROP TRIGGER judgments_are_not_changed;

DROP TRIGGER judgments_answer_presentations;

DROP TRIGGER judgments_by_people_are_counted;

DROP VIEW standing_judgments;

DROP INDEX presentations_unanswered;

DROP INDEX comparisons_unranked;

ALTER TABLE presentations DROP COLUMN answered;

ALTER TABLE presentations DROP COLUMN undone_by;

ALTER TABLE comparisons ADD COLUMN leased INTEGER NOT NULL DEFAULT 0;

ALTER TABLE comparisons ADD COLUMN gold INTEGER NOT NULL DEFAULT 0;

UPDATE judgments SET counts = 1
WHERE verdict = 'rank' AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = judgments.id);

DROP INDEX judgments_annotator;

CREATE INDEX judgments_annotator ON judgments(annotator_id, id);

CREATE INDEX judgments_created ON judgments(created_at);

CREATE TABLE leases (
    id INTEGER PRIMARY KEY,
    presentation_id INTEGER NOT NULL REFERENCES presentations(id),
    comparison_id INTEGER NOT NULL REFERENCES comparisons(id),
    annotator_id INTEGER NOT NULL REFERENCES annotators(id),
    policy TEXT NOT NULL CHECK (policy IN ('oldest', 'gold', 'repeat', 'undo')),
    propensity REAL NOT NULL CHECK (propensity > 0 AND propensity <= 1),
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    ended_at TEXT,
    outcome TEXT CHECK (outcome IN ('judged', 'lapsed')),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);

CREATE INDEX leases_presentation ON leases(presentation_id);

CREATE INDEX leases_held ON leases(annotator_id, id) WHERE ended_at IS NULL;

CREATE INDEX leases_expiring ON leases(expires_at) WHERE ended_at IS NULL;

-- A ticket is drawn when a comparison opens, and anew when it opens again: whoever passed it then meets it once more.
CREATE TABLE line (
    ticket INTEGER PRIMARY KEY AUTOINCREMENT,
    comparison_id INTEGER NOT NULL UNIQUE REFERENCES comparisons(id),
    priority INTEGER NOT NULL
);

CREATE INDEX line_priority ON line(priority, ticket);

-- How far along the line an annotator has come, so that nobody walks past everything they have judged.
CREATE TABLE line_places (
    annotator_id INTEGER NOT NULL REFERENCES annotators(id),
    priority INTEGER NOT NULL,
    ticket INTEGER NOT NULL,
    asked_at TEXT NOT NULL,
    PRIMARY KEY (annotator_id, priority)
) WITHOUT ROWID;

INSERT INTO line (comparison_id, priority)
SELECT id, priority FROM comparisons WHERE human_ranks < wanted ORDER BY human_skips > 0, id;

CREATE TABLE gold_answers (
    id INTEGER PRIMARY KEY,
    comparison_id INTEGER NOT NULL REFERENCES comparisons(id),
    tiers TEXT NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL
);

CREATE INDEX gold_answers_comparison ON gold_answers(comparison_id);

CREATE INDEX comparisons_gold ON comparisons(id) WHERE gold = 1;

CREATE VIEW standing_judgments AS
SELECT j.*, a.kind AS annotator_kind
FROM judgments j JOIN annotators a ON a.id = j.annotator_id
WHERE j.verdict != 'retract' AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id);

CREATE VIEW votes AS
SELECT j.*, a.kind AS annotator_kind
FROM judgments j JOIN annotators a ON a.id = j.annotator_id
WHERE j.counts = 1;

CREATE TRIGGER judgments_are_not_changed
BEFORE UPDATE OF id, comparison_id, presentation_id, annotator_id, verdict, tiers, all_bad, skip_reason, supersedes,
    created_at, purpose, strength, partial, rationale, active_ms, idle_ms, client_ms, server_ms, import_id ON judgments
BEGIN SELECT RAISE(ABORT, 'judgments are append-only'); END;

CREATE TRIGGER judgments_count AFTER INSERT ON judgments
BEGIN
    -- First of all: a vote and its lease counted at once would seem too many, and cost the comparison its place in line.
    UPDATE leases SET ended_at = NEW.created_at, outcome = 'judged'
    WHERE presentation_id = NEW.presentation_id AND ended_at IS NULL AND NEW.verdict != 'retract';
    UPDATE judgments SET counts = 1 WHERE id = NEW.id AND verdict = 'rank' AND purpose = 'vote';
    UPDATE judgments SET counts = 0 WHERE id = NEW.supersedes AND counts = 1;
    UPDATE annotators SET judged = judged + (NEW.verdict != 'retract') - (NEW.supersedes IS NOT NULL)
    WHERE id = NEW.annotator_id;
END;

CREATE TRIGGER judgments_by_people_are_counted AFTER UPDATE OF counts ON judgments
WHEN NEW.counts != OLD.counts AND (SELECT kind FROM annotators WHERE id = NEW.annotator_id) = 'human'
BEGIN
    UPDATE comparisons SET human_ranks = human_ranks + NEW.counts - OLD.counts WHERE id = NEW.comparison_id;
END;

CREATE TRIGGER skips_by_people_are_counted AFTER INSERT ON judgments
WHEN NEW.purpose = 'vote' AND (SELECT kind FROM annotators WHERE id = NEW.annotator_id) = 'human'
    AND (NEW.verdict = 'skip' OR NEW.supersedes IS NOT NULL)
BEGIN
    UPDATE comparisons
    SET human_skips = human_skips + (NEW.verdict = 'skip')
        - EXISTS (SELECT 1 FROM judgments old WHERE old.id = NEW.supersedes AND old.verdict = 'skip')
    WHERE id = NEW.comparison_id;
    -- Who skips sends the comparison to the end of the line, for somebody else.
    DELETE FROM line WHERE comparison_id = NEW.comparison_id AND NEW.verdict = 'skip';
    INSERT INTO line (comparison_id, priority)
    SELECT id, priority FROM comparisons
    WHERE id = NEW.comparison_id AND NEW.verdict = 'skip'
        AND human_ranks + leased < wanted AND retired = 0 AND gold = 0;
END;

CREATE TRIGGER leases_reserve AFTER INSERT ON leases WHEN NEW.policy IN ('oldest', 'undo') AND NEW.ended_at IS NULL
BEGIN
    UPDATE comparisons SET leased = leased + 1
    WHERE id = NEW.comparison_id AND (SELECT purpose FROM presentations WHERE id = NEW.presentation_id) = 'vote';
END;

CREATE TRIGGER leases_release AFTER UPDATE OF ended_at ON leases
WHEN OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL AND NEW.policy IN ('oldest', 'undo')
BEGIN
    UPDATE comparisons SET leased = leased - 1
    WHERE id = NEW.comparison_id AND (SELECT purpose FROM presentations WHERE id = NEW.presentation_id) = 'vote';
    -- What lapsed goes to the end of the line: the one who let it lapse may be the only one left to judge it.
    DELETE FROM line WHERE comparison_id = NEW.comparison_id AND NEW.outcome = 'lapsed';
    INSERT INTO line (comparison_id, priority)
    SELECT id, priority FROM comparisons
    WHERE id = NEW.comparison_id AND NEW.outcome = 'lapsed'
        AND human_ranks + leased < wanted AND retired = 0 AND gold = 0;
END;

CREATE TRIGGER comparisons_join_the_line AFTER INSERT ON comparisons
WHEN NEW.human_ranks + NEW.leased < NEW.wanted AND NEW.retired = 0 AND NEW.gold = 0
BEGIN INSERT INTO line (comparison_id, priority) VALUES (NEW.id, NEW.priority); END;

CREATE TRIGGER comparisons_leave_the_line AFTER UPDATE OF human_ranks, leased, wanted, retired, gold ON comparisons
WHEN NEW.human_ranks + NEW.leased >= NEW.wanted OR NEW.retired OR NEW.gold
BEGIN DELETE FROM line WHERE comparison_id = NEW.id; END;

CREATE TRIGGER comparisons_rejoin_the_line AFTER UPDATE OF human_ranks, leased, wanted, retired, gold ON comparisons
WHEN NEW.human_ranks + NEW.leased < NEW.wanted AND NEW.retired = 0 AND NEW.gold = 0
    AND (OLD.human_ranks + OLD.leased >= OLD.wanted OR OLD.retired OR OLD.gold)
BEGIN INSERT OR IGNORE INTO line (comparison_id, priority) VALUES (NEW.id, NEW.priority); END;

CREATE TRIGGER comparisons_change_their_place AFTER UPDATE OF priority ON comparisons WHEN NEW.priority != OLD.priority
BEGIN
    DELETE FROM line WHERE comparison_id = NEW.id;
    INSERT INTO line (comparison_id, priority)
    SELECT NEW.id, NEW.priority
    WHERE NEW.human_ranks + NEW.leased < NEW.wanted AND NEW.retired = 0 AND NEW.gold = 0;
END;

CREATE TRIGGER gold_answers_mark AFTER INSERT ON gold_answers
BEGIN UPDATE comparisons SET gold = 1 WHERE id = NEW.comparison_id; END;

CREATE TRIGGER exclusions_uncount AFTER INSERT ON excluded_judgments
BEGIN UPDATE judgments SET counts = 0 WHERE id = NEW.judgment_id AND counts = 1; END;

CREATE TRIGGER exclusion_lifts_recount AFTER INSERT ON exclusion_lifts
BEGIN
    UPDATE judgments SET counts = 1
    WHERE id IN (SELECT judgment_id FROM excluded_judgments WHERE exclusion_id = NEW.exclusion_id)
        AND counts = 0 AND verdict = 'rank' AND purpose = 'vote'
        AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = judgments.id)
        AND NOT EXISTS (
            SELECT 1 FROM excluded_judgments e
            WHERE e.judgment_id = judgments.id AND e.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts)
        );
END;
