"""Imports of files and datasets. Each becomes visible as a whole or not at all, and can be undone by its id.

An import is written and undone in slices, so that people judge and rounds train meanwhile; `storage.core.unfinished_imports` says how.

The modules of `storage.exchange` named after a format read its records. An undo deletes nothing: it retires prompts and
comparisons, and excludes votes.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from storage.core import json_columns, unfinished_imports
from storage.core.database import Database, StoreError, StoreLocked, now, to_json
from storage.exchange import files, mapped, tracking
from storage.exchange.field_maps import FieldMap
from storage.exchange.files import RowProgress
from storage.exchange.formats import FORMATS, Format
from storage.exchange.groups import grouped
from storage.exchange.import_writer import ImportWriter, Line, Report, WrongRow
from storage.exchange.limits import Limits
from storage.exchange.rows import BadRow, Found, Left, NewComparison, NewLabel, Record, check, size_of
from storage.exchange.tracking import Tracked, left_behind
from storage.judging import exclusions
from storage.project import settings

log = logging.getLogger("rankloop.store")

CHUNK_CHARS = 2_000_000
"""A slice ends when its items have this many characters."""

REPORTED_ROWS = 100
"""Most wrong rows in the report. `wrong_row` is called for all of them."""

MAX_ROW_ERRORS = 1_000_000
"""The import fails after more wrong rows than this."""

MAX_ROW_ERROR_CHARS = 300
"""Longest reason in characters: a reason may quote the row."""

UNDONE = "import undone"
"""The rule of the exclusion that an undo adds."""


@dataclass(frozen=True, slots=True)
class Import:
    """The stored record of one import."""

    id: int
    format: str
    source: str
    sha256: str | None
    report: Report
    by_id: int | None
    created_at: str
    undone_at: str | None


@dataclass(frozen=True, slots=True)
class Undone:
    """Counts of an undo: excluded judgments, retired comparisons and prompts, and labels that no longer stand."""

    judgments: int
    comparisons: int
    prompts: int
    labels: int = 0


def import_file(
    store: Database,
    path: Path | str,
    format: str,
    *,
    recognised: bool = False,
    mapping: FieldMap | None = None,
    strict: bool = False,
    rule: str | None = None,
    by: int | None = None,
    limits: Limits = Limits(),
    wrong_row: WrongRow | None = None,
    progress: RowProgress | None = None,
    rolling_back: RowProgress | None = None,
) -> tuple[int | None, Report]:
    """Imports a file and returns the id of the import, None if no item could be imported, and its report.

    Args:
        format: the name of the format, or `map` for rows that `mapping` describes.
        recognised: nobody named the format: a row that may hold votes of which it knows nothing is wrong then.
        strict: import nothing if any row is wrong, or anything in the file is not kept.
        rule: the name of the rule or model that made the votes; None if people did.
        by: the id of the annotator who imports.
        limits: the largest file, row and text to read.
        progress: gets the rows that are read, and about how many there are. What it raises stops the import, which is taken back.
        rolling_back: gets the rows that are deleted again, and how many there are, if the import fails or is stopped.

    Raises:
        StoreError: the file cannot be read, is not what its name says, unpacks to too much, was imported before, or has wrong
            rows and `strict` is set. Nothing was imported.
    """
    path = Path(path)
    found = _reader(format, mapping, recognised=recognised)
    sha256 = files.sha256(path)
    _refuse_twice(store, format, sha256, path)
    records = files.records(path, found.container, limits=limits, progress=progress)
    # A file's name may contain bytes that are not valid UTF-8.
    source = path.name.encode(errors="replace").decode()
    return _run(
        store, records, found, format, source, sha256,
        strict=strict, rule=rule, by=by, limits=limits, wrong_row=wrong_row, rolling_back=rolling_back,
    )  # fmt: skip


def look(
    store: Database,
    path: Path | str,
    format: str,
    *,
    recognised: bool = False,
    mapping: FieldMap | None = None,
    limits: Limits = Limits(),
) -> Report:
    """What an import of a file would find, without importing anything: items as the file has them, known ones too.

    Raises:
        StoreError: the file cannot be read, is not what its name says, or unpacks to too much.
    """
    found, report = _reader(format, mapping, recognised=recognised), Report()

    def refuse(line: int, reason: str) -> None:
        report.wrong += 1
        if report.wrong <= REPORTED_ROWS:
            report.wrong_rows.append((line, _printable(reason)))

    most_chars = limits.text_chars or settings.current(store).text_max_chars
    records = files.records(Path(path), found.container, limits=limits)
    for _, item in _items(records, found, most_chars, report, refuse):
        if isinstance(item, NewComparison):
            report.comparisons += 1
            report.judgments += len(item.votes)
        elif isinstance(item, NewLabel):
            report.labels += 1
        else:
            report.prompts += 1
    return report


def import_rows(
    store: Database,
    rows: Iterable[Record],
    format: str,
    *,
    source: str = "dataset",
    mapping: FieldMap | None = None,
    strict: bool = False,
    rule: str | None = None,
    by: int | None = None,
    limits: Limits = Limits(),
    wrong_row: WrongRow | None = None,
) -> tuple[int | None, Report]:
    """Imports records that are in memory: a `datasets.Dataset`, an `IterableDataset`, or any iterable of dicts.

    As `import_file`, but the same rows may be imported again. Rows are counted from 1.
    """
    records = ((number, _record(row)) for number, row in enumerate(rows, start=1))
    found = _reader(format, mapping)
    return _run(store, records, found, format, source, None, strict=strict, rule=rule, by=by, limits=limits, wrong_row=wrong_row)


def all_imports(store: Database) -> list[Import]:
    """Every import, newest first."""
    return [_from_row(row) for row in store.rows("SELECT * FROM imports WHERE state = 'whole' ORDER BY id DESC")]


def is_written(store: Database) -> bool:
    """Whether an import is being written, or was broken off and is not deleted yet."""
    return store.value("SELECT 1 FROM unfinished_imports") is not None


def is_being_undone(store: Database, import_id: int) -> bool:
    """Whether a part of an undo is still to be done."""
    return store.value("SELECT undoing FROM imports WHERE id = ?", [import_id]) is not None


def get(store: Database, import_id: int) -> Import:
    """One import.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row("SELECT * FROM imports WHERE id = ? AND state = 'whole'", [import_id])
    if row is None:
        raise StoreError(f"There is no import {import_id} in {store.path}: see `rankloop import --list`.")
    return _from_row(row)


