"""The form of a round: every option, its presets, and what it starts."""

from dataclasses import replace

import pytest
from called_pages import EN, ENGLISH, asking, filled_in, page

from feedback_ui.app import build_app
from feedback_ui.server.auth import Auth
from feedback_ui.shared.theme import i18n
from rlhf.config import PRESETS, RoundConfig, options


def test_every_option_of_a_round_is_in_the_form_with_its_help(training):
    shown = training.form.fields
    assert set(shown) == {option.name for option in options(RoundConfig())}
    for option in options(RoundConfig()):
        assert i18n.translations["en"][shown[option.name].info.key] == option.help


def test_the_form_shows_the_values_of_its_preset(training):
    assert training.form.read(EN, filled_in(training)) == PRESETS["laptop"]


def test_choosing_a_preset_fills_the_form(training):
    form = training.form
    values = {form.preset: "tiny", **form.show_preset("tiny", ENGLISH)}
    assert form.read(EN, values) == PRESETS["tiny"]


def test_a_custom_configuration_is_the_first_preset(build, store, jobs, server):
    own = replace(RoundConfig(), seed=7)
    form = page(build(build_app, store, jobs, server, Auth(store), default_config=own), "TrainingPage").form
    assert form.preset.value == "as started"
    assert form.presets["as started"] == own


def test_start_runs_the_forms_configuration_and_shows_the_run(training, jobs):
    shown = training.start_round(filled_in(training, ppo_steps=3, include_simulated=True), ENGLISH)
    (config,) = jobs.started
    assert (config.ppo.steps, config.include_simulated) == (3, True)
    assert shown[training.shown_state].run_id == "r1"
    assert "Waiting to start" in shown[training.progress]
    assert shown[training.refusal] == ""


@pytest.mark.parametrize(("typed", "message"), [({"ppo_steps": None}, "PPO steps is empty"), ({"ppo_steps": -1}, "must be greater than 0")])
def test_an_invalid_form_is_refused_with_its_cause(training, jobs, typed, message):
    assert message in training.start_round(filled_in(training, **typed), ENGLISH)[training.refusal]
    assert jobs.started == []


def visible(training, update):
    return {name for name, field in training.form.fields.items() if update[field]["visible"]}


def test_words_find_options_of_the_method_in_its_language(training):
    form = training.form
    found = form.find("clip", "ppo", ENGLISH)
    assert visible(training, found) == {"ppo-clip", "ppo-value-clip", "ppo-importance-sampling-clip-max"}
    assert (found[form.groups["ppo"]].visible, found[form.groups["ppo"]].open, found[form.groups["reward"]].visible) == (True, True, False)
    assert visible(training, form.find("CLIP range", "grpo", ENGLISH)) == {"group-clip"}
    assert "ppo-clip" in visible(training, form.find("클립", "ppo", asking("ko")))
    assert "No option of this method" in form.find("banana", "ppo", ENGLISH)[form.none_found]


def test_only_the_options_of_the_chosen_method_are_shown(training):
    form = training.form
    shown = form.choose_method("", "dpo", ENGLISH)
    assert {"dpo-beta", "dpo-epochs", "seed", "method"} <= visible(training, shown)
    assert not {"ppo-steps", "group-steps", "sft-epochs"} & visible(training, shown)
    assert [name for name, group in form.groups.items() if not shown[group].visible] == ["scoring", "ppo", "group", "sft"]
    everything = form.find("", "ppo", ENGLISH)
    assert everything[form.groups["ppo"]].visible and everything[form.groups["ppo"]].open is False
