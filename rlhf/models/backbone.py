"""One frozen base model in memory; adapters by name over it, heads beside it.

The policy, the reference (no adapter) and the reward model share these weights and differ in their adapters and heads. Only
this module and `lora` import peft. Leaves out what is done with logits (`sampling`, `rollout`) and with scores (`reward`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import reduce
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from peft import (
    IA3Config,
    LoraConfig,
    PeanutConfig,
    PeftConfig,
    PeftModel,
    PromptTuningConfig,
    PromptTuningInit,
    get_peft_model,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING, TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.pytorch_utils import Conv1D

from rlhf.config import AdapterConfig, AdapterKind, ConfigError
from rlhf.models import lm_head
from rlhf.models.attention import use_short_row_attention
from rlhf.models.chat_template import ChatTemplateError, bound, renderer
from rlhf.models.decoder import CachedHidden, Decoder
from rlhf.models.lm_head import TokenLogprobs
from rlhf.models.lora import FusedLinear, RowAdapters, use_row_adapters
from rlhf.models.reasoning import ReasoningMarks, reasoning_marks
from rlhf.safe_files import ModelError, adapter_fields, check_base, check_file
from storage.core.records import Message

ADAPTER_UNSET = ""
"""In place of an adapter's name: the active adapter is unknown and must be set again before the next forward pass."""


TRIAL = "trial"
"""Name of an adapter that is added and deleted again, to see whether the model can have it."""


class ModelOutput(NamedTuple):
    logits: Float[Tensor, "b keep vocab"]
    hidden: Float[Tensor, "b keep d"]


