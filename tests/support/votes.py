"""Votes by a simulated annotator, for what needs something to learn from and no torch."""

from __future__ import annotations

import json
from pathlib import Path

from storage.content import comparisons, completions, policies, prompts
from storage.core.database import Database
from storage.core.records import Sampling
from storage.judging import judgments
from storage.people import annotators


def rule_votes(store: Database, model: Path, number: int) -> None:
    """So many comparisons of two answers of the model's base, each judged by one rule."""
    base = policies.ensure_base(store, str(model))
    rule = json.dumps({"judge": "sentiment", "words": [], "flip": 0.0})
    judge = annotators.ensure(store, "rule", kind="simulated", rule=rule)
    asked = [prompts.NewPrompt(({"role": "user", "content": f"Ruled {n}?"},), split="train") for n in range(number)]
    prompts.add(store, asked, source="rule")
    for prompt in [p for p in prompts.of_split(store) if p.text.startswith("Ruled ")]:
        ids = [
            completions.add(
                store, prompt_id=prompt.id, policy_version_id=base.id, text=f"{text} {prompt.id}", sampling=Sampling(), seed=0,
                finish_reason="stop", latency_s=0.1,
            )
            for text in ("good", "bad")
        ]  # fmt: skip
        comparison = comparisons.add(store, prompt.id, ids, purpose="collect", wanted=0)
        judgments.add_simulated(store, comparison, judge.id, tiers=((ids[0],), (ids[1],)))