def undo(store: Database, import_id: int, *, by: int | None = None, progress: RowProgress | None = None) -> Undone:
    """Undoes an import. Its rows remain in the store, but nothing uses them, and the file may be imported again.

    Its votes and all votes on its retired comparisons are excluded. Its comparisons are retired, except those with votes of
    another import; its prompts are retired, except those that something else uses. None of its votes counts from the first moment on; the
    rest is done in slices, and by the next start or import if this process ends meanwhile.

    Args:
        progress: gets the rows that are done, and how many there are.

    Raises:
        StoreError: there is no such import, or it was undone before.
        StoreLocked: another import, or the undo of one, is under way.
    """
    with unfinished_imports.import_lock(store):
        _finish_undos(store)
        with store.atomic() as connection:
            undone = get(store, import_id)
            if undone.undone_at is not None:
                raise StoreError(f"Import {import_id} was undone before, at {undone.undone_at}: there is nothing left to do.")
            connection.conn.execute(
                "UPDATE imports SET undone_by_id = ?, undone_at = ?, undoing = ? WHERE id = ?",
                [by, now(), _exclusion(store, undone, by), import_id],
            )
        return _finish_undo(store, undone, by, progress)


def finish_undos(store: Database) -> None:
    """Finishes undos whose processes have ended. Called when a program starts; does nothing while an import or an undo is under way."""
    if store.value("SELECT 1 FROM imports WHERE undoing IS NOT NULL") is None:
        return
    try:
        with unfinished_imports.import_lock(store, wait_s=0):
            _finish_undos(store)
    except StoreLocked:
        return


def _finish_undos(store: Database) -> None:
    for row in store.rows("SELECT * FROM imports WHERE undoing IS NOT NULL").fetchall():
        log.warning("the undo of import %s was interrupted; it is finished now", row["id"])
        _finish_undo(store, _from_row(row), row["undone_by_id"], None)


_COMPARISONS = "SELECT id FROM comparisons WHERE import_id = :import AND id > :after ORDER BY id LIMIT :most"
_JUDGMENTS = "SELECT id FROM judgments WHERE import_id = :import AND id > :after ORDER BY id LIMIT :most"
_OF_SLICE = "(SELECT value FROM json_each(:ids))"

