"""TRL's preference datasets. A ranking of K completions is all its ordered pairs, one JSONL row each.

Four forms are read and recognised by the row itself: an explicit prompt field, or an implicit prompt that chosen and
rejected begin with, each as text or as messages. The two forms with messages are written; `RewardTrainer` and `DPOTrainer`
read them unchanged. Pairs have no weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.encoder import encode_basestring as quoted
from pathlib import Path
from typing import Any

from storage.core.database import Database
from storage.core.records import Message
from storage.exchange import export, files, hh_rlhf
from storage.exchange.files import Progress
from storage.exchange.rows import (
    FIRST,
    BadRow,
    NewComparison,
    Record,
    Vote,
    as_text,
    check_different,
    conversation,
    name_of,
    pair,
    split_common_prompt,
    text_of,
    timestamp,
)
from storage.judging.judgments import ordered_pairs


def read(record: Record) -> Iterator[NewComparison]:
    """One comparison with one vote."""
    messages, chosen, rejected = _parts(record)
    check_different(chosen, rejected)
    simulated = record.get("annotator_kind") == "simulated"
    vote = Vote(
        FIRST,
        name_of(record.get("annotator")),
        (name_of(record.get("annotator_rule")) or "unknown") if simulated else None,
        created_at=timestamp(record.get("created_at")),
    )
    yield pair(
        messages,
        chosen,
        rejected,
        [vote],
        models=(name_of(record.get("chosen_model")), name_of(record.get("rejected_model"))),
        kind=name_of(record.get("kind")) or "imported",
        split=record.get("split") if record.get("split") in ("train", "heldout") else None,
    )


def _parts(record: Record) -> tuple[list[Message], str, str]:
    chosen, rejected, prompt = record.get("chosen"), record.get("rejected"), record.get("prompt")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadRow("chosen and rejected must both be text, or both messages")
    if isinstance(chosen, str):
        if prompt is None:
            return _parted_text(chosen, text_of(record, "rejected"))
        return _prompt(prompt), chosen, text_of(record, "rejected")
    left, right = conversation(chosen, what="chosen"), conversation(rejected, what="rejected")
    # Some files repeat the prompt as text beside conversations that begin with it.
    if prompt is None or (isinstance(prompt, str) and left[0]["role"] != "assistant"):
        return split_common_prompt(left, right)
    return _prompt(prompt), as_text(left), as_text(right)


def _prompt(value: Any) -> list[Message]:
    return [{"role": "user", "content": value}] if isinstance(value, str) else conversation(value, what="prompt")


def _parted_text(chosen: str, rejected: str) -> tuple[list[Message], str, str]:
    check_different(chosen, rejected)
    if chosen.startswith("\n\nHuman:"):
        return split_common_prompt(hh_rlhf.dialogue(chosen), hh_rlhf.dialogue(rejected))
    # Cut between words: "blue" and "black" differ from their first letter on.
    letters = enumerate(zip(chosen, rejected, strict=False))
    common = next((at for at, (one, other) in letters if one != other), min(len(chosen), len(rejected)))
    while common and not _between_words(chosen, rejected, common):
        common -= 1
    prompt = chosen[:common].rstrip()
    if not prompt:
        raise BadRow("chosen and rejected share no prompt: they must begin with the same words")
    return [{"role": "user", "content": prompt}], chosen[len(prompt) :].lstrip(), rejected[len(prompt) :].lstrip()


def _between_words(chosen: str, rejected: str, at: int) -> bool:
    return not any(re.match(r"\w\w", text[at - 1 : at + 1]) for text in (chosen, rejected))


def write(
    store: Database,
    path: Path | str,
    *,
    include_simulated: bool = False,
    names: bool = False,
    progress: Progress | None = None,
    implicit: bool = False,
) -> int:
    """Writes the votes as pairs and returns how many. The file appears whole or not at all.

    Annotators appear by pseudonym, or with `names` by their names. With `implicit` the prompt has no field
    of its own: chosen and rejected begin with it.

    Raises:
        StoreError: the file cannot be written.
    """
    written = 0
    lines = _implicit if implicit else _explicit
    with files.atomic_write_text(path) as file, store.snapshot():
        for comparison, rows in export.merged(store, simulated=include_simulated, names=names, progress=progress):
            turns = {answer.id: f'{{"role":"assistant","content":{quoted(answer.text)}}}' for answer in comparison.completions}
            about = f',"kind":{quoted(comparison.kind)},"split":"{comparison.split}"}}\n'
            for _, _, tiers, annotator, kind in rows:
                end = f',"annotator":{quoted(annotator)},"annotator_kind":"{kind}"{about}'
                for better, worse in ordered_pairs(json.loads(tiers)):
                    file.write(lines(comparison.messages, turns[better], turns[worse]) + end)
                    written += 1
    return written


# Rows are assembled from JSON text: decoding and encoding the same prompt for each of its pairs took two thirds of the time.
def _explicit(messages: str, better: str, worse: str) -> str:
    return f'{{"prompt":{messages},"chosen":[{better}],"rejected":[{worse}]'


def _implicit(messages: str, better: str, worse: str) -> str:
    return f'{{"chosen":{messages[:-1]},{better}],"rejected":{messages[:-1]},{worse}]'


def write_implicit(
    store: Database, path: Path | str, *, include_simulated: bool = False, names: bool = False, progress: Progress | None = None
) -> int:
    """As `write`, with the prompt implicit."""
    return write(store, path, include_simulated=include_simulated, names=names, progress=progress, implicit=True)
