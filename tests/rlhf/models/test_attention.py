"""Attention over short rows: the textbook's softmax, its gradient, and where it hands over to torch."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rlhf.models import attention
from rlhf.models.attention import attend


def states(b=2, heads=6, groups=2, t=5, s=5, d=4, dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)
    shapes = ((b, heads, t, d), (b, groups, s, d), (b, groups, s, d))
    return tuple(torch.randn(shape, generator=rng, dtype=dtype, requires_grad=True) for shape in shapes)


def module() -> torch.nn.Module:
    made = torch.nn.Module()
    made.num_key_value_groups, made.is_causal = 3, True
    return made


def by_hand(query, key, value, mask):
    """Head by head, token by token."""
    b, heads, t, d = query.shape
    out = torch.zeros(b, t, heads, d, dtype=query.dtype)
    for i in range(b):
        for h in range(heads):
            k, v = key[i, h // 3], value[i, h // 3]
            for j in range(t):
                weights = torch.stack([(query[i, h, j] @ k[m] / d**0.5).exp() if mask[i, j, m] else k.new_zeros(()) for m in range(len(k))])
                out[i, j, h] = (weights / weights.sum()) @ v
    return out


def test_two_tokens_by_hand():
    # Scores 0 and ln 3 (d = 1): the second token weighs the first by 1/4 and itself by 3/4.
    query = torch.tensor([[[[1.0], [1.0]]]])
    key = torch.tensor([[[[0.0], [torch.log(torch.tensor(3.0))]]]])
    value = torch.tensor([[[[8.0], [4.0]]]])
    out, _ = attend(module(), query, key, value, None, scaling=1.0)
    assert_close(out[0, :, 0, 0], torch.tensor([8.0, 5.0]))


def test_shared_heads_masks_and_no_mask_follow_the_definition():
    query, key, value = states()
    triangle = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 5, 5)
    padded = triangle & (torch.arange(5) >= torch.tensor([2, 0])[:, None])[:, None]
    assert_close(attend(module(), query, key, value, None)[0], by_hand(query, key, value, triangle), check_dtype=False)
    out = attend(module(), query, key, value, padded[:, None])[0]
    assert_close(out[0, 2:], by_hand(query, key, value, padded)[0, 2:], check_dtype=False)
    assert_close(out[1], by_hand(query, key, value, padded)[1], check_dtype=False)
    # A row of padding sees nothing: it must stay a number, for it stands in the same products.
    assert out.isfinite().all()


def test_one_new_token_sees_all_that_went_before():
    query, key, value = states(t=1, s=5)
    everything = torch.ones(2, 1, 5, dtype=torch.bool)
    assert_close(attend(module(), query, key, value, None)[0], by_hand(query, key, value, everything), check_dtype=False)


def test_gradient_is_that_of_finite_differences():
    mask = torch.ones(5, 5, dtype=torch.bool).tril()[None, None].repeat(2, 1, 1, 1)
    mask[0, :, 1:, 0] = False
    # Scores are float32 by design, so the differences are taken in torch's own double arithmetic instead.
    query, key, value = states()
    weights = torch.linspace(-1, 1, query.numel(), dtype=torch.float64).reshape(2, 5, 6, 4)
    ours = torch.autograd.grad((attend(module(), query, key, value, mask)[0] * weights).sum(), (query, key, value))

    def total(*moved):
        return float((sdpa_attention_forward(module(), *moved, mask)[0] * weights).sum())

    step = 1e-5
    for index, (state, gradient) in enumerate(zip((query, key, value), ours, strict=True)):
        for place in range(0, state.numel(), 7):

            def moved(by, index=index, place=place):
                changed = [x.detach().clone() for x in (query, key, value)]
                changed[index].view(-1)[place] += by
                return total(*changed)

            expected = (moved(step) - moved(-step)) / (2 * step)
            assert float(gradient.reshape(-1)[place]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("unusual", [{"dropout": 0.1}, {"position_bias": torch.zeros(1)}, {"softcap": 30.0}, {"long": True}])
def test_anything_unusual_goes_torchs_way(monkeypatch, unusual):
    taken = []
    nothing = torch.zeros(2, 5, 6, 4)
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *args, **kwargs: taken.append(kwargs) or (nothing, None))
    if unusual.pop("long", False):
        monkeypatch.setattr(attention, "MAX_KEY_LENGTH", 4)
    attend(module(), *states(), None, **unusual)
    assert len(taken) == 1


def test_bfloat16_is_as_near_the_truth_as_torchs_kernel():
    exact = states(t=40, s=40, d=64)
    rounded = tuple(x.detach().to(torch.bfloat16) for x in exact)
    truth = sdpa_attention_forward(module(), *(x.double() for x in rounded), None, is_causal=True)[0]
    ours, torchs = (f(module(), *rounded, None, is_causal=True)[0].double() for f in (attend, sdpa_attention_forward))
    assert (ours - truth).abs().mean() < 2 * (torchs - truth).abs().mean()
