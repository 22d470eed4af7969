"""The migration that gave the options in runs' rows their names of today, from the schema before it."""

import json
import sqlite3

import pytest
import sqlite_utils

from rlhf.config import RENAMED_OPTIONS, RoundConfig, options, with_options
from storage.core.database import Database
from storage.core.migrations import NAMES, migrations
from storage.project import runs

MIGRATION = "m011_option_names"

SHIPPED = (
    '{"model":"tiny","seed":2,"include_simulated":true,"device":"cpu","dtype":"float32","method":"ppo","reward":{"adapter":{"kind":"lora",'
    '"rank":4,"alpha":32,"top_layers":0,"virtual_tokens":16},"depth":1.0,"probe_l2":1.0,"epochs":1,"batch_size":8,"learning_rate":0.0001,'
    '"min_pairs":20,"reference_samples":8,"pooling":"mean","ensemble":2,"conservatism":0.5,"ties":"soft","strength":"soft","rankings":"pairs",'
    '"annotator_weights":true},"adapter":{"kind":"lora","rank":4,"alpha":8,"top_layers":0,"virtual_tokens":16},"ppo":{"steps":5,'
    '"batch_size":8,"minibatch_size":4,"epochs":2,"max_new_tokens":9,"temperature":1e-05,"learning_rate":0.005,"value_learning_rate":0.001,'
    '"max_grad_norm":1.0,"clip":0.2,"value_clip":0.2,"value_coef":0.1,"gamma":1.0,"lam":1.0,"kl_coef":0.05,"kl_target":6.0,"kl_horizon":500,'
    '"whiten_rewards":false,"missing_eos_score":null,"length_penalty":5.0,"kl_estimator":"k1","microbatch_size":0,"epoch_kl_stop":0.25,'
    '"entropy_coef":0.0,"ptx_coef":0.1,"value_init":"reward","value_warmup":1,"kl_budget":50.0,"keep":"best"},"dpo":{"epochs":2,'
    '"batch_size":8,"learning_rate":0.0002,"beta":0.1},"group":{"steps":2,"batch_size":9,"minibatch_size":3,"size":3,"learning_rate":0.0003,'
    '"clip":0.2,"kl_coef":0.05},"sft":{"epochs":3,"batch_size":8,"learning_rate":0.0002,"min_answers":20},"evaluation":'
    '{"completions_per_prompt":2,"max_new_tokens":8,"shown_samples":3,"best_of":2},"reward_function":"mine:reward"}'
)
"""A row as version 0.1.0 wrote it, with every option that has another name today."""

TODAY = (
    '{"model":"tiny","seed":2,"include_simulated":true,"device":"cpu","dtype":"float32","method":"ppo","reward":{"adapter":{"kind":"lora",'
    '"rank":4,"alpha":32,"top_layers":0,"virtual_tokens":16},"depth":1.0,"probe_l2":1.0,"epochs":1,"batch_size":8,"learning_rate":0.0001,'
    '"min_pairs":20,"pooling":"mean","ensemble":2,"ties":"soft","strength":"soft","rankings":"pairs",'
    '"annotator_weights":true,"std_penalty":0.5,"normalize_samples":8},"adapter":{"kind":"lora","rank":4,"alpha":8,"top_layers":0,'
    '"virtual_tokens":16},"ppo":{"steps":5,'
    '"batch_size":8,"minibatch_size":4,"epochs":2,"learning_rate":0.005,"value_learning_rate":0.001,'
    '"max_grad_norm":1.0,"clip":0.2,"value_clip":0.2,"value_coef":0.1,"gamma":1.0,"lam":1.0,"kl_coef":0.05,"kl_target":6.0,"kl_horizon":500,'
    '"whiten_rewards":false,"kl_estimator":"k1","microbatch_size":0,'
    '"entropy_coef":0.0,"ptx_coef":0.1,"value_init":"reward","value_warmup":1,"kl_budget":50.0,"keep":"best","early_stopping_kl":0.25},'
    '"dpo":{"epochs":2,"batch_size":8,"learning_rate":0.0002,"beta":0.1},"group":{"steps":2,"batch_size":9,"minibatch_size":3,'
    '"learning_rate":0.0003,"clip":0.2,"kl_coef":0.05,"num_generations":3},"sft":{"epochs":3,"batch_size":8,"learning_rate":0.0002,'
    '"min_answers":20},"evaluation":{"completions_per_prompt":2,"max_new_tokens":8,"shown_samples":3,"best_of":2,"batch_size":4},'
    '"reward_function":"mine:reward","sampling":{"max_new_tokens":9,"temperature":1e-05},'
    '"scoring":{"missing_eos_score":null,"length_penalty":5.0}}'
)

