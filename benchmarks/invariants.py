"""Invariants that hold in every store, also after heavy load and after faults, checked by queries of the database.

Triggers maintain counts that are read often; here each count is recomputed from its definition.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

ACTIVE = "j.verdict != 'retract' AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id)"

EXCLUDED = """EXISTS (SELECT 1 FROM excluded_judgments e WHERE e.judgment_id = j.id
    AND e.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts))"""

HUMAN = "(SELECT kind FROM annotators a WHERE a.id = j.annotator_id) = 'human'"

OPEN = "c.human_ranks + c.leased < c.wanted AND c.retired = 0 AND c.gold = 0"

BROKEN = {
    "judgments whose `counts` does not match their rows": f"""
        SELECT count(*) FROM judgments j
        WHERE j.counts != (j.verdict = 'rank' AND j.purpose = 'vote' AND {ACTIVE} AND NOT {EXCLUDED})""",
    "comparisons whose `human_ranks` is not the number of people's votes": f"""
        SELECT count(*) FROM comparisons c LEFT JOIN (
            SELECT j.comparison_id AS id, count(*) AS votes FROM judgments j WHERE j.counts = 1 AND {HUMAN} GROUP BY 1
        ) found ON found.id = c.id WHERE c.human_ranks != coalesce(found.votes, 0)""",
    "comparisons whose `human_skips` is not the number of people's active skips": f"""
        SELECT count(*) FROM comparisons c LEFT JOIN (
            SELECT j.comparison_id AS id, count(*) AS skips FROM judgments j
            WHERE j.verdict = 'skip' AND j.purpose = 'vote' AND {ACTIVE} AND {HUMAN} GROUP BY 1
        ) found ON found.id = c.id WHERE c.human_skips != coalesce(found.skips, 0)""",
    "comparisons whose `leased` is not the number of running leases": """
        SELECT count(*) FROM comparisons c LEFT JOIN (
            SELECT l.comparison_id AS id, count(*) AS held FROM leases l JOIN presentations p ON p.id = l.presentation_id
            WHERE l.ended_at IS NULL AND l.selection IN ('queue', 'undo') AND p.purpose = 'vote' GROUP BY 1
        ) found ON found.id = c.id WHERE c.leased != coalesce(found.held, 0)""",
    "open comparisons that are not in the queue": f"""
        SELECT count(*) FROM comparisons c WHERE {OPEN} AND NOT EXISTS (SELECT 1 FROM queue WHERE queue.comparison_id = c.id)""",
    "closed comparisons that are in the queue": f"""
        SELECT count(*) FROM queue JOIN comparisons c ON c.id = queue.comparison_id WHERE NOT ({OPEN})""",
    "annotators whose `judged` is not the number of their active judgments": f"""
        SELECT count(*) FROM annotators a LEFT JOIN (
            SELECT j.annotator_id AS id, count(*) AS stand FROM judgments j WHERE {ACTIVE} GROUP BY 1
        ) found ON found.id = a.id WHERE a.judged != coalesce(found.stand, 0)""",
    "comparisons with more people's votes and leases than wanted": """
        SELECT count(*) FROM comparisons c WHERE c.human_ranks + c.leased > c.wanted""",
    "pairs of an annotator and a comparison with two active votes": """
        SELECT count(*) FROM (
            SELECT 1 FROM judgments j WHERE j.counts = 1 GROUP BY j.comparison_id, j.annotator_id HAVING count(*) > 1)""",
    "presentations with two active judgments": f"""
        SELECT count(*) FROM (
            SELECT 1 FROM judgments j WHERE j.presentation_id IS NOT NULL AND {ACTIVE}
            GROUP BY j.presentation_id HAVING count(*) > 1)""",
    "annotators with two leases": """
        SELECT count(*) FROM (
            SELECT 1 FROM leases WHERE ended_at IS NULL AND selection != 'undo' GROUP BY annotator_id HAVING count(*) > 1)""",
}


def problems(database: Path, *, deep: bool = True) -> list[str]:
    """The violated invariants, a line each. `deep` also checks every page and every reference."""
    connection = sqlite3.connect(database)
    try:
        found = [f"{broken} {what}" for what, sql in BROKEN.items() if (broken := connection.execute(sql).fetchone()[0])]
        if deep:
            if (integrity := connection.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                found.append(f"integrity_check: {integrity}")
            if dangling := len(connection.execute("PRAGMA foreign_key_check").fetchall()):
                found.append(f"{dangling} references to missing rows")
        return found
    finally:
        connection.close()
