"""Prompts without completions: each line is `{"prompt": "..."}` or `{"messages": [...]}`, with optional kind and split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from storage.content import prompts
from storage.content.prompts import NewPrompt
from storage.core.database import Database, to_json
from storage.core.records import Message
from storage.exchange import files
from storage.exchange.files import Progress
from storage.exchange.rows import BadRow, Record


def read(record: Record) -> Iterator[NewPrompt]:
    """One prompt."""
    if ("prompt" in record) == ("messages" in record):
        raise BadRow("needs either prompt or messages")
    if "prompt" in record and not isinstance(record["prompt"], str):
        raise BadRow("prompt must be text; use messages for a conversation")
    messages = record["messages"] if "messages" in record else [{"role": "user", "content": record["prompt"]}]
    if reason := prompts.problem(messages):
        raise BadRow(reason)
    kind = record.get("kind", "imported")
    if not isinstance(kind, str) or not kind.strip():
        raise BadRow("kind must be a word")
    turns = tuple(Message(role=message["role"], content=message["content"]) for message in messages)
    yield NewPrompt(turns, kind.strip(), record.get("split"))


def write(
    store: Database, path: Path | str, *, include_simulated: bool = False, names: bool = False, progress: Progress | None = None
) -> int:
    """Writes every prompt in use, as messages, without judgments; returns how many."""
    total = store.value(f"SELECT count(*) FROM prompts WHERE {prompts.IN_USE}") if progress else 0
    written = 0
    with files.atomic_write_text(path) as file, store.snapshot():
        for row in store.rows(f"SELECT messages, kind, split FROM prompts WHERE {prompts.IN_USE} ORDER BY id"):
            rest = to_json({"kind": row["kind"], "split": row["split"]})
            file.write(f'{{"messages":{row["messages"]},{rest[1:]}\n')
            written += 1
            if progress and written % files.PROGRESS_ROWS == 0:
                progress(written, total)
    return written
