"""Adapters by name over one frozen base: adding, loading and saving them, and the one that a forward pass reads through.

The adapter is an argument of each pass (`Decoder.forward`), which holds `Adapters.applied` while it runs. Leaves out what PEFT
knows of one type (`adapter_group`) and how a kind is described to it (`adapter_kinds`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from peft import LoraConfig, PeftConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.config import AdapterConfig
from rlhf.models.adapter_group import AdapterGroup
from rlhf.models.adapter_kinds import linear_names, peft_config
from rlhf.models.lora import CastWeights, FusedLinear, RowAdapters, use_row_adapters
from rlhf.safe_files import ModelError, adapter_fields, check_file

ADAPTER_UNSET = ""
"""In place of an adapter's name: what PEFT has active is not known, and must be set before the next forward pass."""

AdapterChoice = str | RowAdapters | None
"""What a forward pass reads through: the adapter of that name, the base alone, or an adapter for each row of the batch."""


class Adapters:
    """The adapters of one base. Forward passes through one adapter may run side by side; another one waits until they have ended."""

    def __init__(self, base: PreTrainedModel):
        self.base = base
        self.casts_at_once = base.device.type != "cpu"
        """Whether a pass with gradients casts an adapter's matrices for all layers together; on the CPU that would save nothing."""
        # The groups by PEFT's adapter type, and the one whose adapters are attached to the model now.
        self._groups: dict[str, AdapterGroup] = {}
        self._attached_group: AdapterGroup | None = None
        self._active: str | None = None
        # The threads whose passes run through `_active` now; PEFT's switches must not be touched under them.
        self._running: list[int] = []
        self._changed = threading.Condition()

    @property
    def names(self) -> list[str]:
        return [name for group in self._groups.values() for name in group.names]

    @contextmanager
    def applied(self, adapter: AdapterChoice) -> Iterator[Float[Tensor, "v d"] | None]:
        """Inside the block, passes of this thread read through the adapter. Yields the vectors that it puts before every row.

        Only a change of adapter costs time: PEFT's switches visit every module, which takes as long as sampling a token.

        Raises:
            KeyError: no adapter has that name.
        """
        if isinstance(adapter, RowAdapters):
            group = self._group_of(adapter.names[0]) if adapter.names else self._attached_group
            with self._pass(None, group), use_row_adapters(adapter):
                yield None
            return
        group = self._attached_group if adapter is None else self._group_of(adapter)
        with self._pass(adapter, group):
            yield None if adapter is None or group is None else group.prefix(adapter)

    @contextmanager
    def _pass(self, adapter: str | None, group: AdapterGroup | None) -> Iterator[None]:
        with self._changed:
            self._wait_for(lambda: (self._active, self._attached_group) == (adapter, group) or not self._running)
            self._attach(group)
            self._select(adapter)
            self._running.append(threading.get_ident())
        try:
            yield
        finally:
            with self._changed:
                self._running.remove(threading.get_ident())
                self._changed.notify_all()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Inside the block no pass runs."""
        with self._changed:
            self._wait_for(lambda: not self._running)
            yield

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        if threading.get_ident() in self._running and not condition():
            raise RuntimeError(f"a forward pass through the adapter {self._active} cannot change it before it has ended")
        self._changed.wait_for(condition)

    def _select(self, adapter: str | None) -> None:
        if adapter == self._active:
            return
        if self._attached_group is not None and not self._attached_group.is_prompt_learning:
            self._attached_group.select(adapter)
        self._active = adapter

    def _attach(self, group: AdapterGroup | None) -> None:
        """Attaches one group's adapters to the model and detaches the other group's."""
        if group is self._attached_group:
            return
        if self._attached_group is not None:
            self._attached_group.detach()
        if group is not None:
            group.attach()
        self._attached_group, self._active = group, ADAPTER_UNSET

    def _group_of(self, adapter: str) -> AdapterGroup:
        for group in self._groups.values():
            if adapter in group.names:
                return group
        raise KeyError(f"no adapter {adapter!r}; there are {', '.join(self.names) or 'none'}")

    def cast(self, adapter: AdapterChoice) -> CastWeights | None:
        """The adapter's matrices in the base's precision, for a pass with gradients on an accelerator; None elsewhere."""
        if not self.casts_at_once or not isinstance(adapter, str) or not torch.is_grad_enabled():
            return None
        layers = self.lora_layers([adapter])
        return CastWeights(layers, adapter, self.base.dtype) if layers else None

    def virtual_tokens(self, adapter: AdapterChoice) -> int:
        """How many learned vectors the adapter puts before every row."""
        # Rows with adapters of their own have none that is a learned prompt.
        prefix = self._group_of(adapter).prefix(adapter) if isinstance(adapter, str) else None
        return 0 if prefix is None else len(prefix)

    def is_routable(self, adapter: str) -> bool:
        """Whether rows with this adapter can share a batch with rows of other adapters: whether it is plain LoRA in every layer."""
        layers = [layer for _, _, layer in self._group_of(adapter).tuner_layers if adapter in getattr(layer, "lora_A", ())]
        return bool(layers) and all(isinstance(layer, FusedLinear) and layer.is_plain(adapter) for layer in layers)

    def lora_layers(self, adapters: Collection[str]) -> list[FusedLinear]:
        """The layers that may have weights of these adapters, all of which are plain LoRA."""
        groups = {id(group): group for group in map(self._group_of, adapters)}.values()
        return [layer for group in groups for _, _, layer in group.tuner_layers if isinstance(layer, FusedLinear)]

    # Adding, loading, saving.

    def add(self, name: str, config: AdapterConfig, layers: range, *, seed: int) -> None:
        """Adds a new adapter, whose weights have a gradient, on these decoder layers.

        The model's output is unchanged at first (LoRA starts with B = 0). Prompt tuning is the exception: its vectors start as
        the embeddings of tokens sampled from the vocabulary.
        """
        with torch.random.fork_rng(), self._exclusive():
            torch.manual_seed(seed)
            attached = self._attached_group
            self._attach(None)
            described = peft_config(self.base, config, layers)
            self._attach(attached)
            self._insert(name, described)
            self._group_of(name).set_trained(name, True)

    def _insert(self, name: str, config: PeftConfig) -> None:
        if isinstance(config, LoraConfig):
            # A new adapter and a loaded one must compute alike, so that a resumed run ends with the same bits.
            config._register_custom_module({torch.nn.Linear: FusedLinear})
        # PEFT sets it in every config of a concrete type.
        kind = cast(str, config.peft_type)
        group = self._groups.get(kind)
        self._attach(group)
        if group is None:
            self._attached_group = self._groups[kind] = AdapterGroup(self.base, config, name)
        else:
            group.add(name, config)
        self._active = ADAPTER_UNSET

    def load(self, name: str, folder: Path, device: torch.device) -> None:
        """Loads an adapter that `save` wrote; its weights have no gradient. If loading fails, no part of it stays in the model.

        Raises:
            ModelError: the folder is missing or damaged, or the adapter is for another model.
        """
        try:
            # PEFT's own loader is not used: it inserts an untrained adapter first, and falls back to pickle.
            fields = adapter_fields(folder)
            weights = load_file(folder / "adapter_model.safetensors", device=str(device))
            if bad_key := next((key for key, weight in weights.items() if not weight.isfinite().all()), None):
                raise ModelError(f"{folder}: {bad_key} holds what is no number")
            config = PeftConfig.from_peft_type(**fields)  # type: ignore[no-untyped-call]  # PEFT leaves it without types
            with self._exclusive():
                self._insert(name, config)
                self._set_weights(name, weights)
                self._group_of(name).set_trained(name, False)
        except Exception as error:
            if name in self.names:
                self.delete(name)
            reason = str(error).removeprefix(f"{folder}: ") if isinstance(error, ModelError) else type(error).__name__
            raise ModelError(f"{folder}: the adapter cannot be read ({reason}). Resume or repeat its run.") from error

    def restore(self, name: str, folder: Path, device: torch.device) -> None:
        """Sets the weights of an adapter that exists already to those that `save` wrote."""
        check_file(folder / "adapter_model.safetensors", folder)
        with self._exclusive():
            self._set_weights(name, load_file(folder / "adapter_model.safetensors", device=str(device)))

    def _set_weights(self, name: str, weights: dict[str, Tensor]) -> None:
        group = self._group_of(name)
        self._attach(group)
        # torch's pair of missing and unexpected keys, which PEFT does not type.
        result: Any = set_peft_model_state_dict(group.model, weights, adapter_name=name)
        missing = [key for key in result.missing_keys if name in key.split(".")]
        # Prompt tuning has a loader that raises by itself; PEFT reports its one weight as both missing and unexpected.
        if not group.is_prompt_learning and (wrong := [*result.unexpected_keys, *missing]):
            raise ValueError(f"{wrong[0]} has no counterpart")

    def save(self, name: str, folder: Path) -> None:
        """Writes `adapter_model.safetensors` and its config straight into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        group = self._group_of(name)
        with self._exclusive():
            self._attach(group)
            group.model.save_pretrained(str(folder), selected_adapters=[name], save_embedding_layers=False)
        # PEFT writes every adapter but "default" into a subfolder with the adapter's name.
        for file in (folder / name).iterdir():
            file.replace(folder / file.name)
        (folder / name).rmdir()

    def delete(self, name: str) -> None:
        """Deletes an adapter; with the last of its type the PEFT model goes too, which cannot exist without one."""
        group = self._group_of(name)
        with self._exclusive():
            self._attach(group)
            self._active = ADAPTER_UNSET
            if group.names == [name]:
                self._attach(None)
                self._groups = {kind: other for kind, other in self._groups.items() if other is not group}
            else:
                group.delete(name)

    def merge(self, name: str) -> PreTrainedModel:
        """The base with the adapter's weights added to its own. Nothing else of this object may be used afterwards.

        Raises:
            ModelError: PEFT cannot add weights of this type to a base.
        """
        group = self._group_of(name)
        kind = group.model.peft_config[name].peft_type
        if group.is_prompt_learning:
            raise ModelError(f"a learned prompt ({kind}) has no weights that could be merged into the base: export the adapter alone")
        with self._exclusive():
            self._attach(group)
            merged: PreTrainedModel = group.model.merge_and_unload(safe_merge=True, adapter_names=[name])
        return merged

    # Weights.

    def to(self, device: torch.device) -> None:
        """Moves the weights of the base and of all adapters, those that are not attached too."""
        with self._exclusive():
            attached = self._attached_group
            self.base.to(device)  # type: ignore[arg-type]  # transformers' decorator hides the parameters of `to`
            for group in self._groups.values():
                self._attach(group)
                group.model.to(device)
            self._attach(attached)

    def module(self, adapter: str | None) -> PreTrainedModel | PeftModel:
        """The module that holds the base's and the adapter's weights, for whoever trains it: DistributedDataParallel, an optimiser."""
        if adapter is None:
            return self.base
        group = self._group_of(adapter)
        with self._exclusive():
            self._attach(group)
        return group.model

    def parameters(self, adapter: str) -> dict[str, torch.nn.Parameter]:
        """The weights of one adapter, by name."""
        group = self._group_of(adapter)
        with self._exclusive():
            self._attach(group)
            return group.parameters(adapter)

    def train_only(self, adapter: str | None) -> None:
        """Gives the weights of this adapter a gradient, and those of all others none."""
        for group in self._groups.values():
            for name in group.names:
                group.set_trained(name, name == adapter)

    def first_layer(self, adapter: str) -> int:
        """How many decoder layers lie below the lowest one with weights of the adapter; 0 where its weights are in no layer."""
        layers = (re.search(r"\.(\d+)\.", name) for name in self.parameters(adapter))
        return min((int(layer[1]) for layer in layers if layer), default=0)

    def linears(self, layers: range) -> list[str]:
        """Names of the base's linear maps inside these decoder layers."""
        with self._exclusive():
            attached = self._attached_group
            self._attach(None)
            names = linear_names(self.base, layers)
            self._attach(attached)
        return names
