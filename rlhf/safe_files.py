"""Checks the files of a model or an adapter before any library reads them. No torch here.

A downloaded folder may name files that run code when read (pickle), files outside of the folder, another base model, or a
module to import. The checks read the JSON files and the file system, not the weights.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 64 << 20
"""Bytes of a JSON file beside the weights; the index of a model with a trillion parameters is a tenth as large."""

MAX_RANK = 4096
"""Largest rank of an adapter, and largest number of vectors of a learned prompt."""


class ModelError(Exception):
    """A model cannot be loaded; the message is one line with cause and remedy."""


def check_base(folder: Path) -> None:
    """Checks that the folder can be read as a base model without running code or reading files outside of it.

    Raises:
        ModelError: it is an adapter, names weights that are not safetensors inside it, or has links that lead out of it.
    """
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder}: holds an adapter_config.json, so another base would be read in its place. Name a folder with a base model."
        )
    for file in folder.iterdir():
        check_file(file, folder)
    named = read_json(folder / "config.json").get("transformers_weights")
    indexes = set(folder.glob("*.safetensors.index.json"))
    if named is not None:
        check_name(named, folder, (".safetensors", ".safetensors.index.json"), "config.json")
        indexes |= {folder / named} if named.endswith(".json") else set()
    for index in sorted(indexes):
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise ModelError(f"{index}: has no weight_map. Fetch it again.")
        # Thousands of weights share a few file names.
        for name in set(map(_hashable, shards.values())):
            check_name(name, folder, (".safetensors",), index.name)


def _hashable(name: Any) -> Any:
    return name if isinstance(name, str) else repr(name)


def check_name(name: Any, folder: Path, endings: tuple[str, ...], where: str) -> None:
    """Checks that a file name found in another file is that of an existing file in this folder, with one of the endings."""
    if not isinstance(name, str) or not name.endswith(endings):
        raise ModelError(
            f"{folder}: {where} names {_short(name)}, which is no safetensors file. Other formats can run code when read: "
            "convert them first."
        )
    if name != Path(name).name:
        raise ModelError(f"{folder}: {where} names {_short(name)}, which is not in this folder. Copy it there and use its bare name.")
    if not (folder / name).is_file():
        raise ModelError(f"{folder}: {where} names {_short(name)}, which is missing. Fetch it again.")
    check_file(folder / name, folder)


def _short(name: Any) -> str:
    text = repr(name)
    return text if len(text) <= 100 else f"{text[:100]}..."


def check_file(file: Path, folder: Path) -> None:
    """Checks that the path is a file or a folder, and no link that leads out of the folder.

    Links from `snapshots/REVISION/` into `blobs/` are allowed: the hub's cache consists of them.
    """
    root_folder = folder.resolve()
    allowed = [root_folder, *([root_folder.parent.parent / "blobs"] if root_folder.parent.name == "snapshots" else [])]
    try:
        target = file.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{file}: cannot be looked at ({type(error).__name__}). Fetch it again.") from error
    if not any(target.is_relative_to(root) for root in allowed):
        raise ModelError(f"{file}: is a link to {target}, outside of its folder. Copy the file into the folder.")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ModelError(f"{file}: is neither a file nor a folder. Remove it.")


def read_json(file: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A JSON object of bounded size.

    Raises:
        ModelError: it is missing, too long, or something else.
    """
    try:
        if (size := file.stat().st_size) > max_bytes:
            raise ModelError(f"{file}: has {size:,} bytes, more than the limit of {max_bytes:,}. Fetch it again.")
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({type(error).__name__}). Fetch it again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: is no JSON object. Fetch it again.")
    return content


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_RANK


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 1 << 20


def _scale(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _names(value: Any) -> bool:
    # A list, not a string: PEFT takes a string for a regular expression.
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _one_of(*allowed: Any) -> Callable[[Any], bool]:
    return lambda value: value in allowed


_MODULES = {"target_modules": _names, "inference_mode": _flag, "task_type": _one_of("CAUSAL_LM")}

ADAPTER_FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "LORA": {
        **_MODULES,
        "r": _size,
        "lora_alpha": _scale,
        "use_rslora": _flag,
        "use_dora": _flag,
        "fan_in_fan_out": _flag,
        "lora_dropout": _one_of(0),
    },
    "IA3": {**_MODULES, "feedforward_modules": _names, "fan_in_fan_out": _flag},
    "PEANUT": {**_MODULES, "r": _size, "scaling": _scale},
    "PROMPT_TUNING": {
        "inference_mode": _flag,
        "task_type": _one_of("CAUSAL_LM"),
        "num_virtual_tokens": _size,
        "token_dim": _count,
        "num_layers": _count,
        "num_attention_heads": _count,
        "num_transformer_submodules": _one_of(1),
        "prompt_tuning_init": _one_of("RANDOM", "SAMPLE_VOCAB"),
    },
}
"""For each kind of adapter that a round makes, PEFT's fields that define it, each with a check of its value."""

IGNORED_ADAPTER_FIELDS = ("peft_type", "peft_version", "base_model_name_or_path", "revision")
"""Fields that are ignored, because the run determines the base model."""

NO_EFFECT = {
    "bias": "none",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "init_ia3_weights": True,
    "init_weights": True,
    "act_fn": "relu",
    "depth": 0,
    "lora_bias": False,
}
"""Values of other fields that have no effect, like null, false and empty values."""


def adapter_fields(folder: Path) -> dict[str, Any]:
    """`peft_type` and the fields that make up an adapter, each checked, from its `adapter_config.json`.

    PEFT has fields that import a module, load another model with its code, or copy layers of the base: these are refused.

    Raises:
        ModelError: a file is missing or lies elsewhere, or a field is not one that a round writes.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing")
        check_file(folder / name, folder)
    config = read_json(folder / "adapter_config.json")
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in ADAPTER_FIELDS:
        raise ModelError(f"{folder}: adapters of type {_short(kind)} are not read here, only {', '.join(ADAPTER_FIELDS)}")
    known = ADAPTER_FIELDS[kind]
    for field, value in config.items():
        allowed_value = (
            known[field](value) if field in known else field in IGNORED_ADAPTER_FIELDS or not value or NO_EFFECT.get(field) == value
        )
        if not allowed_value:
            raise ModelError(f"{folder}: adapter_config.json has {_short(field)}: {_short(value)}, which no round writes")
    return {"peft_type": kind, **{field: config[field] for field in known if field in config}}