_RETIRE = f"""
UPDATE comparisons SET retired = 1 WHERE id IN {_OF_SLICE} AND retired = 0 AND NOT EXISTS (
    SELECT 1 FROM judgments j WHERE j.comparison_id = comparisons.id AND j.counts = 1 AND j.import_id != :import)
"""
_EXCLUDE_RETIRED = f"""
INSERT OR IGNORE INTO excluded_judgments (judgment_id, exclusion_id)
SELECT j.id, :exclusion FROM judgments j JOIN comparisons c ON c.id = j.comparison_id
WHERE c.id IN {_OF_SLICE} AND c.retired = 1 AND j.counts = 1
"""
_EXCLUDE = "INSERT OR IGNORE INTO excluded_judgments (judgment_id, exclusion_id) SELECT value, :exclusion FROM json_each(:ids)"


def _finish_undo(store: Database, undone: Import, by: int | None, progress: RowProgress | None) -> Undone:
    """Does what is left of an undo. The caller holds the lock of imports."""
    exclusion_id = store.value("SELECT undoing FROM imports WHERE id = ?", [undone.id])
    total = int(store.value("SELECT (SELECT count(*) FROM comparisons WHERE import_id = ?1) + "
                            "(SELECT count(*) FROM judgments WHERE import_id = ?1)", [undone.id]))  # fmt: skip
    done = retired = 0
    pace = unfinished_imports.Pace(store)
    # Retired before the votes are excluded: a comparison without its votes would enter the queue again.
    with unfinished_imports.synced_at_the_end(store):
        for find, changes in ((_COMPARISONS, (_RETIRE, _EXCLUDE_RETIRED)), (_JUDGMENTS, (_EXCLUDE,))):
            after, ids = 0, [0]
            while ids:
                with pace.slice():
                    ids = [row["id"] for row in store.rows(find, {"import": undone.id, "after": after, "most": pace.rows})]
                    # Somebody may judge the first of its comparisons after the undo has begun.
                    exclusion_id = exclusion_id or _exclusion(store, undone, by)
                    values = {"ids": to_json(ids), "import": undone.id, "exclusion": exclusion_id}
                    for sql in changes:
                        changed = store.connection.conn.execute(sql, values).rowcount
                        retired += changed if sql is _RETIRE else 0
                after, done = max(ids, default=after), done + len(ids)
                if progress:
                    progress(done, total)
    with store.atomic() as connection:
        execute = connection.conn.execute
        if undone.report.outdated_exclusion:
            _recount(store, undone, by)
        execute("UPDATE comparisons SET wanted = human_ranks WHERE import_id = ? AND retired = 0 AND wanted > human_ranks", [undone.id])
        for comparison_id in undone.report.golden:
            execute("UPDATE comparisons SET gold = 0 WHERE id = ?", [comparison_id])
        retired_prompts = _retire_prompts(store, undone)
        _give_back_starters(store)
        execute("UPDATE imports SET undoing = NULL WHERE id = ?", [undone.id])
        excluded = int(store.value("SELECT count(*) FROM excluded_judgments WHERE exclusion_id = ?", [exclusion_id]))
    return Undone(excluded, retired, retired_prompts, undone.report.labels)


def _exclusion(store: Database, undone: Import, by: int | None) -> int:
    """The id of a new exclusion for an undo; 0 if there is no vote to exclude."""
    votes = (
        "SELECT 1 FROM judgments WHERE import_id = ?1 UNION ALL SELECT 1 FROM judgments j JOIN comparisons c ON c.id = j.comparison_id "
        "WHERE c.import_id = ?1 AND j.counts = 1"
    )
    if store.value(votes, [undone.id]) is None:
        return 0
    reason = f"The import {undone.id} of {undone.source}, which this belongs to, was undone."
    return store.insert("exclusions", {"rule": UNDONE, "reason": reason, "by_id": by, "created_at": now()})


def _recount(store: Database, undone: Import, by: int | None) -> None:
    """Lets the earlier votes of the same annotators, which the import had outdated, count again."""
    if exclusions.get(store, undone.report.outdated_exclusion).lifted_at is None:
        exclusions.lift(store, undone.report.outdated_exclusion, reason=f"The import {undone.id} was undone.", by=by)


