"""HelpSteer3 preferences: a context, two responses, and how much better the second one is, from -3 to 3.

-3 is response 1 much better, 0 about the same, 3 response 2 much better. If the record has the annotators'
own scores (`individual_preference`), those are the votes, and the overall score, which summarises them, is not imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from storage.core.records import Strength
from storage.exchange import export
from storage.exchange.rows import (
    FIRST,
    SECOND,
    TIE,
    BadRow,
    Left,
    NewComparison,
    Record,
    Vote,
    conversation,
    name_of,
    number_of,
    pair,
    text_of,
)

STRENGTH_OF: dict[int, Strength] = {1: "slightly", 2: "better", 3: "significantly"}
SCORE_OF: dict[str | None, int] = {"negligibly": 1, "slightly": 1, "better": 2, "significantly": 3, None: 2}


def read(record: Record) -> Iterator[NewComparison]:
    """One comparison with a vote for each annotator."""
    individual = record.get("individual_preference")
    if individual is not None and not isinstance(individual, (list, tuple)):
        raise BadRow("individual_preference must be a list")
    scored = [_vote(one, f"helpsteer3-{number}") for number, one in enumerate(individual or (), start=1)]
    votes = [vote for vote in scored if vote is not None]
    if not votes and record.get("overall_preference") is not None:
        votes = [_ranked(record["overall_preference"], None, "")]
    yield pair(
        conversation(record.get("context"), what="context"),
        text_of(record, "response1"),
        text_of(record, "response2"),
        votes,
        models=(name_of(record.get("model1")), name_of(record.get("model2"))),
        kind=name_of(record.get("domain")) or "imported",
    )


def _vote(one: Any, default_name: str) -> Vote | None:
    if not isinstance(one, dict):
        raise BadRow("each individual_preference must be an object with a score")
    if one.get("score") is None:
        return None
    reasoning = one.get("reasoning")
    return _ranked(one["score"], name_of(one.get("annotator")) or default_name, reasoning if isinstance(reasoning, str) else "")


def _ranked(preference: Any, annotator: str | None, rationale: str) -> Vote:
    score = number_of(preference)
    if score is None or score not in range(-3, 4):
        raise BadRow(f"a preference must be a whole number from -3 to 3, not {preference!r}")
    tiers = TIE if score == 0 else SECOND if score > 0 else FIRST
    return Vote(tiers, annotator, strength=STRENGTH_OF.get(abs(int(score))), rationale=rationale)


KEEPS = ("system", "turns", "order", "ties", "models", "annotator", "reason", "strength", "kind")


def rows(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> Iterator[Record | Left]:
    """One row for the votes on two completions. The overall score is the rounded mean."""
    if not votes:
        return
    first, second = comparison.completions
    scores = [_score(vote, second.id) for vote in votes]
    yield {
        "domain": comparison.kind,
        "context": json.loads(comparison.messages),
        "response1": first.text,
        "response2": second.text,
        "model1": first.model,
        "model2": second.model,
        "overall_preference": round(fmean(scores)),
        "individual_preference": [
            {"score": score, "reasoning": vote.rationale, "annotator": vote.annotator} for score, vote in zip(scores, votes, strict=True)
        ],
    }
    for vote in votes:
        if len(vote.tiers) > 1 and vote.strength is None:
            yield Left("judgments without a strength, written with that of better")
        elif vote.strength == "negligibly":
            yield Left("strengths of negligibly, written as slightly")


def _score(vote: export.ExportedVote, second: int) -> int:
    if len(vote.tiers) < 2:
        return 0
    return SCORE_OF[vote.strength] if vote.tiers[0][0] == second else -SCORE_OF[vote.strength]


write = export.Writer(rows, KEEPS, export.without("several"))
