"""Reading in parts and with a cache is reading whole, in every architecture that has a list of decoder layers."""

import pytest
import torch
import transformers
from torch.testing import assert_close

from rlhf.models.decoder import BatchKVCache, CachedHidden, Decoder

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
CONFIGS = {
    "Llama": (transformers.LlamaConfig, SIZES),
    "GPT2": (transformers.GPT2Config, {"vocab_size": 64, "n_embd": 32, "n_layer": 4, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}),
    "Gemma3": (transformers.Gemma3TextConfig, SIZES | {"head_dim": 8, "num_key_value_heads": 2, "sliding_window": 4}),
    "GPTNeoX": (transformers.GPTNeoXConfig, SIZES),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_and_steps_make_the_whole(name):
    kind, sizes = CONFIGS[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(kind(**sizes)).eval()
    decoder = Decoder(model)
    assert decoder.supports_partial_forward
    ids = torch.randint(1, 64, (3, 6))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :2] = False
    places = (mask.long().cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        whole = decoder.forward(ids, mask, positions=places, adapter=None)
        below = decoder.forward_lower(ids, mask, positions=places, depth=3, adapter=None)
        assert not torch.allclose(below, decoder.forward_lower(ids, mask, positions=places, depth=2, adapter=None))
        assert_close(
            decoder.forward_upper(CachedHidden(3, below), ids, mask, positions=places, adapter=None)[mask], whole[mask], atol=1e-5, rtol=0
        )

        rows, kept = BatchKVCache(model.config, 6), torch.tensor([2, 0])
        decoder.forward(ids[:, :4], mask[:, :4], positions=places[:, :4], cache=rows.cache, adapter=None)
        rows.select(kept)
        for t in (4, 5):
            now = slice(t, t + 1)
            step = decoder.forward(ids[kept, now], mask[kept, : t + 1], positions=places[kept, now], cache=rows.cache, adapter=None)
            assert_close(step[:, 0], whole[kept, t], atol=1e-5, rtol=0)
