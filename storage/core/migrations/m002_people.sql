-- Accounts to sign in with, and what is known of an annotator beside the name. An account acts as its annotator.

ALTER TABLE annotators ADD COLUMN pseudonym TEXT;

-- The name in exports: random, so that it tells neither who it is nor who came first.
UPDATE annotators SET pseudonym = lower(hex(randomblob(6)));

CREATE UNIQUE INDEX annotators_pseudonym ON annotators(pseudonym);

CREATE TRIGGER annotators_get_a_pseudonym AFTER INSERT ON annotators WHEN NEW.pseudonym IS NULL
BEGIN UPDATE annotators SET pseudonym = lower(hex(randomblob(6))) WHERE id = NEW.id; END;

ALTER TABLE annotators ADD COLUMN shows_name INTEGER NOT NULL DEFAULT 0;

ALTER TABLE annotators ADD COLUMN judged INTEGER NOT NULL DEFAULT 0;

UPDATE annotators SET judged = (SELECT count(*) FROM standing_judgments s WHERE s.annotator_id = annotators.id);

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    annotator_id INTEGER NOT NULL UNIQUE REFERENCES annotators(id),
    password_hash TEXT NOT NULL,
    roles TEXT NOT NULL,
    created_at TEXT NOT NULL,
    disabled_at TEXT
);

CREATE TABLE account_events (
    id INTEGER PRIMARY KEY,
    annotator_id INTEGER NOT NULL REFERENCES annotators(id),
    act TEXT NOT NULL CHECK (act IN ('created', 'roles', 'password', 'disabled', 'enabled')),
    detail TEXT NOT NULL DEFAULT '',
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL
);

CREATE TABLE sessions (
    token_hash TEXT PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES accounts(id),
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX sessions_account ON sessions(account_id);

CREATE TABLE sign_in_failures (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    created_at TEXT NOT NULL
);

CREATE INDEX sign_in_failures_name ON sign_in_failures(name, created_at);
