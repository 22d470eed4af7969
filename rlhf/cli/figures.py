"""What the store says: counts, agreement, the leaderboard. Nothing is changed."""

from __future__ import annotations

import argparse
import json

from rlhf.cli import report
from rlhf.cli.terminal import Verbs, open_store
from storage.analytics.stats import stats


def add(verbs: Verbs) -> None:
    p = verbs.add("stats", stats_)
    p.add_argument("--json", action="store_true", help="machine-readable")

    for name, run in (("agreement", agreement_), ("leaderboard", leaderboard_)):
        p = verbs.add(name, run)
        p.add_argument("--json", action="store_true", help="machine-readable")
        p.add_argument("--include-simulated", action="store_true", help="votes of simulated annotators too")


def stats_(given: argparse.Namespace) -> int:
    """How much of everything is in the store."""
    _, store = open_store(given.data)
    figures = stats(store)
    print(json.dumps(figures, indent=2) if given.json else report.figures(figures))
    return 0


def agreement_(given: argparse.Namespace) -> int:
    """How far annotators agree, and how each of them judges."""
    # Statistics take a second to load, and no other verb needs them.
    from rlhf.analysis import agreement
    from rlhf.cli import tables

    _, store = open_store(given.data)
    found = agreement.report(store, include_simulated=given.include_simulated)
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if given.json else tables.agreement(found))
    return 0


def leaderboard_(given: argparse.Namespace) -> int:
    """Policy versions by the votes on their answers."""
    from rlhf.analysis import leaderboard
    from rlhf.cli import tables

    _, store = open_store(given.data)
    found = leaderboard.leaderboard(store, include_simulated=given.include_simulated)
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if given.json else tables.leaderboard(found))
    return 0
