"""What a rollout records, and what is read again."""

from dataclasses import replace

import pytest
import tiny
import torch
from small_ppo import ADAPTER_CONFIG, CONFIG, PROMPTS, SAMPLING, WANTED, read_alone, scramble, scrambled, taken, trainer
from torch.testing import assert_close

from rlhf.config import AdapterConfig, RewardConfig
from rlhf.models.backbone import Backbone
from rlhf.ppo.rollout import POLICY, REFERENCE, add_policy, sequence_kl
from rlhf.ppo.trainer import PPO
from rlhf.reward.model import ADAPTER, RewardModel
from rlhf.runs.work import NO_PROGRESS
from rlhf.safe_files import ModelError


def test_what_was_collected_is_what_a_plain_forward_reads(tiny_folder):
    ppo = scrambled(trainer(tiny_folder))
    rollout = taken(ppo)
    reference = Backbone.load(tiny_folder, "cpu", "float32")
    lengths = rollout.mask.sum(-1).tolist()
    assert not torch.allclose(rollout.logprobs, rollout.ref_logprobs, atol=1e-2)
    for i, n in enumerate(lengths):
        prompt, answer = PROMPTS[i % len(PROMPTS)], rollout.responses[i, :n].tolist()
        assert rollout.prompts[i][rollout.prompt_mask[i]].tolist() == prompt
        with ppo.backbone.adapter_set.applied(POLICY):
            assert_close(rollout.logprobs[i, :n], read_alone(ppo.backbone, prompt, answer, 0.7), atol=1e-5, rtol=0)
        assert_close(rollout.ref_logprobs[i, :n], read_alone(reference, prompt, answer, 0.7), atol=1e-5, rtol=0)
        for field in (rollout.logprobs, rollout.ref_logprobs, rollout.values, rollout.entropy):
            assert torch.equal(field[i, n:], torch.zeros(field.shape[1] - n)), "0 outside the mask"
        assert rollout.finished[i] == (answer[-1] == ppo.backbone.eos_id)
        assert rollout.scores[i] == pytest.approx(sum(a in WANTED for a in answer) / n)


