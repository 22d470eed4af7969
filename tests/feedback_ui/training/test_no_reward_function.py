"""No page runs code: a reward function is named on a command line or not at all."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import feedback_ui
from feedback_ui.app import build_app
from feedback_ui.server.auth import Auth
from feedback_ui.shared.i18n import Translator
from rlhf.config import ConfigError, RoundConfig
from rlhf.runs.jobs import Jobs
from storage.core.data_folder import DataFolder
from storage.project import runs

ENGLISH = SimpleNamespace(headers={})


class NoWorkers(Jobs):
    def spawn(self, run_id, reward=None, *, at_chance=None):
        raise AssertionError("a worker was started")


@pytest.fixture
def training(build, store, server):
    app = build(build_app, store, NoWorkers(store, DataFolder(store.path.parent)), server, Auth(store), default_config=RoundConfig())
    owners = (getattr(fn.fn, "__self__", None) for fn in app.fns.values() if fn.fn)
    return next(owner for owner in owners if type(owner).__name__ == "TrainingPage")


def filled_in(training):
    return {training.form.preset: training.form.preset.value} | {c: c.value for c in training.form.fields.values()}


def test_the_form_has_no_field_for_a_reward_function(training):
    assert not any("function" in name for name in training.form.fields)
    assert training.form.read(Translator("en"), filled_in(training)).reward_function is None


def test_a_forged_option_is_refused(training, monkeypatch):
    field = training.form.fields["seed"]
    option = training.form.options["seed"]
    training.form.fields["reward-function"] = field
    monkeypatch.setattr("feedback_ui.training.form.options", lambda _: [replace(option, name="reward-function", type=str)])
    with pytest.raises(ConfigError, match="unknown option 'reward-function'"):
        training.form.read(Translator("en"), filled_in(training) | {field: "os:system"})


def test_a_configuration_with_a_reward_function_is_not_started_from_the_page(training, store):
    name, preset = next(iter(training.form.presets.items()))
    training.form.presets[name] = replace(preset, reward_function="os:system")
    shown = training.start_round(filled_in(training) | {training.form.preset: name}, ENGLISH)
    assert "scored by the Python function os:system, and no page runs code" in shown[training.refusal]
    assert runs.all_runs(store) == []


def test_a_run_with_a_reward_function_is_not_resumed_from_the_page(training, store):
    config = replace(RoundConfig(), reward_function="os:system")
    runs.create(store, "r1", config=config.to_dict(), seed=0, versions={})
    runs.finish(store, "r1", "cancelled")
    shown = training.resume_round("r1", ENGLISH)
    assert "scored by the Python function os:system, and no page runs code" in shown[training.refusal]
    assert runs.get(store, "r1").status == "cancelled"


def test_a_run_whose_options_cannot_be_read_is_not_resumed(training, store):
    runs.create(store, "r1", config={"seed": 1, "banana": 2}, seed=1, versions={})
    runs.finish(store, "r1", "cancelled")
    shown = training.resume_round("r1", ENGLISH)
    assert "RoundConfig has no banana: the run was made by another version" in shown[training.refusal]
    assert runs.get(store, "r1").status == "cancelled"


def test_pages_start_rounds_only_by_the_functions_that_refuse_reward_functions():
    sources = "\n".join(f.read_text() for f in Path(feedback_ui.__file__).parent.rglob("*.py"))
    # A metric that a page shows; it names no code.
    sources = sources.replace("win_rate_by_reward_function", "")
    assert "jobs.start(" in sources and "jobs.resume(" in sources
    for word in ("reward_function", ".spawn(", "jobs.create(", "jobs.requeue(", "import_module"):
        assert word not in sources, word