class Backbone:
    """A causal language model whose own weights never change."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device | str = "cpu"):
        # transformers' decorator hides the parameters of `to`.
        self.base = model.to(device).eval().requires_grad_(False)  # type: ignore[arg-type]
        self.tokenizer = bound(tokenizer)
        self.device = torch.device(device)
        self.context: int | None = context_length(model)
        """The model's context length in tokens, prompt and answer together; None where its config does not name one."""
        self.max_length: int | None = self.context
        """Most tokens of a row that is computed: prompt, answer and end-of-sequence token. See `lengths`."""
        self.hidden_size: int = model.config.get_text_config().hidden_size
        self.eos_token_ids: tuple[int, ...] = eos_token_ids(model, tokenizer)
        """Every token that ends an answer, as transformers' `generate` and the tokenizer have them."""
        self.eos_id: int = self._turn_end()
        """The one of them that ends an assistant's turn in the chat template: it is put after answers that are read as text."""
        self.has_system_role: bool = self._shows_system()
        """Whether the chat template takes a system message and shows its text."""
        self.fold_system: bool = True
        """Whether `encode` puts a system message before the first user turn where the template has no system role."""
        self.reasoning: ReasoningMarks | None = self._reasoning_marks()
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos_id
        use_short_row_attention(self.base)
        self.decoder = Decoder(self.base)
        self.has_linear_head = self._has_linear_head()
        # The groups by PEFT's adapter type, and the one whose adapters are attached to the model now.
        self._groups: dict[str, AdapterGroup] = {}
        self._active_group: AdapterGroup | None = None
        # The active adapter, those that the open `use_adapter` blocks ask for, and PEFT's context in which all are disabled.
        self._active_adapter: str | None = None
        self._adapter_stack: list[str | None] = []
        self._disabled = ExitStack()

    @classmethod
    def load(cls, folder: Path, device: str = "auto", dtype: str = "auto", *, needs_template: bool = True) -> Backbone:
        """Loads a model from a folder of safetensors.

        Args:
            needs_template: refuse a model without a chat template, which can only continue texts.

        Raises:
            ModelError: the weights are damaged, of an unknown architecture, or not safetensors alone, or come without a chat
                template that can be rendered within its limits.
        """
        check_base(Path(folder))
        # The template is rendered further down: its process starts while the weights are loaded.
        renderer().start()
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto":
            dtype = "bfloat16" if computes_in_bfloat16(device) else "float32"
        try:
            # Without an answer here, transformers asks on the terminal whether to run a model's own code.
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False)
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

    @property
    def model(self) -> PreTrainedModel | PeftModel:
        return self._active_group.model if self._active_group else self.base

    @property
    def adapters(self) -> list[str]:
        return [name for group in self._groups.values() for name in group.model.peft_config]

    def add_adapter(self, name: str, config: AdapterConfig, *, seed: int, depth: int | None = None) -> None:
        """Adds a new adapter on the last `config.top_layers` of the first `depth` layers, or on all of them where that is 0.

        The model's output is unchanged at first (LoRA starts with B = 0). Prompt tuning is the exception: its vectors start as
        the embeddings of tokens sampled from the vocabulary.
        """
        depth = self.depth if depth is None else depth
        first = max(0, depth - config.top_layers) if config.top_layers else 0
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._insert_adapter(name, self._peft_config(config, range(first, depth)))

    def _peft_config(self, config: AdapterConfig, layers: range) -> PeftConfig:
        """PEFT's own description of the adapter."""
        if config.kind == "prompt":
            return PromptTuningConfig(
                num_virtual_tokens=config.virtual_tokens, prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB, task_type="CAUSAL_LM"
            )
        linears = self._linears(layers)
        if config.kind == "ia3":
            architecture = self.base.config.get_text_config().model_type
            # Keys, values and the input of the feed-forward layer (Liu 2022, arXiv 2205.05638), by this architecture's names.
            ia3_targets = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(architecture)
            feedforward = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(architecture, [])
            return IA3Config(
                target_modules=[n for n in linears if ia3_targets is None or n.endswith(tuple(ia3_targets))],
                feedforward_modules=[n for n in linears if n.endswith(tuple(feedforward))],
                task_type="CAUSAL_LM",
            )
        if config.kind == "peanut":
            return PeanutConfig(r=config.rank, scaling=config.alpha / config.rank, target_modules=linears, task_type="CAUSAL_LM")
        return LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            use_rslora=config.kind == "rslora",
            use_dora=config.kind == "dora",
            target_modules=self._without_experts(linears),
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
            # GPT-2 and models like it store their linear weights transposed.
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in self.base.modules()),
        )

    def _insert_adapter(self, name: str, config: PeftConfig) -> None:
        if isinstance(config, LoraConfig):
            # A new adapter and a loaded one must compute alike, so that a resumed run ends with the same bits.
            config._register_custom_module({torch.nn.Linear: FusedLinear})
        # PEFT sets it in every config of a concrete type.
        kind = cast(str, config.peft_type)
        group = self._groups.get(kind)
        self._attach(group)
        self._disabled.close()
        if group is None:
            self._active_group = self._groups[kind] = AdapterGroup(self.base, config, name)
        else:
            group.add(name, config)
        self._active_adapter = ADAPTER_UNSET

    @property
    def depth(self) -> int:
        """How many decoder layers there are."""
        return self.decoder.depth

    def _linears(self, layers: range) -> list[str]:
        """Names of the linear maps inside these decoder layers."""
        with self._attached(None):
            names = [n for n, m in self.base.named_modules() if is_linear(m)]
        return [n for n in names if (layer := re.search(r"\.(\d+)\.", n)) and int(layer[1]) in layers]

    def linear_size(self) -> int:
        """Inputs and outputs of the linear maps in the last layer, summed: the weights that LoRA adds there for each rank."""
        maps = (self.base.get_submodule(name) for name in self._linears(range(self.depth - 1, self.depth)))
        return sum(sum(m.weight.shape) for m in maps)

    def _without_experts(self, linears: list[str]) -> list[str]:
        """The linear maps without those that PEFT would take for experts.

        For some mixtures of experts PEFT replaces the names of feed-forward maps by the experts' fused weights, which it can neither
        compute with `dora` nor load again here.
        """
        kept = []
        for name in linears:
            config = LoraConfig(target_modules=[name])
            try:
                convert_peft_config_for_transformers(config, self.base, None)
            except ValueError:
                continue
            if name in (config.target_modules or ()):
                kept.append(name)
        return kept

    def adapter_refusal(self, config: AdapterConfig, *, depth: int | None = None) -> str:
        """Why this model cannot have an adapter of that kind, in one sentence; empty where it can.

        One is added, a few tokens pass through it forwards and backwards, and it is deleted again.
        """
        ids = torch.arange(4, device=self.device)[None] % self.base.config.get_text_config().vocab_size
        mask = torch.ones_like(ids, dtype=torch.bool)
        try:
            self.add_adapter(TRIAL, config, seed=0, depth=depth)
            with self.use_adapter(TRIAL), torch.enable_grad():
                self.decoder.forward(ids, mask, positions=positions(mask)).float().sum().backward()  # type: ignore[no-untyped-call]
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

    def load_adapter(self, name: str, folder: Path) -> None:
        """Loads an adapter that `save_adapter` wrote. If loading fails, no part of it stays in the model.

        Raises:
            ModelError: the folder is missing or damaged, or the adapter is for another model.
        """
        try:
            # PEFT's own loader is not used: it inserts an untrained adapter first, and falls back to pickle.
            fields = adapter_fields(folder)
            weights = load_file(folder / "adapter_model.safetensors", device=str(self.device))
            if bad_key := next((key for key, weight in weights.items() if not weight.isfinite().all()), None):
                raise ModelError(f"{folder}: {bad_key} holds what is no number")
            config = PeftConfig.from_peft_type(**fields)  # type: ignore[no-untyped-call]  # PEFT leaves it without types
            self._insert_adapter(name, config)
            self._set_weights(name, weights)
        except Exception as error:
            if name in self.adapters:
                self.delete_adapter(name)
            reason = str(error).removeprefix(f"{folder}: ") if isinstance(error, ModelError) else type(error).__name__
            raise ModelError(f"{folder}: the adapter cannot be read ({reason}). Resume or repeat its run.") from error

    def restore_adapter(self, name: str, folder: Path) -> None:
        """Sets the weights of an adapter that exists already to those that `save_adapter` wrote."""
        check_file(folder / "adapter_model.safetensors", folder)
        self._set_weights(name, load_file(folder / "adapter_model.safetensors", device=str(self.device)))

    def _set_weights(self, name: str, weights: dict[str, Tensor]) -> None:
        group = self._group_of(name)
        with self._attached(group):
            # torch's pair of missing and unexpected keys, which PEFT does not type.
            result: Any = set_peft_model_state_dict(group.model, weights, adapter_name=name)
        missing = [key for key in result.missing_keys if name in key.split(".")]
        # Prompt tuning has a loader that raises by itself; PEFT reports its one weight as both missing and unexpected.
        if not group.is_prompt_learning and (wrong := [*result.unexpected_keys, *missing]):
            raise ValueError(f"{wrong[0]} has no counterpart")

    def save_adapter(self, name: str, folder: Path) -> None:
        """Writes `adapter_model.safetensors` and its config straight into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        group = self._group_of(name)
        with self._attached(group):
            group.model.save_pretrained(str(folder), selected_adapters=[name], save_embedding_layers=False)
        # PEFT writes every adapter but "default" into a subfolder with the adapter's name.
        for file in (folder / name).iterdir():
            file.replace(folder / file.name)
        (folder / name).rmdir()

    def delete_adapter(self, name: str) -> None:
        """Deletes an adapter; with the last of its type the PEFT model goes too, which cannot exist without one."""
        group = self._group_of(name)
        self._attach(group)
        self._disabled.close()
        self._active_adapter = ADAPTER_UNSET
        if list(group.model.peft_config) == [name]:
            self._attach(None)
            self._groups = {kind: other for kind, other in self._groups.items() if other is not group}
        else:
            group.model.delete_adapter(name)

    def parameters(self, adapter: str) -> dict[str, torch.nn.Parameter]:
        """The weights of one adapter, by name."""
        group = self._group_of(adapter)
        with self._attached(group):
            return {name: p for name, p in group.model.named_parameters() if adapter in name.split(".")}

    def _group_of(self, adapter: str) -> AdapterGroup:
        return next(group for group in self._groups.values() if adapter in group.model.peft_config)

    def _attach(self, group: AdapterGroup | None) -> None:
        """Attaches one group's adapters to the model and detaches the other group's."""
        if group is self._active_group:
            return
        self._disabled.close()
        if self._active_group is not None:
            self._active_group.detach()
        if group is not None:
            group.attach()
        self._active_group, self._active_adapter, self.decoder.prefix = group, ADAPTER_UNSET, None

    @contextmanager
    def _attached(self, group: AdapterGroup | None) -> Iterator[None]:
        previous = self._active_adapter
        self._attach(group)
        try:
            yield
        finally:
            if previous != ADAPTER_UNSET:
                self._activate(previous)

    @contextmanager
    def use_adapter(self, adapter: str | None) -> Iterator[None]:
        """Inside the block this adapter is active, or none if it is None; afterwards that of the enclosing block is again.

        Only a change of adapter costs time: PEFT's switches visit every module, which takes as long as sampling a token.
        """
        self._activate(adapter)
        self._adapter_stack.append(adapter)
        try:
            yield
        finally:
            self._adapter_stack.pop()
            if self._adapter_stack:
                self._activate(self._adapter_stack[-1])

    def _activate(self, adapter: str | None) -> None:
        if adapter == self._active_adapter:
            return
        self._disabled.close()
        prefix = None
        if adapter is not None:
            group = self._group_of(adapter)
            self._attach(group)
            group.model.set_adapter(adapter)
            prefix = group.prefix(adapter)
        elif self._active_group is not None and not self._active_group.is_prompt_learning:
            self._disabled.enter_context(self._active_group.model.disable_adapter())
        self.decoder.prefix = prefix
        self._active_adapter = adapter

    def virtual_tokens(self, adapter: str | None) -> int:
        """How many learned vectors the adapter puts before every row."""
        prefix = None if adapter is None else self._group_of(adapter).prefix(adapter)
        return 0 if prefix is None else len(prefix)

    def is_routable(self, adapter: str) -> bool:
        """Whether rows with this adapter can share a batch with rows of other adapters."""
        group = self._group_of(adapter)
        layers = [module for _, _, module in group.tuner_layers if adapter in getattr(module, "lora_A", ())]
        return bool(layers) and all(isinstance(layer, FusedLinear) and layer.is_plain(adapter) for layer in layers)

    @contextmanager
    def use_row_adapters(self, rows: RowAdapters) -> Iterator[None]:
        """Inside the block, each row of a batch has its own adapter, all of which are routable."""
        if rows.names:
            self._attach(self._group_of(rows.names[0]))
        with self.use_adapter(None), use_row_adapters(rows):
            yield

    @property
    def prefix_length(self) -> int:
        """How many learned vectors the active adapter puts before every row."""
        return 0 if self.decoder.prefix is None else len(self.decoder.prefix)

    def first_adapted_layer(self, adapter: str) -> int:
        """How many layers lie below the lowest one with weights of the adapter; 0 where their activations cannot be recorded."""
        adapted = (re.search(r"\.(\d+)\.", name) for name in self.parameters(adapter))
        return min((int(layer[1]) for layer in adapted if layer), default=0) if self.decoder.records_activations else 0

    def forward(self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], *, keep: int) -> ModelOutput:
        """Logits and last hidden states of the last `keep` positions.

        Positions are counted over real tokens only, so left padding changes nothing.
        """
        hidden = self.decoder.forward(ids, mask, positions=positions(mask))[:, -keep:]
        return ModelOutput(self.logits(hidden), hidden)

    def hidden(
        self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], *, depth: int, cached: CachedHidden | None = None
    ) -> Float[Tensor, "b t d"]:
        """The residual stream after the first `depth` decoder layers, with the active adapter.

        Layers whose output is `cached` are skipped, where the model supports partial forward passes.
        """
        if self.decoder.supports_partial_forward:
            return self.decoder.forward_lower(ids, mask, positions=positions(mask), depth=depth, cached=cached)
        out = self.base(**self.decoder.inputs(ids, mask, positions(mask)), use_cache=False, output_hidden_states=True)
        hidden: Tensor = out.hidden_states[depth]
        return hidden[:, -ids.shape[1] :]

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """The logits of last hidden states."""
        if self.has_linear_head:
            logits: Tensor = self.base.get_output_embeddings()(hidden)
            return logits
        # The head is more than a matrix product (a cap, a scale): run the model itself, with an inner model that returns these states.
        name = self.base.base_model_prefix
        inner = getattr(self.base, name)
        setattr(self.base, name, PrecomputedHidden(hidden.reshape(1, -1, hidden.shape[-1])))
        try:
            out = self.base(input_ids=torch.zeros(1, hidden[..., 0].numel(), dtype=torch.long, device=hidden.device), use_cache=False)
        finally:
            setattr(self.base, name, inner)
        logits = out.logits
        return logits.view(*hidden.shape[:-1], -1)

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
        return torch.allclose(head(self.decoder.forward(ids, mask, positions=positions(mask))), logits, rtol=1e-2, atol=1e-2)

    def encode(self, messages: Sequence[Message], *, fold_system: bool | None = None) -> list[int]:
        """Token ids of a conversation, up to where the assistant's answer begins.

        Args:
            fold_system: whether a system message that the template has no role for is put before the first user turn, with an empty
                line between them; None for `Backbone.fold_system`.

        Raises:
            ChatTemplateError: the model's chat template refuses it, or went over a limit.
        """
        if self.tokenizer.chat_template is None:
            raise ChatTemplateError("the model has no chat template: it can only continue texts")
        if self.lacks_role_of(messages):
            if not (self.fold_system if fold_system is None else fold_system):
                raise ChatTemplateError("the chat template has no system role, and system messages are not folded into the user's turn")
            messages = folded(messages)
        ids: list[int] = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
        return ids

    def lacks_role_of(self, messages: Sequence[Message]) -> bool:
        """Whether the conversation begins with a system message for which the chat template has no role."""
        return not self.has_system_role and bool(messages) and messages[0]["role"] == "system"

    def _shows_system(self) -> bool:
        """Whether the template renders a system message's text; some refuse the role, and some drop what it says."""
        said = "rankloop-system-probe"
        messages: list[Message] = [{"role": "system", "content": said}, {"role": "user", "content": "Hi"}]
        try:
            return said in self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except ChatTemplateError:
            return False
        except ValueError:
            # No template at all.
            return True

    def ends(self, tokens: Int[Tensor, "*b"]) -> Bool[Tensor, "*b"]:
        """Which tokens end an answer."""
        # Comparisons and not torch.isin, which would copy the ids to the device at every token.
        return reduce(torch.logical_or, (tokens == token for token in self.eos_token_ids))

    def finish_reason(self, ids: Sequence[int]) -> Literal["stop", "length"]:
        """Whether an answer's last token ends it (`stop`), or the token limit did (`length`)."""
        return "stop" if ids and ids[-1] in self.eos_token_ids else "length"

    def _turn_end(self) -> int:
        """The first end token after an assistant's text in the chat template; the tokenizer's own where there is none."""
        return next((token for token in self.turn_suffix() if token in self.eos_token_ids), self.eos_token_ids[0])

    def turn_suffix(self) -> list[int]:
        """What the chat template puts after an assistant's text; nothing where there is no template, or one that refuses."""
        try:
            rendered = [self._conversation_ids(text) for text in ("Hi", "Yes")]
        except (ChatTemplateError, ValueError):
            return []
        # Two answers differ up to the end of their text, so what both end with comes after it.
        suffix = [a for a, b in takewhile(lambda pair: pair[0] == pair[1], zip(*map(reversed, rendered), strict=False))]
        return suffix[::-1]

    def _conversation_ids(self, answer: str) -> list[int]:
        messages: list[Message] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
        ids: list[int] = self.tokenizer.apply_chat_template(messages, return_dict=False)
        return ids

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of an answer's text, without its end."""
        # An end-of-turn mark that an answer spells out is only text.
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def _reasoning_marks(self) -> ReasoningMarks | None:
        try:
            prompt = self.encode([{"role": "user", "content": "Hi"}])
        except (ChatTemplateError, ValueError):
            prompt = []
        return reasoning_marks(self.tokenizer, prompt)

    def answer_ids(self, ids: Sequence[int]) -> Sequence[int]:
        """Sampled ids without the reasoning before the answer, if the model writes any."""
        return ids if self.reasoning is None else self.reasoning.answer(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without reasoning before it and without space around it."""
        text: str = self.tokenizer.decode(self.answer_ids(ids), skip_special_tokens=True)
        return text.strip()


def folded(messages: Sequence[Message]) -> list[Message]:
    """The conversation with its system message put before the first user turn, an empty line between them."""
    system, first, *rest = messages
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *rest]


class AdapterGroup:
    """The adapters of one PEFT type on the base. They are attached and detached together, because PEFT cannot mix types."""

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

    def add(self, name: str, config: PeftConfig) -> None:
        self.model.add_adapter(name, config)
        self._collect_tuner_layers()

    def _collect_tuner_layers(self) -> None:
        self.model.eval()
        self.tuner_layers = wrapped_layers(self.base)

    def prefix(self, adapter: str) -> Float[Tensor, "v d"] | None:
        if not self.is_prompt_learning:
            return None
        return self.model.prompt_encoder[adapter].get_parameter("embedding.weight")

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


class PrecomputedHidden(torch.nn.Module):
    """Stands in for the inner model and returns given hidden states, so that only the head is computed."""

    def __init__(self, hidden: Float[Tensor, "1 n d"]):
        super().__init__()
        self.hidden = hidden

    def forward(self, *_: Any, **__: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.hidden)


def is_linear(module: torch.nn.Module) -> bool:
    """Whether a module is a linear map and nothing more: some routers of experts are made of one, and return other things."""
    if type(module) in (torch.nn.Linear, Conv1D) or not isinstance(module, torch.nn.Linear):
        return isinstance(module, (torch.nn.Linear, Conv1D))
    try:
        with torch.inference_mode():
            return isinstance(module(module.weight.new_zeros(1, 1, module.weight.shape[1])), torch.Tensor)
    except Exception:
        # Whatever it raised, it does not take what a linear map takes.
        return False


def context_length(model: PreTrainedModel) -> int | None:
    """How many tokens the model can read, by its config's own name for it."""
    config = model.config.get_text_config()
    found = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"))
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokenizer's end-of-sequence token and those of the generation config, which may name several (Gemma, Llama 3, Qwen)."""
    config = model.generation_config.eos_token_id if model.generation_config else None
    generation = config if isinstance(config, list) else [config]
    return tuple(dict.fromkeys(token for token in (tokenizer.eos_token_id, *generation) if token is not None))


def computes_in_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16 natively, so that it is faster than float32."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.backends.cpu.get_cpu_capability() in ("AVX512_BF16", "AMX") or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def positions(mask: Bool[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """0, 1, 2, ... over the real tokens; padding gets 0."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Ids and mask of rows of different lengths, padded on the left."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        if row:
            ids[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = True
    return ids, mask


def pad_right(rows: Sequence[Sequence[int]], pad_id: int, width: int | None = None) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Ids and mask of rows of different lengths, padded on the right."""
    width = max(len(row) for row in rows) if width is None else width
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = True
    return ids, mask
