"""Prompts: each is stored once and belongs permanently to the training or the held-out split.

Which prompts are in use is decided here alone: those that are not retired, and the packaged starter prompts only while the
store has no other prompts, or as the project's setting says. Prompts in use get comparisons, are in the queue, and are used in
training and evaluation. `storage.exchange` reads prompts from files.
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

MESSAGE_ROLES = ("system", "user", "assistant")

_IMPORT_FINISHED = "coalesce(import_id, 0) NOT IN unfinished_imports"
"""SQL: the prompt is not of an import that is being written."""

OWN_IN_USE = f"retired = 0 AND starter = 0 AND {_IMPORT_FINISHED}"
"""SQL: the prompts in use that are not starter prompts."""

STARTERS_IN_USE = f"""(
    SELECT CASE (
        SELECT CASE WHEN json_valid("values") THEN json_extract("values", '$.starters') END
        FROM settings WHERE id = (SELECT max(id) FROM settings)
    ) WHEN 'on' THEN 1 WHEN 'off' THEN 0 ELSE NOT EXISTS (SELECT 1 FROM prompts WHERE {OWN_IN_USE}) END
)"""
"""SQL: whether the starter prompts are in use; a scalar that SQLite computes once per statement."""

IN_USE = f"retired = 0 AND {_IMPORT_FINISHED} AND (starter = 0 OR {STARTERS_IN_USE})"
"""SQL: the condition that a row of `prompts` is in use; the column names are not qualified."""

UNUSED_STARTERS = f"SELECT id FROM prompts WHERE starter = 1 AND NOT {STARTERS_IN_USE}"
"""SQL: the ids of starter prompts that are not in use, which are left out of training and evaluation."""


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
        if role not in MESSAGE_ROLES:
            return f"role must be one of {', '.join(MESSAGE_ROLES)}, not {role!r}"
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


def splits_of(store: Database, declared: Mapping[str, Split | None], *, import_id: int = 0) -> dict[str, Split]:
    """The splits of new prompts, by digest: as declared, otherwise by the digest. Call it before they are written.

    A store of a few prompts would often have no held-out one by the digest alone. So where all prompts in use, the new ones
    included, would be in one split, the new one with the smallest digest goes to the other; a single prompt is for training.
    Only prompts without a declared split are chosen, and none that is in the store already: nothing that was judged ever moves.

    Args:
        import_id: the import that is being written, whose earlier slices count.
    """
    splits = {key: split or split_of(key) for key, split in declared.items()}
    movable = sorted(key for key, split in declared.items() if split is None)
    both: tuple[tuple[Split, Split], ...] = (("train", "heldout"), ("heldout", "train"))
    for missing, other in both:
        if not movable or missing in splits.values() or _count_own(store, missing, import_id):
            continue
        moved = next((key for key in movable if splits[key] == other), None)
        remaining = sum(split == other for split in splits.values()) - 1 + _count_own(store, other, import_id)
        if moved is not None and (missing == "train" or remaining):
            splits[moved] = missing
    return splits


def _count_own(store: Database, split: Split, import_id: int) -> int:
    """How many prompts other than starters a split has, of those in use and of this import, counted up to 2."""
    theirs = f"retired = 0 AND starter = 0 AND ({_IMPORT_FINISHED} OR import_id = ?)"
    return int(store.value(f"SELECT count(*) FROM (SELECT 1 FROM prompts WHERE {theirs} AND split = ? LIMIT 2)", [import_id, split]))


def add(store: Database, prompts: Iterable[NewPrompt], *, source: str) -> int:
    """Adds the prompts that the store does not have, all or none, and returns their number.

    Retired ones come back, and starter prompts become the store's own.

    Raises:
        StoreError: one of them is not a valid prompt; none was added.
    """
    rows: dict[str, dict[str, Any]] = {}
    for prompt in prompts:
        row = _new_row(prompt, source)
        rows.setdefault(row["digest"], row)
    with store.atomic():
        known = {row["digest"]: row["id"] for row in stored(store, rows)}
        reactivate(store, known.values())
        return _insert(store, [row for key, row in rows.items() if key not in known])


def stored(store: Database, digests: Iterable[str]) -> list[sqlite3.Row]:
    """The id, digest, import and state of each of these prompts that the store has."""
    return store.rows(
        "SELECT id, digest, retired, starter, import_id FROM prompts WHERE digest IN (SELECT value FROM json_each(?))",
        [to_json([*digests])],
    ).fetchall()


def reactivate(store: Database, prompt_ids: Iterable[int]) -> None:
    """Puts retired prompts back in use, and makes starter prompts the store's own, that are imported again. Call it inside `atomic`."""
    store.connection.conn.executemany(
        "UPDATE prompts SET retired = 0, starter = 0 WHERE id = ? AND (retired = 1 OR starter = 1)",
        [(prompt_id,) for prompt_id in prompt_ids],
    )


def _insert(store: Database, rows: Sequence[dict[str, Any]], *, starter: bool = False) -> int:
    splits = splits_of(store, {row["digest"]: row["split"] for row in rows})
    store.connection.conn.executemany(
        "INSERT INTO prompts (messages, kind, split, source, digest, created_at, starter) "
        "VALUES (:messages, :kind, :split, :source, :digest, :created_at, :starter)",
        [row | {"split": splits[row["digest"]], "starter": int(starter)} for row in rows],
    )
    return len(rows)


