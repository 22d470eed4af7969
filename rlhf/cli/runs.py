"""The verbs `run name` and `run metrics`: one run's name, note and metrics. `runs`, which lists runs, is in `rlhf.cli.rounds`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlhf.cli import report
from rlhf.cli.terminal import UsageError, Verbs, open_store
from rlhf.runs import event_files, run_files
from storage.project import runs


def add(verbs: Verbs) -> None:
    group = verbs.group("run", "One run: its name and note, and its metrics as a file.")
    p = group.add("name", name)
    _add_run(p)
    p.add_argument("--name", help=f"at most {runs.MAX_NAME_CHARS} characters in one line; '' takes the name away")
    p.add_argument("--note", help=f"at most {runs.MAX_NOTE_CHARS:,} characters; '' takes the note away")
    p = group.add("metrics", metrics)
    _add_run(p)
    p.add_argument("--to", choices=["csv", "tensorboard"], default="csv", help="a CSV file, or a folder of event files for TensorBoard")
    p.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="the CSV file; for TensorBoard the folder, in which each run has one"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_id", help="the run, as `rankloop runs` lists it")


def name(args: argparse.Namespace) -> int:
    """Give a run a name and a note, which every list and page shows. Earlier ones stay in the store, and the audit names them."""
    if args.name is None and args.note is None:
        raise UsageError("nothing to write: give --name, --note or both")
    _, store = open_store(args.data)
    run = runs.describe(store, args.run_id, name=args.name, note=args.note)
    print(report.aligned([("run", report.titled(run.id, run.name)), ("note", run.note or "-")]))
    return 0


def metrics(args: argparse.Namespace) -> int:
    """Write the metrics that a run has logged so far into a file: CSV, or an event file that TensorBoard reads."""
    _, store = open_store(args.data)
    run = runs.readable(store, args.run_id)
    values = runs.metrics(store, run.id)
    if not values:
        raise UsageError(f"run {run.id} has logged no metrics: nothing was written")
    if args.to == "tensorboard":
        file = event_files.write(args.out, run, values)
    else:
        file = args.out
        file.write_text(run_files.metrics_csv(values), encoding="utf-8")
    print(f"{len(values):,} values written to {file}")
    return 0
