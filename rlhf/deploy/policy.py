"""The policy that is exported: loaded in float32, asked for its greedy answers, and merged into weights of its own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from rlhf import model_files
from rlhf.generation.engine import sample
from rlhf.models.backbone import Backbone
from rlhf.models.padding import pad_right, positions
from rlhf.runs import run_files
from rlhf.safe_files import ModelError
from storage.content import policies
from storage.core.database import Database
from storage.core.records import Message, PolicyVersion, Sampling

ADAPTER = "policy"

ANSWER_TOKENS = 24
"""Longest greedy answer that is compared."""


class LoadedPolicy(NamedTuple):
    backbone: Backbone
    adapter: str | None
    """None for a base."""
    base_folder: Path


def load(store: Database, version: PolicyVersion) -> LoadedPolicy:
    """The version in float32 on the CPU, as it was trained but for rounding.

    Raises:
        ModelError: the base or the adapter cannot be read.
        StoreError: the adapter lies outside of the data folder.
    """
    folder = model_files.resolve(version.base_model)
    backbone = Backbone.load(folder, "cpu", "float32")
    adapter_folder = policies.adapter_folder(store, version)
    if adapter_folder is None:
        return LoadedPolicy(backbone, None, folder)
    backbone.load_adapter(ADAPTER, adapter_folder)
    return LoadedPolicy(backbone, ADAPTER, folder)


def write_reference(policy: LoadedPolicy, prompts: Sequence[Sequence[Message]], file: Path) -> None:
    """Writes the policy's greedy answers to the prompts, with its logits before each token, as `runtimes/check.py` reads them."""
    backbone, adapter = policy.backbone, policy.adapter
    asked = [backbone.encode(messages) for messages in prompts]
    answers = [
        answer.ids for answer in sample(backbone, asked, Sampling(temperature=0.0, max_new_tokens=ANSWER_TOKENS), 0, adapter=adapter)
    ]
    arrays: dict[str, np.ndarray] = {"prompts": np.array(len(asked))}
    with torch.inference_mode():
        for at, (prompt, answer) in enumerate(zip(asked, answers, strict=True)):
            ids, mask = pad_right([[*prompt, *answer]], 0)
            hidden = backbone.decoder.forward(ids, mask, positions=positions(mask), adapter=adapter)
            before = hidden[0, -len(answer) - 1 : -1]
            arrays |= {f"prompt_{at}": np.array(prompt), f"answer_{at}": np.array(answer)}
            arrays[f"logits_{at}"] = backbone.decoder.logits(before).float().numpy()
    np.savez(file, allow_pickle=False, **arrays)


def merged(policy: LoadedPolicy) -> PreTrainedModel:
    """The base with the adapter's weights added to its own. The policy must not be used afterwards.

    Raises:
        ModelError: the adapter has no weights that could be added, as a learned prompt.
    """
    if policy.adapter is None:
        base: PreTrainedModel = policy.backbone.base
        return base
    return policy.backbone.merge_adapter(policy.adapter)


def write_hf(policy: LoadedPolicy, weights: str, out: Path) -> None:
    """Writes the merged model with its tokenizer, chat template and generation config."""
    model: Any = merged(policy)
    model.to(dtype=getattr(torch, weights))
    # A module that was loaded from elsewhere names its folder, which is nobody's business.
    model.config._name_or_path = ""
    model.save_pretrained(out, max_shard_size="4GB")
    policy.backbone.tokenizer.save_pretrained(out)
    # What save_pretrained does not write, such as a template in a file of its own.
    for name in ("chat_template.jinja", "generation_config.json"):
        if (policy.base_folder / name).is_file() and not (out / name).exists():
            shutil.copyfile(policy.base_folder / name, out / name)


def write_peft(store: Database, version: PolicyVersion, out: Path) -> None:
    """Copies the adapter's two files; its config names the base by its id on the hub, where it has one.

    Raises:
        ModelError: the version has no adapter.
    """
    folder = policies.adapter_folder(store, version)
    if folder is None:
        raise ModelError(f"{version.name} has no adapter: export it as hf")
    shutil.copyfile(folder / "adapter_model.safetensors", out / "adapter_model.safetensors")
    (out / "adapter_config.json").write_text(run_files.config_for_elsewhere(folder, version.base_model), encoding="utf-8")
