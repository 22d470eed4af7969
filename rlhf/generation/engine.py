"""Generates with the base and the tuned policies by name, on one backbone, for the policy server and the simulation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jinja2 import TemplateError

from rlhf import model_files
from rlhf.generation.fair_lock import FairLock
from rlhf.generation.sampling import DecodeStep, collect_sequences, generator, stream
from rlhf.models.backbone import Backbone
from rlhf.models.lengths import PromptTooLong
from rlhf.safe_files import ModelError
from rlhf.serving.completion_source import GeneratedCompletion, PromptRefused
from rlhf.serving.limits import LONGEST_PROMPT
from storage.content import policies
from storage.core.database import Database, StoreError
from storage.core.records import Message, PolicyVersion, Prompt, Sampling
from storage.project import settings

LONGEST_YIELD_S = 0.25
"""How long the queue's completions wait for chats before each token, in seconds: chats are faster for it, and cannot stop them."""

MOST_YIELDED_S = 5.0
"""How long a batch of the queue's completions waits for chats in all, in seconds. Older than that, it takes its turns with them."""


def nothing() -> None:
    pass


class Engine:
    """Generates completions by policy version. One step runs at a time, in turns.

    Args:
        longest_prompt: the most tokens that the prompt of a chat may have; the model's context bounds it too.
    """

    def __init__(self, store: Database, model: str, backbone: Backbone, *, longest_prompt: int = LONGEST_PROMPT):
        self.store, self.model, self.backbone = store, model, backbone
        self.longest_prompt = min(longest_prompt, (backbone.context or longest_prompt + 1) - 1)
        self.base = policies.ensure_base(store, model, name=model_files.display_name(model))
        self._turns = FairLock()
        self._active_chats = 0
        self._no_chat = threading.Condition()

    def versions(self) -> list[PolicyVersion]:
        """The policy versions that this backbone can generate with."""
        return [v for v in policies.all_versions(self.store) if v.id == self.base.id or (v.kind == "tuned" and v.base_model == self.model)]

    def refusal_reason(self, version: PolicyVersion) -> str:
        """Why a version cannot generate here, as a sentence; empty when it can."""
        if version.kind == "external":
            return f"{version.name} does not run here: it cannot write new answers. Cancel the batch and choose other versions."
        if version.id not in {served.id for served in self.versions()}:
            return f"{version.name} stands over another base model: start rankloop with --model {version.base_model}."
        try:
            folder = policies.adapter_folder(self.store, version)
        except StoreError as error:
            return str(error)
        if folder is not None and not (folder / "adapter_config.json").is_file():
            return f"The adapter of {version.name} is missing: put it back into {folder}, or cancel the batch."
        return ""

    def without_paths(self, version: PolicyVersion, error: Exception) -> str:
        """The error's message without paths of this machine: the version's folder is replaced by its name."""
        folder = policies.adapter_folder(self.store, version)
        return str(error) if folder is None else str(error).replace(str(folder), version.name)

    def named(self, name: str) -> PolicyVersion:
        """Raises KeyError when no such policy is served here."""
        return {v.name: v for v in self.versions()}[name]

    def generate(
        self, requests: Sequence[tuple[PolicyVersion, Prompt]], sampling: Sampling, seed: int, on_progress: Callable[[], None] = nothing
    ) -> list[GeneratedCompletion | PromptRefused]:
        """Complete answers, those of one policy in one batch. Yields to chats for a moment before each token.

        A prompt that the chat template refuses, or that leaves no room for an answer, gets the reason in place of an answer.
        """
        completions: dict[int, GeneratedCompletion | PromptRefused] = {}
        for policy_id in sorted({policy.id for policy, _ in requests}):
            mine = [i for i, (policy, _) in enumerate(requests) if policy.id == policy_id]
            started = time.monotonic()
            refused: dict[int, PromptRefused] = {}
            encoded: dict[int, list[int]] = {}
            for i in mine:
                try:
                    encoded[i] = self._collectable(requests[i][1], sampling)
                except (PromptTooLong, TemplateError) as error:
                    refused[i] = PromptRefused(str(error))
            completions |= refused
            if not encoded:
                continue
            prompts = list(encoded.values())
            tokens = self._steps(requests[mine[0]][0], prompts, sampling, generator(self.backbone.device, seed, policy_id), on_progress)
            sampled = collect_sequences(self._yielding_to_chats(tokens), len(prompts), self.backbone.eos_token_ids)
            latency = time.monotonic() - started
            for i, s in zip(encoded, sampled, strict=True):
                completions[i] = GeneratedCompletion(self.backbone.decode(s.ids), s.finish_reason, latency)
        return [completions[i] for i in range(len(requests))]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The token ids of a conversation up to the answer.

        Raises:
            PromptTooLong: it has more tokens than are allowed.
            ChatTemplateError: the model's chat template refuses it.
        """
        ids = self.backbone.encode(messages, fold_system=settings.current(self.store).fold_system)
        if len(ids) > self.longest_prompt:
            raise PromptTooLong(
                f"the prompt has {len(ids):,} tokens, of which {self.longest_prompt:,} can be read: shorten it, or leave out earlier turns"
            )
        return ids

    def _collectable(self, prompt: Prompt, sampling: Sampling) -> list[int]:
        """The token ids of a stored prompt, which must leave room for the longest answer that may be sampled."""
        ids = self.prompt(prompt.messages)
        context = self.backbone.context
        if context is not None and len(ids) + sampling.max_new_tokens > context:
            raise PromptTooLong(
                f"the prompt has {len(ids):,} tokens and its answer up to {sampling.max_new_tokens:,}, which is more than the model's "
                f"context of {context:,}: shorten it"
            )
        return ids

    def stream_text(
        self, version: PolicyVersion, prompt: Sequence[int], sampling: Sampling, seed: int, on_progress: Callable[[], None] = nothing
    ) -> Iterator[tuple[str, str | None]]:
        """Pieces of one answer with None, then an empty piece with the finish reason. Ends at the latest with the context.

        Args:
            on_progress: called before each step, also between the chunks of a long prompt; an exception from it ends the answer.
        """
        ids: list[int] = []
        sent, reason = "", "length"
        if self.backbone.context:
            sampling = replace(sampling, max_new_tokens=max(1, min(sampling.max_new_tokens, self.backbone.context - len(prompt))))
        self._add_active_chats(1)
        try:
            for token, *_ in self._steps(version, [prompt], sampling, generator(self.backbone.device, seed), on_progress):
                if int(token[0]) in self.backbone.eos_token_ids:
                    reason = "stop"
                    break
                ids.append(int(token[0]))
                text = self.backbone.tokenizer.decode(ids, skip_special_tokens=True)
                # A character of several tokens decodes to U+FFFD until its last one is there.
                if not text.endswith("\N{REPLACEMENT CHARACTER}") and len(text) > len(sent):
                    yield text[len(sent) :], None
                    sent = text
            yield "", reason
        finally:
            self._add_active_chats(-1)

    def _steps(
        self,
        version: PolicyVersion,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        rng: torch.Generator,
        on_progress: Callable[[], None],
    ) -> Iterator[DecodeStep]:
        """The steps of `stream`, each in its turn."""
        steps: Iterator[DecodeStep | None] | None = None
        while True:
            on_progress()
            with self._turns:
                adapter = self._adapter(version)
                if steps is None:
                    steps = stream(self.backbone, prompts, sampling, rng, adapter=adapter, in_chunks=True)
                try:
                    step = next(steps)
                except StopIteration:
                    return
            # None marks a prefill chunk.
            if step is not None:
                yield step

    def _adapter(self, version: PolicyVersion) -> str | None:
        """The name of a version's adapter, which is loaded at its first use. Call only while holding the turn."""
        if version.adapter_path is None:
            return None
        # PEFT takes no dot in an adapter's name.
        name = f"v{version.id}"
        if name not in self.backbone.adapters:
            try:
                folder = policies.adapter_folder(self.store, version)
            except StoreError as error:
                raise ModelError(str(error)) from error
            if folder is None:
                return None
            self.backbone.load_adapter(name, folder)
        return name

    def _yielding_to_chats(self, tokens: Iterator[DecodeStep]) -> Iterator[DecodeStep]:
        yielded = 0.0
        for step in tokens:
            yield step
            if yielded < MOST_YIELDED_S:
                started = time.monotonic()
                with self._no_chat:
                    self._no_chat.wait_for(lambda: self._active_chats == 0, LONGEST_YIELD_S)
                yielded += time.monotonic() - started

    def _add_active_chats(self, change: int) -> None:
        with self._no_chat:
            self._active_chats += change
            self._no_chat.notify_all()
