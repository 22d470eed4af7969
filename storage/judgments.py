"""Judgments: what annotators said. Rows are only ever added; an undo is a row that supersedes another.

Turning them into weighted training pairs is `rlhf.pairs`' work.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from storage import annotators, comparisons, completions, presentations, prompts
from storage.database import Database, StoreError, now, to_json
from storage.records import Annotator, AnnotatorKind, JudgedComparison, Judgment, Presentation, Tiers, Verdict

PAGE_ROWS = 500


class BadJudgment(StoreError):
    """What was sent is no judgment of what was shown; nothing was saved."""


def ordered_pairs(tiers: Tiers) -> Iterator[tuple[int, int]]:
    """Every (better, worse) pair of completion ids that the tiers put in a strict order; ties give none."""
    for rank, tier in enumerate(tiers):
        for better in tier:
            for lower in tiers[rank + 1 :]:
                for worse in lower:
                    yield better, worse


def save(
    store: Database,
    presentation_id: int,
    annotator_id: int,
    *,
    verdict: Literal["rank", "skip"],
    tiers: Tiers = (),
    all_bad: bool = False,
    skip_reason: str | None = None,
) -> Judgment:
    """Keeps one judgment in one transaction. When it returns, the judgment is on disk.

    Saving a presentation whose judgment stands returns that one unchanged: a double click, or a second try after a
    lost reply, counts once.

    Raises:
        BadJudgment: it does not fit what this annotator was shown.
    """
    with store.atomic():
        presentation = presentations.get(store, presentation_id)
        if presentation is None:
            raise BadJudgment(f"There is no presentation {presentation_id} in {store.path}: reload the page.")
        if presentation.annotator_id != annotator_id:
            raise BadJudgment(f"Presentation {presentation_id} was shown to somebody else: reload the page.")
        standing_row = store.row("SELECT * FROM standing_judgments WHERE presentation_id = ?", [presentation_id])
        if standing_row is not None:
            return _from_row(standing_row)
        checked = _checked_tiers(tiers, presentation.order)
        reason = None if skip_reason is None else skip_reason.strip()
        _check_verdict(verdict, checked, presentation.order, reason)
        return _insert(
            store,
            presentation,
            verdict,
            tiers=checked,
            all_bad=all_bad,
            skip_reason=reason,
        )


def add_simulated(
    store: Database, comparison_id: int, annotator_id: int, *, tiers: Tiers, rng: random.Random | None = None
) -> int:
    """Keeps a simulated annotator's ranking, with a shuffled presentation as people get one. Returns its id.

    A rule judges a comparison once: if its judgment stands, that one's id is returned and nothing is written.

    Raises:
        BadJudgment: the annotator is a person, or the tiers do not rank all the completions.
        StoreError: there is no such annotator or comparison.
    """
    with store.atomic():
        annotator = annotators.get(store, annotator_id)
        if annotator.kind != "simulated":
            raise BadJudgment(f"{annotator.name} is a person: only a simulated annotator may judge by rule.")
        comparison = comparisons.get(store, comparison_id)
        known = store.value(
            "SELECT id FROM standing_judgments WHERE comparison_id = ? AND annotator_id = ?",
            [comparison_id, annotator_id],
        )
        if known is not None:
            return known
        shown = [completion.id for completion in comparison.completions]
        checked = _checked_tiers(tiers, shown)
        _check_verdict("rank", checked, shown, None)
        presentation = presentations.record(store, comparison, annotator_id, rng)
        return _insert(store, presentation, "rank", tiers=checked).id


def undo(store: Database, annotator_id: int) -> Judgment | None:
    """Takes back this annotator's last standing judgment and returns it; None if they have none.

    The comparison is what `queue.next_presentation` shows them next, in the order they saw.
    """
    with store.atomic():
        row = store.row(
            "SELECT * FROM standing_judgments WHERE annotator_id = ? ORDER BY id DESC LIMIT 1", [annotator_id]
        )
        if row is None:
            return None
        store.insert(
            "judgments",
            {
                "comparison_id": row["comparison_id"],
                "presentation_id": row["presentation_id"],
                "annotator_id": annotator_id,
                "verdict": "retract",
                "supersedes": row["id"],
                "created_at": now(),
            },
        )
        return _from_row(row)


def count(store: Database, annotator_id: int) -> int:
    """How many of this annotator's judgments stand, skips included."""
    return store.value("SELECT count(*) FROM standing_judgments WHERE annotator_id = ?", [annotator_id])


