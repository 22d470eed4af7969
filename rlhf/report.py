"""Runs and figures as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storage.imports import Import, Report
from storage.records import Metric, Run


def table(run: Run, metrics: Sequence[Metric]) -> str:
    """The figures of a finished run, one a line, each interval at 95%."""
    result = run.result or {}
    rule = f"the rule {result['rule']!r}" if result.get("rule") else "the rule"
    seconds = {m.name.removeprefix("time/"): m.value for m in metrics if m.name.startswith("time/")}
    stages = ", ".join(f"{stage} {spent / 60:.1f}" for stage, spent in seconds.items())
    snapshot = run.snapshot or {}
    rows = [
        ("run", f"{run.id} ({run.status})"),
        ("preference pairs", f"{snapshot.get('train', 0)} to learn from, {snapshot.get('heldout', 0)} held out"
         + (f"; {snapshot['simulated']} of them simulated" if snapshot.get("simulated") else "")),
        ("reward model, held-out accuracy against the votes", estimate(result.get("heldout_accuracy"), "pairs")),
        (f"reward model, held-out accuracy against {rule}", estimate(result.get("heldout_accuracy_on_rule"), "pairs")),
        (f"win rate over the base under {rule}", estimate(result.get("win_rate"), "held-out prompts")),
        ("win rate over the base under the reward model (a proxy)", estimate(result.get("win_rate_by_reward_model"), "held-out prompts")),
        ("KL to the base, per held-out completion", f"{result['kl']:.2f} nats" if "kl" in result else None),
        ("time", f"{result['minutes']:.1f} min ({stages})" if "minutes" in result else None),
        ("peak memory", f"{result['peak_memory_gib']:.1f} GiB" if "peak_memory_gib" in result else None),
        ("policy version", result.get("policy_version")),
    ]
    return _aligned([(name, value) for name, value in rows if value])


def estimate(figure: Mapping[str, Any] | None, cases: str) -> str | None:
    """`71.2% (62.0 to 79.1; 160 pairs)`."""
    if figure is None:
        return None
    return f"{100 * figure['value']:.1f}% ({100 * figure['low']:.1f} to {100 * figure['high']:.1f}; {figure['cases']} {cases})"


def overview(runs: Sequence[Run]) -> str:
    """One line a run, the newest first."""
    if not runs:
        return "no runs yet: judge some comparisons, then `rankloop train`"
    return _aligned([
        (run.id, f"{run.status:<10} {run.created_at[:16].replace('T', ' ')}  {100 * run.progress:3.0f}%  "
         + ((run.result or {}).get("policy_version") or run.error or run.stage or ""))
        for run in runs
    ])


def imported(import_id: int | None, found: Report, *, prompts_only: bool) -> str:
    """What an import brought, in one line."""
    left_out = f"{found.wrong} wrong rows left out"
    if import_id is None:
        return f"nothing imported, {left_out}"
    if prompts_only:
        return f"import {import_id}: {found.prompts} prompts added, {found.prompts_known} known already, {left_out}"
    gold = f", {found.gold} known answers" if found.gold else ""
    return (
        f"import {import_id}: {found.comparisons} comparisons added, {found.judgments} judgments{gold}, {found.prompts} new prompts, "
        f"{left_out}"
    )


def imports(made: Sequence[Import]) -> str:
    """One line an import, the newest first."""
    if not made:
        return "no imports yet"
    return _aligned([
        (f"{i.id}  {i.created_at[:16].replace('T', ' ')}  {i.format}",
         f"{i.source}: {i.report.prompts} prompts, {i.report.comparisons} comparisons, {i.report.judgments} judgments"
         + (f" (undone {i.undone_at[:16].replace('T', ' ')})" if i.undone_at else ""))
        for i in made
    ])


def figures(nested: Mapping[str, Any]) -> str:
    """Nested counts, one a line."""
    rows = []
    for name, value in nested.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}, {part}", str(count)) for part, count in value.items()]
        else:
            rows.append((name, str(value)))
    return _aligned([(name.replace("_", " "), value) for name, value in rows])


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
