"""Rounds as text for a terminal: their table, and the story of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rlhf.analysis.round_story import Made, State, Story
from rlhf.cli import report
from rlhf.config import DEFAULT_PRESET
from rlhf.data import pairs
from rlhf.runs.deciding import Standing
from rlhf.runs.dry_run import DryRun
from rlhf.runs.results import Estimate
from rlhf.runs.triggers import HoldReason, Triggers
from storage.core.records import QueuedRound, Round

STATES: dict[State, str] = {
    "training": "in training",
    "ended": "ended without a version",
    "unchecked": "not decided (no guards)",
    "waiting": "waits for the round before it",
    "compared": "being compared",
    "current": "current policy",
    "replaced": "promoted, replaced since",
    "rejected": "rejected",
    "rolled back": "promoted, rolled back since",
}


def overview(rounds: Sequence[tuple[Round, State]], standings: Mapping[int, Standing]) -> str:
    """One line a round, the newest first.

    Args:
        standings: by round id, where the decisions about open rounds stand.
    """
    if not rounds:
        return "no rounds yet: judge some comparisons, then `rankloop train`"
    heads = ("round", "run", "started", "by", "judges", "version", "state", "decided by", "comparisons", "win rate over the current one")
    rows = [_row(found, state, standings.get(found.id)) for found, state in rounds]
    return report.columns([heads, *rows])


def _row(found: Round, state: State, stands: Standing | None) -> tuple[str, ...]:
    figures: Mapping[str, Any] = stands.to_json() if stands else found.decision.evidence if found.decision else {}
    return (
        str(found.id),
        found.run_id,
        found.created_at[:16].replace("T", " "),
        found.trigger,
        found.judges,
        found.version.name if found.version else "-",
        STATES[state],
        found.decision.decided_by if found.decision else "-",
        str(figures.get("units", "-")),
        rate(figures),
    )


def queue(rows: Sequence[QueuedRound], names: Mapping[int, str]) -> str:
    """One line a queued round, in the order in which they will begin; then those that could not begin, with the reason."""
    heads = ("queued", "asked for", "by", "model", "method", "judges", "state")
    return report.columns([heads, *(_queued(row, names) for row in rows)])


def _queued(row: QueuedRound, names: Mapping[int, str]) -> tuple[str, ...]:
    return (
        str(row.id),
        row.created_at[:16].replace("T", " "),
        row.trigger if row.by_id is None else names.get(row.by_id, "?"),
        str(row.config.get("model", "?")),
        str(row.config.get("method", "?")),
        row.judges,
        row.state + (f": {row.reason}" if row.reason else ""),
    )


HOLDS: dict[HoldReason, str] = {
    "training": "run {subject} trains",
    "queued": "queued round {subject} waits",
    "undecided": "round {subject} is not decided",
}


def triggers(found: Triggers, chosen: Mapping[str, Any]) -> str:
    """Where the triggers stand, one fact a line.

    Args:
        chosen: the options of the rounds that they begin.
    """
    rows = [
        ("after new judgments", f"{found.counted:,} of {found.after:,}" if found.after else "off"),
        ("on a schedule", f"{found.schedule} (UTC), next {_minute(found.next_due)}" if found.next_due else "off"),
        ("with the options", ", ".join(f"{name} {value}" for name, value in chosen.items()) or f"preset {DEFAULT_PRESET}"),
        ("a round would begin", _fires(found)),
        ("last time", "" if found.last is None else _last(found.last)),
    ]
    return report.aligned([(name, value) for name, value in rows if value])


def _fires(found: Triggers) -> str:
    if found.due:
        return f"no: {HOLDS[found.hold.reason].format(subject=found.hold.subject)}" if found.hold else f"now, by {' and '.join(found.due)}"
    return "not now: nothing is due" if found.on else "by hand alone"


def _last(row: QueuedRound) -> str:
    became = f"run {row.run_id}" if row.run_id else row.state + (f": {row.reason}" if row.reason else "")
    return f"{row.created_at[:16].replace('T', ' ')} by {row.trigger}, {became}"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def rate(figures: Mapping[str, Any]) -> str:
    """`64% (52% to 75%)` from a decision's evidence; a dash where it has none."""
    try:
        return f"{float(figures['win_rate']):.0%} ({float(figures['low']):.0%} to {float(figures['high']):.0%})"
    except (KeyError, TypeError, ValueError):
        return "-"


