"""Preference pairs, derived from judgments: the training data of the reward model, written as a snapshot with a manifest.

A ranking gives one pair for each two completions in different tiers. A skip gives no pair; a tie ("both bad" is one) gives
pairs only with `ties=True`. Pairs have their prompt's split, so no prompt is used both for training and for measuring.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from rlhf.runs import typed_json
from storage.content import prompts
from storage.core.database import Database
from storage.core.records import AnnotatorKind, JudgedComparison, Message, Run, Split, Strength, Tiers
from storage.judging import judgments, pair_counts

PAIRS_FILE = "pairs.jsonl"


FEW_MEASURE = 20
"""Held-out pairs below which the accuracy that they measure says little: of 20 pairs the 95% interval is about 40 points wide."""


class NotEnoughPairs(Exception):
    """Fewer preference pairs that teach than a round needs; the message says how many are missing."""

    def __init__(self, message: str, *, found: int, needed: int):
        super().__init__(message)
        self.found, self.needed = found, needed


def in_words(train: int, heldout: int) -> str:
    """`28 teach · 73 measure`: pairs on training prompts teach, pairs on held-out prompts measure, and no pair does both."""
    return f"{train:,} teach · {heldout:,} measure"


def few_measure(heldout: int) -> str | None:
    """What to know before a round with so few pairs that measure; None where there are enough."""
    if heldout >= FEW_MEASURE:
        return None
    if not heldout:
        return "no pair measures: the reward model's accuracy on held-out prompts stays unknown, and with it whether the policy learned"
    return f"{heldout} measure: with fewer than {FEW_MEASURE} the interval of the held-out accuracy is too wide to tell much"


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One completion preferred to another by one annotator. Derived, never stored as data."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    weight: float
    """1 / (K - 1) for a ranking of K, so that each completion counts once whatever K is, times the annotator's weight."""
    split: Split
    annotator_kind: AnnotatorKind
    judgment_id: int
    tie: bool = False
    """The annotator ranked both alike; which one is `chosen` has no meaning."""
    strength: Strength | None = None
    """How much better `chosen` is, where the annotator recorded it."""


def derive(
    judged: list[JudgedComparison], *, ties: bool = False, annotator_weights: Mapping[int, float] | None = None
) -> list[PreferencePair]:
    """Every preference pair of these judgments, in their order.

    Pairs of identical texts are left out: nothing can be learned from them. Ties on held-out prompts are left out too:
    accuracy is measured on preferences alone.

    Args:
        ties: whether completions of one tier make pairs too, marked as ties, after the other pairs of the ranking.
        annotator_weights: by annotator id; an annotator who is missing has weight 1.
    """
    pairs = []
    for j in judged:
        weight = (annotator_weights or {}).get(j.annotator.id, 1.0) / max(1, sum(map(len, j.judgment.tiers)) - 1)
        with_ties = ties and j.prompt.split == "train"
        for first, second, tie in _related(j.judgment.tiers, with_ties):
            chosen, rejected = j.completions[first].text, j.completions[second].text
            if chosen != rejected:
                pairs.append(
                    PreferencePair(
                        j.prompt.messages,
                        chosen,
                        rejected,
                        weight,
                        j.prompt.split,
                        j.annotator.kind,
                        j.judgment.id,
                        tie,
                        j.judgment.strength,
                    )
                )
    return pairs


def _related(tiers: Tiers, ties: bool) -> Iterator[tuple[int, int, bool]]:
    for better, worse in judgments.ordered_pairs(tiers):
        yield better, worse, False
    for tier in tiers if ties else ():
        for first, second in combinations(tier, 2):
            yield first, second, True


def of_store(
    store: Database,
    *,
    include_simulated: bool,
    demo_votes: bool = False,
    ties: bool = False,
    annotator_weights: Mapping[int, float] | None = None,
) -> list[PreferencePair]:
    """The pairs of every active judgment: of people, and with `include_simulated` of simulated annotators. Arguments as in `derive`.

    Judgments on starter prompts are left out while those prompts are not in use (`storage.content.prompts`), and votes of the Demo page
    unless `demo_votes` asks for them.
    """
    judged = judgments.active(store, kinds=_kinds(include_simulated), for_training=True, demo_votes=demo_votes)
    return derive(judged, ties=ties, annotator_weights=annotator_weights)


def _kinds(include_simulated: bool) -> tuple[AnnotatorKind, ...]:
    return ("human", "simulated") if include_simulated else ("human",)


