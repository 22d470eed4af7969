"""What the comparisons of a batch hold: its prompts, its policy versions in turn, and its share on held-out prompts.

The share is kept in the order of the comparisons and not drawn, so that a page can say beforehand how many of them measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from rlhf.serving.comparison_plan import Assignments, Planned, Versions, assign_planned
from storage.content import batches, prompt_list, prompts, refusals
from storage.core.database import Database
from storage.core.records import Batch, PolicyVersion, PromptFilter, Split
from storage.project import settings


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a batch would do, were it requested now."""

    prompts: int
    """Prompts in use that it takes, without those set aside."""
    set_aside: int
    """Prompts that it leaves out because a model refused them."""
    teaching: int
    """Comparisons on prompts for training."""
    measuring: int
    """Comparisons on held-out prompts."""


def outlook(store: Database, versions: Sequence[PolicyVersion], chosen: PromptFilter, count: int) -> Outlook:
    """What a batch of `count` comparisons by these versions on these prompts would do now."""
    there = prompts.many(store, prompt_list.ids_in_use(store, chosen))
    refused = refusals.by_model(store)
    set_aside = set().union(*(refused.get(version.base_model, ()) for version in versions)) & set(there)
    splits = {prompt.split for prompt in there.values() if prompt.id not in set_aside}
    if not splits:
        return Outlook(0, len(set_aside), 0, 0)
    share = settings.current(store).heldout_share
    measuring = heldout_before(count, share) if len(splits) > 1 else count if "heldout" in splits else 0
    return Outlook(len(there) - len(set_aside), len(set_aside), count - measuring, measuring)


def heldout_before(index: int, share: float) -> int:
    """How many of the first `index` comparisons of a batch are on held-out prompts: never more than the share of them."""
    return floor(index * share)


def splits_next(first: int, measured: int, count: int, share: float) -> list[Split]:
    """The splits from which the next comparisons take their prompts, where the batch takes prompts of both.

    Args:
        first: the index of the first of them in the batch.
        measured: how many comparisons of the batch are on held-out prompts so far.
    """
    splits: list[Split] = []
    for index in range(first, first + count):
        splits.append("heldout" if heldout_before(index + 1, share) > measured + splits.count("heldout") else "train")
    return splits


def assign_prompts_of(
    store: Database, batch: Batch, versions_of: Sequence[Versions], queue_positions: Mapping[int, int]
) -> list[Assignments]:
    """Gives the next comparisons of a batch their prompts: of its own, those with the fewest comparisons so far.

    Comparisons for which no prompt is left are left out.
    """
    share = settings.current(store).heldout_share
    splits = splits_next(batch.generated, batches.count_heldout(store, batch.id), len(versions_of), share)
    planned = [Planned(versions, split) for versions, split in zip(versions_of, splits, strict=True)]
    return assign_planned(store, planned, queue_positions, among=prompt_list.ids_in_use(store, batch.prompts))