def story(told: Story) -> str:
    """A round from its votes to its decision, one fact a line."""
    run, snapshot, result = told.run, told.snapshot, told.result
    started = told.round.created_at[:16].replace("T", " ")
    simulated = f"; {snapshot.simulated} of them from simulated annotators" if snapshot.simulated else ""
    rows = [
        ("round", f"{told.round.id}: {STATES[told.state]}"),
        (
            "run",
            f"{report.titled(run.id, run.name)} ({run.status}), started {started} by {told.round.trigger}",
        ),
        ("note", run.note),
        (
            "learned from",
            f"preference pairs: {pairs.in_words(snapshot.train, snapshot.heldout)}{simulated}, snapshot {snapshot.sha256}"
            if snapshot.sha256
            else "",
        ),
        ("options", f"model {run.config.get('model', '?')}, method {run.config.get('method', '?')}, seed {run.seed}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        ("policy when it began", told.baseline or ""),
        ("training began at", result.started_from or ""),
        ("policy version", told.round.version.name if told.round.version else ""),
        ("reward model, held-out accuracy", report.estimate(result.heldout_accuracy, "pairs") or ""),
        ("win rate over the base under the reward model", report.estimate(result.win_rate_by_reward_model, "held-out prompts") or ""),
        *((f"guard, {'passed' if check.passed else 'FAILED'}", check.in_words()) for check in result.guards or ()),
        ("decided by the comparisons of", told.round.judges),
        *_comparisons(told),
        *(("decision", in_words(made)) for made in told.decisions),
    ]
    return report.aligned([(name, value) for name, value in rows if value])


def _comparisons(told: Story) -> list[tuple[str, str]]:
    if told.standing is None:
        return []
    stands, a = told.standing, told.standing.assessment
    figures = f"{a.units} judged of {told.asked} asked, with {stands.opponent.name}, by {stands.annotators} annotators"
    return [
        ("comparisons", figures),
        ("win rate over the current policy", rate(stands.to_json())),
        ("evidence that it is better, worse", f"{a.evidence_better:.1f}, {a.evidence_worse:.1f}; {1 / stands.error:g} decides"),
        ("verdict", verdict(stands)),
    ]


def verdict(stands: Standing) -> str:
    """What the decision waits for, as a sentence."""
    a = stands.assessment
    if stands.waits_for is None:
        return f"{a.verdict}: it is carried out at once where rankloop runs, and by `rankloop rounds`"
    if stands.waits_for == "annotators":
        return (
            f"{a.verdict}, once {stands.annotators_needed} annotators have judged: so far {stands.annotators} (setting deciding_annotators)"
        )
    if stands.waits_for == "agreement":
        return f"{a.verdict}, but not without one of the annotators: more comparisons by the others are needed"
    if a.likely_needed is None:
        return f"undecided: at most {max(0, stands.most - a.units)} more comparisons are needed"
    return f"undecided: {a.likely_needed} more comparisons are likely needed"


def in_words(made: Made) -> str:
    """`promoted v2 in place of v1, by Ann, 2026-11-27 10:00: It is kinder.`"""
    d = made.decision
    act = {
        "promoted": f"promoted {made.version} in place of {made.before}",
        "rejected": f"rejected {made.version}",
        "rolled back": f"rolled back from {made.before} to {made.version}",
    }[d.act]
    who = (made.who or "the command line") if d.decided_by == "person" else d.decided_by
    return f"{act}, by {who}, {d.created_at[:16].replace('T', ' ')}: {d.reason}"


def closed_rounds(rounds: Sequence[tuple[Story, int, int]]) -> str:
    """The rounds of a loop, one a line, oldest first: each with the votes that it learned from and those that decided about it."""
    if not rounds:
        return "no round has ended yet"
    rates = ("win rate over the base", "over the round before", "over best of n")
    heads = ("round", "version", "decision", *rates, "KL", "votes + deciding", "minutes")
    return report.columns([heads, *(_closed(*one) for one in rounds)])


def _closed(told: Story, learned: int, decided: int) -> tuple[str, ...]:
    result = told.result
    by_rule = result.win_rate or result.win_rate_by_reward_model
    newest = told.round.decision
    by = f" by {newest.decided_by}" if newest else ""
    best_of_n = result.best_of_n
    return (
        str(told.round.id),
        told.round.version.name if told.round.version else "-",
        f"{newest.act if newest else 'undecided'}{by}",
        _share(by_rule),
        rate(next((made.decision.evidence for made in told.decisions if made.decision.decided_by == "comparisons"), {})),
        f"{_share(best_of_n.policy_win_rate)}, n {best_of_n.n}" if best_of_n else "-",
        f"{result.kl:.1f}" if result.kl is not None else "-",
        f"{learned:,} + {decided:,}",
        f"{result.minutes:.1f}" if result.minutes is not None else "-",
    )


def _share(of: Estimate | None) -> str:
    return f"{of.value:.0%} ({of.low:.0%} to {of.high:.0%})" if of else "-"


def dry_run(would: DryRun) -> str:
    """What a round would do if it began now, one fact a line."""
    since = "" if would.last_round is None else f" since round {would.last_round} began"
    compared = f"{would.compared} is compared now: the new version waits until that is decided" if would.compared else ""
    rows = [
        ("would start", f"{_turn(would)}; nothing was started" if would.hindrance is None else f"no: {would.hindrance}"),
        ("preference pairs", pairs.in_words(would.train, would.heldout)),
        ("mind", pairs.few_measure(would.heldout) or ""),
        ("new judgments", f"{would.new_judgments:,}{since}"),
        ("estimated", "-" if would.minutes is None else f"{would.minutes:.1f} min, by the newest run over this model by this method"),
        ("before it", compared),
    ]
    return report.aligned([(name, value) for name, value in rows if value])


def _turn(would: DryRun) -> str:
    if would.active is None and not would.waiting:
        return "yes"
    before = ", ".join(filter(None, [would.active, f"{would.waiting} in the queue" if would.waiting else ""]))
    return f"yes, once the rounds before it have ended ({before})"
