"""Who judges what: which comparison an annotator sees next, and for how long it is theirs.

Open comparisons stand in a line (table `line`, kept by triggers): the highest priority first, then the oldest ticket.
Each annotator walks along it once and never back, so that asking costs the same however much was judged before. A
comparison that opens again, because a lease lapsed or a vote stopped counting, draws a new ticket.

With the shares that the project's settings say, a gold comparison or a repeat takes the place of the next in line.
"""

from __future__ import annotations

import random
import sqlite3
from datetime import timedelta

from storage.content import comparisons
from storage.core.clock import window
from storage.core.database import Database, now
from storage.core.records import Comparison, Lease, Presentation, ProjectSettings
from storage.judging import presentations
from storage.people import annotators
from storage.project import guidelines, settings

REPEAT_AFTER = 10
"""Votes that lie between a judgment and its repeat at least, so that nobody simply remembers it."""

REPEAT_AMONG = 200
"""Votes back from there among which a repeat is drawn."""

GOLD_AMONG = 500
"""The oldest gold comparisons that an annotator has not seen, among which one is drawn."""

LATELY_MINUTES = 30
"""For so long after asking for a comparison an annotator is expected back."""

NOBODY = 0
"""An id that no annotator has: who has judged nothing."""

HELD = """
SELECT p.*, l.id AS lease_id, l.comparison_id FROM leases l JOIN presentations p ON p.id = l.presentation_id
JOIN comparisons c ON c.id = l.comparison_id
WHERE l.annotator_id = ? AND l.ended_at IS NULL AND c.retired = 0 ORDER BY l.id DESC LIMIT 1
"""
"""What this annotator holds: what was shown, or taken back, last."""

_NOT_JUDGED = """
    AND NOT EXISTS (
        SELECT 1 FROM judgments j
        WHERE j.comparison_id = line.comparison_id AND j.annotator_id = :annotator AND j.verdict != 'retract'
            AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id))"""

NEXT_IN_LINE = f"""
SELECT line.comparison_id, line.ticket, line.priority FROM line
WHERE line.priority = :priority
    AND line.ticket > coalesce(
        (SELECT ticket FROM line_places WHERE annotator_id = :annotator AND priority = :priority), 0)
    {_NOT_JUDGED}
ORDER BY line.ticket LIMIT 1
"""

# Priority by priority, each from the annotator's place on: without that the whole line is read for each of them.
WAITING_FOR = f"""
WITH RECURSIVE priorities(priority) AS (
    SELECT max(priority) FROM line
    UNION ALL
    SELECT (SELECT max(line.priority) FROM line WHERE line.priority < priorities.priority) FROM priorities
    WHERE priority IS NOT NULL
)
SELECT 1 FROM priorities CROSS JOIN line ON line.priority = priorities.priority
WHERE line.ticket > coalesce(
        (SELECT ticket FROM line_places p WHERE p.annotator_id = :annotator AND p.priority = priorities.priority), 0)
    {_NOT_JUDGED}
"""

UNSEEN_GOLD = """
SELECT c.id FROM comparisons c WHERE c.gold = 1 AND c.retired = 0
    AND NOT EXISTS (SELECT 1 FROM presentations p WHERE p.comparison_id = c.id AND p.annotator_id = :annotator)
ORDER BY c.id LIMIT :among
"""

REPEATABLE = """
SELECT mine.presentation_id FROM (
    SELECT j.presentation_id, j.comparison_id FROM judgments j
    WHERE j.annotator_id = :annotator AND j.counts = 1 AND j.presentation_id IS NOT NULL
    ORDER BY j.id DESC LIMIT :among OFFSET :after
) mine
WHERE NOT EXISTS (
    SELECT 1 FROM presentations p
    WHERE p.comparison_id = mine.comparison_id AND p.annotator_id = :annotator AND p.purpose = 'repeat')
"""


