"""Every kind of adapter that PEFT offers here learns by the same PPO, over a base that stays as it was."""

from dataclasses import replace

import pytest
import torch
from learning import scramble, watch_logprobs
from safetensors.torch import load_file
from torch.testing import assert_close

from rlhf.config import AdapterConfig, ConfigError, PPOConfig, RewardConfig, RoundConfig, SamplingConfig, with_options
from rlhf.generation.sampling import generator, sample
from rlhf.models.backbone import Backbone
from rlhf.models.padding import pad_left, pad_right
from rlhf.ppo.rollout import POLICY
from rlhf.ppo.trainer import PPO
from rlhf.reward.model import ADAPTER, RewardModel, TokenizedExample
from storage.core.records import Sampling

KINDS = ["lora", "rslora", "dora", "peanut", "ia3", "prompt"]
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [15], [16, 17]]
PPO_CONFIG = PPOConfig(steps=2, batch_size=8, minibatch_size=4, epochs=2, learning_rate=5e-3, kl_coef=0.05)
SAMPLING = SamplingConfig(max_new_tokens=6, temperature=0.7)
MOVES = {"lora": ".lora_B.", "rslora": ".lora_B.", "dora": ".lora_B.", "peanut": ".peanut_B.", "ia3": ".ia3_l.", "prompt": ".embedding."}
"""In the name of the weights that cannot be reached by chance: the others are random from the start."""


class ShareOfLowBytes:
    """In the reward model's place: the share of an answer's ids below 64."""

    def row(self, prompt_ids, answer_ids):
        return TokenizedExample([*prompt_ids, *answer_ids], len(prompt_ids))

    def score(self, rows, *, on_progress=lambda: None):
        return torch.tensor([sum(i < 64 for i in r.ids[r.start :]) / len(r.ids[r.start :]) for r in rows])


def kind_of(kind, **options):
    return AdapterConfig(kind=kind, rank=4, alpha=8, virtual_tokens=3, **options)


def trainer(folder, kind, config=PPO_CONFIG, dtype="float32", **options):
    return PPO(Backbone.load(folder, "cpu", dtype), ShareOfLowBytes(), PROMPTS, config, kind_of(kind, **options), sampling=SAMPLING, seed=0)


def read_all(backbone, adapter, rows=((5, 6, 7, 8, 9), (5, 6))):
    ids, mask = pad_left(rows, backbone.pad_id)
    with torch.no_grad():
        return backbone.forward(ids, mask, keep=2, adapter=adapter).logits


def base_weights(backbone):
    """Of the base alone, by their own names, whatever lies over them."""
    of_adapters = {id(p) for name in backbone.adapters for p in backbone.parameters(name).values()}
    return {n.replace(".base_layer", ""): p.clone() for n, p in backbone.base.named_parameters() if id(p) not in of_adapters}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_the_adapter_and_nothing_else(tiny_folder, kind):
    ppo = trainer(tiny_folder, kind)
    fresh = Backbone.load(tiny_folder, "cpu", "float32")
    before = {name: p.detach().clone() for name, p in ppo.policy.items()}
    assert before and all(p.dtype == torch.float32 for p in before.values())
    ppo.step()
    moved = {name for name, p in ppo.policy.items() if not torch.equal(p, before[name])}
    assert {name for name in before if MOVES[kind] in name} <= moved
    assert any(MOVES[kind] in name for name in before)
    untouched = base_weights(fresh)
    found = base_weights(ppo.backbone)
    assert set(untouched) <= set(found)
    for name, value in untouched.items():
        assert torch.equal(found[name], value), name
    assert torch.equal(read_all(ppo.backbone, None), read_all(fresh, None)), "the reference is the base, bit for bit"
    assert not torch.allclose(read_all(ppo.backbone, POLICY), read_all(fresh, None), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_heard_while_sampling_is_what_an_update_reads(tiny_folder, kind, monkeypatch):
    """The ratio of the first minibatch is 1, with and without a cache, at the start and after training."""
    ppo = trainer(tiny_folder, kind)
    seen = watch_logprobs(monkeypatch)
    ppo.step()
    ppo.step()
    for new, old in (seen[0], seen[4]):
        assert_close(new.exp() / old.exp(), torch.ones_like(new), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(*seen[3], atol=1e-4), "later ones have moved"


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "prompt"])
def test_what_is_fresh_reads_as_the_base(tiny_folder, kind):
    ppo = trainer(tiny_folder, kind)
    assert_close(read_all(ppo.backbone, POLICY), read_all(ppo.backbone, None), atol=1e-5, rtol=0)


