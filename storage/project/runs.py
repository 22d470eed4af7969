"""Runs: the row of each training round, its name and note, its metrics, and completions of fixed prompts before and after training.

A run's row is written before its process starts; then the worker updates it and pages read it. `rlhf.runs.jobs` starts, stops
and reaps the processes.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, get_args

from storage.content import prompts
from storage.core import json_columns
from storage.core.clock import window
from storage.core.data_folder import is_run_id
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import ACTIVE_STATUSES, RESUMABLE_STATUSES, Metric, Run, RunSample, RunStatus

LOST = "The worker stopped without an error message; its log may show the cause. Resume the run to continue from its last checkpoint."

MAX_NAME_CHARS = 80
MAX_NOTE_CHARS = 4_000

_RUNS = """
SELECT runs.*, coalesce(named.name, '') AS name, coalesce(named.note, '') AS note
FROM runs LEFT JOIN run_names named ON named.id = (SELECT max(id) FROM run_names WHERE run_id = runs.id)
"""

_ACTIVE = ", ".join(f"'{status}'" for status in ACTIVE_STATUSES)


def create(store: Database, run_id: str, *, config: dict[str, Any], seed: int, versions: dict[str, Any], by: int | None = None) -> Run:
    """Writes a queued run, started by the person `by`; None is the command line.

    Raises:
        StoreError: there is a run with this id, or the id is not a valid folder name.
    """
    if not is_run_id(run_id):
        raise StoreError(f"{run_id!r} is not a run's id: use letters, digits, blanks, dots, hyphens and underscores, at most 64.")
    with store.atomic():
        if store.row("SELECT 1 FROM runs WHERE id = ?", [run_id]):
            raise StoreError(f"There is a run {run_id} already: choose another name, or resume it.")
        values = {"id": run_id, "status": "queued", "config": config, "seed": seed, "versions": versions, "by_id": by}
        store.insert("runs", {**values, "created_at": now()})
        return get(store, run_id)


def get(store: Database, run_id: str) -> Run:
    """One run.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row(f"{_RUNS} WHERE runs.id = ?", [run_id])
    if row is None:
        raise StoreError(f"There is no run {run_id} in {store.path}: check its name on the training page.")
    return _from_row(row)


def readable(store: Database, run_id: str) -> Run:
    """One run whose row can be read. `get` returns a run with a `problem` instead, for pages that list it.

    Raises:
        StoreError: there is none with this id, or its row cannot be read.
    """
    run = get(store, run_id)
    if run.problem:
        raise StoreError(f"Run {run_id}: {run.problem} Restore a backup, or start another run.")
    return run


def all_runs(store: Database) -> list[Run]:
    """Every run, newest first."""
    return [_from_row(row) for row in store.rows(f"{_RUNS} ORDER BY runs.rowid DESC")]


def active(store: Database) -> Run | None:
    """The running run, or else the oldest queued one; None if there is neither."""
    row = store.row(f"{_RUNS} WHERE status IN ({_ACTIVE}) ORDER BY status = 'running' DESC, runs.rowid LIMIT 1")
    return None if row is None else _from_row(row)


def describe(store: Database, run_id: str, *, name: str | None = None, note: str | None = None, by: int | None = None) -> Run:
    """Gives a run a name and a note; None keeps the one that it has, an empty text takes it away. Earlier ones stay in the store.

    Args:
        by: the person who wrote them; None is the command line.

    Raises:
        StoreError: there is no such run, or a text is too long.
    """
    with store.atomic():
        run = get(store, run_id)
        name = run.name if name is None else " ".join(name.split())
        note = run.note if note is None else note.strip()
        for what, text, most in (("name", name, MAX_NAME_CHARS), ("note", note, MAX_NOTE_CHARS)):
            if len(text) > most:
                raise StoreError(f"The {what} has {len(text):,} characters: write at most {most:,}.")
        if (name, note) != (run.name, run.note):
            store.insert("run_names", {"run_id": run_id, "name": name, "note": note, "by_id": by, "created_at": now()})
        return replace(run, name=name, note=note)


