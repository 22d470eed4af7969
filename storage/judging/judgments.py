"""Judgments: what annotators said. Rows are only ever added; a correction or an undo is a row that supersedes another.

What a judgment says beside its tiers is in `storage.judging.details`; finding one again is in `storage.judging.history`.

Turning them into weighted training pairs is `rlhf.data.pairs`' work.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from storage.content import comparisons, completions, prompts
from storage.core import json_columns
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import AnnotatorKind, Details, JudgedComparison, Judgment, Presentation, Tiers
from storage.judging import details, exclusions, presentations, queue
from storage.judging.details import BadJudgment, check_asked
from storage.people import annotators
from storage.project import settings

__all__ = ["BadJudgment", "LeaseOver"]

PAGE_ROWS = 500


NOTHING_MORE = Details()


class LeaseOver(BadJudgment):
    """It came after the lease had lapsed and somebody else had taken the place; nothing was saved."""

    def __init__(self, message: str, problem: str = "lease_over"):
        super().__init__(message, problem)


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
    details: Details = NOTHING_MORE,
) -> Judgment:
    """Keeps one judgment in one transaction. When it returns, the judgment is on disk.

    Completions that the tiers leave out are not ranked: the judgment is marked as partial. Saving a presentation whose
    judgment stands returns that one unchanged: a double click, or a second try after a lost reply, counts once.

    Raises:
        BadJudgment: it does not fit what this annotator was shown, or the lease was over and the place taken.
    """
    with store.atomic():
        presentation = _own_presentation(store, presentation_id, annotator_id)
        standing_row = store.row("SELECT * FROM standing_judgments WHERE presentation_id = ?", [presentation_id])
        if standing_row is not None:
            return from_row(standing_row)
        if not queue.can_accept(store, presentation) or _judged_elsewhere(store, presentation):
            raise LeaseOver(
                "The time for this comparison was over and it was given to somebody else, or it was withdrawn. Here is another one."
            )
        said = _checked(presentation, verdict, tiers, all_bad, skip_reason, details)
        if verdict == "rank":
            check_asked(details, settings.current(store))
        return _insert(store, presentation, said)


def correct(
    store: Database,
    judgment_id: int,
    annotator_id: int,
    *,
    verdict: Literal["rank", "skip"],
    tiers: Tiers = (),
    all_bad: bool = False,
    skip_reason: str | None = None,
    details: Details = NOTHING_MORE,
) -> Judgment:
    """Says something else instead of an earlier judgment of one's own, which stays in the store, superseded.

    Raises:
        BadJudgment: it is somebody else's, it was corrected or undone before, or it does not fit what was shown.
    """
    with store.atomic():
        row = store.row("SELECT * FROM standing_judgments WHERE id = ?", [judgment_id])
        if row is None:
            raise BadJudgment(f"Judgment {judgment_id} does not stand any more: reload the page.", "superseded")
        if row["presentation_id"] is None:
            raise BadJudgment(f"Judgment {judgment_id} was imported without what was shown: it cannot be corrected here.", "not_shown_here")
        presentation = _own_presentation(store, row["presentation_id"], annotator_id)
        said = _checked(presentation, verdict, tiers, all_bad, skip_reason, details)
        if row["verdict"] == "skip" and said.verdict == "rank" and not queue.can_accept(store, presentation):
            raise LeaseOver("You skipped this one, and others have judged it since: it needs no more judgments.", "skip_taken")
        return _insert(store, presentation, said, supersedes=judgment_id)


def add_simulated(store: Database, comparison_id: int, annotator_id: int, *, tiers: Tiers, rng: random.Random | None = None) -> int:
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
            return int(known)
        shown = [completion.id for completion in comparison.completions]
        if sorted(completion_id for tier in tiers for completion_id in tier) != sorted(shown):
            raise BadJudgment(f"A rule ranks every completion once: {tiers} is no ranking of {shown}.")
        presentation = presentations.record(store, comparison, annotator_id, rng)
        return _insert(store, presentation, _checked(presentation, "rank", tiers, False, None, NOTHING_MORE)).id


def undo(store: Database, annotator_id: int) -> Judgment | None:
    """Takes back this annotator's last standing judgment and returns it; None if they have none.

    The comparison is what `queue.next_presentation` shows them next, in the order they saw, unless others have taken its
    place meanwhile: who undoes a skip may come too late.
    """
    with store.atomic():
        row = store.row("SELECT * FROM standing_judgments WHERE annotator_id = ? ORDER BY id DESC LIMIT 1", [annotator_id])
        if row is None:
            return None
        presentation = None if row["presentation_id"] is None else presentations.get(store, row["presentation_id"])
        store.insert(
            "judgments",
            {
                "comparison_id": row["comparison_id"],
                "presentation_id": row["presentation_id"],
                "annotator_id": annotator_id,
                "verdict": "retract",
                "supersedes": row["id"],
                "purpose": row["purpose"],
                "created_at": now(),
            },
        )
        by_person = annotators.get(store, annotator_id).kind == "human"
        if presentation is not None and by_person and queue.can_accept(store, presentation):
            queue.reopen_lease(store, presentation)
        return from_row(row)


def get(store: Database, judgment_id: int) -> Judgment:
    """One judgment, whether it stands or not.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row("SELECT * FROM judgments WHERE id = ?", [judgment_id])
    if row is None:
        raise StoreError(f"There is no judgment {judgment_id}: reload the page.")
    return from_row(row)


