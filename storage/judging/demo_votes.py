"""Votes of the Demo page: a person compares answers that were generated while they watched, to a prompt of their own.

Such a vote is an ordinary judgment of an ordinary comparison, whose purpose is `comparisons.DEMO`. The comparison is never queued, and its
prompt is in use only if the project has it anyway. The vote is left out of training, statistics and exports; `train --demo-votes` asks for
it, and a native export and a backup hold it. The answers' texts come from the policy server through the web process, never from a browser.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from storage.content import comparisons, completions, prompts
from storage.core.database import Database
from storage.core.records import Judgment, Message, Sampling
from storage.judging import judgments, presentations
from storage.judging.details import BadJudgment

KIND = "demo"
"""The kind of a prompt that was typed on the Demo page; its source has the same name."""

COUNT = f"SELECT count(*) FROM votes v JOIN comparisons c ON c.id = v.comparison_id WHERE c.purpose = '{comparisons.DEMO}'"
"""SQL: the number of these votes."""


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """One answer as it was shown."""

    policy_version_id: int
    text: str
    sampling: Sampling
    seed: int
    finish_reason: str
    latency_s: float


def add(
    store: Database,
    annotator_id: int,
    messages: Sequence[Message],
    answers: Sequence[DemoAnswer],
    *,
    tiers: Sequence[Sequence[int]],
    all_bad: bool = False,
    rng: random.Random | None = None,
) -> Judgment:
    """Stores a prompt, its answers in the order shown, and the vote on them, all or nothing.

    Args:
        tiers: positions in `answers`, best tier first.

    Raises:
        BadJudgment: the tiers do not rank each answer once.
        StoreError: the messages are no prompt, or there is no such policy version.
    """
    if sorted(slot for tier in tiers for slot in tier) != list(range(len(answers))):
        raise BadJudgment(f"A vote ranks each of {len(answers)} answers once, not {tiers}: reload the page.")
    with store.atomic():
        prompt = prompts.ensure_unused(store, prompts.NewPrompt(messages, kind=KIND), source=KIND)
        ids: dict[int, int] = {}
        for slot in comparisons.random_write_order(len(answers), rng or random.SystemRandom()):
            answer = answers[slot]
            ids[slot] = completions.add(
                store,
                prompt_id=prompt.id,
                policy_version_id=answer.policy_version_id,
                text=answer.text,
                sampling=answer.sampling,
                seed=answer.seed,
                finish_reason=answer.finish_reason,
                latency_s=answer.latency_s,
            )
        comparison_id = comparisons.add(store, prompt.id, sorted(ids.values()), purpose=comparisons.DEMO, retired=True)
        order = [ids[slot] for slot in range(len(answers))]
        shown = presentations.record_order(store, comparisons.get(store, comparison_id), annotator_id, order)
        return judgments.add_unqueued(store, shown, tiers=tuple(tuple(ids[slot] for slot in tier) for tier in tiers), all_bad=all_bad)


def count(store: Database) -> int:
    """Number of votes of the Demo page, which are left out of training and of statistics."""
    return int(store.value(COUNT))
