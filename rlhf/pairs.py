"""Judgments -> preference pairs: what the reward model learns from, frozen as a snapshot with a manifest.

A tier list gives one pair for each two completions in different tiers. Ties, "both bad" and skips give none. Pairs
follow their prompt's split, so no prompt is ever both learned from and measured on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from storage import judgments
from storage.database import Database
from storage.records import AnnotatorKind, JudgedComparison, Message, Split

SNAPSHOT = "pairs.jsonl"


class NotEnoughPairs(Exception):
    """Fewer preference pairs than a round needs; the message says how many are missing."""

    def __init__(self, message: str, *, found: int, needed: int):
        super().__init__(message)
        self.found, self.needed = found, needed


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One completion preferred to another by one annotator. Derived, never stored as data."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    weight: float
    split: Split
    annotator_kind: AnnotatorKind
    judgment_id: int


def derive(judged: list[JudgedComparison]) -> list[PreferencePair]:
    """Every preference pair that these judgments hold, in their order.

    Pairs of identical texts are left out: nothing can be learned from them.
    """
    pairs = []
    for j in judged:
        for better, worse in judgments.ordered_pairs(j.judgment.tiers):
            chosen, rejected = j.completions[better].text, j.completions[worse].text
            if chosen != rejected:
                pairs.append(
                    PreferencePair(j.prompt.messages, chosen, rejected, 1.0, j.prompt.split, j.annotator.kind, j.judgment.id)
                )
    return pairs


def of_store(store: Database, *, include_simulated: bool) -> list[PreferencePair]:
    """The pairs behind every judgment that stands; people's only, unless asked otherwise."""
    kinds: tuple[AnnotatorKind, ...] = ("human", "simulated") if include_simulated else ("human",)
    return derive(judgments.standing(store, kinds=kinds))


def require(pairs: list[PreferencePair], min_pairs: int) -> None:
    """Refuses a round on too little.

    Raises:
        NotEnoughPairs: with the number that is there, the number needed, and what to do.
    """
    if len(pairs) < min_pairs:
        raise NotEnoughPairs(
            f"{len(pairs)} preference pairs, need {min_pairs}: judge {min_pairs - len(pairs)} more comparisons"
            f"{f', or pass --min-pairs {len(pairs)}' if pairs else ''}. Ties and skips give no pair; simulated judgments count only "
            "with --include-simulated.",
            found=len(pairs),
            needed=min_pairs,
        )
    if not any(p.split == "train" for p in pairs):
        raise NotEnoughPairs(
            "every preference pair is on a held-out prompt: judge some comparisons on training prompts.",
            found=len(pairs),
            needed=min_pairs,
        )


def write_snapshot(pairs: list[PreferencePair], folder: Path) -> None:
    """Freezes the pairs into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (SNAPSHOT + ".part")
    temporary.write_bytes(_jsonl(pairs))
    temporary.replace(folder / SNAPSHOT)


def manifest(pairs: list[PreferencePair]) -> dict:
    """What the run's row says of its pairs; `sha256` is that of the snapshot's file."""
    return {
        "pairs": len(pairs),
        "train": sum(p.split == "train" for p in pairs),
        "heldout": sum(p.split == "heldout" for p in pairs),
        "simulated": sum(p.annotator_kind == "simulated" for p in pairs),
        "sha256": hashlib.sha256(_jsonl(pairs)).hexdigest(),
    }


def _jsonl(pairs: list[PreferencePair]) -> bytes:
    return "".join(json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in pairs).encode()


def read_snapshot(folder: Path) -> list[PreferencePair]:
    """The pairs that `write_snapshot` froze."""
    with (folder / SNAPSHOT).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [PreferencePair(**{**row, "prompt": tuple(row["prompt"])}) for row in rows]


def of_split(pairs: list[PreferencePair], split: Literal["train", "heldout"]) -> list[PreferencePair]:
    return [p for p in pairs if p.split == split]
