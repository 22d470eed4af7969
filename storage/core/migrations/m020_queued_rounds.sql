-- Rounds that people and triggers asked for. One of them becomes a run when no other round trains; a run is no longer refused while
-- another one trains.

-- `state` is 'waiting' until the round has begun ('started', with its run), could not begin ('not started', with the reason), or was
-- taken out. `worker_at` is when its worker was first started: a run without it belongs to a process that died just before.
CREATE TABLE queued_rounds (
    id INTEGER PRIMARY KEY,
    "trigger" TEXT NOT NULL CHECK ("trigger" IN ('hand', 'judgments', 'schedule')),
    judges TEXT NOT NULL CHECK (judges IN ('people', 'simulated')),
    config TEXT NOT NULL,
    by_id INTEGER REFERENCES annotators(id),
    created_at TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'started', 'not started', 'taken out')),
    run_id TEXT UNIQUE REFERENCES runs(id),
    reason TEXT,
    ended_by_id INTEGER REFERENCES annotators(id),
    ended_at TEXT,
    worker_at TEXT,
    CHECK ((state = 'started') = (run_id IS NOT NULL)),
    CHECK ((state = 'not started') = (reason IS NOT NULL))
);

CREATE INDEX queued_rounds_waiting ON queued_rounds(id) WHERE state = 'waiting';

CREATE INDEX queued_rounds_without_worker ON queued_rounds(id) WHERE state = 'started' AND worker_at IS NULL;

CREATE TRIGGER queued_rounds_are_not_changed
BEFORE UPDATE OF id, "trigger", judges, config, by_id, created_at ON queued_rounds
BEGIN SELECT RAISE(ABORT, 'queued_rounds are append-only'); END;

CREATE TRIGGER queued_rounds_end_once
BEFORE UPDATE OF state, run_id, reason, ended_by_id, ended_at ON queued_rounds WHEN OLD.state != 'waiting'
BEGIN SELECT RAISE(ABORT, 'queued_rounds are append-only'); END;

CREATE TRIGGER queued_rounds_start_once BEFORE UPDATE OF worker_at ON queued_rounds WHEN OLD.worker_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'queued_rounds are append-only'); END;

CREATE TRIGGER queued_rounds_are_not_deleted BEFORE DELETE ON queued_rounds
BEGIN SELECT RAISE(ABORT, 'queued_rounds are append-only'); END;
