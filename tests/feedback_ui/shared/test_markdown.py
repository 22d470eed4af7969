"""Untrusted text can only become the few harmless tags that the page allows."""

import sys
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feedback_ui.shared import markdown
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.markdown import ALLOWED_TAGS, render

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)" onclick=x>a</a>',
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt&#58;alert(1))",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "[a](//evil.example)",
    "[a](https://evil.example \"onmouseover='x'\")",
    "![alt](https://evil.example/pixel.png)",
    "![a](javascript:x)",
    "<https://ok.example>",
    "<style>*{display:none}</style>",
    "<svg/onload=alert(1)>",
    "&lt;script&gt;",
    "${alert(1)}",
    "{{constructor}}",
    "`${x}`",
    "\\\\`${x}`",
    "$\\frac{a}{b}$",
    "```html\n<script>\n```",
    "|a|b|\n|-|-|\n|<i>|**x**|",
    "[x]: javascript:y\n[x]",
    "<iframe srcdoc='<script>'>",
    "]]>",
    "<!--",
    "<math><mtext></mtext><mglyph><style>",
    "\x00\ud7ff\u202e",
]

texts = st.lists(st.sampled_from(NASTY) | st.text(max_size=20) | st.sampled_from(list("[]()<>!`*_#|\"'\n &;:/")), max_size=12).map("".join)


class Inventory(HTMLParser):
    """Collects every tag and attribute that a browser would parse."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.others: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_comment(self, data):
        self.others.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


@given(texts)
@example("".join(NASTY))
@example("\n\n".join(NASTY))
def test_only_allow_listed_tags_and_attributes_come_out(text):
    found = Inventory(render(text))
    assert set(found.tags) <= ALLOWED_TAGS
    assert not found.others
    for tag, name, value in found.attributes:
        assert (tag, name) in {("a", "href"), ("a", "rel"), ("a", "target"), ("ol", "start")}
        if name == "href":
            assert value.lower().startswith(("http://", "https://"))
        if name == "rel":
            assert value == "noopener noreferrer nofollow"
        if name == "target":
            assert value == "_blank"
        if name == "start":
            assert value.isdigit()


@pytest.mark.parametrize("text", ["${alert(1)}", "{{value}}", "$\\frac{a}{b}$", "$$x$$", "<b>bold</b>", "a & b < c"])
def test_markup_of_other_languages_stays_text(text):
    assert unescape(render(text)) == f"<p>{text}</p>"


def test_a_link_shows_its_address():
    html = render("[your bank](https://evil.example/a)")
    assert ">your bank (https://evil.example/a)</a>" in html


def test_a_bare_address_is_shown_once():
    assert render("<https://ok.example>").count("https://ok.example") == 2  # once as href, once as text


def test_an_image_is_its_alternative_text():
    assert render("![a **cat**](https://evil.example/pixel.png)") == "<p>a cat</p>"


def test_other_schemes_are_not_linked():
    assert "<a" not in render("[a](javascript:alert(1)) [b](file:///etc/passwd) [c](mailto:x@y.z) [d](/local)")


def test_single_line_breaks_are_kept():
    assert render("one\ntwo") == "<p>one<br>\ntwo</p>"


def test_tables_and_code():
    assert "<td>1</td>" in render("|a|\n|-|\n|1|")
    assert render("```python\nif a < b:\n    pass\n```") == "<pre><code>if a &lt; b:\n    pass\n</code></pre>"


def test_an_empty_text_gives_no_html():
    assert render("") == render(" \n ") == ""


# ---- long texts

REPEATED = [
    "[a](http://x.y) ", "[a *b*](http://x.y) ", "<http://x.y> ", "![a](http://x.y) ", "![[]()", "[", "]", "![", "[[a]]", "[a](", "a](b)",
    "[a][b] ", "*a ", "**a ", "_a ", "*a _b ", "*a* ", "*", "a**b", "***a** ", "*a**", "a* **b _c ", "`", "`a", "`a``b", "` `` ``` ",
    ">", "> a\n", "> a\nb\n", "- ", "- a\n", "- a\n\n", "+ a\n  + b\n", "1. a\n", "-\n", "> - ", "- > ", "<", "<a ", "<!--",
    "<![CDATA[", "<?", "&", "&amp;", "&#x41;", "&a", "# a\n", "#", "---\n", "a\n---\n", "```\n", "~~~\n", "    a\n", "a\n\n", "a\n", "\n",
    " ", "\t", "\\", "\\\n", "a  \n", "[a]: http://x.y\n", "[a]: http://x.y 'a\n", "[a\n", "|", "|a|b|\n", "a:-|", "|-", "\0", "<div>",
    '"', "*_`[!<&\\", "http://x.y ", "가", "a",
]  # fmt: skip
STARTS = {
    "": "",
    "definition": "[a]: http://x.y\n\n",
    "table": "|a|b|\n|-|-|\n",
    "label": "[a",
    "address": "[a](http://x.y/",
    "emphasis": "*a **b _c ",
}
WHOLE = {
    "one definition, long and used often": lambda n: "[a]: http://x.y/" + "b" * n + "\n\n" + "[a]" * n,
    "one title, long and used often": lambda n: "[a]: http://x.y '" + "b" * n + "'\n\n" + "[a]" * n,
    "many definitions, each used": lambda n: "".join(f"[{i}]: http://x.y\n" for i in range(n)) + "\n" + "".join(f"[{i}]" for i in range(n)),
    "nested brackets": lambda n: "[" * n + "a" + "](http://x.y)" * n,
    "nested images": lambda n: "![" * n + "a" + "](http://x.y)" * n,
    "nested emphasis": lambda n: "*a **b " * n + "c** d*" * n,
    "wide table": lambda n: "|a" * n + "|\n" + "|-" * n + "|\n" + "|1" * n + "|\n",
    "one long row under a short one": lambda n: "|a|b|\n|-|-|\n" + "|1" * n,
    "lazy lines": lambda n: ">" * 19 + "a\n" + "a\n" * n,
    "backticks of every length": lambda n: "".join("e" + "`" * i for i in range(int((2 * n) ** 0.5))),
}


def lines_run(text):
    """Counts the lines of Python that rendering executes, which does not depend on the machine's load."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        markdown._render(text)
    finally:
        sys.settrace(before)
    return count