def next_presentation(store: Database, annotator_id: int, rng: random.Random | None = None) -> tuple[Comparison, Presentation] | None:
    """The comparison that is this annotator's until its lease ends; None when nothing is left for them.

    Asked again before an answer (the page was reloaded), or after an undo, it is the same one in the same order.

    Raises:
        StoreError: there is no such annotator.
    """
    rng = rng or random.SystemRandom()
    with store.atomic():
        annotators.get(store, annotator_id)
        project = settings.current(store)
        expire_leases(store)
        held = store.row(HELD, [annotator_id])
        if held is not None:
            _extend(store, held["lease_id"], project)
            return comparisons.get(store, held["comparison_id"]), presentations.from_row(held)
        return _choose(store, annotator_id, project, rng)


def renew(store: Database, presentation_id: int, annotator_id: int) -> bool:
    """A sign of life: the lease runs anew from now. False when it is over, or what was shown is withdrawn."""
    with store.atomic():
        expire_leases(store)
        lease_id = store.value(
            "SELECT l.id FROM leases l JOIN comparisons c ON c.id = l.comparison_id "
            "WHERE l.presentation_id = ? AND l.annotator_id = ? AND l.ended_at IS NULL AND c.retired = 0",
            [presentation_id, annotator_id],
        )
        if lease_id is None:
            return False
        _extend(store, lease_id, settings.current(store))
        return True


def can_accept(store: Database, presentation: Presentation) -> bool:
    """Whether a judgment of what was presented may still be saved, by a lease that runs or by taking a place that is free.

    Gold and repeats are asked of each annotator apart and take no place. They are answered as a vote would be in their
    stead, or whoever comes too late on purpose would know them.
    """
    place = store.row("SELECT retired, human_ranks + leased < wanted AS free FROM comparisons WHERE id = ?", [presentation.comparison_id])
    if place is None or place["retired"]:
        return False
    if store.value("SELECT 1 FROM leases WHERE presentation_id = ? AND ended_at IS NULL", [presentation.id]):
        return True
    return bool(place["free"]) if presentation.purpose == "vote" else not _passed(store, presentation)


def _passed(store: Database, presentation: Presentation) -> bool:
    """Whether a vote that was given back as this was would have gone to somebody else since.

    That is so when all that stood in the line then is given out, and somebody else has asked after it.
    """
    back = store.row("SELECT ticket, at FROM given_back WHERE presentation_id = ?", [presentation.id])
    if back is None or store.value("SELECT 1 FROM line WHERE ticket <= ? LIMIT 1", [back["ticket"]]):
        return False
    asked = "SELECT 1 FROM line_places WHERE annotator_id != ? AND asked_at >= ? LIMIT 1"
    return bool(store.value(asked, [presentation.annotator_id, back["at"]]))


def reopen_lease(store: Database, presentation: Presentation) -> None:
    """Reserves what an annotator took back, so that it is what they see next."""
    _lease(store, presentation, "undo", 1.0, settings.current(store))


def expire_leases(store: Database) -> None:
    """Ends the leases whose time is over; their comparisons go to the end of the line."""
    moment, longest = store.clock.text(), _expiry(store, settings.current(store))
    with store.atomic() as connection:
        # Written before the clock was set back and the program started again: no lease is longer than a lease.
        connection.conn.execute("UPDATE leases SET expires_at = ?1 WHERE ended_at IS NULL AND expires_at > ?1", [longest])
        connection.conn.execute("UPDATE leases SET ended_at = ?1, outcome = 'lapsed' WHERE ended_at IS NULL AND expires_at <= ?1", [moment])


def lease_of(store: Database, presentation_id: int) -> Lease | None:
    """The last lease of a presentation; None for an imported or simulated one."""
    row = store.row("SELECT * FROM leases WHERE presentation_id = ? ORDER BY id DESC LIMIT 1", [presentation_id])
    return None if row is None else Lease(**dict(row))


def depth(store: Database) -> int:
    """Comparisons that wait for a person, leased ones left out."""
    return int(store.value("SELECT count(*) FROM line"))