def _retire_prompts(store: Database, undone: Import) -> int:
    """Retires the prompts that the import added or restored, unless an active comparison or another import uses them."""
    execute = store.connection.conn.execute
    execute("CREATE TEMP TABLE IF NOT EXISTS import_reused (first INTEGER, last INTEGER, own INTEGER)")
    execute("DELETE FROM import_reused")
    for other in all_imports(store):
        if other.undone_at is None or other.id == undone.id:
            spans = [(first, last, int(other.id == undone.id)) for first, last in other.report.reused]
            store.connection.conn.executemany("INSERT INTO import_reused VALUES (?, ?, ?)", spans)
    return execute(
        """
        UPDATE prompts SET retired = 1
        WHERE retired = 0
            AND (import_id = :id
                OR id IN (SELECT prompt_id FROM comparisons WHERE import_id = :id)
                OR id IN (SELECT p.id FROM import_reused r JOIN prompts p ON p.id BETWEEN r.first AND r.last WHERE r.own = 1))
            AND (import_id = :id OR EXISTS (SELECT 1 FROM imports i WHERE i.id = prompts.import_id AND i.undone_at IS NOT NULL))
            AND NOT EXISTS (SELECT 1 FROM comparisons c WHERE c.prompt_id = prompts.id AND c.retired = 0)
            AND NOT EXISTS (SELECT 1 FROM import_reused r WHERE r.own = 0 AND prompts.id BETWEEN r.first AND r.last)
        """,
        {"id": undone.id},
    ).rowcount


def _give_back_starters(store: Database) -> None:
    """Makes the starter prompts that no import names any more mere starter prompts again. Call it after `_retire_prompts`."""
    store.connection.conn.execute(
        """
        UPDATE prompts SET starter = 1
        WHERE source = 'starter' AND starter = 0
            AND NOT EXISTS (SELECT 1 FROM comparisons c WHERE c.prompt_id = prompts.id AND c.import_id IS NOT NULL AND c.retired = 0)
            AND NOT EXISTS (SELECT 1 FROM import_reused r WHERE r.own = 0 AND prompts.id BETWEEN r.first AND r.last)
        """
    )


def _reader(name: str, mapping: FieldMap | None, *, recognised: bool = False) -> Format:
    """The format of this name; one made of the mapping for `map`. One that was recognised takes no row that may hold more."""
    if mapping is not None:
        return Format(partial(mapped.read, mapping), None, "", ignored=mapping.ignored)
    found = FORMATS.get(name)
    if found is None or found.read is None:
        readable = ", ".join(name for name, format in FORMATS.items() if format.read)
        raise StoreError(f"{name} cannot be imported: choose one of {readable}.")
    if recognised and found.beside:
        return replace(found, read=partial(_read_alone, found))
    return found


def _read_alone(format: Format, record: Record) -> Iterable[Found]:
    """The items of a record.

    Raises:
        BadRow: it may hold more than the format knows of.
    """
    assert format.read is not None and format.beside is not None, "checked by _reader"
    if others := format.beside(dict(record.items())):
        raise BadRow(
            f"may hold answers, votes or more of the prompt in {', '.join(others)}: name the format, or prompts for the prompt alone"
        )
    return format.read(record)


def _refuse_twice(store: Database, format: str, sha256: str | None, path: Path | str) -> None:
    earlier = store.row(
        "SELECT id, source, created_at FROM imports WHERE sha256 = ? AND format = ? AND undone_at IS NULL AND state = 'whole'",
        [sha256, format],
    )
    if earlier is not None:
        raise StoreError(
            f"{path} was imported before: it is import {earlier['id']} ({earlier['source']}, {earlier['created_at'][:16]}Z). "
            f"To import it again, undo that one first: rankloop import --undo {earlier['id']} --data {store.path.parent}"
        )


def _record(row: object) -> Record | BadRow:
    if not isinstance(row, dict):
        return BadRow("not a JSON object")
    # A dataset's row has None in the columns for which it has no value.
    return {name: value for name, value in row.items() if value is not None}


