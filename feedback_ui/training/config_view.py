"""Presenters of a run's options: in groups, those of its method alone, and those that differ from a preset marked. No Gradio."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, NOTHING, fragment, muted, table, tag
from feedback_ui.shared.i18n import Translator
from rlhf.config import PRESETS, Method, Option, RoundConfig, options

GROUPS = ("round", "reward", "adapter", "sampling", "scoring", "ppo", "group", "dpo", "sft", "evaluation", "guards")
"""The groups of options, in the order of the page. Each is a section of `rlhf.config`; `round` has those without one."""

METHODS_OF_GROUP: Mapping[str, tuple[Method, ...]] = {
    "ppo": ("ppo",),
    "group": ("rloo", "grpo"),
    "dpo": ("dpo",),
    "sft": ("sft",),
    "scoring": ("ppo", "rloo", "grpo"),
}
"""The methods that read the options of a group; a group that is not named is read by all."""

OF_THE_PROGRAM = ("model", "device")
"""Options that the policy server shares, so that no preset sets them."""


def group_of(option: Option) -> str:
    return option.section or "round"


def is_read(group: str, method: str) -> bool:
    """Whether a round by this method reads the options of the group."""
    return method in METHODS_OF_GROUP.get(group, (method,))


def nearest_preset(config: RoundConfig) -> str:
    """The preset that the fewest options differ from; the first of several."""
    return min(PRESETS, key=lambda name: len(changed(config, PRESETS[name])))


def changed(config: RoundConfig, preset: RoundConfig) -> set[str]:
    """The names of the options that this round reads and that differ from the preset."""
    before = {option.name: option.default for option in options(preset)}
    return {option.name for option in read_options(config) if option.default != before[option.name] and option.name not in OF_THE_PROGRAM}


def read_options(config: RoundConfig) -> list[Option]:
    """The options that a round with this configuration reads; the default of each is its value."""
    return [option for option in options(config) if is_read(group_of(option), config.method)]


def marks(presets: Mapping[str, RoundConfig], above: Sequence[str], custom: str) -> Markup:
    """What the browser marks changed options of the form by: the options of each group, and the presets' values.

    Args:
        above: the options that stand above the groups.
        custom: the name of the preset that the page calls otherwise.
    """
    every = options(next(iter(presets.values())))
    groups = {group: [o.name for o in every if group_of(o) == group and o.name not in above] for group in GROUPS}
    values = {name: {o.name: o.default for o in options(preset) if o.name not in OF_THE_PROGRAM} for name, preset in presets.items()}
    return tag("div", data_groups=json.dumps(groups), data_presets=json.dumps(values), data_custom=custom, data_testid="option-marks")


def section(translate: Translator, config: RoundConfig) -> Markup:
    """Every option that the round reads, group by group."""
    preset = nearest_preset(config)
    marked = changed(config, PRESETS[preset])
    before = {option.name: option.default for option in options(PRESETS[preset])}
    intro = translate("config.changed", count=len(marked), preset=preset)
    groups = {group: [o for o in read_options(config) if group_of(o) == group] for group in GROUPS}
    tables = (_group(translate, group, members, marked, before) for group, members in groups.items() if members)
    return tag("section", tag("h2", translate("config.title")), muted(intro), *tables, class_="rl-card rl-config", data_testid="run-config")


def _group(translate: Translator, group: str, members: Sequence[Option], marked: set[str], before: Mapping[str, Any]) -> Markup:
    title = translate(f"form.group.{group}")
    rows = [
        [
            translate(f"option.{option.name}.title"),
            _value(translate, option.default, option.name in marked),
            fragment(tag("span", translate("config.preset_has", value=plain(translate, before[option.name])), class_="rl-muted rl-small"))
            if option.name in marked
            else EMPTY,
        ]
        for option in members
    ]
    heads = [translate(f"config.{name}") for name in ("option", "value", "difference")]
    return fragment(tag("h3", title), table(heads, rows, caption=title, numbers=(1,), cards=False))


def _value(translate: Translator, value: Any, is_changed: bool) -> Markup:
    shown = plain(translate, value)
    return tag("strong", shown, class_="rl-changed") if is_changed else tag("span", shown)


def plain(translate: Translator, value: Any) -> str:
    """A value as text: `0.001`, `on`, a dash for what is off."""
    if isinstance(value, bool):
        return translate("config.on" if value else "config.off")
    if value is None or value == "":
        return NOTHING
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
