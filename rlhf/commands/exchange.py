"""Judgments into the store and out of it, and the store as one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from rlhf import report
from rlhf.commands.terminal import UsageError, Verbs, file_bar, open_store
from rlhf.visible import one_line
from storage import backup, imports
from storage.database import Database, DataFolder
from storage.exchange import formats, native


def add(verbs: Verbs) -> None:
    p = verbs.add("import", import_)
    p.add_argument("file", type=Path, nargs="?", help="file to read, .gz too; with --format native the folder of a native export")
    p.add_argument(
        "--format", default="prompts", choices=formats.READABLE,
        help="what the file holds (docs/formats.md); prompts are JSONL rows of a prompt or messages",
    )
    p.add_argument("--strict", action="store_true", help="import nothing if any row is wrong")
    p.add_argument("--simulated", metavar="RULE", help="the file's judgments were made by this rule or model, not by people")
    p.add_argument("--undo", type=int, metavar="ID", help="take an earlier import out of everything that counts; nothing is deleted")
    p.add_argument("--list", action="store_true", help="show the imports so far")

    p = verbs.add("export", export)
    p.add_argument("file", type=Path, help="file to write (gzipped if it ends in .gz); with --format native a new folder")
    p.add_argument("--format", default="trl", choices=formats.WRITABLE, help="docs/formats.md shows a row of each")
    p.add_argument("--include-simulated", action="store_true", help="simulated judgments too, marked as such")
    p.add_argument("--names", action="store_true", help="annotators by name; by pseudonym otherwise")

    p = verbs.add("backup", backup_)
    p.add_argument("file", type=Path, help="file to write")
    p.add_argument("--force", action="store_true", help="replace the file if there is one")

    p = verbs.add("restore", restore)
    p.add_argument("file", type=Path, help="a file that backup wrote")
    p.add_argument("--force", action="store_true", help="put a store that is there aside, under a name with the date")


def import_(given: argparse.Namespace) -> int:
    """Prompts, comparisons and judgments from a file; wrong rows are named and left out. An import can be undone."""
    if (given.file is not None) + (given.undo is not None) + given.list != 1:
        raise UsageError("say what to import: a FILE, or --undo ID, or --list")
    if given.file is not None and given.format == formats.NATIVE:
        return import_native(given)
    _, store = open_store(given.data)
    if given.list:
        print(report.imports(imports.all_imports(store)))
        return 0
    if given.undo is not None:
        undone = imports.undo(store, given.undo)
        print(
            f"import {given.undo} undone: {undone.judgments} judgments no longer count, {undone.comparisons} comparisons and "
            f"{undone.prompts} prompts retired"
        )
        return 0

    def name_wrong_row(line: int, reason: str) -> None:
        tqdm.write(f"{given.file}:{line}: {one_line(reason)}", file=sys.stderr)

    with file_bar("importing", "B") as progress:
        import_id, found = imports.import_file(
            store, given.file, given.format, strict=given.strict, rule=given.simulated, wrong_row=name_wrong_row, progress=progress
        )
    print(report.imported(import_id, found, prompts_only=given.format == "prompts"))
    return 1 if found.wrong or import_id is None else 0


def import_native(given: argparse.Namespace) -> int:
    """A whole store, into one that holds nothing yet."""
    if given.simulated:
        raise UsageError("--simulated is for files that do not tell: a native export does")
    with file_bar("importing", "row") as progress:
        # Not by open_store: starter prompts would be in the way of the store's own.
        rows = native.read(Database(DataFolder(given.data.absolute()).database), given.file, progress=progress)
    print(f"{rows} rows imported: the store is as the one that was exported. Accounts and runs/ are not part of it")
    return 0


def export(given: argparse.Namespace) -> int:
    """Judgments in one of several formats, for training or for keeping."""
    _, store = open_store(given.data)
    if given.format == formats.NATIVE:
        with file_bar("exporting", "row") as progress:
            print(f"{native.write(store, given.file, progress=progress)} rows written to the folder {given.file}")
        return 0
    chosen = formats.FORMATS[given.format]
    with file_bar("exporting", "judgment") as progress:
        written = chosen.write(store, given.file, include_simulated=given.include_simulated, names=given.names, progress=progress)
    print(f"{written} {chosen.unit} written to {given.file}")
    return 0


def backup_(given: argparse.Namespace) -> int:
    """The store as one checked file, taken while people judge."""
    _, store = open_store(given.data)
    with file_bar("copying", "page") as progress:
        size = backup.backup(store, given.file, force=given.force, progress=progress)
    print(f"{given.file}: {size / 1e6:.1f} MB, checked. runs/ (adapters, checkpoints) is not in it")
    return 0


def restore(given: argparse.Namespace) -> int:
    """A backup in the place of the data folder's store."""
    folder = DataFolder(given.data.absolute())
    with file_bar("copying", "page") as progress:
        kept = backup.restore(folder, given.file, force=given.force, progress=progress)
    print(f"{folder.database} is as {given.file} was" + (f"; the store before it is {kept.name}" if kept else ""))
    return 0
