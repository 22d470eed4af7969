"""Presenters of the Leaderboard page: standings with intervals, the win matrix, the visitor's progress and the annotators. No Gradio.

Every number comes from `rlhf.analysis.leaderboard` or from the store. All numbers are in the text, so that charts are hidden from
screen readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.markdown import escape
from feedback_ui.shared.presenters import day, empty_state, figures, notice
from rlhf.analysis.bootstrap import FEWEST_CLUSTERS
from rlhf.analysis.leaderboard import MEAN_SCORE, Figure, Leaderboard, Standing
from storage.core.records import Annotator

DAYS = 30
"""The days that the chart of the visitor's own judgments covers."""

STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Possible distances between two marks of the scale, in points."""

MARGIN = 0.06
"""The margin on both sides of the chart, as a share of the scale."""


# ---- policy versions


def policies(words: Translator, board: Leaderboard, *, with_switch: bool) -> str:
    """The standings, or how to get some. `with_switch` tells that there are simulated judgments, which a switch includes."""
    if not board.standings:
        none = "none_by_people" if with_switch and not board.include_simulated else "none_yet"
        return empty_state(words(f"leaderboard.{none}"))
    parts = [notice(words("leaderboard.apart", count=len(board.references)), "warn")] if not board.connected else []
    for group, reference in enumerate(board.references):
        rows = [standing for standing in board.standings if standing.group == group]
        title = "" if board.connected else f"<h3>{words('leaderboard.group', number=group + 1)}</h3>"
        parts.append(title + _table(words, rows, reference))
    # A vote between two answers is one pair: the number of pairs adds nothing if all votes are such.
    pairs = {"pairs": board.pairs} if board.pairs != board.judgments else {}
    based_on = {"votes": board.judgments, **pairs, "prompts": board.prompts}
    return (
        f'<section class="rl-card rl-board" data-testid="standings"><h2>{words("leaderboard.policies")}</h2>{"".join(parts)}'
        f"{figures({words(f'leaderboard.{name}'): f'{number:,}' for name, number in based_on.items()})}{_notes(words, board)}</section>"
        + _matrix(words, board)
    )


def _table(words: Translator, rows: Sequence[Standing], reference: str | None) -> str:
    scale = Scale.around(rows)
    over = words("leaderboard.over") if reference else ""
    heads = [
        (words("leaderboard.rank"), "rl-rank"),
        (words("leaderboard.version"), ""),
        (words("leaderboard.score"), "rl-number"),
        (f'<span class="rl-sr-only">{words("leaderboard.interval")}</span>{scale.marks()}', "rl-interval-cell"),
        (over, "rl-number"),
        (words("leaderboard.record"), "rl-number"),
    ]
    head = "".join(f'<th scope="col" class="{name}">{title}</th>' if title else "<td></td>" for title, name in heads)
    body = "".join(_row(words, row, scale, over) for row in rows)
    return f'<table class="rl-table rl-standings"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _row(words: Translator, row: Standing, scale: Scale, over: str) -> str:
    preferred = "" if row.over_base is None else f"<span>{_percent(row.over_base.value)}{_ends(row.over_base)}</span>"
    record = words("leaderboard.won_tied_lost", won=row.wins, tied=row.ties, lost=row.losses)
    return (
        f'<tr data-policy="{escape(row.name)}"><td class="rl-rank">{row.rank}</td><th scope="row">{escape(row.name)}</th>'
        f'<td class="rl-number rl-value" data-head="{words("leaderboard.score")}">{row.score.value:,.0f}</td>'
        f'<td class="rl-interval-cell" data-head="{words("leaderboard.interval")}">{scale.picture(row)}{_spoken(words, row.score)}</td>'
        f'<td class="rl-number" data-head="{over}">{preferred}</td>'
        f'<td class="rl-number" data-head="{words("leaderboard.record")}">{record}</td></tr>'
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

    def marks(self) -> str:
        """Round numbers along the scale, five at most."""
        step = next((s for s in STEPS if (self.high - self.low) / s <= 5), STEPS[-1])
        first = int(-(-self.low // step)) * step
        shown = [score for score in range(first, int(self.high) + 1, step) if 4 < self.at(score) < 96]
        marks = "".join(f'<i style="left:{self.at(score):.1f}%">{score:,}</i>' for score in shown)
        return f'<span class="rl-scale-marks" aria-hidden="true">{marks}</span>'

    def picture(self, row: Standing) -> str:
        """The interval as a line with a dot; coloured if all of it is on one side of 1000."""
        figure = row.score
        low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
        tone = " rl-above" if low > MEAN_SCORE else " rl-below" if high < MEAN_SCORE else ""
        known = figure.low is not None and high > low
        span = f'<i class="rl-span" style="left:{self.at(low):.1f}%;width:{self.at(high) - self.at(low):.1f}%"></i>' if known else ""
        return (
            f'<span class="rl-track{tone if known else ""}" aria-hidden="true">'
            f'<i class="rl-reference-line" style="left:{self.at(MEAN_SCORE):.1f}%"></i>{span}'
            f'<i class="rl-dot" style="left:{self.at(figure.value):.1f}%"></i></span>'
        )


def _spoken(words: Translator, figure: Figure) -> str:
    if figure.low is None:
        return ""
    interval = words("leaderboard.from_to", low=f"{figure.low:,.0f}", high=f"{figure.high:,.0f}")
    return f'<span class="rl-sr-only">{interval}</span>'


def _notes(words: Translator, board: Leaderboard) -> str:
    """Explanations of the scores, in a collapsed block."""
    bases = sorted({reference for reference in board.references if reference})
    notes = [words("leaderboard.scale_base", base=escape(", ".join(bases))) if bases else words("leaderboard.scale_mean")]
    notes.append(words(f"leaderboard.method.{board.method}"))
    if board.smoothed:
        notes.append(words("leaderboard.smoothed"))
    if all(standing.score.low is None for standing in board.standings):
        notes.append(words("leaderboard.too_few", count=FEWEST_CLUSTERS))
    lines = "".join(f"<p>{note}</p>" for note in notes)
    return f'<details class="rl-disclosure"><summary>{words("leaderboard.how_to_read")}</summary>{lines}</details>'


def _matrix(words: Translator, board: Leaderboard) -> str:
    if len(board.standings) < 3:
        # With two versions, the standings show the same numbers.
        return ""
    names = [escape(standing.name) for standing in board.standings]
    head = "".join(
        f'<th scope="col"><span class="rl-sr-only">{name}</span><span aria-hidden="true">{n}</span></th>' for n, name in enumerate(names, 1)
    )
    body = "".join(
        f'<tr><th scope="row"><span aria-hidden="true">{n}</span> {name}</th>'
        + "".join(map(_cell, board.shares[n - 1], board.met[n - 1]))
        + "</tr>"
        for n, name in enumerate(names, 1)
    )
    title, help_ = words("leaderboard.matrix"), f'<p class="rl-muted">{words("leaderboard.matrix_help")}</p>'
    return (
        f'<section class="rl-card rl-board" data-testid="win-matrix"><h2>{title}</h2>{help_}'
        f'<div class="rl-scroll" role="region" aria-label="{title}" tabindex="0">'
        f'<table class="rl-matrix"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _cell(share: float | None, met: int) -> str:
    if share is None:
        return '<td class="rl-muted">–</td>'
    return f'<td style="--rl-share:{max(0.0, 2 * share - 1):.2f}">{_percent(share)}<small>{met:,}</small></td>'


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _ends(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f' <span class="rl-muted">{_percent(figure.low)}–{_percent(figure.high)}</span>'


# ---- the visitor's own progress


def own(words: Translator, by_day: Mapping[str, int], total: int, today: date) -> str:
    """The visitor's own judgments: today, in total, days in a row, and a bar for each of the last days."""
    title = words("leaderboard.own")
    if not total:
        return _card("own-progress", title, f'<p class="rl-muted">{words("leaderboard.own_none")}</p>')
    numbers = {
        "today": f"{by_day.get(today.isoformat(), 0):,}",
        "total": f"{total:,}",
        "streak": words("leaderboard.days_in_a_row", count=streak(by_day, today)),
    }
    shown = [(today - timedelta(days=ago)).isoformat() for ago in range(DAYS - 1, -1, -1)]
    most = max(by_day.get(iso, 0) for iso in shown)
    bars = "".join(_bar(words, iso, by_day.get(iso, 0), most) for iso in shown)
    ends = "".join(f"<span>{day(words, iso)}</span>" for iso in (shown[0], shown[-1]))
    picture = (
        f'<figure class="rl-daily-chart"><figcaption class="rl-muted">{words("leaderboard.last_days", days=DAYS)}</figcaption>'
        f'<ol>{bars}</ol><div class="rl-muted" aria-hidden="true">{ends}</div></figure>'
    )
    return _card("own-progress", title, figures({words(f"leaderboard.{name}"): value for name, value in numbers.items()}) + picture)