def test_a_learned_prompt_is_read_as_tokens_are(tiny_folder):
    """Given the embeddings of real tokens, it is a prompt that begins with those tokens."""
    backbone = Backbone.load(tiny_folder, "cpu", "float32")
    backbone.add_adapter(POLICY, kind_of("prompt"), seed=0)
    words = [40, 41, 42]
    with torch.no_grad():
        backbone.parameters(POLICY)["prompt_encoder.policy.embedding.weight"].copy_(backbone.base.get_input_embeddings().weight[words])
    assert_close(
        read_all(backbone, POLICY, ((5, 6, 7, 8, 9), (5, 6))),
        read_all(backbone, None, ((*words, 5, 6, 7, 8, 9), (*words, 5, 6))),
        atol=1e-5,
        rtol=0,
    )
    twelve = Sampling(0.7, max_new_tokens=12)
    drawn = sample(backbone, [[5, 6, 7, 8], [9], [9]], twelve, generator(backbone.device, 3), adapter=POLICY)
    told = [[*words, 5, 6, 7, 8], [*words, 9], [*words, 9]]
    assert drawn == sample(backbone, told, twelve, generator(backbone.device, 3), adapter=None)
    ids, mask = pad_right([[5, 6, 7, 8], [9, 10]], backbone.pad_id)
    longer, longer_mask = pad_right([[*words, 5, 6, 7, 8], [*words, 9, 10]], backbone.pad_id)
    with torch.no_grad():
        hidden = backbone.hidden(ids, mask, depth=1, adapter=POLICY)
        expected = backbone.hidden(longer, longer_mask, depth=1, adapter=None)[:, 3:]
    assert_close(hidden[mask], expected[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_comes_back_bit_for_bit(tiny_folder, tmp_path, kind):
    ppo = trainer(tiny_folder, kind)
    ppo.step()
    ppo.backbone.save_adapter(POLICY, tmp_path)
    assert load_file(tmp_path / "adapter_model.safetensors")
    fresh = Backbone.load(tiny_folder, "cpu", "float32")
    fresh.load_adapter("v7", tmp_path)
    assert torch.equal(read_all(fresh, "v7"), read_all(ppo.backbone, POLICY))
    assert torch.equal(read_all(fresh, None), read_all(ppo.backbone, None))


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_goes_on_bit_for_bit(tiny_folder, tmp_path, kind):
    unbroken, broken = trainer(tiny_folder, kind), trainer(tiny_folder, kind)
    unbroken.step()
    unbroken.step()
    broken.step()
    broken.save(tmp_path / "checkpoint")
    resumed = trainer(tiny_folder, kind)
    assert resumed.load(tmp_path / "checkpoint")
    resumed.step()
    for name, value in unbroken.policy.items():
        assert torch.equal(resumed.policy[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_live_side_by_side(tiny_folder, tmp_path, kind):
    """A LoRA reward model under a policy of another kind, and versions of every kind in one server."""
    backbone = Backbone.load(tiny_folder, "cpu", "float32")
    plain = read_all(backbone, None)
    settings = RewardConfig(adapter=kind_of("lora"), depth=1.0)
    backbone.add_adapter(ADAPTER, settings.adapter, seed=9)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in backbone.parameters(ADAPTER).items():
            if ".lora_B." in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=rng))
    reward_model = RewardModel(backbone, settings, seed=9)
    rows = [reward_model.row(p, [20, 21]) for p in PROMPTS]
    scores = reward_model.score(rows)
    alone = trainer(tiny_folder, kind)
    alone.step()
    ppo = PPO(backbone, ShareOfLowBytes(), PROMPTS, PPO_CONFIG, kind_of(kind), sampling=SAMPLING, seed=0)
    ppo.step()
    assert backbone.adapters == [ADAPTER, POLICY]
    assert torch.equal(reward_model.score(rows), scores), "the reward model has not changed"
    assert torch.equal(read_all(backbone, POLICY), read_all(alone.backbone, POLICY)), "nor does it stand in the policy's way"
    backbone.save_adapter(ADAPTER, tmp_path / "reward")
    backbone.save_adapter(POLICY, tmp_path / "policy")
    backbone.delete_adapter(POLICY)
    assert backbone.adapters == [ADAPTER]
    assert torch.equal(reward_model.score(rows), scores) and torch.equal(read_all(backbone, None), plain)

    server = Backbone.load(tiny_folder, "cpu", "float32")
    for name, folder in (("v1", "policy"), ("judge", "reward"), ("v2", "policy")):
        server.load_adapter(name, tmp_path / folder)
    read_all(server, "judge")
    assert torch.equal(read_all(server, None), plain)
    assert torch.equal(read_all(server, "v2"), read_all(alone.backbone, POLICY))
    # Weights of another kind are attached to be looked at, and the next pass reads through its own again.
    server.parameters("judge")
    assert torch.equal(read_all(server, "v2"), read_all(alone.backbone, POLICY))


@pytest.mark.slow
def test_weights_learn_in_float32_over_a_base_in_bfloat16(tiny_folder):
    for kind in KINDS:
        ppo = trainer(tiny_folder, kind, dtype="bfloat16")
        assert {p.dtype for p in ppo.policy.values()} == {torch.float32}, kind
        before = {name: p.detach().clone() for name, p in ppo.policy.items()}
        ppo.step()
        assert all(not torch.equal(p, before[n]) for n, p in ppo.policy.items() if MOVES[kind] in n), kind


def test_rank_stabilised_lora_divides_by_the_root_of_its_rank(tiny_folder):
    """Kalajdzievski 2023: alpha / sqrt(rank), 8 / 2 here, where LoRA has 8 / 4."""
    scales = {}
    for kind in ("lora", "rslora"):
        backbone = Backbone.load(tiny_folder, "cpu", "float32")
        backbone.add_adapter(POLICY, kind_of(kind), seed=0)
        scales[kind] = {m.scaling[POLICY] for m in backbone.base.modules() if hasattr(m, "lora_A")}
    assert scales == {"lora": {2.0}, "rslora": {4.0}}


def test_dora_learns_directions_and_their_lengths(tiny_folder):
    """W' = m (W + s B A) / |W + s B A|, the length of each row, which starts at |W| (Liu 2024, eq. 5)."""
    backbone = Backbone.load(tiny_folder, "cpu", "float32")
    backbone.add_adapter(POLICY, kind_of("dora"), seed=0)
    scramble(backbone, POLICY)
    weights = {n.split("layers.0.self_attn.q_proj.")[1]: p for n, p in backbone.parameters(POLICY).items() if "layers.0.self_attn.q_" in n}
    a, b, m = (weights[f"{name}.policy.weight"] for name in ("lora_A", "lora_B", "lora_magnitude_vector"))
    layer = backbone.base.base_model.layers[0].self_attn.q_proj
    w = layer.get_base_layer().weight
    assert_close(m, w.norm(dim=1), atol=1e-5, rtol=0)
    moved = w + 8 / 4 * b @ a
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    with backbone.adapter_set.applied(POLICY), torch.no_grad():
        assert_close(layer(x), x @ (m[:, None] * moved / moved.norm(dim=1, keepdim=True)).T, atol=1e-4, rtol=0)


def test_ia3_scales_keys_values_and_what_feeds_forward(tiny_folder):
    backbone = Backbone.load(tiny_folder, "cpu", "float32")
    backbone.add_adapter(POLICY, kind_of("ia3", top_layers=1), seed=0)
    names = {n.split("layers.")[1].removesuffix(".ia3_l.policy"): tuple(p.shape) for n, p in backbone.parameters(POLICY).items()}
    # Two heads of keys and values, 8 wide each; 64 inner values of the feed-forward layer, on its way in.
    assert names == {"1.self_attn.k_proj": (16, 1), "1.self_attn.v_proj": (16, 1), "1.mlp.down_proj": (1, 64)}


def test_only_layers_that_no_adapter_touches_are_kept(tiny_folder):
    for kind in KINDS:
        ppo = trainer(tiny_folder, kind, **({} if kind == "prompt" else {"top_layers": 1}))
        assert ppo.backbone.first_adapted_layer(POLICY) == (0 if kind == "prompt" else 1), kind


def test_a_learned_prompt_has_no_layers():
    said = {"adapter-kind": "prompt"}
    assert with_options(RoundConfig(), said).adapter.kind == "prompt"
    assert with_options(RoundConfig(), said | {"adapter-top-layers": 0}).adapter.top_layers == 0
    with pytest.raises(ConfigError, match="--adapter-top-layers 5: a learned prompt lies before the first layer"):
        with_options(RoundConfig(), said | {"adapter-top-layers": 5})
    with pytest.raises(ConfigError, match="--reward-adapter-top-layers 5: a learned prompt"):
        with_options(RoundConfig(), {"reward-adapter-kind": "prompt", "reward-adapter-top-layers": 5})
    with pytest.raises(ConfigError, match="--adapter-virtual-tokens 0: must be greater than 0"):
        with_options(RoundConfig(), said | {"adapter-virtual-tokens": 0})
    with pytest.raises(ConfigError, match="--adapter-kind houlsby: choose one of lora, rslora, dora, peanut, ia3, prompt"):
        with_options(RoundConfig(), {"adapter-kind": "houlsby"})
    assert replace(RoundConfig().adapter, kind="prompt").virtual_tokens == 16
