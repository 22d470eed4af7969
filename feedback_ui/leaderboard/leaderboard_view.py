"""Presenters of the Leaderboard page: standings with intervals, the win matrix, the visitor's progress and the annotators. No Gradio.

Every number comes from `rlhf.analysis.leaderboard` or from the store. All numbers are in the text, so that charts are hidden from
screen readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, NOTHING, fragment, tag
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import day, empty_state, figures, notice
from rlhf.analysis.bootstrap import MIN_CLUSTERS
from rlhf.analysis.leaderboard import MEAN_SCORE, Leaderboard, ScoreEstimate, Standing
from rlhf.analysis.style import StyleEffect
from storage.core.records import Annotator

OWN_CHART_DAYS = 30
"""The days that the chart of the visitor's own judgments covers."""

SCALE_STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Possible distances between two marks of the scale, in points."""

MARGIN = 0.06
"""The margin on both sides of the chart, as a share of the scale."""


# ---- policy versions


def policies(translate: Translator, board: Leaderboard, *, with_switch: bool) -> Markup:
    """The standings, or how to get some. `with_switch` tells that there are simulated judgments, which a switch includes."""
    if not board.standings:
        none = "none_by_people" if with_switch and not board.include_simulated else "none_yet"
        return empty_state(translate(f"leaderboard.{none}"))
    parts = [notice(translate("leaderboard.apart", count=len(board.references)), "warn")] if not board.connected else []
    for group, reference in enumerate(board.references):
        rows = [standing for standing in board.standings if standing.group == group]
        if not board.connected:
            parts.append(tag("h3", translate("leaderboard.group", number=group + 1)))
        parts.append(_table(translate, rows, reference))
    # A vote between two answers is one pair: the number of pairs adds nothing if all votes are such.
    pairs = {"pairs": board.pairs} if board.pairs != board.judgments else {}
    based_on = {"votes": board.judgments, **pairs, "prompts": board.prompts}
    standings = tag(
        "section",
        tag("h2", translate("leaderboard.policies")),
        *parts,
        figures({translate(f"leaderboard.{name}"): f"{number:,}" for name, number in based_on.items()}),
        EMPTY if board.style is None else _style(translate, board.style),
        _notes(translate, board),
        class_="rl-card rl-board",
        data_testid="standings",
    )
    return fragment(standings, _matrix(translate, board))


def _style(translate: Translator, effects: Sequence[StyleEffect]) -> Markup:
    """A sentence for each difference in style: how often votes prefer the longer answer, or the one with markup."""
    lines = (tag("li", _style_sentence(translate, effect), data_style=effect.name) for effect in effects)
    title = tag("p", translate("leaderboard.style.title"), class_="rl-subheading")
    return tag("div", title, tag("ul", *lines), tag("p", translate("leaderboard.style.help"), class_="rl-muted"), data_testid="style")


def _style_sentence(translate: Translator, effect: StyleEffect) -> str:
    if effect.chance is None:
        return translate(f"leaderboard.style.{effect.name}_none")
    shown = translate(f"leaderboard.style.{effect.name}", share=_percent(effect.chance), pairs=f"{effect.pairs:,}")
    return fragment(shown, _ends(ScoreEstimate(effect.chance, effect.low, effect.high)))


def _table(translate: Translator, rows: Sequence[Standing], reference: str | None) -> Markup:
    scale = Scale.around(rows)
    over = translate("leaderboard.over") if reference else ""
    heads = [
        (translate("leaderboard.rank"), "rl-rank"),
        (translate("leaderboard.version"), ""),
        (translate("leaderboard.score"), "rl-number"),
        (fragment(tag("span", translate("leaderboard.interval"), class_="rl-sr-only"), scale.marks()), "rl-interval-cell"),
        (over, "rl-number"),
        (translate("leaderboard.record"), "rl-number"),
    ]
    head = (tag("th", title, scope="col", class_=name) if title else tag("td") for title, name in heads)
    body = (_row(translate, row, scale, over) for row in rows)
    return tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="rl-table rl-standings")


def _row(translate: Translator, row: Standing, scale: Scale, over: str) -> Markup:
    preferred = EMPTY if row.over_base is None else tag("span", _percent(row.over_base.value), _ends(row.over_base))
    record = translate("leaderboard.won_tied_lost", won=row.wins, tied=row.ties, lost=row.losses)
    interval = fragment(scale.picture(row), _ends_for_screen_readers(translate, row.score))
    return tag(
        "tr",
        tag("td", f"{row.rank}", class_="rl-rank"),
        tag("th", row.name, scope="row"),
        tag("td", f"{row.score.value:,.0f}", class_="rl-number rl-value", data_head=translate("leaderboard.score")),
        tag("td", interval, class_="rl-interval-cell", data_head=translate("leaderboard.interval")),
        tag("td", preferred, class_="rl-number", data_head=over),
        tag("td", record, class_="rl-number", data_head=translate("leaderboard.record")),
        data_policy=row.name,
    )


class Scale:
    """Maps scores to positions on a group's scale, in percent of its width."""

    def __init__(self, low: float, high: float):
        margin = MARGIN * max(high - low, 40.0)
        self.low, self.high = low - margin, high + margin

    @classmethod
    def around(cls, rows: Sequence[Standing]) -> Scale:
        """A scale that covers every interval and the mean score of 1000."""
        ends = [end for row in rows for end in (row.score.value, row.score.low, row.score.high) if end is not None]
        return cls(min(*ends, MEAN_SCORE), max(*ends, MEAN_SCORE))

    def at(self, score: float) -> float:
        return 100 * (score - self.low) / (self.high - self.low)

    def marks(self) -> Markup:
        """Round numbers along the scale, five at most."""
        step = next((s for s in SCALE_STEPS if (self.high - self.low) / s <= 5), SCALE_STEPS[-1])
        first = int(-(-self.low // step)) * step
        shown = [score for score in range(first, int(self.high) + 1, step) if 4 < self.at(score) < 96]
        marks = (tag("i", f"{score:,}", style=f"left:{self.at(score):.1f}%") for score in shown)
        return tag("span", *marks, class_="rl-scale-marks", aria_hidden="true")

    def picture(self, row: Standing) -> Markup:
        """The interval as a line with a dot; coloured if all of it is on one side of 1000."""
        estimate = row.score
        low, high = (estimate.value if end is None else end for end in (estimate.low, estimate.high))
        known = estimate.low is not None and high > low
        tone = " rl-above" if low > MEAN_SCORE else " rl-below" if high < MEAN_SCORE else ""
        span = tag("i", class_="rl-span", style=f"left:{self.at(low):.1f}%;width:{self.at(high) - self.at(low):.1f}%")
        return tag(
            "span",
            tag("i", class_="rl-reference-line", style=f"left:{self.at(MEAN_SCORE):.1f}%"),
            span if known else EMPTY,
            tag("i", class_="rl-dot", style=f"left:{self.at(estimate.value):.1f}%"),
            class_=f"rl-track{tone if known else ''}",
            aria_hidden="true",
        )


def _ends_for_screen_readers(translate: Translator, estimate: ScoreEstimate) -> Markup:
    if estimate.low is None:
        return EMPTY
    return tag("span", translate("leaderboard.from_to", low=f"{estimate.low:,.0f}", high=f"{estimate.high:,.0f}"), class_="rl-sr-only")


def _notes(translate: Translator, board: Leaderboard) -> Markup:
    """Explanations of the scores, in a collapsed block."""
    bases = sorted({reference for reference in board.references if reference})
    notes = [translate("leaderboard.scale_base", base=", ".join(bases)) if bases else translate("leaderboard.scale_mean")]
    notes.append(translate(f"leaderboard.method.{board.method}"))
    if board.style is not None:
        notes.append(translate("leaderboard.style.method"))
    if board.smoothed:
        notes.append(translate("leaderboard.smoothed"))
    if all(standing.score.low is None for standing in board.standings):
        notes.append(translate("leaderboard.too_few", count=MIN_CLUSTERS))
    lines = (tag("p", note) for note in notes)
    return tag("details", tag("summary", translate("leaderboard.how_to_read")), *lines, class_="rl-disclosure")


def _matrix(translate: Translator, board: Leaderboard) -> Markup:
    if len(board.standings) < 3:
        # With two versions, the standings show the same numbers.
        return EMPTY
    names = [standing.name for standing in board.standings]
    head = (
        tag("th", tag("span", name, class_="rl-sr-only"), tag("span", f"{n}", aria_hidden="true"), scope="col")
        for n, name in enumerate(names, 1)
    )
    body = (
        tag(
            "tr",
            tag("th", tag("span", f"{n}", aria_hidden="true"), " ", name, scope="row"),
            *map(_cell, board.shares[n - 1], board.met[n - 1]),
        )
        for n, name in enumerate(names, 1)
    )
    title = translate("leaderboard.matrix")
    matrix = tag("table", tag("thead", tag("tr", tag("td"), *head)), tag("tbody", *body), class_="rl-matrix")
    return tag(
        "section",
        tag("h2", title),
        tag("p", translate("leaderboard.matrix_help"), class_="rl-muted"),
        tag("div", matrix, class_="rl-scroll", role="region", aria_label=title, tabindex="0"),
        class_="rl-card rl-board",
        data_testid="win-matrix",
    )


def _cell(share: float | None, met: int) -> Markup:
    if share is None:
        return tag("td", NOTHING, class_="rl-muted")
    return tag("td", _percent(share), tag("small", f"{met:,}"), style=f"--rl-share:{max(0.0, 2 * share - 1):.2f}")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _ends(estimate: ScoreEstimate) -> Markup:
    if estimate.low is None or estimate.high is None:
        return EMPTY
    return fragment(" ", tag("span", f"{_percent(estimate.low)}–{_percent(estimate.high)}", class_="rl-muted"))


# ---- the visitor's own progress


def own(translate: Translator, by_day: Mapping[str, int], total: int, today: date) -> Markup:
    """The visitor's own judgments: today, in total, days in a row, and a bar for each of the last days."""
    title = translate("leaderboard.own")
    if not total:
        return _card("own-progress", title, tag("p", translate("leaderboard.own_none"), class_="rl-muted"))
    numbers = {
        "today": f"{by_day.get(today.isoformat(), 0):,}",
        "total": f"{total:,}",
        "streak": translate("leaderboard.days_in_a_row", count=streak(by_day, today)),
    }
    shown = [(today - timedelta(days=ago)).isoformat() for ago in range(OWN_CHART_DAYS - 1, -1, -1)]
    most = max(by_day.get(iso, 0) for iso in shown)
    chart = tag(
        "figure",
        tag("figcaption", translate("leaderboard.last_days", days=OWN_CHART_DAYS), class_="rl-muted"),
        tag("ol", *(_bar(translate, iso, by_day.get(iso, 0), most) for iso in shown)),
        tag("div", *(tag("span", day(translate, iso)) for iso in (shown[0], shown[-1])), class_="rl-muted", aria_hidden="true"),
        class_="rl-daily-chart",
    )
    totals = figures({translate(f"leaderboard.{name}"): value for name, value in numbers.items()})
    return _card("own-progress", title, totals, chart)


def streak(by_day: Mapping[str, int], today: date) -> int:
    """The days in a row with a judgment, up to today; a day that has just begun without one does not break the streak."""
    at = today if by_day.get(today.isoformat()) else today - timedelta(days=1)
    number = 0
    while by_day.get((at - timedelta(days=number)).isoformat()):
        number += 1
    return number


def _bar(translate: Translator, iso: str, number: int, most: int) -> Markup:
    summary = translate("leaderboard.on_day", day=day(translate, iso), count=number)
    height = tag("i", style=f"height:{100 * number / most:.0f}%") if number else EMPTY
    return tag("li", tag("span", summary, class_="rl-sr-only"), height, title=summary)


# ---- annotators


def everyone(translate: Translator, annotators: Sequence[Annotator], own_id: int) -> Markup:
    """People who have judged, most judgments first; by name if they agreed to show it, otherwise by number."""
    judged = sorted((a for a in annotators if a.kind == "human" and a.judged), key=lambda a: (-a.judged, a.pseudonym))
    title = translate("leaderboard.annotators")
    if not judged:
        return _card("annotators", title, tag("p", translate("leaderboard.nobody"), class_="rl-muted"))
    rows = (_person(translate, a, number, judged[0].judged, a.id == own_id) for number, a in enumerate(judged, 1))
    heads = (tag("th", translate(f"leaderboard.{name}"), scope="col") for name in ("annotator", "judgments"))
    head = tag("thead", tag("tr", *heads), class_="rl-sr-only")
    return _card("annotators", title, tag("table", head, tag("tbody", *rows), class_="rl-people"))


def _card(name: str, title: str, *body: Markup) -> Markup:
    return tag("section", tag("h2", title), *body, class_="rl-card", data_testid=name)


def _person(translate: Translator, annotator: Annotator, number: int, most: int, own: bool) -> Markup:
    name = annotator.name if annotator.shows_name else translate("leaderboard.someone", number=number)
    shown_name = translate("leaderboard.you", name=name) if own else name
    length = tag("i", style=f"width:{100 * annotator.judged / most:.1f}%")
    return tag(
        "tr",
        tag("th", shown_name, scope="row"),
        tag("td", f"{annotator.judged:,}", class_="rl-number"),
        tag("td", length, class_="rl-bar-cell", aria_hidden="true"),
        data_own=own,
    )
