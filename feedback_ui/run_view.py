"""One run as the Training page shows it: status, stages, result, samples. Strings and HTML, without Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from feedback_ui.markdown import escape, render
from feedback_ui.presenters import duration, figures
from storage.records import ACTIVE_STATUSES, RESUMABLE_STATUSES, Run, RunSample

STAGES = {
    "snapshot": "Snapshot",
    "reward": "Reward model",
    "ppo": "PPO",
    "evaluate": "Evaluation",
    "register": "Register",
}
STATUSES = {
    "queued": "Waiting to start",
    "running": "Running",
    "done": "Done",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "lost": "Lost",
}
NO_RUNS = "No round has been run yet. Choose a preset and start one: its progress appears here."


def is_active(run: Run | None) -> bool:
    return run is not None and run.status in ACTIVE_STATUSES


def is_resumable(run: Run | None) -> bool:
    return run is not None and run.status in RESUMABLE_STATUSES


def label(run: Run) -> str:
    """A run's line in the picker."""
    return f"{run.id} · {STATUSES[run.status].lower()}"


def choices(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The picker's lines, newest first."""
    return [(label(run), run.id) for run in sorted(runs, key=lambda run: run.created_at, reverse=True)]


def opening_run(runs: Sequence[Run]) -> str | None:
    """The run to show to someone who opens the page: the active one, otherwise the newest."""
    newest_first = sorted(runs, key=lambda run: (is_active(run), run.created_at), reverse=True)
    return newest_first[0].id if newest_first else None


def learns_from_simulated(run: Run) -> bool:
    return bool(run.config.get("include_simulated"))


def progress(run: Run | None) -> str:
    """Status, stages and a bar with the time left."""
    if run is None:
        return f'<div class="rl-hollow"><p>{escape(NO_RUNS)}</p></div>'
    return (
        f'<section class="rl-run" data-status="{run.status}">'
        f'<p class="rl-status"><strong data-testid="run-status">{status(run)}</strong>{simulated_mark(run)}'
        f'<span class="rl-muted">{escape(remark(run))}</span></p>'
        f"{steps(run)}{bar(run)}{error(run)}</section>"
    )


def status(run: Run) -> str:
    return "Stopping" if run.cancel_requested and is_active(run) else STATUSES[run.status]


def remark(run: Run) -> str:
    """What a reader wants beside the status: time left while it runs, time taken after."""
    if is_active(run):
        left = f"about {duration(run.eta_s)} left" if run.eta_s else "time left not known yet"
        return f"{run.progress:.0%}, {left}"
    if run.started_at and run.finished_at:
        took = datetime.fromisoformat(run.finished_at) - datetime.fromisoformat(run.started_at)
        return f"took {duration(took.total_seconds())}"
    return ""


def steps(run: Run) -> str:
    names = list(STAGES)
    at = len(names) if run.status == "done" else names.index(run.stage) if run.stage in STAGES else -1
    items = []
    for place, (name, title) in enumerate(STAGES.items()):
        state = "done" if place < at else "now" if place == at else "todo"
        current = ' aria-current="step"' if state == "now" else ""
        items.append(f'<li class="rl-{state}" data-stage="{name}"{current}>{title}</li>')
    return f'<ol class="rl-steps" data-testid="stages">{"".join(items)}</ol>'


def bar(run: Run) -> str:
    fraction = 1.0 if run.status == "done" else min(max(run.progress, 0.0), 1.0)
    return (
        f'<progress class="rl-progress" max="1" value="{fraction:.3f}" aria-label="Progress of the round"></progress>'
    )


def error(run: Run) -> str:
    if run.error:
        return f'<p class="rl-notice rl-bad" role="alert" data-testid="run-error">{escape(run.error)}</p>'
    if run.status == "lost":
        said = "Its process stopped without a word. Resume goes on from the last checkpoint."
        return f'<p class="rl-notice rl-warn" data-testid="run-error">{said}</p>'
    return ""


def simulated_mark(run: Run) -> str:
    return (
        '<span class="rl-mark" data-testid="simulated-mark">simulated judgments included</span>'
        if learns_from_simulated(run)
        else ""
    )


# ---- result


def interval(figure: Any) -> str:
    """`71 % (62 to 79 %)` of a fraction with its interval."""
    if not isinstance(figure, dict):
        return f"{figure:.0%}"
    value = f"{figure['value']:.0%}"
    if figure.get("low") is None or figure.get("high") is None:
        return value
    return f"{value} ({figure['low']:.0%} to {figure['high']:.0%})"


ESTIMATES = {
    "heldout_accuracy": "Held-out accuracy",
    "heldout_accuracy_on_rule": "Accuracy on the rule",
    "win_rate": "Win rate under the rule",
    "win_rate_by_reward_model": "Win rate by reward model",
}
"""Figures with an interval, in the order they are shown."""


def result(run: Run | None) -> str:
    """The figures of a finished round; empty before."""
    if run is None or not run.result:
        return ""
    r = run.result
    shown = {title: interval(r[key]) for key, title in ESTIMATES.items() if r.get(key)}
    if (kl := r.get("kl")) is not None:
        shown["KL to base"] = f"{kl:.2f} nats"
    if (minutes := r.get("minutes")) is not None:
        shown["Time"] = duration(minutes * 60)
    if (memory := r.get("peak_memory_gib")) is not None:
        shown["Peak memory"] = f"{memory:.1f} GiB"
    if version := r.get("policy_version"):
        shown["Policy version"] = str(version)
    return (
        f'<section class="rl-card" data-testid="result"><h3>Result{simulated_mark(run)}</h3>{figures(shown)}'
        f'<p class="rl-muted">{escape(reading(run))}</p></section>'
    )


def reading(run: Run) -> str:
    """What the figures rest on, so that nobody reads more into them."""
    r = run.result or {}
    parts = []
    if pairs := _cases(r.get("heldout_accuracy")):
        parts.append(f"Accuracy is of the reward model on {pairs} preference pairs that it did not learn from.")
    if prompts := _cases(r.get("win_rate")):
        parts.append(f"Tuned and base were compared on {prompts} held-out prompts by the declared rule {r.get('rule')!r}.")
    if prompts := _cases(r.get("win_rate_by_reward_model")):
        parts.append(
            f"The win rate by the reward model, on {prompts} held-out prompts, is a proxy: the policy was paid by that score. "
            "People's blind comparison is the measure."
        )
    if learns_from_simulated(run):
        parts.append("This round also learned from simulated judgments.")
    return " ".join(parts)


def _cases(figure: Any) -> int | None:
    return figure.get("cases") if isinstance(figure, dict) else None


# ---- samples


def samples(rows: Sequence[RunSample]) -> str:
    """The same held-out prompts, answered before and after."""
    if not rows:
        return ""
    body = "".join(_sample(row) for row in rows)
    return f'<section class="rl-samples" data-testid="samples"><h3>Before and after</h3>{body}</section>'


def _sample(row: RunSample) -> str:
    after = render(row.after) if row.after is not None else '<p class="rl-muted">Not answered yet.</p>'
    before_and_after = _answer("Before", row.score_before, render(row.before)) + _answer(
        "After", row.score_after, after
    )
    return (
        f'<article class="rl-sample"><div class="rl-asked rl-prose" dir="auto">{render(row.prompt)}</div>'
        f'<div class="rl-pair">{before_and_after}</div></article>'
    )


def _answer(title: str, score: float | None, html: str) -> str:
    scored = "" if score is None else f' <span class="rl-muted">score {score:+.2f}</span>'
    return f'<div><h4>{title}{scored}</h4><div class="rl-prose" dir="auto">{html}</div></div>'
