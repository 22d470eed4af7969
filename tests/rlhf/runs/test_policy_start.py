"""Where a round's policy begins, and which beginnings are refused before anything is written."""

import json

import pytest
from learning import Judged

from rlhf.config import AdapterConfig, ConfigError
from rlhf.runs import dry_run, policy_start
from rlhf.runs.jobs import Jobs
from rlhf.runs.policy_start import differing
from storage.content import policies
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.project import rounds, runs

CODE = '{"peft_type": "LORA", "auto_mapping": {"a": "b"}}'
LORA = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


class Started(Judged):
    """A store with votes, in which versions are promoted whose folders hold an adapter's files without its weights."""

    def promoted(self, name, *, adapter=LORA, **options):
        run = runs.create(self.store, name, config=self.config(**options).to_dict(), seed=1, versions={})
        policies.ensure_base(self.store, str(self.model))
        rounds.create(self.store, name, trigger="hand", judges="people", baseline=rounds.current(self.store, str(self.model)))
        folder = self.folder.run(run.id) / "policy"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(json.dumps(adapter))
        (folder / "adapter_model.safetensors").write_bytes(b"")
        path = folder.relative_to(self.folder.root)
        made = policies.register_tuned(self.store, name=f"v-{name}", base_model=str(self.model), adapter_path=path, run_id=name)
        runs.finish(self.store, name, "done")
        rounds.decide(self.store, made, "promoted", decided_by="person", reason="It is better.")
        return made

    def new(self, **options):
        return policy_start.of_new_round(self.store, self.config(policy_start="current", **options))


@pytest.fixture
def world(store: Database, tmp_path) -> Started:
    return Started(store, DataFolder(store.path.parent), tmp_path / "model").fill()


def test_a_round_begins_at_the_current_version_only_where_the_options_say_so(world):
    assert world.new() is None, "the base is current"
    made = world.promoted("r1")
    start = world.new()
    assert (start.version, start.folder) == (made, policies.adapter_folder(world.store, made))
    assert policy_start.of_new_round(world.store, world.config()) is None


def test_a_resumed_run_begins_where_it_began_whatever_was_promoted_meanwhile(world):
    first = world.promoted("r1")
    run_id = Jobs(world.store, world.folder).create(world.config(policy_start="current")).id
    world.promoted("r2")
    config = world.config(policy_start="current")
    assert policy_start.of_run(world.store, config, run_id).version == first
    assert policy_start.of_run(world.store, world.config(), run_id) is None, "its own options decide"


@pytest.mark.parametrize(
    "spoil, options, reason",
    [
        (lambda folder: None, {"adapter_rank": 4}, "v-r1 has an adapter with --adapter-rank 16, and this round asks for --adapter-rank 4"),
        (lambda folder: None, {"adapter_kind": "dora"}, "--adapter-kind lora, and this round asks for --adapter-kind dora"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), {}, "adapter_model.safetensors is missing"),
        (
            lambda folder: (folder / "adapter_config.json").write_text(CODE),
            {},
            "no round writes",
        ),
    ],
)
def test_a_beginning_that_cannot_be_is_refused_before_a_row_is_written(world, spoil, options, reason):
    spoil(policies.adapter_folder(world.store, world.promoted("r1")))
    config = world.config(policy_start="current", **options)
    with pytest.raises(ConfigError, match=reason) as refused:
        Jobs(world.store, world.folder).create(config)
    assert "--policy-start base" in str(refused.value)
    assert [run.id for run in runs.all_runs(world.store)] == ["r1"]
    assert reason in dry_run.of(world.store, config).hindrance


def test_only_options_that_a_kind_has_must_be_alike():
    assert differing(AdapterConfig(rank=4, virtual_tokens=8), AdapterConfig(rank=4)) == []
    assert differing(AdapterConfig(rank=4, alpha=8, top_layers=1), AdapterConfig(rank=8, alpha=8, top_layers=2)) == ["rank", "top_layers"]
    assert differing(AdapterConfig(kind="ia3", rank=4), AdapterConfig(kind="ia3")) == []
    assert differing(AdapterConfig(kind="prompt", virtual_tokens=4), AdapterConfig(kind="prompt")) == ["virtual_tokens"]
