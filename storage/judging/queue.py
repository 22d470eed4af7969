"""The comparison queue: which comparison each annotator sees next, and for how long it is reserved for them.

The queue is the table `queue`, which triggers maintain: highest priority first, then lowest position. Each annotator has a
cursor per priority (table `queue_cursors`) that only moves forward, so that the cost of a request does not grow with the number
of judgments. A comparison that is opened again, because a lease expired or a vote stopped counting, gets a new position at the
end.

A batch may be assigned to some annotators (`assignments`): others do not get its comparisons.

With the probabilities in the project's settings, a gold comparison or a repeat is shown instead of the next in the queue.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Collection, Sequence
from datetime import timedelta

from storage.content import comparisons, prompts
from storage.core.clock import window
from storage.core.database import Database, now, to_json
from storage.core.records import Annotator, Comparison, Lease, Presentation, ProjectSettings
from storage.judging import presentations
from storage.people import annotators
from storage.project import current, settings
from storage.project.current import Project

REPEAT_AFTER = 10
"""Fewest votes between a judgment and its repeat, so that the annotator does not remember the earlier one."""

REPEAT_AMONG = 200
"""Number of votes, newest first after `REPEAT_AFTER`, from which a repeat is sampled."""

GOLD_AMONG = 500
"""Number of gold comparisons, oldest first among those new to the annotator, from which one is sampled."""

ACTIVE_MINUTES = 30
"""An annotator counts as active for this long after requesting a comparison."""

NO_ANNOTATOR = 0
"""An id that no annotator has, so there are no judgments or cursors under it."""

LEASED = """
SELECT p.*, l.id AS lease_id, l.comparison_id FROM leases l JOIN presentations p ON p.id = l.presentation_id
JOIN comparisons c ON c.id = l.comparison_id
WHERE l.annotator_id = ? AND l.ended_at IS NULL AND c.retired = 0 ORDER BY l.id DESC LIMIT 1
"""
"""The annotator's current lease with its presentation: the comparison shown, or retracted, last."""

_IN_USE = f"""
    AND EXISTS (
        SELECT 1 FROM prompts
        WHERE prompts.id = (SELECT its.prompt_id FROM comparisons its WHERE its.id = {{comparison}}) AND {prompts.IN_USE})"""
"""SQL: the comparison's prompt is in use. Comparisons of other prompts stay in the queue until their prompts are in use again."""

_NEXT_IN_USE = _IN_USE.format(comparison="queue.comparison_id")

_FOR_THEM = """
    AND NOT EXISTS (
        SELECT 1 FROM comparisons its JOIN batch_assignments a ON a.batch_id = its.batch_id
        WHERE its.id = {comparison} AND a.id = (SELECT max(id) FROM batch_assignments WHERE batch_id = its.batch_id)
            AND CASE WHEN json_valid(a.annotator_ids) THEN a.annotator_ids != '[]'
                AND :annotator NOT IN (SELECT value FROM json_each(a.annotator_ids)) END)"""
"""SQL: the comparison is of no batch that others get. An assignment that cannot be read keeps it from nobody."""

_NEXT_FOR_THEM = _FOR_THEM.format(comparison="queue.comparison_id")

_NOT_JUDGED = """
    AND NOT EXISTS (
        SELECT 1 FROM judgments j
        WHERE j.comparison_id = queue.comparison_id AND j.annotator_id = :annotator AND j.verdict != 'retract'
            AND coalesce(j.import_id, 0) NOT IN unfinished_imports
            AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id))"""

NEXT_IN_QUEUE = f"""
SELECT queue.comparison_id, queue.position, queue.priority FROM queue
WHERE queue.priority = :priority
    AND queue.position > coalesce(
        (SELECT position FROM queue_cursors WHERE annotator_id = :annotator AND priority = :priority), 0)
    {_NOT_JUDGED}{_NEXT_IN_USE}{_NEXT_FOR_THEM}
ORDER BY queue.position LIMIT 1
"""

# One range per priority, from the annotator's cursor on. A single condition would scan the whole queue for each annotator.
REMAINING = f"""
WITH RECURSIVE priorities(priority) AS (
    SELECT max(priority) FROM queue
    UNION ALL
    SELECT (SELECT max(queue.priority) FROM queue WHERE queue.priority < priorities.priority) FROM priorities
    WHERE priority IS NOT NULL
)
SELECT 1 FROM priorities CROSS JOIN queue ON queue.priority = priorities.priority
WHERE queue.position > coalesce(
        (SELECT position FROM queue_cursors p WHERE p.annotator_id = :annotator AND p.priority = priorities.priority), 0)
    {_NOT_JUDGED}{_NEXT_IN_USE}{_NEXT_FOR_THEM}
"""

