-- All that a judgment can say beside its tiers, and the exclusions that keep a judgment from counting.

ALTER TABLE presentations ADD COLUMN purpose TEXT NOT NULL DEFAULT 'vote' CHECK (purpose IN ('vote', 'gold', 'repeat'));

ALTER TABLE presentations ADD COLUMN guidelines_id INTEGER REFERENCES guidelines(id);

ALTER TABLE judgments ADD COLUMN purpose TEXT NOT NULL DEFAULT 'vote' CHECK (purpose IN ('vote', 'gold', 'repeat'));

ALTER TABLE judgments ADD COLUMN strength TEXT CHECK (strength IN ('significantly', 'better', 'slightly', 'negligibly'));

ALTER TABLE judgments ADD COLUMN partial INTEGER NOT NULL DEFAULT 0;

ALTER TABLE judgments ADD COLUMN rationale TEXT NOT NULL DEFAULT '';

ALTER TABLE judgments ADD COLUMN active_ms INTEGER;

ALTER TABLE judgments ADD COLUMN idle_ms INTEGER;

ALTER TABLE judgments ADD COLUMN client_ms INTEGER;

ALTER TABLE judgments ADD COLUMN server_ms INTEGER;

ALTER TABLE judgments ADD COLUMN import_id INTEGER REFERENCES imports(id);

ALTER TABLE judgments ADD COLUMN counts INTEGER NOT NULL DEFAULT 0;

CREATE INDEX judgments_import ON judgments(import_id) WHERE import_id IS NOT NULL;

CREATE TABLE aspect_ratings (
    judgment_id INTEGER NOT NULL REFERENCES judgments(id),
    completion_id INTEGER NOT NULL REFERENCES completions(id),
    aspect TEXT NOT NULL,
    rating INTEGER NOT NULL,
    PRIMARY KEY (judgment_id, completion_id, aspect)
) WITHOUT ROWID;

CREATE TABLE ideal_answers (
    judgment_id INTEGER PRIMARY KEY REFERENCES judgments(id),
    completion_id INTEGER REFERENCES completions(id),
    text TEXT NOT NULL,
    edit_distance INTEGER
);

CREATE TABLE flags (
    id INTEGER PRIMARY KEY,
    judgment_id INTEGER NOT NULL REFERENCES judgments(id),
    completion_id INTEGER REFERENCES completions(id),
    kind TEXT NOT NULL CHECK (kind IN ('unsafe', 'personal_data', 'wrong_language', 'broken_prompt')),
    note TEXT NOT NULL DEFAULT ''
);

CREATE INDEX flags_judgment ON flags(judgment_id);

CREATE TABLE exclusions (
    id INTEGER PRIMARY KEY,
    rule TEXT NOT NULL,
    reason TEXT NOT NULL,
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL
);

CREATE TABLE excluded_judgments (
    judgment_id INTEGER NOT NULL REFERENCES judgments(id),
    exclusion_id INTEGER NOT NULL REFERENCES exclusions(id),
    PRIMARY KEY (judgment_id, exclusion_id)
) WITHOUT ROWID;

CREATE INDEX excluded_judgments_exclusion ON excluded_judgments(exclusion_id);

CREATE TABLE exclusion_lifts (
    exclusion_id INTEGER PRIMARY KEY REFERENCES exclusions(id),
    reason TEXT NOT NULL,
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL
);
