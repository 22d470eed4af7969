"""The one toolkit for HTML: elements, templates, and the pieces that several pages are made of. No Gradio here.

HTML is `Markup`; any other `str` is text and is escaped, in elements and in attributes. No function here takes text for HTML. The
names of elements and attributes are checked against a list, addresses and styles against what the pages need.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote

import nh3
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

ASSETS = Path(__file__).parents[1] / "assets"

EMPTY = Markup()

NOTHING = "–"
"""Shown in place of a missing number."""

Spread = tuple[float | None, float | None, float | None]
"""A value and the two ends of its interval."""

Attribute = str | int | bool | None

# ---- elements

ELEMENTS = {
    *(
        "a",
        "article",
        "blockquote",
        "br",
        "button",
        "caption",
        "code",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "figcaption",
        "figure",
        "form",
    ),
    *("h1", "h2", "h3", "i", "li", "link", "meta", "ol", "p", "progress", "section", "small", "span", "strong", "summary"),
    *("table", "tbody", "td", "th", "thead", "time", "tr", "ul"),
}
VOID_ELEMENTS = {"br", "link", "meta"}
ATTRIBUTES = {
    *(
        "action",
        "class",
        "content",
        "datetime",
        "dir",
        "download",
        "href",
        "max",
        "method",
        "name",
        "rel",
        "role",
        "scope",
        "style",
        "tabindex",
        "target",
        "title",
    ),
    *("type", "value"),
}
"""The attributes that pages use, besides `data-*` and `aria-*`; none of them runs a script."""

DATA_ATTRIBUTE = re.compile(r"(data|aria)(-[a-z]+)+")
ADDRESS = re.compile(r"((https?://[^/\\]|/(?![/\\])|[\w.-]+/|#)[^\x00-\x20]*)?")
"""Addresses in attributes: a web page elsewhere, a path of this site, a place on this page, or empty for the page itself. Browsers leave
out line breaks and tabs, so that `/`, a tab and `/` would name another site."""

STYLE = re.compile(r"(;?[a-z-]+:-?\d+(\.\d+)?%?)*")
"""Styles in attributes: numbers alone, such as `left:12.5%;width:3%`."""


def tag(name: str, /, *content: str, **attributes: Attribute) -> Markup:
    """An element. Text in its content and its attributes is escaped.

    Attributes are named as in HTML, with `_` for `-` and an underscore after a name that Python reserves: `class_`, `data_row`.
    None and False leave an attribute out; True writes it without a value.

    Raises:
        ValueError: the pages use no such element or attribute, or an address or a style is not of the allowed form.
    """
    if name not in ELEMENTS:
        raise ValueError(f"{name!r} is no element of these pages: add it to ELEMENTS")
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if name in VOID_ELEMENTS:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{fragment(*content)}</{name}>")


def _attribute(name: str, value: Attribute) -> str:
    if name not in ATTRIBUTES and not DATA_ATTRIBUTE.fullmatch(name):
        raise ValueError(f"{name!r} is no attribute of these pages: add it to ATTRIBUTES if it runs no script")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    if name in ("href", "action"):
        value = address(str(value))
    if name == "style" and not STYLE.fullmatch(str(value)):
        raise ValueError(f"a style is numbers alone, not {value!r}")
    return f' {name}="{escape(value)}"'


def address(url: str) -> str:
    """The address, if it is of a web page, a path of this site or a place on this page.

    Raises:
        ValueError: it is of another kind, such as `javascript:`.
    """
    if not ADDRESS.fullmatch(url):
        raise ValueError(f"no page links to {url!r}")
    return url


def fragment(*parts: str) -> Markup:
    """Several pieces in a row, as HTML; text among them is escaped."""
    return EMPTY.join(parts)


def sanitized(untrusted: str, *, tags: Iterable[str], attributes: Mapping[str, set[str]], url_schemes: Iterable[str], rel: str) -> Markup:
    """Untrusted HTML reduced to these elements with these attributes. Links open in a new tab."""
    clean = nh3.clean(
        untrusted,
        tags=set(tags),
        attributes=dict(attributes),
        url_schemes=set(url_schemes),
        link_rel=rel,
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    return Markup(clean.strip())


# ---- whole pages and files of the program


def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return (ASSETS / name).read_text(encoding="utf-8")


@cache
def _templates() -> Environment:
    # The newline at the end stays: a page's policy names the hash of its style sheet.
    made = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    made.filters["address"] = address
    return made


def render_template(name: str, /, **values: str | int | Sequence[Mapping[str, str]]) -> Markup:
    """A page from a template in `assets/`; text in `values` is escaped. An attribute that is an address needs the filter `address`.

    Raises:
        jinja2.UndefinedError: the template needs a value that is missing.
    """
    return Markup(_templates().get_template(name).render(values))


def inline_style(name: str) -> Markup:
    """A style sheet in `assets/` as an element."""
    return Markup(f"<style>{_unclosed(name, 'style')}</style>")


def inline_script(name: str) -> Markup:
    """A script in `assets/` as an element."""
    return Markup(f"<script>{_unclosed(name, 'script')}</script>")


def _unclosed(name: str, element: str) -> str:
    """The file's text, which must not contain the element's end tag.

    Raises:
        ValueError: the text has an end tag of the element.
    """
    content = asset(name)
    if f"</{element}" in content.lower():
        raise ValueError(f"{name} contains the end tag of {element}, the element that it is put in")
    return content


GRADIO_MARKER = re.compile(r'__i18n__\{"__type__": "translation_metadata", "key": "[a-z0-9_.]+"\}')


def translated_in_browser(marker: str) -> Markup:
    """A text that Gradio translates in the browser: it replaces this marker, but not one whose quotation marks are escaped.

    Raises:
        ValueError: this is no marker of Gradio's.
    """
    if not GRADIO_MARKER.fullmatch(marker):
        raise ValueError(f"{marker!r} is no marker of Gradio's for a translated text")
    return Markup(marker)


# ---- pieces that several pages show


def when(iso: str | None) -> Markup:
    """A time in UTC, to the minute; empty for None."""
    return tag("time", f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M}", datetime=iso) if iso else EMPTY


def muted(*content: str) -> Markup:
    """A note under a table or a chart."""
    return tag("p", *content, class_="rl-muted rl-small")


def with_note(value: str, note: str) -> Markup:
    """A value, and under it a note, if there is one."""
    return fragment(value, tag("br"), tag("span", note, class_="rl-muted")) if note else fragment(value)


def button(act: str, row: int, label: str, about: str) -> Markup:
    """A button in a table's row. `about` tells a screen reader which row it is."""
    return tag("button", label, type="button", class_="rl-small-button", data_act=act, data_row=row, aria_label=f"{label}: {about}")


