"""Imports of files and datasets. Each becomes visible as a whole or not at all, and can be undone by its id (`undos`).

An import is written in slices, so that people judge and rounds train meanwhile; `storage.core.unfinished_imports` says how.
The modules of `storage.exchange` named after a format read its records.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from storage.core import unfinished_imports
from storage.core.database import Database, StoreError, now
from storage.exchange import detect, files, import_records, interrupted, mapped, message_texts, paths, publications, tracking
from storage.exchange.columns import Respelling
from storage.exchange.field_maps import FieldMap
from storage.exchange.files import RowProgress
from storage.exchange.formats import FORMATS, Format
from storage.exchange.groups import grouped
from storage.exchange.import_writer import ImportWriter, Line, Report, WrongRow
from storage.exchange.limits import Limits
from storage.exchange.rows import BadRow, Found, Item, Left, NewComparison, NewLabel, ReadAs, Record, Row, check, size_of
from storage.exchange.tracking import Tracked, left_behind
from storage.exchange.wrapped import IsRow
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
    records = files.records(path, found.container, limits=limits, is_row=_is_row(mapping), progress=progress)
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
    item_read: Callable[[Item], object] | None = None,
    wrong_row: WrongRow | None = None,
) -> Report:
    """What an import of a file would find, without importing anything: items as the file has them, known ones too.

    Args:
        item_read: called with each item.
        wrong_row: called with the line and the reason of each wrong row.

    Raises:
        StoreError: the file cannot be read, is not what its name says, or unpacks to too much.
    """
    found, report = _reader(format, mapping, recognised=recognised), Report()

    def refuse(line: int, reason: str) -> None:
        report.wrong += 1
        if report.wrong <= REPORTED_ROWS:
            report.wrong_rows.append((line, _printable(reason)))
        if wrong_row:
            wrong_row(line, _printable(reason))

    max_chars = limits.text_chars or settings.current(store).text_max_chars
    records = files.records(Path(path), found.container, limits=limits, is_row=_is_row(mapping))
    for _, item in _items(records, found, max_chars, report, refuse):
        if item_read:
            item_read(item)
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
    records = message_texts.decoded(((number, _record(row)) for number, row in enumerate(rows, start=1)), limits)
    found = _reader(format, mapping)
    return _run(store, records, found, format, source, None, strict=strict, rule=rule, by=by, limits=limits, wrong_row=wrong_row)


def _reader(name: str, mapping: FieldMap | None, *, recognised: bool = False) -> Format:
    """The format of this name; one made of the mapping for `map`. One that was recognised takes no row that may hold more."""
    if mapping is not None:
        return Format(partial(mapped.read, mapping), None, "", ignored=mapping.ignored, columns=mapping.columns())
    found = FORMATS.get(name)
    if found is None or found.read is None:
        readable = ", ".join(name for name, format in FORMATS.items() if format.read)
        raise StoreError(f"{name} cannot be imported: choose one of {readable}.")
    if recognised and found.beside:
        return replace(found, read=partial(_read_alone, found))
    return found


def _is_row(mapping: FieldMap | None) -> IsRow:
    """What tells a row from an object that holds rows."""
    if mapping is None:
        return detect.is_row
    spelling = Respelling(mapping.columns())
    parts = (*mapping.prompt, *mapping.chosen, *mapping.completions)

    def is_row(record: Record) -> bool:
        try:
            return any(paths.has(spelling.respelt(record), part) for part in parts)
        except BadRow:
            # It has the columns, and what is wrong with them is said where it is read.
            return True

    return is_row


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
    records: Iterable[tuple[int, Row]],
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
        interrupted.finish_all(store)
        with store.atomic():
            _refuse_twice(store, format, sha256, source)
            row = {"format": format, "source": source, "sha256": sha256, "report": "{}", "by_id": by, "created_at": now()}
            import_id = store.insert("imports", row | {"state": "writing"})
        try:
            writer = ImportWriter(store, import_id, format, source, rule, by, report, refuse)
            max_chars = limits.text_chars or settings.current(store).text_max_chars
            for chunk in _chunks(_items(records, reader, max_chars, report, refuse), writer.pace):
                # After the first wrong row a strict import only reads on, to report the other wrong rows.
                if not (strict and report.wrong):
                    writer.write(chunk)
            if strict:
                _refuse_incomplete(report)
            if report.good:
                writer.publish()
        except BaseException:
            _roll_back(store, import_id, rolling_back)
            raise
        if not report.good:
            unfinished_imports.roll_back(store, import_id, rolling_back)
            return None, report
        published = import_records.get(store, import_id)
        publications.finish_or_leave(store, published)
        return import_id, replace(report, unfinished=published.report.unfinished)


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


def _items(records: Iterable[tuple[int, Row]], reader: Format, max_chars: int, report: Report, refuse: WrongRow) -> Iterator[Line]:
    """The valid items of each record. `refuse` is called with the line and the reason for every invalid one.

    What a record holds that no item does is counted in the report.
    """
    assert reader.read is not None, "checked by _reader"
    for line, record in grouped(Respelling(reader.names, reader.ignored).rows(records), reader.group):
        if isinstance(record, (Left, ReadAs)):
            _note(report, record)
            continue
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
            tracking.count(report.numbering if name in reader.ignored or name in tracking.ROW_NUMBERS else report.left, name)
        for item in converted:
            if isinstance(item, Left):
                _note(report, item)
                continue
            try:
                check(item, max_chars)
            except BadRow as error:
                refuse(line, str(error))
                continue
            yield line, item


def _note(report: Report, said: Left | ReadAs) -> None:
    if isinstance(said, Left):
        tracking.count(report.numbering if said.harmless else report.left, said.what, said.count)
    elif len(report.read_as) < tracking.MAX_FIELD_NAMES:
        report.read_as[tracking.shown(said.name)] = said.what


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
