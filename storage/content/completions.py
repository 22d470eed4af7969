"""Completions: what a policy version answered, and how it was drawn."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from storage.core import json_columns
from storage.core.database import Database, now, to_json
from storage.core.records import Completion, Sampling


def add(
    store: Database,
    *,
    prompt_id: int,
    policy_version_id: int,
    text: str,
    sampling: Sampling | Mapping[str, float],
    seed: int | None,
    finish_reason: str,
    latency_s: float,
    reported: Mapping[str, Any] | None = None,
) -> int:
    """Stores one completion and returns its id.

    Args:
        sampling: the parameters that were used. Of a mapping, those that are missing are unknown.
        latency_s: in seconds.
        reported: what the outside server that wrote it says that it used, such as its model and numbers of tokens.

    Raises:
        StoreError: there is no such prompt or policy version.
    """
    return store.insert(
        "completions",
        {
            "prompt_id": prompt_id,
            "policy_version_id": policy_version_id,
            "text": text,
            "sampling": asdict(sampling) if isinstance(sampling, Sampling) else dict(sampling),
            "seed": seed,
            "finish_reason": finish_reason,
            "latency_s": latency_s,
            "created_at": now(),
            "reported": None if reported is None else dict(reported),
        },
    )


def add_imported(store: Database, answers: Sequence[tuple[int, int, str]], *, created_at: str, import_id: int) -> range:
    """Adds completions from a file, each as (prompt id, policy version id, text), and returns their ids.

    Nobody recorded how they were sampled. The caller has checked them, and calls this inside `atomic`.
    """
    columns = ("prompt_id", "policy_version_id", "text", "sampling", "finish_reason", "latency_s", "created_at", "import_id")
    return store.insert_many("completions", columns, [(*answer, "{}", "imported", 0.0, created_at, import_id) for answer in answers])


def as_shown(text: str) -> str:
    """A completion's text as annotators get it: what differs from one way of generating to another is taken away.

    That is the blanks behind it, the empty lines and up to three blanks before it, and how its lines end. Four blanks stay:
    in Markdown they begin a block of code.
    """
    begun = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().lstrip("\n")
    bare = begun.lstrip(" ")
    return bare if len(begun) - len(bare) < 4 else begun


def of_comparisons(store: Database, comparison_ids: Iterable[int]) -> dict[int, list[Completion]]:
    """The completions of each comparison, in the order in which it was made, in one query."""
    found = defaultdict(list)
    for row in store.rows(
        "SELECT link.comparison_id, c.* "
        "FROM comparison_completions link JOIN completions c ON c.id = link.completion_id "
        "WHERE link.comparison_id IN (SELECT value FROM json_each(?)) ORDER BY link.comparison_id, link.position",
        [to_json(sorted(set(comparison_ids)))],
    ):
        found[row["comparison_id"]].append(_from_row(row))
    return dict(found)


def _from_row(row: sqlite3.Row) -> Completion:
    return Completion(
        row["id"],
        row["prompt_id"],
        row["policy_version_id"],
        row["text"],
        _sampling(row),
        row["seed"],
        row["finish_reason"],
        row["latency_s"],
    )


def _sampling(row: sqlite3.Row) -> Mapping[str, float]:
    """The sampling parameters; none if they cannot be read, since only the text is judged."""
    try:
        return json_columns.sampling_parameters(row["sampling"], f"The sampling of completion {row['id']}")
    except json_columns.Unreadable as error:
        json_columns.log.warning("%s", error)
        return {}
