"""rankloop's own rows, one for each judgment, as JSON lines, CSV or Parquet.

Tiers, `choice` and `shown` are indexes into the row's completions. In CSV the fields that are lists hold JSON. Several
rows on the same prompt and completions are several judgments of one comparison, also where a row lists the completions
in another order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from storage.core.database import StoreError, to_json
from storage.core.records import Message, Tiers
from storage.exchange import atomic_files, export, sinks, strict_json, unread
from storage.exchange.files import Container
from storage.exchange.rows import BadRow, Item, NewComparison, Record, Vote, conversation, name_of, timestamp
from storage.exchange.sinks import Sink, WriteRow
from storage.exchange.things import THINGS

NUMBERS = ("active_ms", "idle_ms", "client_ms", "server_ms")
CONTAINER_OF_SUFFIX: dict[str, Container] = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}

PARQUET_ROWS = 256
"""Rows that are written at once."""

DERIVED = ("comparison", "partial")
"""Fields that are written and follow from the others."""

RANKING_COLUMNS = (
    "comparison", "messages", "completions", "models", "shown", "tiers", "all_bad", "partial", "strength", "rationale",
    "aspects", "ideal", "annotator", "annotator_kind", "annotator_rule", "created_at", *NUMBERS, "kind", "split",
)  # fmt: skip


KEEPS = tuple(THINGS)

COLUMNS = (*RANKING_COLUMNS, "prompt", "choice", "gold")


def beside(record: Record) -> list[str]:
    """The fields that may be a verdict, in a row that has none of this format."""
    return [] if "choice" in record or "tiers" in record else unread.verdicts(record, COLUMNS)


def read(record: Record) -> Iterator[Item]:
    """One comparison, with a vote, a known answer or neither."""
    completions = _list(record, "completions")
    if completions is None:
        raise BadRow("needs completions, a list of texts")
    models = _list(record, "models")
    tiers, all_bad = _ranking(record, len(completions))
    gold = _flag(record, "gold")
    if gold and tiers is None:
        raise BadRow("a gold row needs the known answer, as tiers or as choice")
    vote = None if tiers is None or gold else _vote(record, tiers, all_bad)
    yield NewComparison(
        _messages(record),
        tuple(completions),
        tuple(map(name_of, models)) if models is not None else (None,) * len(completions),
        () if vote is None else (vote,),
        tiers if gold else None,
        record.get("kind") or "imported",
        record.get("split"),
    )


def _messages(record: Record) -> list[Message]:
    if (record.get("prompt") is None) == (record.get("messages") is None):
        raise BadRow("needs either prompt or messages")
    if record.get("messages") is not None:
        return conversation(_list(record, "messages"))
    if not isinstance(record["prompt"], str):
        raise BadRow("prompt must be text; use messages for a conversation")
    return [{"role": "user", "content": record["prompt"]}]


def _ranking(record: Record, number: int) -> tuple[Tiers | None, bool]:
    """The tiers, None if the row has no judgment; and whether all completions are bad."""
    all_bad = _flag(record, "all_bad")
    tiers = _list(record, "tiers")
    choice = record.get("choice")
    if tiers is not None and choice is not None:
        raise BadRow("give tiers or choice, not both")
    if tiers is not None:
        if not all(isinstance(tier, (list, tuple)) for tier in tiers):
            raise BadRow("tiers must be lists of indexes, best first")
        return tuple(tuple(tier) for tier in tiers) or None, all_bad
    if choice is None:
        return None, False
    everything = tuple(range(number))
    if choice in ("tie", "both_bad"):
        return (everything,), all_bad or choice == "both_bad"
    chosen = int(choice) if isinstance(choice, str) and choice.isdecimal() else choice
    if type(chosen) is not int or chosen not in everything:
        raise BadRow(f"choice must be an index from 0 to {number - 1}, tie or both_bad, not {choice!r}")
    return ((chosen,), tuple(index for index in everything if index != chosen)), all_bad


def _vote(record: Record, tiers: Tiers, all_bad: bool) -> Vote:
    shown = _list(record, "shown")
    simulated = record.get("annotator_kind") == "simulated"
    return Vote(
        tiers,
        name_of(record.get("annotator")),
        (name_of(record.get("annotator_rule")) or "unknown") if simulated else None,
        all_bad,
        timestamp(record.get("created_at")),
        record.get("strength"),
        record.get("rationale") or "",
        _aspects(record),
        None if shown is None else tuple(shown),
        ideal=record.get("ideal"),
        active_ms=_whole(record, "active_ms"),
        idle_ms=_whole(record, "idle_ms"),
        client_ms=_whole(record, "client_ms"),
        server_ms=_whole(record, "server_ms"),
    )


def _aspects(record: Record) -> tuple[tuple[int, str, int], ...]:
    aspects = _list(record, "aspects")
    if aspects is None:
        return ()
    if not all(isinstance(ratings, dict) or ratings is None for ratings in aspects):
        raise BadRow("aspects must be a list with an object of ratings for each completion")
    # In a Parquet column every object has all keys, with null for the missing ones.
    return tuple(
        (index, aspect, ratings[aspect]) for index, ratings in enumerate(aspects) for aspect in ratings or () if ratings[aspect] is not None
    )


def _list(record: Record, field: str) -> list[Any] | None:
    value = record.get(field)
    if isinstance(value, str):
        try:
            value = strict_json.decode(value)
        except (ValueError, RecursionError):
            raise BadRow(f"{field} must be a list, in CSV as JSON") from None
        if isinstance(value, BadRow):
            raise value
    if value is not None and not isinstance(value, (list, tuple)):
        raise BadRow(f"{field} must be a list")
    return value if value is None else list(value)


def _flag(record: Record, field: str) -> bool:
    value = record.get(field)
    if value in (None, False, 0, "false", "False", "0"):
        return False
    if value in (True, 1, "true", "True", "1"):
        return True
    raise BadRow(f"{field} must be true or false, not {value!r}")


def _whole(record: Record, field: str) -> int | None:
    value = record.get(field)
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def container_of(path: Path | str) -> Container:
    """The container by the file's ending, with or without .gz.

    Raises:
        StoreError: the ending is unknown.
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes if suffix.lower() != ".gz"]
    if not suffixes or suffixes[-1] not in CONTAINER_OF_SUFFIX:
        raise StoreError(f"{path}: end the name in .jsonl, .csv or .parquet, or say --format jsonl, csv or parquet.")
    return CONTAINER_OF_SUFFIX[suffixes[-1]]