UNSEEN_GOLD = f"""
SELECT c.id FROM comparisons c WHERE c.gold = 1 AND c.retired = 0 AND coalesce(c.import_id, 0) NOT IN unfinished_imports
    AND NOT EXISTS (SELECT 1 FROM presentations p WHERE p.comparison_id = c.id AND p.annotator_id = :annotator)
    {_IN_USE.format(comparison="c.id")}{_FOR_THEM.format(comparison="c.id")}
ORDER BY c.id LIMIT :among
"""

REPEATABLE = f"""
SELECT mine.presentation_id FROM (
    SELECT j.presentation_id, j.comparison_id FROM judgments j
    WHERE j.annotator_id = :annotator AND j.counts = 1 AND j.presentation_id IS NOT NULL
        AND coalesce(j.import_id, 0) NOT IN unfinished_imports
    ORDER BY j.id DESC LIMIT :among OFFSET :after
) mine
WHERE NOT EXISTS (
    SELECT 1 FROM presentations p
    WHERE p.comparison_id = mine.comparison_id AND p.annotator_id = :annotator AND p.purpose = 'repeat')
    AND {comparisons.NOT_DEMO.format("mine.comparison_id")}
    {_IN_USE.format(comparison="mine.comparison_id")}
"""


def next_presentation(
    store: Database, annotator: int | Annotator, rng: random.Random | None = None, *, project: Project | None = None
) -> tuple[Comparison, Presentation] | None:
    """Leases a comparison to this annotator and returns it with its presentation; None when none is left for them.

    While the annotator has a lease, because the page was reloaded or a judgment was undone, the same presentation is returned.

    Args:
        annotator: an id, or the record if the caller has read it already.
        project: read here if the caller has not read it already.

    Raises:
        StoreError: there is no such annotator.
    """
    rng = rng or random.SystemRandom()
    with store.atomic():
        annotator_id = (annotator if isinstance(annotator, Annotator) else annotators.get(store, annotator)).id
        project = project or current.load(store)
        expire_leases(store, project.settings)
        leased = store.row(LEASED, [annotator_id])
        if leased is not None:
            _extend(store, leased["lease_id"], project.settings)
            return comparisons.get(store, leased["comparison_id"]), presentations.from_row(leased)
        return _choose(store, annotator_id, project, rng)


def renew(store: Database, presentation_id: int, annotator_id: int) -> bool:
    """Extends a lease from now on. False when the lease has ended or the comparison is retired."""
    with store.atomic():
        project = settings.current(store)
        expire_leases(store, project)
        lease_id = store.value(
            "SELECT l.id FROM leases l JOIN comparisons c ON c.id = l.comparison_id "
            "WHERE l.presentation_id = ? AND l.annotator_id = ? AND l.ended_at IS NULL AND c.retired = 0",
            [presentation_id, annotator_id],
        )
        if lease_id is None:
            return False
        _extend(store, lease_id, project)
        return True


def can_accept(store: Database, presentation: Presentation, lease: Lease | None) -> bool:
    """Whether a judgment of this presentation may still be saved: its lease is active, or the comparison needs another vote.

    Args:
        lease: the presentation's last lease, from `lease_of`.

    Gold comparisons and repeats do not count towards the number of votes wanted. They are accepted or refused as a vote in
    the same position would be; otherwise an annotator could recognise them by submitting late.
    """
    comparison = store.row(
        "SELECT retired, human_ranks + leased < wanted AS free FROM comparisons WHERE id = ?", [presentation.comparison_id]
    )
    if comparison is None or comparison["retired"]:
        return False
    if lease is not None and lease.ended_at is None:
        return True
    return bool(comparison["free"]) if presentation.purpose == "vote" else not _would_be_reassigned(store, presentation)


def _would_be_reassigned(store: Database, presentation: Presentation) -> bool:
    """Whether a vote comparison released at the same time would have been leased to another annotator since.

    That is the case when everything queued at that time has been handed out and another annotator has made a request since.
    """
    released = store.row("SELECT position, released_at FROM released_presentations WHERE presentation_id = ?", [presentation.id])
    if released is None or store.value(f"SELECT 1 FROM queue WHERE position <= ?{_NEXT_IN_USE} LIMIT 1", [released["position"]]):
        return False
    requested = "SELECT 1 FROM queue_cursors WHERE annotator_id != ? AND requested_at >= ? LIMIT 1"
    return bool(store.value(requested, [presentation.annotator_id, released["released_at"]]))