def newest_name(store: Database) -> int:
    """Changes whenever a run is given another name or note; 0 before the first."""
    return int(store.value("SELECT coalesce(max(id), 0) FROM run_names"))


def mark_started(store: Database, run_id: str, pid: int) -> None:
    """Records that process `pid` runs the round now, and clears the result, error and stage of an earlier attempt.

    A cancel requested while this attempt was queued is kept: the worker sees it at its first step.
    """
    _update(
        store,
        run_id,
        "status = 'running', pid = :pid, started_at = :now, heartbeat_at = :now, finished_at = NULL, error = NULL, "
        "result = NULL, stage = NULL, activity = NULL, cancel_requested = CASE status WHEN 'queued' THEN cancel_requested ELSE 0 END",
        pid=pid,
    )


def claim(store: Database, run_id: str, pid: int, job: str | None = None) -> bool:
    """As `mark_started`, if the run is queued. False if it is not: another process has it, or it has ended.

    Args:
        job: the id of the cluster's job that this process is. A run that was given to another job since is not begun.
    """
    with store.atomic():
        run = get(store, run_id)
        if run.status != "queued" or (job is not None and (run.job or {}).get("id") != job):
            return False
        mark_started(store, run_id, pid)
        return True


def set_job(store: Database, run_id: str, job: Mapping[str, Any]) -> None:
    """Records the cluster's job that the worker is, and what the cluster says about it."""
    _update(store, run_id, "job = :job", job=to_json(dict(job)))


def beat(store: Database, run_id: str) -> None:
    """Records a heartbeat of the worker."""
    _update(store, run_id, "heartbeat_at = :now")


def set_stage(
    store: Database,
    run_id: str,
    stage: str | None,
    progress: float,
    eta_s: float | None,
    *,
    activity: tuple[str, int, int] | None = None,
) -> None:
    """Records the worker's stage, the fraction of the whole round that is done (0 to 1) and the seconds left; also a heartbeat.

    Args:
        activity: what is done within the stage, a name, and how many of how many things are done; 0 of 0 where they are not counted.
    """
    name, done, count = activity or (None, None, None)
    _update(
        store,
        run_id,
        "stage = :stage, progress = :progress, eta_s = :eta_s, heartbeat_at = :now, "
        "activity = :activity, activity_done = :done, activity_count = :count",
        stage=stage,
        progress=progress,
        eta_s=eta_s,
        activity=name,
        done=done,
        count=count,
    )


def set_snapshot(store: Database, run_id: str, snapshot: dict[str, Any]) -> None:
    """Records the manifest of the data that the run trains on."""
    _update(store, run_id, "snapshot = :snapshot", snapshot=to_json(snapshot))


def set_validation(store: Database, run_id: str, validation: dict[str, Any]) -> None:
    """Records the validation of the reward model, `rlhf.analysis.validation`. A resumed run keeps it."""
    _update(store, run_id, "validation = :validation", validation=to_json(validation))


def finish(store: Database, run_id: str, status: RunStatus, *, error: str | None = None, result: dict[str, Any] | None = None) -> None:
    """Records the status, error and result with which the run ended.

    Raises:
        StoreError: the status is queued or running.
    """
    if status in ACTIVE_STATUSES:
        raise StoreError(f"A run cannot finish as {status}: use done, failed, cancelled or lost.")
    _update(
        store,
        run_id,
        "status = :status, finished_at = :now, error = :error, result = :result, eta_s = NULL, "
        "progress = CASE :status WHEN 'done' THEN 1.0 ELSE progress END",
        status=status,
        error=error,
        result=None if result is None else to_json(result),
    )


def request_cancel(store: Database, run_id: str) -> None:
    """Asks the worker to stop at its next step. Does nothing to a run that has ended."""
    _update(store, run_id, f"cancel_requested = CASE WHEN status IN ({_ACTIVE}) THEN 1 ELSE cancel_requested END")


def cancel_requested(store: Database, run_id: str) -> bool:
    """Whether the worker should stop."""
    return bool(store.value("SELECT cancel_requested FROM runs WHERE id = ?", [run_id]))


