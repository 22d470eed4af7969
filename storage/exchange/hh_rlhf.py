"""Anthropic's HH-RLHF: a chosen and a rejected dialogue, each one text of `\\n\\nHuman: ...` and `\\n\\nAssistant: ...` turns.

The common beginning of the two dialogues, up to its last human turn, is the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from storage.core.database import Database, to_json
from storage.core.records import Message
from storage.exchange import export, files
from storage.exchange.files import Progress
from storage.exchange.rows import FIRST, HEADINGS, BadRow, NewComparison, Record, Vote, check_different, pair, split_common_prompt, text_of
from storage.judging.judgments import ordered_pairs

_HEADING = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def read(record: Record) -> Iterator[NewComparison]:
    """One comparison with one vote."""
    messages, chosen, rejected = split_common_prompt(dialogue(text_of(record, "chosen")), dialogue(text_of(record, "rejected")))
    check_different(chosen, rejected)
    yield pair(messages, chosen, rejected, [Vote(FIRST)])


def dialogue(text: str) -> list[Message]:
    """The turns of a dialogue. Text before the first heading is a system message."""
    before, *parts = _HEADING.split(text)
    if not parts:
        raise BadRow('a dialogue must have turns that begin with "\\n\\nHuman:" and "\\n\\nAssistant:"')
    turns: list[Message] = [{"role": "system", "content": before.strip()}] if before.strip() else []
    for heading, content in zip(parts[::2], parts[1::2], strict=True):
        turns.append({"role": _ROLES[heading], "content": content.strip()})
    return turns


def write(
    store: Database, path: Path | str, *, include_simulated: bool = False, names: bool = False, progress: Progress | None = None
) -> int:
    """One row for each ordered pair; returns how many."""
    written = 0
    with files.atomic_write_text(path) as file, store.snapshot():
        for comparison, votes in export.grouped(store, simulated=include_simulated, names=names, progress=progress):
            prompt = "".join(_turn(message) for message in json.loads(comparison.messages))
            texts = {completion.id: completion.text for completion in comparison.completions}
            for vote in votes:
                for better, worse in ordered_pairs(vote.tiers):
                    row = {"chosen": _dialogue_text(prompt, texts[better]), "rejected": _dialogue_text(prompt, texts[worse])}
                    file.write(to_json(row) + "\n")
                    written += 1
    return written


def _turn(message: Message) -> str:
    if message["role"] == "system":
        return message["content"]
    return f"\n\n{HEADINGS[message['role']]}: {message['content']}"


def _dialogue_text(prompt: str, completion: str) -> str:
    return f"{prompt}\n\nAssistant: {completion}"
