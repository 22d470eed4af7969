"""The HTML toolkit, and that no other module of feedback_ui makes HTML in another way."""

import ast
import re
from html.parser import HTMLParser
from pathlib import Path

import gradio as gr
import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

import feedback_ui
from feedback_ui.shared import html, theme
from feedback_ui.shared.html import ASSETS, EMPTY, fragment, tag

PACKAGE = Path(feedback_ui.__file__).parent
TOOLKIT = PACKAGE / "shared" / "html.py"
MODULES = sorted(set(PACKAGE.rglob("*.py")) - {TOOLKIT})

hostile = st.text("<>\"'&;=/ \t\n`{}%$abonclick:") | st.sampled_from(
    ["<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "' onclick='x", "</p></td>", "<!--", "&lt;b&gt;", "{0}", "%s"]
)


class Parsed(HTMLParser):
    """Start tags with their attributes, end tags and texts, as a browser would read them."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text = [], ""
        # Plain text, because the parser joins pieces of it.
        self.feed(str(source))
        self.close()

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))

    def handle_endtag(self, name):
        self.tags.append(f"/{name}")

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.tags.append("a comment")

    handle_decl = handle_pi = unknown_decl = handle_comment


# ---- elements


@settings(deadline=None)
@given(hostile, hostile)
def test_text_stays_text_in_an_element_and_in_its_attributes(content, value):
    parsed = Parsed(tag("p", content, title=value, class_=value, data_row=value, aria_label=value))
    assert parsed.tags == [("p", {"title": value, "class": value, "data-row": value, "aria-label": value}), "/p"]
    assert parsed.text == content


@settings(deadline=None)
@given(st.lists(hostile))
def test_text_stays_text_in_a_table_a_button_and_a_note(cells):
    heads = [f"{cell} " for cell in cells]
    parsed = Parsed(html.table(heads, [cells], caption="c"))
    assert [found[1]["data-head"] for found in parsed.tags if found[0] == "td" and "data-head" in found[1]] == heads
    assert parsed.text == "c" + "".join(heads) + "".join(cells)
    for cell in cells:
        assert (
            Parsed(html.button("act", 1, cell, "x")).text == Parsed(html.muted(cell)).text == Parsed(html.with_note(cell, "")).text == cell
        )


def test_markup_is_not_escaped_again():
    assert tag("p", tag("i", "x"), "&") == "<p><i>x</i>&amp;</p>"
    assert fragment("<", tag("br"), "") == "&lt;<br>"
    assert type(fragment()) is type(tag("br")) is Markup and EMPTY == ""


def test_an_attribute_is_left_out_bare_or_quoted():
    assert tag("li", data_own=True, title=None, data_x=False, value=0) == '<li data-own value="0"></li>'


@pytest.mark.parametrize("name", ["script", "iframe", "p onclick=x", "P", "", "svg"])
def test_other_elements_are_refused(name):
    with pytest.raises(ValueError, match="no element of these pages"):
        tag(name)


@pytest.mark.parametrize("name", ["onclick", "srcdoc", "src", "data-x onclick", "formaction", "data_", "x", 'title="" onclick'])
def test_attributes_that_could_run_a_script_are_refused(name):
    with pytest.raises(ValueError, match="no attribute of these pages"):
        tag("p", **{name: "x"})


@pytest.mark.parametrize("attribute", ["href", "action"])
@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", " javascript:x", "JaVaScRiPt:x", "data:text/html,x", "//evil.example", "/\\evil.example", "/\t/evil.example",
     "vbscript:x", "x", "http:///x", "https://", "/a b", "\x01javascript:x", "file:///etc", "mailto:x@y.z"],
)  # fmt: skip
def test_addresses_of_other_kinds_are_refused(attribute, url):
    with pytest.raises(ValueError, match="no page links to"):
        tag("a", **{attribute: url})


@pytest.mark.parametrize(
    "url", ["", "/", "/sign-out", "modules/1/a.js", "/a?b=1&c=2", "#comparison-12", "https://x.y/z", "http://127.0.0.1:8000"]
)
def test_addresses_of_this_site_and_of_the_web_are_taken(url):
    assert Parsed(tag("a", href=url)).tags[0] == ("a", {"href": url})


@pytest.mark.parametrize("style", ["left:1%;background:url(x)", "left:expression(x)", "color:red", "left:1%}x{", "left:nan%"])
def test_a_style_is_numbers_alone(style):
    with pytest.raises(ValueError, match="numbers alone"):
        tag("i", style=style)
    assert tag("i", style="left:2.5%;--rl-share:-0.45") == '<i style="left:2.5%;--rl-share:-0.45"></i>'


def test_a_cell_with_a_word_that_is_wider_than_a_column_may_break_it():
    cells = ["x" * 30, "x" * 29, "word " * 30, tag("strong", f"{'y' * 25}&{'y' * 4}"), tag("strong", "short", title="z" * 60), "1"]
    parsed = Parsed(html.table(["a"] * 6, [cells], caption="c", numbers=(0, 5)))
    # What the reader sees counts: an ampersand is one character, and an attribute none.
    classes = [found[1].get("class") for found in parsed.tags if found[0] == "td"]
    assert classes == ["rl-number rl-long-word", None, None, "rl-long-word", None, "rl-number"]


# ---- templates and files


def test_a_template_escapes_and_misses_no_value():
    values = dict.fromkeys(["title", "name_label", "password_label", "submit", "help", "problem"], "<b>\"'")
    filled = html.render_template("sign_in.html", language="en", icon="x", action="/sign-in", name="\"><b x='", **values)
    assert "<b>" not in filled and 'value="&#34;&gt;&lt;b x=&#39;"' in filled and type(filled) is Markup
    with pytest.raises(jinja2.UndefinedError, match="title"):
        html.render_template("sign_in.html", language="en")
    with pytest.raises(ValueError, match="no page links to"):
        html.render_template("sign_in.html", language="en", icon="x", action="javascript:x", name="", **values)


def test_a_file_cannot_end_the_element_that_it_stands_in(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "ASSETS", tmp_path)
    (tmp_path / "x.js").write_text("a < b && c")
    assert html.inline_script("x.js") == "<script>a < b && c</script>"
    (tmp_path / "x.js").write_text("'</SCRIPT>'")
    with pytest.raises(ValueError, match="contains the end tag of script"):
        html.inline_script("x.js")


def test_only_gradios_own_marker_is_a_text_that_the_browser_translates():
    assert theme.static_text("demo.stop") == '__i18n__{"__type__": "translation_metadata", "key": "demo.stop"}'
    for marker in ("<b>", '__i18n__{"key": "<b>"}', str(gr.I18n()("<b>"))):
        with pytest.raises(ValueError, match="no marker"):
            html.translated_in_browser(marker)
    # "p < 0.001" would be read as the beginning of an element.
    with pytest.raises(ValueError, match="which the browser would read as HTML"):
        theme.static_text("lead.quality.p_small")


def test_an_html_component_refuses_text():
    component = theme.html(tag("p", "x"))
    assert component.postprocess(tag("p", "y")) == "<p>y</p>" and component.postprocess(None) is None
    for value in ("<p>y</p>", "", f"{tag('p', 'y')}", 5):
        with pytest.raises(TypeError, match="takes Markup"):
            component.postprocess(value)


# ---- no other way to make HTML

TAG = re.compile(r"<(?:[/!a-zA-Z]|$)")
PLACEHOLDER_IN_A_TAG = re.compile(r"<[^>]*[{%]")


def faults(source: str) -> list[str]:
    """Where this module makes HTML without the toolkit."""
    tree = ast.parse(source)
    literals, docs, found = set(), set(), []
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant() as text):
                docs.add(text)
            case ast.Call(
                func=ast.Name("Markup") | ast.Attribute(attr="Markup"), args=[ast.Constant(str() as text) as literal], keywords=[]
            ):
                literals.add(literal)
                if PLACEHOLDER_IN_A_TAG.search(text) and "<script>" not in text:
                    found.append(f"{node.lineno}: a placeholder inside a tag, where no address is checked")
            case ast.Call(func=ast.Name("Markup") | ast.Attribute(attr="Markup")):
                found.append(f"{node.lineno}: Markup() of something that is no literal")
            case (
                ast.ImportFrom(module="html" | "cgi" | "xml.sax.saxutils" | "markdown_it.common.utils")
                | ast.Import(names=[ast.alias("html")])
            ):
                found.append(f"{node.lineno}: another way to escape")
            case ast.Call(func=ast.Attribute(value=ast.Name("gr"), attr="HTML" | "Markdown")):
                found.append(f"{node.lineno}: an HTML component that takes any text")
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and TAG.search(node.value) and node not in literals | docs:
            found.append(f"{node.lineno}: HTML in a string")
    return found


MADE_OF_FILES = {"shared/theme.py": "gr.HTML, whose values are checked", "judging/component.py": "gr.HTML of this program's own files"}
"""Modules that build HTML components, and why each may."""


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_toolkit_makes_html(module):
    found = faults(module.read_text(encoding="utf-8"))
    if str(module.relative_to(PACKAGE)) in MADE_OF_FILES:
        found = [fault for fault in found if not fault.endswith("takes any text")]
    assert found == []


@pytest.mark.parametrize(
    "source",
    ["f'<p>{x}</p>'", "'<p>%s</p>' % x", "'<p>' + x", "'<p>{}</p>'.format(x)", "''.join(['<p>', x])", "'<' + name", "f'{x}</p>'",
     "Markup(x)", "Markup(f'{x}')", "markupsafe.Markup('<p>' + x)", "Markup('<a href=\"{}\">').format(x)", "Markup(x, 'utf-8')",
     "import html", "from html import escape", "gr.HTML(x)", "from markdown_it.common.utils import escapeHtml"],
)  # fmt: skip
def test_other_ways_to_make_html_are_detected(source):
    assert faults(source)


def test_text_about_html_and_literals_are_allowed():
    assert faults('"""A <p> in a docstring."""\nx = Markup("<b>{}</b>").format(y)\nz = "a < b, <1%"') == []


def test_every_element_of_the_list_is_used():
    used = set()
    for module in (*MODULES, TOOLKIT):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "tag"
                and isinstance(node.args[0], ast.Constant)
            ):
                used.add(node.args[0].value)
    assert used == html.ELEMENTS


@pytest.mark.parametrize("template", sorted(ASSETS.glob("*.html")), ids=lambda path: path.name)
def test_templates_escape_everything_and_check_addresses(template):
    text = template.read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe|autoescape|<script|\son\w+=", text)
    for value in re.findall(r'(?:href|action|src)="([^"]*\{\{[^"]*)"', text):
        assert value.startswith("data:image/svg+xml;base64,") or value.endswith("| address }}"), value
    # Values stand between elements or inside quotation marks, nowhere else.
    for inside in re.findall(r"<[a-z][^>]*>", text):
        assert "{{" not in re.sub(r'="[^"]*"', "", inside), inside
