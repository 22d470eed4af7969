"""Looks at the files of a model or an adapter before any library reads them. No torch here.

A folder from elsewhere may name files that run code when they are read (pickle), files outside of it, another base model, or a
module to import. What is here decides from the JSON beside the weights and from the file system; it reads no weights.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST_JSON = 64 << 20
"""Bytes of a JSON file beside the weights; the index of a model of a trillion parameters has a tenth of it."""

LARGEST_RANK = 4096
"""Of an adapter, and the most vectors of a learned prompt."""


class ModelError(Exception):
    """A model cannot be had; the message is one line with cause and remedy."""


def check_base(folder: Path) -> None:
    """Whether a folder can be read as a base model with nothing run and nothing read from elsewhere.

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
        # One name stands for thousands of weights.
        for name in set(map(_hashable, shards.values())):
            check_name(name, folder, (".safetensors",), index.name)


def _hashable(name: Any) -> Any:
    return name if isinstance(name, str) else repr(name)


def check_name(name: Any, folder: Path, endings: tuple[str, ...], where: str) -> None:
    """Whether a file that is named inside another one is of the right kind, there, and in this folder itself."""
    if not isinstance(name, str) or not name.endswith(endings):
        raise ModelError(
            f"{folder}: {where} names {_short(name)}, which is no safetensors file. Other formats can run code when read: "
            "convert them first."
        )
    if name != Path(name).name:
        raise ModelError(f"{folder}: {where} names {_short(name)}, which is not in this folder. Put the file there and name it alone.")
    if not (folder / name).is_file():
        raise ModelError(f"{folder}: {where} names {_short(name)}, which is missing. Fetch it again.")
    check_file(folder / name, folder)


def _short(name: Any) -> str:
    text = repr(name)
    return text if len(text) <= 100 else f"{text[:100]}..."


def check_file(file: Path, folder: Path) -> None:
    """Whether a file is one, or a folder, and lies where its name says; links may lead within the folder.

    The hub's cache is made of links from `snapshots/REVISION/` into `blobs/`, so these are fine.
    """
    home = folder.resolve()
    allowed = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    try:
        found = file.resolve(strict=True)
        mode = found.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{file}: cannot be looked at ({type(error).__name__}). Fetch it again.") from error
    if not any(found.is_relative_to(root) for root in allowed):
        raise ModelError(f"{file}: is a link to {found}, outside of its folder. Put the file itself there.")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ModelError(f"{file}: is neither a file nor a folder. Take it away.")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object of bounded size.

    Raises:
        ModelError: it is missing, too long, or something else.
    """
    try:
        if (size := file.stat().st_size) > LONGEST_JSON:
            raise ModelError(f"{file}: has {size:,} bytes, of which {LONGEST_JSON:,} are read. This is no such file: fetch it again.")
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({type(error).__name__}). Fetch it again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file}: is no JSON object. Fetch it again.")
    return found


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_RANK


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 1 << 20


def _scale(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _names(value: Any) -> bool:
    # A list and no text: PEFT takes a text for a regular expression.
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
"""The kinds of adapter that a round makes, and which of PEFT's fields tell them apart; each with what it may be."""

SAYS_ONLY = ("peft_type", "peft_version", "base_model_name_or_path", "revision")
"""Fields that are not followed: the base is the one that stands here."""

DOES_NOTHING = {
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
"""Values of other fields that change nothing; so do null, false and what is empty."""


def adapter_fields(folder: Path) -> dict[str, Any]:
    """`peft_type` and the fields that make up an adapter, each checked, from its `adapter_config.json`.

    PEFT knows fields that import a module, load another model with its code, or copy layers of the base: none is let through.

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
        fine = known[field](value) if field in known else field in SAYS_ONLY or not value or DOES_NOTHING.get(field) == value
        if not fine:
            raise ModelError(f"{folder}: adapter_config.json has {_short(field)}: {_short(value)}, which no round writes")
    return {"peft_type": kind, **{field: config[field] for field in known if field in config}}
