"""Judgments: one row for each act of an annotator on a comparison. Rows are only added; a correction or an undo supersedes one.

Details besides the tiers are in `storage.judging.details`, past judgments with their comparisons in
`storage.judging.history`. `rlhf.data.pairs` turns judgments into weighted training pairs.
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
from storage.core.records import (
    AnnotatorKind,
    Details,
    JudgedComparison,
    Judgment,
    Lease,
    Presentation,
    ProjectSettings,
    Strength,
    Tiers,
)  # fmt: skip
from storage.judging import details, exclusions, presentations, queue
from storage.judging.details import BadJudgment, check_required
from storage.people import annotators
from storage.project import settings

__all__ = ["AlreadyJudged", "BadJudgment", "LeaseOver"]

STREAM_ROWS = 500

NO_DETAILS = Details()


class LeaseOver(BadJudgment):
    """The lease had expired and another annotator had the comparison before the judgment arrived; nothing was saved."""

    def __init__(self, message: str, problem: str = "lease_over"):
        super().__init__(message, problem)


class AlreadyJudged(BadJudgment):
    """The annotator has judged this comparison already, in another way; nothing was saved."""

    def __init__(self, judgment: Judgment):
        super().__init__(f"Judgment {judgment.id} of this comparison is saved already: correct that one.", "already_judged")
        self.judgment = judgment
        """The active judgment, which stays."""


def ordered_pairs(tiers: Tiers) -> Iterator[tuple[int, int]]:
    """Every (better, worse) pair of completion ids in different tiers. Tied completions give no pair."""
    for rank, tier in enumerate(tiers):
        for better in tier:
            for lower in tiers[rank + 1 :]:
                for worse in lower:
                    yield better, worse


def save(
    store: Database,
    presentation: int | Presentation,
    annotator_id: int,
    *,
    verdict: Literal["rank", "skip"],
    tiers: Tiers = (),
    all_bad: bool = False,
    skip_reason: str | None = None,
    details: Details = NO_DETAILS,
    project: ProjectSettings | None = None,
) -> Judgment:
    """Saves one judgment in one transaction. When it returns, the judgment is on disk.

    A ranking that omits completions is marked as partial. If the presentation has an active judgment that says the same, that
    one is returned: a double click, or a second request after a lost reply, counts once.

    Args:
        presentation: an id, or the record if the caller has read it already.
        project: its settings, read here if they are needed and the caller has not read them already.

    Raises:
        BadJudgment: the judgment does not fit the presentation.
        AlreadyJudged: the annotator has judged the comparison for this purpose, in another way or as another presentation showed it.
        LeaseOver: the lease is over and the comparison needs no further judgment.
    """
    with store.atomic():
        shown = _own_presentation(store, presentation, annotator_id)
        for row in _judgments_of_comparison(store, shown):
            judgment = from_row(row)
            checked = _checked(shown, verdict, tiers, all_bad, skip_reason, details)
            if row["presentation_id"] == shown.id and _says(store, judgment, checked):
                return judgment
            raise AlreadyJudged(judgment)
        lease = queue.lease_of(store, shown.id)
        if not queue.can_accept(store, shown, lease):
            raise LeaseOver(
                "The lease of this comparison expired and it went to another annotator, or it was withdrawn. Another one is shown."
            )
        checked = _checked(shown, verdict, tiers, all_bad, skip_reason, details)
        if verdict == "rank":
            check_required(details, project or settings.current(store))
        return _insert(store, shown, checked, lease)


def correct(
    store: Database,
    judgment: int | Judgment,
    annotator_id: int,
    *,
    verdict: Literal["rank", "skip"],
    tiers: Tiers = (),
    all_bad: bool = False,
    skip_reason: str | None = None,
    details: Details = NO_DETAILS,
    presentation: Presentation | None = None,
) -> Judgment:
    """Replaces an earlier judgment of the same annotator. The earlier row remains in the store, superseded.

    Args:
        judgment: an id, or the record if the caller has read it already.
        presentation: that of the judgment, if the caller has read it already.

    Raises:
        BadJudgment: the judgment is another annotator's or superseded already, or the correction does not fit the presentation.
    """
    with store.atomic():
        earlier = judgment if isinstance(judgment, Judgment) else _find(store, judgment)
        if earlier is None or earlier.verdict == "retract" or _is_superseded(store, earlier):
            number = judgment if earlier is None else earlier.id
            raise BadJudgment(f"Judgment {number} was corrected or undone meanwhile: reload the page.", "superseded")
        if earlier.presentation_id is None:
            raise BadJudgment(f"Judgment {earlier.id} was imported without what was shown: it cannot be corrected here.", "not_shown_here")
        shown = _own_presentation(store, presentation or earlier.presentation_id, annotator_id)
        checked = _checked(shown, verdict, tiers, all_bad, skip_reason, details)
        lease = queue.lease_of(store, shown.id)
        if earlier.verdict == "skip" and checked.verdict == "rank" and not queue.can_accept(store, shown, lease):
            raise LeaseOver("You skipped this one, and others have judged it since: it needs no more judgments.", "skip_taken")
        return _insert(store, shown, checked, lease, supersedes=earlier.id)


def ordinary(store: Database, kind: AnnotatorKind, since: str | None = None, *, demo_votes: bool = False) -> int:
    """Number of active rankings on comparisons that decide no round. Those teach nothing: their prompts are held out.

    Args:
        since: only those that came into the store after this moment: an imported one with its import, whatever its file says.
        demo_votes: the votes of the Demo page too.
    """
    left_out = "" if demo_votes else f"AND c.purpose != '{comparisons.DEMO}' "
    return int(
        store.value(
            "SELECT count(*) FROM active_judgments j JOIN comparisons c ON c.id = j.comparison_id "
            "LEFT JOIN imports i ON i.id = j.import_id WHERE j.annotator_kind = :kind AND j.verdict = 'rank' AND c.round_id IS NULL "
            f"{left_out}"
            "AND (:since IS NULL OR coalesce(i.created_at, j.created_at) > :since)",
            {"kind": kind, "since": since},
        )
    )


def says(
    store: Database,
    judgment: Judgment,
    *,
    verdict: Literal["rank", "skip"],
    tiers: Tiers = (),
    all_bad: bool = False,
    skip_reason: str | None = None,
    details: Details = NO_DETAILS,
) -> bool:
    """Whether a stored judgment says what these arguments of `save` say. The time that it took does not matter.

    Raises:
        BadJudgment: the arguments do not fit the judgment's presentation.
    """
    shown = None if judgment.presentation_id is None else presentations.get(store, judgment.presentation_id)
    return shown is not None and _says(store, judgment, _checked(shown, verdict, tiers, all_bad, skip_reason, details))


def _says(store: Database, judgment: Judgment, submitted: _CheckedJudgment) -> bool:
    stored = details.of_judgments(store, [judgment.id])[judgment.id]
    return (
        judgment.verdict == submitted.verdict
        and [set(tier) for tier in judgment.tiers] == [set(tier) for tier in submitted.tiers]
        and judgment.all_bad == submitted.all_bad
        and judgment.skip_reason == submitted.skip_reason
        and details.says_the_same(stored, submitted.details)
    )


def add_simulated(store: Database, comparison_id: int, annotator_id: int, *, tiers: Tiers, rng: random.Random | None = None) -> int:
    """Saves a simulated annotator's ranking with a shuffled presentation, as for people. Returns the judgment's id.

    A simulated annotator judges a comparison once: if it has an active judgment, that id is returned and nothing is written.

    Raises:
        BadJudgment: the annotator is a person, or the tiers do not rank all the completions.
        StoreError: there is no such annotator or comparison.
    """
    with store.atomic():
        annotator = annotators.get(store, annotator_id)
        if annotator.kind != "simulated":
            raise BadJudgment(f"{annotator.name} is a person: only a simulated annotator may judge by rule.")
        comparison = comparisons.get(store, comparison_id)
        earlier_id = store.value(
            "SELECT id FROM active_judgments WHERE comparison_id = ? AND annotator_id = ?",
            [comparison_id, annotator_id],
        )
        if earlier_id is not None:
            return int(earlier_id)
        shown = [completion.id for completion in comparison.completions]
        if sorted(completion_id for tier in tiers for completion_id in tier) != sorted(shown):
            raise BadJudgment(f"A rule ranks every completion once: {tiers} is no ranking of {shown}.")
        presentation = presentations.record(store, comparison, annotator_id, rng)
        return _insert(store, presentation, _checked(presentation, "rank", tiers, False, None, NO_DETAILS), None).id


def add_unqueued(store: Database, presentation: Presentation, *, tiers: Tiers, all_bad: bool = False) -> Judgment:
    """Saves a person's ranking of a comparison that they chose themselves, so that nobody reserved it for them.

    Raises:
        BadJudgment: the tiers do not fit the presentation.
    """
    with store.atomic():
        return _insert(store, presentation, _checked(presentation, "rank", tiers, all_bad, None, NO_DETAILS), None)


@dataclass(frozen=True, slots=True)
class ImportedVote:
    """One annotator's ranking from a file, with its presentation and completions in the store."""

    comparison_id: int
    presentation_id: int
    annotator_id: int
    tiers: Tiers
    partial: bool
    counts: bool
    """False if the same annotator judged the comparison again later."""
    created_at: str
    all_bad: bool = False
    strength: Strength | None = None
    rationale: str = ""
    active_ms: int | None = None
    idle_ms: int | None = None
    client_ms: int | None = None
    server_ms: int | None = None
    aspects: tuple[tuple[int, str, int], ...] = ()
    """(completion id, aspect, rating)."""
    ideal: str | None = None


