"""Closed rounds without people: simulated annotators judge the current policy, and decide about the version that each round made.

Each step goes on from what the store holds, so that a loop that was stopped anywhere loses nothing and decides nothing twice.
`rlhf.runs.jobs` trains; `rlhf.cli.loop` puts the steps in order. No torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from rlhf.runs import deciding
from rlhf.serving.comparison_plan import Planned, assign
from rlhf.serving.completion_source import CompletionSource
from rlhf.serving.filler import write_comparisons
from rlhf.simulation.simulate import ATTEMPTS, Plan, SimulationError, annotators_of, judge_comparison, simulate
from storage.content import comparisons
from storage.core.database import Database
from storage.core.records import Annotator, Decision, PolicyVersion, Round
from storage.judging import judgments
from storage.people import annotators
from storage.project import rounds, runs

DECIDING_AT_ONCE = 16
"""Deciding comparisons that are written and judged before the sequential test looks at them again."""

Progress = Callable[[int, int], None]
"""Is told how many of how many are done."""


@dataclass(frozen=True, slots=True)
class VotesUsed:
    """The simulated votes of one round."""

    learned: int
    """Votes on the policy that was current, which came in before its training and after that of the round before."""
    decided: int
    """Votes on comparisons of its version with that policy."""


def require_simulated_alone(store: Database, plan: Plan) -> None:
    """Refuses a store in which people have judged, or simulated annotators by another rule: their votes would mix.

    Raises:
        SimulationError: what was found, and what to do.
    """
    if people := judgments.ordinary(store, "human"):
        raise SimulationError(
            f"people have made {people} judgments in this folder, and a loop of simulated judges would decide about their policies: "
            "choose another folder with --data"
        )
    rule = plan.judge.to_json(plan.flip)
    others = sorted(a.name for a in annotators.all_annotators(store) if a.kind == "simulated" and a.rule != rule)
    if others:
        raise SimulationError(
            f"{others[0]} judges in this folder by another rule, word list or label noise: name the same, or another folder with --data"
        )


def rounds_of(store: Database, model: str) -> list[Round]:
    """The rounds of loops over a base model, oldest first, without runs that ended before they made a version."""
    found = [one for one in rounds.all_rounds(store) if one.trigger == "loop" and one.status == "done"]
    return [one for one in found if one.version is not None and one.version.base_model == model]


def unfinished(store: Database, model: str) -> Round | None:
    """The newest round of a loop over this base model whose run has made no version yet; None if the newest has one."""
    ours = [one for one in rounds.all_rounds(store) if one.trigger == "loop" and runs.get(store, one.run_id).config.get("model") == model]
    return ours[-1] if ours and ours[-1].status != "done" else None


def votes_missing(store: Database, model: str, wanted: int) -> int:
    """Simulated votes that the next round still needs: those after the round before count, made before an interruption or not."""
    before = rounds_of(store, model)
    return max(0, wanted - judgments.ordinary(store, "simulated", before[-1].created_at if before else None))


def collect(store: Database, generate: CompletionSource, base: PolicyVersion, plan: Plan, progress: Progress) -> None:
    """Adds the votes that the next round still needs, `plan.judgments` in all, on comparisons of the current policy.

    Raises:
        SimulationError: as `simulate`.
    """
    missing = votes_missing(store, base.base_model, plan.judgments)
    there = plan.judgments - missing
    progress(there, plan.judgments)
    simulate(
        store,
        generate,
        base,
        replace(plan, judgments=missing),
        start=judgments.ordinary(store, "simulated"),
        progress=lambda done, total: progress(there + done, plan.judgments),
    )


def decide(store: Database, generate: CompletionSource, found: Round, plan: Plan, progress: Progress) -> Decision:
    """Has the plan's annotators compare the round's version with the current policy until the sequential test decides.

    A comparison shows two answers to a held-out prompt, and the rule sees nothing but the texts. Returns the decision, or the one that
    somebody else made meanwhile.

    Raises:
        SimulationError: no held-out prompt can be asked, or the two policies give the same or empty answers.
    """
    judges = annotators_of(store, plan)
    while True:
        _judge_written(store, found, plan, judges)
        deciding.decide_open_rounds(store)
        found = rounds.get(store, found.id)
        if found.decision is not None:
            return found.decision
        stands = deciding.standing(store, found)
        progress(stands.assessment.units, stands.most)
        _write_deciding(store, generate, found, plan)


def _judge_written(store: Database, found: Round, plan: Plan, judges: list[Annotator]) -> None:
    """Judges the round's comparisons that nobody has judged yet, also those of an attempt that was stopped."""
    with store.atomic():
        done = rounds.asked_comparisons(store, found.id)
        batch = comparisons.without_simulated_judgment(store, DECIDING_AT_ONCE, round_id=found.id)
        rng = random.Random(f"{plan.seed} {found.id} {done}")
        for place, comparison in enumerate(batch, start=done - len(batch)):
            tiers = judge_comparison(comparison, plan, rng)
            judgments.add_simulated(store, comparison.id, judges[place % len(judges)].id, tiers=tiers, rng=rng)


def _write_deciding(store: Database, generate: CompletionSource, found: Round, plan: Plan) -> None:
    """Writes the next comparisons of the round's version with the current policy, on held-out prompts."""
    assert found.version is not None, "an open round has a version"
    after = rounds.newest_decision(store)
    opponent = rounds.current(store, found.version.base_model)
    planned = [Planned((found.version, opponent), "heldout", found)] * DECIDING_AT_ONCE
    asked = rounds.asked_comparisons(store, found.id)
    for attempt in range(ATTEMPTS):
        rng = random.Random(f"{plan.seed} {found.id} {asked} {attempt}")
        assignments, decides = assign(store, planned, {}, rng)
        if not assignments:
            raise SimulationError("there is no held-out prompt that the model can answer: import some, `rankloop import` says how")
        written = write_comparisons(
            store, generate, assignments, sampling=plan.sampling, seed=rng.randrange(2**31), decides=decides, after=after
        )
        # A decision that somebody made meanwhile makes the comparisons pointless: nothing is stored then.
        if written.stored or rounds.newest_decision(store) != after:
            return
    raise SimulationError(
        f"{found.version.name} and {opponent.name} gave {ATTEMPTS} batches of identical or empty answers, so nothing can be compared: "
        f'`rankloop round reject {found.id} --reason "..."` decides, or raise --temperature or --max-new-tokens'
    )


def votes_used(store: Database, found: Round) -> VotesUsed:
    """The simulated votes of a round that a loop made."""
    assert found.version is not None, "a round of `rounds_of` has a version"
    before = [one for one in rounds_of(store, found.version.base_model) if one.id < found.id]
    came_in = judgments.ordinary(store, "simulated", before[-1].created_at if before else None)
    learned = came_in - judgments.ordinary(store, "simulated", found.created_at)
    return VotesUsed(learned, rounds.asked_comparisons(store, found.id))
