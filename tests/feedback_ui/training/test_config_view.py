"""The options of a run: those of its method, in groups, and those that differ from the nearest preset marked."""

from dataclasses import replace

from feedback_ui.shared.i18n import Translator
from feedback_ui.training import config_view
from rlhf.config import PRESETS, options, with_options

EN, KO = Translator("en"), Translator("ko")


def test_every_option_is_in_one_group_of_the_page():
    assert {config_view.group_of(option) for option in options(PRESETS["laptop"])} == set(config_view.GROUPS)


def test_only_the_options_of_the_method_are_shown():
    ppo = {option.name for option in config_view.read_options(PRESETS["laptop"])}
    dpo = {option.name for option in config_view.read_options(replace(PRESETS["laptop"], method="dpo"))}
    assert {"ppo-steps", "scoring-length-penalty", "seed"} <= ppo and not {"dpo-beta", "group-steps", "sft-epochs"} & ppo
    assert {"dpo-beta", "seed", "reward-depth"} <= dpo and not {"ppo-steps", "scoring-length-penalty"} & dpo


def test_what_differs_from_the_nearest_preset_is_marked():
    config = with_options(PRESETS["tiny"], {"ppo-steps": 7, "include-simulated": True, "model": "x"})
    assert config_view.nearest_preset(config) == "tiny"
    assert config_view.changed(config, PRESETS["tiny"]) == {"ppo-steps", "include-simulated"}
    html = config_view.section(EN, config)
    assert "2 options differ from the preset “tiny”" in html
    assert '<strong class="rl-changed">7</strong>' in html and "preset: 2" in html
    assert '<strong class="rl-changed">on</strong>' in html and html.count("<strong") == 2
    assert "프리셋: 2" in config_view.section(KO, config)
