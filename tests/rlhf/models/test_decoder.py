"""Reading in parts and with a cache is reading whole, in every architecture that has a list of decoder layers."""

import threading

import pytest
import torch
import transformers
from torch.testing import assert_close

from rlhf.models.decoder import CachedHidden, Decoder
from rlhf.models.kv_cache import SlotCache
from rlhf.models.padding import positions

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
CONFIGS = {
    "Llama": (transformers.LlamaConfig, SIZES),
    "GPT2": (transformers.GPT2Config, {"vocab_size": 64, "n_embd": 32, "n_layer": 4, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}),
    "Gemma3": (transformers.Gemma3TextConfig, SIZES | {"head_dim": 8, "num_key_value_heads": 2, "sliding_window": 4}),
    "GPTNeoX": (transformers.GPTNeoXConfig, SIZES),
}


def decoder_of(name):
    kind, sizes = CONFIGS[name]
    torch.manual_seed(0)
    return Decoder(transformers.AutoModelForCausalLM.from_config(kind(**sizes)).eval())


def some_rows():
    """Ids, which of them are real, and their positions; the first row is padded on the left."""
    ids = torch.randint(1, 64, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :2] = False
    return ids, mask, positions(mask)


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_and_steps_make_the_whole(name):
    decoder = decoder_of(name)
    assert decoder.supports_partial_forward
    ids, mask, places = some_rows()
    with torch.no_grad():
        whole = decoder.forward(ids, mask, positions=places, adapter=None)
        below = decoder.forward_lower(ids, mask, positions=places, depth=3, adapter=None)
        assert not torch.allclose(below, decoder.forward_lower(ids, mask, positions=places, depth=2, adapter=None))
        assert_close(
            decoder.forward_upper(CachedHidden(3, below), ids, mask, positions=places, adapter=None)[mask], whole[mask], atol=1e-5, rtol=0
        )

        cache = transformers.DynamicCache(config=decoder.model.config)
        decoder.forward(ids[:, :4], mask[:, :4], positions=places[:, :4], cache=cache, adapter=None)
        for t in (4, 5):
            now = slice(t, t + 1)
            step = decoder.forward(ids[:, now], mask[:, : t + 1], positions=places[:, now], cache=cache, adapter=None)
            assert_close(step[:, 0], whole[:, t], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_of_different_lengths_in_slots_are_whole_rows(name):
    """The second row has one token less: its last one is read where the first row's last but one is."""
    decoder = decoder_of(name)
    assert decoder.supports_slots and decoder.records_activations
    ids, _, _ = some_rows()
    everywhere = torch.ones(1, 6, dtype=torch.bool)
    with torch.no_grad():
        slots = SlotCache(decoder.model)
        first = decoder.forward_slots(ids[1:, :4], torch.tensor([0, 0]), slots, width=4, last=63, adapter=None)
        rest = torch.stack([ids[1, 4:6], ids[2, 3:5]])
        second = decoder.forward_slots(rest, torch.tensor([4, 3]), slots, width=6, last=63, adapter=None)
        for row, length in ((1, 6), (2, 5)):
            whole = decoder.forward(ids[row : row + 1, :length], everywhere[:, :length], positions=torch.arange(length)[None], adapter=None)
            assert_close(second[row - 1], whole[0, -2:], atol=1e-5, rtol=0)
            assert_close(first[row - 1, : length - 2], whole[0, : length - 2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_mask_may_say_which_tokens_each_query_attends_to(name):
    """For all layers, or by their kind of attention as transformers names it."""
    decoder = decoder_of(name)
    ids, mask, places = some_rows()
    causal = torch.ones(6, 6, dtype=torch.bool).tril() & mask[:, None]
    # A row of padding attends to itself, so that its softmax is a number.
    by_query = (causal | torch.eye(6, dtype=torch.bool))[:, None]
    given = by_query
    if name == "Gemma3":
        given = {"full_attention": by_query, "sliding_attention": by_query & torch.ones(6, 6, dtype=torch.bool).triu(-3)}
    with torch.no_grad():
        expected = decoder.forward(ids, mask, positions=places, adapter=None)
        assert_close(decoder.forward(ids, given, positions=places, adapter=None)[mask], expected[mask], atol=1e-5, rtol=0)
        assert not torch.allclose(decoder.forward(ids, torch.ones_like(by_query), positions=places, adapter=None), expected, atol=1e-3)


def test_a_partial_pass_leaves_the_modules_and_their_hooks_as_they_are():
    decoder = decoder_of("Llama")
    ids, mask, places = some_rows()

    def tree():
        return [(name, id(m)) for name, m in decoder.model.named_modules()], [n for n, _ in decoder.model.named_parameters()]

    before, state, seen, called = tree(), list(decoder.model.state_dict()), [], []
    decoder.layers[2].register_forward_hook(lambda *_: seen.append(tree()))
    for index, layer in enumerate(decoder.layers):
        layer.register_forward_hook(lambda *_, index=index: called.append(index))
    run = []
    for index, layer in enumerate(decoder.layers):
        layer.self_attn.register_forward_hook(lambda *_, index=index: run.append(index))
    with torch.no_grad():
        below = decoder.forward_lower(ids, mask, positions=places, depth=3, adapter=None)
        assert run == [0, 1, 2]
        decoder.forward_upper(CachedHidden(3, below), ids, mask, positions=places, adapter=None)
        assert run == [0, 1, 2, 3]
    assert seen == [before, before] and tree() == before and list(decoder.model.state_dict()) == state
    assert called == [*range(4), *range(4)], "hooks fire, whether the layer is run or not"


def test_an_error_in_a_partial_pass_leaves_the_next_one_whole():
    decoder = decoder_of("Llama")
    ids, mask, places = some_rows()
    with torch.no_grad():
        whole = decoder.forward(ids, mask, positions=places, adapter=None)
        hook = decoder.layers[0].register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            decoder.forward_lower(ids, mask, positions=places, depth=1, adapter=None)
        hook.remove()
        assert torch.equal(decoder.forward(ids, mask, positions=places, adapter=None), whole)


def test_threads_with_other_plans_do_not_disturb_each_other():
    """Four passes of one model, each of which waits in the middle until all others are there."""
    decoder = decoder_of("Llama")
    ids, mask, places = some_rows()
    recorded = {}

    def whole():
        return decoder.forward(ids, mask, positions=places, adapter=None)

    def lower():
        return decoder.forward_lower(ids, mask, positions=places, depth=2, adapter=None)

    def upper():
        return decoder.forward_upper(CachedHidden(2, below), ids, mask, positions=places, adapter=None)

    def watched():
        hidden = []
        with decoder.record_hidden(1, hidden.append):
            whole()
        recorded[threading.get_ident()] = hidden
        return hidden[0]

    with torch.no_grad():
        below = lower()
        passes = [whole, lower, upper, watched]
        expected = [one() for one in passes]
        barrier = threading.Barrier(len(passes))

        def wait_for_the_others(*_):
            barrier.wait(30)

        decoder.layers[1].register_forward_hook(wait_for_the_others)
        found = [None] * len(passes)

        def ask(index):
            with torch.no_grad():
                found[index] = passes[index]()

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(passes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert [len(hidden) for hidden in recorded.values()] == [1, 1], "nobody else's passes"


def test_the_models_own_head_is_computed_on_given_states():
    """Gemma 2 caps its logits, which no product does."""
    torch.manual_seed(0)
    sizes = SIZES | {"head_dim": 8, "num_key_value_heads": 2, "final_logit_softcapping": 0.5}
    decoder = Decoder(transformers.AutoModelForCausalLM.from_config(transformers.Gemma2Config(**sizes)).eval())
    ids, mask, places = some_rows()
    modules = dict(decoder.model.named_modules())
    with torch.no_grad():
        hidden = decoder.forward(ids, mask, positions=places, adapter=None)
        expected = decoder.model(input_ids=ids, attention_mask=mask.long(), position_ids=places).logits
        assert_close(decoder.logits(hidden), expected, atol=1e-5, rtol=0)
        assert 0.01 < decoder.logits(hidden).abs().max() <= 0.5
        assert decoder.logits(hidden[mask]).shape == (int(mask.sum()), 64)
    assert dict(decoder.model.named_modules()) == modules
