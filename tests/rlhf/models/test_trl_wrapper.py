"""TRL's trainers take bases that are mixtures of experts, and tokenizers without a padding or an end token."""

import architectures
import tiny
from learning import user

from rlhf.config import RewardConfig
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.models.trl_wrapper import processing_class
from rlhf.reward import model as reward_model


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
