"""The verbs `stats`, `agreement` and `leaderboard`, which read the store and change nothing."""

from __future__ import annotations

import argparse
import json

from rlhf.cli import report
from rlhf.cli.terminal import Verbs, open_store
from storage.analytics.stats import stats
from storage.content import prompts
from storage.core.database import Database


def add(verbs: Verbs) -> None:
    p = verbs.add("stats", stats_)
    p.add_argument("--json", action="store_true", help="machine-readable")

    for name, run in (("agreement", agreement_), ("leaderboard", leaderboard_)):
        p = verbs.add(name, run)
        p.add_argument("--json", action="store_true", help="machine-readable")
        p.add_argument("--include-simulated", action="store_true", help="votes of simulated annotators too")
        if name == "leaderboard":
            p.add_argument("--control-style", action="store_true", help="take length and markup out of the scores, and say what they do")


def stats_(args: argparse.Namespace) -> int:
    """Counts of everything in the store."""
    _, store = open_store(args.data)
    counts = stats(store)
    print(json.dumps(counts, indent=2) if args.json else report.counts(counts))
    return 0


def agreement_(args: argparse.Namespace) -> int:
    """Agreement between annotators, and metrics of each annotator."""
    # Importing the statistics takes a second, and no other verb needs them.
    from rlhf.analysis import agreement
    from rlhf.cli import tables

    _, store = open_store(args.data)
    result = agreement.report(store, include_simulated=args.include_simulated)
    print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False) if args.json else tables.agreement(result))
    return _name_left_out(store, args)


def leaderboard_(args: argparse.Namespace) -> int:
    """Policy versions by the votes on their answers."""
    from rlhf.analysis import leaderboard
    from rlhf.cli import tables

    _, store = open_store(args.data)
    result = leaderboard.leaderboard(store, include_simulated=args.include_simulated, control_style=args.control_style)
    print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False) if args.json else tables.leaderboard(result))
    return _name_left_out(store, args)


def _name_left_out(store: Database, args: argparse.Namespace) -> int:
    """Says on a terminal which votes are not in the figures; `stats --json` counts them for programs."""
    left_out = prompts.unused_starter_votes(store)
    if left_out and not args.json:
        print(f"\n{left_out} votes on starter prompts are left out, because the store has prompts of its own (prompts --starters on).")
    return 0
