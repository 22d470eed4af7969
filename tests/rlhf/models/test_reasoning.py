"""Models that think before they answer: the reasoning is no part of the answer that is shown, stored and scored."""

import pytest
import tiny
import torch
from learning import user
from torch.testing import assert_close

from rlhf.config import RewardConfig
from rlhf.generation.sampling import GeneratedSequence
from rlhf.models.backbone import Backbone
from rlhf.models.decoder import CachedHidden
from rlhf.reward.model import RewardModel
from rlhf.reward.scoring import RewardShaper

OPENS = tiny.TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")
SWITCH = tiny.TEMPLATE.replace(
    "<|assistant|>{% endif %}", "<|assistant|>{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)


def backbone(template=tiny.TEMPLATE, marks=("<think>", "</think>")):
    tok = tiny.tokenizer()
    tok.add_tokens(list(marks))
    tok.chat_template = template
    return Backbone(tiny.model(len(tok)), tok)


def spelled(backbone, text):
    return backbone.tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    ("template", "written", "answer"),
    [
        (tiny.TEMPLATE, "<think>hm</think>\n\nYes.<|end|>", "Yes."),
        (tiny.TEMPLATE, "Yes.<|end|>", "Yes."),
        (tiny.TEMPLATE, "<think>a</think>b<think>c</think>d", "d"),
        # The limit came before the end of the reasoning: there is no answer.
        (tiny.TEMPLATE, "<think>hm", ""),
        (OPENS, "hm</think>Yes.<|end|>", "Yes."),
        (OPENS, "hm", ""),
        (SWITCH, "Yes.<|end|>", "Yes."),
    ],
)
def test_the_answer_begins_after_the_reasoning(template, written, answer):
    thinking = backbone(template)
    assert thinking.decode(spelled(thinking, written)) == answer


def test_a_template_with_a_switch_is_rendered_without_reasoning():
    thinking = backbone(SWITCH)
    assert thinking.tokenizer.decode(thinking.encode(user("Hi"))).endswith("<|assistant|><think></think>")
    asked = thinking.tokenizer.apply_chat_template(list(user("Hi")), add_generation_prompt=True, enable_thinking=True, tokenize=False)
    assert asked.endswith("<|assistant|>"), "unless somebody asks for it"


def test_a_model_without_such_tokens_keeps_its_text():
    plain = backbone(marks=())
    assert plain.reasoning is None and plain.decode(spelled(plain, "<think>a</think>b")) == "<think>a</think>b"


def test_the_reward_model_reads_a_sampled_answer_as_its_text():
    thinking = backbone(OPENS)
    reward = RewardModel(thinking, RewardConfig(epochs=0), seed=0)
    asked = thinking.encode(user("Hi"))
    sampled = spelled(thinking, "hm</think>Yes.<|end|>")
    as_text = reward.text_row(asked, "Yes.")
    assert reward.row(asked, sampled) == as_text
    # Activations that were recorded while the reasoning was sampled are not used.
    wrong = CachedHidden(reward.depth, torch.full((len(asked) + len(sampled) + 1, thinking.hidden_size), 9.0))
    shaper = RewardShaper(reward)
    assert_close(shaper([asked], [GeneratedSequence(sampled, "stop")], cached=[wrong]), reward.score([as_text]))
    # Of an answer without reasoning they are.
    plain = backbone()
    reward = RewardModel(plain, RewardConfig(epochs=0), seed=0)
    sampled = spelled(plain, "Yes.<|end|>")
    assert not torch.allclose(
        RewardShaper(reward)([asked], [GeneratedSequence(sampled, "stop")], cached=[wrong]), reward.score([reward.text_row(asked, "Yes.")])
    )
