"""Prompts without completions: each line is `{"prompt": "..."}` or `{"messages": [...]}`, with optional kind and split; `prompt` may
hold messages too, as TRL and verl write it.

Read are also the prompts of other files: the first of MT-bench's `turns`, Alpaca's `instruction` with its `input`, Vicuna's `text`,
`question`, and OpenRLHF's `context_messages`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.content import prompts
from storage.content.prompts import NewPrompt
from storage.core.database import Database, to_json
from storage.core.records import Message
from storage.exchange import atomic_files, files, paths, unread
from storage.exchange.export import Exported
from storage.exchange.field_maps import SYSTEM_COLUMNS
from storage.exchange.files import RowProgress
from storage.exchange.rows import BadRow, Found, Left, Record, conversation

PROMPTS = ("prompt", "messages", "turns", "instruction+input", "text", "question", "context_messages")
IGNORED_FIELDS = ("id", "question_id", "prompt_id")

COLUMNS = (*(name for path in PROMPTS for name in path.split("+")), "kind", "split", "category", *SYSTEM_COLUMNS)

_OWN = frozenset((*COLUMNS, *IGNORED_FIELDS))


def beside(record: Record) -> list[str]:
    """The fields that hold votes or another part of the prompt, judged by their names and values; a file of prompts has none."""
    return unread.votes(record, _OWN) + unread.parts(record, _OWN)


def read(record: Record) -> Iterator[Found]:
    """One prompt."""
    # An empty one is named as such, unless another field is the prompt.
    found = [path for path in PROMPTS if paths.has(record, path)] or [path for path in PROMPTS if path in record][:1]
    if len(found) != 1:
        raise BadRow("needs either prompt or messages" if len(found) < 1 else f"which is the prompt, {' or '.join(found)}?")
    messages = _messages(found[0], paths.joined(record, found[0]))
    if found[0] == "turns" and len(record["turns"]) > 1:
        yield Left("turns of the user after the first", len(record["turns"]) - 1)
    system = paths.first(SYSTEM_COLUMNS, record)
    if isinstance(system, str) and system.strip():
        messages = [{"role": "system", "content": system}, *messages]
    if reason := prompts.problem(messages):
        raise BadRow(reason)
    # A category of another kind than a word is left behind; rankloop writes `kind` itself.
    kind = record.get("kind") or (record["category"] if isinstance(paths.untracked(record).get("category"), str) else None) or "imported"
    if not isinstance(kind, str) or not kind.strip():
        raise BadRow("kind must be a word")
    turns = tuple(Message(role=message["role"], content=message["content"]) for message in messages)
    yield NewPrompt(turns, kind.strip(), record.get("split"))


def _messages(name: str, value: Any) -> list[Message]:
    if name in ("messages", "context_messages") or (isinstance(value, (list, dict)) and name == "prompt"):
        return conversation(value, what=name)
    if name == "turns":
        if not isinstance(value, (list, tuple)) or not isinstance(value[0], str):
            raise BadRow("turns must be a list of texts")
        return [{"role": "user", "content": value[0]}]
    if not isinstance(value, str):
        raise BadRow(f"{name} must be text; use messages for a conversation")
    return [{"role": "user", "content": value}]


def write(
    store: Database,
    path: Path | str,
    *,
    include_simulated: bool = False,
    names: bool = False,
    strict: bool = False,
    progress: RowProgress | None = None,
) -> Exported:
    """Writes every prompt in use, as messages, without judgments."""
    total = store.value(f"SELECT count(*) FROM prompts WHERE {prompts.IN_USE}") if progress else 0
    written = 0
    with atomic_files.atomic_write_text(path) as file, store.snapshot():
        for row in store.rows(f"SELECT messages, kind, split FROM prompts WHERE {prompts.IN_USE} ORDER BY id"):
            rest = to_json({"kind": row["kind"], "split": row["split"]})
            file.write(f'{{"messages":{row["messages"]},{rest[1:]}\n')
            written += 1
            if progress and written % files.PROGRESS_ROWS == 0:
                progress(written, total)
    return Exported(written)
