"""The Training page's form, generated from `rlhf.config`: an option that is added there appears here too.

Options stand in groups that open; those that the chosen method does not read are hidden, and words of their names and help texts find
them. `assets/round_form.js` marks those that differ from the preset.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, FieldTexts, html, label, static_text
from feedback_ui.training import config_view
from rlhf.config import PRESETS, ConfigError, Option, RoundConfig, options, with_options

MAIN_OPTIONS = (
    "method", "include-simulated", "min-pairs", "reward-epochs", "ppo-steps", "ppo-kl-coef", "group-steps", "dpo-epochs", "sft-epochs",
)  # fmt: skip
"""Options above the groups, as far as the method reads them."""

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
        self.options = every
        self.method = default_config.method
        self.fields = {name: _field(every[name], visible=self._is_read(name, self.method)) for name in MAIN_OPTIONS}
        self.groups: dict[str, gr.Accordion] = {}

    def place_others(self) -> None:
        """Builds the remaining options, which are seldom changed, in their groups, with a field that finds them."""
        self.search = gr.Textbox(label=label("form.find"), info=label("form.find_help"), max_lines=1, elem_id="option-search", type="text")
        self.none_found = html(elem_id="option-none-found", elem_classes="rl-optional")
        html(static_text("form.changed"), elem_id="option-changed", elem_classes="rl-sr-only")
        html(config_view.marks(self.presets, MAIN_OPTIONS, CUSTOM_PRESET), elem_id="option-marks")
        others = [option for name, option in self.options.items() if name not in MAIN_OPTIONS]
        for group in config_view.GROUPS:
            members = [option for option in others if config_view.group_of(option) == group]
            shown = config_view.is_read(group, self.method)
            with gr.Accordion(label(f"form.group.{group}"), open=False, visible=shown, elem_id=f"options-{group}") as self.groups[group]:
                self.fields |= {option.name: _field(option) for option in members}

    def _is_read(self, name: str, method: str) -> bool:
        return config_view.is_read(config_view.group_of(self.options[name]), method)

    @property
    def components(self) -> set[Block]:
        return {self.preset, *self.fields.values()}

    def wire(self) -> None:
        shown = self.preset.input(self.show_preset, self.preset, list(self.fields.values()), **QUIET)
        # The browser marks what differs from the preset once its values are there.
        shown.then(None, None, js=in_browser("markOptions"))
        found = [*self.groups.values(), *self.fields.values(), self.none_found]
        self.search.change(self.find, [self.search, self.fields["method"]], found, trigger_mode="always_last", **QUIET)
        method = self.fields["method"]
        assert isinstance(method, gr.Dropdown)
        method.change(self.choose_method, [self.search, method], found, **QUIET)

    def show_preset(self, preset: str, request: gr.Request) -> dict[Component, Any]:
        self.auth.reads(request, "researcher")
        return {self.fields[option.name]: option.default for option in options(self.presets[preset])}

    def find(self, words: str | None, method: str, request: gr.Request) -> dict[Block, Any]:
        """Shows the options that the method reads and whose name or help has all these words, with their groups open.

        Without words all are shown, and the groups are closed.
        """
        self.auth.reads(request, "researcher")
        shown = self._filtered(translator_for(request), words, method)
        opened = bool((words or "").strip())
        return shown | {group: gr.Accordion(visible=shown[group].visible, open=opened) for group in self.groups.values()}

    def choose_method(self, words: str | None, method: str, request: gr.Request) -> dict[Block, Any]:
        """Shows the options that the method reads."""
        self.auth.reads(request, "researcher")
        return self._filtered(translator_for(request), words, method)

    def _filtered(self, translate: Translator, words: str | None, method: str) -> dict[Block, Any]:
        wanted = (words or "").lower().split()
        found = {name for name in self.options if self._is_read(name, method) and all(word in _text(translate, name) for word in wanted)}
        update: dict[Block, Any] = {self.fields[name]: gr.update(visible=name in found) for name in self.options}
        for group, accordion in self.groups.items():
            has = any(config_view.group_of(self.options[name]) == group for name in found.difference(MAIN_OPTIONS))
            update[accordion] = gr.Accordion(visible=has)
        none_found = presenters.notice("" if found else translate("form.none_found"))
        return {**update, self.none_found: none_found}

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


def _text(translate: Translator, name: str) -> str:
    """What the words of a search are looked for in."""
    return f"{name} {title(translate, name)} {translate(f'option.{name}.help')}".lower()


def _field(option: Option, *, visible: bool = True) -> Component:
    key = f"option.{option.name}"
    common: FieldTexts = {"label": label(f"{key}.title"), "info": label(f"{key}.help"), "elem_id": f"option-{option.name}"}
    if option.type is bool:
        return gr.Checkbox(option.default, visible=visible, **common)
    if option.type in (int, float):
        return gr.Number(option.default, precision=0 if option.type is int else None, visible=visible, **common)
    if option.choices:
        return gr.Dropdown(list(option.choices), value=option.default, visible=visible, **common)
    return gr.Textbox(option.default, max_lines=1, visible=visible, **common)


def _value(translate: Translator, option: Option, shown: Any) -> Any:
    if shown is None or shown == "":
        if option.optional:
            return None
        raise ConfigError(translate("form.empty", title=title(translate, option.name)))
    try:
        return option.type(shown)
    except (TypeError, ValueError):
        raise ConfigError(translate("form.cannot_be", title=title(translate, option.name), value=repr(shown))) from None
