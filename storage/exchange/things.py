"""What a judgment may hold beside a prompt and which of two answers is better, in words that readers, writers and documents share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from storage.content import prompts
from storage.core.records import Message

if TYPE_CHECKING:
    from storage.exchange.export import ExportedComparison, ExportedVote

THINGS = {
    "system": "system messages", "turns": "earlier turns", "order": "turns of one role in a row", "ties": "ties",
    "several": "rankings of more than two answers", "unranked": "answers that were not ranked", "all_bad": "marks that all answers are bad",
    "models": "model names", "annotator": "annotators", "simulated": "marks of simulated judgments", "time": "times", "reason": "reasons",
    "strength": "strengths", "ratings": "ratings of aspects", "sides": "sides", "ideal": "ideal answers", "duration": "time taken",
    "kind": "kinds of prompts", "heldout": "marks of held-out prompts",
}  # fmt: skip
"""Each thing by the word that formats declare it with, and its name in summaries and documents."""

UNNAMED = "imported"
"""The name of a model that nobody named, and the kind of a prompt that has none."""


def of_comparison(comparison: ExportedComparison) -> frozenset[str]:
    """What a comparison holds, whoever judges it."""
    turns: list[Message] = json.loads(comparison.messages)
    talk = turns[1:] if turns[0]["role"] == "system" else turns
    found = {
        "system": len(talk) < len(turns),
        "turns": len(talk) > 1,
        "order": any(turn["role"] != ("user", "assistant")[number % 2] for number, turn in enumerate(talk)),
        "several": len(comparison.completions) > 2,
        "models": any(answer.model != UNNAMED for answer in comparison.completions),
        "kind": comparison.kind != UNNAMED,
        # A mark is lost where the text of the prompt does not put it into the same split again.
        "heldout": comparison.split == "heldout" and prompts.split_of(prompts.digest(turns)) != "heldout",
    }
    return frozenset(name for name, holds in found.items() if holds)


def of_vote(vote: ExportedVote) -> Iterator[str]:
    """What a judgment holds beside its comparison."""
    yield from ("annotator", "time")
    if any(len(tier) > 1 for tier in vote.tiers):
        yield "ties"
    for name, holds in (
        ("unranked", vote.partial),
        ("all_bad", vote.all_bad),
        ("simulated", vote.annotator_kind == "simulated"),
        ("reason", vote.rationale),
        ("strength", vote.strength),
        ("ratings", vote.aspects),
        ("sides", vote.sides_known),
        ("ideal", vote.ideal),
        ("duration", vote.timed),
    ):
        if holds:
            yield name