def add_imported(store: Database, new: Sequence[ImportedVote], *, import_id: int) -> range:
    """Adds the votes of an import that is being written and returns their ids. No count is changed: the import adds them at its end.

    The caller has checked them, and calls this inside `atomic`.
    """
    columns = (
        "comparison_id", "presentation_id", "annotator_id", "verdict", "tiers", "all_bad", "created_at", "strength", "partial",
        "rationale", "active_ms", "idle_ms", "client_ms", "server_ms", "counts", "import_id",
    )  # fmt: skip
    ids = store.insert_many(
        "judgments",
        columns,
        [
            (vote.comparison_id, vote.presentation_id, vote.annotator_id, "rank", to_json(vote.tiers), int(vote.all_bad),
             vote.created_at, vote.strength, int(vote.partial), vote.rationale, vote.active_ms, vote.idle_ms, vote.client_ms,
             vote.server_ms, int(vote.counts), import_id)
            for vote in new
        ],
    )  # fmt: skip
    ratings = [(judgment_id, *rating) for judgment_id, vote in zip(ids, new, strict=True) for rating in vote.aspects]
    ideals = [(judgment_id, vote.ideal) for judgment_id, vote in zip(ids, new, strict=True) if vote.ideal is not None]
    store.insert_rows("aspect_ratings", ("judgment_id", "completion_id", "aspect", "rating"), ratings)
    store.insert_rows("ideal_answers", ("judgment_id", "text"), ideals)
    return ids