def mark_stale_lost(store: Database, older_than_s: float, alive: Collection[str] = ()) -> list[str]:
    """Marks active runs as lost whose last heartbeat is more than this many seconds ago. Returns their ids.

    For a queued run the time at which it was queued takes the heartbeat's place: its process may never have started. A heartbeat
    further than that in the future does not count either: the clock was set back since, and a live worker writes another within
    seconds. The runs in `alive` are never marked.
    """
    with store.atomic() as connection:
        since, until = window(seconds=older_than_s)
        rows = connection.conn.execute(
            "UPDATE runs SET status = 'lost', finished_at = :now, eta_s = NULL, error = :error "
            f"WHERE status IN ({_ACTIVE}) AND coalesce(heartbeat_at, created_at) NOT BETWEEN :since AND :until "
            "AND id NOT IN (SELECT value FROM json_each(:alive)) RETURNING id",
            {"now": now(), "since": since, "until": until, "error": LOST, "alive": to_json(list(alive))},
        ).fetchall()
    return sorted(str(row["id"]) for row in rows)


def requeue(store: Database, run_id: str) -> Run:
    """Queues an ended run again, to continue from its last checkpoint.

    Raises:
        StoreError: the run is done, queued or running, or its row cannot be read.
    """
    with store.atomic():
        run = readable(store, run_id)
        if run.status not in RESUMABLE_STATUSES:
            raise StoreError(f"Run {run_id} is {run.status}; only a run that is {' or '.join(RESUMABLE_STATUSES)} can be resumed.")
        _update(
            store,
            run_id,
            "status = 'queued', heartbeat_at = :now, pid = NULL, job = NULL, finished_at = NULL, error = NULL, result = NULL, "
            "cancel_requested = 0",
        )
        return get(store, run_id)


def log_metrics(store: Database, run_id: str, step: int, values: Mapping[str, float]) -> None:
    """Stores the metrics of one step, in place of earlier values of the same step. NaN and infinities are left out."""
    finite = [(run_id, name, step, float(value)) for name, value in values.items() if math.isfinite(value)]
    with store.atomic() as connection:
        connection.conn.executemany(
            "INSERT INTO metrics (run_id, name, step, value) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (run_id, name, step) DO UPDATE SET value = excluded.value",
            finite,
        )


def drop_metrics_from(store: Database, run_id: str, prefix: str, step: int) -> None:
    """Deletes the metrics at `step` and later whose name starts with `prefix`: a resumed run writes them again."""
    with store.atomic() as connection:
        connection.conn.execute(
            "DELETE FROM metrics WHERE run_id = :run_id AND step >= :step AND substr(name, 1, length(:prefix)) = :prefix",
            {"run_id": run_id, "prefix": prefix, "step": step},
        )


def metrics(store: Database, run_id: str) -> list[Metric]:
    """All metrics of a run, by name and step."""
    rows = store.rows("SELECT name, step, value FROM metrics WHERE run_id = ? ORDER BY name, step", [run_id])
    return [Metric(*row) for row in rows if _is_number(row["value"]) and isinstance(row["step"], int)]


def save_sample(store: Database, run_id: str, prompt_id: int, *, before: str, score_before: float | None = None) -> None:
    """Stores the completion of a prompt before training, in place of an earlier attempt's."""
    with store.atomic() as connection:
        connection.conn.execute(
            "INSERT INTO run_samples (run_id, prompt_id, before, score_before) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (run_id, prompt_id) "
            "DO UPDATE SET before = excluded.before, score_before = excluded.score_before",
            [run_id, prompt_id, before, score_before],
        )


def set_sample_after(store: Database, run_id: str, prompt_id: int, *, after: str, score_after: float | None = None) -> None:
    """Stores the completion of the same prompt after training.

    Raises:
        StoreError: there is no completion from before training.
    """
    with store.atomic() as connection:
        changed = connection.conn.execute(
            "UPDATE run_samples SET after = ?, score_after = ? WHERE run_id = ? AND prompt_id = ?",
            [after, score_after, run_id, prompt_id],
        ).rowcount
    if not changed:
        raise StoreError(f"Run {run_id} has no sample of prompt {prompt_id} from before: save that first.")


