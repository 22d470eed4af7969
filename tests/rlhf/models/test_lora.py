"""LoRA in fewer passes: the function and the gradients are PEFT's own."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import nn
from torch.testing import assert_close

from rlhf.config import AdapterConfig
from rlhf.generation.engine import GenerationEngine, requests_for
from rlhf.generation.recording import RolloutRecorder
from rlhf.models.backbone import Backbone
from rlhf.models.lora import FusedLinear, RowAdapters, use_row_adapters
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
    """Sampling casts A and B once for each rollout; a fused optimiser changes them without a trace that could be looked for."""
    backbone = Backbone.load(tiny_folder, "cpu", "bfloat16")
    backbone.add_adapter("policy", AdapterConfig(rank=4), seed=0)
    optimizer = torch.optim.AdamW(backbone.parameters("policy").values(), lr=0.05, fused=True)
    ids = torch.arange(8)[None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    hidden = []
    for _ in range(3):
        recorder = RolloutRecorder(backbone, [8], 2)
        requests = requests_for(ids.tolist(), Sampling(temperature=1.0, max_new_tokens=2), 1, adapter="policy")
        GenerationEngine(backbone).run(requests, recorder=recorder)
        learned = backbone.decoder.forward(ids, mask, positions=ids, adapter="policy")
        assert_close(recorder.hidden[0, 0], learned[0, -1].detach(), rtol=0, atol=0)
        hidden.append(recorder.hidden[0, 0].clone())
        learned.float().pow(2).sum().backward()
        optimizer.step()
    assert not torch.equal(hidden[1], hidden[2])


def rows_of(names, index, weights):
    return use_row_adapters(RowAdapters(names, torch.tensor(index), weights))


def test_each_row_has_its_own_adapter():
    """Two adapters of different rank, and a row of the base: each row is what PEFT computes for it alone."""
    model = made(fused=True)
    model.add_adapter("other", LoraConfig(r=3, lora_alpha=5, target_modules=["0", "2"]))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data.normal_()
    x = torch.randn(4, 2, 5)
    with torch.no_grad():
        with rows_of(["default", "other"], [1, -1, 0, 1], {}):
            together = model(x)
        for row, adapter in enumerate(["other", None, "default", "other"]):
            if adapter is None:
                with model.disable_adapter():
                    alone = model(x[row])
            else:
                model.set_adapter(adapter)
                alone = model(x[row])
            assert_close(together[row], alone, atol=1e-5, rtol=1e-5)
        with rows_of(["other"], [0] * 4, {}):
            assert_close(model(x)[0], together[0], atol=1e-5, rtol=1e-5)


def test_an_adapter_that_a_layer_does_not_have_adds_nothing_there():
    model = made(fused=True)
    model.add_adapter("top", LoraConfig(r=2, target_modules=["2"], init_lora_weights=False))
    x = torch.randn(1, 5)
    with torch.no_grad():
        with rows_of(["top"], [0], {}):
            routed = model(x)
        model.set_adapter("top")
        assert_close(routed, model(x), atol=1e-5, rtol=1e-5)


def test_concatenated_weights_are_taken_until_their_owner_drops_them():
    model = made(fused=True)
    x, weights = torch.ones(1, 5), {}
    with torch.no_grad():
        with rows_of(["default"], [0], weights):
            before = model(x)
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.zero_()
        with rows_of(["default"], [0], weights):
            assert torch.equal(model(x), before)
        with rows_of(["default"], [0], {}):
            assert not torch.equal(model(x), before)
