"""Chooses the policy versions and the prompt of each new comparison. `filler` has the answers written.

One policy is current (`storage.project.rounds`). New comparisons hold two of its samples, or one beside the base's; while a round is to
be decided, a share of them holds one sample of its version beside one of the current policy, on a held-out prompt that is drawn
anew for each. Of all others, at most the declared share is on held-out prompts. These shares are settings of the project.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from storage.content import comparisons, policies, prompts, refusals
from storage.core.database import Database
from storage.core.records import PolicyVersion, ProjectSettings, Prompt, Round, RoundJudges, Split
from storage.project import rounds

Assignments = tuple[Prompt, *tuple[PolicyVersion, ...]]
"""A prompt and the policy version of each of its answers."""

Versions = tuple[PolicyVersion, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """One comparison that is to be written."""

    versions: Versions
    split: Split | None = None
    """Where its prompt is taken from if there is one; None takes every prompt in turn."""
    decides: Round | None = None
    """The round that it helps to decide: its prompt is a held-out one, drawn at random."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The versions that new comparisons may hold now."""

    current: PolicyVersion
    base: PolicyVersion
    asked: Round | None
    """The round whose version is compared with the current policy; None while there is none."""
    after: int
    """The id of the newest decision; a later one may make pointless what was planned with these versions."""
    by_split: Mapping[Split, int]
    """How many comparisons there are on prompts of each split, without those that decide rounds."""


def policies_now(store: Database, base_model: str, judges: RoundJudges = "people") -> Policies:
    """The versions as the store has them; no round is asked about while no held-out prompt can be put to its version.

    Args:
        judges: whose rounds are asked about.
    """
    after = rounds.newest_decision(store)
    base, current = policies.ensure_base(store, base_model), rounds.current(store, base_model)
    asked = rounds.asked(store, base_model, judges)
    if asked is not None and asked.version is not None:
        set_aside = refusals.by_model(store).get(base_model, set())
        if all(prompt.id in set_aside for prompt in prompts.of_split(store, "heldout")):
            asked = None
    return Policies(current, base, asked, after, comparisons.ordinary_by_split(store))


def current_pair(current: PolicyVersion, base: PolicyVersion, base_share: float, rng: random.Random) -> Versions:
    """Two samples of the current policy, or with the probability `base_share` one of it and one of the base."""
    return (current, base) if current.id != base.id and rng.random() < base_share else (current, current)


def plan(now: Policies, ordinary: Sequence[Versions | None], project: ProjectSettings, rng: random.Random) -> list[Planned]:
    """What the next comparisons hold, each drawn on its own, so that nobody can tell from its place which kind it is.

    Args:
        ordinary: the versions of each, where it is not to decide a round; None takes them from the current policy.
    """
    planned = []
    on_train, on_heldout = now.by_split["train"], now.by_split["heldout"]
    for versions in ordinary:
        if rng.random() < project.deciding_share and (decides := deciding(now)) is not None:
            planned.append(decides)
            continue
        drawn = rng.random() < project.heldout_share
        # The declared share is a limit too: what was drawn beyond it is asked on a training prompt.
        split: Split = "heldout" if drawn and on_heldout + 1 <= project.heldout_share * (on_train + on_heldout + 1) else "train"
        on_train, on_heldout = on_train + (split == "train"), on_heldout + (split == "heldout")
        planned.append(Planned(versions or current_pair(now.current, now.base, project.base_share, rng), split))
    return planned


def deciding(now: Policies) -> Planned | None:
    """A comparison that helps to decide the round that is asked about; None where there is none."""
    if now.asked is None or now.asked.version is None:
        return None
    return Planned((now.asked.version, now.current), "heldout", now.asked)


def assign(
    store: Database,
    planned: Sequence[Planned],
    queue_positions: Mapping[int, int],
    rng: random.Random,
    *,
    among: Collection[int] | None = None,
) -> tuple[list[Assignments], dict[int, Round]]:
    """Gives each planned comparison its prompt. Those for which no prompt is left are left out.

    A comparison that helps to decide a round gets a held-out prompt in use that neither version has refused, each with the same
    probability whatever was judged before, so that what is expected of its outcome is the version's win rate over the held-out
    prompts. Others get the prompt of their split with the fewest comparisons so far, and one of the other split where theirs has none.

    Args:
        among: the ids of the prompts that may be taken; None takes any in use.

    Returns:
        The assignments, and the round that an assignment helps to decide, by its place among them.
    """
    usage = comparisons.prompt_usage(store)
    in_use = [prompt for prompt in prompts.of_split(store) if among is None or prompt.id in among]
    ranked = sorted(in_use, key=lambda p: (max(usage.get(p.id, 0), queue_positions.get(p.id, 0)), p.id))
    refused = refusals.by_model(store)
    assignments: list[Assignments] = []
    decides: dict[int, Round] = {}
    for item in planned:
        set_aside = set().union(*(refused.get(version.base_model, ()) for version in item.versions))
        if item.decides is not None:
            if drawable := [p for p in in_use if p.split == "heldout" and p.id not in set_aside]:
                decides[len(assignments)] = item.decides
                assignments.append((rng.choice(drawable), *item.versions))
            continue
        usable = [i for i, p in enumerate(ranked) if p.id not in set_aside]
        if (index := next((i for i in usable if item.split in (None, ranked[i].split)), next(iter(usable), None))) is not None:
            prompt = ranked.pop(index)
            ranked.append(prompt)
            assignments.append((prompt, *item.versions))
    return assignments, decides


def assign_prompts(
    store: Database, versions_of: Sequence[Sequence[PolicyVersion]], queue_positions: Mapping[int, int]
) -> list[Assignments]:
    """Gives each comparison's policy versions the prompt with the fewest comparisons so far that none of them has refused.

    Prompts with equally many are taken in the order they were added. Comparisons for which no prompt is left are left out.

    Args:
        queue_positions: by prompt id, the number of comparisons that it counts as having, at least; see `requeue_prompts`.
    """
    return assign_planned(store, [Planned(tuple(versions)) for versions in versions_of], queue_positions)


def assign_planned(
    store: Database, planned: Sequence[Planned], queue_positions: Mapping[int, int], *, among: Collection[int] | None = None
) -> list[Assignments]:
    """As `assign`, of comparisons of which none decides a round."""
    return assign(store, planned, queue_positions, random.Random(0), among=among)[0]
