-- What a project says once for all its comparisons: settings, guidelines, imports, and batches that are asked for.

CREATE TABLE settings (
    id INTEGER PRIMARY KEY,
    "values" TEXT NOT NULL,
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL
);

CREATE TABLE guidelines (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL,
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL
);

CREATE TABLE imports (
    id INTEGER PRIMARY KEY,
    format TEXT NOT NULL,
    source TEXT NOT NULL,
    sha256 TEXT,
    report TEXT NOT NULL,
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL,
    undone_by_id INTEGER REFERENCES annotators(id),
    undone_at TEXT
);

CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    policy_ids TEXT NOT NULL,
    answers INTEGER NOT NULL CHECK (answers BETWEEN 2 AND 9),
    sampling TEXT NOT NULL,
    asked INTEGER NOT NULL CHECK (asked > 0),
    made INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0,
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL,
    cancelled_by_id INTEGER REFERENCES annotators(id),
    cancelled_at TEXT
);

ALTER TABLE runs ADD COLUMN by_id INTEGER REFERENCES annotators(id);

ALTER TABLE prompts ADD COLUMN import_id INTEGER REFERENCES imports(id);

ALTER TABLE prompts ADD COLUMN retired INTEGER NOT NULL DEFAULT 0;

ALTER TABLE comparisons ADD COLUMN import_id INTEGER REFERENCES imports(id);

ALTER TABLE comparisons ADD COLUMN batch_id INTEGER REFERENCES batches(id);

ALTER TABLE comparisons ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

ALTER TABLE comparisons ADD COLUMN wanted INTEGER NOT NULL DEFAULT 1;

ALTER TABLE comparisons ADD COLUMN retired INTEGER NOT NULL DEFAULT 0;

ALTER TABLE comparisons ADD COLUMN digest TEXT;

CREATE INDEX comparisons_digest ON comparisons(digest) WHERE digest IS NOT NULL;

CREATE INDEX comparisons_import ON comparisons(import_id) WHERE import_id IS NOT NULL;

CREATE INDEX comparisons_batch ON comparisons(batch_id) WHERE batch_id IS NOT NULL;

CREATE INDEX prompts_import ON prompts(import_id) WHERE import_id IS NOT NULL;