def is_judged(store: Database, presentation: Presentation) -> bool:
    """Whether a judgment of what was presented stands."""
    return bool(store.value("SELECT 1 FROM standing_judgments WHERE presentation_id = ?", [presentation.id]))


def active(store: Database, *, kinds: Sequence[AnnotatorKind] = ("human",)) -> list[JudgedComparison]:
    """Every vote, oldest first, as of one moment. Skips, gold, repeats and what is excluded are left out."""
    with store.snapshot():
        return list(stream(store, kinds=kinds))


def stream(store: Database, *, kinds: Sequence[AnnotatorKind] = ("human",)) -> Iterator[JudgedComparison]:
    """As `active`, a page of rows at a time. Read it inside `store.snapshot()` for the state of one moment."""
    annotator_of = {annotator.id: annotator for annotator in annotators.all_annotators(store)}
    last_id = 0
    while rows := store.rows(
        "SELECT v.*, c.prompt_id FROM votes v JOIN comparisons c ON c.id = v.comparison_id "
        "WHERE v.id > ? AND v.annotator_kind IN (SELECT value FROM json_each(?)) ORDER BY v.id LIMIT ?",
        [last_id, to_json(list(kinds)), PAGE_ROWS],
    ).fetchall():
        prompt_of = prompts.many(store, [row["prompt_id"] for row in rows])
        completions_of = completions.of_comparisons(store, [row["comparison_id"] for row in rows])
        for row in (row for row in rows if row["prompt_id"] in prompt_of):
            try:
                judgment = from_row(row)
            except json_columns.Unreadable as error:
                json_columns.log.warning("left out: %s", error)
                continue
            yield JudgedComparison(
                judgment,
                annotator_of[row["annotator_id"]],
                prompt_of[row["prompt_id"]],
                {completion.id: completion for completion in completions_of[row["comparison_id"]]},
            )
        last_id = rows[-1]["id"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose judgment it is, and of what."""

    judgment_id: int
    comparison_id: int
    prompt_id: int
    annotator_id: int
    kind: str
    """The prompt's."""


def origins(store: Database, judgment_ids: Iterable[int]) -> dict[int, Origin]:
    """Where judgments come from, by their id, whether or not they stand."""
    rows = store.rows(
        "SELECT j.id, j.comparison_id, c.prompt_id, j.annotator_id, p.kind FROM judgments j "
        "JOIN comparisons c ON c.id = j.comparison_id JOIN prompts p ON p.id = c.prompt_id "
        "WHERE j.id IN (SELECT value FROM json_each(?))",
        [to_json(sorted(set(judgment_ids)))],
    )
    return {row["id"]: Origin(*row) for row in rows}


@dataclass(frozen=True, slots=True)
class _Said:
    """What was sent, found to fit what was shown."""

    verdict: Literal["rank", "skip"]
    tiers: Tiers
    all_bad: bool
    partial: bool
    skip_reason: str | None
    details: Details


def _own_presentation(store: Database, presentation_id: int, annotator_id: int) -> Presentation:
    presentation = presentations.get(store, presentation_id)
    if presentation is None:
        raise BadJudgment(f"There is no presentation {presentation_id} in {store.path}: reload the page.", "not_there")
    if presentation.annotator_id != annotator_id:
        raise BadJudgment(f"Presentation {presentation_id} was shown to somebody else: reload the page.", "not_there")
    return presentation


def _judged_elsewhere(store: Database, presentation: Presentation) -> bool:
    """Whether this annotator's judgment of the comparison stands already, from another presentation for the same purpose."""
    return bool(
        store.value(
            "SELECT 1 FROM standing_judgments WHERE comparison_id = ? AND annotator_id = ? AND purpose = ?",
            [presentation.comparison_id, presentation.annotator_id, presentation.purpose],
        )
    )


def _checked(
    presentation: Presentation, verdict: Literal["rank", "skip"], tiers: Any, all_bad: bool, skip_reason: str | None, said: Details
) -> _Said:
    checked = _checked_tiers(tiers, presentation.order)
    if skip_reason is not None:
        details.check_text("skip_reason", skip_reason, details.LONGEST_NOTE)
    reason = None if skip_reason is None else skip_reason.strip()
    ranked = sum(len(tier) for tier in checked)
    if verdict not in ("rank", "skip"):
        raise BadJudgment(f"Unknown verdict {verdict!r}: rank the completions or skip.")
    if verdict == "rank" and ranked < 2:
        shown = len(presentation.order)
        raise BadJudgment(
            f"{ranked} of {shown} completions are ranked: place at least two, or skip.", "too_few_ranked", ranked=ranked, shown=shown
        )
    if verdict == "rank" and reason is not None:
        raise BadJudgment("A ranking has no skip reason: rank or skip, not both.")
    if verdict == "skip" and not reason:
        raise BadJudgment("A skip needs a reason: choose one.", "skip_without_reason")
    if verdict == "skip" and checked:
        raise BadJudgment("A skip ranks nothing: rank or skip, not both.")
    details.check(said, presentation.order, checked)
    return _Said(verdict, checked, bool(all_bad), verdict == "rank" and ranked < len(presentation.order), reason, said)


def _checked_tiers(tiers: Any, shown: Sequence[int]) -> Tiers:
    try:
        checked = tuple(tuple(tier) for tier in tiers)
    except TypeError:
        raise BadJudgment(f"Tiers must be lists of completion ids, not {tiers!r}: reload the page.") from None
    ranked = [completion_id for tier in checked for completion_id in tier]
    if not all(checked):
        raise BadJudgment("A tier is empty: leave it out.", "empty_tier")
    if strangers := [item for item in ranked if type(item) is not int or item not in shown]:
        raise BadJudgment(f"{strangers} were not shown in this comparison: reload the page.")
    if twice := sorted(shown.index(item) for item, times in Counter(ranked).items() if times > 1):
        raise BadJudgment(f"A completion is ranked twice in {ranked}: put each in one tier.", "ranked_twice", slots=twice, shown=len(shown))
    return checked


def _insert(store: Database, presentation: Presentation, said: _Said, *, supersedes: int | None = None) -> Judgment:
    created_at = now()
    timing = said.details.timing
    lease = queue.lease_of(store, presentation.id)
    judgment_id = store.insert(
        "judgments",
        {
            "comparison_id": presentation.comparison_id,
            "presentation_id": presentation.id,
            "annotator_id": presentation.annotator_id,
            "verdict": said.verdict,
            "tiers": said.tiers,
            "all_bad": int(said.all_bad),
            "skip_reason": said.skip_reason,
            "supersedes": supersedes,
            "created_at": created_at,
            "purpose": presentation.purpose,
            "strength": said.details.strength,
            "partial": int(said.partial),
            "rationale": said.details.rationale.strip(),
            "active_ms": timing and timing.active_ms,
            "idle_ms": timing and timing.idle_ms,
            "client_ms": timing and timing.client_ms,
            # A correction is no second look at the clock.
            "server_ms": None if lease is None or supersedes else store.clock.ms_since(lease.created_at),
        },
    )
    details.write(store, judgment_id, said.details)
    excluded = exclusions.of_presentation(store, presentation.id)
    for exclusion_id in excluded:
        # Saying it again, corrected or after an undo, does not shake an exclusion off.
        store.insert("excluded_judgments", {"judgment_id": judgment_id, "exclusion_id": exclusion_id})
    return Judgment(
        judgment_id,
        presentation.comparison_id,
        presentation.id,
        presentation.annotator_id,
        said.verdict,
        said.tiers,
        said.all_bad,
        said.skip_reason,
        supersedes,
        created_at,
        presentation.purpose,
        said.details.strength,
        said.partial,
        said.details.rationale.strip(),
        said.verdict == "rank" and presentation.purpose == "vote" and not excluded,
    )


def from_row(row: sqlite3.Row) -> Judgment:
    return Judgment(
        row["id"],
        row["comparison_id"],
        row["presentation_id"],
        row["annotator_id"],
        row["verdict"],
        json_columns.id_lists(row["tiers"], f"The ranking of judgment {row['id']}"),
        bool(row["all_bad"]),
        row["skip_reason"],
        row["supersedes"],
        row["created_at"],
        row["purpose"],
        row["strength"],
        bool(row["partial"]),
        row["rationale"],
        bool(row["counts"]),
    )
