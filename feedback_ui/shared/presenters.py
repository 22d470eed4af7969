"""Presenters of the Demo, Training and Data pages: functions from records to HTML. No Gradio.

Each takes the `Translator` of the reader's language first. Runs are presented by `training.run_view` and `training.charts`,
comparisons by `judging.judging_view`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from markupsafe import Markup

from feedback_ui.shared import markdown
from feedback_ui.shared.errors import browser_message
from feedback_ui.shared.html import EMPTY, fragment, tag
from feedback_ui.shared.i18n import Translator, tables
from storage.analytics.stats import DayOfJudging


def duration(translate: Translator, seconds: float) -> str:
    """A duration in seconds as text: `20 s`, `4 min`, `1 h 20 min`."""
    if seconds < 90:
        return translate("common.seconds", seconds=max(1, round(seconds)))
    minutes = round(seconds / 60)
    if minutes < 90:
        return translate("common.minutes", minutes=minutes)
    hours, minutes = divmod(minutes, 60)
    return translate("common.hours_minutes", hours=hours, minutes=minutes) if minutes else translate("common.hours", hours=hours)


def day(translate: Translator, iso: str) -> str:
    """`12 Nov` of a date or a time in ISO 8601."""
    moment = date.fromisoformat(iso[:10])
    return translate("common.day", day=moment.day, month=translate(f"common.month.{moment.month}"))


def sentence(error: Exception, as_on_the_page: Callable[[str], str] = str) -> str:
    """An error's message as a sentence without paths of this machine and shell commands. A name, a file or an address at its start is
    not capitalised."""
    message = browser_message(error, as_on_the_page)
    # The name of a file may begin with a word; its path does not.
    if (str(error).split() or [message.split()[0]])[0].isalpha():
        message = message[0].upper() + message[1:]
    return message if message.endswith((".", "!", "?")) else message + "."


def prompt_kind(translate: Translator, kind: str) -> str:
    """The name of a kind of prompt, translated if it is one of the starter prompts' kinds; others stay as their file names them."""
    key = f"prompt_kind.{kind}"
    return translate(key) if key in tables()[translate.language] else kind.replace("_", " ")


# ---- Demo


def answer(translate: Translator, text: str, *, writing: bool = False) -> Markup:
    """One pane of the Demo page, during and after generation."""
    body = markdown.render(text, translate) or tag("p", translate("demo.writing" if writing else "demo.empty_answer"), class_="rl-muted")
    return tag("div", body, class_="rl-prose", dir="auto", aria_busy="true" if writing else None)


def server_down(translate: Translator, error: Exception) -> Markup:
    return notice(translate("demo.server_down", error=sentence(error)), "bad")


# ---- Training


def pair_counts(translate: Translator, train: int, heldout: int) -> str:
    """`28 teach · 73 measure`"""
    return translate("training.teach_and_measure", train=train, heldout=heldout)


def pairs_available(
    translate: Translator,
    people: tuple[int, int],
    simulated: tuple[int, int],
    *,
    few_measure: int = 0,
    unused_starter_votes: int = 0,
    demo_votes: int = 0,
) -> Markup:
    """The preference pairs available to a round, people's and simulated ones separately, and the votes left out.

    Args:
        people: pairs that teach, and pairs that measure.
        few_measure: a warning names the pairs of people that measure if there are fewer than this.
    """
    left_out = fragment(
        starters_left_out(translate, unused_starter_votes),
        notice(translate("training.demo_votes", count=demo_votes)) if demo_votes else EMPTY,
    )
    if not any(people + simulated):
        # Where votes are left out, the remedy is in that message, and not to judge more.
        return fragment(notice(translate("training.no_pairs_in_use" if unused_starter_votes else "training.no_pairs")), left_out)
    from_people = translate("training.pairs_from_people", pairs=pair_counts(translate, *people))
    by_rule = pair_counts(translate, *simulated)
    available = translate("training.pairs_and_simulated", people=from_people, pairs=by_rule) if any(simulated) else f"{from_people}."
    few = translate("training.few_measure", count=people[1], least=few_measure) if people[0] and people[1] < few_measure else ""
    return fragment(notice(available), notice(few, "warn"), left_out)


# ---- small pieces of HTML that pages share