def samples(store: Database, run_id: str) -> list[RunSample]:
    """The fixed prompts of a run with their completions, by prompt id."""
    rows = store.rows(
        "SELECT s.*, p.messages FROM run_samples s JOIN prompts p ON p.id = s.prompt_id WHERE s.run_id = ? ORDER BY s.prompt_id",
        [run_id],
    )
    return list(json_columns.readable(rows, _sample))


def with_samples(store: Database) -> list[str]:
    """The ids of the runs whose samples have a completion from after training."""
    return [row[0] for row in store.rows("SELECT DISTINCT run_id FROM run_samples WHERE after IS NOT NULL")]


def _sample(row: sqlite3.Row) -> RunSample:
    last_message = prompts.messages_of(row["prompt_id"], row["messages"])[-1]["content"]
    sample = RunSample(last_message, row["before"], row["after"], row["score_before"], row["score_after"])
    scores = [score for score in (sample.score_before, sample.score_after) if score is not None]
    if not (isinstance(sample.before, str) and isinstance(sample.after, str | None) and all(map(_is_number, scores))):
        raise json_columns.Unreadable(f"The sample of prompt {row['prompt_id']} cannot be read: it has the wrong type.")
    return sample


def _update(store: Database, run_id: str, assignments: str, **values: Any) -> None:
    with store.atomic() as connection:
        changed = connection.conn.execute(
            f"UPDATE runs SET {assignments} WHERE id = :run_id", {"run_id": run_id, "now": now(), **values}
        ).rowcount
    if not changed:
        raise StoreError(f"There is no run {run_id} in {store.path}: check its name on the training page.")


def _from_row(row: sqlite3.Row) -> Run:
    """The run of a row: columns with invalid values are left empty, and `problem` names them."""
    values = {name: row[name] for name in row.keys() if name in RUN_COLUMNS}  # noqa: SIM118
    values["cancel_requested"] = bool(row["cancel_requested"])
    unreadable = []
    for name, kind in JSON_COLUMNS.items():
        if name in REQUIRED or row[name] is not None:
            try:
                values[name] = json_columns.from_json(row[name], kind, name)
            except json_columns.Unreadable:
                unreadable.append(name)
                values[name] = kind() if name in REQUIRED else None
    for name, (is_valid, empty) in PLAIN_COLUMNS.items():
        if not is_valid(row[name]):
            unreadable.append(name)
            values[name] = empty
    run_id = row["id"]
    if not is_run_id(run_id):
        unreadable.append("id")
        values["id"] = run_id if isinstance(run_id, str) else repr(run_id)
    columns = ", ".join(sorted(unreadable))
    return Run(**values, problem=f"{columns} of this run cannot be read: the values are invalid." if unreadable else "")


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _or_none(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_valid(value)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


RUN_COLUMNS = {field.name for field in fields(Run)}

JSON_COLUMNS: dict[str, type] = {"config": dict, "versions": dict, "snapshot": dict, "result": dict, "validation": dict, "job": dict}

REQUIRED = ("config", "versions")

PLAIN_COLUMNS: dict[str, tuple[Callable[[Any], bool], Any]] = {
    "status": (lambda value: value in get_args(RunStatus), "failed"),
    "seed": (_is(int), 0),
    "stage": (_or_none(_is(str)), None),
    "progress": (_is_number, 0.0),
    "eta_s": (_or_none(_is_number), None),
    "pid": (_or_none(_is(int)), None),
    "activity": (_or_none(_is(str)), None),
    **{name: (_or_none(_is(int)), None) for name in ("activity_done", "activity_count")},
    "error": (_or_none(_is(str)), None),
    **{name: (_is(str), "") for name in ("name", "note")},
    "created_at": (_is_time, ""),
    **{name: (_or_none(_is_time), None) for name in ("heartbeat_at", "started_at", "finished_at")},
}
"""By column: whether a value is valid, and the value that takes an invalid one's place."""