OLD_NAMES = {
    "ppo.max_new_tokens": "sampling-max-new-tokens",
    "ppo.temperature": "sampling-temperature",
    "ppo.missing_eos_score": "scoring-missing-eos-score",
    "ppo.length_penalty": "scoring-length-penalty",
    "ppo.epoch_kl_stop": "ppo-early-stopping-kl",
    "reward.conservatism": "reward-std-penalty",
    "reward.reference_samples": "reward-normalize-samples",
    "group.size": "group-num-generations",
}


@pytest.fixture
def migrated(tmp_path):
    """`migrated(config, migration)`: the row of a run with that text as its options, after the migration, and the database's path."""

    def migrate(config, migration=MIGRATION):
        file = tmp_path / "old.db"
        db = sqlite_utils.Database(sqlite3.connect(file, isolation_level=None))
        migrations.apply(db, stop_before=[migration])
        assert migration in {one.name for one in migrations.pending(db)}
        row = {
            "id": "r1",
            "status": "failed",
            "config": config,
            "seed": 2,
            "versions": "{}",
            "error": "full",
            "created_at": "2026-11-02T10:00:00.000+00:00",
        }
        db.conn.execute(f"INSERT INTO runs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
        before = list(db["runs"].rows)
        schema = db.schema
        migrations.apply(db, stop_before=NAMES[NAMES.index(migration) + 1 :][:1])
        assert db.schema == schema
        (after,) = db["runs"].rows
        assert {**before[0], "config": None} == {**after, "config": None}
        db.conn.close()
        return after["config"], file

    return migrate


def merged(defaults, values):
    """The defaults with these values in their place; an option that has no default is none."""
    assert set(values) <= set(defaults)
    return {k: merged(v, values[k]) if k in values and isinstance(v, dict) else values.get(k, v) for k, v in defaults.items()}


def test_a_shipped_row_has_the_same_values_under_the_names_of_today(migrated):
    config, file = migrated(SHIPPED)
    # To the letter: `true` is not 1 and 1e-05 is not 0.00001 after it.
    assert config == TODAY
    store = Database(file)
    found = RoundConfig.from_dict(runs.readable(store, "r1").config)
    store.close()
    # Options that came later have their defaults, but for the one whose default stops what this version would have trained.
    assert found.to_dict() == merged(RoundConfig().to_dict(), json.loads(TODAY) | {"at_chance": "continue"})


@pytest.mark.parametrize(
    ("config", "after"),
    [
        ('{"seed":1}', '{"seed":1,"at_chance":"continue"}'),
        ('{"seed":1,"at_chance":"ask"}', '{"seed":1,"at_chance":"ask"}'),
        ('{"at_chance":"auto","seed":1}', '{"at_chance":"auto","seed":1}'),
        ("[]", "[]"),
        ("no JSON", "no JSON"),
        ("", ""),
    ],
)
def test_a_run_of_before_the_choice_goes_on_whatever_its_reward_model_is_worth(migrated, config, after):
    assert migrated(config, "m023_at_chance_of_old_runs")[0] == after


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_each_renamed_option_is_moved_alone(migrated, old, new):
    section, name = old.split(".")
    config, _ = migrated(json.dumps({section: {name: 4}, "reward": {"ensemble": 2, **({name: 4} if section == "reward" else {})}}))
    found = RoundConfig.from_dict(json.loads(config))
    assert found == with_options(RoundConfig(), {"reward-ensemble": 2, new: 4})


def test_every_option_that_is_refused_by_its_old_name_is_moved():
    assert {old.replace(".", "-").replace("_", "-"): new for old, new in OLD_NAMES.items()} == RENAMED_OPTIONS
    names = {option.name for option in options(RoundConfig())}
    assert set(RENAMED_OPTIONS.values()) <= names and not names & set(RENAMED_OPTIONS)


def test_a_row_of_before_the_methods_shared_their_adapter_has_it_beside_them(migrated):
    config, _ = migrated('{"seed":1,"ppo":{"steps":2,"minibatch_size":8,"adapter":{"rank":8,"alpha":16,"top_layers":10}}}')
    assert config == (
        '{"seed":1,"ppo":{"steps":2,"minibatch_size":8},"adapter":{"rank":8,"alpha":16,"top_layers":10},"evaluation":{"batch_size":8}}'
    )


@pytest.mark.parametrize("config", ["{}", "[]", '{"ppo":3}', '{"ppo":null,"reward":[1]}', "no JSON", "", '{"ppo":{"temperature":'])
def test_a_row_of_any_other_form_stays_as_it_is(migrated, config):
    assert migrated(config)[0] == config
