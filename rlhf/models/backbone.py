"""One frozen base model in memory; adapters by name over it, heads beside it.

The policy, the reference (no adapter) and the reward model share these weights and differ in their adapters and heads. Every pass
says which adapter it reads through. Leaves out what is done with logits (`sampling`, `rollout`) and with scores (`reward`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import AdapterConfig, AdapterKind, ConfigError
from rlhf.models import lm_head
from rlhf.models.adapters import AdapterChoice, Adapters
from rlhf.models.attention import use_short_row_attention
from rlhf.models.chat_template import ChatTemplateError, renderer
from rlhf.models.chat_tokens import ChatTokens, eos_token_ids
from rlhf.models.decoder import CachedHidden, Decoder
from rlhf.models.four_bit import is_4bit, keep_differentiable, quantization_config
from rlhf.models.lm_head import TokenLogprobs
from rlhf.models.padding import positions
from rlhf.safe_files import ModelError, check_base

TRIAL = "trial"
"""Name of an adapter that is added and deleted again, to see whether the model can have it."""


class ModelOutput(NamedTuple):
    logits: Float[Tensor, "b keep vocab"]
    hidden: Float[Tensor, "b keep d"]


class Backbone(ChatTokens):
    """A causal language model whose own weights never change, with its tokenizer."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device | str = "cpu"):
        # transformers' decorator hides the parameters of `to`.
        on_device = model if is_4bit(model) else model.to(device)  # type: ignore[arg-type]
        self.base = on_device.eval().requires_grad_(False)
        super().__init__(model, tokenizer)
        self.device = torch.device(device)
        self.context: int | None = context_length(model)
        """The model's context length in tokens, prompt and answer together; None where its config does not name one."""
        self.max_length: int | None = self.context
        """Most tokens of a row that is computed: prompt, answer and end-of-sequence token. See `lengths`."""
        self.hidden_size: int = model.config.get_text_config().hidden_size
        use_short_row_attention(self.base)
        self.adapter_set = Adapters(self.base)
        self.decoder = Decoder(self.base, self.adapter_set)
        self.has_linear_head = self._has_linear_head()

    @classmethod
    def load(
        cls, folder: Path, device: str = "auto", dtype: str = "auto", *, load_in_4bit: bool = False, needs_template: bool = True
    ) -> Backbone:
        """Loads a model from a folder of safetensors.

        Args:
            load_in_4bit: pack the weights of its linear maps in 4 bits, all but the output embedding's.
            needs_template: refuse a model without a chat template, which can only continue texts.

        Raises:
            ModelError: the weights are damaged, of an unknown architecture, or not safetensors alone, or come without a chat
                template that can be rendered within its limits; or bitsandbytes is missing, which packs weights.
        """
        check_base(Path(folder))
        # The template is rendered further down: its process starts while the weights are loaded.
        renderer().start()
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto":
            dtype = "bfloat16" if computes_in_bfloat16(device) else "float32"
        kind = getattr(torch, dtype)
        packed = {"quantization_config": quantization_config(kind), "device_map": {"": device}} if load_in_4bit else {}
        try:
            # Without an answer here, transformers asks on the terminal whether to run a model's own code.
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, use_safetensors=True, trust_remote_code=False, **packed)
            keep_differentiable(model)
        except Exception as error:
            # transformers and safetensors raise many kinds for a file that is cut off or of another shape.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"{folder}: cannot be read as a causal language model ({reason}). Fetch it again.") from error
        if tokenizer.chat_template is None and needs_template:
            raise ModelError(f"{folder}: its tokenizer has no chat template. Use an instruct or chat model.")
        if not eos_token_ids(model, tokenizer):
            raise ModelError(
                f"{folder}: neither its tokenizer nor its generation config has an end-of-sequence token: answers could not end."
            )
        backbone = cls(model, tokenizer, device)
        if tokenizer.chat_template is None:
            return backbone
        try:
            backbone.encode([{"role": "user", "content": "Hi"}])
        except ChatTemplateError as error:
            raise ModelError(f"{folder}: its chat template cannot be rendered ({error}). Use another instruct or chat model.") from error
        return backbone

    def limit_rows(self, max_length: int, *, virtual_tokens: int = 0) -> None:
        """Sets the most tokens of a row; with a learned prompt, its vectors are part of the context."""
        self.max_length = max_length if self.context is None else min(max_length, self.context - virtual_tokens)

    def offload(self) -> None:
        """Moves all weights to the processor's memory and gives the accelerator's back. No pass may run until `restore`."""
        self.adapter_set.to(torch.device("cpu"))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def restore(self) -> None:
        """Moves all weights back to their device."""
        self.adapter_set.to(self.device)

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters."""
        return self.adapter_set.names

    def add_adapter(self, name: str, config: AdapterConfig, *, seed: int, depth: int | None = None) -> None:
        """Adds a new adapter on the last `config.top_layers` of the first `depth` layers, or on all of them where that is 0."""
        depth = self.depth if depth is None else depth
        first = max(0, depth - config.top_layers) if config.top_layers else 0
        self.adapter_set.add(name, config, range(first, depth), seed=seed)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Loads an adapter that `save_adapter` wrote. If loading fails, no part of it stays in the model.

        Raises:
            ModelError: the folder is missing or damaged, or the adapter is for another model.
        """
        self.adapter_set.load(name, folder, self.device)

    def restore_adapter(self, name: str, folder: Path) -> None:
        """Sets the weights of an adapter that exists already to those that `save_adapter` wrote."""
        self.adapter_set.restore(name, folder, self.device)

    def save_adapter(self, name: str, folder: Path) -> None:
        """Writes `adapter_model.safetensors` and its config straight into `folder`."""
        self.adapter_set.save(name, folder)

    def merge_adapter(self, name: str) -> PreTrainedModel:
        """The base with the adapter's weights added to its own. The backbone must not be used afterwards."""
        return self.adapter_set.merge(name)

    def delete_adapter(self, name: str) -> None:
        self.adapter_set.delete(name)

    def parameters(self, adapter: str) -> dict[str, torch.nn.Parameter]:
        """The weights of one adapter, by name."""
        return self.adapter_set.parameters(adapter)

    def trained_module(self, adapter: str | None) -> PreTrainedModel | PeftModel:
        """The module that holds the base and the adapter, whose weights alone have a gradient from now on."""
        self.adapter_set.train_only(adapter)
        return self.adapter_set.module(adapter)

    @property
    def depth(self) -> int:
        """How many decoder layers there are."""
        return self.decoder.depth

    def linear_size(self) -> int:
        """Inputs and outputs of the linear maps in the last layer, summed: the weights that LoRA adds there for each rank."""
        maps = (self.base.get_submodule(name) for name in self.adapter_set.linears(range(self.depth - 1, self.depth)))
        return sum(m.in_features + m.out_features if isinstance(m, torch.nn.Linear) else sum(m.weight.shape) for m in maps)

    def adapter_refusal(self, config: AdapterConfig, *, depth: int | None = None) -> str:
        """Why this model cannot have an adapter of that kind, in one sentence; empty where it can.

        One is added, a few tokens pass through it forwards and backwards, and it is deleted again.
        """
        ids = torch.arange(4, device=self.device)[None] % self.base.config.get_text_config().vocab_size
        mask = torch.ones_like(ids, dtype=torch.bool)
        try:
            self.add_adapter(TRIAL, config, seed=0, depth=depth)
            with torch.enable_grad():
                hidden = self.decoder.forward(ids, mask, positions=positions(mask), adapter=TRIAL)
                hidden.float().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
            if all(weight.grad is None for weight in self.parameters(TRIAL).values()):
                return "none of its weights would be trained"
        except Exception as error:
            # PEFT and the architectures raise many kinds.
            return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        finally:
            if TRIAL in self.adapters:
                self.delete_adapter(TRIAL)
        return ""

    def require_adapter(self, option: str, config: AdapterConfig, *, depth: int | None = None) -> None:
        """Refuses an adapter that this model cannot have.

        Args:
            option: the name of the option that says the kind, for the message.

        Raises:
            ConfigError: with the reason, and the kinds that the model can have.
        """
        if not (reason := self.adapter_refusal(config, depth=depth)):
            return
        others = [kind for kind in get_args(AdapterKind) if kind != config.kind]
        possible = [kind for kind in others if not self.adapter_refusal(replace(config, kind=kind, top_layers=0), depth=depth)]
        architecture = self.base.config.get_text_config().model_type
        raise ConfigError(
            f"--{option} {config.kind}: a model of type {architecture} cannot have it ({reason}); "
            + (f"it can have {', '.join(possible)}" if possible else "it can have none of the others either")
        )

    def virtual_tokens(self, adapter: AdapterChoice) -> int:
        """How many learned vectors the adapter puts before every row."""
        return self.adapter_set.virtual_tokens(adapter)

    def first_adapted_layer(self, adapter: str) -> int:
        """How many layers lie below the lowest one with weights of the adapter; 0 where their activations cannot be recorded."""
        return self.adapter_set.first_layer(adapter) if self.decoder.records_activations else 0

    def is_routable(self, adapter: str) -> bool:
        """Whether rows with this adapter can share a batch with rows of other adapters, or of none."""
        return self.adapter_set.is_routable(adapter)

    def forward(self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], *, keep: int, adapter: AdapterChoice) -> ModelOutput:
        """Logits and last hidden states of the last `keep` positions.

        Positions are counted over real tokens only, so left padding changes nothing.
        """
        hidden = self.decoder.forward(ids, mask, positions=positions(mask), adapter=adapter)[:, -keep:]
        return ModelOutput(self.logits(hidden), hidden)

    def hidden(
        self,
        ids: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        *,
        depth: int,
        cached: CachedHidden | None = None,
        adapter: AdapterChoice,
    ) -> Float[Tensor, "b t d"]:
        """The residual stream after the first `depth` decoder layers.

        Layers whose output is `cached` are skipped, where the model supports partial forward passes.
        """
        return self.decoder.forward_lower(ids, mask, positions=positions(mask), depth=depth, cached=cached, adapter=adapter)

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """The logits of last hidden states."""
        if not self.has_linear_head:
            return self.decoder.logits(hidden)
        logits: Tensor = self.base.get_output_embeddings()(hidden)
        return logits

    def token_logprobs(
        self, hidden: Float[Tensor, "n d"], ids: Int[Tensor, " n"], temperature: float, *, entropy: bool = False
    ) -> TokenLogprobs:
        """Each token's log-probability under softmax(logits / temperature); with `entropy`, also the entropy of that distribution."""
        if self.has_linear_head:
            return lm_head.token_logprobs(self.base.get_output_embeddings(), hidden, ids, temperature, entropy=entropy)
        return lm_head.token_logprobs_from_logits(self.logits(hidden), ids, temperature)

    @torch.inference_mode()
    def _has_linear_head(self) -> bool:
        """Whether the logits are the output embedding's product and nothing more: no cap, no scale."""
        ids = torch.arange(4, device=self.device)[None]
        mask = torch.ones_like(ids, dtype=torch.bool)
        head = self.base.get_output_embeddings()
        if type(head) is not torch.nn.Linear:
            return False
        logits = self.base(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
        return torch.allclose(head(self.decoder.forward(ids, mask, positions=positions(mask), adapter=None)), logits, rtol=1e-2, atol=1e-2)


def context_length(model: PreTrainedModel) -> int | None:
    """How many tokens the model can read, by its config's own name for it."""
    config = model.config.get_text_config()
    found = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"))
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def computes_in_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16 natively, so that it is faster than float32."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.backends.cpu.get_cpu_capability() in ("AVX512_BF16", "AMX") or torch.ops.mkldnn._is_mkldnn_bf16_supported()