def test_the_value_of_a_token_is_read_before_it_is_seen(tiny_folder):
    ppo = scrambled(trainer(tiny_folder))
    rollout = taken(ppo, 1)
    ids = torch.cat([rollout.prompts, rollout.responses], 1)
    with ppo.backbone.adapter_set.applied(POLICY), torch.no_grad():
        hidden = ppo.backbone.base(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
    start, weight = rollout.prompts.shape[1] - 1, ppo.value_head.weight[0].detach()
    for i in range(rollout.values.shape[1]):
        # From the prompt's last token to the one before: no more is known of token i when its value is told.
        so_far = hidden[start : start + i + 1]
        share = torch.tensor([(i + 1) / 8])
        known = torch.cat([so_far[-1], so_far.mean(0), so_far.mean(0) * share, share])
        assert_close(rollout.values[0, i], known @ weight, atol=1e-5, rtol=0)


def test_taking_rows_leaves_out_columns_that_only_others_need(tiny_folder):
    rollout = taken(trainer(tiny_folder))
    part = rollout.select(torch.tensor([2, 0]))
    assert part.prompts.shape == (2, 3)
    assert part.responses.shape[1] == rollout.mask[[2, 0]].sum(-1).max()
    assert part.prompts[part.prompt_mask].tolist() == [15, 5, 6, 7]
    assert torch.equal(part.scores, rollout.scores[[2, 0]])


@pytest.mark.parametrize("top_layers", [0, 1])
def test_reading_again_is_what_was_heard_on_the_way(tiny_folder, top_layers):
    """To 1e-5 in float32, from the embedding or from the layers under the adapter that were kept, of answers that end and do not."""
    ppo = scrambled(trainer(tiny_folder, adapter=replace(ADAPTER_CONFIG, top_layers=top_layers)))
    assert ppo.backbone.first_adapted_layer(POLICY) == top_layers
    tiny.favour(ppo.backbone, ppo.backbone.eos_id, 3.0)
    rollout = taken(ppo, 40)
    assert len(set(rollout.mask.sum(-1).tolist())) > 3 and not rollout.finished.all()
    assert (rollout.cached is None) == (top_layers == 0)
    for rows in (torch.arange(40), torch.tensor([35, 2])):
        part = rollout.select(rows)
        again = ppo.model(part.tokens(), adapter=POLICY, entropy=True)
        for name in ("logprobs", "values", "entropy"):
            assert_close(getattr(again, name), getattr(part, name), atol=1e-5, rtol=0)


@pytest.mark.parametrize("eos_is_pad", [False, True])
@pytest.mark.parametrize(
    "settings, frozen",
    [
        (RewardConfig(depth=0.5, epochs=0), 2),
        (RewardConfig(depth=0.75, epochs=0), 3),
        (RewardConfig(depth=1.0, epochs=0), 4),
        (RewardConfig(depth=1.0, adapter=AdapterConfig(rank=2, top_layers=2)), 2),
        (RewardConfig(depth=1.0, adapter=AdapterConfig(rank=2, top_layers=1), pooling="last"), 3),
        (RewardConfig(depth=1.0, adapter=AdapterConfig(rank=2)), 0),
    ],
)
def test_a_score_from_kept_layers_is_the_score_of_the_whole_row(settings, frozen, eos_is_pad):
    """Whether an answer ended, and on whatever token; layers under both adapters are read for drawing alone."""
    tokenizer = tiny.tokenizer(pad_is_eos=eos_is_pad)
    backbone = Backbone(tiny.model(len(tokenizer), layers=4), tokenizer)
    # Some answers end at once, some later, some never.
    tiny.favour(backbone, backbone.eos_id, 3.0)
    if settings.epochs:
        backbone.add_adapter(ADAPTER, settings.adapter, seed=9)
        scramble(backbone.parameters(ADAPTER))
    model = RewardModel(backbone, settings, seed=9)
    assert model.frozen_layers == frozen
    ppo = scrambled(PPO(backbone, model, PROMPTS, CONFIG, replace(ADAPTER_CONFIG, top_layers=1), sampling=SAMPLING, seed=0))
    reads = []
    # The layer's own hook fires for a layer that is skipped too; what is inside it is run where it is not.
    backbone.decoder.layers[0].self_attn.register_forward_hook(lambda *_: reads.append(1))
    rollout = taken(ppo, 24)
    lengths = rollout.mask.sum(-1)
    assert len(set(lengths[rollout.finished].tolist())) > 3 and not rollout.finished.all()
    # The prompts, every token but the last, and the end; then, unless it is known already, the batch of rows.
    assert len(reads) == 1 + (int(lengths.max()) - 1) + 1 + (frozen == 0)

    rows = [model.row(PROMPTS[i % len(PROMPTS)], rollout.responses[i, :n].tolist()) for i, n in enumerate(lengths.tolist())]
    assert_close(rollout.scores, model.score(rows), atol=1e-5, rtol=1e-5)
    assert rollout.scores.std() > 0.1


def test_kl_of_whole_answers_is_the_sum_over_their_tokens(tiny_folder):
    ppo = scrambled(trainer(tiny_folder))
    rollout = taken(ppo)
    lengths = rollout.mask.sum(-1).tolist()
    answers = [rollout.responses[i, :n].tolist() for i, n in enumerate(lengths)]
    asked = [PROMPTS[i % len(PROMPTS)] for i in range(8)]
    found = sequence_kl(ppo.backbone, asked, answers, 0.7, batch_size=3)
    assert_close(found, (rollout.logprobs - rollout.ref_logprobs).sum(-1), atol=1e-4, rtol=0)
    assert found.mean() > 0


@pytest.fixture
def promoted(tiny_folder, tmp_path):
    """The folder of an adapter as an earlier round left it."""
    earlier = scrambled(trainer(tiny_folder))
    earlier.backbone.save_adapter(POLICY, tmp_path / "promoted")
    return tmp_path / "promoted"


def test_a_policy_that_begins_with_an_adapter_is_its_own_reference_until_it_learns(tiny_folder, promoted):
    ppo = trainer(tiny_folder, start=promoted)
    rollout = ppo.experience(NO_PROGRESS)[0]
    assert_close(rollout.logprobs, rollout.ref_logprobs, atol=1e-5, rtol=0)
    asked = [p[m].tolist() for p, m in zip(rollout.prompts, rollout.prompt_mask, strict=True)]
    answers = [r[m].tolist() for r, m in zip(rollout.responses, rollout.mask, strict=True)]
    beside = {name: sequence_kl(ppo.backbone, asked, answers, 0.7, batch_size=8, reference=name).mean() for name in (None, REFERENCE)}
    assert beside[None] > 0.05 and abs(beside[REFERENCE]) < 1e-4
    before = {name: weight.clone() for name, weight in ppo.backbone.parameters(REFERENCE).items()}
    ppo.step()
    ppo.step()
    learned = ppo.backbone.parameters(POLICY)
    assert any(not torch.equal(weight, before[name.replace(POLICY, REFERENCE)]) for name, weight in learned.items())
    assert all(torch.equal(weight, before[name]) for name, weight in ppo.backbone.parameters(REFERENCE).items()), "it is frozen"
    again = ppo.collect(ppo.value_head, NO_PROGRESS)
    with ppo.backbone.adapter_set.applied(REFERENCE):
        for i, n in enumerate(again.mask.sum(-1).tolist()):
            prompt, answer = again.prompts[i][again.prompt_mask[i]].tolist(), again.responses[i, :n].tolist()
            assert_close(again.ref_logprobs[i, :n], read_alone(ppo.backbone, prompt, answer, 0.7), atol=1e-5, rtol=0)


def test_a_folder_with_an_adapter_of_another_size_is_no_beginning(tiny_folder, promoted):
    backbone = Backbone.load(tiny_folder, "cpu", "float32")
    with pytest.raises(ModelError, match="of another kind or size"):
        add_policy(backbone, AdapterConfig(rank=4, alpha=8), seed=0, start=promoted)
