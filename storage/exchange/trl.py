"""Judgments as TRL's preference dataset: conversational, with the prompt explicit, one JSONL row for each ordered pair.

`RewardTrainer` and `DPOTrainer` read it as it is. Nothing is weighted here, and annotators appear by number only.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage import judgments
from storage.database import Database, StoreError, to_json
from storage.records import AnnotatorKind, Completion, JudgedComparison


def write(store: Database, path: Path | str, *, include_simulated: bool = False) -> int:
    """Writes the standing rankings as pairs and returns how many. The file appears whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    kinds: tuple[AnnotatorKind, ...] = ("human", "simulated") if include_simulated else ("human",)
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    written = 0
    try:
        try:
            with open(unfinished, "x", encoding="utf-8", newline="\n") as file, store.snapshot():
                for judged in judgments.stream(store, kinds=kinds):
                    for row in _rows(judged):
                        file.write(to_json(row) + "\n")
                        written += 1
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error
    return written


def _rows(judged: JudgedComparison) -> Iterator[dict[str, Any]]:
    for better, worse in judgments.ordered_pairs(judged.judgment.tiers):
        yield {
            "prompt": list(judged.prompt.messages),
            "chosen": _turn(judged.completions[better]),
            "rejected": _turn(judged.completions[worse]),
            "annotator": f"a{judged.annotator.id}",
            "annotator_kind": judged.annotator.kind,
            "kind": judged.prompt.kind,
            "split": judged.prompt.split,
        }


def _turn(completion: Completion) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": completion.text}]