def add_many(store: Database, new: Mapping[str, NewPrompt], *, source: str, created_at: str, import_id: int) -> dict[str, int]:
    """Adds prompts that the store does not have, by digest, and returns their ids by digest.

    The caller has checked them, and calls this inside `atomic`.
    """
    splits = splits_of(store, {key: prompt.split for key, prompt in new.items()}, import_id=import_id)
    rows = [(_messages(prompt), prompt.kind.strip(), splits[key], source, key, created_at, import_id) for key, prompt in new.items()]
    ids = store.insert_many("prompts", ("messages", "kind", "split", "source", "digest", "created_at", "import_id"), rows)
    return dict(zip(new, ids, strict=True))


def ensure_unused(store: Database, prompt: NewPrompt, *, source: str) -> Prompt:
    """The prompt with these messages; a new one is retired from the start, so that nothing uses it. One that is there stays as it is.

    Raises:
        StoreError: it is not a valid prompt.
    """
    row = _new_row(prompt, source)
    with store.atomic():
        known = stored(store, [row["digest"]])
        if known:
            return get(store, known[0]["id"])
        return get(store, store.insert("prompts", row | {"split": row["split"] or split_of(row["digest"]), "retired": 1}))


def add_version(store: Database, prompt_id: int, messages: Sequence[Message]) -> int:
    """Adds a prompt with these messages and all else of another one: kind, split, source, import, and whether it is a starter prompt.

    The caller has checked the messages, and calls this inside `atomic`.
    """
    row = store.row("SELECT kind, split, source, import_id, starter FROM prompts WHERE id = ?", [prompt_id])
    values = {"messages": to_json([*messages]), "digest": digest(messages), "created_at": now()}
    return store.insert("prompts", dict(row or {}) | values)


def load_starter(store: Database) -> int:
    """Adds the packaged starter prompts and returns how many were new; a second time, none."""
    lines = resources.files("storage.content").joinpath("starter_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    starters = [json.loads(line) for line in lines if line.strip()]
    rows = [
        _new_row(NewPrompt(({"role": "user", "content": starter["text"]},), starter["kind"], starter["split"]), "starter")
        for starter in starters
    ]
    with store.atomic():
        known = {row["digest"] for row in stored(store, [row["digest"] for row in rows])}
        return _insert(store, [row for row in rows if row["digest"] not in known], starter=True)


@dataclass(frozen=True, slots=True)
class Starters:
    """The packaged starter prompts of a store."""

    prompts: int
    in_use: bool
    """Whether they are in use now."""
    votes: int
    """Votes on them, of all annotators, which are left out of training and of statistics while the starter prompts are not in use."""


def starters(store: Database) -> Starters:
    with store.snapshot():
        votes = "SELECT count(*) FROM votes v JOIN comparisons c ON c.id = v.comparison_id JOIN prompts p ON p.id = c.prompt_id"
        return Starters(
            store.value("SELECT count(*) FROM prompts WHERE starter = 1 AND retired = 0"),
            bool(store.value(f"SELECT {STARTERS_IN_USE}")),
            store.value(f"{votes} WHERE p.starter = 1"),
        )


def unused_starter_votes(store: Database) -> int:
    """Number of votes that are left out of training because the starter prompts are not in use."""
    found = starters(store)
    return 0 if found.in_use else found.votes


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
    """The prompts in use of one split, or all of them, oldest first. What cannot be read is left out."""
    rows = store.rows(f"SELECT * FROM prompts WHERE {IN_USE} AND (?1 IS NULL OR split = ?1) ORDER BY id", [split])
    return list(json_columns.readable(rows, from_row))


def by_kind(store: Database) -> list[tuple[str, Split, int]]:
    """How many prompts in use there are of each kind in each split."""
    rows = store.rows(f"SELECT kind, split, count(*) FROM prompts WHERE {IN_USE} GROUP BY kind, split ORDER BY kind, split")
    return [tuple(row) for row in rows]


def from_row(row: sqlite3.Row) -> Prompt:
    return Prompt(row["id"], messages_of(row["id"], row["messages"]), row["kind"], row["split"])


def messages_of(prompt_id: int, encoded: str) -> tuple[Message, ...]:
    """The conversation of a row.

    Raises:
        Unreadable: it is none.
    """
    messages = json_columns.from_json(encoded, list, f"Prompt {prompt_id}")
    if not messages or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    ):
        raise json_columns.Unreadable(
            f"Prompt {prompt_id} cannot be read: it is not a conversation. Restore a backup, or leave the row out."
        )
    return tuple(messages)


def _new_row(prompt: NewPrompt, source: str) -> dict[str, Any]:
    if reason := problem(prompt.messages):
        raise StoreError(f"Not a prompt: {reason}. Correct it and add the prompts again; none was added.")
    if prompt.split not in (None, "train", "heldout"):
        raise StoreError(f"Unknown split {prompt.split!r}: use train or heldout. No prompt was added.")
    key = digest(prompt.messages)
    return {
        "messages": _messages(prompt),
        "kind": prompt.kind,
        "split": prompt.split,
        "source": source,
        "digest": key,
        "created_at": now(),
    }


def _messages(prompt: NewPrompt) -> str:
    """The conversation as stored: nothing but role and content of each turn."""
    return to_json([{"role": message["role"], "content": message["content"]} for message in prompt.messages])
