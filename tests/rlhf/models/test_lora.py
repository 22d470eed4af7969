"""LoRA in fewer passes: the function and the gradients are PEFT's own."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import nn
from torch.testing import assert_close

from rlhf.config import AdapterConfig
from rlhf.generation.sampling import generator, stream
from rlhf.models.backbone import Backbone
from rlhf.models.lora import FusedLinear, cast_weight_cache
from storage.core.records import Sampling


def made(fused: bool) -> nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["0", "2"])
    if fused:
        config._register_custom_module({nn.Linear: FusedLinear})
    model = get_peft_model(nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4, bias=False)), config)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=rng))
    return model


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 5)])
def test_values_and_gradients_are_pefts(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    found = []
    for fused in (True, False):
        model = made(fused)
        assert {type(m) for m in model.modules() if isinstance(m, Linear)} == {FusedLinear if fused else Linear}
        given = x.clone().requires_grad_()
        out = model(given)
        out.square().sum().backward()
        learned = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found.append((out, given.grad, learned))
    assert all(".lora_" in name for name in found[0][2]) and len(found[0][2]) == 4
    assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_without_the_adapter_it_is_the_base():
    model, x = made(True), torch.ones(1, 5)
    with model.disable_adapter():
        assert_close(model(x), made(False).get_base_model()[2].base_layer(torch.tanh(model.get_base_model()[0].base_layer(x))))


def test_a_rollout_after_an_update_reads_the_new_weights(tiny_folder):
    """Sampling rounds A and B once a rollout; a fused optimiser changes them without a trace that could be looked for."""
    backbone = Backbone.load(tiny_folder, "cpu", "bfloat16")
    backbone.add_adapter("policy", AdapterConfig(rank=4), seed=0)
    optimizer = torch.optim.AdamW(backbone.parameters("policy").values(), lr=0.05, fused=True)
    ids = torch.arange(8)[None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    drawn = Sampling(temperature=1.0, max_new_tokens=2)
    stats = []
    for _ in range(3):
        rng = generator(torch.device("cpu"), 1)
        steps = list(stream(backbone, ids.tolist(), drawn, rng, adapter="policy", return_stats=True))
        learned = backbone.decoder.forward(ids, mask, positions=ids, adapter="policy")
        assert_close(steps[0].stats.hidden[0], learned[0, -1].detach(), rtol=0, atol=0)
        stats.append(steps[0].stats.hidden)
        learned.float().pow(2).sum().backward()
        optimizer.step()
    assert not torch.equal(stats[1], stats[2])


def test_what_is_held_is_read_until_it_is_let_go():
    model = made(fused=True)
    x, kept = torch.ones(1, 5), {}
    with torch.no_grad():
        with cast_weight_cache(kept):
            before = model(x)
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.zero_()
        with cast_weight_cache(kept):
            assert torch.equal(model(x), before)
        with cast_weight_cache({}):
            assert not torch.equal(model(x), before)
        assert not torch.equal(model(x), before)
