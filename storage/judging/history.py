"""Past judgments, each with its comparison, its details and its exclusion, if there is one."""

from __future__ import annotations

from typing import Literal

from storage.content import comparisons
from storage.core import json_columns
from storage.core.database import Database, StoreError, to_json
from storage.core.records import Comparison, Details, Exclusion, Judgment, PastJudgment, Presentation
from storage.judging import details, exclusions, judgments, presentations

_ACTIVE = """
FROM judgments j WHERE j.annotator_id = :annotator AND j.verdict != 'retract'
    AND NOT EXISTS (SELECT 1 FROM judgments later WHERE later.supersedes = j.id)
    AND NOT EXISTS (SELECT 1 FROM imports i WHERE i.id = j.import_id AND i.state = 'writing')
"""

_FLAGGED = "EXISTS (SELECT 1 FROM flags f WHERE f.judgment_id = j.id)"

_EXCLUDED = """EXISTS (
    SELECT 1 FROM excluded_judgments x WHERE x.judgment_id = j.id
    AND x.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts))"""

_CONTAINS_TEXT = """(
    instr(casefold(j.rationale), :text) OR EXISTS (
        SELECT 1 FROM comparisons c JOIN prompts p ON p.id = c.prompt_id, json_each(p.messages) turn
        WHERE c.id = j.comparison_id AND instr(casefold(turn.value ->> 'content'), :text))
    OR EXISTS (
        SELECT 1 FROM comparison_completions link JOIN completions t ON t.id = link.completion_id
        WHERE link.comparison_id = j.comparison_id AND instr(casefold(t.text), :text)))"""


def of_annotator(
    store: Database,
    annotator_id: int,
    *,
    verdict: Literal["rank", "skip"] | None = None,
    flagged: bool = False,
    excluded: bool = False,
    text: str = "",
    before_id: int | None = None,
    limit: int = 20,
) -> list[PastJudgment]:
    """An annotator's active judgments, newest first, at most `limit` of those older than `before_id`.

    Args:
        text: only judgments whose prompt, completions or rationale contain this text, ignoring case.
    """
    conditions = [
        condition
        for selected, condition in (
            (verdict is not None, "j.verdict = :verdict"),
            (flagged, _FLAGGED),
            (excluded, _EXCLUDED),
            (bool(text.strip()), _CONTAINS_TEXT),
            (before_id is not None, "j.id < :before"),
        )
        if selected
    ]
    rows = store.rows(
        "SELECT j.id " + " AND ".join([_ACTIVE, *conditions]) + " ORDER BY j.id DESC LIMIT :limit",
        {
            "annotator": annotator_id,
            "verdict": verdict,
            "text": text.strip().casefold(),
            "before": before_id,
            "limit": limit,
        },
    )
    return _past(store, [row["id"] for row in rows])


def of_comparison(store: Database, comparison_id: int) -> list[PastJudgment]:
    """Every active judgment of one comparison, by any annotator, oldest first."""
    rows = store.rows("SELECT id FROM active_judgments WHERE comparison_id = ? ORDER BY id", [comparison_id])
    return _past(store, [row["id"] for row in rows])


def get(store: Database, judgment_id: int) -> PastJudgment:
    """One judgment with its comparison and details.

    Raises:
        StoreError: there is none with this id.
    """
    found = _past(store, [judgment_id])
    if not found:
        raise StoreError(f"There is no judgment {judgment_id}: reload the page.")
    return found[0]


def correction_of(store: Database, judgment_id: int) -> PastJudgment | None:
    """The active judgment that came out of the corrections of this one; None if it was not corrected, or was undone since."""
    newest_id = judgment_id
    while later := store.row("SELECT id, verdict FROM judgments WHERE supersedes = ?", [newest_id]):
        if later["verdict"] == "retract":
            return None
        newest_id = later["id"]
    return None if newest_id == judgment_id else get(store, newest_id)


def after_correction(store: Database, past: PastJudgment, corrected: Judgment) -> PastJudgment:
    """The judgment that supersedes `past`. Only the rows that the correction wrote are read; the rest is taken from `past`."""
    return PastJudgment(
        corrected,
        details.of_judgments(store, [corrected.id])[corrected.id],
        past.comparison,
        past.order,
        next(iter(exclusions.of_judgment(store, corrected.id)), None),
        past.presentation,
    )


def _past(store: Database, judgment_ids: list[int]) -> list[PastJudgment]:
    rows = store.rows("SELECT * FROM judgments WHERE id IN (SELECT value FROM json_each(?))", [to_json(judgment_ids)]).fetchall()
    judgment_of = {judgment.id: judgment for judgment in json_columns.readable(rows, judgments.from_row)}
    ordered = [judgment_of[judgment_id] for judgment_id in judgment_ids if judgment_id in judgment_of]
    comparison_of = {c.id: c for c in comparisons.many(store, {judgment.comparison_id for judgment in ordered})}
    presentation_of = presentations.many(store, [j.presentation_id for j in ordered if j.presentation_id is not None])
    details_of = details.of_rows(store, rows)
    exclusions_of = exclusions.of_judgments(store, judgment_ids)
    return [
        _past_judgment(
            judgment,
            details_of[judgment.id],
            comparison_of[judgment.comparison_id],
            next(iter(exclusions_of.get(judgment.id, [])), None),
            None if judgment.presentation_id is None else presentation_of[judgment.presentation_id],
        )
        for judgment in ordered
        if judgment.comparison_id in comparison_of
    ]


def _past_judgment(
    judgment: Judgment, found: Details, comparison: Comparison, exclusion: Exclusion | None, presentation: Presentation | None
) -> PastJudgment:
    order = tuple(c.id for c in comparison.completions) if presentation is None else presentation.order
    return PastJudgment(judgment, found, comparison, order, exclusion, presentation)