def starters_left_out(translate: Translator, votes: int) -> Markup:
    """That votes on starter prompts that do not serve are left out; empty where there are none."""
    return notice(translate("training.unused_starter_votes", count=votes), "warn") if votes else EMPTY


def notice(message: str, tone: str = "muted") -> Markup:
    """A one-line message; `tone` is muted, warn or bad. Empty for an empty message."""
    return tag("p", message, class_=f"rl-notice rl-{tone}", role="status") if message else EMPTY


def empty_state(message: str) -> Markup:
    """Placeholder for an empty list; the message says what to do next."""
    return tag("div", tag("p", message), class_="rl-empty-state")


def figures(pairs: Mapping[str, str]) -> Markup:
    """A row of labelled values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs.items()), class_="rl-figures")


# ---- Data

MATERIAL = ("prompts_in_use", "completions", "comparisons", "policy_versions")
QUEUE_DEPENDENT = ("completions", "comparisons")
"""These counts grow when a comparison leaves the queue and stay the same when a gold comparison or a repeat is shown. Annotators
could tell these apart by them, so that only people who do not judge see them."""


def overview(translate: Translator, stats: Mapping[str, Any], days: Sequence[DayOfJudging], *, blind: bool = False) -> Markup:
    """Counts of everything in the store. People's judgments and simulated ones are never added together.

    Args:
        blind: leave out `QUEUE_DEPENDENT`, for annotators who are not leads.
    """
    if not stats["prompts"]:
        return empty_state(translate("data.nothing_yet"))
    judgments, annotators, runs = stats["judgments"], stats["annotators"], stats["runs"]
    groups = {
        "judgments": {
            translate("data.by_people"): judgments["human"],
            translate("data.simulated"): judgments["simulated"],
            **({translate("data.labels"): labels} if (labels := sum(stats["labels_not_used_in_training"].values())) else {}),
            **({} if blind else {translate("data.waiting"): stats["queue_depth"]}),
        },
        "annotators": {translate("data.people"): annotators["human"], translate("data.simulated"): annotators["simulated"]},
        "material": {translate(f"data.material.{name}"): stats[name] for name in MATERIAL if not (blind and name in QUEUE_DEPENDENT)},
        "runs": {translate(f"run.status.{status}"): number for status, number in runs.items()} or {translate("data.no_runs"): 0},
    }
    under = {"judgments": judgments_by_day(translate, days)}
    return fragment(
        *(
            tag(
                "section",
                tag("h2", translate(f"data.group.{name}")),
                figures({title: f"{number:,}" for title, number in numbers.items()}),
                under.get(name, EMPTY),
                class_="rl-card",
                data_testid=f"data-{name}",
            )
            for name, numbers in groups.items()
        )
    )


def judgments_by_day(translate: Translator, days: Sequence[DayOfJudging]) -> Markup:
    """Judgments by day as bars, people's and simulated annotators' in two colours."""
    most = max((max(of.people, of.simulated) for of in days), default=0)
    if not most:
        return tag("p", translate("data.no_judgments_lately", days=len(days)), class_="rl-muted")
    return tag(
        "figure",
        tag(
            "figcaption",
            translate("data.by_day", days=len(days)),
            tag("span", translate("data.by_people"), class_="rl-legend rl-of-people"),
            tag("span", translate("data.simulated"), class_="rl-legend rl-of-simulated"),
        ),
        tag("ol", *(_day_of_bars(translate, of, most) for of in days), class_="rl-bars"),
        tag(
            "div",
            tag("span", day(translate, days[0].date)),
            tag("span", translate("data.at_most", count=most)),
            tag("span", day(translate, days[-1].date)),
            class_="rl-axis-ends",
            aria_hidden="true",
        ),
        class_="rl-days",
    )


def _day_of_bars(translate: Translator, of: DayOfJudging, most: int) -> Markup:
    summary = translate("data.day_of_judging", day=day(translate, of.date), people=of.people, simulated=of.simulated)
    columns = (
        tag("i", class_=f"rl-of-{kind}", style=f"height:{100 * number / most:.1f}%")
        for kind, number in (("people", of.people), ("simulated", of.simulated))
        if number
    )
    return tag("li", tag("span", summary, class_="rl-sr-only"), *columns, title=summary)
