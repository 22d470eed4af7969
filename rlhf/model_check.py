"""The checks of `rankloop doctor --model`: loads a model and tries in about a minute what a round needs of it.

The machine and the store are checked in `runs.doctor`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import psutil
import torch

from rlhf.config import AdapterKind, RoundConfig
from rlhf.generation.engine import sample
from rlhf.models.backbone import Backbone
from rlhf.models.chat_template import ChatTemplateError
from rlhf.runs import memory
from rlhf.runs.doctor import Check
from rlhf.runs.memory import COLLECTED_TOKENS, ModelSizes
from rlhf.safe_files import ModelError
from storage.core.records import Message, Sampling

SAMPLED_ROWS, SAMPLED_TOKENS = 8, 16
"""Size of the sample whose speed is measured."""

QUEUE_ANSWERS = 48
"""Answers of a full queue: 24 comparisons of two."""

SLOW_MIN = 30.0
"""Minutes of sampling in a round above which the check warns."""

USER: Message = {"role": "user", "content": "Hi"}


def checks(folder: Path, device: str, config: RoundConfig) -> Iterator[Check]:
    """Each check in turn; only the first one if the model cannot be loaded."""
    try:
        backbone = Backbone.load(folder, device, config.dtype, load_in_4bit=config.load_in_4bit)
    except (ModelError, RuntimeError, MemoryError) as error:
        yield Check("model", str(folder), str(error))
        return
    backbone.limit_rows(config.max_length)
    yield architecture(backbone)
    yield template(backbone)
    yield reasoning(backbone, config)
    yield end_tokens(backbone)
    yield padding(backbone)
    yield context(backbone, config)
    yield partial_forward(backbone)
    yield adapters(backbone, config)
    yield memory_needed(backbone, config)
    yield speed(backbone, config)


def architecture(backbone: Backbone) -> Check:
    weights = sum(p.numel() for p in backbone.base.parameters())
    kind = backbone.base.config.get_text_config().model_type
    dtype = str(backbone.base.dtype).removeprefix("torch.")
    return Check("model", f"{kind}, {weights / 1e6:,.1f} million parameters, {backbone.depth} layers, {dtype} on {backbone.device}")


def template(backbone: Backbone) -> Check:
    """The roles that the chat template supports, and whether it has a generation prompt."""
    has_system_role = backbone.has_system_role
    alternates = not _renders(backbone, [USER, USER])
    has_generation_prompt = backbone.tokenizer.apply_chat_template([USER], return_dict=False) != backbone.encode([USER])
    found = [
        "system messages" if has_system_role else "no system messages",
        "roles must alternate" if alternates else "roles in any order",
        "generation prompt" if has_generation_prompt else "no generation prompt",
    ]
    warnings = [] if has_system_role else ["system messages are put before the first user turn, unless the project turns that off"]
    if not has_generation_prompt:
        warnings.append("nothing marks the assistant's turn, so that answers may begin with a role's name: use another template")
    return Check("chat template", ", ".join(found), warning="; ".join(warnings))


def reasoning(backbone: Backbone, config: RoundConfig) -> Check:
    if "enable_thinking" in (backbone.tokenizer.chat_template or ""):
        return Check("thinking", "the template has a switch for it, which is turned off")
    if backbone.reasoning is None:
        return Check("thinking", "the model has no thinking tokens")
    longest = f"{COLLECTED_TOKENS} tokens in collecting, {config.sampling.max_new_tokens} in training"
    if backbone.reasoning.opened:
        warning = f"the answer begins after </think>; an answer whose reasoning exceeds the limit ({longest}) is empty"
        return Check("thinking", "every answer begins with reasoning, which is removed", warning=warning)
    return Check("thinking", "reasoning up to </think> is removed from answers")


def end_tokens(backbone: Backbone) -> Check:
    names = backbone.tokenizer.convert_ids_to_tokens(list(backbone.eos_token_ids))
    found = f"{', '.join(names)}; {backbone.tokenizer.convert_ids_to_tokens(backbone.eos_id)} ends a turn"
    if stray := undeclared_end_token(backbone):
        name = backbone.tokenizer.convert_ids_to_tokens(stray)
        warning = f"the template ends a turn with {name}, which is no end-of-sequence token, so that answers may run on: add {stray} to "
        return Check("end tokens", found, warning=warning + "eos_token_id of generation_config.json")
    return Check("end tokens", found)


def undeclared_end_token(backbone: Backbone) -> int | None:
    """The special token that the template puts right after an answer, if it is not one of the end-of-sequence tokens."""
    suffix = backbone.turn_suffix()
    special = set(backbone.tokenizer.all_special_ids) | set(backbone.tokenizer.added_tokens_decoder)
    first = next((token for token in suffix if token in special), None)
    return None if first in backbone.eos_token_ids else first


def padding(backbone: Backbone) -> Check:
    tokenizer = backbone.tokenizer
    pad = tokenizer.pad_token or f"none, {tokenizer.convert_ids_to_tokens(backbone.pad_id)} in its place"
    return Check("padding", f"{pad}; begin of sequence: {tokenizer.bos_token or 'none'}")


def context(backbone: Backbone, config: RoundConfig) -> Check:
    found = "not limited by its config" if backbone.context is None else f"{backbone.context:,} tokens"
    room = (backbone.max_length or config.max_length) - config.sampling.max_new_tokens - 1
    found += f"; a round reads up to {backbone.max_length:,}, prompts up to {room:,}"
    remedy = "" if room > 0 else f"lower --sampling-max-new-tokens {config.sampling.max_new_tokens}, or use a model with a longer context"
    return Check("context", found, remedy)


def partial_forward(backbone: Backbone) -> Check:
    """Whether frozen layers can be computed once and cached, and logits a few rows at a time."""
    cached, head = backbone.decoder.supports_partial_forward, backbone.has_linear_head
    found = f"frozen layers {'computed once' if cached else 'computed at every pass'}, head {'in parts' if head else 'as a whole'}"
    slow = [] if cached else ["scoring and training compute all layers each time and take about twice as long"]
    if not head:
        slow.append("logits of a whole minibatch are in memory at once: lower --ppo-microbatch-size if it runs out")
    return Check("layers", found, warning="; ".join(slow))


def adapters(backbone: Backbone, config: RoundConfig) -> Check:
    reasons = {kind: backbone.adapter_refusal(replace(config.adapter, kind=kind, top_layers=0)) for kind in get_args(AdapterKind)}
    possible = ", ".join(kind for kind, reason in reasons.items() if not reason) or "none"
    refused = "".join(f"; not {kind} ({reason})" for kind, reason in reasons.items() if reason)
    remedy = f"choose another --adapter-kind: {possible}" if reasons[config.adapter.kind] else ""
    return Check("adapters", possible + refused, remedy)


def memory_needed(backbone: Backbone, config: RoundConfig) -> Check:
    """The estimate of `runs.memory` and the device's free memory, to which this process's own memory is added."""
    needed = memory.estimate(sizes(backbone), config)
    if backbone.device.type == "cuda":
        free, place = torch.cuda.mem_get_info(backbone.device)[0] + torch.cuda.memory_reserved(backbone.device), "on the GPU"
    else:
        free, place = psutil.virtual_memory().available + psutil.Process().memory_info().rss, "free"
    free_gib = free / 2**30
    found = (
        f"about {needed.collecting_gib:.1f} GiB to collect, {needed.ppo_gib:.1f} for a PPO round, {needed.dpo_gib:.1f} for DPO; "
        f"{free_gib:.1f} {place}"
    )
    if free_gib < needed.collecting_gib:
        return Check("memory", found, "close programs, or use a smaller model")
    if free_gib < needed.ppo_gib:
        return Check("memory", found, "close programs, lower --ppo-minibatch-size or set --ppo-microbatch-size 4, or use a smaller model")
    return Check("memory", found, warning="" if free_gib >= needed.dpo_gib else "DPO may run out of memory: lower --dpo-batch-size")


def sizes(backbone: Backbone) -> ModelSizes:
    config = backbone.base.config.get_text_config()
    hidden, heads = backbone.hidden_size, getattr(config, "num_attention_heads", None) or 1
    head_size = getattr(config, "head_dim", None) or hidden // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    feedforward = getattr(config, "intermediate_size", None) or 4 * hidden
    experts = getattr(config, "num_experts_per_tok", None) or 1
    return ModelSizes(
        weight_bytes=sum(p.numel() * p.element_size() for p in backbone.base.parameters()),
        bytes_per_number=backbone.base.dtype.itemsize,
        layers=backbone.depth,
        hidden=hidden,
        feedforward=experts * (getattr(config, "moe_intermediate_size", None) or feedforward),
        heads=heads,
        key_value=2 * key_heads * head_size,
        vocabulary=config.vocab_size,
        linear=backbone.linear_size(),
    )


def speed(backbone: Backbone, config: RoundConfig) -> Check:
    """Tokens per second of a short sample, and the resulting times to fill the queue and to sample for a round."""
    prompts = [backbone.encode([{"role": "user", "content": f"Name {i + 2} things."}]) for i in range(SAMPLED_ROWS)]
    # The first pass allocates memory and compiles kernels.
    sample(backbone, prompts, Sampling(max_new_tokens=2), 0, adapter=None)
    started = time.perf_counter()
    sequences = sample(backbone, prompts, Sampling(max_new_tokens=SAMPLED_TOKENS), 1, adapter=None)
    rate = sum(len(s.ids) for s in sequences) / (time.perf_counter() - started)
    queue_s = QUEUE_ANSWERS * COLLECTED_TOKENS / rate
    round_min = config.ppo.steps * config.ppo.batch_size * config.sampling.max_new_tokens / rate / 60
    found = (
        f"{rate:,.0f} tokens/s for {SAMPLED_ROWS} answers at once: a full queue of 24 comparisons in at most {queue_s:,.0f} s, the "
        f"sampling of a PPO round in at most {round_min:,.1f} min"
    )
    slow = (
        f"a round will take over {round_min:,.0f} minutes: use a GPU, a smaller model, or fewer --ppo-steps" if round_min > SLOW_MIN else ""
    )
    return Check("speed", found, warning=slow)


def _renders(backbone: Backbone, messages: Sequence[Message]) -> bool:
    """Whether the template accepts a conversation, and its output contains the first message."""
    try:
        text = backbone.tokenizer.decode(backbone.encode(messages))
    except ChatTemplateError:
        return False
    return messages[0]["content"] in text
