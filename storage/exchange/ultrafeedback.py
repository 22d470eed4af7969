"""UltraFeedback: an instruction and the scored completions of several models.

The completions are ranked by `overall_score`, or by the mean of the ratings in `annotations` if there is no score. The
public file was scored by GPT-4: import it with a rule, so that its votes are not counted as people's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from storage.exchange import export
from storage.exchange.rows import BadRow, Left, NewComparison, Record, Vote, by_score, name_of, number_of, places, text_of
from storage.exchange.things import THINGS

MAX_RATING = 10


def read(record: Record) -> Iterator[NewComparison]:
    """One comparison with one vote; without any vote where fewer than two completions were scored."""
    answers = record.get("completions")
    if not isinstance(answers, (list, tuple)) or not all(isinstance(answer, dict) for answer in answers):
        raise BadRow("needs completions, a list of objects")
    tiers = by_score([_score(answer) for answer in answers])
    rated = sum(map(len, tiers)) >= 2
    aspects = tuple((index, aspect, rating) for index, answer in enumerate(answers) for aspect, rating in _ratings(answer).items())
    yield NewComparison(
        [{"role": "user", "content": text_of(record, "instruction")}],
        tuple(text_of(answer, "response") for answer in answers),
        _models(record, answers),
        (Vote(tiers, name_of(record.get("annotator")), aspects=aspects),) if rated else (),
        kind=name_of(record.get("source")) or "imported",
    )


def _models(record: Record, answers: Sequence[Record]) -> tuple[str | None, ...]:
    """The model of each answer: as the answer says, or at its place in the list beside the answers."""
    named = tuple(name_of(answer.get("model")) for answer in answers)
    if any(named):
        return named
    listed = record.get("models")
    return tuple(map(name_of, listed)) if isinstance(listed, (list, tuple)) and len(listed) == len(answers) else named


def _score(answer: Record) -> float | None:
    overall = number_of(answer.get("overall_score"))
    if overall is not None:
        return overall
    ratings = [number for rating in _annotations(answer).values() if (number := number_of(_rating(rating))) is not None]
    return fmean(ratings) if ratings else None


def _ratings(answer: Record) -> dict[str, int]:
    """The ratings that can be stored as aspects: whole numbers from 1 to `MAX_RATING`."""
    numbers = {aspect: number_of(_rating(rating)) for aspect, rating in _annotations(answer).items()}
    return {aspect: int(number) for aspect, number in numbers.items() if number is not None and number in range(1, MAX_RATING + 1)}


def _annotations(answer: Record) -> Mapping[str, Any]:
    annotations = answer.get("annotations")
    return {aspect: annotations[aspect] for aspect in annotations} if isinstance(annotations, dict) else {}


def _rating(annotation: Any) -> Any:
    if isinstance(annotation, (list, tuple)) and annotation:
        annotation = annotation[0]
    return annotation.get("Rating") if isinstance(annotation, dict) else annotation


KEEPS = ("ties", "several", "unranked", "models", "annotator", "ratings", "kind")


def rows(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> Iterator[Record | Left]:
    """One row for each ranking of single-turn prompts. The score is 10 for the best tier, 1 for the last."""
    for vote in votes:
        yield {
            "source": comparison.kind,
            "instruction": json.loads(comparison.messages)[0]["content"],
            "models": [item.model for item in comparison.completions],
            "completions": _scored(comparison, vote),
            "annotator": vote.annotator,
        }
        # An answer with ratings is ranked by them when it has no score of its own.
        ranked = {item for tier in vote.tiers for item in tier}
        if any(item not in ranked for item, _, _ in vote.aspects):
            yield Left(f"{THINGS['ratings']} of {THINGS['unranked']}")


def _scored(comparison: export.ExportedComparison, vote: export.ExportedVote) -> list[Record]:
    place_of = dict(places(vote.tiers))
    step = (MAX_RATING - 1) / max(len(vote.tiers) - 1, 1)
    ratings: dict[int, Record] = {item.id: {} for item in comparison.completions}
    for completion_id, aspect, rating in vote.aspects:
        ratings[completion_id][aspect] = {"Rating": str(rating)}
    return [
        {
            "model": item.model,
            "response": item.text,
            "annotations": ratings[item.id] if item.id in place_of else {},
            "overall_score": round(MAX_RATING - step * place_of[item.id], 2) if item.id in place_of else None,
        }
        for item in comparison.completions
    ]


write = export.Writer(rows, KEEPS, export.without("system", "turns"))
