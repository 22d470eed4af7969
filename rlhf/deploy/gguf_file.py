"""Writes a merged model as one GGUF file, which llama.cpp and the programs built on it read.

Of architectures, Llama, Mistral and Qwen2 are written, of tokenizers byte-level BPE; everything else is refused by name, because a file
that is nearly right answers nonsense. Names and layouts are those of the GGUF specification in the repository of ggml.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from safetensors.numpy import load_file

from rlhf.safe_files import ModelError, read_json

GgufWeights = Literal["f16", "q4_1"]

ARCHITECTURES: Mapping[str, str] = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""What GGUF calls each of transformers' model types that is written."""

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS: Mapping[str, str] = {_LETTERS + r"\p{N}{1,3}" + _REST: "llama-bpe", _LETTERS + r"\p{N}" + _REST: "qwen2"}
"""llama.cpp's name for the regular expression by which a tokenizer splits a text before BPE."""


def refusal(folder: Path) -> str:
    """Why the model in the folder cannot be written as GGUF, in one sentence; empty where it can."""
    config = read_json(folder / "config.json")
    if (kind := config.get("model_type")) not in ARCHITECTURES:
        return f"models of type {kind} are not written as GGUF, only {', '.join(ARCHITECTURES)}"
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        return f"its rope scaling ({rope.get('rope_type')}) is not written as GGUF"
    if not (folder / "tokenizer.json").is_file():
        return "it has no tokenizer.json, from which the vocabulary is written"
    tokenizer = read_json(folder / "tokenizer.json")
    if not pre_tokenizer(tokenizer):
        return "its tokenizer is not a byte-level BPE that llama.cpp has a name for"
    if not tokenizer["model"].get("merges"):
        return "its tokenizer has no merges, and llama.cpp reads none without"
    return ""


def pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name for how the tokenizer splits a text before BPE; empty where it has none."""
    if tokenizer.get("model", {}).get("type") != "BPE" or tokenizer["model"].get("byte_fallback"):
        return ""
    split = tokenizer.get("pre_tokenizer") or {}
    parts = split.get("pretokenizers", [split])
    kinds = [part.get("type") for part in parts]
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        return SPLITS.get(parts[0].get("pattern", {}).get("Regex", ""), "")
    return ""


def write(folder: Path, file: Path, weights: GgufWeights, *, name: str, licence: str, progress: Callable[[float], None]) -> None:
    """Writes the merged model of a folder as one file.

    Args:
        folder: a model in Hugging Face's format.
        weights: `f16`, or `q4_1` for matrices in blocks of 4 bits, with embeddings in 8.
        progress: called with the fraction of the tensors that are written.

    Raises:
        ModelError: `refusal` says why.
    """
    if reason := refusal(folder):
        raise ModelError(f"{name}: {reason}. Export it as hf and convert that with llama.cpp's convert_hf_to_gguf.py.")
    config = read_json(folder / "config.json")
    writer = gguf.GGUFWriter(str(file), ARCHITECTURES[config["model_type"]])
    try:
        _add_sizes(writer, config, weights, name, licence)
        _add_tokenizer(writer, folder, config)
        _add_tensors(writer, folder, config, weights, progress)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add_sizes(writer: gguf.GGUFWriter, config: Mapping[str, Any], weights: GgufWeights, name: str, licence: str) -> None:
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_name(name)
    writer.add_license(licence)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base((config.get("rope_parameters") or config).get("rope_theta", 10_000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(LlamaFileType.MOSTLY_F16 if weights == "f16" else LlamaFileType.MOSTLY_Q4_1)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: Mapping[str, Any]) -> None:
    tokenizer = read_json(folder / "tokenizer.json")
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    tokens = [f"[PAD{i}]" for i in range(config["vocab_size"])]
    types = [TokenType.UNUSED] * len(tokens)
    for token, at in vocabulary.items():
        tokens[at], types[at] = token, TokenType.NORMAL
    for added in tokenizer.get("added_tokens", ()):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    # As pairs, or as two words in one text, by the version of tokenizers that wrote the file.
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    ends = config.get("eos_token_id")
    for add, ids in (
        (writer.add_bos_token_id, config.get("bos_token_id")),
        (writer.add_eos_token_id, ends),
        (writer.add_pad_token_id, config.get("pad_token_id")),
    ):
        # GGUF has one of each; llama.cpp finds further end tokens by their names.
        first = ids[0] if isinstance(ids, list) and ids else ids
        if isinstance(first, int):
            add(first)
    # The chat template writes what stands before the first token.
    writer.add_add_bos_token(False)
    if (template := folder / "chat_template.jinja").is_file():
        writer.add_chat_template(template.read_text(encoding="utf-8"))
    elif isinstance(found := json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template"), str):
        writer.add_chat_template(found)


def _add_tensors(
    writer: gguf.GGUFWriter, folder: Path, config: Mapping[str, Any], weights: GgufWeights, progress: Callable[[float], None]
) -> None:
    architecture = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[ARCHITECTURES[config["model_type"]]]
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    files = sorted(folder.glob("*.safetensors"))
    for at, file in enumerate(files):
        tensors = load_file(file)
        for done, (key, values) in enumerate(tensors.items(), 1):
            name = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise ModelError(f"{folder}: GGUF has no place for {key}")
            _add_tensor(writer, name, _layout(key, values, config), weights)
            progress((at + done / len(tensors)) / len(files))


def _layout(key: str, values: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """The values in llama.cpp's order: in Llama the two halves of each head's rotation lie beside each other there."""
    if ARCHITECTURES[config["model_type"]] != "llama" or not (".q_proj." in key or ".k_proj." in key):
        return values
    heads = config["num_attention_heads"] if ".q_proj." in key else config.get("num_key_value_heads") or config["num_attention_heads"]
    return values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _add_tensor(writer: gguf.GGUFWriter, name: str, values: np.ndarray, weights: GgufWeights) -> None:
    values = values.astype(np.float32)
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return
    kind = GGMLQuantizationType.F16
    if weights == "q4_1" and values.shape[-1] % 32 == 0:
        # The embeddings are the head too in small models, where 4 bits would cost most.
        kind = GGMLQuantizationType.Q8_0 if name in ("token_embd.weight", "output.weight") else GGMLQuantizationType.Q4_1
    writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
