"""The verb `run name`: the name of a run and a note about it. `runs`, which lists runs, is in `rlhf.cli.rounds`."""

from __future__ import annotations

import argparse

from rlhf.cli import report
from rlhf.cli.terminal import UsageError, Verbs, open_store
from storage.project import runs


def add(verbs: Verbs) -> None:
    group = verbs.group("run", "One run: its name and note.")
    p = group.add("name", name)
    p.add_argument("run_id", help="the run, as `rankloop runs` lists it")
    p.add_argument("--name", help=f"at most {runs.MAX_NAME_CHARS} characters in one line; '' takes the name away")
    p.add_argument("--note", help=f"at most {runs.MAX_NOTE_CHARS:,} characters; '' takes the note away")


def name(args: argparse.Namespace) -> int:
    """Give a run a name and a note, which every list and page shows. Earlier ones stay in the store, and the audit names them."""
    if args.name is None and args.note is None:
        raise UsageError("nothing to write: give --name, --note or both")
    _, store = open_store(args.data)
    run = runs.describe(store, args.run_id, name=args.name, note=args.note)
    print(report.aligned([("run", report.titled(run.id, run.name)), ("note", run.note or "-")]))
    return 0