def grows(text_of):
    """The ratio of the work for four times the text to the work for the text: 4 is linear, 16 quadratic."""
    markdown._render("warm")
    return lines_run(text_of(4)) / lines_run(text_of(1))


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_the_time_is_linear_in_the_repetitions(start):
    for unit in REPEATED:
        times = (250 if start else 2_000) // len(unit)
        assert grows(lambda n, unit=unit, times=times: STARTS[start] + unit * (n * times)) < 5, repr(unit)


@pytest.mark.parametrize("name", WHOLE)
def test_the_time_and_the_html_are_linear_in_the_text(name, monkeypatch):
    monkeypatch.setattr(markdown, "MAX_REFERENCE_CHARS", 0)
    assert grows(lambda n: WHOLE[name](n * 100)) < 5
    assert len(markdown._render(WHOLE[name](2_000))) < 5 * len(markdown._render(WHOLE[name](500)))


def test_a_definition_may_be_used_many_times():
    text = "[a]: http://x.y/" + "b" * 100 + "\n\n" + "[a] " * 500
    assert render(text).count("<a ") == 500


def test_a_text_that_is_too_long_or_has_too_many_marks_is_plain_with_a_note():
    assert "<strong>" in render("**a** " + "a" * (markdown.MAX_CHARS - 6))
    long, marked = "**a** <b>\n" + "a" * markdown.MAX_CHARS, "**a** <b>\n" + "[" * markdown.MAX_MARKS
    for text in (long, marked):
        found = Inventory(render(text))
        assert set(found.tags) == {"p", "em", "br"}
        assert "**a** &lt;b&gt;<br>\n" in render(text)
    assert render(marked).startswith("<p><em>Shown as plain text: it has 20,010 characters,")
    assert render(marked, Translator("ko")).startswith("<p><em>서식 없이 원문 그대로 표시합니다: 20,010자입니다.")


def test_a_million_brackets_and_forty_thousand_links_are_shown():
    assert render("[" * 1_000_000).endswith("[</p>")
    assert render("[a](http://x.y) " * 40_000).endswith("[a](http://x.y) </p>")
