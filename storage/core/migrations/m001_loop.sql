-- Everything one turn of the loop needs: collect, train, come back.

CREATE TABLE prompts (
    id INTEGER PRIMARY KEY,
    messages TEXT NOT NULL,
    kind TEXT NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'heldout')),
    source TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL
);

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed', 'cancelled', 'lost')),
    config TEXT NOT NULL,
    seed INTEGER NOT NULL,
    versions TEXT NOT NULL,
    snapshot TEXT,
    stage TEXT,
    progress REAL NOT NULL DEFAULT 0,
    eta_s REAL,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    pid INTEGER,
    heartbeat_at TEXT,
    created_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT,
    error TEXT,
    result TEXT
);

CREATE TABLE policy_versions (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('base', 'tuned', 'external')),
    base_model TEXT NOT NULL,
    adapter_path TEXT,
    run_id TEXT REFERENCES runs(id),
    created_at TEXT NOT NULL
);

CREATE TABLE completions (
    id INTEGER PRIMARY KEY,
    prompt_id INTEGER NOT NULL REFERENCES prompts(id),
    policy_version_id INTEGER NOT NULL REFERENCES policy_versions(id),
    text TEXT NOT NULL,
    sampling TEXT NOT NULL,
    seed INTEGER,
    finish_reason TEXT NOT NULL,
    latency_s REAL NOT NULL,
    created_at TEXT NOT NULL
);

CREATE INDEX completions_prompt ON completions(prompt_id);

CREATE TABLE comparisons (
    id INTEGER PRIMARY KEY,
    prompt_id INTEGER NOT NULL REFERENCES prompts(id),
    purpose TEXT NOT NULL,
    human_ranks INTEGER NOT NULL DEFAULT 0,
    human_skips INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL
);

CREATE INDEX comparisons_prompt ON comparisons(prompt_id);

CREATE INDEX comparisons_unranked ON comparisons(human_skips > 0, id) WHERE human_ranks = 0;

CREATE TABLE comparison_completions (
    comparison_id INTEGER NOT NULL REFERENCES comparisons(id),
    position INTEGER NOT NULL,
    completion_id INTEGER NOT NULL REFERENCES completions(id),
    PRIMARY KEY (comparison_id, position),
    UNIQUE (comparison_id, completion_id)
) WITHOUT ROWID;

CREATE TABLE annotators (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('human', 'simulated')),
    rule TEXT,
    created_at TEXT NOT NULL,
    CHECK ((kind = 'simulated') = (rule IS NOT NULL))
);

CREATE TABLE presentations (
    id INTEGER PRIMARY KEY,
    comparison_id INTEGER NOT NULL REFERENCES comparisons(id),
    annotator_id INTEGER NOT NULL REFERENCES annotators(id),
    slots TEXT NOT NULL,
    answered INTEGER NOT NULL DEFAULT 0,
    undone_by INTEGER REFERENCES judgments(id),
    created_at TEXT NOT NULL
);

CREATE INDEX presentations_comparison ON presentations(comparison_id, annotator_id);

CREATE INDEX presentations_unanswered ON presentations(annotator_id, undone_by) WHERE answered = 0;

CREATE TABLE judgments (
    id INTEGER PRIMARY KEY,
    comparison_id INTEGER NOT NULL REFERENCES comparisons(id),
    presentation_id INTEGER REFERENCES presentations(id),
    annotator_id INTEGER NOT NULL REFERENCES annotators(id),
    verdict TEXT NOT NULL CHECK (verdict IN ('rank', 'skip', 'retract')),
    tiers TEXT NOT NULL DEFAULT '[]',
    all_bad INTEGER NOT NULL DEFAULT 0,
    skip_reason TEXT,
    supersedes INTEGER UNIQUE REFERENCES judgments(id),
    created_at TEXT NOT NULL,
    CHECK ((verdict = 'skip') = (skip_reason IS NOT NULL)),
    CHECK (verdict != 'retract' OR supersedes IS NOT NULL)
);

CREATE INDEX judgments_comparison ON judgments(comparison_id, annotator_id);

CREATE INDEX judgments_presentation ON judgments(presentation_id);

CREATE INDEX judgments_annotator ON judgments(annotator_id);

CREATE TRIGGER judgments_are_not_changed BEFORE UPDATE ON judgments
BEGIN SELECT RAISE(ABORT, 'judgments are append-only'); END;

CREATE TRIGGER judgments_are_not_deleted BEFORE DELETE ON judgments
BEGIN SELECT RAISE(ABORT, 'judgments are append-only'); END;

CREATE TRIGGER judgments_answer_presentations AFTER INSERT ON judgments
WHEN NEW.presentation_id IS NOT NULL
BEGIN
    UPDATE presentations
    SET answered = NEW.verdict != 'retract', undone_by = CASE NEW.verdict WHEN 'retract' THEN NEW.id END
    WHERE id = NEW.presentation_id;
END;

CREATE TRIGGER judgments_by_people_are_counted AFTER INSERT ON judgments
WHEN (SELECT kind FROM annotators WHERE id = NEW.annotator_id) = 'human'
BEGIN
    UPDATE comparisons
    SET human_ranks = human_ranks + (NEW.verdict = 'rank')
            - EXISTS (SELECT 1 FROM judgments old WHERE old.id = NEW.supersedes AND old.verdict = 'rank'),
        human_skips = human_skips + (NEW.verdict = 'skip')
            - EXISTS (SELECT 1 FROM judgments old WHERE old.id = NEW.supersedes AND old.verdict = 'skip')
    WHERE id = NEW.comparison_id;
END;

CREATE VIEW standing_judgments AS
SELECT j.*, a.kind AS annotator_kind
FROM judgments j JOIN annotators a ON a.id = j.annotator_id
WHERE j.verdict != 'retract' AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id);

CREATE TABLE metrics (
    run_id TEXT NOT NULL REFERENCES runs(id),
    name TEXT NOT NULL,
    step INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (run_id, name, step)
) WITHOUT ROWID;

CREATE TABLE run_samples (
    run_id TEXT NOT NULL REFERENCES runs(id),
    prompt_id INTEGER NOT NULL REFERENCES prompts(id),
    before TEXT NOT NULL,
    after TEXT,
    score_before REAL,
    score_after REAL,
    PRIMARY KEY (run_id, prompt_id)
) WITHOUT ROWID;
