"""Chatbot Arena battles: the same person talks to two models and votes for the better one.

The turns that both conversations share are the prompt; all later turns are the completion, because the vote is on all of
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from storage.core.records import Message
from storage.exchange import export, field_maps, verdicts
from storage.exchange.rows import (
    BadRow,
    Found,
    Left,
    Record,
    Vote,
    conversation,
    name_of,
    number_of,
    pair,
    split_common_prompt,
    timestamp,
)

IGNORED_FIELDS = ("question_id", "id")


def read(record: Record) -> Iterator[Found]:
    """One comparison with one vote."""
    models = name_of(record.get("model_a")), name_of(record.get("model_b"))
    winner = record.get("winner")
    outcome = verdicts.outcome_of(field_maps.FieldMap(), winner, models)
    if outcome is None:
        raise BadRow(f"winner must be model_a, model_b, tie or tie (bothbad), or the name of a model, not {winner!r}")
    turn = number_of(record.get("turn"))
    both = [conversation(record.get(side), what=side) for side in ("conversation_a", "conversation_b")]
    judged = [_judged(turns, turn) for turns in both]
    if later := sum(map(len, both)) - sum(map(len, judged)):
        yield Left("turns after the one that was judged", later)
    messages, left, right = split_common_prompt(*judged)
    vote = Vote(
        verdicts.tiers_of(outcome, 2),
        name_of(record.get("judge")),
        all_bad=outcome == "both_bad",
        shown=None if record.get(field_maps.SIDES_KNOWN) is False else (0, 1),
        created_at=timestamp(record.get("tstamp", record.get("timestamp"))),
    )
    yield pair(messages, left, right, [vote], models=models)


def _judged(turns: list[Message], turn: float | None) -> list[Message]:
    """The turns that a vote is about: MT-bench's votes on the first answers come with conversations of two."""
    answers = [place for place, message in enumerate(turns) if message["role"] == "assistant"]
    return turns if turn is None or not 1 <= turn < len(answers) else turns[: answers[int(turn) - 1] + 1]


KEEPS = ("system", "turns", "order", "ties", "all_bad", "models", "annotator", "time", "sides")


def rows(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> Iterator[Record]:
    """One battle for each vote on two completions, a on the left as its judge saw them."""
    messages = json.loads(comparison.messages)
    answers = {item.id: item for item in comparison.completions}
    for vote in votes:
        left, right = (answers[completion_id] for completion_id in vote.slots)
        row = {
            "question_id": f"comparison-{comparison.id}",
            "model_a": left.model,
            "model_b": right.model,
            "winner": _winner(vote, left.id),
            "judge": vote.annotator,
            "conversation_a": [*messages, {"role": "assistant", "content": left.text}],
            "conversation_b": [*messages, {"role": "assistant", "content": right.text}],
            "tstamp": datetime.fromisoformat(vote.created_at).timestamp(),
        }
        # A battle has sides; where nobody recorded them, the row says so.
        yield row if vote.sides_known else row | {field_maps.SIDES_KNOWN: False}


def _winner(vote: export.ExportedVote, left: int) -> str:
    if len(vote.tiers) < 2:
        return "tie (bothbad)" if vote.all_bad else "tie"
    return "model_a" if vote.tiers[0][0] == left else "model_b"


write = export.Writer(rows, KEEPS, export.without("several"))
