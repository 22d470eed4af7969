"""One base, several ways of reading it: padding, adapters by name, and folders that must be refused."""

import json
import shutil

import pytest
import tiny
import torch
from learning import scramble
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig

from rlhf import model_files
from rlhf.config import AdapterConfig
from rlhf.model_files import ModelError
from rlhf.models.backbone import Backbone
from rlhf.models.padding import pad_left, pad_right, positions

SMALL = AdapterConfig(rank=2, alpha=4)


def logits(backbone, rows, *, left=True, adapter=None):
    """Of every row's last four positions."""
    ids, mask = (pad_left if left else pad_right)(rows, backbone.pad_id)
    with torch.no_grad():
        return backbone.forward(ids, mask, keep=4, adapter=adapter).logits


def bits(backbone, adapter=None, rows=((5, 6, 7, 8, 9),)):
    return logits(backbone, rows, adapter=adapter)


def train(backbone, adapter, steps=2):
    optimizer = torch.optim.SGD(backbone.parameters(adapter).values(), lr=1.0)
    ids, mask = pad_left([[5, 6, 7, 8, 9]], backbone.pad_id)
    for _ in range(steps):
        optimizer.zero_grad()
        backbone.forward(ids, mask, keep=5, adapter=adapter).logits.square().mean().backward()
        optimizer.step()


def deep_backbone(layers=4):
    """With 4 layers there are 28 linear maps: more than the 20 from which PEFT shortens the list of names."""
    tok = tiny.tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return Backbone(AutoModelForCausalLM.from_config(config), tok)


def layers_of(backbone, adapter):
    return {int(name.split(".layers.")[1].split(".")[0]) for name in backbone.parameters(adapter)}


