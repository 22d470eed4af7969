"""The Gradio theme, light and dark, with system fonts, and helpers that build components in that style.

Colour is used only where it carries meaning. Nothing is fetched from other sites.
"""

from __future__ import annotations

from typing import Any, TypedDict

import gradio as gr
from gradio.i18n import I18nData
from gradio.themes.utils import colors, sizes
from markupsafe import Markup

from feedback_ui.shared.html import ASSETS, fragment, inline_script, inline_style, tag, translated_in_browser
from feedback_ui.shared.i18n import LANGUAGES, Translator, tables
from feedback_ui.shared.scripts import modules

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of an event that only reads or writes a few rows: no queue, no spinner, not part of the public API."""

i18n = gr.I18n(**tables())
"""The translations for Gradio, which chooses the language in the browser."""

FONT = (
    "Inter",
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Helvetica Neue",
    "Apple SD Gothic Neo",
    "Malgun Gothic",
    "Noto Sans KR",
    "Noto Sans CJK KR",
    "Liberation Sans",
    "Arial",
    "sans-serif",
)
MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Consolas", "Liberation Mono", "monospace")

INK = colors.Color(
    name="ink",
    c50="#faf9f7", c100="#f2f0ec", c200="#e4e1db", c300="#cfcac2", c400="#a8a298", c500="#7d776d",
    c600="#645f56", c700="#4a463f", c800="#2c2a26", c900="#1f1e1b", c950="#171614",
)  # fmt: skip
BLUE = colors.Color(
    name="quiet-blue",
    c50="#f1f6fa", c100="#dde9f3", c200="#bdd4e7", c300="#93b8d8", c400="#6698c4", c500="#437aab",
    c600="#33628f", c700="#2b5075", c800="#274462", c900="#243a53", c950="#182637",
)  # fmt: skip

EDGE, EDGE_DARK = "#8f897e", "#77716a"


def theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue=BLUE,
        secondary_hue=BLUE,
        neutral_hue=INK,
        text_size=sizes.text_md,
        radius_size=sizes.radius_md,
        font=FONT,
        font_mono=MONO,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="0px",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_400",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_title_text_weight="500",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_200",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        panel_border_width="0px",
        input_background_fill="white",
        input_background_fill_dark="*neutral_950",
        # A contrast of 3 to 1 with the inside and the outside, so that the edge of a field is visible (WCAG 1.4.11).
        input_border_color=EDGE,
        input_border_color_dark=EDGE_DARK,
        checkbox_border_color=EDGE,
        checkbox_border_color_dark=EDGE_DARK,
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_400",
        input_border_width="1px",
        input_shadow="none",
        input_shadow_focus="none",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        button_border_width="1px",
        button_transition="none",
        button_primary_background_fill="*neutral_900",
        button_primary_background_fill_hover="*neutral_700",
        button_primary_text_color="white",
        button_primary_border_color="*neutral_900",
        button_primary_border_color_hover="*neutral_700",
        button_primary_background_fill_dark="*neutral_100",
        button_primary_background_fill_hover_dark="*neutral_300",
        button_primary_text_color_dark="*neutral_950",
        button_primary_border_color_dark="*neutral_100",
        button_primary_border_color_hover_dark="*neutral_300",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_border_color="*neutral_300",
        button_secondary_background_fill_dark="*neutral_900",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_border_color_dark="*neutral_700",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="*primary_500",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
    )


def label(key: str) -> I18nData:
    """A static text of the page, translated in the browser: a label, an `info`, a placeholder, the name of a button or a tab.

    Texts that a handler sends later are plain strings from the request's `translator_for`.

    Raises:
        KeyError: there is no such text.
    """
    Translator("en")(key)
    return i18n(key)


class FieldTexts(TypedDict):
    """The arguments that every field of a generated form has: label, help text and element id."""

    label: I18nData
    info: I18nData
    elem_id: str


def unchanged() -> dict[Any, Any]:
    """The return value of a handler that leaves all of its outputs unchanged."""
    update: dict[Any, Any] = gr.skip()
    return update


def html(value: Markup | None = None, **options: Any) -> gr.HTML:
    """An HTML component styled by our own style sheet, without Gradio's default CSS. It takes `Markup` and no other text: a handler that
    returns text without escaping it fails."""
    component = gr.HTML(value, apply_default_css=False, **options)
    # A subclass would do, but Gradio writes a `.pyi` file beside the source of each one.
    component.postprocess = only_markup  # type: ignore[method-assign, assignment]
    return component


def only_markup(value: Markup | None) -> Markup | None:
    """The value, as the browser gets it.

    Raises:
        TypeError: it is text, which nobody has escaped.
    """
    if value is not None and not isinstance(value, Markup):
        raise TypeError(f"an HTML component takes Markup, not {type(value).__name__}: build it with feedback_ui.shared.html")
    return value


def static_text(key: str) -> Markup:
    """A text that Gradio translates in the browser, for the value of `html`. It translates only one in each value.

    Raises:
        KeyError: there is no such text.
        ValueError: a translation has characters that HTML would read as markup.
    """
    for language in LANGUAGES:
        if set("<&") & set(tables()[language][key]):
            raise ValueError(f"{key} in locales/{language}.json has a < or a &, which the browser would read as HTML")
    return translated_in_browser(str(label(key)))


def heading(key: str) -> Markup:
    """A translated heading, as the value of `html`."""
    return tag("h2", static_text(key), class_="rl-heading")


def quiet(key: str) -> Markup:
    """A translated placeholder line, as the value of `html`."""
    return tag("p", static_text(key), class_="rl-muted")


def launch_options() -> dict[str, Any]:
    """Arguments for `launch()` or `mount_gradio_app()`, which Gradio does not take when the Blocks are built."""
    return {
        "theme": theme(),
        "head": fragment(inline_style("style.css"), inline_script("page.js"), modules().preload_links()),
        "i18n": i18n,
        "footer_links": [],
        "run_history": False,
        "favicon_path": str(ASSETS / "favicon.svg"),
    }
