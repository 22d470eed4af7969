"""The details of a judgment besides its tiers: aspect ratings, an ideal answer and flags.

Strength and rationale are columns of the judgment's own row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from rapidfuzz.distance import Levenshtein

from storage.content.completions import as_shown
from storage.core.database import Database, StoreError, to_json
from storage.core.records import FLAG_KINDS, STRENGTHS, Details, Flag, IdealAnswer, ProjectSettings, Tiers, Timing
from storage.project.settings import MAX_ASPECTS

MAX_TEXT_CHARS = 20_000
"""Longest ideal answer or rationale, in characters."""

MAX_NOTE_CHARS = 1_000
MAX_TIME_MS = 7 * 24 * 3600 * 1000


TEXT_FIELDS = {
    "skip_reason": "The reason", "aspect": "The name of an aspect", "rationale": "The rationale", "ideal": "The ideal answer",
    "note": "The note",
}  # fmt: skip
"""The texts that an annotator types: the key selects the page's error text, the value names the field in messages for logs."""


class BadJudgment(StoreError):
    """The submitted judgment does not fit the presentation; nothing was saved.

    The message is for command lines and logs and may contain ids of the store. An annotator must not see it: a page builds
    its own text from `problem` and `values`, which contain no ids. `slots` in `values` are positions as shown, from 0.
    """

    def __init__(self, message: str, problem: str = "unreadable", **values: Any):
        super().__init__(message)
        self.problem = problem
        self.values = values


def check(submitted: Details, shown: Sequence[int], tiers: Tiers) -> None:
    """Checks that the details fit the completions that were shown and their ranking.

    Raises:
        BadJudgment: they do not; the message says which detail, and what to do.
    """
    if submitted.strength is not None:
        if submitted.strength not in STRENGTHS:
            raise BadJudgment(f"Unknown strength {submitted.strength!r}: choose one of {', '.join(STRENGTHS)}.")
        if len(shown) != 2 or len(tiers) != 2:
            raise BadJudgment("A strength says how much better one of two answers is: leave it out here.", "strength_misplaced")
    for completion_id, ratings in submitted.aspects.items():
        _check_shown(completion_id, shown)
        if len(ratings) > MAX_ASPECTS:
            raise BadJudgment(
                f"{len(ratings)} aspects are rated, at most {MAX_ASPECTS} are asked for: reload the page.",
                "too_many_aspects", rated=len(ratings), most=MAX_ASPECTS,
            )  # fmt: skip
        for aspect in ratings:
            check_text("aspect", aspect, MAX_NOTE_CHARS)
        if any(type(rating) is not int or not 1 <= rating <= 10 for rating in ratings.values()):
            raise BadJudgment(f"A rating is a number from 1 up, not {list(ratings.values())}: choose again.", "rating")
    check_text("rationale", submitted.rationale, MAX_TEXT_CHARS)
    if submitted.ideal is not None:
        check_text("ideal", submitted.ideal.text, MAX_TEXT_CHARS)
        if not submitted.ideal.text.strip():
            raise BadJudgment("The ideal answer is empty: write it, or leave it out.", "ideal_empty")
        if submitted.ideal.completion_id is not None:
            _check_shown(submitted.ideal.completion_id, shown)
    if len(submitted.flags) > (limit := len(FLAG_KINDS) * (len(shown) + 1)):
        raise BadJudgment(
            f"{len(submitted.flags)} flags are set, at most {limit} can be: reload the page.",
            "too_many_flags",
            flags=len(submitted.flags),
            most=limit,
        )
    for flag in submitted.flags:
        if flag.kind not in FLAG_KINDS:
            raise BadJudgment(f"Unknown flag {flag.kind!r}: choose one of {', '.join(FLAG_KINDS)}.")
        check_text("note", flag.note, MAX_NOTE_CHARS)
        if flag.completion_id is not None:
            _check_shown(flag.completion_id, shown)
    if submitted.timing is not None:
        times = (submitted.timing.active_ms, submitted.timing.idle_ms, submitted.timing.client_ms)
        if any(type(ms) is not int or not 0 <= ms <= MAX_TIME_MS for ms in times):
            raise BadJudgment(f"Times must be milliseconds, not {times}: reload the page.")


def check_required(submitted: Details, project: ProjectSettings) -> None:
    """Checks that a ranking has the details that the project's settings require now.

    Ratings of an aspect that the settings no longer list are accepted.

    Raises:
        BadJudgment: the required rationale is missing or too short.
    """
    reason = submitted.rationale.strip()
    if project.rationale == "required" and len(reason) < project.rationale_min_chars:
        raise BadJudgment(
            f"A rationale of at least {project.rationale_min_chars} characters is required, and this one has {len(reason)}: write more, "
            "or reload the page if it has no field for it.",
            "rationale_short", least=project.rationale_min_chars, length=len(reason),
        )  # fmt: skip


