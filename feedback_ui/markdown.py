"""Turns text that a model or a person wrote into HTML that is safe to put in a page.

Markdown in, a small allow-listed subset of HTML out: no raw HTML, images, styles, scripts or handlers. Math and
template marks (`$x$`, `${x}`, `{{x}}`) stay the characters they are. Leaves out syntax highlighting.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

ALLOWED_TAGS = frozenset(
    {"a", "p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li"}
    | {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
)
# Without "*", nh3 lets a title through on every tag.
ALLOWED_ATTRIBUTES: dict[str, set[str]] = {"*": set(), "a": {"href"}, "ol": {"start"}}
SCHEMES = {"http", "https"}
LINK_REL = "noopener noreferrer nofollow"


@lru_cache(maxsize=4096)
def render(text: str) -> str:
    """Safe HTML of a Markdown text, to be read as prose. Kept for a while: several people judge the same answers."""
    return nh3.clean(
        _markdown().render(text),
        tags=set(ALLOWED_TAGS),
        attributes=ALLOWED_ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel=LINK_REL,
        set_tag_attribute_values={"a": {"target": "_blank"}},
    ).strip()


class _Renderer(RendererHTML):
    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: dict) -> str:
        """The alternative text: fetching a picture would tell its server who is judging."""
        return escapeHtml(self.renderInlineAsText(tokens[idx].children, options, env))

    def link_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: dict) -> str:
        """The address stands beside the words, so that a link cannot claim to be another."""
        opening = max(i for i in range(idx) if tokens[i].type == "link_open")
        address = str(tokens[opening].attrGet("href"))
        words = "".join(token.content for token in tokens[opening + 1 : idx])
        return "</a>" if words.strip() == address else f" ({escapeHtml(address)})</a>"


@cache
def _markdown() -> MarkdownIt:
    # `breaks`: models mean the line breaks that they write.
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer).enable("table")
    parser.validateLink = _is_web_address
    return parser


def _is_web_address(address: str) -> bool:
    return address.strip().lower().startswith(("http://", "https://"))


def escape(text: str) -> str:
    """Text that stays text, for the inside of an element or a quoted attribute."""
    return escapeHtml(text)
