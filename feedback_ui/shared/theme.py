"""The look: one quiet theme, light and dark, with fonts that the reader's machine already has.

Ink on paper; colour only where it means something. Nothing is fetched from elsewhere.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import gradio as gr
from gradio.i18n import I18nData
from gradio.themes.utils import colors, sizes

from feedback_ui.shared.i18n import Translator, tables

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How an event behaves that only reads or writes a few rows: at once, without a spinner, for the page alone."""

html = partial(gr.HTML, apply_default_css=False)
"""HTML that looks as our own style sheet says, without Gradio's prose rules over it."""

i18n = gr.I18n(**tables())
"""The texts as Gradio takes them: it puts in the reader's language in the browser."""

ASSETS = Path(__file__).parents[1] / "assets"

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
        # 3 to 1 against what is inside and around, so that the edge of a field can be seen (WCAG 1.4.11).
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
    """A text that stands in the page from the start: a label, an `info`, a placeholder, a button's or a tab's name.

    What a handler sends later is a plain string of the request's `words_of`.

    Raises:
        KeyError: there is no such text.
    """
    Translator("en")(key)
    return i18n(key)


class FieldTexts(TypedDict):
    """What every field of a generated form has: its label, its help and the id of its element."""

    label: I18nData
    info: I18nData
    elem_id: str


def unchanged() -> dict[Any, Any]:
    """What a handler returns to leave all of its outputs as they are."""
    update: dict[Any, Any] = gr.skip()
    return update


def heading(key: str) -> str:
    """A heading between components, as the value of `html`. Gradio puts in one text a value, not more."""
    return f'<h2 class="rl-heading">{label(key)}</h2>'


def quiet(key: str) -> str:
    """A line that stands where something will be, as the value of `html`."""
    return f'<p class="rl-muted">{label(key)}</p>'


def asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def launch_options() -> dict[str, Any]:
    """What Gradio takes at `launch()` or `mount_gradio_app()` rather than when the Blocks are made."""
    return {
        "theme": theme(),
        "head": f"<style>{asset('style.css')}</style><script>{asset('page.js')}</script>",
        "i18n": i18n,
        "footer_links": [],
        "run_history": False,
        "favicon_path": str(ASSETS / "favicon.svg"),
    }
