"""What is recorded while answers are sampled is what a whole forward pass computes afterwards."""

import pytest
import torch
from learning import scramble
from tiny import favour
from torch.testing import assert_close

from rlhf.config import AdapterConfig
from rlhf.generation.engine import GenerationEngine, requests_for
from rlhf.generation.recording import RolloutRecorder
from rlhf.models.lm_head import token_logprobs_from_logits
from rlhf.models.padding import positions
from storage.core.records import Sampling

PROMPTS = [(5, 6, 7, 8), (9,), (5, 6, 7, 8), (10, 11)]


@pytest.mark.parametrize("adapter", [None, "policy", "prompt"])
def test_statistics_and_hidden_states_are_those_of_a_whole_pass(backbone, adapter):
    if adapter is not None:
        kind = AdapterConfig(kind="prompt", virtual_tokens=3) if adapter == "prompt" else AdapterConfig(rank=4, top_layers=1)
        backbone.add_adapter(adapter, kind, seed=0)
        scramble(backbone, adapter, scale=0.3)
    favour(backbone, backbone.eos_id, 3.0)
    depths = () if adapter == "prompt" else (1,)
    recorder = RolloutRecorder(backbone, [len(prompt) for prompt in PROMPTS], 9, depths)
    answers = GenerationEngine(backbone).run(
        requests_for(PROMPTS, Sampling(temperature=0.7, max_new_tokens=9), 3, adapter=adapter), recorder=recorder
    )
    assert len({len(answer.ids) for answer in answers}) > 1 and recorder.width == max(len(answer.ids) for answer in answers)
    for row, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        # As rows are scored: an answer that did not end gets the end token.
        ended = answer.ids if answer.ids[-1] == backbone.eos_id else [*answer.ids, backbone.eos_id]
        ids = torch.tensor([[*prompt, *ended]])
        mask = torch.ones_like(ids, dtype=torch.bool)
        length = len(answer.ids)
        with torch.no_grad():
            hidden = backbone.decoder.forward(ids, mask, positions=positions(mask), adapter=adapter)[0]
            predicting = hidden[len(prompt) - 1 :][:length]
            expected = token_logprobs_from_logits(backbone.logits(predicting), torch.tensor(answer.ids), 0.7)
            assert_close(recorder.hidden[row, :length], predicting, atol=1e-5, rtol=1e-5)
            assert_close(recorder.logprobs[row, :length], expected.logprobs, atol=1e-5, rtol=1e-5)
            assert_close(recorder.entropy[row, :length], expected.entropy, atol=1e-5, rtol=1e-5)
            if depths:
                lower = backbone.decoder.forward_lower(ids, mask, positions=positions(mask), depth=1, adapter=adapter)[0]
                first = max(map(len, PROMPTS)) - len(prompt)
                found = recorder.cached(1).hidden[row, first : first + ids.shape[1]]
                assert_close(found, lower, atol=1e-5, rtol=1e-5)
    assert recorder.cached(0) is None
