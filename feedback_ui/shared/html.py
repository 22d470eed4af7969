"""Pieces of HTML that several pages are made of: text, tables, buttons, an interval as a picture. No Gradio here.

What comes in as `text` is escaped; what is called HTML in a docstring is escaped already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from feedback_ui.shared import markdown

NOTHING = "–"
"""Stands where there is no figure."""

Spread = tuple[float | None, float | None, float | None]
"""A figure, and the ends of its interval."""


def text(said: str) -> str:
    return markdown.escape(said)


def when(iso: str | None) -> str:
    """A moment to the minute, in UTC."""
    if not iso:
        return ""
    moment = datetime.fromisoformat(iso)
    return f'<time datetime="{text(iso)}">{moment:%Y-%m-%d %H:%M}</time>'


def muted(said: str) -> str:
    """A note under a table or a picture, as HTML that is escaped already."""
    return f'<p class="rl-muted rl-small">{said}</p>'


def button(act: str, row: int, says: str, about: str) -> str:
    """A button in a table's row. `about` tells a screen reader which row it is."""
    return (
        f'<button type="button" class="rl-act" data-act="{act}" data-row="{row}" '
        f'aria-label="{text(f"{says}: {about}")}">{text(says)}</button>'
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, numbers: Iterable[int] = (), cards: bool = True) -> str:
    """A quiet table of cells that are HTML already; `numbers` are the columns set as figures.

    A head that is empty belongs to buttons. On a phone each row becomes a card, if `cards` are wanted.
    """
    right = set(numbers)
    kind = ['class="rl-number"' if i in right else "" for i in range(len(heads))]
    head = "".join(f'<th scope="col" {kind[i]}>{text(name)}</th>' if name else "<td></td>" for i, name in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(f'<td data-head="{text(heads[i])}" {kind[i]}><div>{cell}</div></td>' for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<table class="rl-table{" rl-cards" if cards else ""}"><caption class="rl-unseen">{text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def comparison_link(comparison_id: int) -> str:
    """An address at which the Lead page opens a comparison; `feedback_ui.lead.page` reads it."""
    return f"#comparison-{comparison_id}"


def interval(spread: Spread, marks: Sequence[float] = ()) -> str:
    """A dot with its interval between 0 and 1; what lies below 0 stands at the edge. The text beside it says the same."""
    value, low, high = spread
    if value is None:
        return '<span class="rl-track" aria-hidden="true"></span>'
    at, start, end = (_clipped(v) for v in (value, value if low is None else low, value if high is None else high))
    lines = "".join(f'<i class="rl-mark-at" style="left:{100 * m:g}%"></i>' for m in marks)
    return (
        f'<span class="rl-track" aria-hidden="true">{lines}'
        f'<i class="rl-span" style="left:{100 * start:.1f}%;width:{100 * (end - start):.1f}%"></i>'
        f'<i class="rl-dot" style="left:{100 * at:.1f}%"></i></span>'
    )


def _clipped(value: float) -> float:
    return min(1.0, max(0.0, value))
