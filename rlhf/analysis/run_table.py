"""Finished rounds side by side: data, method and results of each. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from rlhf.config import AdapterConfig, ConfigError, RoundConfig
from rlhf.data import pairs
from rlhf.data.pairs import SnapshotManifest
from rlhf.runs import results
from rlhf.runs.results import RoundResult
from rlhf.runs.typed_json import UnreadableRecord
from storage.core.records import Run

SHOWN_HASH = 7
"""Characters of a snapshot's sha256 that are shown; enough to tell snapshots apart."""

MALFORMED_ROW_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Exceptions raised while reading a stored row that a round did not write."""


@dataclass(frozen=True, slots=True)
class FinishedRound:
    """One row of the comparison."""

    id: str
    method: str
    adapter: AdapterConfig
    train: int
    """Preference pairs on training prompts, which teach."""
    heldout: int
    """Preference pairs on held-out prompts, which measure."""
    simulated: int
    """Those of simulated annotators among them."""
    judgments: str
    """The snapshot's hash: rounds with the same hash were trained and measured on the same judgments."""
    result: RoundResult
    """Empty where it cannot be read; the run's own page shows the error."""
    name: str = ""
    """The name that a researcher gave the run."""


class UnreadableRound(NamedTuple):
    """A finished round that the comparison names beside its rows."""

    id: str
    problem: str
    """Which part of its row cannot be read, and why."""


def finished(runs: Iterable[Run]) -> tuple[list[FinishedRound], list[UnreadableRound]]:
    """The runs with status `done`, in their order: those that can be compared, and those whose row cannot be read."""
    rounds, unreadable = [], []
    for run in runs:
        if run.status != "done" or not run.result:
            continue
        try:
            config = config_of(run)
        except ConfigError as error:
            unreadable.append(UnreadableRound(run.id, str(error)))
            continue
        snapshot = snapshot_or_empty(run)
        rounds.append(
            FinishedRound(
                run.id,
                config.method,
                config.adapter,
                snapshot.train,
                snapshot.heldout,
                snapshot.simulated,
                snapshot.sha256[:SHOWN_HASH],
                results.of_run_or_empty(run),
                run.name,
            )
        )
    return rounds, unreadable


def config_of(run: Run) -> RoundConfig:
    """The options in a run's row.

    Raises:
        ConfigError: they, or other parts of the row, cannot be read.
    """
    if run.problem:
        raise ConfigError(run.problem)
    return RoundConfig.from_dict(run.config)


def snapshot_or_empty(run: Run) -> SnapshotManifest:
    """The snapshot's manifest in the run's row; an empty one before there is a snapshot, or where it cannot be read."""
    try:
        return pairs.manifest_of_run(run)
    except UnreadableRecord:
        return SnapshotManifest()


def size(adapter: AdapterConfig) -> dict[str, int]:
    """The fields that set the size of an adapter of this kind: `{"rank": 16, "layers": 10}`; no layers means all of them."""
    if adapter.kind == "prompt":
        return {"virtual_tokens": adapter.virtual_tokens}
    rank = {} if adapter.kind == "ia3" else {"rank": adapter.rank}
    return rank | ({"layers": adapter.top_layers} if adapter.top_layers else {})