def reopen_lease(store: Database, presentation: Presentation, project: ProjectSettings) -> None:
    """Leases the presentation of a retracted judgment to its annotator again, so that they see it next."""
    _lease(store, presentation, "undo", 1.0, project)


def expire_leases(store: Database, project: ProjectSettings) -> None:
    """Ends the leases that have expired; triggers put their comparisons at the end of the queue."""
    moment, latest = store.clock.text(), _expiry(store, project)
    with store.atomic() as connection:
        # A lease written before the machine's clock was set back and rankloop restarted would last too long: it is shortened.
        connection.conn.execute("UPDATE leases SET expires_at = ?1 WHERE ended_at IS NULL AND expires_at > ?1", [latest])
        connection.conn.execute(
            "UPDATE leases SET ended_at = ?1, outcome = 'expired' WHERE ended_at IS NULL AND expires_at <= ?1", [moment]
        )


def lease_of(store: Database, presentation_id: int) -> Lease | None:
    """The last lease of a presentation; None if it was imported or simulated."""
    row = store.row("SELECT * FROM leases WHERE presentation_id = ? ORDER BY id DESC LIMIT 1", [presentation_id])
    return None if row is None else Lease(**dict(row))


def add_imported(store: Database, comparison_ids: Sequence[int]) -> None:
    """Queues those of the comparisons that need judgments and are not in the queue, by their ids. Call it inside `atomic`."""
    store.connection.conn.execute(
        "INSERT OR IGNORE INTO queue (comparison_id, priority) SELECT id, priority FROM comparisons "
        "WHERE id IN (SELECT value FROM json_each(?)) AND human_ranks + leased < wanted AND retired = 0 AND gold = 0 ORDER BY id",
        [to_json(comparison_ids)],
    )


def depth(store: Database) -> int:
    """Number of comparisons in the queue whose prompts are in use. Leased ones are not in it."""
    return int(store.value(f"SELECT count(*) FROM queue WHERE true{_NEXT_IN_USE}"))


def requeue(store: Database, prompt_ids: Collection[int]) -> None:
    """Puts the waiting comparisons of prompts that come back into use at the end of the queue.

    Annotators whose cursors are past them see them again.
    """
    _move_to_end(store, "SELECT id FROM comparisons WHERE prompt_id IN (SELECT value FROM json_each(?))", to_json([*prompt_ids]))


def requeue_batch(store: Database, batch_id: int) -> None:
    """Puts the waiting comparisons of a batch at the end of the queue: annotators whose cursors are past them see them again."""
    _move_to_end(store, "SELECT id FROM comparisons WHERE batch_id = ?", batch_id)


def _move_to_end(store: Database, comparisons_sql: str, parameter: str | int) -> None:
    waiting = f"comparison_id IN ({comparisons_sql})"
    with store.atomic() as connection:
        rows = store.rows(f"SELECT comparison_id, priority FROM queue WHERE {waiting} ORDER BY position", [parameter])
        moved = [tuple(row) for row in rows]
        connection.conn.execute(f"DELETE FROM queue WHERE {waiting}", [parameter])
        connection.conn.executemany("INSERT INTO queue (comparison_id, priority) VALUES (?, ?)", moved)


def least_waiting(store: Database, at_most: int) -> int:
    """Number of comparisons left for the active annotator who has the fewest left, counted up to `at_most`.

    Comparisons that the annotator has judged or skipped are not counted. Without active annotators, the whole queue is.
    """
    recent = window(minutes=ACTIVE_MINUTES)
    rows = store.rows("SELECT DISTINCT annotator_id FROM queue_cursors WHERE requested_at BETWEEN ? AND ?", recent).fetchall()
    active = [row["annotator_id"] for row in rows] or [NO_ANNOTATOR]
    return min(_remaining(store, annotator_id, at_most) for annotator_id in active)


def waiting(store: Database, annotator_id: int, at_most: int) -> int:
    """Number of comparisons that this annotator can still judge, besides the one on their page, counted up to `at_most`.

    After an undo that is the one which was on the page before, too: it stays leased to them.
    """
    row = store.row(
        "SELECT count(*) AS open, coalesce(sum(selection IN ('queue', 'undo')), 0) AS queued FROM leases "
        "WHERE annotator_id = ? AND ended_at IS NULL",
        [annotator_id],
    )
    assert row is not None
    # The one on the page is taken off whatever it is: if gold and repeats, which are in no queue, were not, the number would tell them.
    left = _remaining(store, annotator_id, at_most + 1) + int(row["queued"]) - min(1, int(row["open"]))
    return max(0, min(left, at_most))


def _remaining(store: Database, annotator_id: int, at_most: int) -> int:
    return int(store.value(f"SELECT count(*) FROM ({REMAINING} LIMIT :at_most)", {"annotator": annotator_id, "at_most": at_most}))


