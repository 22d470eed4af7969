"""Open-Assistant trees: one conversation tree per line, in which replies have a rank among their siblings.

Two or more ranked assistant replies to the same message are a comparison, with rank 0 the best; the path from the root is
the prompt. Replies without a rank and deleted replies are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from storage.core.records import Message
from storage.exchange import export
from storage.exchange.rows import BadRow, Found, Left, NewComparison, Record, Vote, by_rank, name_of, number_of, places

_ROLES = {"prompter": "user", "assistant": "assistant"}
_HEADINGS = {"user": "prompter", "assistant": "assistant"}

MAX_TREE_DEPTH = 200
"""Most turns of a conversation."""


IGNORED_FIELDS = (
    "message_tree_id", "tree_state",
    *(f"{at}{name}" for at in ("prompt.", "prompt.replies[].", "rows[].") for name in (
        "message_id", "parent_id", "message_tree_id", "tree_state", "review_count", "review_result", "synthetic", "deleted", "rank",
        "role", "model_name", "created_date")),
)  # fmt: skip


def read(record: Record) -> Iterator[Found]:
    """One comparison for each set of ranked siblings in the tree."""
    yield from _comparisons_in(_reply(record.get("prompt")), ())


def _comparisons_in(reply: Record, earlier: tuple[Message, ...]) -> Iterator[Found]:
    if len(earlier) >= MAX_TREE_DEPTH:
        raise BadRow(f"a conversation of more than {MAX_TREE_DEPTH} turns")
    role = _ROLES.get(str(reply.get("role")))
    text = reply.get("text")
    if role is None or not isinstance(text, str):
        raise BadRow("each message must have a text, and the role prompter or assistant")
    turn: Message = {"role": role, "content": text}
    messages = (*earlier, turn)
    replies = reply.get("replies")
    if replies is None:
        return
    if not isinstance(replies, (list, tuple)):
        raise BadRow("replies must be a list")
    replies = [_reply(item) for item in replies]
    ranked = [item for item in replies if number_of(item.get("rank")) is not None and not item.get("deleted")]
    if role == "user" and len(ranked) >= 2:
        yield _comparison(messages, ranked)
    compared = len(ranked) if len(ranked) >= 2 else 0
    if role == "user" and len(replies) > max(compared, 1):
        yield Left("replies without a rank", len(replies) - compared)
    for item in replies:
        yield from _comparisons_in(item, messages)


def _comparison(messages: tuple[Message, ...], ranked: list[Record]) -> NewComparison:
    texts: list[Any] = [item.get("text") for item in ranked]
    return NewComparison(
        messages,
        tuple(texts),
        tuple(_model(item) for item in ranked),
        (Vote(by_rank([number_of(item["rank"]) for item in ranked])),),
        kind="conversation" if len(messages) > 1 else "imported",
    )


def _model(reply: Record) -> str | None:
    # A reply that is marked as not synthetic was written by a volunteer.
    return name_of(reply.get("model_name")) or ("human" if reply.get("synthetic") is False else None)


def _reply(value: Any) -> Record:
    if not isinstance(value, dict):
        raise BadRow("needs a prompt with role, text and replies")
    return value


KEEPS = ("turns", "order", "ties", "several", "models")


def rows(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> Iterator[Record]:
    """One tree for each ranking, its siblings ranked as in it; equal ranks are ties."""
    turns = json.loads(comparison.messages)
    for vote in votes:
        rank_of = dict(places(vote.tiers))
        replies: list[Record] = [
            {"text": item.text, "role": "assistant", "model_name": item.model, "rank": rank_of.get(item.id), "replies": []}
            for item in comparison.completions
        ]
        yield {"message_tree_id": f"judgment-{vote.id}", "prompt": _tree(turns, replies)}


def _tree(turns: list[Message], replies: list[Record]) -> Record:
    for turn in reversed(turns):
        replies = [{"text": turn["content"], "role": _HEADINGS[turn["role"]], "replies": replies}]
    return replies[0]


write = export.Writer(rows, KEEPS, export.without("system"))