@dataclass(frozen=True, slots=True)
class CountedVote:
    """A vote that counts: its comparison, annotator, time and import."""

    id: int
    comparison_id: int
    annotator_id: int
    created_at: str
    import_id: int | None


def counted(store: Database, comparison_ids: Iterable[int]) -> list[CountedVote]:
    """The votes on these comparisons that count, or will count once their import is finished, oldest row first."""
    rows = store.rows(
        "SELECT id, comparison_id, annotator_id, created_at, import_id FROM judgments "
        "WHERE comparison_id IN (SELECT value FROM json_each(?)) AND counts = 1 ORDER BY id",
        [to_json(sorted(set(comparison_ids)))],
    )
    return [CountedVote(*row) for row in rows]


def uncount(store: Database, judgment_ids: Iterable[int]) -> None:
    """Makes votes of an import that is being written not count. Call it inside `atomic`."""
    store.connection.conn.executemany("UPDATE judgments SET counts = 0 WHERE id = ?", [(item,) for item in judgment_ids])


def undo(store: Database, annotator_id: int, *, project: ProjectSettings | None = None) -> Judgment | None:
    """Retracts this annotator's last active judgment and returns it; None if there is none.

    The project's settings are read here if the caller has not read them already.

    Votes of the Demo page are passed over: they are not judged on the page that has this button.

    `queue.next_presentation` then returns the same presentation again, unless the comparison has received all the judgments
    it needs from others in the meantime, which can happen after a skip.
    """
    with store.atomic():
        row = store.row(
            f"SELECT * FROM active_judgments WHERE annotator_id = ? AND {comparisons.NOT_DEMO.format('comparison_id')} "
            "ORDER BY id DESC LIMIT 1",
            [annotator_id],
        )
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
        if presentation is not None and by_person and queue.can_accept(store, presentation, queue.lease_of(store, presentation.id)):
            queue.reopen_lease(store, presentation, project or settings.current(store))
        return from_row(row)


