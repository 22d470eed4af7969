"""Label Studio's JSON export of pairwise tasks: the data of each task, and who selected `left` or `right`.

The export does not name the fields that were shown left and right. They are taken from pairs of usual names (`left` and
`right`, `answer1` and `answer2`, ...), then from the two names in `to_name`, then from the only two fields besides the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.core.database import Database, to_json
from storage.core.records import Message, Tiers
from storage.exchange import export, files
from storage.exchange.files import Progress
from storage.exchange.rows import FIRST, SECOND, BadRow, NewComparison, Record, Vote, conversation, name_of, number_of, pair, timestamp

PROMPT_FIELDS = ("prompt", "instruction", "question", "messages", "dialogue", "context", "text")
STEMS = ("", "answer", "response", "text", "completion", "output", "reply", "summary", "generation")
ENDINGS = (("left", "right"), ("1", "2"), ("_1", "_2"), ("a", "b"), ("_a", "_b"), ("_left", "_right"))
PAIRS = [(stem + one, stem + other) for stem in STEMS for one, other in ENDINGS]


def read(record: Record) -> Iterator[NewComparison]:
    """One comparison, with a vote for each annotation that selects a side."""
    data = record.get("data")
    if not isinstance(data, dict):
        raise BadRow("needs data, an object")
    annotations = record.get("annotations", record.get("completions", ()))
    if not isinstance(annotations, (list, tuple)) or not all(isinstance(one, dict) for one in annotations):
        raise BadRow("annotations must be a list of objects")
    selections = [(one, selected) for one in annotations if not one.get("was_cancelled") and (selected := _selected(one))]
    left, right = _sides(data, [result for _, result in selections])
    gold_tiers = [_tiers(result) for one, result in selections if one.get("ground_truth")]
    yield pair(
        _prompt(data, (left, right)),
        data[left],
        data[right],
        [_vote(one, result) for one, result in selections if not one.get("ground_truth")],
        models=(name_of(data.get(f"{left}_model")), name_of(data.get(f"{right}_model"))),
        gold=gold_tiers[-1] if gold_tiers else None,
    )


def _selected(annotation: Record) -> Record | None:
    """The pairwise result of an annotation."""
    results = annotation.get("result")
    for result in results if isinstance(results, (list, tuple)) else ():
        if isinstance(result, dict) and result.get("type") == "pairwise":
            return result
    return None


def _tiers(result: Record) -> Tiers:
    value = result.get("value")
    side = value.get("selected") if isinstance(value, dict) else None
    if side not in ("left", "right"):
        raise BadRow(f"selected must be left or right, not {side!r}")
    return FIRST if side == "left" else SECOND


def _vote(annotation: Record, result: Record) -> Vote:
    seconds = number_of(annotation.get("lead_time"))
    return Vote(
        _tiers(result),
        _annotator(annotation.get("completed_by")),
        created_at=timestamp(annotation.get("created_at")),
        client_ms=None if seconds is None or seconds < 0 else round(seconds * 1000),
    )


def _annotator(value: Any) -> str | None:
    if isinstance(value, dict):
        return name_of(value.get("email")) or name_of(value.get("username")) or _annotator(value.get("id"))
    name = name_of(value)
    return f"labelstudio-{name}" if name and name.isdecimal() else name


def _sides(data: Mapping[str, Any], results: Sequence[Record]) -> tuple[str, str]:
    texts = [name for name, value in data.items() if isinstance(value, str)]
    for left, right in PAIRS:
        if left in texts and right in texts:
            return left, right
    for result in results:
        named = [name.strip() for name in str(result.get("to_name", "")).split(",")]
        if len(named) == 2 and all(name in texts for name in named):
            return named[0], named[1]
    others = [name for name in texts if name not in PROMPT_FIELDS]
    if len(others) != 2:
        raise BadRow("which fields of data are left and right? Name them left and right")
    return others[0], others[1]


def _prompt(data: Mapping[str, Any], sides: tuple[str, str]) -> list[Message]:
    values = [data[name] for name in PROMPT_FIELDS if name in data and name not in sides]
    if not values:
        raise BadRow(f"data has no prompt: name it {', '.join(PROMPT_FIELDS[:-1])} or {PROMPT_FIELDS[-1]}")
    return [{"role": "user", "content": values[0]}] if isinstance(values[0], str) else conversation(values[0], what="prompt")


def write(
    store: Database, path: Path | str, *, include_simulated: bool = False, names: bool = False, progress: Progress | None = None
) -> int:
    """A JSON list with one task for each comparison of two that was judged; returns how many.

    Label Studio's pairwise tag has no ties, so tied votes are left out.
    """
    written = 0
    with files.atomic_write_text(path) as file, store.snapshot():
        file.write("[")
        for comparison, votes in export.grouped(store, simulated=include_simulated, names=names, progress=progress):
            decided = [vote for vote in votes if len(vote.tiers) == 2]
            if len(comparison.completions) != 2 or not decided:
                continue
            file.write(",\n" if written else "\n")
            file.write(to_json(_task(comparison, decided)))
            written += 1
        file.write("\n]\n")
    return written


def _task(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> dict[str, Any]:
    left, right = comparison.completions
    turns = json.loads(comparison.messages)
    return {
        "id": comparison.id,
        "data": {
            "prompt": turns[0]["content"] if len(turns) == 1 else turns,
            "left": left.text,
            "right": right.text,
            "left_model": left.model,
            "right_model": right.model,
        },
        "annotations": [
            {
                "id": vote.id,
                "completed_by": {"email": vote.annotator},
                "created_at": vote.created_at,
                "was_cancelled": False,
                "ground_truth": False,
                "result": [
                    {
                        "type": "pairwise",
                        "from_name": "pairwise",
                        "to_name": "left,right",
                        "value": {"selected": "left" if vote.tiers[0][0] == left.id else "right"},
                    }
                ],
            }
            for vote in votes
        ],
    }
