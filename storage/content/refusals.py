"""Refusals: prompts that a model cannot or will not answer. The model is not asked again until a lead clears the refusal."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from storage.content import prompts
from storage.core.database import Database, now, to_json
from storage.core.records import PolicyVersion

MAX_REFUSAL_CHARS = 500
"""Characters of a reason that are stored: the reason may be a server's error message of any length."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One prompt that one model refused."""

    prompt_id: int
    base_model: str
    """The model that refused: a base model, whose refusal holds for its tuned versions too, or the name of an external model."""
    reason: str
    created_at: str


def add(store: Database, prompt_id: int, version: PolicyVersion, reason: str) -> None:
    """Records that the version's model refused a prompt. A new reason replaces an earlier one."""
    with store.atomic() as connection:
        connection.conn.execute(
            "INSERT INTO prompt_refusals (prompt_id, base_model, reason, created_at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (prompt_id, base_model) DO UPDATE SET reason = excluded.reason, created_at = excluded.created_at",
            [prompt_id, version.base_model, reason[:MAX_REFUSAL_CHARS], now()],
        )


def by_model(store: Database) -> dict[str, set[int]]:
    """Ids of the refused prompts by model."""
    prompt_ids: dict[str, set[int]] = {}
    for base_model, prompt_id in store.rows("SELECT base_model, prompt_id FROM prompt_refusals"):
        prompt_ids.setdefault(base_model, set()).add(prompt_id)
    return prompt_ids


def all_refusals(store: Database) -> list[Refusal]:
    """Every refusal of a prompt in use, newest first."""
    rows = store.rows(
        "SELECT prompt_id, base_model, reason, created_at FROM prompt_refusals "
        f"WHERE prompt_id IN (SELECT id FROM prompts WHERE {prompts.IN_USE}) ORDER BY created_at DESC, prompt_id DESC"
    )
    return [Refusal(*row) for row in rows]


def clear(store: Database, prompt_ids: Collection[int] | None = None) -> int:
    """Deletes the refusals of these prompts, or all, so that models are asked again. Returns the number deleted."""
    with store.atomic() as connection:
        return int(
            connection.conn.execute(
                "DELETE FROM prompt_refusals WHERE ?1 IS NULL OR prompt_id IN (SELECT value FROM json_each(?1))",
                [None if prompt_ids is None else to_json(sorted(prompt_ids))],
            ).rowcount
        )
