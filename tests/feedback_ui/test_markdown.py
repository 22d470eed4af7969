"""Untrusted text can only become the few harmless tags that the page allows."""

from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feedback_ui.markdown import ALLOWED_TAGS, render

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

texts = st.lists(
    st.sampled_from(NASTY) | st.text(max_size=20) | st.sampled_from(list("[]()<>!`*_#|\"'\n &;:/")), max_size=12
).map("".join)


class Inventory(HTMLParser):
    """Every tag and attribute that a browser would find."""

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
def test_marks_of_other_languages_stay_text(text):
    assert unescape(render(text)) == f"<p>{text}</p>"


def test_a_link_shows_its_address():
    html = render("[your bank](https://evil.example/a)")
    assert ">your bank (https://evil.example/a)</a>" in html


def test_a_bare_address_is_not_said_twice():
    assert render("<https://ok.example>").count("https://ok.example") == 2  # once as href, once as text


def test_an_image_is_its_alternative_text():
    assert render("![a **cat**](https://evil.example/pixel.png)") == "<p>a cat</p>"


def test_other_schemes_are_no_links():
    assert "<a" not in render("[a](javascript:alert(1)) [b](file:///etc/passwd) [c](mailto:x@y.z) [d](/local)")


def test_single_line_breaks_are_kept():
    assert render("one\ntwo") == "<p>one<br>\ntwo</p>"


def test_tables_and_code():
    assert "<td>1</td>" in render("|a|\n|-|\n|1|")
    assert render("```python\nif a < b:\n    pass\n```") == "<pre><code>if a &lt; b:\n    pass\n</code></pre>"


def test_nothing_gives_nothing():
    assert render("") == render(" \n ") == ""
