"""What is known of one policy version: its base and the base's licence, the data, the figures, the lineage, its decision and the limits.

`model_card` writes it as a README beside the adapter, and the Demo page shows it. Nothing is computed here that the run's row does not
hold. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rlhf import model_files
from rlhf.analysis import run_table
from rlhf.config import ConfigError, RoundConfig
from rlhf.data.pairs import SnapshotManifest
from rlhf.runs import results
from rlhf.runs.results import RoundResult
from storage.core.database import Database, StoreError
from storage.core.records import DecidedBy, PolicyVersion, Run
from storage.people import annotators
from storage.project import rounds, runs

FEW_PAIRS = 500
"""Fewer training pairs than this are named as a limit of the version."""

FIGURES = {
    "heldout_accuracy": "Reward model: held-out accuracy against the votes",
    "heldout_accuracy_on_rule": "Reward model: held-out accuracy against the rule",
    "win_rate": "Win rate over the base under the rule",
    "win_rate_by_reward_model": "Win rate over the base under the reward model",
    "win_rate_by_reward_function": "Win rate over the base under the reward function",
}
"""The figures with an interval, in the order shown, with their titles in the model card."""

LIMITS = {
    "base": "Whatever the base model gets wrong, this version is likely to get wrong too; nothing here measures facts, safety or bias.",
    "sampled": "The figures are of answers of at most {tokens} tokens at temperature {temperature:g}, to the project's held-out prompts.",
    "few_pairs": "It learned from {pairs:,} preference pairs, which is little.",
    "simulated": "{simulated:,} of {pairs:,} pairs come from simulated annotators, who follow a rule: these say nothing of people.",
    "proxy": "The win rate under the reward model is measured by the model that training maximised, so that it overstates the gain.",
    "not_better": "No improvement is shown: the interval of “{figure}” reaches down to {low:.0%}.",
    "stopped": "Training ended at step {step}, because the KL to the base reached {kl:.1f} nats, over its budget of {budget:g}.",
    "left_out": "Some data was too long, or the chat template does not support it, and was left out.",
    "unread": "Its run's row cannot be read in full, so that figures may be missing here: {problem}",
    "external": "Its answers were written elsewhere. The project knows nothing of how the model was made.",
}
"""Every limit that a card can name, with its English sentence; the Korean ones are in the locale file."""


class Limit(NamedTuple):
    """A known limit of a version: a key of `LIMITS`, and the values of its sentence; `figure` is a key of `FIGURES`."""

    key: str
    values: dict[str, Any]

    def in_words(self) -> str:
        values = self.values | ({"figure": FIGURES[self.values["figure"]]} if "figure" in self.values else {})
        return LIMITS[self.key].format(**values)


OutcomeKey = Literal["undecided", "promoted", "rejected", "taken_back", "current_again"]

OUTCOMES: dict[OutcomeKey, str] = {
    "undecided": "It is neither promoted nor rejected yet.",
    "promoted": "It was promoted",
    "rejected": "It was rejected",
    "taken_back": "It was promoted, and taken back",
    "current_again": "It was made current again",
}
"""What became of a version, in English; the other languages are in the locale files."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The newest decision about a version."""

    key: OutcomeKey
    by: DecidedBy | None = None
    who: str | None = None
    """The name of the person who decided; None where none did, or from the command line of a project without accounts."""
    reason: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class VersionCard:
    """One version, as its card shows it. Parts of the run that cannot be read are empty, and a limit names them."""

    version: PolicyVersion
    base_name: str
    base_id: str | None
    """The base's id on the hub; None for a local folder."""
    licence: str
    """The base's licence by its identifier; `unknown` where its files do not say."""
    run: Run | None
    config: RoundConfig | None
    data: SnapshotManifest
    result: RoundResult
    limits: tuple[Limit, ...]
    outcome: Outcome | None = None
    """None for versions that no round made, which nobody decides about."""


def of_version(store: Database, version: PolicyVersion, *, result: RoundResult | None = None) -> VersionCard:
    """The card of a version.

    Args:
        result: the results of a run that is about to end; None takes those in its row.
    """
    run = _run(store, version.run_id)
    config, problem = _config(run)
    data = run_table.snapshot_or_empty(run) if run else SnapshotManifest()
    found = result or (results.of_run_or_empty(run) if run else RoundResult())
    external = version.kind == "external"
    return VersionCard(
        version,
        model_files.display_name(version.base_model),
        None if external else model_files.hub_id(version.base_model),
        model_files.UNKNOWN_LICENCE if external else model_files.licence(version.base_model),
        run,
        config,
        data,
        found,
        tuple(_limits(version, config, data, found, problem)),
        outcome_of(store, version),
    )


def outcome_of(store: Database, version: PolicyVersion) -> Outcome | None:
    """The newest decision about a version that a round made, whichever round it belongs to."""
    if version.kind != "tuned":
        return None
    newest = Outcome("undecided")
    for made in rounds.decisions(store):
        taken_back = made.act == "rolled back" and made.current_before_id == version.id
        if made.version_id != version.id and not taken_back:
            continue
        key: OutcomeKey = "taken_back" if taken_back else "current_again" if made.act == "rolled back" else made.act
        newest = Outcome(key, made.decided_by, _name(store, made.by_id), made.reason, made.created_at)
    return newest


def _name(store: Database, annotator_id: int | None) -> str | None:
    return next((a.name for a in annotators.all_annotators(store) if a.id == annotator_id), None)


def _run(store: Database, run_id: str | None) -> Run | None:
    try:
        return None if run_id is None else runs.get(store, run_id)
    except StoreError:
        return None


def _config(run: Run | None) -> tuple[RoundConfig | None, str]:
    """The run's options, and why they cannot be read."""
    try:
        return (None if run is None else run_table.config_of(run)), ""
    except ConfigError as error:
        return None, str(error)


def _limits(
    version: PolicyVersion, config: RoundConfig | None, data: SnapshotManifest, result: RoundResult, problem: str
) -> Iterator[Limit]:
    if version.kind == "external":
        yield Limit("external", {})
        return
    yield Limit("base", {})
    if version.kind == "base":
        return
    if config is not None:
        yield Limit("sampled", {"tokens": config.evaluation.max_new_tokens, "temperature": config.sampling.temperature})
    if 0 < data.train < FEW_PAIRS:
        yield Limit("few_pairs", {"pairs": data.train})
    if data.simulated:
        yield Limit("simulated", {"simulated": data.simulated, "pairs": data.pairs})
    if result.win_rate_by_reward_model and config is not None and config.method in ("ppo", "rloo", "grpo"):
        yield Limit("proxy", {})
    name = next((name for name in ("win_rate", "win_rate_by_reward_function", "win_rate_by_reward_model") if getattr(result, name)), None)
    if name is not None and getattr(result, name).low <= 0.5:
        yield Limit("not_better", {"figure": name, "low": getattr(result, name).low})
    if stopped := result.stopped_by_kl:
        yield Limit("stopped", {"step": stopped.step, "kl": stopped.kl, "budget": stopped.budget})
    if result.lengths or result.template:
        yield Limit("left_out", {})
    if problem:
        yield Limit("unread", {"problem": problem})
