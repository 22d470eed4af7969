"""Comparisons: two or more completions of one prompt for annotators to judge.

`storage.judging.queue` chooses who sees which comparison; `storage.judging.judgments` stores the judgments.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from storage.content import completions, prompts
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import Comparison, Split
from storage.project import settings

MIN_COMPLETIONS, MAX_COMPLETIONS = 2, 9
"""Completions that one comparison may hold; nine still have a digit key each."""


def digest_of(prompt_digest: str, answers: Iterable[tuple[str, str]]) -> str:
    """SHA-256, in hex, of the prompt and of its completions as (policy name, text), independent of their order."""
    return hashlib.sha256(to_json([prompt_digest, sorted(answers)]).encode()).hexdigest()


def random_write_order(count: int, rng: random.Random) -> list[int]:
    """A random order in which the completions of a comparison get their ids, so that ids do not reveal the policies.

    Every writer of comparisons uses it: policies generate in a fixed order, and so do the rows of a file.
    """
    order = list(range(count))
    rng.shuffle(order)
    return order


DECIDE = "decide"
"""The `purpose` of a comparison that helps to decide about a new policy version."""

DEMO = "demo"
"""The `purpose` of a comparison of the Demo page: `storage.judging.demo_votes` writes it together with its vote. Such votes are left out
of training and of statistics, unless someone asks for them."""

NOT_DEMO = f"(SELECT its.purpose FROM comparisons its WHERE its.id = {{}}) != '{DEMO}'"
"""SQL: whether a comparison is none of the Demo page; `{}` stands for the column with its id."""

PROMPT_IN_USE = f"EXISTS (SELECT 1 FROM prompts WHERE prompts.id = {{}} AND {prompts.IN_USE})"
"""SQL: whether a comparison's prompt is in use; `{}` stands for the column with the prompt's id."""


def add(
    store: Database,
    prompt_id: int,
    completion_ids: Sequence[int],
    *,
    purpose: str,
    priority: int = 0,
    wanted: int | None = None,
    batch_id: int | None = None,
    import_id: int | None = None,
    retired: bool = False,
    round_id: int | None = None,
) -> int:
    """Creates a comparison and returns its id. It needs `wanted` judgments; None takes the number from the settings.

    Args:
        retired: it never enters the queue, and no simulated annotator judges it.
        round_id: the round that it helps to decide, if any.

    Raises:
        StoreError: not 2 to 9 different completions of this prompt.
    """
    ids = list(completion_ids)
    if not MIN_COMPLETIONS <= len(ids) <= MAX_COMPLETIONS or len(set(ids)) != len(ids):
        raise StoreError(f"A comparison needs {MIN_COMPLETIONS} to {MAX_COMPLETIONS} different completions, not {ids}.")
    with store.atomic():
        answers = store.rows(
            "SELECT v.name, c.text FROM completions c JOIN policy_versions v ON v.id = c.policy_version_id "
            "WHERE c.prompt_id = ? AND c.id IN (SELECT value FROM json_each(?))",
            [prompt_id, to_json(ids)],
        ).fetchall()
        if len(answers) != len(ids):
            raise StoreError(f"Only {len(answers)} of the completions {ids} answer prompt {prompt_id}: compare its own.")
        prompt_digest = store.value("SELECT digest FROM prompts WHERE id = ?", [prompt_id])
        comparison_id = store.insert(
            "comparisons",
            {
                "prompt_id": prompt_id,
                "purpose": purpose,
                "priority": priority,
                "wanted": settings.current(store).overlap if wanted is None else wanted,
                "batch_id": batch_id,
                "import_id": import_id,
                "retired": int(retired),
                "round_id": round_id,
                "digest": digest_of(prompt_digest, [(row["name"], row["text"]) for row in answers]),
                "created_at": now(),
            },
        )
        _link(store, {comparison_id: ids})
    return comparison_id


@dataclass(frozen=True, slots=True)
class ImportedComparison:
    """A comparison from a file. Its prompt and completions are in the store already."""

    prompt_id: int
    completion_ids: Sequence[int]
    """In the order of the file."""
    digest: str
    wanted: int
    """Number of judgments that it needs once the import is finished."""


def add_imported(store: Database, new: Sequence[ImportedComparison], *, created_at: str, import_id: int) -> range:
    """Adds comparisons from a file and returns their ids. They enter the queue with `queue.add_imported`.

    The caller has checked them, and calls this inside `atomic`.
    """
    columns = ("prompt_id", "purpose", "created_at", "import_id", "wanted", "digest")
    rows = [(item.prompt_id, "imported", created_at, import_id, item.wanted, item.digest) for item in new]
    ids = store.insert_many("comparisons", columns, rows)
    _link(store, dict(zip(ids, (item.completion_ids for item in new), strict=True)))
    return ids


def add_votes(store: Database, votes: Mapping[int, int]) -> None:
    """Adds to the human votes of comparisons of an unfinished import, by id; they then want as many votes as they have."""
    store.connection.conn.executemany(
        "UPDATE comparisons SET human_ranks = human_ranks + ?1, wanted = CASE WHEN import_id IN unfinished_imports "
        "AND human_ranks + ?1 > 0 THEN human_ranks + ?1 ELSE wanted END WHERE id = ?2",
        [(number, comparison_id) for comparison_id, number in votes.items() if number],
    )


def recount_votes(store: Database, comparison_ids: Sequence[int]) -> None:
    """Counts the human votes of comparisons anew. Call it inside `atomic`."""
    store.connection.conn.execute(
        "UPDATE comparisons SET human_ranks = (SELECT count(*) FROM judgments j JOIN annotators a ON a.id = j.annotator_id "
        "WHERE j.comparison_id = comparisons.id AND j.counts = 1 AND a.kind = 'human') WHERE id IN (SELECT value FROM json_each(?))",
        [to_json(comparison_ids)],
    )


def _link(store: Database, completion_ids: Mapping[int, Sequence[int]]) -> None:
    links = [(one, position, item) for one, items in completion_ids.items() for position, item in enumerate(items)]
    store.insert_rows("comparison_completions", ("comparison_id", "position", "completion_id"), links)


def get(store: Database, comparison_id: int) -> Comparison:
    """One comparison with its prompt and completions.

    Raises:
        StoreError: there is none with this id.
    """
    found = many(store, [comparison_id])
    if not found:
        raise StoreError(f"There is no comparison {comparison_id} in {store.path}: reload the page.")
    return found[0]


def many(store: Database, comparison_ids: Collection[int]) -> list[Comparison]:
    """Comparisons by id, oldest first, in three queries for any number. Those with an unreadable prompt are left out."""
    rows = store.rows(
        "SELECT * FROM comparisons WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        [to_json(list(comparison_ids))],
    ).fetchall()
    prompt_of = prompts.many(store, [row["prompt_id"] for row in rows])
    completions_of = completions.of_comparisons(store, comparison_ids)
    return [
        Comparison(row["id"], prompt_of[row["prompt_id"]], tuple(completions_of[row["id"]]), row["purpose"])
        for row in rows
        if row["prompt_id"] in prompt_of
    ]


def without_simulated_judgment(store: Database, limit: int, *, round_id: int | None = None, deciding: bool = False) -> list[Comparison]:
    """The oldest comparisons of prompts in use, at most `limit`, without an active judgment by a simulated annotator.

    Args:
        round_id: only those that help to decide this round; None takes those that decide no round.
        deciding: without a round, those that help to decide one too.
    """
    rows = store.rows(
        "SELECT c.id FROM comparisons c WHERE c.retired = 0 AND coalesce(c.import_id, 0) NOT IN unfinished_imports "
        f"AND {PROMPT_IN_USE.format('c.prompt_id')} AND (c.round_id = :round OR :round IS NULL AND (c.round_id IS NULL OR :deciding)) "
        "AND NOT EXISTS (SELECT 1 FROM active_judgments s "
        "WHERE s.comparison_id = c.id AND s.annotator_kind = 'simulated') ORDER BY c.id LIMIT :limit",
        {"limit": limit, "round": round_id, "deciding": deciding},
    )
    return many(store, [row["id"] for row in rows])


def ordinary_by_split(store: Database) -> dict[Split, int]:
    """Number of comparisons that were written here on prompts of each split, without the Demo page's and those that decide rounds."""
    rows = store.rows(
        "SELECT p.split, count(*) FROM comparisons c JOIN prompts p ON p.id = c.prompt_id "
        f"WHERE c.import_id IS NULL AND c.purpose NOT IN ('{DEMO}', '{DECIDE}') GROUP BY p.split"
    )
    found: dict[Split, int] = {"train": 0, "heldout": 0}
    return found | {row[0]: row[1] for row in rows}


def prompt_usage(store: Database) -> dict[int, int]:
    """Number of comparisons of each prompt in use, by prompt id, without those of the Demo page. Prompts without comparisons have 0."""
    rows = store.rows(
        f"SELECT p.id, count(c.id) FROM (SELECT id FROM prompts WHERE {prompts.IN_USE}) p "
        "LEFT JOIN comparisons c ON c.prompt_id = p.id AND coalesce(c.import_id, 0) NOT IN unfinished_imports "
        f"AND c.purpose != '{DEMO}' GROUP BY p.id"
    )
    return {row[0]: row[1] for row in rows}
