"""One GGUF file: what it holds, read by gguf's own reader, and what is refused."""

import json
import shutil

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from rlhf.deploy import gguf_file
from rlhf.safe_files import ModelError


def written(folder, tmp_path, weights="f16"):
    file = tmp_path / f"{weights}.gguf"
    done = []
    gguf_file.write(folder, file, weights, name="tuned", licence="apache-2.0", progress=done.append)
    assert done[-1] == 1.0
    return gguf.GGUFReader(file)


def field(reader, name):
    return reader.fields[name].contents()


def test_tokenizer_sizes_and_tensors_are_those_of_the_model(tiny_folder, tmp_path):
    reader = written(tiny_folder, tmp_path)
    config = json.loads((tiny_folder / "config.json").read_text())
    assert field(reader, "general.architecture") == "llama" and field(reader, "general.license") == "apache-2.0"
    assert field(reader, "llama.block_count") == config["num_hidden_layers"]
    assert field(reader, "llama.attention.head_count_kv") == config["num_key_value_heads"]
    assert field(reader, "tokenizer.ggml.pre") == "gpt-2" and "<|assistant|>" in field(reader, "tokenizer.chat_template")
    tokens, types = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.token_type")
    end = config["eos_token_id"]
    assert (tokens[end], types[end]) == ("<|end|>", gguf.TokenType.CONTROL) and field(reader, "tokenizer.ggml.eos_token_id") == end
    assert len(tokens) == config["vocab_size"] and types[0] == gguf.TokenType.NORMAL
    weights = load_file(tiny_folder / "model.safetensors")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == len(weights)
    np.testing.assert_allclose(tensors["blk.1.ffn_down.weight"].data, weights["model.layers.1.mlp.down_proj.weight"], atol=1e-3)


def test_the_halves_of_a_rotated_head_lie_beside_each_other(tiny_folder, tmp_path):
    """Row 0 and row 4 of a head of 8 rotate together: in llama.cpp's order they are rows 0 and 1."""
    reader = written(tiny_folder, tmp_path)
    found = next(tensor.data for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    rows = load_file(tiny_folder / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    np.testing.assert_allclose(found[:4], rows[[0, 4, 1, 5]], atol=1e-3)


def test_four_bits_are_a_quarter_and_near(tiny_folder, tmp_path):
    reader = written(tiny_folder, tmp_path, "q4_1")
    tensor = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.ffn_up.weight")
    assert tensor.tensor_type == gguf.GGMLQuantizationType.Q4_1
    weight = load_file(tiny_folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    # A block of 32 has 16 steps between its smallest and its largest value: no value is further off than one of them.
    blocks = weight.reshape(-1, 32)
    off = np.abs(gguf.dequantize(tensor.data, tensor.tensor_type).reshape(-1, 32) - blocks).max(axis=1)
    assert (off <= (blocks.max(axis=1) - blocks.min(axis=1)) / 15 + 1e-3).all()


@pytest.mark.parametrize(
    "file, change, said",
    [
        ("config.json", {"model_type": "gpt_neox"}, "models of type gpt_neox"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope scaling .yarn."),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Metaspace"}}, "not a byte-level BPE"),
        ("tokenizer.json", {"model": {"type": "Unigram", "vocab": []}}, "not a byte-level BPE"),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {}, "merges": []}}, "no merges, and llama.cpp reads none"),
    ],
)
def test_what_is_not_written_is_refused_by_name(tiny_folder, tmp_path, file, change, said):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    with pytest.raises(ModelError, match=said):
        written(folder, tmp_path)
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize(
    "split, name",
    [
        ({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}]}, "smollm"),
        ({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, {"type": "ByteLevel"}]}, ""),
        ({"type": "ByteLevel"}, "gpt-2"),
        ({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "."}}, {"type": "ByteLevel"}]}, ""),
    ],
)
def test_the_split_of_a_tokenizer_has_llama_cpps_name(split, name):
    assert gguf_file.pre_tokenizer({"model": {"type": "BPE"}, "pre_tokenizer": split}) == name