def rows(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> Iterator[Record]:
    """Every vote as a row."""
    for vote in votes:
        yield _row(comparison, vote)


def _row(comparison: export.ExportedComparison, vote: export.ExportedVote) -> dict[str, Any]:
    index_of = {item.id: index for index, item in enumerate(comparison.completions)}
    ratings: list[dict[str, int]] = [{} for _ in comparison.completions]
    for completion_id, aspect, rating in vote.aspects:
        ratings[index_of[completion_id]][aspect] = rating
    row = {
        "comparison": comparison.id,
        "messages": json.loads(comparison.messages),
        "completions": [item.text for item in comparison.completions],
        "models": [item.model for item in comparison.completions],
        "shown": [index_of[completion_id] for completion_id in vote.slots] if vote.sides_known else None,
        "tiers": [[index_of[completion_id] for completion_id in tier] for tier in vote.tiers],
        "all_bad": vote.all_bad,
        "partial": vote.partial,
        "strength": vote.strength,
        "rationale": vote.rationale or None,
        "aspects": ratings if vote.aspects else None,
        "ideal": vote.ideal,
        "annotator": vote.annotator,
        "annotator_kind": vote.annotator_kind,
        "annotator_rule": vote.rule,
        "created_at": vote.created_at,
        "active_ms": vote.active_ms,
        "idle_ms": vote.idle_ms,
        "client_ms": vote.client_ms,
        "server_ms": vote.server_ms,
        "kind": comparison.kind,
        "split": comparison.split,
    }
    return row


@contextmanager
def _jsonl(path: Path | str) -> Iterator[WriteRow]:
    with sinks.lines(path) as write_row:
        yield lambda row: write_row({name: value for name, value in row.items() if value is not None})


@contextmanager
def _parquet(path: Path | str) -> Iterator[WriteRow]:
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(pa)
    rows: list[dict[str, Any]] = []
    with atomic_files.atomic_write(path) as unfinished:
        with parquet.ParquetWriter(unfinished, schema) as writer:

            def flush() -> None:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()

            def write_row(row: dict[str, Any]) -> None:
                # The project names its aspects, so they cannot be columns of a fixed schema: they are JSON text.
                rows.append(row | {"aspects": row["aspects"] and to_json(row["aspects"])})
                if len(rows) == PARQUET_ROWS:
                    flush()

            yield write_row
            flush()


def _schema(pa: Any) -> Any:
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {
        "comparison": pa.int64(),
        "messages": pa.list_(message),
        "completions": pa.list_(pa.string()),
        "models": pa.list_(pa.string()),
        "shown": pa.list_(pa.int64()),
        "tiers": pa.list_(pa.list_(pa.int64())),
        "all_bad": pa.bool_(),
        "partial": pa.bool_(),
    } | dict.fromkeys(NUMBERS, pa.int64())
    return pa.schema([(name, kinds.get(name, pa.string())) for name in RANKING_COLUMNS])


WRITERS: dict[Container, Sink] = {"json": _jsonl, "csv": partial(sinks.csv_table, columns=RANKING_COLUMNS), "parquet": _parquet}

RAW = export.Writer(rows, KEEPS, sink=partial(sinks.csv_table, columns=RANKING_COLUMNS, raw=True))
"""CSV whose cells are as they are, also where a spreadsheet would take one for a formula."""

write_jsonl, write_csv, write_parquet = (export.Writer(rows, KEEPS, sink=WRITERS[container]) for container in ("json", "csv", "parquet"))
write = export.Writer(rows, KEEPS, sink=lambda path: WRITERS[container_of(path)](path))