def get(store: Database, judgment_id: int) -> Judgment:
    """One judgment, active or superseded.

    Raises:
        StoreError: there is none with this id.
    """
    judgment = _find(store, judgment_id)
    if judgment is None:
        raise StoreError(f"There is no judgment {judgment_id}: reload the page.")
    return judgment


def _find(store: Database, judgment_id: int) -> Judgment | None:
    row = store.row("SELECT * FROM judgments WHERE id = ?", [judgment_id])
    return None if row is None else from_row(row)


def _is_superseded(store: Database, judgment: Judgment) -> bool:
    return bool(store.value("SELECT 1 FROM judgments WHERE supersedes = ?", [judgment.id]))


@dataclass(frozen=True, slots=True)
class Given:
    """How many judgments an annotator has given."""

    ranks: int
    skips: int


def given_since(store: Database, annotator_id: int, moment: str) -> Given:
    """The annotator's active judgments of this moment and later; a correction is of its own time."""
    # The plus keeps SQLite from reading all judgments of the annotator: those of everybody since the moment are fewer.
    row = store.row(
        "SELECT coalesce(sum(verdict = 'rank'), 0), coalesce(sum(verdict = 'skip'), 0) FROM active_judgments "
        "WHERE +annotator_id = ? AND created_at >= ?",
        [annotator_id, moment],
    )
    assert row is not None
    return Given(*row)


def is_judged(store: Database, presentation: Presentation) -> bool:
    """Whether a presentation has an active judgment."""
    return bool(store.value("SELECT 1 FROM active_judgments WHERE presentation_id = ?", [presentation.id]))


def active(
    store: Database, *, kinds: Sequence[AnnotatorKind] = ("human",), for_training: bool = False, demo_votes: bool = False
) -> list[JudgedComparison]:
    """Every vote in one snapshot, oldest first. Skips, gold, repeats and excluded judgments are left out.

    Args:
        for_training: leave out votes on starter prompts that are not in use; `prompts.unused_starter_votes` counts them.
        demo_votes: the votes of the Demo page too; `demo_votes.count` counts them.
    """
    with store.snapshot():
        return list(stream(store, kinds=kinds, for_training=for_training, demo_votes=demo_votes))


