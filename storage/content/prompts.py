"""Prompts: each is stored once and belongs permanently to the training or the held-out split.

`storage.exchange` reads prompts from files.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from storage.core import json_columns
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import Message, Prompt, Split

HELDOUT_ONE_IN = 6
"""One prompt in this many is held out if its split is not specified."""

ROLES = ("system", "user", "assistant")

IN_USE = "retired = 0 AND coalesce(import_id, 0) NOT IN unfinished_imports"
"""The condition of a prompt that is neither retired nor of an import that is being written."""


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """A prompt without an id. If it has no split, the digest of its text determines one."""

    messages: Sequence[Message]
    kind: str = "imported"
    split: Split | None = None


def problem(messages: Any) -> str | None:
    """The reason why these messages are not a valid prompt; None if they are."""
    if not isinstance(messages, (list, tuple)) or not messages:
        return "messages must be a list with at least one message"
    for turn, message in enumerate(messages):
        if not isinstance(message, dict):
            return "each message must be an object with role and content"
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            return f"role must be one of {', '.join(ROLES)}, not {role!r}"
        if role == "system" and turn > 0:
            return "a system message may only come first"
        if not isinstance(content, str):
            return "content must be text"
        if not content.strip():
            return "a message is empty"
        if not is_storable(content):
            return "the text has half a surrogate pair, which UTF-8 cannot hold"
    if messages[-1]["role"] != "user":
        return "the last message must be the user's"
    return None


def is_storable(text: str) -> bool:
    """Whether the text can be written as UTF-8: JSON may spell half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def digest(messages: Sequence[Message]) -> str:
    """SHA-256, in hex, of the roles and contents: the same conversation has the same digest anywhere."""
    turns = [[message["role"], message["content"]] for message in messages]
    return hashlib.sha256(to_json(turns).encode()).hexdigest()


def split_of(prompt_digest: str) -> Split:
    """The split that a digest falls in. Never changes for a prompt, whatever else the store holds."""
    return "heldout" if int(prompt_digest[:8], 16) % HELDOUT_ONE_IN == 0 else "train"


def add(store: Database, prompts: Iterable[NewPrompt], *, source: str) -> int:
    """Adds the prompts that are not there yet, all or none, and returns how many that were. Retired ones come back.

    Raises:
        StoreError: one of them is no prompt; none was added.
    """
    rows = [_new_row(prompt, source) for prompt in prompts]
    with store.atomic() as connection:
        connection.conn.executemany("UPDATE prompts SET retired = 0 WHERE digest = :digest AND retired = 1", rows)
        return sum(
            connection.conn.execute(
                "INSERT INTO prompts (messages, kind, split, source, digest, created_at) "
                "VALUES (:messages, :kind, :split, :source, :digest, :created_at) ON CONFLICT (digest) DO NOTHING",
                row,
            ).rowcount
            for row in rows
        )


def add_many(store: Database, new: Mapping[str, NewPrompt], *, source: str, created_at: str, import_id: int) -> dict[str, int]:
    """Adds prompts that the store does not have, by digest, and returns their ids by digest.

    The caller has checked them, and calls this inside `atomic`.
    """
    rows = [
        (_messages(prompt), prompt.kind.strip(), prompt.split or split_of(key), source, key, created_at, import_id)
        for key, prompt in new.items()
    ]
    ids = store.insert_many("prompts", ("messages", "kind", "split", "source", "digest", "created_at", "import_id"), rows)
    return dict(zip(new, ids, strict=True))


def restore(store: Database, prompt_ids: Iterable[int]) -> None:
    """Makes retired prompts active again. Call it inside `atomic`."""
    store.connection.conn.executemany("UPDATE prompts SET retired = 0 WHERE id = ?", [(prompt_id,) for prompt_id in prompt_ids])


def load_starter(store: Database) -> int:
    """Adds the packaged starter prompts and returns how many were new; a second time, none."""
    lines = resources.files("storage.content").joinpath("starter_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    starters = [json.loads(line) for line in lines if line.strip()]
    return add(
        store,
        [NewPrompt(({"role": "user", "content": starter["text"]},), starter["kind"], starter["split"]) for starter in starters],
        source="starter",
    )


def get(store: Database, prompt_id: int) -> Prompt:
    """One prompt.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row("SELECT * FROM prompts WHERE id = ?", [prompt_id])
    if row is None:
        raise StoreError(f"There is no prompt {prompt_id}: reload the page, or check the data folder.")
    return from_row(row)


def many(store: Database, prompt_ids: Iterable[int]) -> dict[int, Prompt]:
    """Prompts by id, in one query. Ids that are not there, or cannot be read, are left out."""
    ids = to_json(sorted(set(prompt_ids)))
    rows = store.rows("SELECT * FROM prompts WHERE id IN (SELECT value FROM json_each(?))", [ids])
    return {prompt.id: prompt for prompt in json_columns.readable(rows, from_row)}


def of_split(store: Database, split: Split | None = None) -> list[Prompt]:
    """The prompts of one split, or all of them, oldest first. Retired ones, and what cannot be read, are left out."""
    rows = store.rows(f"SELECT * FROM prompts WHERE {IN_USE} AND (?1 IS NULL OR split = ?1) ORDER BY id", [split])
    return list(json_columns.readable(rows, from_row))


def by_kind(store: Database) -> list[tuple[str, Split, int]]:
    """How many prompts there are of each kind in each split, retired ones left out."""
    rows = store.rows(f"SELECT kind, split, count(*) FROM prompts WHERE {IN_USE} GROUP BY kind, split ORDER BY kind, split")
    return [tuple(row) for row in rows]


def from_row(row: sqlite3.Row) -> Prompt:
    return Prompt(row["id"], messages_of(row["id"], row["messages"]), row["kind"], row["split"])


def messages_of(prompt_id: int, said: str) -> tuple[Message, ...]:
    """The conversation of a row.

    Raises:
        Unreadable: it is none.
    """
    messages = json_columns.from_json(said, list, f"Prompt {prompt_id}")
    if not messages or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    ):
        raise json_columns.Unreadable(f"Prompt {prompt_id} cannot be read: it is no conversation. Restore a backup, or leave the row out.")
    return tuple(messages)


def _new_row(prompt: NewPrompt, source: str) -> dict[str, str]:
    if reason := problem(prompt.messages):
        raise StoreError(f"Not a prompt: {reason}. Correct it and add the prompts again; none was added.")
    if prompt.split not in (None, "train", "heldout"):
        raise StoreError(f"Unknown split {prompt.split!r}: use train or heldout. No prompt was added.")
    key = digest(prompt.messages)
    return {
        "messages": _messages(prompt),
        "kind": prompt.kind,
        "split": prompt.split or split_of(key),
        "source": source,
        "digest": key,
        "created_at": now(),
    }


def _messages(prompt: NewPrompt) -> str:
    """The conversation as stored: nothing but role and content of each turn."""
    return to_json([{"role": message["role"], "content": message["content"]} for message in prompt.messages])