def _run(
    store: Database,
    records: Iterable[tuple[int, Record | BadRow]],
    reader: Format,
    format: str,
    source: str,
    sha256: str | None,
    *,
    strict: bool,
    rule: str | None,
    by: int | None,
    limits: Limits,
    wrong_row: WrongRow | None,
    rolling_back: RowProgress | None = None,
) -> tuple[int | None, Report]:
    report = Report()

    def refuse(line: int, reason: str) -> None:
        reason = _printable(reason)
        report.wrong += 1
        if report.wrong <= REPORTED_ROWS:
            report.wrong_rows.append((line, reason))
        if wrong_row:
            wrong_row(line, reason)
        if report.wrong > MAX_ROW_ERRORS:
            raise StoreError(f"More than {MAX_ROW_ERRORS:,} wrong rows: check the format. Nothing was imported.")

    with unfinished_imports.import_lock(store), unfinished_imports.synced_at_the_end(store):
        _finish_undos(store)
        with store.atomic():
            _refuse_twice(store, format, sha256, source)
            row = {"format": format, "source": source, "sha256": sha256, "report": "{}", "by_id": by, "created_at": now()}
            import_id = store.insert("imports", row | {"state": "writing"})
        try:
            writer = ImportWriter(store, import_id, format, source, rule, by, report, refuse)
            most_chars = limits.text_chars or settings.current(store).text_max_chars
            for chunk in _chunks(_items(records, reader, most_chars, report, refuse), writer.pace):
                # After the first wrong row a strict import only reads on, to report the other wrong rows.
                if not (strict and report.wrong):
                    writer.write(chunk)
            if strict:
                _refuse_incomplete(report)
            if report.good:
                writer.publish()
                return import_id, report
        except BaseException:
            _roll_back(store, import_id, rolling_back)
            raise
        unfinished_imports.roll_back(store, import_id, rolling_back)
        return None, report


def _roll_back(store: Database, import_id: int, progress: RowProgress | None) -> None:
    """Deletes what an import that failed has written; where that fails too, the next start or import does it."""
    try:
        unfinished_imports.roll_back(store, import_id, progress)
    except StoreError as error:
        log.warning("what was imported could not be taken back yet, and stays invisible: %s", error)


def _refuse_incomplete(report: Report) -> None:
    """Raises StoreError if a strict import would leave something behind."""
    if report.wrong:
        raise StoreError(f"{report.wrong} wrong rows, nothing imported (--strict)")
    if report.left:
        raise StoreError(f"not kept would be {left_behind(report.left)}: nothing imported (--strict)")


def _items(
    records: Iterable[tuple[int, Record | BadRow]], reader: Format, most_chars: int, report: Report, refuse: WrongRow
) -> Iterator[Line]:
    """The valid items of each record. `refuse` is called with the line and the reason for every invalid one.

    What a record holds that no item does is counted in the report.
    """
    assert reader.read is not None, "checked by _reader"
    for line, record in grouped(records, reader.group):
        try:
            if isinstance(record, BadRow):
                raise record
            tracked = Tracked(record)
            converted = list(reader.read(tracked))
        except BadRow as error:
            refuse(line, str(error))
            continue
        except RecursionError:
            refuse(line, "nested too deeply")
            continue
        for name in set(tracked.unread()):
            tracking.count(report.numbering if name in reader.ignored else report.left, name)
        for item in converted:
            if isinstance(item, Left):
                tracking.count(report.left, item.what, item.count)
                continue
            try:
                check(item, most_chars)
            except BadRow as error:
                refuse(line, str(error))
                continue
            yield line, item


def _chunks(lines: Iterable[Line], pace: unfinished_imports.Pace) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    chars = 0
    for line in lines:
        chunk.append(line)
        chars += size_of(line[1])
        if len(chunk) >= pace.rows or chars >= CHUNK_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk


def _printable(reason: str) -> str:
    """The reason, shortened and without control characters, safe to print on a terminal."""
    cut = reason if len(reason) <= MAX_ROW_ERROR_CHARS else reason[: MAX_ROW_ERROR_CHARS - 1] + "…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


def _from_row(row: sqlite3.Row) -> Import:
    return Import(
        row["id"],
        row["format"],
        row["source"],
        row["sha256"],
        _report(row),
        row["by_id"],
        row["created_at"],
        row["undone_at"],
    )


def _report(row: sqlite3.Row) -> Report:
    """The report of an import; an empty one if the row cannot be read."""
    what = f"The report of import {row['id']}"
    try:
        values = json_columns.from_json(row["report"], dict, what)
        if any(type(value) is not type(getattr(Report(), name, None)) for name, value in values.items()):
            raise json_columns.Unreadable(f"{what} cannot be read: it is not what rankloop writes there. Restore a backup.")
        return Report(**values)
    except json_columns.Unreadable as error:
        json_columns.log.warning("%s", error)
        return Report()
