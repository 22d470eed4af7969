"""Anthropic's HH-RLHF: a chosen and a rejected dialogue, each one text of `\\n\\nHuman: ...` and `\\n\\nAssistant: ...` turns.

The common beginning of the two dialogues, up to its last human turn, is the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from storage.core.records import Message
from storage.exchange import export
from storage.exchange.rows import (
    FIRST,
    HEADINGS,
    BadRow,
    Left,
    NewComparison,
    Record,
    Vote,
    check_different,
    pair,
    split_common_prompt,
    text_of,
)
from storage.judging.judgments import ordered_pairs

_HEADING = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def read(record: Record) -> Iterator[NewComparison]:
    """One comparison with one vote."""
    messages, chosen, rejected = split_common_prompt(dialogue(text_of(record, "chosen")), dialogue(text_of(record, "rejected")))
    check_different(chosen, rejected)
    yield pair(messages, chosen, rejected, [Vote(FIRST)])


def begins_dialogue(text: str) -> bool:
    """Whether a text begins with a turn of the human, after white space or none, and goes on with one of the assistant."""
    return text.lstrip().startswith("Human:") and "\n\nAssistant:" in text


def dialogue(text: str) -> list[Message]:
    """The turns of a dialogue. Text before the first heading is a system message."""
    if text.lstrip().startswith("Human:"):
        # Files without white space at the ends of their texts have none before the first heading.
        text = "\n\n" + text.lstrip()
    before, *parts = _HEADING.split(text)
    if not parts:
        raise BadRow('a dialogue must have turns that begin with "\\n\\nHuman:" and "\\n\\nAssistant:"')
    turns: list[Message] = [{"role": "system", "content": before.strip()}] if before.strip() else []
    for heading, content in zip(parts[::2], parts[1::2], strict=True):
        turns.append({"role": _ROLES[heading], "content": content.strip()})
    return turns


KEEPS = ("system", "turns", "order")


def rows(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> Iterator[Record | Left]:
    """One row for each ordered pair."""
    messages = json.loads(comparison.messages)
    prompt = "".join(_turn(message) for message in messages)
    texts = {completion.id: completion.text for completion in comparison.completions}
    for vote in votes:
        for better, worse in ordered_pairs(vote.tiers):
            row = {"chosen": _dialogue_text(prompt, texts[better]), "rejected": _dialogue_text(prompt, texts[worse])}
            if not _reads_back(row, messages, texts[better], texts[worse]):
                yield Left("pairs that a dialogue tells otherwise: headings, white space")
            yield row


def _reads_back(row: Record, messages: list[Message], better: str, worse: str) -> bool:
    try:
        found = split_common_prompt(dialogue(row["chosen"]), dialogue(row["rejected"]))
    except BadRow:
        return False
    return found == (messages, better, worse)


def _turn(message: Message) -> str:
    if message["role"] == "system":
        return message["content"]
    return f"\n\n{HEADINGS[message['role']]}: {message['content']}"


def _dialogue_text(prompt: str, completion: str) -> str:
    return f"{prompt}\n\nAssistant: {completion}"


write = export.Writer(rows, KEEPS, export.omits_ties, as_pairs=True)
