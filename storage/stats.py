"""The store at a glance: how much of everything there is."""

from __future__ import annotations

from typing import Any

from storage import queue
from storage.database import Database


def stats(store: Database) -> dict[str, Any]:
    """Counts as of one moment. Judgments are those that stand, skips included; runs are by status."""
    with store.snapshot():
        judgments = _by(store, "SELECT annotator_kind, count(*) FROM standing_judgments GROUP BY annotator_kind")
        annotators = _by(store, "SELECT kind, count(*) FROM annotators GROUP BY kind")
        return {
            "prompts": store.value("SELECT count(*) FROM prompts"),
            "completions": store.value("SELECT count(*) FROM completions"),
            "comparisons": store.value("SELECT count(*) FROM comparisons"),
            "judgments": {"human": 0, "simulated": 0} | judgments,
            "annotators": {"human": 0, "simulated": 0} | annotators,
            "runs": _by(store, "SELECT status, count(*) FROM runs GROUP BY status"),
            "policy_versions": store.value("SELECT count(*) FROM policy_versions"),
            "queue_depth": queue.depth(store),
        }


def _by(store: Database, sql: str) -> dict[str, int]:
    return {row[0]: row[1] for row in store.rows(sql)}
