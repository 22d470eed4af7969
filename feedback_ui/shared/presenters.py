"""Presenters of the Demo, Training and Data pages: functions from records to strings of HTML. No Gradio.

Each takes the `Translator` of the reader's language first. Runs are presented by `training.run_view` and `training.charts`,
comparisons by `judging.judging_view`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from feedback_ui.shared import markdown
from feedback_ui.shared.errors import browser_message
from feedback_ui.shared.i18n import Translator
from storage.analytics.stats import DayOfJudging
from storage.core.records import PolicyVersion


def duration(words: Translator, seconds: float) -> str:
    """A duration in seconds as text: `20 s`, `4 min`, `1 h 20 min`."""
    if seconds < 90:
        return words("common.seconds", seconds=max(1, round(seconds)))
    minutes = round(seconds / 60)
    if minutes < 90:
        return words("common.minutes", minutes=minutes)
    hours, minutes = divmod(minutes, 60)
    return words("common.hours_minutes", hours=hours, minutes=minutes) if minutes else words("common.hours", hours=hours)


def day(words: Translator, iso: str) -> str:
    """`12 Nov` of a date or a time in ISO 8601."""
    moment = date.fromisoformat(iso[:10])
    return words("common.day", day=moment.day, month=words(f"common.month.{moment.month}"))


def sentence(error: Exception) -> str:
    """An error's message as a sentence without paths of this machine. A name or an address at its start is not capitalised."""
    message = browser_message(error)
    if message.split()[0].isalpha():
        message = message[0].upper() + message[1:]
    return message if message.endswith((".", "!", "?")) else message + "."


# ---- Demo


def answer(words: Translator, text: str, *, writing: bool = False) -> str:
    """One pane of the Demo page, during and after generation."""
    body = markdown.render(text, words)
    state = ' aria-busy="true"' if writing else ""
    if not body:
        body = f'<p class="rl-muted">{words("demo.writing") if writing else words("demo.empty_answer")}</p>'
    return f'<div class="rl-prose" dir="auto"{state}>{body}</div>'


def answer_cut_short(words: Translator, text: str, error: Exception) -> str:
    """The text that arrived before the policy server failed, and the error."""
    return (answer(words, text) if text else "") + server_down(words, error)


def server_down(words: Translator, error: Exception) -> str:
    return notice(words("demo.server_down", error=sentence(error)), "bad")


def missing_versions(words: Translator, base: str | None, tuned: Sequence[str]) -> str:
    """What to do when the base or every tuned version is missing; empty otherwise."""
    if base is None:
        return words("demo.no_base")
    return "" if tuned else words("demo.no_tuned")


def served_versions(served: Sequence[str], versions: Sequence[PolicyVersion]) -> tuple[str | None, list[str]]:
    """The base and the tuned versions, newest first, among the models that the server serves."""
    newest_first = sorted(versions, key=lambda version: version.id, reverse=True)
    available = [version for version in newest_first if version.name in served]
    base = next((version.name for version in available if version.kind == "base"), None)
    tuned = [version.name for version in available if version.kind == "tuned"]
    return base, tuned


# ---- Training


def pairs_available(words: Translator, people: int, simulated: int) -> str:
    """The number of preference pairs available to a round, people's and simulated ones separately."""
    if not people + simulated:
        return notice(words("training.no_pairs"))
    from_people = words("training.pairs_from_people", count=people)
    return notice(words("training.pairs_and_simulated", people=from_people, simulated=simulated) if simulated else f"{from_people}.")


# ---- small pieces of HTML that pages share


def notice(message: str, tone: str = "muted") -> str:
    """A one-line message; `tone` is muted, warn or bad. Empty for an empty message."""
    return f'<p class="rl-notice rl-{tone}" role="status">{markdown.escape(message)}</p>' if message else ""


def empty_state(message: str) -> str:
    """Placeholder for an empty list; the message says what to do next."""
    return f'<div class="rl-empty-state"><p>{markdown.escape(message)}</p></div>'


def figures(pairs: Mapping[str, str]) -> str:
    """A row of labelled values."""
    cells = "".join(f"<div><dt>{markdown.escape(name)}</dt><dd>{markdown.escape(value)}</dd></div>" for name, value in pairs.items())
    return f'<dl class="rl-figures">{cells}</dl>'


# ---- Data

MATERIAL = ("prompts", "completions", "comparisons", "policy_versions")
MOVES_WITH_THE_QUEUE = ("completions", "comparisons")
"""Their counts grow when a vote leaves the queue and stay when a gold comparison or a repeat is shown. Annotators could tell
these apart by them, so that only people who do not judge see them."""


def overview(words: Translator, stats: Mapping[str, Any], days: Sequence[DayOfJudging], *, blind: bool = False) -> str:
    """Counts of everything in the store. People's judgments and simulated ones are never added together.

    Args:
        blind: for annotators who are not leads: leaves out the counts that move with the queue.
    """
    if not stats["prompts"]:
        return empty_state(words("data.nothing_yet"))
    judgments, annotators, runs = stats["judgments"], stats["annotators"], stats["runs"]
    groups = {
        "judgments": {
            words("data.by_people"): judgments["human"],
            words("data.simulated"): judgments["simulated"],
            **({} if blind else {words("data.waiting"): stats["queue_depth"]}),
        },
        "annotators": {words("data.people"): annotators["human"], words("data.simulated"): annotators["simulated"]},
        "material": {words(f"data.material.{name}"): stats[name] for name in MATERIAL if not (blind and name in MOVES_WITH_THE_QUEUE)},
        "runs": {words(f"run.status.{status}"): number for status, number in runs.items()} or {words("data.no_runs"): 0},
    }
    under = {"judgments": judgments_by_day(words, days)}
    return "".join(
        f'<section class="rl-card" data-testid="data-{name}"><h2>{words(f"data.group.{name}")}</h2>'
        f"{figures({title: f'{number:,}' for title, number in numbers.items()})}{under.get(name, '')}</section>"
        for name, numbers in groups.items()
    )


def judgments_by_day(words: Translator, days: Sequence[DayOfJudging]) -> str:
    """Judgments by day as bars, people's and simulated annotators' in two colours."""
    most = max((max(of.people, of.simulated) for of in days), default=0)
    if not most:
        return f'<p class="rl-muted">{words("data.no_judgments_lately", days=len(days))}</p>'
    bars = "".join(_day_of_bars(words, of, most) for of in days)
    first, last = day(words, days[0].date), day(words, days[-1].date)
    return (
        f'<figure class="rl-days"><figcaption>{words("data.by_day", days=len(days))}'
        f'<span class="rl-legend rl-of-people">{words("data.by_people")}</span>'
        f'<span class="rl-legend rl-of-simulated">{words("data.simulated")}</span></figcaption>'
        f'<ol class="rl-bars">{bars}</ol><div class="rl-axis-ends" aria-hidden="true"><span>{first}</span>'
        f"<span>{words('data.at_most', count=most)}</span><span>{last}</span></div></figure>"
    )


def _day_of_bars(words: Translator, of: DayOfJudging, most: int) -> str:
    summary = words("data.day_of_judging", day=day(words, of.date), people=of.people, simulated=of.simulated)
    columns = "".join(
        f'<i class="rl-of-{kind}" style="height:{100 * number / most:.1f}%"></i>'
        for kind, number in (("people", of.people), ("simulated", of.simulated))
        if number
    )
    return f'<li title="{summary}"><span class="rl-sr-only">{summary}</span>{columns}</li>'
