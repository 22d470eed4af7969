"""Adapters in buffers that stay: what rows read through them is what each adapter gives alone."""

import pytest
import torch
from learning import scramble
from torch.testing import assert_close

from rlhf.config import AdapterConfig
from rlhf.models.adapter_stack import MIN_RANKS, NOBODY, AdapterStack
from rlhf.models.lora import RowAdapters
from rlhf.models.padding import positions


@pytest.fixture
def stack(backbone):
    for name, config in (("one", AdapterConfig(rank=4)), ("top", AdapterConfig(rank=8, top_layers=1)), ("big", AdapterConfig(rank=30))):
        backbone.add_adapter(name, config, seed=3)
        scramble(backbone, name, scale=0.3)
    made = AdapterStack(backbone.adapter_set)
    made.backbone = backbone
    return made


def hidden(stack, adapter):
    ids = torch.tensor([[5, 6, 7], [5, 6, 7], [5, 6, 7]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        return stack.backbone.decoder.forward(ids, mask, positions=positions(mask), adapter=adapter)


def routed(stack, *names):
    index = torch.tensor([-1 if name is None else stack.names.index(name) for name in names])
    return hidden(stack, RowAdapters(stack.names, index, stack.weights, one_for_all=False))


def test_rows_read_through_their_own(stack):
    assert stack.include({"one", "top"})
    assert stack.names == ("one", "top")
    found = routed(stack, "top", None, "one")
    for row, name in enumerate(("top", None, "one")):
        assert_close(found[row], hidden(stack, name)[row], atol=1e-5, rtol=1e-5)


def test_one_layout_for_all_layers(stack):
    """`top` has no weights in the first layer, where its ranks are 0; the ranks of nobody are 0 everywhere."""
    stack.include({"one", "top"})
    buffers = [weights for weights in stack.weights.values() if weights is not None]
    assert len(buffers) == 14 and {len(weights.a) for weights in buffers} == {MIN_RANKS}
    assert all(weights.owner is buffers[0].owner for weights in buffers)
    assert buffers[0].owner.tolist() == [0] * 4 + [1] * 8 + [NOBODY] * 4
    assert all(not weights.a[12:].any() and not weights.b[12:].any() for weights in buffers)
    assert sum(bool(weights.b[4:12].any()) for weights in buffers) == 7


def test_others_take_the_place_of_those_that_left_in_the_same_memory(stack):
    stack.include({"one"})
    places = {layer: weights.a.data_ptr() for layer, weights in stack.weights.items()}
    assert not stack.include({"one"}) and not stack.include({"top"})
    assert stack.names == ("top",)
    assert {layer: weights.a.data_ptr() for layer, weights in stack.weights.items()} == places
    assert_close(
        routed(stack, "top", None, "top"), torch.stack([hidden(stack, name)[0] for name in ("top", None, "top")]), atol=1e-5, rtol=0
    )
    # 4 + 8 + 30 ranks need other memory.
    assert stack.include({"one", "top", "big"})
    assert {len(weights.a) for weights in stack.weights.values()} == {64}


def test_a_trained_adapter_is_read_again_when_it_is_asked_for(stack):
    stack.include({"one"})
    before = routed(stack, "one", "one", "one")
    scramble(stack.backbone, "one", seed=8, scale=0.5)
    assert torch.equal(routed(stack, "one", "one", "one"), before)
    stack.forget()
    assert not stack.include({"one"})
    assert_close(routed(stack, "one", "one", "one"), hidden(stack, "one"), atol=1e-5, rtol=1e-5)


def test_adapters_that_left_do_not_stay_for_good(stack):
    stack.include({"one", "top", "big"})
    stack.include({"one", "top"})
    assert stack.names == ("big", "one", "top"), "two of three are used"
    stack.include({"one"})
    assert stack.names == ("one",)
    assert not stack.include(()) and stack.names == ("one",)