def write(store: Database, judgment_id: int, submitted: Details) -> None:
    """Writes checked details, in the transaction of the judgment."""
    for completion_id, ratings in submitted.aspects.items():
        for aspect, rating in ratings.items():
            row = {"judgment_id": judgment_id, "completion_id": completion_id, "aspect": aspect, "rating": rating}
            store.insert("aspect_ratings", row)
    if submitted.ideal is not None:
        store.insert(
            "ideal_answers",
            {
                "judgment_id": judgment_id,
                "completion_id": submitted.ideal.completion_id,
                "text": submitted.ideal.text,
                "edit_distance": _edit_distance(store, submitted.ideal),
            },
        )
    for flag in submitted.flags:
        row = {"judgment_id": judgment_id, "completion_id": flag.completion_id, "kind": flag.kind, "note": flag.note.strip()}
        store.insert("flags", row)


def says_the_same(stored: Details, submitted: Details) -> bool:
    """Whether submitted details are those that are stored, as `write` stores them. Times are left out."""
    return _as_written(stored) == _as_written(submitted)


def _as_written(given: Details) -> tuple[Any, ...]:
    ideal = given.ideal and (given.ideal.text, given.ideal.completion_id)
    flags = {(flag.kind, flag.note.strip(), flag.completion_id) for flag in given.flags}
    aspects = {completion_id: dict(ratings) for completion_id, ratings in given.aspects.items() if ratings}
    return given.strength, given.rationale.strip(), aspects, ideal, flags


def of_judgments(store: Database, judgment_ids: Iterable[int]) -> dict[int, Details]:
    """The details of each judgment by its id, in four queries whatever the number of judgments."""
    ids = [to_json(list(judgment_ids))]
    return of_rows(store, store.rows("SELECT * FROM judgments WHERE id IN (SELECT value FROM json_each(?))", ids).fetchall())


def of_rows(store: Database, rows: Sequence[sqlite3.Row]) -> dict[int, Details]:
    """As `of_judgments`, for rows of `judgments` that the caller has read already."""
    ids = [to_json([row["id"] for row in rows])]
    within = "judgment_id IN (SELECT value FROM json_each(?))"
    aspects: dict[int, dict[int, dict[str, int]]] = {}
    for row in store.rows(f"SELECT * FROM aspect_ratings WHERE {within}", ids):
        ratings = aspects.setdefault(row["judgment_id"], {}).setdefault(row["completion_id"], {})
        ratings[row["aspect"]] = row["rating"]
    ideals = {
        row["judgment_id"]: IdealAnswer(row["text"], row["completion_id"])
        for row in store.rows(f"SELECT * FROM ideal_answers WHERE {within}", ids)
    }
    flags: dict[int, list[Flag]] = {}
    for row in store.rows(f"SELECT * FROM flags WHERE {within} ORDER BY id", ids):
        flags.setdefault(row["judgment_id"], []).append(Flag(row["kind"], row["note"], row["completion_id"]))
    return {
        row["id"]: Details(
            row["strength"],
            aspects.get(row["id"], {}),
            row["rationale"],
            ideals.get(row["id"]),
            tuple(flags.get(row["id"], ())),
            None if row["client_ms"] is None else Timing(row["active_ms"], row["idle_ms"], row["client_ms"]),
        )
        for row in rows
    }


def _edit_distance(store: Database, ideal: IdealAnswer) -> int | None:
    """Levenshtein distance, in characters, from the displayed text of the completion that the annotator edited."""
    if ideal.completion_id is None:
        return None
    text = store.value("SELECT text FROM completions WHERE id = ?", [ideal.completion_id])
    return Levenshtein.distance(as_shown(text), ideal.text)


def _check_shown(completion_id: Any, shown: Sequence[int]) -> None:
    if completion_id not in shown:
        raise BadJudgment(f"{completion_id!r} was not shown in this comparison: reload the page.")


def check_text(field: str, text: Any, longest: int) -> None:
    """Checks that a value is text which the store can hold.

    Args:
        field: a key of `TEXT_FIELDS`; the message begins with its value there.

    Raises:
        BadJudgment: the value is not text, is too long, or cannot be encoded as UTF-8.
    """
    label = TEXT_FIELDS[field]
    if not isinstance(text, str):
        raise BadJudgment(f"{label} must be text: reload the page.")
    if len(text) > longest:
        raise BadJudgment(
            f"{label} has {len(text):,} characters, at most {longest:,} can be stored: shorten it.",
            "text_too_long", field=field, length=len(text), longest=longest,
        )  # fmt: skip
    try:
        text.encode()
    except UnicodeEncodeError:
        message = f"{label} has half a surrogate pair, which cannot be stored: type it again."
        raise BadJudgment(message, "text_broken", field=field) from None
