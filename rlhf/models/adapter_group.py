"""The adapters of one PEFT type over the base: adding, switching and detaching them.

PEFT cannot mix types in one model, and wants a PEFT model each. Leaves out which group a pass reads through (`adapters`).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from peft import PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel


class AdapterGroup:
    """The adapters of one PEFT type on the base. They are attached and detached together."""

    def __init__(self, base: PreTrainedModel, config: PeftConfig, name: str):
        # Another group may have left its config here: PEFT would take that group's adapters for this one's.
        base.__dict__.pop("peft_config", None)
        self.base, self.is_prompt_learning = base, config.is_prompt_learning
        try:
            self.model: PeftModel = get_peft_model(base, config, adapter_name=name)
        except Exception:
            # PEFT wraps one layer after another, and leaves those before the one that it refuses.
            for parent, key, wrapped in wrapped_layers(base):
                setattr(parent, key, unwrapped(wrapped))
            raise
        self._collect_tuner_layers()

    @property
    def names(self) -> list[str]:
        return list(self.model.peft_config)

    def add(self, name: str, config: PeftConfig) -> None:
        trained = self._trained()
        self.model.add_adapter(name, config)
        self._collect_tuner_layers()
        self._restore(trained)

    def delete(self, name: str) -> None:
        """Deletes one of several adapters."""
        trained = self._trained()
        self.model.delete_adapter(name)
        self._restore(trained)

    def _collect_tuner_layers(self) -> None:
        self.model.eval()
        self.tuner_layers = wrapped_layers(self.base)

    def prefix(self, adapter: str) -> Float[Tensor, "v d"] | None:
        """The learned vectors that stand before every row; None where the adapter is another kind."""
        if not self.is_prompt_learning:
            return None
        return self.model.prompt_encoder[adapter].get_parameter("embedding.weight")

    def parameters(self, adapter: str) -> dict[str, torch.nn.Parameter]:
        """The weights of one adapter, by name; the group must be attached."""
        return {name: p for name, p in self.model.named_parameters() if adapter in name.split(".")}

    def select(self, adapter: str | None) -> None:
        """Passes read through this adapter from now on, or through none. Which weights are trained stays as it is.

        PEFT takes the gradient from every adapter that is not active, so that a pass through the reference between a loss and its
        backward pass would lose the policy's gradients.
        """
        trained = self._trained()
        for _, _, layer in self.tuner_layers:
            if adapter is None:
                layer.enable_adapters(False)
            else:
                if layer.disable_adapters:
                    layer.enable_adapters(True)
                layer.set_adapter(adapter, inference_mode=True)
        self._restore(trained)

    def set_trained(self, adapter: str, trained: bool) -> None:
        """Gives the weights of one adapter a gradient, or none."""
        for container in self._containers():
            if adapter in container:
                container[adapter].requires_grad_(trained)

    def _trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self._weights() if p.requires_grad]

    def _restore(self, trained: list[torch.nn.Parameter]) -> None:
        for parameter in self._weights():
            parameter.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)

    def _weights(self) -> list[torch.nn.Parameter]:
        """Of all the group's adapters."""
        return [p for container in self._containers() for p in container.parameters()]

    def _containers(self) -> list[Any]:
        """PEFT's dictionaries of weights, each with one entry for every adapter."""
        if self.is_prompt_learning:
            return [self.model.prompt_encoder]
        found = [getattr(layer, name) for _, _, layer in self.tuner_layers for name in layer.adapter_layer_names]
        return [container for container in found if isinstance(container, (nn.ModuleDict, nn.ParameterDict))]

    def attach(self) -> None:
        for parent, key, wrapped in self.tuner_layers:
            setattr(parent, key, wrapped)

    def detach(self) -> None:
        for parent, key, wrapped in self.tuner_layers:
            setattr(parent, key, wrapped.get_base_layer())


def wrapped_layers(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str, BaseTunerLayer]]:
    """Every layer that PEFT has wrapped, with its parent and its name there."""
    return [
        (parent, key, child) for parent in model.modules() for key, child in parent.named_children() if isinstance(child, BaseTunerLayer)
    ]


def unwrapped(layer: torch.nn.Module | BaseTunerLayer) -> torch.nn.Module:
    """The model's own layer inside PEFT's."""
    while isinstance(layer, BaseTunerLayer):
        layer = layer.get_base_layer()
    return layer
