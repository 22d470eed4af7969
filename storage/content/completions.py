"""Completions: the texts that policy versions generated, and the sampling parameters of each."""

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
        sampling: the parameters that were used. Parameters that a mapping lacks are unknown.
        latency_s: in seconds.
        reported: what the outside server that generated it reports, such as its model and numbers of tokens.

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

    Their sampling parameters are unknown. The caller has checked the texts, and calls this inside `atomic`.
    """
    columns = ("prompt_id", "policy_version_id", "text", "sampling", "finish_reason", "latency_s", "created_at", "import_id")
    return store.insert_many("completions", columns, [(*answer, "{}", "imported", 0.0, created_at, import_id) for answer in answers])


def as_shown(text: str) -> str:
    """A completion's text as annotators see it, without whitespace that could reveal how it was generated.

    Trailing whitespace, leading empty lines and up to three leading blanks are removed, and line ends become `\\n`. Four leading
    blanks stay: in Markdown they begin a block of code.
    """
    unindented = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().lstrip("\n")
    stripped = unindented.lstrip(" ")
    return stripped if len(unindented) - len(stripped) < 4 else unindented


def of_comparisons(store: Database, comparison_ids: Iterable[int]) -> dict[int, list[Completion]]:
    """The completions of each comparison, in the order of their positions, in one query."""
    by_comparison = defaultdict(list)
    for row in store.rows(
        "SELECT link.comparison_id, c.* "
        "FROM comparison_completions link JOIN completions c ON c.id = link.completion_id "
        "WHERE link.comparison_id IN (SELECT value FROM json_each(?)) ORDER BY link.comparison_id, link.position",
        [to_json(sorted(set(comparison_ids)))],
    ):
        by_comparison[row["comparison_id"]].append(_from_row(row))
    return dict(by_comparison)


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
    """The sampling parameters; empty if they cannot be read, because only the text is judged."""
    try:
        return json_columns.sampling_parameters(row["sampling"], f"The sampling of completion {row['id']}")
    except json_columns.Unreadable as error:
        json_columns.log.warning("%s", error)
        return {}