def stream(
    store: Database, *, kinds: Sequence[AnnotatorKind] = ("human",), for_training: bool = False, demo_votes: bool = False
) -> Iterator[JudgedComparison]:
    """As `active`, but reading a page of rows at a time. Call it inside `store.snapshot()` for a consistent view."""
    left_out = f"AND c.prompt_id NOT IN ({prompts.UNUSED_STARTERS}) " if for_training else ""
    left_out += "" if demo_votes else f"AND c.purpose != '{comparisons.DEMO}' "
    annotator_of = {annotator.id: annotator for annotator in annotators.all_annotators(store)}
    last_id = 0
    while rows := store.rows(
        "SELECT v.*, c.prompt_id FROM votes v JOIN comparisons c ON c.id = v.comparison_id "
        f"WHERE v.id > ? AND v.annotator_kind IN (SELECT value FROM json_each(?)) {left_out}ORDER BY v.id LIMIT ?",
        [last_id, to_json(list(kinds)), STREAM_ROWS],
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
class JudgmentMetadata:
    """The comparison, prompt and annotator of a judgment."""

    judgment_id: int
    comparison_id: int
    prompt_id: int
    annotator_id: int
    kind: str
    """Kind of the prompt."""


def metadata(store: Database, judgment_ids: Iterable[int]) -> dict[int, JudgmentMetadata]:
    """The metadata of judgments, by judgment id, superseded ones included."""
    rows = store.rows(
        "SELECT j.id, j.comparison_id, c.prompt_id, j.annotator_id, p.kind FROM judgments j "
        "JOIN comparisons c ON c.id = j.comparison_id JOIN prompts p ON p.id = c.prompt_id "
        "WHERE j.id IN (SELECT value FROM json_each(?))",
        [to_json(sorted(set(judgment_ids)))],
    )
    return {row["id"]: JudgmentMetadata(*row) for row in rows}


@dataclass(frozen=True, slots=True)
class _CheckedJudgment:
    """A submitted judgment that fits its presentation."""

    verdict: Literal["rank", "skip"]
    tiers: Tiers
    all_bad: bool
    partial: bool
    skip_reason: str | None
    details: Details


def _own_presentation(store: Database, presentation: int | Presentation, annotator_id: int) -> Presentation:
    shown = presentation if isinstance(presentation, Presentation) else presentations.get(store, presentation)
    if shown is None:
        raise BadJudgment(f"There is no presentation {presentation} in {store.path}: reload the page.", "not_there")
    if shown.annotator_id != annotator_id:
        raise BadJudgment(f"Presentation {shown.id} was shown to somebody else: reload the page.", "not_there")
    return shown


def _judgments_of_comparison(store: Database, presentation: Presentation) -> list[sqlite3.Row]:
    """The annotator's active judgments of this comparison with this purpose, from whichever presentation."""
    return store.rows(
        "SELECT * FROM active_judgments WHERE comparison_id = ? AND annotator_id = ? AND purpose = ?",
        [presentation.comparison_id, presentation.annotator_id, presentation.purpose],
    ).fetchall()


def _checked(
    presentation: Presentation, verdict: Literal["rank", "skip"], tiers: Any, all_bad: bool, skip_reason: str | None, submitted: Details
) -> _CheckedJudgment:
    checked = _checked_tiers(tiers, presentation.order)
    if skip_reason is not None:
        details.check_text("skip_reason", skip_reason, details.MAX_NOTE_CHARS)
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
    details.check(submitted, presentation.order, checked)
    partial = verdict == "rank" and ranked < len(presentation.order)
    return _CheckedJudgment(verdict, checked, bool(all_bad), partial, reason, submitted)


def _checked_tiers(tiers: Any, shown: Sequence[int]) -> Tiers:
    try:
        checked = tuple(tuple(tier) for tier in tiers)
    except TypeError:
        raise BadJudgment(f"Tiers must be lists of completion ids, not {tiers!r}: reload the page.") from None
    ranked = [completion_id for tier in checked for completion_id in tier]
    if not all(checked):
        raise BadJudgment("A tier is empty: leave it out.", "empty_tier")
    if not_shown := [item for item in ranked if type(item) is not int or item not in shown]:
        raise BadJudgment(f"{not_shown} were not shown in this comparison: reload the page.")
    if repeated := sorted(shown.index(item) for item, times in Counter(ranked).items() if times > 1):
        raise BadJudgment(
            f"A completion is ranked twice in {ranked}: put each in one tier.", "ranked_twice", slots=repeated, shown=len(shown)
        )
    return checked


def _insert(
    store: Database, presentation: Presentation, checked: _CheckedJudgment, lease: Lease | None, *, supersedes: int | None = None
) -> Judgment:
    created_at = now()
    timing = checked.details.timing
    judgment_id = store.insert(
        "judgments",
        {
            "comparison_id": presentation.comparison_id,
            "presentation_id": presentation.id,
            "annotator_id": presentation.annotator_id,
            "verdict": checked.verdict,
            "tiers": checked.tiers,
            "all_bad": int(checked.all_bad),
            "skip_reason": checked.skip_reason,
            "supersedes": supersedes,
            "created_at": created_at,
            "purpose": presentation.purpose,
            "strength": checked.details.strength,
            "partial": int(checked.partial),
            "rationale": checked.details.rationale.strip(),
            "active_ms": timing and timing.active_ms,
            "idle_ms": timing and timing.idle_ms,
            "client_ms": timing and timing.client_ms,
            # A correction may come any time later: only the first judgment measures how long judging took.
            "server_ms": None if lease is None or supersedes else store.clock.ms_since(lease.created_at),
        },
    )
    details.write(store, judgment_id, checked.details)
    excluded = exclusions.of_presentation(store, presentation.id)
    for exclusion_id in excluded:
        # A correction, or a new judgment after an undo, keeps the exclusions of the earlier one.
        store.insert("excluded_judgments", {"judgment_id": judgment_id, "exclusion_id": exclusion_id})
    return Judgment(
        judgment_id,
        presentation.comparison_id,
        presentation.id,
        presentation.annotator_id,
        checked.verdict,
        checked.tiers,
        checked.all_bad,
        checked.skip_reason,
        supersedes,
        created_at,
        presentation.purpose,
        checked.details.strength,
        checked.partial,
        checked.details.rationale.strip(),
        checked.verdict == "rank" and presentation.purpose == "vote" and not excluded,
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
