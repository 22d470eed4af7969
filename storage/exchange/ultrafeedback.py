"""UltraFeedback: an instruction and the scored completions of several models.

The completions are ranked by `overall_score`, or by the mean of the ratings in `annotations` if there is no score. The
public file was scored by GPT-4: import it with a rule, so that its votes are not counted as people's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from storage.core.database import Database, to_json
from storage.exchange import export, files
from storage.exchange.files import Progress
from storage.exchange.rows import BadRow, NewComparison, Record, Vote, by_score, name_of, number_of, places, text_of

LONGEST_SCALE = 10


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
        tuple(name_of(answer.get("model")) for answer in answers),
        (Vote(tiers, aspects=aspects),) if rated else (),
        kind=name_of(record.get("source")) or "imported",
    )


def _score(answer: Record) -> float | None:
    overall = number_of(answer.get("overall_score"))
    if overall is not None:
        return overall
    ratings = [number for rating in _annotations(answer).values() if (number := number_of(_rating(rating))) is not None]
    return fmean(ratings) if ratings else None


def _ratings(answer: Record) -> dict[str, int]:
    """The ratings that can be stored as aspects: whole numbers from 1 to `LONGEST_SCALE`."""
    numbers = {aspect: number_of(_rating(rating)) for aspect, rating in _annotations(answer).items()}
    return {aspect: int(number) for aspect, number in numbers.items() if number is not None and number in range(1, LONGEST_SCALE + 1)}


def _annotations(answer: Record) -> Mapping[str, Any]:
    annotations = answer.get("annotations")
    return annotations if isinstance(annotations, dict) else {}


def _rating(annotation: Any) -> Any:
    if isinstance(annotation, (list, tuple)) and annotation:
        annotation = annotation[0]
    return annotation.get("Rating") if isinstance(annotation, dict) else annotation


def write(
    store: Database, path: Path | str, *, include_simulated: bool = False, names: bool = False, progress: Progress | None = None
) -> int:
    """One row for each ranking of single-turn prompts; returns how many. The score is 10 for the best tier, 1 for the last."""
    written = 0
    with files.atomic_write_text(path) as file, store.snapshot():
        for comparison, votes in export.grouped(store, simulated=include_simulated, names=names, progress=progress):
            turns = json.loads(comparison.messages)
            if len(turns) > 1:
                continue
            for vote in votes:
                row = {
                    "source": comparison.kind,
                    "instruction": turns[0]["content"],
                    "models": [item.model for item in comparison.completions],
                    "completions": _scored(comparison, vote),
                    "annotator": vote.annotator,
                }
                file.write(to_json(row) + "\n")
                written += 1
    return written


def _scored(comparison: export.ExportedComparison, vote: export.ExportedVote) -> list[Record]:
    place_of = dict(places(vote.tiers))
    step = (LONGEST_SCALE - 1) / max(len(vote.tiers) - 1, 1)
    return [
        {
            "model": item.model,
            "response": item.text,
            "overall_score": round(LONGEST_SCALE - step * place_of[item.id], 2) if item.id in place_of else None,
        }
        for item in comparison.completions
    ]
