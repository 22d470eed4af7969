"""From hidden states to log-probabilities: by hand, and the gradient against autograd's own."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from rlhf.models import lm_head
from rlhf.models.lm_head import token_logprobs, token_logprobs_from_logits

LN3 = math.log(3)


def through_a_head(logits, ids, temperature):
    """As `chosen`, by a head that hands its input on."""
    head = nn.Linear(logits.shape[-1], logits.shape[-1], bias=False, dtype=logits.dtype)
    with torch.no_grad():
        head.weight.copy_(torch.eye(logits.shape[-1]))
    return token_logprobs(head, logits, ids, temperature, entropy=True)


both = pytest.mark.parametrize("read", [token_logprobs_from_logits, through_a_head])


@both
def test_logprobs_are_those_of_the_named_tokens(read):
    logits = torch.tensor([[0.0, LN3], [0.0, LN3]])
    assert_close(read(logits, torch.tensor([1, 0]), 1.0).logprobs, torch.tensor([math.log(3 / 4), math.log(1 / 4)]))


@both
def test_temperature_divides_the_logits(read):
    logits = torch.tensor([[0.0, LN3]])
    # exp(ln 3 / 2) = sqrt 3; exp(2 ln 3) = 9
    assert_close(read(logits, torch.tensor([1]), 2.0).logprobs, torch.tensor([math.log(math.sqrt(3) / (1 + math.sqrt(3)))]))
    assert_close(read(logits, torch.tensor([1]), 0.5).logprobs, torch.tensor([math.log(9 / 10)]))


@both
def test_logprobs_of_half_precision_logits_are_reckoned_in_float32(read):
    # 3 logits of 64 give log(1/3); bfloat16 would round that to -1.1016.
    found = read(torch.full((1, 3), 64.0, dtype=torch.bfloat16), torch.tensor([0]), 1.0).logprobs
    assert found.dtype == torch.float32
    assert_close(found, torch.tensor([-LN3]))


@both
def test_entropy_of_known_distributions(read):
    assert_close(read(torch.zeros(1, 4), torch.tensor([0]), 1.0).entropy, torch.tensor([math.log(4)]))
    # p = (.1, .9) at temperature .5
    expected = torch.tensor([-(0.1 * math.log(0.1) + 0.9 * math.log(0.9))])
    assert_close(read(torch.tensor([[0.0, LN3]]), torch.tensor([0]), 0.5).entropy, expected)


@pytest.mark.parametrize("entropy", [False, True])
def test_the_gradient_made_on_the_way_is_autograd_s(monkeypatch, entropy):
    monkeypatch.setattr(lm_head, "ROWS", 3)
    rng = torch.Generator().manual_seed(0)
    hidden, weights = torch.randn(8, 6, generator=rng, requires_grad=True), torch.randn(8, generator=rng)
    head, ids = nn.Linear(6, 11), torch.randint(0, 11, (8,), generator=rng)

    def gradient(found):
        loss = (found.logprobs * weights).sum()
        return torch.autograd.grad(loss + (found.entropy * weights.flip(0)).sum() if entropy else loss, hidden)[0]

    plain = gradient(token_logprobs_from_logits(head(hidden), ids, 0.7))
    assert_close(gradient(token_logprobs(head, hidden, ids, 0.7, entropy=entropy)), plain, atol=1e-6, rtol=1e-5)
