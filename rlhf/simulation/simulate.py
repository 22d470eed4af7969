"""Simulated annotators: they judge by a declared rule with label noise, and are marked as simulated everywhere."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from rlhf.serving.comparison_plan import assign_prompts, current_pair
from rlhf.serving.completion_source import CompletionSource
from rlhf.serving.filler import requeue_prompts, write_comparisons
from rlhf.simulation.judges import LabelRule, with_label_noise
from storage.content import comparisons
from storage.core.database import Database, StoreError
from storage.core.records import Annotator, Comparison, PolicyVersion, Sampling
from storage.judging import judgments
from storage.people import annotators
from storage.project import rounds, settings

COMPARISONS_PER_BATCH = 32
ATTEMPTS = 3


class SimulationError(Exception):
    """The simulation cannot continue; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a simulation."""

    judge: LabelRule
    judgments: int
    annotators: int
    flip: float
    """Probability that a judgment is reversed, 0 to 1."""
    seed: int
    sampling: Sampling
    deciding: bool = False
    """Whether comparisons that are to decide about people's rounds are judged too."""


def simulate(
    store: Database,
    generate: CompletionSource,
    base: PolicyVersion,
    plan: Plan,
    *,
    start: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    on_progress: Callable[[], None] = lambda: None,
) -> int:
    """Adds `plan.judgments` simulated judgments, each on a comparison that no simulated annotator has judged.

    Missing comparisons are generated, on the prompts that have the fewest comparisons. Judgments made before an
    interruption stay. Returns the number of ties under the rule.

    Args:
        start: judgments of earlier calls with the same seed: with another one, other answers and other label noise are drawn.

    Raises:
        SimulationError: there are no prompts, the model's answers are all identical or empty, or the annotators of this seed
            judge by another rule.
    """
    judges = annotators_of(store, plan)
    rng = random.Random(f"{plan.seed} {start}" if start else plan.seed)
    queue_positions: dict[int, int] = {}
    done = ties = 0
    while done < plan.judgments:
        wanted = min(COMPARISONS_PER_BATCH, plan.judgments - done)
        batch = comparisons.without_simulated_judgment(store, wanted, deciding=plan.deciding)
        if not batch:
            _write_more(store, generate, base, plan, start + done, wanted, queue_positions, on_progress)
            continue
        with store.atomic():
            for comparison in batch:
                tiers = judge_comparison(comparison, plan, rng)
                ties += len(tiers) == 1
                judgments.add_simulated(store, comparison.id, judges[(start + done) % len(judges)].id, tiers=tiers, rng=rng)
                done += 1
        progress(done, plan.judgments)
    return ties


def annotators_of(store: Database, plan: Plan) -> list[Annotator]:
    """The simulated annotators of the plan's seed, who are added if they are missing.

    Raises:
        SimulationError: they judge by another rule.
    """
    try:
        return [
            annotators.ensure(store, f"sim-{plan.judge.name}-{plan.seed}-{i + 1}", kind="simulated", rule=plan.judge.to_json(plan.flip))
            for i in range(plan.annotators)
        ]
    except StoreError as error:
        raise SimulationError(
            f"the simulated annotators of seed {plan.seed} have another rule, word list or label noise: choose another --seed"
        ) from error


def judge_comparison(comparison: Comparison, plan: Plan, rng: random.Random) -> tuple[tuple[int, ...], ...]:
    """The rule's tiers for this comparison, with label noise."""
    ids = [c.id for c in comparison.completions]
    preferred = plan.judge.prefer([c.text for c in comparison.completions])
    return with_label_noise(tuple(tuple(ids[i] for i in tier) for tier in preferred), plan.flip, rng)


def _write_more(
    store: Database,
    generate: CompletionSource,
    base: PolicyVersion,
    plan: Plan,
    done: int,
    count: int,
    queue_positions: dict[int, int],
    on_progress: Callable[[], None],
) -> None:
    current, base_share = rounds.current(store, base.base_model), settings.current(store).base_share
    rng = random.Random(f"{plan.seed} {done}")
    for attempt in range(ATTEMPTS):
        assignments = assign_prompts(store, [current_pair(current, base, base_share, rng) for _ in range(count)], queue_positions)
        if not assignments:
            raise SimulationError("there are no prompts that the model can answer: run `rankloop import` first")
        seed = (plan.seed * 1_000_003 + done) * ATTEMPTS + attempt
        written = write_comparisons(store, generate, assignments, sampling=plan.sampling, seed=seed, on_progress=on_progress)
        requeue_prompts(store, queue_positions, written.dropped)
        if written.stored:
            return
    raise SimulationError(f"the model gave {ATTEMPTS} batches of identical or empty answers: raise --temperature or --max-new-tokens")
