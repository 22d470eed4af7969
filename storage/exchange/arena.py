"""Chatbot Arena battles: the same person talks to two models and votes for the better one.

The turns that both conversations share are the prompt; all later turns are the completion, because the vote is on all of
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from storage.core.records import Message
from storage.exchange import export, field_maps
from storage.exchange.rows import (
    FIRST,
    SECOND,
    TIE,
    BadRow,
    NewComparison,
    Record,
    Vote,
    conversation,
    name_of,
    number_of,
    pair,
    split_common_prompt,
    timestamp,
)

BOTH_BAD = ("tie (bothbad)", "both_bad", "bothbad")
TIERS_OF = {"model_a": FIRST, "model_b": SECOND, "tie": TIE} | dict.fromkeys(BOTH_BAD, TIE)


def read(record: Record) -> Iterator[NewComparison]:
    """One comparison with one vote."""
    winner = record.get("winner")
    if not isinstance(winner, str) or winner not in TIERS_OF:
        raise BadRow(f"winner must be model_a, model_b, tie or tie (bothbad), not {winner!r}")
    turn = number_of(record.get("turn"))
    messages, left, right = split_common_prompt(
        _judged(conversation(record.get("conversation_a"), what="conversation_a"), turn),
        _judged(conversation(record.get("conversation_b"), what="conversation_b"), turn),
    )
    vote = Vote(
        TIERS_OF[winner],
        name_of(record.get("judge")),
        all_bad=winner in BOTH_BAD,
        shown=None if record.get(field_maps.SIDES_KNOWN) is False else (0, 1),
        created_at=timestamp(record.get("tstamp", record.get("timestamp"))),
    )
    yield pair(messages, left, right, [vote], models=(name_of(record.get("model_a")), name_of(record.get("model_b"))))


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
        return BOTH_BAD[0] if vote.all_bad else "tie"
    return "model_a" if vote.tiers[0][0] == left else "model_b"


write = export.Writer(rows, KEEPS, export.without("several"))
