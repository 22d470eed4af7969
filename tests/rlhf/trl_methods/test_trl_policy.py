"""The policy as TRL's trainers read it."""

import tiny
import torch
from learning import scramble
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GenerationConfig, GPT2Config

from rlhf.models.backbone import Backbone
from rlhf.models.padding import pad_left, pad_right
from rlhf.ppo.rollout import POLICY, REFERENCE
from rlhf.trl_methods.trl_policy import Policy


def test_trl_reads_the_policy_and_its_reference_through_one_backbone(policy, tiny_folder):
    scramble(policy, POLICY)
    ids, mask = pad_right([[5, 6, 7, 8], [9, 10]], policy.pad_id)
    fresh = Backbone.load(tiny_folder, "cpu", "float32").base
    ours, reference = Policy(policy, POLICY), Policy(policy, None)
    with torch.no_grad():
        expected = fresh(input_ids=ids, attention_mask=mask.long()).logits[mask]
        assert_close(reference(ids, mask.long()).logits[mask], expected, atol=1e-5, rtol=0)
        assert not torch.allclose(ours(ids, mask.long()).logits[mask], expected, atol=1e-2)
    learned = {id(p) for p in policy.parameters(POLICY).values()}
    assert {id(p) for p in ours.parameters() if p.requires_grad} == learned, "the optimiser's weights"


def test_a_reference_with_an_adapter_is_read_and_not_trained(policy, tmp_path):
    scramble(policy, POLICY)
    policy.save_adapter(POLICY, tmp_path / "promoted")
    policy.load_adapter(REFERENCE, tmp_path / "promoted")
    ours, reference = Policy(policy, POLICY), Policy(policy, REFERENCE, trained=False)
    ids, mask = pad_right([[5, 6, 7, 8], [9, 10]], policy.pad_id)
    loss = ours(ids, mask.long()).logits[mask].square().mean()
    with torch.no_grad():
        assert_close(reference(ids, mask.long()).logits[mask], ours(ids, mask.long()).logits[mask], atol=1e-5, rtol=0)
    loss.backward()
    assert all(weight.grad is not None for weight in policy.parameters(POLICY).values()), "a pass of the reference takes no gradient away"
    assert not any(weight.requires_grad for weight in policy.parameters(REFERENCE).values()) and not list(reference.parameters())


def test_left_padding_changes_nothing_that_trl_reads(policy):
    scramble(policy, POLICY)
    ours = Policy(policy, POLICY)
    ids, mask = pad_left([[5, 6, 7, 8, 9], [10, 11]], policy.pad_id)
    alone = torch.tensor([[10, 11]])
    with torch.no_grad():
        assert_close(ours(ids, mask.long()).logits[1, 3:], ours(alone, torch.ones_like(alone)).logits[0], atol=1e-5, rtol=0)


def test_positions_are_counted_over_real_tokens(tiny_folder):
    """Rotary positions are relative and would hide it: this architecture has absolute ones."""
    tok = tiny.tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tok), n_embd=16, n_layer=2, n_head=2, n_positions=64, tie_word_embeddings=True)
    backbone = Backbone(AutoModelForCausalLM.from_config(config), tok)
    ids, mask = pad_left([[5, 6, 7, 8, 9], [10, 11]], backbone.pad_id)
    alone = torch.tensor([[10, 11]])
    reference = Policy(backbone, None)
    with torch.no_grad():
        assert_close(reference(ids, mask.long()).logits[1, 3:], backbone.base(input_ids=alone).logits[0], atol=1e-5, rtol=0)


def test_training_never_turns_dropout_on(policy):
    ours = Policy(policy, POLICY).train()
    assert ours.training and not any(module.training for module in policy.base.modules())


def test_completions_are_sampled_at_the_temperature_from_all_tokens(policy):
    """Against the distribution itself: 4,000 first tokens, and a far colder draw that must differ."""
    scramble(policy, POLICY)
    ours = Policy(policy, POLICY, seed=3)
    ids, mask = pad_left([[5, 6, 7]] * 4000, policy.pad_id)

    def first(temperature):
        drawn = ours.generate(ids, mask.long(), GenerationConfig(temperature=temperature, max_new_tokens=1, do_sample=True))
        assert torch.equal(drawn[:, :3], ids)
        return torch.bincount(drawn[:, 3], minlength=len(policy.tokenizer)) / 4000

    with torch.no_grad():
        expected = (ours(ids[:1], mask[:1].long()).logits[0, -1] / 0.7).softmax(-1)
    # Standard deviation of a frequency p is sqrt(p (1 - p) / 4000): half the distance is below the sum of those.
    noise = float((expected * (1 - expected) / 4000).sqrt().sum()) / 2
    assert float((first(0.7) - expected).abs().sum()) / 2 < 1.5 * noise
    assert float((first(0.1) - expected).abs().sum()) / 2 > 4 * noise


def test_two_samples_differ_and_a_seed_reproduces_them(policy):
    ids, mask = pad_left([[5, 6, 7], [9]], policy.pad_id)
    wanted = GenerationConfig(temperature=0.7, max_new_tokens=12, do_sample=True)
    one, same = Policy(policy, POLICY, seed=3), Policy(policy, POLICY, seed=3)
    first = one.generate(ids, mask.long(), wanted)
    assert torch.equal(first, same.generate(ids, mask.long(), wanted))
    assert not torch.equal(first, one.generate(ids, mask.long(), wanted))
