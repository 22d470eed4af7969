"""Finished rounds side by side: data, method and results of each. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlhf.config import AdapterConfig, ConfigError, RoundConfig
from storage.core.records import Run

SHOWN_HASH = 7
"""Characters of a snapshot's sha256 that are shown; enough to tell snapshots apart."""

MISREAD = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Exceptions of reading a stored result that does not have the shape of those that a round writes."""


@dataclass(frozen=True, slots=True)
class FinishedRound:
    """One row of the comparison. An estimate is a `value` with its `low` and `high`; None where nothing was measured."""

    id: str
    method: str
    adapter: AdapterConfig
    pairs: int
    """Training and held-out preference pairs."""
    simulated: int
    """Those of simulated annotators among them."""
    judgments: str
    """The snapshot's hash: rounds with the same one learned from the same judgments and are measured on the same."""
    accuracy: Mapping[str, Any] | None
    win_rate: Mapping[str, Any] | None
    """Under the declared rule."""
    win_rate_by_reward_model: Mapping[str, Any] | None
    kl: float | None
    minutes: float | None
    peak_memory_gib: float | None


class UnreadableRound(NamedTuple):
    """A finished round that the comparison names beside its rows."""

    id: str
    problem: str
    """What of its row cannot be read, and why."""


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
        snapshot, result = run.snapshot or {}, run.result
        rounds.append(
            FinishedRound(
                run.id,
                config.method,
                config.adapter,
                int(_number(snapshot.get("pairs")) or 0),
                int(_number(snapshot.get("simulated")) or 0),
                str(snapshot.get("sha256", ""))[:SHOWN_HASH],
                accuracy=_estimate(result.get("heldout_accuracy")),
                win_rate=_estimate(result.get("win_rate")),
                win_rate_by_reward_model=_estimate(result.get("win_rate_by_reward_model")),
                kl=_number(result.get("kl")),
                minutes=_number(result.get("minutes")),
                peak_memory_gib=_number(result.get("peak_memory_gib")),
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


def _number(value: Any) -> float | None:
    """The value if it is a finite number; None for anything else that a row may hold."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def _estimate(value: Any) -> Mapping[str, Any] | None:
    """The estimate if it has a value and an interval; None for anything else that a row may hold."""
    if not isinstance(value, Mapping) or any(_number(value.get(name)) is None for name in ("value", "low", "high")):
        return None
    return value


def size(adapter: AdapterConfig) -> dict[str, int]:
    """The fields that set the size of an adapter of this kind: `{"rank": 16, "layers": 10}`; no layers means all of them."""
    if adapter.kind == "prompt":
        return {"virtual_tokens": adapter.virtual_tokens}
    rank = {} if adapter.kind == "ia3" else {"rank": adapter.rank}
    return rank | ({"layers": adapter.top_layers} if adapter.top_layers else {})
