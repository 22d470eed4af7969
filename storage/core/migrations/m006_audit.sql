-- What was written stays written, in every table that records what somebody did, and one view of who did what when.

CREATE TRIGGER prompts_are_not_changed BEFORE UPDATE OF id, messages, kind, split, source, digest, created_at, import_id ON prompts
BEGIN SELECT RAISE(ABORT, 'prompts are append-only'); END;

CREATE TRIGGER prompts_are_not_deleted BEFORE DELETE ON prompts
BEGIN SELECT RAISE(ABORT, 'prompts are append-only'); END;

CREATE TRIGGER policy_versions_are_not_changed BEFORE UPDATE ON policy_versions
BEGIN SELECT RAISE(ABORT, 'policy_versions are append-only'); END;

CREATE TRIGGER policy_versions_are_not_deleted BEFORE DELETE ON policy_versions
BEGIN SELECT RAISE(ABORT, 'policy_versions are append-only'); END;

CREATE TRIGGER completions_are_not_changed BEFORE UPDATE ON completions
BEGIN SELECT RAISE(ABORT, 'completions are append-only'); END;

CREATE TRIGGER completions_are_not_deleted BEFORE DELETE ON completions
BEGIN SELECT RAISE(ABORT, 'completions are append-only'); END;

CREATE TRIGGER comparisons_are_not_changed BEFORE UPDATE OF id, prompt_id, purpose, created_at, import_id, batch_id, digest ON comparisons
BEGIN SELECT RAISE(ABORT, 'comparisons are append-only'); END;

CREATE TRIGGER comparisons_are_not_deleted BEFORE DELETE ON comparisons
BEGIN SELECT RAISE(ABORT, 'comparisons are append-only'); END;

CREATE TRIGGER comparison_completions_are_not_changed BEFORE UPDATE ON comparison_completions
BEGIN SELECT RAISE(ABORT, 'comparison_completions are append-only'); END;

CREATE TRIGGER comparison_completions_are_not_deleted BEFORE DELETE ON comparison_completions
BEGIN SELECT RAISE(ABORT, 'comparison_completions are append-only'); END;

CREATE TRIGGER annotators_are_not_changed BEFORE UPDATE OF id, kind, rule, created_at ON annotators
BEGIN SELECT RAISE(ABORT, 'annotators are append-only'); END;

CREATE TRIGGER pseudonyms_are_not_changed BEFORE UPDATE OF pseudonym ON annotators WHEN OLD.pseudonym IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'pseudonyms are append-only: exports that were made name them'); END;

CREATE TRIGGER annotators_are_not_deleted BEFORE DELETE ON annotators
BEGIN SELECT RAISE(ABORT, 'annotators are append-only'); END;

CREATE TRIGGER presentations_are_not_changed BEFORE UPDATE ON presentations
BEGIN SELECT RAISE(ABORT, 'presentations are append-only'); END;

CREATE TRIGGER presentations_are_not_deleted BEFORE DELETE ON presentations
BEGIN SELECT RAISE(ABORT, 'presentations are append-only'); END;

CREATE TRIGGER leases_are_not_changed BEFORE UPDATE OF id, presentation_id, comparison_id, annotator_id, policy, propensity, created_at ON leases
BEGIN SELECT RAISE(ABORT, 'leases are append-only'); END;

CREATE TRIGGER leases_are_not_deleted BEFORE DELETE ON leases
BEGIN SELECT RAISE(ABORT, 'leases are append-only'); END;

CREATE TRIGGER aspect_ratings_are_not_changed BEFORE UPDATE ON aspect_ratings
BEGIN SELECT RAISE(ABORT, 'aspect_ratings are append-only'); END;

CREATE TRIGGER aspect_ratings_are_not_deleted BEFORE DELETE ON aspect_ratings
BEGIN SELECT RAISE(ABORT, 'aspect_ratings are append-only'); END;

CREATE TRIGGER ideal_answers_are_not_changed BEFORE UPDATE ON ideal_answers
BEGIN SELECT RAISE(ABORT, 'ideal_answers are append-only'); END;

CREATE TRIGGER ideal_answers_are_not_deleted BEFORE DELETE ON ideal_answers
BEGIN SELECT RAISE(ABORT, 'ideal_answers are append-only'); END;

CREATE TRIGGER flags_are_not_changed BEFORE UPDATE ON flags
BEGIN SELECT RAISE(ABORT, 'flags are append-only'); END;

CREATE TRIGGER flags_are_not_deleted BEFORE DELETE ON flags
BEGIN SELECT RAISE(ABORT, 'flags are append-only'); END;

CREATE TRIGGER gold_answers_are_not_changed BEFORE UPDATE ON gold_answers
BEGIN SELECT RAISE(ABORT, 'gold_answers are append-only'); END;

