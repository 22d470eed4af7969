"""Pieces of HTML that several pages are made of: text, tables, buttons, an interval as a picture. No Gradio here.

Functions escape the text that they are given; an argument that a docstring calls HTML must be escaped already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from feedback_ui.shared import markdown

NOTHING = "–"
"""Shown in place of a missing number."""

Spread = tuple[float | None, float | None, float | None]
"""A value and the two ends of its interval."""


def text(content: str) -> str:
    return markdown.escape(content)


def when(iso: str | None) -> str:
    """A time to the minute, in UTC; empty for None."""
    if not iso:
        return ""
    moment = datetime.fromisoformat(iso)
    return f'<time datetime="{text(iso)}">{moment:%Y-%m-%d %H:%M}</time>'


def muted(content: str) -> str:
    """A note under a table or a chart; `content` is HTML."""
    return f'<p class="rl-muted rl-small">{content}</p>'


def button(act: str, row: int, says: str, about: str) -> str:
    """A button in a table's row. `about` tells a screen reader which row it is."""
    return (
        f'<button type="button" class="rl-small-button" data-act="{act}" data-row="{row}" '
        f'aria-label="{text(f"{says}: {about}")}">{text(says)}</button>'
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, numbers: Iterable[int] = (), cards: bool = True) -> str:
    """A table whose cells are HTML; `numbers` are the indices of right-aligned columns.

    An empty head marks a column of buttons. With `cards`, each row becomes a card on a phone.
    """
    right = set(numbers)
    kind = ['class="rl-number"' if i in right else "" for i in range(len(heads))]
    head = "".join(f'<th scope="col" {kind[i]}>{text(name)}</th>' if name else "<td></td>" for i, name in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(f'<td data-head="{text(heads[i])}" {kind[i]}><div>{cell}</div></td>' for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<table class="rl-table{" rl-cards" if cards else ""}"><caption class="rl-sr-only">{text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def comparison_link(comparison_id: int) -> str:
    """The link with which the Lead page opens a comparison; `feedback_ui.lead.page` reads it."""
    return f"#comparison-{comparison_id}"


def interval(spread: Spread, marks: Sequence[float] = ()) -> str:
    """A value as a dot with its interval, on a scale from 0 to 1; values outside are drawn at the edge. Hidden from screen readers,
    because the text beside it has the same numbers."""
    value, low, high = spread
    if value is None:
        return '<span class="rl-track" aria-hidden="true"></span>'
    at, start, end = (_clipped(v) for v in (value, value if low is None else low, value if high is None else high))
    lines = "".join(f'<i class="rl-reference-line" style="left:{100 * m:g}%"></i>' for m in marks)
    return (
        f'<span class="rl-track" aria-hidden="true">{lines}'
        f'<i class="rl-span" style="left:{100 * start:.1f}%;width:{100 * (end - start):.1f}%"></i>'
        f'<i class="rl-dot" style="left:{100 * at:.1f}%"></i></span>'
    )


def _clipped(value: float) -> float:
    return min(1.0, max(0.0, value))
