"""Simulated annotators: they judge by a declared rule, slip now and then, and are marked as simulated everywhere."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from rlhf.serving.filler import CompletionSource, least_used, policies_for_pair, requeue_prompts, write_comparisons
from rlhf.simulation.judges import LabelRule, with_label_noise
from storage.content import comparisons, policies
from storage.core.database import Database, StoreError
from storage.core.records import Comparison, PolicyVersion, Sampling
from storage.judging import judgments
from storage.people import annotators

COMPARISONS_PER_BATCH = 32
ATTEMPTS = 3


class SimulationError(Exception):
    """Nothing can be judged; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    judge: LabelRule
    judgments: int
    annotators: int
    flip: float
    """Probability that an annotator turns a judgment round, 0 to 1."""
    seed: int
    sampling: Sampling


def simulate(
    store: Database,
    generate: CompletionSource,
    base: PolicyVersion,
    plan: Plan,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    on_progress: Callable[[], None] = lambda: None,
) -> int:
    """Adds `plan.judgments` simulated judgments, each on a comparison that no simulated annotator has judged.

    Comparisons that are missing are generated, on the prompts that have the fewest. What was judged when an
    interruption comes stays judged. Returns the number of ties under the rule.

    Raises:
        SimulationError: there are no prompts, the model's answers cannot be told apart, or the annotators of this seed
            judge by another rule.
    """
    try:
        judges = [
            annotators.ensure(store, f"sim-{plan.judge.name}-{plan.seed}-{i + 1}", kind="simulated", rule=plan.judge.to_json(plan.flip))
            for i in range(plan.annotators)
        ]
    except StoreError as error:
        raise SimulationError(
            f"the annotators of seed {plan.seed} judge by other words, or slip more or less often: choose another --seed"
        ) from error
    rng = random.Random(plan.seed)
    places: dict[int, int] = {}
    done = ties = 0
    while done < plan.judgments:
        found = comparisons.without_simulated_judgment(store, min(COMPARISONS_PER_BATCH, plan.judgments - done))
        if not found:
            _write_more(store, generate, base, plan, done, places, on_progress)
            continue
        with store.atomic():
            for comparison in found:
                tiers = judged(comparison, plan, rng)
                ties += len(tiers) == 1
                judgments.add_simulated(store, comparison.id, judges[done % len(judges)].id, tiers=tiers, rng=rng)
                done += 1
        progress(done, plan.judgments)
    return ties


def judged(comparison: Comparison, plan: Plan, rng: random.Random) -> tuple[tuple[int, ...], ...]:
    """The tiers that this rule gives, turned round with the probability of a slip."""
    ids = [c.id for c in comparison.completions]
    preferred = plan.judge.prefer([c.text for c in comparison.completions])
    return with_label_noise(tuple(tuple(ids[i] for i in tier) for tier in preferred), plan.flip, rng)


def _write_more(
    store: Database,
    generate: CompletionSource,
    base: PolicyVersion,
    plan: Plan,
    done: int,
    places: dict[int, int],
    on_progress: Callable[[], None],
) -> None:
    count = min(COMPARISONS_PER_BATCH, plan.judgments - done)
    tuned = policies.latest_tuned(store, base.base_model)
    for attempt in range(ATTEMPTS):
        found = least_used(store, count, places)
        if not found:
            raise SimulationError("there are no prompts: run `rankloop import` first")
        chosen = [(prompt, *policies_for_pair(base, tuned, done + i)) for i, prompt in enumerate(found)]
        seed = (plan.seed * 1_000_003 + done) * ATTEMPTS + attempt
        dropped = write_comparisons(store, generate, chosen, sampling=plan.sampling, seed=seed, on_progress=on_progress)
        requeue_prompts(store, places, dropped)
        if len(dropped) < len(chosen):
            return
    raise SimulationError(f"the model gave {ATTEMPTS} batches of identical or empty answers: raise --temperature or --max-new-tokens")
