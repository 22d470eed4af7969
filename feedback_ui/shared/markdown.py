"""Turns text that a model or a person wrote into HTML that is safe to put in a page.

Markdown in, a small allow-listed subset of HTML out: no raw HTML, images, styles, scripts or handlers. Math and
template marks (`$x$`, `${x}`, `{{x}}`) stay the characters they are. Leaves out syntax highlighting.

The time is linear in the text, whatever it holds, and a text that would still take long is shown as it is, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from feedback_ui.shared.i18n import Translator

ALLOWED_TAGS = frozenset(
    {"a", "p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li"}
    | {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
)
# Without "*", nh3 lets a title through on every tag.
ALLOWED_ATTRIBUTES: dict[str, set[str]] = {"*": set(), "a": {"href"}, "ol": {"start"}}
SCHEMES = {"http", "https"}
LINK_REL = "noopener noreferrer nofollow"


LONGEST = 200_000
"""Characters of a text that is read as Markdown."""

MOST_MARKS = 20_000
"""Line breaks and characters of markup in it. Each costs up to 0.1 ms, other characters next to nothing."""

MOST_EXPANDED = 100_000
"""Characters of addresses and titles that the uses of link definitions may repeat, or as many as the text has if it has more."""

SHORT = 10_000
"""Characters of a text that is short enough for thousands to be kept."""

_MARKS = re.compile(r"[\n\r!&*<>\[\\\]_`|#+-]")


def render(text: str, words: Translator | None = None) -> str:
    """Safe HTML of a Markdown text, to be read as prose. Kept for a while: several people judge the same answers.

    A text of more than `LONGEST` characters or `MOST_MARKS` marks comes as plain text, with a note in `words` (English
    without them) that says so.
    """
    if len(text) > LONGEST or len(_MARKS.findall(text)) > MOST_MARKS:
        return _plain(text, words or Translator("en"))
    return (_render_short if len(text) <= SHORT else _render_long)(text)


def _plain(text: str, words: Translator) -> str:
    note = words("common.not_markdown", characters=f"{len(text):,}", longest=f"{LONGEST:,}", marks=f"{MOST_MARKS:,}")
    body = escapeHtml(text).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd").replace("\n", "<br>\n")
    return f"<p><em>{escapeHtml(note)}</em></p>\n<p>{body}</p>"


def _render(text: str) -> str:
    return nh3.clean(
        _markdown().render(text),
        tags=set(ALLOWED_TAGS),
        attributes=ALLOWED_ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel=LINK_REL,
        set_tag_attribute_values={"a": {"target": "_blank"}},
    ).strip()


# The HTML of a text may be ten times as long as the text: few of the long ones are kept.
_render_short = lru_cache(maxsize=4096)(_render)
_render_long = lru_cache(maxsize=64)(_render)


class _References(dict[str, Any]):
    """Link definitions by label. `[a][a][a]` repeats its address: once that came to more than the text, it is text again.

    cmark has the same limit, for the same reason: the HTML would grow with the square of the text.
    """

    def __init__(self, found: dict[str, Any], most: int):
        super().__init__(found)
        self.left = most

    def get(self, label: str, default: Any = None) -> Any:
        found = super().get(label)
        if found is None:
            return default
        self.left -= len(found["href"]) + len(found["title"])
        return found if self.left >= 0 else default


def _limit_references(state: StateCore) -> None:
    if "references" in state.env:
        state.env["references"] = _References(state.env["references"], max(MOST_EXPANDED, len(state.src)))


class _Renderer(RendererHTML):
    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """The alternative text: fetching a picture would tell its server who is judging."""
        return escapeHtml(self.renderInlineAsText(tokens[idx].children, options, env))

    def link_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """The address stands beside the words, so that a link cannot claim to be another."""
        # Backwards: links do not nest, so that each token is passed once for all links together.
        opening = next(i for i in range(idx - 1, -1, -1) if tokens[i].type == "link_open")
        address = str(tokens[opening].attrGet("href"))
        words = "".join(token.content for token in tokens[opening + 1 : idx])
        return "</a>" if words.strip() == address else f" ({escapeHtml(address)})</a>"


class _Parser(MarkdownIt):
    def validateLink(self, url: str) -> bool:
        return url.strip().lower().startswith(("http://", "https://"))


@cache
def _markdown() -> MarkdownIt:
    # `breaks`: models mean the line breaks that they write.
    parser = _Parser("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer).enable("table")
    parser.core.ruler.after("block", "limit_references", _limit_references)
    return parser


def escape(text: str) -> str:
    """Text that stays text, for the inside of an element or a quoted attribute."""
    return escapeHtml(text)