def require(pairs: list[PreferencePair], min_pairs: int, *, unused_starter_votes: int = 0) -> None:
    """Checks that there are enough preference pairs that teach, which are those on training prompts.

    Args:
        unused_starter_votes: votes that are left out because the starter prompts are not in use.

    Raises:
        NotEnoughPairs: there are too few; the message has both numbers and the remedy.
    """
    preferred = [p for p in pairs if not p.tie]
    train = sum(p.split == "train" for p in preferred)
    _require(train, len(preferred) - train, min_pairs, unused_starter_votes)
    if not any(p.weight for p in preferred if p.split == "train"):
        raise NotEnoughPairs(
            f"{in_words(train, len(preferred) - train)}, and all that teach have the weight 0: by gold answers and agreement, no "
            "annotator judges better than chance. Leave out --reward-annotator-weights, or let several annotators judge more comparisons.",
            found=0,
            needed=min_pairs,
        )


def require_in_store(store: Database, min_pairs: int, *, include_simulated: bool, demo_votes: bool = False) -> None:
    """As `require` for the pairs of a store, which are counted without loading them."""
    kinds, counts = _kinds(include_simulated), pair_counts.count(store, demo_votes=demo_votes)
    train, heldout = (counts.total(*kinds, splits=(split,)) for split in ("train", "heldout"))
    _require(train, heldout, min_pairs, 0 if train >= max(1, min_pairs) else prompts.unused_starter_votes(store))


def _require(train: int, heldout: int, min_pairs: int, unused_starter_votes: int) -> None:
    left_out = (
        f" {unused_starter_votes} votes on starter prompts are left out, because the store has prompts of its own: to train on them "
        "too, `rankloop prompts --starters on`."
        if unused_starter_votes
        else ""
    )
    needed = max(1, min_pairs)
    if train < needed:
        raise NotEnoughPairs(
            f"{in_words(train, heldout)}: a round needs {needed} preference pairs that teach, which are those on training prompts. Judge "
            f"{needed - train} more comparisons on training prompts{f', or pass --min-pairs {train}' if train else ''}. "
            "Ties and skips give no pair; simulated judgments count only with --include-simulated." + left_out,
            found=train,
            needed=needed,
        )


def write_snapshot(pairs: list[PreferencePair], folder: Path) -> None:
    """Writes the pairs to a file in `folder`; the file appears only once it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (PAIRS_FILE + ".part")
    temporary.write_bytes(_jsonl(pairs))
    temporary.replace(folder / PAIRS_FILE)


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """Counts of a snapshot's pairs, for the run's row. Ties are counted separately."""

    pairs: int = 0
    train: int = 0
    heldout: int = 0
    simulated: int = 0
    sha256: str = ""
    """Hash of the snapshot's file."""
    ties: int | None = None
    """None where there are none."""
    labels: int | None = None
    """Answers of the store called good or bad, which no round is trained on; None where there are none."""
    demo_votes: int | None = None
    """Votes of the Demo page that the round was not asked to learn from; None where there are none."""

    def to_json(self) -> dict[str, Any]:
        return typed_json.to_json(self)


def manifest(pairs: list[PreferencePair], *, labels: int = 0, demo_votes: int = 0) -> SnapshotManifest:
    preferred = [p for p in pairs if not p.tie]
    return SnapshotManifest(
        pairs=len(preferred),
        train=sum(p.split == "train" for p in preferred),
        heldout=sum(p.split == "heldout" for p in preferred),
        simulated=sum(p.annotator_kind == "simulated" for p in preferred),
        sha256=hashlib.sha256(_jsonl(pairs)).hexdigest(),
        ties=len(pairs) - len(preferred) or None,
        labels=labels or None,
        demo_votes=demo_votes or None,
    )


def manifest_of_run(run: Run) -> SnapshotManifest:
    """The manifest in the run's row; empty before the snapshot is taken.

    Raises:
        UnreadableRecord: rankloop did not write it.
    """
    return typed_json.from_json(SnapshotManifest, run.snapshot or {})


def _jsonl(pairs: list[PreferencePair]) -> bytes:
    return "".join(json.dumps(_row(p), ensure_ascii=False) + "\n" for p in pairs).encode()


def _row(pair: PreferencePair) -> dict[str, Any]:
    """The fields of a pair, `tie` and `strength` only where they are set: so older snapshots keep their hash."""
    row = asdict(pair)
    return {name: value for name, value in row.items() if name not in ("tie", "strength") or value}


def read_snapshot(folder: Path) -> list[PreferencePair]:
    """The pairs that `write_snapshot` wrote."""
    with (folder / PAIRS_FILE).open(encoding="utf-8") as file:
        return [of_row(json.loads(line)) for line in file]


def of_row(row: Mapping[str, Any]) -> PreferencePair:
    """The pair whose fields a JSON object has."""
    return PreferencePair(**{**row, "prompt": tuple(row["prompt"])})


def of_split(pairs: list[PreferencePair], split: Literal["train", "heldout"]) -> list[PreferencePair]:
    return [p for p in pairs if p.split == split]
