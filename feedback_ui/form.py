"""The Training page's form, generated from `rlhf.config`: an option added there appears here by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.components import Component

from feedback_ui.theme import QUIET
from rlhf.config import DEFAULT_PRESET, PRESETS, ConfigError, Option, RoundConfig, options, with_options

MAIN = ("include-simulated", "min-pairs", "reward-epochs", "ppo-steps", "ppo-kl-coef")
"""Options that stand in the open; all others wait behind "All options"."""

OWN = "as started"
"""The preset list's name for the configuration that the program was started with, where that is none of the presets."""

PLAIN_WORDS = {"min": "fewest", "ppo": "PPO", "kl": "KL", "coef": "coefficient", "lam": "lambda", "eos": "EOS"}


class RoundForm:
    """A preset, the options over it, and the way back to a `RoundConfig`."""

    def __init__(self, default_config: RoundConfig):
        # The policy server speaks for one model on one device: a preset that named another could not be compared.
        here = {"model": default_config.model, "device": default_config.device}
        self.presets = {name: replace(preset, **here) for name, preset in PRESETS.items()}
        named = next((name for name, preset in self.presets.items() if preset == default_config), None)
        if named is None:
            self.presets = {OWN: default_config} | self.presets
        self.preset = gr.Dropdown(
            list(self.presets),
            value=named or OWN,
            label="Preset",
            info=f"`{DEFAULT_PRESET}` suits two CPU cores",
            elem_id="preset",
        )
        every = {option.name: option for option in options(default_config)}
        self.fields = {name: _field(every[name]) for name in MAIN if name in every}
        self.others = [option for name, option in every.items() if name not in self.fields]

    def place_others(self) -> None:
        """The options that are seldom changed, folded away."""
        with gr.Accordion("All options", open=False, elem_id="all-options"):
            self.fields |= {option.name: _field(option) for option in self.others}

    @property
    def components(self) -> set[Component]:
        return {self.preset, *self.fields.values()}

    def wire(self) -> None:
        self.preset.input(self.show_preset, self.preset, list(self.fields.values()), **QUIET)

    def show_preset(self, preset: str) -> dict[Component, Any]:
        return {self.fields[option.name]: option.default for option in options(self.presets[preset])}

    def read(self, values: dict[Component, Any]) -> RoundConfig:
        """The configuration that the form says.

        Raises:
            ConfigError: a field is empty that must not be, or the values do not go together.
        """
        base = self.presets[values[self.preset]]
        said = {option.name: _value(option, values[self.fields[option.name]]) for option in options(base)}
        return with_options(base, said)


def title(name: str) -> str:
    """`ppo-kl-coef` -> `PPO KL coefficient`."""
    words = " ".join(PLAIN_WORDS.get(word, word) for word in name.split("-"))
    return words[:1].upper() + words[1:]


def _field(option: Option) -> Component:
    common = {"label": title(option.name), "info": option.help, "elem_id": f"option-{option.name}"}
    if option.type is bool:
        return gr.Checkbox(option.default, **common)
    if option.type in (int, float):
        return gr.Number(option.default, precision=0 if option.type is int else None, **common)
    return gr.Textbox(option.default, max_lines=1, **common)


def _value(option: Option, shown: Any) -> Any:
    if shown is None or shown == "":
        if option.optional:
            return None
        raise ConfigError(f"{title(option.name)} is empty: type a value.")
    try:
        return option.type(shown)
    except (TypeError, ValueError):
        raise ConfigError(f"{title(option.name)} cannot be {shown!r}.") from None
