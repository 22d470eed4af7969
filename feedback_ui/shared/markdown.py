"""Renders Markdown that a model or a person wrote as HTML that is safe to put in a page.

The output is a small allow-listed subset of HTML: no raw HTML, images, styles, scripts or event handlers. Math and
template syntax (`$x$`, `${x}`, `{{x}}`) stays plain text. There is no syntax highlighting.

Rendering time is linear in the length of the text; texts over the limits below are shown as plain text, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

from feedback_ui.shared.html import fragment, sanitized, tag
from feedback_ui.shared.i18n import Translator

ALLOWED_TAGS = frozenset(
    {"a", "p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li"}
    | {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
)
# Without "*", nh3 lets a title through on every tag.
ALLOWED_ATTRIBUTES: dict[str, set[str]] = {"*": set(), "a": {"href"}, "ol": {"start"}}
SCHEMES = {"http", "https"}
LINK_REL = "noopener noreferrer nofollow"


MAX_CHARS = 200_000
"""The longest text that is rendered as Markdown, in characters."""

MAX_MARKS = 20_000
"""Maximum number of line breaks and markup characters in such a text. Each takes up to 0.1 ms; other characters take almost no time."""

MAX_REFERENCE_CHARS = 100_000
"""Maximum number of characters of addresses and titles that references to link definitions may add; for a longer text, its own length."""

SHORT_TEXT_CHARS = 10_000
"""The longest text that goes into the large cache, in characters."""

_MARKS = re.compile(r"[\n\r!&*<>\[\\\]_`|#+-]")


def render(text: str, translate: Translator | None = None) -> Markup:
    """Renders a Markdown text as safe HTML. Results are cached, because several people judge the same answers.

    A text of more than `MAX_CHARS` characters or `MAX_MARKS` marks is returned as plain text, with a note in the language of
    `translate` (English without it).
    """
    if len(text) > MAX_CHARS or len(_MARKS.findall(text)) > MAX_MARKS:
        return _plain(text, translate or Translator("en"))
    return (_render_short if len(text) <= SHORT_TEXT_CHARS else _render_long)(text)


def _plain(text: str, translate: Translator) -> Markup:
    note = translate("common.not_markdown", characters=f"{len(text):,}", longest=f"{MAX_CHARS:,}", marks=f"{MAX_MARKS:,}")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd").split("\n")
    return fragment(tag("p", tag("em", note)), "\n", tag("p", Markup("<br>\n").join(lines)))


def _render(text: str) -> Markup:
    return sanitized(_markdown().render(text), tags=ALLOWED_TAGS, attributes=ALLOWED_ATTRIBUTES, url_schemes=SCHEMES, rel=LINK_REL)


# The HTML may be ten times as long as the text: only a few long texts are cached.
_render_short = lru_cache(maxsize=4096)(_render)
_render_long = lru_cache(maxsize=64)(_render)


class _References(dict[str, Any]):
    """Link definitions by label, with a limit on how much text their uses may add; beyond it, a reference stays plain text.

    Each use of a label repeats its address, so that without a limit the HTML could grow with the square of the text. cmark has
    the same limit.
    """

    def __init__(self, definitions: dict[str, Any], most: int):
        super().__init__(definitions)
        self.left = most

    def get(self, label: str, default: Any = None) -> Any:
        definition = super().get(label)
        if definition is None:
            return default
        self.left -= len(definition["href"]) + len(definition["title"])
        return definition if self.left >= 0 else default


def _limit_references(state: StateCore) -> None:
    if "references" in state.env:
        state.env["references"] = _References(state.env["references"], max(MAX_REFERENCE_CHARS, len(state.src)))


class _Renderer(RendererHTML):
    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """The alternative text instead of the image: fetching an image would reveal the annotator to its server."""
        return str(escape(self.renderInlineAsText(tokens[idx].children, options, env)))

    def link_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Shows the address beside the link text, so that a link cannot pretend to lead elsewhere."""
        # Search backwards: links do not nest, so that all searches together visit each token once.
        opening = next(i for i in range(idx - 1, -1, -1) if tokens[i].type == "link_open")
        address = str(tokens[opening].attrGet("href"))
        link_text = "".join(token.content for token in tokens[opening + 1 : idx])
        shown = Markup("</a>") if link_text.strip() == address else Markup(" ({})</a>").format(address)
        # A plain string, because the renderer joins it to other strings, which `Markup` would escape.
        return str(shown)


class _Parser(MarkdownIt):
    def validateLink(self, url: str) -> bool:
        return url.strip().lower().startswith(("http://", "https://"))


@cache
def _markdown() -> MarkdownIt:
    # `breaks`: a single line break in a model's answer is meant as one.
    parser = _Parser("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer).enable("table")
    parser.core.ruler.after("block", "limit_references", _limit_references)
    return parser