def standing(store: Database, *, kinds: Sequence[AnnotatorKind] = ("human",)) -> list[JudgedComparison]:
    """Every ranking that stands, oldest first, as of one moment. Skips are left out."""
    with store.snapshot():
        return list(stream(store, kinds=kinds))


def stream(store: Database, *, kinds: Sequence[AnnotatorKind] = ("human",)) -> Iterator[JudgedComparison]:
    """As `standing`, a page of rows at a time. Read it inside `store.snapshot()` for the state of one moment."""
    last_id = 0
    while rows := store.rows(
        "SELECT s.*, a.name AS annotator_name, a.rule AS annotator_rule, c.prompt_id "
        "FROM standing_judgments s "
        "JOIN annotators a ON a.id = s.annotator_id JOIN comparisons c ON c.id = s.comparison_id "
        "WHERE s.id > ? AND s.verdict = 'rank' AND s.annotator_kind IN (SELECT value FROM json_each(?)) "
        "ORDER BY s.id LIMIT ?",
        [last_id, to_json(list(kinds)), PAGE_ROWS],
    ).fetchall():
        prompt_of = prompts.many(store, [row["prompt_id"] for row in rows])
        completions_of = completions.of_comparisons(store, [row["comparison_id"] for row in rows])
        for row in rows:
            yield JudgedComparison(
                _from_row(row),
                Annotator(row["annotator_id"], row["annotator_name"], row["annotator_kind"], row["annotator_rule"]),
                prompt_of[row["prompt_id"]],
                {completion.id: completion for completion in completions_of[row["comparison_id"]]},
            )
        last_id = rows[-1]["id"]


def _checked_tiers(tiers: Any, shown: Sequence[int]) -> Tiers:
    try:
        checked = tuple(tuple(tier) for tier in tiers)
    except TypeError:
        raise BadJudgment(f"Tiers must be lists of completion ids, not {tiers!r}: reload the page.") from None
    ranked = [completion_id for tier in checked for completion_id in tier]
    if not all(checked):
        raise BadJudgment("A tier is empty: leave it out.")
    if strangers := [item for item in ranked if type(item) is not int or item not in shown]:
        raise BadJudgment(f"{strangers} were not shown in this comparison: reload the page.")
    if len(set(ranked)) != len(ranked):
        raise BadJudgment(f"A completion is ranked twice in {ranked}: put each in one tier.")
    return checked


def _check_verdict(verdict: str, tiers: Tiers, shown: Sequence[int], skip_reason: str | None) -> None:
    if verdict not in ("rank", "skip"):
        raise BadJudgment(f"Unknown verdict {verdict!r}: rank the completions or skip.")
    ranked = sum(len(tier) for tier in tiers)
    if verdict == "rank" and ranked != len(shown):
        raise BadJudgment(f"{ranked} of {len(shown)} completions are ranked: place the others too, or skip.")
    if verdict == "rank" and skip_reason is not None:
        raise BadJudgment("A ranking has no skip reason: rank or skip, not both.")
    if verdict == "skip" and not skip_reason:
        raise BadJudgment("A skip needs a reason: choose one.")


def _insert(
    store: Database,
    presentation: Presentation,
    verdict: Verdict,
    *,
    tiers: Tiers,
    all_bad: bool = False,
    skip_reason: str | None = None,
) -> Judgment:
    created_at = now()
    new_id = store.insert(
        "judgments",
        {
            "comparison_id": presentation.comparison_id,
            "presentation_id": presentation.id,
            "annotator_id": presentation.annotator_id,
            "verdict": verdict,
            "tiers": tiers,
            "all_bad": int(all_bad),
            "skip_reason": skip_reason,
            "created_at": created_at,
        },
    )
    return Judgment(
        new_id,
        presentation.comparison_id,
        presentation.id,
        presentation.annotator_id,
        verdict,
        tiers,
        bool(all_bad),
        skip_reason,
        None,
        created_at,
    )


def _from_row(row: sqlite3.Row) -> Judgment:
    return Judgment(
        row["id"],
        row["comparison_id"],
        row["presentation_id"],
        row["annotator_id"],
        row["verdict"],
        tuple(tuple(tier) for tier in json.loads(row["tiers"])),
        bool(row["all_bad"]),
        row["skip_reason"],
        row["supersedes"],
        row["created_at"],
    )