_LONG_WORD = re.compile(r"\S{30}")
"""What would make a table wider than the page, such as an address or a file's name."""


def _cell_class(kind: str | None, cell: str) -> str | None:
    text = cell.striptags() if isinstance(cell, Markup) else cell
    return " ".join(filter(None, (kind, "rl-long-word" if _LONG_WORD.search(text) else None))) or None


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, numbers: Iterable[int] = (), cards: bool = True) -> Markup:
    """A table; `numbers` are the indices of right-aligned columns.

    An empty head marks a column of buttons. With `cards`, each row becomes a card on a phone.
    """
    right = set(numbers)
    kinds = ["rl-number" if i in right else None for i in range(len(heads))]
    head = fragment(*(tag("th", name, scope="col", class_=kind) if name else tag("td") for name, kind in zip(heads, kinds, strict=True)))
    body = fragment(
        *(
            tag("tr", *(tag("td", tag("div", cell), data_head=heads[i], class_=_cell_class(kinds[i], cell)) for i, cell in enumerate(row)))
            for row in rows
        )
    )
    return tag(
        "table",
        tag("caption", caption, class_="rl-sr-only"),
        tag("thead", tag("tr", head)),
        tag("tbody", body),
        class_="rl-table rl-cards" if cards else "rl-table",
    )


def comparison_link(comparison_id: int) -> str:
    """The address with which the Lead page opens a comparison; `feedback_ui.lead.page` reads it."""
    return f"#comparison-{comparison_id}"


def run_file(run_id: str, name: str) -> str:
    """The address of a file that a run made, relative to the page's; `feedback_ui.server.run_downloads` answers it."""
    return f"runs/{quote(run_id, safe='')}/{name}"


def interval(spread: Spread, marks: Sequence[float] = ()) -> Markup:
    """A value as a dot with its interval, on a scale from 0 to 1; values outside are drawn at the edge. Hidden from screen readers,
    because the text beside it has the same numbers."""
    value, low, high = spread
    if value is None:
        return tag("span", class_="rl-track", aria_hidden="true")
    at, start, end = (_clipped(v) for v in (value, value if low is None else low, value if high is None else high))
    return tag(
        "span",
        *(tag("i", class_="rl-reference-line", style=f"left:{100 * mark:g}%") for mark in marks),
        tag("i", class_="rl-span", style=f"left:{100 * start:.1f}%;width:{100 * (end - start):.1f}%"),
        tag("i", class_="rl-dot", style=f"left:{100 * at:.1f}%"),
        class_="rl-track",
        aria_hidden="true",
    )


def _clipped(value: float) -> float:
    return min(1.0, max(0.0, value))