CREATE TRIGGER gold_answers_are_not_deleted BEFORE DELETE ON gold_answers
BEGIN SELECT RAISE(ABORT, 'gold_answers are append-only'); END;

CREATE TRIGGER exclusions_are_not_changed BEFORE UPDATE ON exclusions
BEGIN SELECT RAISE(ABORT, 'exclusions are append-only'); END;

CREATE TRIGGER exclusions_are_not_deleted BEFORE DELETE ON exclusions
BEGIN SELECT RAISE(ABORT, 'exclusions are append-only'); END;

CREATE TRIGGER excluded_judgments_are_not_changed BEFORE UPDATE ON excluded_judgments
BEGIN SELECT RAISE(ABORT, 'excluded_judgments are append-only'); END;

CREATE TRIGGER excluded_judgments_are_not_deleted BEFORE DELETE ON excluded_judgments
BEGIN SELECT RAISE(ABORT, 'excluded_judgments are append-only'); END;

CREATE TRIGGER exclusion_lifts_are_not_changed BEFORE UPDATE ON exclusion_lifts
BEGIN SELECT RAISE(ABORT, 'exclusion_lifts are append-only'); END;

CREATE TRIGGER exclusion_lifts_are_not_deleted BEFORE DELETE ON exclusion_lifts
BEGIN SELECT RAISE(ABORT, 'exclusion_lifts are append-only'); END;

CREATE TRIGGER settings_are_not_changed BEFORE UPDATE ON settings
BEGIN SELECT RAISE(ABORT, 'settings are append-only'); END;

CREATE TRIGGER settings_are_not_deleted BEFORE DELETE ON settings
BEGIN SELECT RAISE(ABORT, 'settings are append-only'); END;

CREATE TRIGGER guidelines_are_not_changed BEFORE UPDATE ON guidelines
BEGIN SELECT RAISE(ABORT, 'guidelines are append-only'); END;

CREATE TRIGGER guidelines_are_not_deleted BEFORE DELETE ON guidelines
BEGIN SELECT RAISE(ABORT, 'guidelines are append-only'); END;

CREATE TRIGGER account_events_are_not_changed BEFORE UPDATE ON account_events
BEGIN SELECT RAISE(ABORT, 'account_events are append-only'); END;

CREATE TRIGGER account_events_are_not_deleted BEFORE DELETE ON account_events
BEGIN SELECT RAISE(ABORT, 'account_events are append-only'); END;

CREATE TRIGGER imports_are_not_changed BEFORE UPDATE OF id, format, source, sha256, by_id, created_at ON imports
BEGIN SELECT RAISE(ABORT, 'imports are append-only'); END;

CREATE TRIGGER imports_are_not_deleted BEFORE DELETE ON imports
BEGIN SELECT RAISE(ABORT, 'imports are append-only'); END;

CREATE TRIGGER batches_are_not_changed BEFORE UPDATE OF id, policy_ids, answers, sampling, asked, priority, by_id, created_at ON batches
BEGIN SELECT RAISE(ABORT, 'batches are append-only'); END;

CREATE TRIGGER batches_are_not_deleted BEFORE DELETE ON batches
BEGIN SELECT RAISE(ABORT, 'batches are append-only'); END;

CREATE TRIGGER accounts_are_not_deleted BEFORE DELETE ON accounts
BEGIN SELECT RAISE(ABORT, 'accounts are disabled, not deleted'); END;

-- What was done beside judging.
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
SELECT created_at, by_id, 'asked for', 'batch', CAST(id AS TEXT), asked || ' comparisons' FROM batches
UNION ALL
SELECT cancelled_at, cancelled_by_id, 'cancelled', 'batch', CAST(id AS TEXT), made || ' of ' || asked || ' made'
FROM batches WHERE cancelled_at IS NOT NULL
UNION ALL
SELECT created_at, by_id, act, 'account', CAST(annotator_id AS TEXT), detail FROM account_events
UNION ALL
SELECT created_at, by_id, 'started', 'run', id, '' FROM runs;

CREATE VIEW acts_of_judging AS
SELECT created_at AS at, annotator_id AS by_id,
    CASE WHEN verdict = 'retract' THEN 'undid' WHEN supersedes IS NOT NULL THEN 'corrected'
        WHEN verdict = 'skip' THEN 'skipped' ELSE 'judged' END AS act,
    'comparison' AS subject, CAST(comparison_id AS TEXT) AS subject_id, coalesce(skip_reason, '') AS detail,
    id AS judgment_id
FROM judgments WHERE import_id IS NULL;

CREATE VIEW audit AS
SELECT * FROM acts
UNION ALL
SELECT at, by_id, act, subject, subject_id, detail FROM acts_of_judging;