def _choose(store: Database, annotator_id: int, project: Project, rng: random.Random) -> tuple[Comparison, Presentation] | None:
    """Samples whether to show a gold comparison, a repeat or the next in the queue, and leases it.

    The queue takes the probability of gold or repeats when there are none to show. When the queue is empty nothing is shown:
    an annotator could recognise what came after its end as gold or a repeat.
    """
    readable = _next_readable(store, annotator_id)
    if readable is None:
        return None
    position, queued = readable
    # Both lists are read whatever the sample is, so that the response time does not reveal which kind was chosen.
    gold = _ids(store, UNSEEN_GOLD, annotator=annotator_id, among=GOLD_AMONG) if project.settings.gold_share else []
    repeatable = {"annotator": annotator_id, "among": REPEAT_AMONG, "after": REPEAT_AFTER}
    repeats = _ids(store, REPEATABLE, **repeatable) if project.settings.repeat_share else []
    p_gold = project.settings.gold_share if gold else 0.0
    p_repeat = project.settings.repeat_share if repeats else 0.0
    sample = rng.random()
    if sample < p_gold:
        comparison = comparisons.get(store, rng.choice(gold))
        presentation = presentations.record(store, comparison, annotator_id, rng, purpose="gold", guidelines=project.guidelines)
        _lease(store, presentation, "gold", p_gold / len(gold), project.settings)
        return comparison, presentation
    if sample < p_gold + p_repeat:
        earlier = presentations.existing(store, rng.choice(repeats))
        comparison = comparisons.get(store, earlier.comparison_id)
        presentation = presentations.repeat(store, earlier, guidelines=project.guidelines)
        _lease(store, presentation, "repeat", p_repeat / len(repeats), project.settings)
        return comparison, presentation
    _advance_cursor(store, annotator_id, position["priority"], position["position"])
    presentation = presentations.record(store, queued, annotator_id, rng, guidelines=project.guidelines)
    _lease(store, presentation, "queue", 1.0 - p_gold - p_repeat, project.settings)
    return queued, presentation


def _next_readable(store: Database, annotator_id: int) -> tuple[sqlite3.Row, Comparison] | None:
    """The next position in the queue and its comparison. Unreadable comparisons are skipped: they would block the queue."""
    while (position := _next_position(store, annotator_id)) is not None:
        if found := comparisons.many(store, [position["comparison_id"]]):
            return position, found[0]
        _advance_cursor(store, annotator_id, position["priority"], position["position"])
    return None


def _next_position(store: Database, annotator_id: int) -> sqlite3.Row | None:
    """The first position in the queue whose comparison the annotator has not judged. Moves the cursor past finished priorities."""
    priority = store.value("SELECT max(priority) FROM queue")
    while priority is not None:
        position = store.row(NEXT_IN_QUEUE, {"annotator": annotator_id, "priority": priority})
        if position is not None:
            return position
        _advance_cursor(store, annotator_id, priority, store.value("SELECT max(position) FROM queue WHERE priority = ?", [priority]))
        priority = store.value("SELECT max(priority) FROM queue WHERE priority < ?", [priority])
    return None


def _advance_cursor(store: Database, annotator_id: int, priority: int, position: int) -> None:
    """Stores the position up to which an annotator has gone through the queue, so that the next search starts there."""
    store.connection.conn.execute(
        "INSERT INTO queue_cursors (annotator_id, priority, position, requested_at) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (annotator_id, priority) DO UPDATE SET position = excluded.position, requested_at = excluded.requested_at",
        [annotator_id, priority, position, now()],
    )


def _lease(store: Database, presentation: Presentation, selection: str, propensity: float, project: ProjectSettings) -> None:
    store.insert(
        "leases",
        {
            "presentation_id": presentation.id,
            "comparison_id": presentation.comparison_id,
            "annotator_id": presentation.annotator_id,
            "selection": selection,
            "propensity": propensity,
            "created_at": store.clock.text(),
            "expires_at": _expiry(store, project),
        },
    )


def _extend(store: Database, lease_id: int, project: ProjectSettings) -> None:
    store.connection.conn.execute("UPDATE leases SET expires_at = ? WHERE id = ?", [_expiry(store, project), lease_id])


def _expiry(store: Database, project: ProjectSettings) -> str:
    return store.clock.text(timedelta(minutes=project.lease_minutes))


def _ids(store: Database, sql: str, **parameters: int) -> list[int]:
    rows: list[sqlite3.Row] = store.rows(sql, parameters).fetchall()
    return [row[0] for row in rows]
