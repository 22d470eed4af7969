"""What would happen if a round began now: whether it may start, what it would learn from, and about how long it would take. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.analysis import run_table
from rlhf.config import ConfigError, RoundConfig
from rlhf.data.pairs import NotEnoughPairs
from rlhf.runs import plan, results
from rlhf.runs.jobs import RoundError, refuse_second, require_material
from storage.content import prompts
from storage.core.database import Database
from storage.core.records import AnnotatorKind
from storage.judging import judgments, pair_counts
from storage.project import queued_rounds, rounds, runs


@dataclass(frozen=True, slots=True)
class DryRun:
    """A round that was not started."""

    hindrance: str | None
    """Why it would not start, with the remedy; None if it would."""
    active: str | None
    """The run that trains now: the round would wait in the queue until it ends."""
    waiting: int
    """Rounds in the queue, which begin before it."""
    train: int
    """Preference pairs on training prompts, which teach."""
    heldout: int
    """Preference pairs on held-out prompts, which measure."""
    new_judgments: int
    """Rankings that came in after the newest round began, without those that decide about versions; all of them before the first round."""
    last_round: int | None
    """The number of the newest round."""
    compared: str | None
    """The version that annotators compare with the current policy now; a new round's version waits until it is decided."""
    minutes: float | None
    """Estimated from the newest finished run over the same model by the same method; None if there is none, and for `sft`, whose work
    depends on how many ideal answers there were."""


def of(store: Database, config: RoundConfig) -> DryRun:
    """The round that this configuration would begin now. Writes nothing."""
    kinds: tuple[AnnotatorKind, ...] = ("human", "simulated") if config.include_simulated else ("human",)
    every = rounds.all_rounds(store)
    since = every[-1].created_at if every else None
    open_round = rounds.asked(store, config.model, "people")
    counts = pair_counts.count(store, demo_votes=config.demo_votes)
    train, heldout = (counts.total(*kinds, splits=(split,)) for split in ("train", "heldout"))
    active = runs.active(store)
    return DryRun(
        _hindrance(store, config),
        active.id if active else None,
        len(queued_rounds.waiting(store)),
        train,
        heldout,
        sum(judgments.ordinary(store, kind, since, demo_votes=config.demo_votes) for kind in kinds),
        every[-1].id if every else None,
        open_round.version.name if open_round and open_round.version else None,
        _minutes(store, config, train, heldout),
    )


def _hindrance(store: Database, config: RoundConfig) -> str | None:
    try:
        require_material(store, config)
        if config.reward_function:
            # No other process could begin it, so that it does not wait.
            refuse_second(store)
    except (ConfigError, NotEnoughPairs, RoundError) as error:
        return str(error)
    return None


def _minutes(store: Database, config: RoundConfig, train: int, heldout: int) -> float | None:
    """The minutes of the newest comparable run, in proportion to the work of both."""
    if config.method == "sft":
        return None
    for run in runs.all_runs(store):
        minutes = results.of_run_or_empty(run).minutes
        if run.status != "done" or not minutes:
            continue
        try:
            before = run_table.config_of(run)
        except ConfigError:
            continue
        if (before.model, before.method) == (config.model, config.method):
            snapshot = run_table.snapshot_or_empty(run)
            return minutes * _work(store, config, train, heldout) / _work(store, before, snapshot.train, snapshot.heldout)
    return None


def _work(store: Database, config: RoundConfig, train: int, heldout: int) -> float:
    n_heldout = len(prompts.of_split(store, "heldout"))
    costs = plan.stage_costs(config, n_pairs=train, n_heldout_pairs=heldout, n_heldout=n_heldout, n_demonstrations=0)
    return sum(sum(parts.values()) for parts in costs.values())
