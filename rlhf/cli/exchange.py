"""The verbs `import`, `export`, `backup` and `restore`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from rlhf.cli import report
from rlhf.cli.terminal import UsageError, Verbs, file_bar, import_bar, open_store
from rlhf.safe_output import one_line
from storage.content import prompts
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.exchange import backup, detect, encodings, files, formats, import_records, imports, maps, native, plain, publications, undos
from storage.exchange.field_maps import FieldMap
from storage.exchange.limits import MIB, Limits

DEFAULT_LIMITS = Limits()


def add(verbs: Verbs) -> None:
    p = verbs.add("import", import_)
    p.add_argument(
        "file",
        type=Path,
        nargs="?",
        help="file to read, also packed (.gz, .bz2, .xz, .zst, .zip), or - for standard input; with --format native the folder of a "
        "native export",
    )
    p.add_argument("--encoding", metavar="NAME", help="encoding of a text file that is not UTF-8, such as cp1252 or gb18030")
    p.add_argument(
        "--format",
        choices=formats.READABLE,
        help="the file's format (docs/reference/formats.md); by default it is recognised by the fields of the rows; "
        "`prompts` are JSONL rows with a prompt or messages",
    )
    p.add_argument("--map", metavar="MAP", help=f"for a file of another kind, {maps.HELP}")
    p.add_argument("--save-map", metavar="NAME", help="save the entries of --map in the data folder, for --map NAME")
    p.add_argument(
        "--max-text-chars",
        type=int,
        metavar="N",
        help="longest prompt, answer or rationale, in characters; by default the project's setting (Lead page, initially 100,000)",
    )
    p.add_argument("--max-row-mib", type=int, default=DEFAULT_LIMITS.row_bytes // MIB, metavar="N", help="largest size of one row, in MiB")
    p.add_argument(
        "--max-unpacked-mib",
        type=int,
        metavar="N",
        help="largest unpacked size of a gzip or Parquet file, in MiB; by default 200 times its size, within 64 to 4096",
    )
    p.add_argument("--raw-cells", action="store_true", help="keep CSV cells unchanged, also an apostrophe before what looks like a formula")
    p.add_argument("--strict", action="store_true", help="import nothing if any row is wrong, or anything is not kept")
    p.add_argument("--simulated", metavar="RULE", help="the file's judgments were made by this rule or model, not by people")
    p.add_argument("--undo", type=int, metavar="ID", help="undo an import: its judgments no longer count, and no row is deleted")
    p.add_argument("--list", action="store_true", help="show the imports so far")

    p = verbs.add("export", export)
    p.add_argument("file", type=Path, help="file to write (gzipped if it ends in .gz); with --format native a new folder")
    p.add_argument("--format", default="trl", choices=formats.WRITABLE, help="docs/reference/formats.md shows a row of each")
    p.add_argument("--include-simulated", action="store_true", help="simulated judgments too, marked as such")
    p.add_argument("--names", action="store_true", help="annotators by name; by pseudonym otherwise")
    p.add_argument(
        "--raw-cells",
        action="store_true",
        help="write CSV cells unchanged; by default an apostrophe is put before cells that a spreadsheet would run as a formula",
    )
    p.add_argument("--strict", action="store_true", help="write nothing if the format cannot hold all of the judgments' details")

    p = verbs.add("backup", backup_)
    p.add_argument("file", type=Path, help="file to write")
    p.add_argument("--force", action="store_true", help="replace the file if there is one")

    p = verbs.add("restore", restore)
    p.add_argument("file", type=Path, help="a file that backup wrote")
    p.add_argument("--force", action="store_true", help="rename an existing store to a name with the date, instead of refusing")


def import_(args: argparse.Namespace) -> int:
    """Import prompts, comparisons and judgments from a file; wrong rows are named and left out. An import can be undone."""
    if (args.file is not None) + (args.undo is not None) + args.list != 1:
        raise UsageError("name a FILE to import, or use --undo ID or --list")
    if args.file is not None and args.format == formats.NATIVE:
        return import_native(args)
    _, store = open_store(args.data)
    if args.list:
        print(report.imports(import_records.all_imports(store)))
        return 0
    if args.undo is not None:
        return _undo(store, args.undo)

    def name_wrong_row(line: int, reason: str) -> None:
        tqdm.write(f"{args.file}:{line}: {one_line(reason)}", file=sys.stderr)

    limits, left_out = _limits(args), prompts.unused_starter_votes(store)
    with files.regular(args.file, limits) as file:
        format, mapping = _format(args, file, limits)
        try:
            with import_bar() as (progress, rolling_back):
                import_id, counts = imports.import_file(
                    store, file, format, recognised=not args.format, mapping=mapping, strict=args.strict, rule=args.simulated,
                    limits=limits, wrong_row=name_wrong_row, progress=progress, rolling_back=rolling_back,
                )  # fmt: skip
        except KeyboardInterrupt:
            return _stopped(store)
    print(report.imported(import_id, counts, prompts_only=format in formats.PROMPTS_ALONE))
    if prompts.unused_starter_votes(store) > left_out:
        print(report.starters(prompts.starters(store)))
    return 1 if counts.wrong or import_id is None else 0


def _undo(store: Database, import_id: int) -> int:
    try:
        with file_bar("undoing", "row") as progress:
            undone = undos.undo(store, import_id, progress=progress)
    except KeyboardInterrupt:
        if not import_records.is_being_undone(store, import_id):
            raise
        print("\nstopped: the votes no longer count; the next start or import does the rest of the undo")
        return 130
    print(
        f"import {import_id} undone: {undone.judgments} judgments "
        + (f"and {undone.labels} labels " if undone.labels else "")
        + f"no longer count, {undone.comparisons} comparisons and {undone.prompts} prompts retired"
    )
    return 0


def _stopped(store: Database) -> int:
    """Prints what is left of an import after Ctrl-C. A second Ctrl-C interrupts the rollback too."""
    if publications.is_unfinished(store):
        print("\nstopped: the import is whole; the next start or import counts the rest of its votes")
    elif import_records.is_written(store):
        print("\nstopped: nothing was imported. The rows written so far stay invisible until the next start or import deletes them")
    else:
        print("\nstopped: nothing was imported, and the rows written so far were deleted again")
    return 130


def _format(args: argparse.Namespace, file: Path, limits: Limits) -> tuple[str, FieldMap | None]:
    """The format of the file, and the map of its fields if `--map` names one. A format that was recognised is printed."""
    folder = args.data.absolute()
    if args.save_map and "=" not in (args.map or ""):
        raise UsageError("--save-map is for the entries of a --map: add --map prompt=FIELD,...")
    if args.map and args.format:
        raise UsageError("use --format or --map, not both")
    if args.map:
        mapping = maps.load(args.map, folder)
        if args.save_map:
            print(f"the map is saved as {maps.save(args.map, folder, args.save_map)}: use it with --map {args.save_map}")
        return "map", mapping
    if args.format:
        return args.format, None
    recognised = detect.recognise_file(file, limits)
    # A file of prompts has no votes that could be misread, and the summary names the prompts.
    if recognised.format != "prompts":
        print(f"recognised as {recognised.format}, {recognised.evidence}; --format NAME overrides this")
    return recognised.format, None


def _limits(args: argparse.Namespace) -> Limits:
    for name in ("max_text_chars", "max_row_mib", "max_unpacked_mib"):
        if (limit := getattr(args, name)) is not None and limit < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {limit}")
    unpacked = args.max_unpacked_mib and args.max_unpacked_mib * MIB
    encoding = args.encoding and encodings.check_encoding(args.encoding)
    return Limits(args.max_row_mib * MIB, unpacked, args.max_text_chars, encoding, args.raw_cells)


def import_native(args: argparse.Namespace) -> int:
    """Imports a whole store into an empty one."""
    if args.simulated:
        raise UsageError("--simulated is for files that do not record the annotators' kind: a native export does, so leave it out")
    with file_bar("importing", "row") as progress:
        # Not with open_store: it adds starter prompts, and the store must be empty.
        rows = native.read(Database(DataFolder(args.data.absolute()).database), args.file, progress=progress)
    print(f"{rows} rows imported: the store equals the exported one. Accounts and runs/ are not in a native export")
    return 0


def export(args: argparse.Namespace) -> int:
    """Export judgments in one of several formats, for training elsewhere or as an archive."""
    _, store = open_store(args.data)
    if args.format == formats.NATIVE:
        with file_bar("exporting", "row") as progress:
            print(f"{native.write(store, args.file, progress=progress)} rows written to the folder {args.file}")
        return 0
    write = formats.FORMATS[args.format].write
    assert write is not None, "the parser offers only formats that are written"
    is_csv = args.format == "csv" or (args.format == "plain" and plain.container_of(args.file) == "csv")
    if args.raw_cells and not is_csv:
        raise UsageError("--raw-cells is for CSV: use --format csv")
    write = plain.RAW if args.raw_cells else write
    with file_bar("exporting", "judgment") as progress:
        exported = write(
            store, args.file, include_simulated=args.include_simulated, names=args.names, strict=args.strict, progress=progress
        )
    print(report.exported(exported, formats.FORMATS[args.format].unit, args.file))
    return 0


def backup_(args: argparse.Namespace) -> int:
    """Write the store to one file and check it; judging can continue meanwhile."""
    _, store = open_store(args.data)
    with file_bar("copying", "page") as progress:
        size = backup.backup(store, args.file, force=args.force, progress=progress)
    print(f"{args.file}: {size / 1e6:.1f} MB, checked. runs/ (adapters, checkpoints) is not in it")
    return 0


def restore(args: argparse.Namespace) -> int:
    """Replace the data folder's store with a backup."""
    folder = DataFolder(args.data.absolute())
    with file_bar("copying", "page") as progress:
        earlier = backup.restore(folder, args.file, force=args.force, progress=progress)
    print(f"{folder.database} is restored from {args.file}" + (f"; the earlier store is {earlier.name}" if earlier else ""))
    return 0
