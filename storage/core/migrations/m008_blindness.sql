-- What keeps a comparison from being told by anything but its texts: the key of the names under which browsers know rows,
-- and when gold comparisons and repeats were given back, since these have no place of their own in the line.

CREATE TABLE keys (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- A gold comparison or a repeat that lapsed, was skipped or excluded, and the last ticket of the line then: a vote would
-- have gone behind it. What was ranked, and counts as a vote would, keeps its place and has no row.
CREATE TABLE given_back (
    presentation_id INTEGER PRIMARY KEY REFERENCES presentations(id),
    ticket INTEGER NOT NULL,
    at TEXT NOT NULL
);

CREATE TRIGGER lapsed_is_given_back AFTER UPDATE OF ended_at ON leases
WHEN OLD.ended_at IS NULL AND NEW.outcome = 'lapsed'
    AND (SELECT purpose FROM presentations WHERE id = NEW.presentation_id) != 'vote'
BEGIN
    INSERT OR REPLACE INTO given_back (presentation_id, ticket, at)
    VALUES (NEW.presentation_id, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'line'), 0), NEW.ended_at);
END;

CREATE TRIGGER skipped_is_given_back AFTER INSERT ON judgments
WHEN NEW.purpose != 'vote' AND NEW.verdict = 'skip' AND NEW.presentation_id IS NOT NULL
BEGIN
    INSERT OR REPLACE INTO given_back (presentation_id, ticket, at)
    VALUES (NEW.presentation_id, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'line'), 0), NEW.created_at);
END;

CREATE TRIGGER ranked_is_not_given_back AFTER INSERT ON judgments
WHEN NEW.purpose != 'vote' AND NEW.verdict = 'rank'
BEGIN DELETE FROM given_back WHERE presentation_id = NEW.presentation_id; END;

CREATE TRIGGER excluded_is_given_back AFTER INSERT ON excluded_judgments
WHEN EXISTS (SELECT 1 FROM judgments j WHERE j.id = NEW.judgment_id AND j.purpose != 'vote' AND j.verdict = 'rank'
    AND j.presentation_id IS NOT NULL)
BEGIN
    INSERT OR REPLACE INTO given_back (presentation_id, ticket, at)
    SELECT j.presentation_id, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'line'), 0), e.created_at
    FROM judgments j JOIN exclusions e ON e.id = NEW.exclusion_id WHERE j.id = NEW.judgment_id;
END;

CREATE TRIGGER lifted_is_not_given_back AFTER INSERT ON exclusion_lifts
BEGIN
    DELETE FROM given_back WHERE presentation_id IN (
        SELECT j.presentation_id FROM judgments j JOIN excluded_judgments x ON x.judgment_id = j.id
        WHERE x.exclusion_id = NEW.exclusion_id AND j.purpose != 'vote' AND j.verdict = 'rank'
            AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id)
            AND NOT EXISTS (
                SELECT 1 FROM excluded_judgments e
                WHERE e.judgment_id = j.id AND e.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts)
            )
    );
END;
