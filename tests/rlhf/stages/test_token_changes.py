"""The log-ratio of each token, beside the policy's and the base's own log-probabilities."""

import pytest
import torch
from learning import scramble, user

from rlhf.config import AdapterConfig
from rlhf.evaluation import SampledCompletion
from rlhf.ppo.rollout import POLICY, sequence_kl
from rlhf.stages.token_changes import answer_change, log_ratios, token_changes
from storage.core.records import Prompt

PROMPT = Prompt(7, user("Hello"), "test", "heldout")


@pytest.fixture
def tuned(backbone):
    backbone.add_adapter(POLICY, AdapterConfig(rank=4), seed=0)
    scramble(backbone, POLICY)
    return backbone


def logprobs(backbone, prompt, ids, adapter, temperature):
    """Of each token, from whole logits: one row, no padding."""
    row = torch.tensor([[*prompt, *ids]])
    mask = torch.ones_like(row, dtype=torch.bool)
    with torch.no_grad():
        hidden = backbone.decoder.forward(row, mask, positions=torch.arange(row.shape[1])[None], adapter=adapter)
        table = torch.log_softmax(backbone.base.lm_head(hidden[0]) / temperature, -1)
    return [table[len(prompt) - 1 + i, token].item() for i, token in enumerate(ids)]


def test_a_log_ratio_is_the_difference_of_two_log_probabilities(tuned):
    prompts = [tuned.encode(user(text)) for text in ("Hello", "A longer prompt?")]
    responses = [tuned.encode_answer("short"), tuned.encode_answer("a longer answer"), []]
    rows = log_ratios(tuned, [*prompts, prompts[0]], responses, 0.7, batch_size=2)
    assert [len(row) for row in rows] == [5, 15, 0]
    for prompt, ids, row in zip(prompts, responses, rows, strict=False):
        policy, base = (logprobs(tuned, prompt, ids, adapter, 0.7) for adapter in (POLICY, None))
        assert row == pytest.approx([p - b for p, b in zip(policy, base, strict=True)], abs=1e-4)
        assert max(map(abs, row)) > 0.01
    kl = sequence_kl(tuned, prompts, responses[:2], 0.7, batch_size=2)
    assert [sum(row) for row in rows[:2]] == pytest.approx(kl.tolist(), abs=1e-4)


def test_tokens_that_are_one_character_are_one_entry(backbone):
    ids = backbone.encode_answer(" 안b")
    end = backbone.eos_token_ids[0]
    assert len(ids) == 5, "the tiny model has a token for each byte"
    change = answer_change(backbone, [*ids, end], [0.5, 1.0, 2.0, 4.0, -1.0, -2.0])
    assert [(t.text, t.log_ratio) for t in change.tokens] == [(" ", 0.5), ("안", 7.0), ("b", -1.0), ("", -2.0)]
    assert change.text == backbone.decode([*ids, end]) == "안b"


def test_a_character_that_is_cut_off_keeps_its_log_ratio(backbone):
    ids = backbone.encode_answer("a안")[:-1]
    change = answer_change(backbone, ids, [1.0, 2.0, 3.0])
    assert [t.log_ratio for t in change.tokens] == [1.0, 5.0] and change.text == backbone.decode(ids)


def test_both_answers_of_each_prompt(tuned):
    def answer(text):
        return SampledCompletion(7, tuned.encode_answer(text), text, "length")

    changes = token_changes(tuned, [PROMPT], [answer("yes")], [answer("no")], temperature=1.0, batch_size=4)
    (sample,) = changes.samples
    assert (sample.prompt_id, sample.before.text, sample.after.text, changes.temperature) == (7, "yes", "no", 1.0)
