"""TRL's trainers take bases that are mixtures of experts, tokenizers without a padding or an end token, and several devices or ranks."""

from dataclasses import replace

import architectures
import pytest
import tiny
from learning import user
from small_ppo import ByteReward
from transformers import Trainer, TrainingArguments

from rlhf.config import PRESETS, RewardConfig
from rlhf.data.demonstrations import Demonstration
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.models.ranks import Ranks
from rlhf.models.trl_wrapper import ShareCollator, processing_class
from rlhf.ppo.rollout import add_policy
from rlhf.reward import model as reward_model
from rlhf.runs.work import NO_PROGRESS
from rlhf.trl_methods import tuning


def test_a_mixture_of_experts_fine_tunes_its_reward_model(tmp_path):
    mixture = architectures.backbone("qwen3_moe")
    pairs = [PreferencePair(user(f"Q{i}"), "good", "bad", 1.0, "train", "human", i) for i in range(4)]
    model = reward_model.fit(mixture, pairs, RewardConfig(epochs=1, batch_size=2), seed=0, scratch=tmp_path, report=lambda *_: None)
    assert model.head.weight.isfinite().all()
    assert any(w.abs().max() > 0 for n, w in mixture.parameters("reward").items() if ".lora_B." in n), "B starts at 0 and must have moved"


def test_a_tokenizer_without_pad_or_end_gets_them_for_the_trainers_alone():
    tok = tiny.tokenizer()
    end = tok.eos_token_id
    tok.pad_token = tok.eos_token = None
    net = tiny.model(len(tok))
    net.generation_config.eos_token_id = end
    backbone = Backbone(net, tok)
    made = processing_class(backbone)
    assert (made.eos_token_id, made.pad_token_id) == (end, end)
    assert backbone.tokenizer.pad_token_id is None and backbone.pad_id == end


PAIRS = [PreferencePair(user(f"Q{i}"), "good", "bad", 1.0, "train", "human", i) for i in range(8)]


@pytest.mark.parametrize("method", ["reward", "dpo", "sft", "rloo", "grpo"])
def test_two_gpus_in_sight_are_not_trained_on_as_copies(backbone, tmp_path, monkeypatch, method):
    """A trainer with `n_gpu` 2 wraps its model in DataParallel and doubles its batch."""
    real, seen = TrainingArguments.__post_init__, []

    def sees_two(self):
        real(self)
        self._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", sees_two)
    monkeypatch.setattr(Trainer, "train", lambda self: seen.append((self.args.n_gpu, self.args.train_batch_size)))
    if method == "reward":
        reward_model.fit(backbone, PAIRS, RewardConfig(epochs=1, batch_size=4), seed=0, scratch=tmp_path, report=lambda *_: None)
    else:
        config = replace(PRESETS["tiny"], method=method)
        config = replace(config, dpo=replace(config.dpo, batch_size=4), sft=replace(config.sft, batch_size=4))
        add_policy(backbone, config.adapter, seed=0, start=None)
        tuning.train(
            config,
            backbone,
            reference=None,
            pairs=PAIRS,
            demonstrations=[Demonstration(user("Q"), "good")] * 4,
            prompts=[user("Q1"), user("Q2")],
            scorer=ByteReward(),
            scratch=tmp_path,
            on_progress=NO_PROGRESS,
            log=lambda *_: None,
        )
    assert seen == [(1, 4)]


def test_a_rank_collates_its_share_and_knows_its_weight():
    """Rows of 1, 2 and 3 terms: the mean over six terms is half the sum over two ranks of mean times weight."""

    def collate(rows):
        return {"rows": list(rows)}

    first, second = (ShareCollator(collate, Ranks(rank, 2), terms=int)([1, 2, 3]) for rank in (0, 1))
    assert (first["rows"], second["rows"]) == ([1], [2, 3])
    assert float(first["share"]) == pytest.approx(2 * 1 / 6) and float(second["share"]) == pytest.approx(2 * 5 / 6)
    none, one = (ShareCollator(collate, Ranks(rank, 2))([7]) for rank in (0, 1))
    assert none == {"rows": [7], "share": 0.0} and one == {"rows": [7], "share": 2.0}, "a rank without a row computes one for nothing"
    assert ShareCollator(collate, Ranks(), terms=int)([1, 2, 3]) == {"rows": [1, 2, 3], "share": 1.0}
