"""What a judgment says beside its tiers: aspect ratings, an ideal answer, flags. Strength and rationale are its columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rapidfuzz.distance import Levenshtein

from storage.content.completions import as_shown
from storage.core.database import Database, StoreError, to_json
from storage.core.records import FLAG_KINDS, STRENGTHS, Details, Flag, IdealAnswer, ProjectSettings, Tiers, Timing
from storage.project.settings import MOST_ASPECTS

LONGEST_TEXT = 20_000
"""Characters of an ideal answer or a rationale."""

LONGEST_NOTE = 1_000
LONGEST_TIME_MS = 7 * 24 * 3600 * 1000


FIELDS = {
    "skip_reason": "The reason", "aspect": "The name of an aspect", "rationale": "The rationale", "ideal": "The ideal answer",
    "note": "The note",
}  # fmt: skip
"""What is typed, by the name under which a page words its errors, and what it is called on a command line."""


class BadJudgment(StoreError):
    """What was sent is no judgment of what was shown; nothing was saved.

    The message is for command lines and logs, and may name ids of the store. An annotator must not see it: a page words
    `problem` instead, with `values` that hold no ids. Completions are in `slots` there, counted from 0 as they were shown.
    """

    def __init__(self, message: str, problem: str = "unreadable", **values: Any):
        super().__init__(message)
        self.problem = problem
        self.values = values


def check(said: Details, shown: Sequence[int], tiers: Tiers) -> None:
    """Whether the details fit what was shown.

    Raises:
        BadJudgment: with what does not, and what to do.
    """
    if said.strength is not None:
        if said.strength not in STRENGTHS:
            raise BadJudgment(f"Unknown strength {said.strength!r}: choose one of {', '.join(STRENGTHS)}.")
        if len(shown) != 2 or len(tiers) != 2:
            raise BadJudgment("A strength says how much better one of two answers is: leave it out here.", "strength_misplaced")
    for completion_id, ratings in said.aspects.items():
        _check_shown(completion_id, shown)
        if len(ratings) > MOST_ASPECTS:
            raise BadJudgment(
                f"{len(ratings)} aspects are rated, at most {MOST_ASPECTS} are asked for: reload the page.",
                "too_many_aspects", rated=len(ratings), most=MOST_ASPECTS,
            )  # fmt: skip
        for aspect in ratings:
            check_text("aspect", aspect, LONGEST_NOTE)
        if any(type(rating) is not int or not 1 <= rating <= 10 for rating in ratings.values()):
            raise BadJudgment(f"A rating is a number from 1 up, not {list(ratings.values())}: choose again.", "rating")
    check_text("rationale", said.rationale, LONGEST_TEXT)
    if said.ideal is not None:
        check_text("ideal", said.ideal.text, LONGEST_TEXT)
        if not said.ideal.text.strip():
            raise BadJudgment("The ideal answer is empty: write it, or leave it out.", "ideal_empty")
        if said.ideal.completion_id is not None:
            _check_shown(said.ideal.completion_id, shown)
    if len(said.flags) > (most := len(FLAG_KINDS) * (len(shown) + 1)):
        raise BadJudgment(
            f"{len(said.flags)} flags are set, at most {most} can be: reload the page.", "too_many_flags", flags=len(said.flags), most=most
        )
    for flag in said.flags:
        if flag.kind not in FLAG_KINDS:
            raise BadJudgment(f"Unknown flag {flag.kind!r}: choose one of {', '.join(FLAG_KINDS)}.")
        check_text("note", flag.note, LONGEST_NOTE)
        if flag.completion_id is not None:
            _check_shown(flag.completion_id, shown)
    if said.timing is not None:
        times = (said.timing.active_ms, said.timing.idle_ms, said.timing.client_ms)
        if any(type(ms) is not int or not 0 <= ms <= LONGEST_TIME_MS for ms in times):
            raise BadJudgment(f"Times must be milliseconds, not {times}: reload the page.")


def check_asked(said: Details, project: ProjectSettings) -> None:
    """Whether a ranking answers what the project asks of it now. Ratings of an aspect that was dropped meanwhile are kept.

    Raises:
        BadJudgment: the rationale that is required is missing or too short.
    """
    reason = said.rationale.strip()
    if project.rationale == "required" and len(reason) < project.rationale_min_chars:
        raise BadJudgment(
            f"A reason of at least {project.rationale_min_chars} characters is asked for, and this one has {len(reason)}: write more, "
            "or reload the page if there is no place for it.",
            "rationale_short", least=project.rationale_min_chars, length=len(reason),
        )  # fmt: skip


def write(store: Database, judgment_id: int, said: Details) -> None:
    """Keeps what was checked, in the judgment's transaction."""
    for completion_id, ratings in said.aspects.items():
        for aspect, rating in ratings.items():
            row = {"judgment_id": judgment_id, "completion_id": completion_id, "aspect": aspect, "rating": rating}
            store.insert("aspect_ratings", row)
    if said.ideal is not None:
        store.insert(
            "ideal_answers",
            {
                "judgment_id": judgment_id,
                "completion_id": said.ideal.completion_id,
                "text": said.ideal.text,
                "edit_distance": _edit_distance(store, said.ideal),
            },
        )
    for flag in said.flags:
        row = {"judgment_id": judgment_id, "completion_id": flag.completion_id, "kind": flag.kind, "note": flag.note.strip()}
        store.insert("flags", row)


def of_judgments(store: Database, judgment_ids: Iterable[int]) -> dict[int, Details]:
    """The details of each judgment, in four queries however many there are."""
    ids = [to_json(list(judgment_ids))]
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
        for row in store.rows("SELECT * FROM judgments WHERE id IN (SELECT value FROM json_each(?))", ids)
    }


def _edit_distance(store: Database, ideal: IdealAnswer) -> int | None:
    """Levenshtein distance, in characters, from the completion that the edit began from, as it was shown."""
    if ideal.completion_id is None:
        return None
    text = store.value("SELECT text FROM completions WHERE id = ?", [ideal.completion_id])
    return Levenshtein.distance(as_shown(text), ideal.text)


def _check_shown(completion_id: Any, shown: Sequence[int]) -> None:
    if completion_id not in shown:
        raise BadJudgment(f"{completion_id!r} was not shown in this comparison: reload the page.")


def check_text(field: str, text: Any, longest: int) -> None:
    """Whether somebody's text can be kept.

    Args:
        field: one of `FIELDS`; the message begins with what it is called.

    Raises:
        BadJudgment: it is none, or too long.
    """
    what = FIELDS[field]
    if not isinstance(text, str):
        raise BadJudgment(f"{what} must be text: reload the page.")
    if len(text) > longest:
        raise BadJudgment(
            f"{what} has {len(text):,} characters, at most {longest:,} are kept: shorten it.",
            "text_too_long", field=field, length=len(text), longest=longest,
        )  # fmt: skip
    try:
        text.encode()
    except UnicodeEncodeError:
        said = f"{what} holds half a character that cannot be kept: type it again."
        raise BadJudgment(said, "text_broken", field=field) from None
