"""The queue of training rounds: a row for each round that somebody or a trigger asked for, with what became of it.

A row leaves the queue once, by whoever changes it first while it waits. `rlhf.runs.jobs` begins the rounds and starts their workers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import Any

from storage.core import json_columns
from storage.core.clock import window
from storage.core.database import Database, StoreError, now
from storage.core.records import QueuedRound, QueuedState, RoundJudges, RoundTrigger

MAX_REASON_CHARS = 2_000


def add(
    store: Database,
    config: Mapping[str, Any],
    *,
    trigger: RoundTrigger,
    judges: RoundJudges = "people",
    by: int | None = None,
    at: str | None = None,
) -> QueuedRound:
    """Queues a round that the person `by` asked for; None is the command line, or a trigger, which fired at the time `at`."""
    with store.atomic():
        values = {"trigger": trigger, "judges": judges, "config": dict(config), "by_id": by, "created_at": at or now()}
        return get(store, store.insert("queued_rounds", values))


def get(store: Database, queued_id: int) -> QueuedRound:
    """One row of the queue, waiting or not.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row("SELECT * FROM queued_rounds WHERE id = ?", [queued_id])
    if row is None:
        raise StoreError(f"There is no queued round {queued_id}: `rankloop rounds` lists those that wait.")
    return _from_row(row)


def waiting(store: Database) -> list[QueuedRound]:
    """The rounds that wait, in the order in which they will begin."""
    return [_from_row(row) for row in store.rows("SELECT * FROM queued_rounds WHERE state = 'waiting' ORDER BY id")]


def not_started(store: Database, count: int = 3) -> list[QueuedRound]:
    """The newest rounds that could not begin, newest first, as long as none has begun after them."""
    rows = store.rows(
        "SELECT * FROM queued_rounds WHERE state = 'not started' AND ended_at > coalesce((SELECT max(created_at) FROM rounds), '') "
        "ORDER BY id DESC LIMIT ?",
        [count],
    )
    return [_from_row(row) for row in rows]


def newest(store: Database, triggers: Collection[RoundTrigger]) -> QueuedRound | None:
    """The newest row, in any state, by one of these triggers."""
    places = ", ".join("?" * len(triggers))
    row = store.row(f'SELECT * FROM queued_rounds WHERE "trigger" IN ({places}) ORDER BY id DESC LIMIT 1', list(triggers))
    return None if row is None else _from_row(row)


def revision(store: Database) -> tuple[int, ...]:
    """Changes with every act that could change `waiting` or `not_started`."""
    row = store.row(
        "SELECT (SELECT max(id) FROM queued_rounds), (SELECT count(*) FROM queued_rounds WHERE state = 'waiting'), "
        "(SELECT max(id) FROM queued_rounds WHERE state = 'not started'), (SELECT max(id) FROM rounds)"
    )
    assert row is not None
    return tuple(int(value or 0) for value in row)


def begin(store: Database, queued_id: int, run_id: str) -> bool:
    """Records that a waiting round became this run. False if it waits no more: another process began it, or somebody took it out."""
    return _end(store, queued_id, "started", run_id=run_id)


def refuse(store: Database, queued_id: int, reason: str) -> bool:
    """Records why a waiting round cannot begin. False if it waits no more."""
    return _end(store, queued_id, "not started", reason=reason[:MAX_REASON_CHARS] or "unknown")


def take_out(store: Database, queued_id: int, by: int | None = None) -> None:
    """Takes a waiting round out of the queue.

    Raises:
        StoreError: there is none with this id, or it waits no more.
    """
    with store.atomic():
        found = get(store, queued_id)
        if not _end(store, queued_id, "taken out", by=by):
            became = f"it became run {found.run_id}: cancel that" if found.run_id else f"it is {found.state}"
            raise StoreError(f"Queued round {queued_id} waits no more, {became}.")


def record_worker(store: Database, run_id: str) -> None:
    """Records that the worker of a queued round's run was started. A second call changes nothing."""
    with store.atomic() as connection:
        connection.conn.execute("UPDATE queued_rounds SET worker_at = ? WHERE run_id = ? AND worker_at IS NULL", [now(), run_id])


def without_worker(store: Database, older_than_s: float) -> str | None:
    """The run of a queued round whose worker nobody started: the process that was about to died more than this long ago.

    The run is queued, or was marked lost since, and has never been under way. A run that was submitted as a job is that job's.
    """
    since, until = window(seconds=older_than_s)
    run_id = store.value(
        "SELECT runs.id FROM queued_rounds q JOIN runs ON runs.id = q.run_id WHERE q.state = 'started' AND q.worker_at IS NULL "
        "AND q.ended_at NOT BETWEEN ? AND ? AND runs.started_at IS NULL AND runs.job IS NULL AND runs.status IN ('queued', 'lost') "
        "ORDER BY q.id LIMIT 1",
        [since, until],
    )
    return None if run_id is None else str(run_id)


def _end(
    store: Database, queued_id: int, state: QueuedState, *, run_id: str | None = None, reason: str | None = None, by: int | None = None
) -> bool:
    with store.atomic() as connection:
        changed = connection.conn.execute(
            "UPDATE queued_rounds SET state = ?, run_id = ?, reason = ?, ended_by_id = ?, ended_at = ? WHERE id = ? AND state = 'waiting'",
            [state, run_id, reason, by, now(), queued_id],
        ).rowcount
    return bool(changed)


def _from_row(row: sqlite3.Row) -> QueuedRound:
    """The record of a row; a configuration that rankloop did not write is left empty, and `problem` says so."""
    problem, config = "", {}
    try:
        config = json_columns.from_json(row["config"], dict, f"The configuration of queued round {row['id']}")
    except json_columns.Unreadable as error:
        problem = str(error)
    return QueuedRound(
        row["id"],
        row["trigger"],
        row["judges"],
        config,
        row["by_id"],
        row["created_at"],
        row["state"],
        row["run_id"],
        row["reason"],
        row["ended_at"],
        problem,
    )