def streak(by_day: Mapping[str, int], today: date) -> int:
    """The days in a row with a judgment, up to today; a day that has just begun without one does not break the streak."""
    at = today if by_day.get(today.isoformat()) else today - timedelta(days=1)
    number = 0
    while by_day.get((at - timedelta(days=number)).isoformat()):
        number += 1
    return number


def _bar(words: Translator, iso: str, number: int, most: int) -> str:
    summary = words("leaderboard.on_day", day=day(words, iso), count=number)
    height = f'<i style="height:{100 * number / most:.0f}%"></i>' if number else ""
    return f'<li title="{summary}"><span class="rl-sr-only">{summary}</span>{height}</li>'


# ---- annotators


def everyone(words: Translator, annotators: Sequence[Annotator], own_id: int) -> str:
    """People who have judged, most judgments first; by name if they agreed to show it, otherwise by number."""
    judged = sorted((a for a in annotators if a.kind == "human" and a.judged), key=lambda a: (-a.judged, a.pseudonym))
    title = words("leaderboard.annotators")
    if not judged:
        return _card("annotators", title, f'<p class="rl-muted">{words("leaderboard.nobody")}</p>')
    rows = "".join(_person(words, a, number, judged[0].judged, a.id == own_id) for number, a in enumerate(judged, 1))
    head = f'<tr><th scope="col">{words("leaderboard.annotator")}</th><th scope="col">{words("leaderboard.judgments")}</th></tr>'
    return _card("annotators", title, f'<table class="rl-people"><thead class="rl-sr-only">{head}</thead><tbody>{rows}</tbody></table>')


def _card(name: str, title: str, body: str) -> str:
    return f'<section class="rl-card" data-testid="{name}"><h2>{title}</h2>{body}</section>'


def _person(words: Translator, annotator: Annotator, number: int, most: int, own: bool) -> str:
    name = escape(annotator.name) if annotator.shows_name else words("leaderboard.someone", number=number)
    shown_name = words("leaderboard.you", name=name) if own else name
    bar = f'<td class="rl-bar-cell" aria-hidden="true"><i style="width:{100 * annotator.judged / most:.1f}%"></i></td>'
    return f'<tr{" data-own" if own else ""}><th scope="row">{shown_name}</th><td class="rl-number">{annotator.judged:,}</td>{bar}</tr>'