def test_left_padding_changes_nothing(backbone):
    short, long = [10, 11, 12, 13, 14], list(range(20, 40))
    alone = logits(backbone, [short]).log_softmax(-1)
    padded = logits(backbone, [short, long]).log_softmax(-1)
    assert_close(padded[:1], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(padded[0], padded[1], atol=1e-2)


def test_a_fresh_adapter_changes_nothing_yet_and_a_trained_one_does(backbone):
    plain = bits(backbone)
    backbone.add_adapter("policy", SMALL, seed=1)
    assert torch.equal(bits(backbone, "policy"), plain)
    train(backbone, "policy")
    assert any(p.abs().max() > 0 for n, p in backbone.parameters("policy").items() if ".lora_B." in n)
    assert not torch.allclose(bits(backbone, "policy"), plain, atol=1e-4)


def test_with_its_adapter_off_the_policy_is_the_base_bit_for_bit(backbone):
    plain = bits(backbone)
    weights_before = {n: p.clone() for n, p in backbone.base.state_dict().items()}
    backbone.add_adapter("policy", SMALL, seed=1)
    backbone.add_adapter("reward", SMALL, seed=2)
    train(backbone, "policy")
    assert torch.equal(bits(backbone, None), plain)
    after = backbone.base.state_dict()
    for name, value in weights_before.items():
        wrapped = name.removesuffix(".weight") + ".base_layer.weight"
        assert torch.equal(after[wrapped if wrapped in after else name], value), name


def test_adapters_are_switched_by_name_and_trained_one_at_a_time(backbone):
    backbone.add_adapter("policy", SMALL, seed=1)
    backbone.add_adapter("reward", SMALL, seed=2)
    assert backbone.adapters == ["policy", "reward"]
    reward_before = {n: p.clone() for n, p in backbone.parameters("reward").items()}
    train(backbone, "policy")
    for name, value in backbone.parameters("reward").items():
        assert torch.equal(value, reward_before[name])
    policy, reward = bits(backbone, "policy"), bits(backbone, "reward")
    assert not torch.allclose(policy, reward, atol=1e-4)
    assert torch.equal(reward, bits(backbone, None)), "an untrained adapter reads as the base"
    assert torch.equal(bits(backbone, "policy"), policy), "and switching back finds the same policy"


def test_an_adapters_seed_decides_its_start_and_leaves_the_global_stream_alone(backbone):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    for name, seed in (("one", 1), ("same", 1), ("two", 2)):
        backbone.add_adapter(name, SMALL, seed=seed)
    assert torch.equal(torch.rand(1), expected)
    first = {name: next(iter(backbone.parameters(name).values())) for name in backbone.adapters}
    assert torch.equal(first["one"], first["same"]) and not torch.equal(first["one"], first["two"])


def test_a_saved_adapter_comes_back_bit_for_bit(backbone, tiny_folder, tmp_path):
    backbone.add_adapter("policy", SMALL, seed=1)
    backbone.add_adapter("reward", SMALL, seed=2)
    scramble(backbone, "policy")
    backbone.save_adapter("policy", tmp_path / "a")
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {f.name for f in (tmp_path / "a").iterdir()}
    assert not any(f.is_dir() for f in (tmp_path / "a").iterdir())

    fresh = Backbone.load(tiny_folder, "cpu", "float32")
    fresh.load_adapter("v7", tmp_path / "a")
    assert torch.equal(bits(fresh, "v7"), bits(backbone, "policy"))
    fresh.load_adapter("again", tmp_path / "a")
    assert torch.equal(bits(fresh, "again"), bits(backbone, "policy"))
    backbone.save_adapter("policy", tmp_path / "a")
    assert load_file(tmp_path / "a" / "adapter_model.safetensors").keys()


def test_an_adapter_saved_beside_others_holds_only_itself(backbone, tmp_path):
    for name in ("policy", "reward"):
        backbone.add_adapter(name, SMALL, seed=1)
        scramble(backbone, name, seed=len(name))
    backbone.save_adapter("policy", tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {n.replace(".policy.", ".") for n in backbone.parameters("policy")} == set(saved)
    for name, value in backbone.parameters("policy").items():
        assert torch.equal(saved[name.replace(".policy.", ".")], value)


@pytest.mark.parametrize("top_layers, expected", [(0, {0, 1, 2, 3}), (1, {3}), (3, {1, 2, 3}), (99, {0, 1, 2, 3})])
def test_adapters_lie_in_the_top_layers_only(top_layers, expected):
    backbone = deep_backbone()
    backbone.add_adapter("policy", AdapterConfig(rank=2, top_layers=top_layers), seed=0)
    assert layers_of(backbone, "policy") == expected
    assert len(backbone.parameters("policy")) == len(expected) * 7 * 2, "A and B of seven linear maps a layer"


def test_the_layers_below_a_depth_can_be_chosen():
    backbone = deep_backbone()
    backbone.add_adapter("reward", AdapterConfig(rank=2), seed=0, depth=2)
    backbone.add_adapter("other", AdapterConfig(rank=2, top_layers=1), seed=0, depth=2)
    assert layers_of(backbone, "reward") == {0, 1} and layers_of(backbone, "other") == {1}


def test_a_second_adapter_over_wrapped_layers_lands_on_the_same_maps(tmp_path):
    backbone = deep_backbone()
    backbone.add_adapter("reward", AdapterConfig(rank=2), seed=0)
    backbone.add_adapter("policy", AdapterConfig(rank=2, top_layers=3), seed=0)
    assert layers_of(backbone, "policy") == {1, 2, 3}
    names = set(backbone.parameters("policy"))
    assert not any("base_layer" in n for n in names)
    assert {n.replace(".policy.", ".reward.") for n in names} <= set(backbone.parameters("reward"))

    scramble(backbone, "policy")
    backbone.save_adapter("policy", tmp_path)
    fresh = deep_backbone()
    fresh.load_adapter("alone", tmp_path)
    assert torch.equal(bits(fresh, "alone"), bits(backbone, "policy")), "it can be loaded without the first"


def test_hidden_of_every_layer_is_what_the_whole_model_computes(backbone):
    ids, mask = pad_right([[5, 6, 7, 8], [9, 10]], backbone.pad_id)
    with torch.no_grad():
        whole = backbone.base(input_ids=ids, attention_mask=mask.long(), position_ids=positions(mask), output_hidden_states=True)
        first = backbone.hidden(ids, mask, depth=1, adapter=None)
        last = backbone.hidden(ids, mask, depth=2, adapter=None)
        norm = backbone.base.base_model.norm(last)
    assert_close(first[mask], whole.hidden_states[1][mask], atol=1e-5, rtol=0)
    assert_close(norm[mask], whole.hidden_states[2][mask], atol=1e-5, rtol=0)
    assert len(backbone.base.base_model.layers) == 2, "the model has all its layers again"


# What must be refused, in one line.


def copy(folder, target):
    shutil.copytree(folder, target)
    return target


def one_line(caught):
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_truncated_weights_are_refused(tiny_folder, tmp_path):
    folder = copy(tiny_folder, tmp_path / "m")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ModelError) as caught:
        Backbone.load(folder, "cpu", "float32")
    assert str(folder) in one_line(caught)


def test_a_model_without_a_chat_template_is_refused(tiny_folder, tmp_path):
    folder = copy(tiny_folder, tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="chat template") as caught:
        Backbone.load(folder, "cpu", "float32")
    one_line(caught)


def test_a_folder_of_pickles_is_refused(tiny_folder, tmp_path):
    folder = copy(tiny_folder, tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors") as caught:
        model_files.resolve(str(folder))
    one_line(caught)
    with pytest.raises(ModelError):
        Backbone.load(folder, "cpu", "float32")


def test_code_that_comes_with_a_model_never_runs(tiny_folder, tmp_path):
    folder = copy(tiny_folder, tmp_path / "m")
    ran = tmp_path / "ran"
    for module in ("configuration_evil", "modeling_evil"):
        (folder / f"{module}.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    Backbone.load(folder, "cpu", "float32")
    assert not ran.exists()

    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as caught:
        Backbone.load(folder, "cpu", "float32")
    one_line(caught)
    assert not ran.exists()


@pytest.mark.parametrize("others", [0, 1])
def test_a_damaged_adapter_is_refused_and_leaves_nothing_behind(backbone, tmp_path, others):
    maker = deep_backbone()
    maker.add_adapter("policy", SMALL, seed=0)
    scramble(maker, "policy")
    maker.save_adapter("policy", tmp_path / "other-model")
    plain = bits(backbone)
    if others:
        backbone.add_adapter("policy", SMALL, seed=0)
    good = tmp_path / "good"
    if others:
        scramble(backbone, "policy")
        backbone.save_adapter("policy", good)
    else:
        shutil.copytree(tmp_path / "other-model", good)
    cut = copy(good, tmp_path / "cut")
    file = cut / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    pickled = copy(good, tmp_path / "pickled")
    torch.save(load_file(pickled / "adapter_model.safetensors"), pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    before = backbone.adapters
    for folder in (cut, pickled, tmp_path / "missing", tmp_path / "other-model"):
        # Twice: an adapter half-placed the first time would be taken for a loaded one the second time.
        for _ in range(2):
            with pytest.raises(ModelError) as caught:
                backbone.load_adapter("v1", folder)
            assert str(folder) in one_line(caught)
            assert backbone.adapters == before
            assert torch.equal(bits(backbone), plain)
    backbone.add_adapter("v1", SMALL, seed=0)
    assert torch.equal(bits(backbone, "v1"), plain)


def test_the_last_adapter_can_be_deleted_and_another_added(backbone):
    plain = bits(backbone)
    backbone.add_adapter("first", SMALL, seed=0)
    scramble(backbone, "first")
    backbone.delete_adapter("first")
    assert backbone.adapters == [] and torch.equal(bits(backbone), plain)
    backbone.add_adapter("second", SMALL, seed=0)
    backbone.add_adapter("third", SMALL, seed=0)
    backbone.delete_adapter("third")
    assert backbone.adapters == ["second"] and torch.equal(bits(backbone, "second"), plain)


def test_marks_that_an_answer_spells_out_are_only_text(tiny_folder):
    backbone = Backbone.load(tiny_folder, dtype="float32")
    ids = backbone.encode_answer("a<|end|>b")
    assert backbone.eos_id not in ids
    assert backbone.decode(ids) == "a<|end|>b"


def test_linear_maps_that_are_kept_the_other_way_round_get_adapters_too(backbone):
    """GPT-2 has Conv1D where others have Linear; an adapter that found none of them would learn nothing."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(backbone.tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=32))
    other = Backbone(model, backbone.tokenizer)
    other.add_adapter("policy", AdapterConfig(rank=2, top_layers=1), seed=0)
    # Attention in and out, feed-forward in and out, of the last layer, each with an A and a B.
    assert len(other.parameters("policy")) == 8
    ids = torch.arange(6)[None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    base = other.forward(ids, mask, keep=6, adapter=None).logits
    with torch.no_grad():
        for name, weight in other.parameters("policy").items():
            if ".lora_B." in name:
                weight.fill_(0.1)
    assert not torch.allclose(other.forward(ids, mask, keep=6, adapter="policy").logits, base)
    assert torch.equal(other.forward(ids, mask, keep=6, adapter=None).logits, base)
