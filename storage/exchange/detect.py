"""Tells which format a file holds, by the fields of its first rows, and says what it goes by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

from storage.core.database import StoreError
from storage.exchange import files, paths, verdicts
from storage.exchange.columns import Respelling
from storage.exchange.field_maps import BAD, GOOD
from storage.exchange.formats import FORMATS, Format, Sign
from storage.exchange.limits import Limits
from storage.exchange.rows import BadRow, Record, Row, number_of

SAMPLE = 200
"""Rows that are looked at."""

MOST_ROWS, HALF = 0.8, 0.5
"""Parts of the rows that have the fields of a format. Of the formats that most rows have, the one with the most fields is meant; where
there is none, the one that the most rows have, if these are more than half. The others are wrong rows, which the import names."""

SHOWN_FIELDS = 20
SHOWN_FORMATS = 3
SHOWN_NUMBERS = 7


class Unrecognised(StoreError):
    """The format of a file is not clear; the message names the likely ones, and what to say on the command line."""

    def __init__(self, message: str, *, fields: str = "", likely: str = "", reason: str = ""):
        super().__init__(message)
        self.fields = fields
        """The fields of the rows; empty if no row can be read, and `reason` says why."""
        self.likely = likely
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Recognised:
    format: str
    evidence: str
    """By which fields, and in how many rows."""


def recognise_file(path: Path | str, limits: Limits = Limits()) -> Recognised:
    """The format of a file.

    Raises:
        StoreError: it cannot be read.
        Unrecognised: its rows are of no known format, or of several.
    """
    return recognise((row for _, row in files.records(path, limits=limits, is_row=is_row)), str(path))


def is_row(record: Record) -> bool:
    """Whether an object is a row of a known format, however its names are spelt."""
    return bool(_matching([record], respelt=False) or _matching([record], respelt=True))


def recognise(records: Iterable[Row], path: str) -> Recognised:
    """The format of records. Those that cannot be read are passed over.

    Raises:
        Unrecognised: they are of no known format, or of several.
    """
    looked_at = list(islice((row for row in records if isinstance(row, (dict, BadRow))), SAMPLE))
    rows = [record for record in looked_at if isinstance(record, dict)]
    if not rows:
        reason = str(looked_at[0]) if looked_at else "the file is empty"
        if reason == "not JSON":
            reason = f"{reason}; {AS_TEXT}"
        raise Unrecognised(
            f"{path} has no row that can be read, so that its format cannot be told: {reason}. Nothing was imported.", reason=reason
        )
    found = _matching(rows, respelt=False) or _matching(rows, respelt=True) or _half_judged(rows)
    of_most = {name: signs for name, signs in found.items() if len(signs) >= MOST_ROWS * len(rows)}
    if not found:
        raise _unrecognised(rows, path)
    if of_most:
        best = max(of_most, key=lambda name: max(map(len, of_most[name])))
    else:
        best = max(found, key=lambda name: (len(found[name]), max(map(len, found[name]))))
    if unclear := _unclear_numbers(FORMATS[best], rows):
        raise Unrecognised(f"{path}: {unclear}. Nothing was imported.", reason=unclear)
    signs = found[best]
    fields = ", ".join(field.split("=")[0] for field in max(set(signs), key=signs.count))
    return Recognised(best, f"by its fields {fields}, in {len(signs)} of {len(rows)} rows")


def _unclear_numbers(format: Format, rows: Sequence[Record]) -> str:
    """Why it is not clear which answers the numbers of the verdicts mean; empty if it is."""
    fields = format.fields
    if fields is None or not fields.counts_from_one:
        return ""
    verdict, answers = "", ""
    numbers: set[float] = set()
    for row in (_respelt(format, row) for row in rows):
        path = next((path for path in fields.winner if paths.has(row, path)), None)
        number = number_of(row.get(path)) if path else None
        if path and number is not None:
            numbers.add(number)
            verdict, answers = path, next((pair for pair in fields.completions if paths.has(row, pair)), "A+B")
    known = {float(word) for word in fields.outcomes if number_of(word) is not None}
    others = {number for number in numbers - known if not (1.5 in known and 1 < number < 2)}
    if not others and not (0 in numbers and max(numbers) <= 1):
        return ""
    shown = ", ".join(f"{number:g}" for number in sorted(numbers)[:SHOWN_NUMBERS])
    return (
        f"{verdict} has the numbers {shown}, which may mean either answer. Say which: --map prompt=FIELD,completions={answers},"
        f"winner={verdict},first=NUMBER,second=NUMBER,tie=NUMBER"
    )


AS_TEXT = "a text with a prompt in each line is read with --format lines, one with blank lines between the prompts with --format paragraphs"


def _matching(rows: Sequence[Record], *, respelt: bool) -> dict[str, list[Sign]]:
    """The formats whose signs more than half of the rows have, with the sign of each such row."""
    found: dict[str, list[Sign]] = {}
    for name, format in FORMATS.items():
        if format.read is None or not format.signs:
            continue
        spelling = Respelling(format.names, format.ignored) if respelt else None
        signs = [sign for row in rows if (sign := _spelt_sign(format, row, spelling))]
        if len(signs) > HALF * len(rows):
            found[name] = signs
    return found


def _half_judged(rows: Sequence[Record]) -> dict[str, list[Sign]]:
    """As `_matching`, of rows most of which nobody judged yet: some have a verdict, and the others are like them but for it."""
    found: dict[str, list[Sign]] = {}
    for name, format in FORMATS.items():
        if format.fields is None:
            continue
        spelt = [_respelt(format, row) for row in rows]
        for sign in {sign for row in spelt if (sign := sign_of(format, row))}:
            rest = tuple(field for field in sign if field.split("=")[0] not in format.fields.verdict_columns())
            like = sum(not missing(rest, row) for row in spelt)
            if len(rest) < len(sign) and like > max(HALF * len(rows), len(found.get(name, ()))):
                found[name] = [sign] * like
    return found


def _spelt_sign(format: Format, row: Record, spelling: Respelling | None) -> Sign | None:
    try:
        return sign_of(format, spelling.respelt(row) if spelling else row)
    except BadRow:
        return None


def sign_of(format: Format, row: Record) -> Sign | None:
    """The longest sign of a format that a row has."""
    if format.beside and format.beside(row):
        return None
    return max((sign for sign in format.signs if not missing(sign, row)), key=len, default=None)


def missing(sign: Sign, row: Record) -> list[str]:
    """The fields of a sign that a row does not have."""
    return [field for field in sign if not _has(field, row)]


def _has(field: str, row: Record) -> bool:
    name, _, kind = field.partition("=")
    if "*" in name:
        return any(fnmatchcase(other, name) for other in row)
    value = row.get(name)
    return value is not None and (not kind or KINDS[kind](value))


def _unrecognised(rows: Sequence[Record], path: str) -> Unrecognised:
    if twice := _twice(rows):
        return Unrecognised(f"{path}: {twice}. Nothing was imported.", reason=twice)
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = ", ".join(_name(name) for name in names[:SHOWN_FIELDS]) + (", …" if len(names) > SHOWN_FIELDS else "")
    union = {name: value for row in reversed(rows) for name, value in row.items()}
    near: list[tuple[float, str]] = []
    for name, format in FORMATS.items():
        if format.read is None:
            continue
        for sign in sorted(format.signs, key=len, reverse=True):
            spelt = _respelt(format, union)
            lacks = missing(sign, spelt)
            others = format.beside(spelt) if format.beside else ()
            if len(lacks) < len(sign):
                # The part of the format's fields that the rows have; other fields than its own count against it.
                part = (len(sign) - len(lacks)) / (len(sign) + 0.5 * len(others))
                reason = [f"lacks {', '.join(lacks)}"] if lacks else []
                reason += [f"knows nothing of {', '.join(map(_name, others[:5]))}"] if others else []
                near.append((part, f"{name} ({'; '.join(reason) or 'in too few rows'})"))
                break
    near.sort(key=lambda one: -one[0])
    likely = ", ".join(text for _, text in near[:SHOWN_FORMATS])
    return Unrecognised(
        f"{path}: cannot tell which format this is. Its fields: {shown}. "
        + (f"Nearest: {likely}. " if likely else "")
        + (ONE_COLUMN if len(names) == 1 and " " in names[0].strip() else "")
        + "Say --format NAME, or which field is what: --map prompt=FIELD,chosen=FIELD,rejected=FIELD, or --map prompt=FIELD for prompts "
        "alone. Nothing was imported.",
        fields=shown,
        likely=likely,
    )


def _respelt(format: Format, row: Record) -> Record:
    try:
        return Respelling(format.names, format.ignored).respelt(row)
    except BadRow:
        return row


ONE_COLUMN = "If its first line is a prompt and no heading, say --format lines. "


def _twice(rows: Sequence[Record]) -> str:
    """Why no format is recognised although it would be if each name stood there once; empty otherwise."""
    for format in FORMATS.values():
        spelling = Respelling(format.names, format.ignored)
        try:
            for row in rows:
                spelling.renames(row)
        except BadRow as error:
            return str(error)
    return ""


def _name(name: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name[:40])


# CSV holds lists and objects as JSON text.


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, str) and value.lstrip().startswith("["))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, str) and value.lstrip().startswith("{"))


def _are_objects(value: Any) -> bool:
    if isinstance(value, str):
        return value.lstrip().startswith("[") and value.lstrip()[1:].lstrip().startswith("{")
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(item, dict) for item in value)


def _are_texts(value: Any) -> bool:
    return _is_list(value) and not _are_objects(value)


def _is_dialogue(value: Any) -> bool:
    return isinstance(value, str) and "\n\nAssistant:" in value and ("\n\nHuman:" in value or value.lstrip().startswith("Human:"))


def _is_flag(value: Any) -> bool:
    return verdicts.word_of(value) in (*GOOD, *BAD)


def _is_tree(value: Any) -> bool:
    return isinstance(value, dict) and "replies" in value


KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "list": _is_list,
    "texts": _are_texts,
    "object": _is_object,
    "objects": _are_objects,
    "messages": _are_objects,
    "dialogue": _is_dialogue,
    "flag": _is_flag,
    "tree": _is_tree,
}
"""What a value of a field looks like."""
