"""The Training page's form, generated from `rlhf.config`: an option that is added there appears here too."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from feedback_ui.server.auth import Auth
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.theme import QUIET, FieldTexts, label
from rlhf.config import PRESETS, ConfigError, Option, RoundConfig, options, with_options

MAIN_OPTIONS = ("method", "include-simulated", "min-pairs", "reward-epochs", "ppo-steps", "ppo-kl-coef")
"""Options that are always visible; all others are in an accordion."""

CUSTOM_PRESET = "as started"
"""The preset's name for the configuration that the program was started with, if it equals none of the presets."""


class RoundForm:
    """The form for a round: a preset and its options, converted to a `RoundConfig` by `read`."""

    def __init__(self, default_config: RoundConfig, auth: Auth):
        self.auth = auth
        # The policy server serves one model on one device: a preset with another model could not be compared.
        self.presets = {name: replace(preset, model=default_config.model, device=default_config.device) for name, preset in PRESETS.items()}
        named = next((name for name, preset in self.presets.items() if preset == default_config), None)
        if named is None:
            self.presets = {CUSTOM_PRESET: default_config} | self.presets
        self.preset = gr.Dropdown(
            [(str(label("form.as_started")) if name == CUSTOM_PRESET else name, name) for name in self.presets],
            value=named or CUSTOM_PRESET,
            label=label("form.preset"),
            info=label("form.preset_help"),
            elem_id="preset",
        )
        every = {option.name: option for option in options(default_config)}
        self.fields = {name: _field(every[name]) for name in MAIN_OPTIONS}
        self.others = [option for name, option in every.items() if name not in self.fields]

    def place_others(self) -> None:
        """Builds the remaining options, which are seldom changed, in an accordion."""
        with gr.Accordion(label("form.all_options"), open=False, elem_id="all-options"):
            self.fields |= {option.name: _field(option) for option in self.others}

    @property
    def components(self) -> set[Block]:
        return {self.preset, *self.fields.values()}

    def wire(self) -> None:
        self.preset.input(self.show_preset, self.preset, list(self.fields.values()), **QUIET)

    def show_preset(self, preset: str, request: gr.Request) -> dict[Component, Any]:
        self.auth.reads(request, "researcher")
        return {self.fields[option.name]: option.default for option in options(self.presets[preset])}

    def read(self, translate: Translator, values: dict[Component, Any]) -> RoundConfig:
        """The configuration from the form's values.

        Raises:
            ConfigError: a field is empty that must not be, or two values contradict each other.
        """
        base = self.presets[values[self.preset]]
        chosen = {option.name: _value(translate, option, values[self.fields[option.name]]) for option in options(base)}
        return with_options(base, chosen)


def with_option_titles(translate: Translator, message: str) -> str:
    """Replaces command line options in a message with their titles in the form: `--min-pairs` becomes "Fewest pairs"."""
    names = {option.name for option in options(RoundConfig())}

    def titled(option: re.Match[str]) -> str:
        return translate("form.named", title=title(translate, option[1])) if option[1] in names else option[0]

    return re.sub(r"--([a-z0-9-]+)", titled, message)


def title(translate: Translator, name: str) -> str:
    return translate(f"option.{name}.title")


def _field(option: Option) -> Component:
    key = f"option.{option.name}"
    common: FieldTexts = {"label": label(f"{key}.title"), "info": label(f"{key}.help"), "elem_id": f"option-{option.name}"}
    if option.type is bool:
        return gr.Checkbox(option.default, **common)
    if option.type in (int, float):
        return gr.Number(option.default, precision=0 if option.type is int else None, **common)
    if option.choices:
        return gr.Dropdown(list(option.choices), value=option.default, **common)
    return gr.Textbox(option.default, max_lines=1, **common)


def _value(translate: Translator, option: Option, shown: Any) -> Any:
    if shown is None or shown == "":
        if option.optional:
            return None
        raise ConfigError(translate("form.empty", title=title(translate, option.name)))
    try:
        return option.type(shown)
    except (TypeError, ValueError):
        raise ConfigError(translate("form.cannot_be", title=title(translate, option.name), value=repr(shown))) from None