def least_waiting(store: Database, at_most: int) -> int:
    """How many comparisons wait for the annotator who has the fewest left, of those who asked lately; `at_most` or less.

    What they judged or skipped does not wait for them, though it may for others. Without annotators, the line itself.
    """
    lately = window(minutes=LATELY_MINUTES)
    rows = store.rows("SELECT DISTINCT annotator_id FROM line_places WHERE asked_at BETWEEN ? AND ?", lately).fetchall()
    people = [row["annotator_id"] for row in rows] or [NOBODY]
    waiting = f"SELECT count(*) FROM ({WAITING_FOR} LIMIT :at_most)"
    return min(int(store.value(waiting, {"annotator": person, "at_most": at_most})) for person in people)


def _choose(store: Database, annotator_id: int, project: ProjectSettings, rng: random.Random) -> tuple[Comparison, Presentation] | None:
    """Draws between gold, repeat and line. A share that has nothing to offer falls to the line.

    When the line has nothing more, nothing is shown: what then still came would give itself away as gold or repeat.
    """
    found = _next_readable(store, annotator_id)
    if found is None:
        return None
    place, next_one = found
    # Both are read whatever is drawn: how long an answer takes must not tell what came of it.
    gold = _ids(store, UNSEEN_GOLD, annotator=annotator_id, among=GOLD_AMONG) if project.gold_share else []
    repeatable = {"annotator": annotator_id, "among": REPEAT_AMONG, "after": REPEAT_AFTER}
    repeats = _ids(store, REPEATABLE, **repeatable) if project.repeat_share else []
    p_gold = project.gold_share if gold else 0.0
    p_repeat = project.repeat_share if repeats else 0.0
    drawn = rng.random()
    if drawn < p_gold:
        comparison = comparisons.get(store, rng.choice(gold))
        shown = presentations.record(store, comparison, annotator_id, rng, purpose="gold", guidelines=guidelines.current(store))
        _lease(store, shown, "gold", p_gold / len(gold), project)
        return comparison, shown
    if drawn < p_gold + p_repeat:
        before = presentations.existing(store, rng.choice(repeats))
        comparison = comparisons.get(store, before.comparison_id)
        shown = presentations.repeat(store, before, guidelines=guidelines.current(store))
        _lease(store, shown, "repeat", p_repeat / len(repeats), project)
        return comparison, shown
    _stand_at(store, annotator_id, place["priority"], place["ticket"])
    shown = presentations.record(store, next_one, annotator_id, rng, guidelines=guidelines.current(store))
    _lease(store, shown, "oldest", 1.0 - p_gold - p_repeat, project)
    return next_one, shown


def _next_readable(store: Database, annotator_id: int) -> tuple[sqlite3.Row, Comparison] | None:
    """The place of `_next_in_line` and what stands there. What cannot be read is passed, or nobody would ever come past it."""
    while (place := _next_in_line(store, annotator_id)) is not None:
        if found := comparisons.many(store, [place["comparison_id"]]):
            return place, found[0]
        _stand_at(store, annotator_id, place["priority"], place["ticket"])
    return None


def _next_in_line(store: Database, annotator_id: int) -> sqlite3.Row | None:
    """The first in line that the annotator has not judged. The end of what was passed is written down."""
    priority = store.value("SELECT max(priority) FROM line")
    while priority is not None:
        found = store.row(NEXT_IN_LINE, {"annotator": annotator_id, "priority": priority})
        if found is not None:
            return found
        _stand_at(store, annotator_id, priority, store.value("SELECT max(ticket) FROM line WHERE priority = ?", [priority]))
        priority = store.value("SELECT max(priority) FROM line WHERE priority < ?", [priority])
    return None


def _stand_at(store: Database, annotator_id: int, priority: int, ticket: int) -> None:
    """Writes down how far along the line an annotator has come, so that the next walk is short."""
    store.connection.conn.execute(
        "INSERT INTO line_places (annotator_id, priority, ticket, asked_at) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (annotator_id, priority) DO UPDATE SET ticket = excluded.ticket, asked_at = excluded.asked_at",
        [annotator_id, priority, ticket, now()],
    )


def _lease(store: Database, presentation: Presentation, policy: str, propensity: float, project: ProjectSettings) -> None:
    store.insert(
        "leases",
        {
            "presentation_id": presentation.id,
            "comparison_id": presentation.comparison_id,
            "annotator_id": presentation.annotator_id,
            "policy": policy,
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
