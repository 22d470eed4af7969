"""Generates with the base and the tuned policies by name, for the policy server and the simulation: one engine, adapters as needed."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import TemplateError

from rlhf import model_files
from rlhf.generation.engine import GenerationEngine
from rlhf.generation.request import GenerationRequest, GenerationStream, ModelReleased
from rlhf.generation.sampling import combined_seed
from rlhf.generation.torch_thread import TorchThread
from rlhf.models.backbone import Backbone
from rlhf.models.lengths import PromptTooLong
from rlhf.safe_files import ModelError
from rlhf.serving.completion_source import GeneratedCompletion, PromptRefused
from rlhf.serving.limits import MAX_PROMPT_TOKENS
from storage.content import policies
from storage.core.database import Database, StoreError
from storage.core.records import Message, PolicyVersion, Prompt, Sampling
from storage.project import rounds, settings

LEAST_ROOM = 96
"""Tokens of an answer for which a collected prompt must leave room in the model's context; a shorter limit needs less."""

MAX_ADAPTERS = 32
"""Adapters that stay loaded while no request uses them; beyond that, the one that was used longest ago is dropped."""

RELEASED_WAIT_S = 1.0
"""While the weights are off the accelerator, completions for the queue wait, and look so often whether they are to stop, in seconds."""

CURRENT = "current"
"""The name under which the current policy answers, whichever version that is at the moment."""

MAX_PUSHED = 8
"""Adapters that clients have loaded at one time."""

PUSHED = "pushed"
"""Under this name the answers of all adapters that clients have loaded are counted: their own names are the clients'."""

Fingerprint = tuple[str, int, int]


def nothing() -> None:
    pass


@dataclass(slots=True)
class LoadedAdapter:
    """An adapter of a policy version in the backbone."""

    name: str
    """In the backbone. A version that is loaded again gets another name, so that nothing of the old one is used."""
    fingerprint: Fingerprint
    used: float


class PushRefused(Exception):
    """An adapter cannot be loaded under that name, or none can now; the message says why and what to do."""


class PolicyService:
    """Policy versions over one engine. Call `start` before `submit` and `close` at the end; `generate` works without both.

    Args:
        longest_prompt: the most tokens that the prompt of a chat may have; the model's context bounds it too.
        thread: where the backbone was loaded, and will generate.
    """

    def __init__(
        self,
        store: Database,
        model: str,
        backbone: Backbone,
        *,
        longest_prompt: int = MAX_PROMPT_TOKENS,
        thread: TorchThread | None = None,
    ):
        self.store, self.model, self.backbone = store, model, backbone
        self.longest_prompt = min(longest_prompt, (backbone.context or longest_prompt + 1) - 1)
        self.base = policies.ensure_base(store, model, name=model_files.display_name(model))
        self.engine = GenerationEngine(backbone, thread=thread)
        self._loaded: dict[int, LoadedAdapter] = {}
        self._generations = itertools.count(1)
        # By name; their ids are negative, and their adapters are loaded for as long as they are here.
        self._pushed: dict[str, PolicyVersion] = {}
        self._released = ""
        self._offloaded = False
        self._resident = threading.Event()
        self._resident.set()

    def start(self) -> None:
        """Starts the engine's thread."""
        self.engine.start()

    def close(self) -> None:
        """Ends every request and the engine's thread."""
        self.engine.close()

    def release(self, reason: str) -> bool:
        """Moves the weights off the accelerator once no answer is computed; returns whether they are off. Call it again until they are.

        From the first call until `restore`, requests are refused with the reason; completions for the queue wait.
        """
        self._released = reason
        self._resident.clear()
        return self.engine.call(self._offload)

    def _offload(self) -> bool:
        if not self._offloaded and self.engine.release_memory():
            self.backbone.offload()
            self._offloaded = True
        return self._offloaded

    def restore(self) -> None:
        """Moves the weights back, and takes requests again. Harmless when they have not been released."""
        if self._released:
            self.engine.call(self._take_back)
            self._resident.set()

    def _take_back(self) -> None:
        if self._offloaded:
            self.backbone.restore()
        self._offloaded, self._released = False, ""

    def metrics(self) -> dict[str, float]:
        """The numbers of answers that are `queued` and `running`."""
        return dict(self.engine.load()._asdict())

    def versions(self) -> list[PolicyVersion]:
        """The policy versions that this backbone can generate with."""
        return [v for v in policies.all_versions(self.store) if v.id == self.base.id or (v.kind == "tuned" and v.base_model == self.model)]

    def listed(self) -> list[PolicyVersion]:
        """These, and the adapters that clients have loaded."""
        return [*self.versions(), *self._pushed.values()]

    def push(self, name: str, folder: Path, *, replace: bool = False) -> None:
        """Loads an adapter that a client has written; it answers under this name until `unload_pushed`.

        Args:
            replace: take the place of the adapter of that name, which running answers keep.

        Raises:
            PushRefused: the name is taken, or there are too many.
            ModelError: it cannot be read, or is for another model.
            ModelReleased: a training round has the accelerator's memory.
        """
        if name == CURRENT or name in {version.name for version in self.versions()}:
            raise PushRefused(f"{name} is a model of this server: choose another name")

        def load() -> None:
            if self._released:
                raise ModelReleased(self._released)
            if name in self._pushed and not replace:
                raise PushRefused(f"an adapter {name} is loaded already: set load_inplace to replace it, or choose another name")
            if name not in self._pushed and len(self._pushed) >= MAX_PUSHED:
                raise PushRefused(f"{MAX_PUSHED} adapters are loaded, which is the limit: unload one first")
            number = next(self._generations)
            self.backbone.load_adapter(f"p{number}", folder)
            before = self._pushed.get(name)
            made = datetime.now(UTC).isoformat()
            self._pushed[name] = PolicyVersion(-number, name, "tuned", self.model, None, None, made)
            self._loaded[-number] = LoadedAdapter(f"p{number}", (str(folder), 0, 0), float("inf"))
            if before is not None:
                del self._loaded[before.id]
            self._drop_unused()

        self.engine.call(load)

    def unload_pushed(self, name: str) -> None:
        """Unloads an adapter that `push` loaded, once no answer needs it. Raises KeyError where there is none of that name."""

        def unload() -> None:
            del self._loaded[self._pushed.pop(name).id]
            self._drop_unused()

        self.engine.call(unload)

    def counted_as(self, version: PolicyVersion) -> str:
        """Under which name a version's answers are counted: numbers of names are bounded."""
        return PUSHED if version.id < 0 else version.name

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
        """The version of this name; `CURRENT` is looked up anew each time, so that the next request follows a decision.

        Raises:
            KeyError: no such policy is served here.
        """
        if name == CURRENT:
            return rounds.current(self.store, self.model)
        return self._pushed.get(name) or {v.name: v for v in self.versions()}[name]

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

    def submit(self, version: PolicyVersion, request: GenerationRequest, *, background: bool = False, client: str = "") -> GenerationStream:
        """Adds a request to the engine's queue, with the version's adapter, which is loaded at its first use.

        Raises:
            EngineBusy: the queue is full, or the client has too many requests.
            ModelError: the version's adapter is missing or damaged, or is for another model.
            ModelReleased: a training round has the accelerator's memory.
            PromptTooLong: the prompt leaves no room for an answer.
        """

        def submit() -> GenerationStream:
            if self._released:
                raise ModelReleased(self._released)
            return self.engine.submit(replace(request, adapter=self._adapter(version)), background=background, client=client)

        # In one call: an adapter without requests may be dropped at the next one.
        return self.engine.call(submit)

    def _submit_later(self, version: PolicyVersion, request: GenerationRequest, on_progress: Callable[[], None]) -> GenerationStream:
        """As `submit`, in the background, and after a round that has the accelerator's memory."""
        while True:
            while not self._resident.wait(RELEASED_WAIT_S):
                on_progress()
            try:
                return self.submit(version, request, background=True)
            except ModelReleased:
                continue

    def generate(
        self, requests: Sequence[tuple[PolicyVersion, Prompt]], sampling: Sampling, seed: int, on_progress: Callable[[], None] = nothing
    ) -> list[GeneratedCompletion | PromptRefused]:
        """Complete answers for the comparison queue. They wait behind chats for a while, and join their batch after that.

        A prompt that the chat template refuses, or that leaves no room for an answer, gets the reason in place of an answer.

        Raises:
            ModelError: the adapter of a version is missing or damaged.
        """
        own_thread = self.engine.is_running
        answers: dict[int, GeneratedCompletion | PromptRefused] = {}
        streams: dict[int, tuple[GenerationStream, float]] = {}
        if not own_thread:
            self.start()
        try:
            for i, (version, prompt) in enumerate(requests):
                try:
                    request = GenerationRequest(tuple(self._collectable(prompt, sampling)), sampling, combined_seed(seed, version.id, i))
                except (PromptTooLong, TemplateError) as error:
                    answers[i] = PromptRefused(str(error))
                    continue
                streams[i] = self._submit_later(version, request, on_progress), time.monotonic()
            for i, (stream, started) in streams.items():
                ids, reason = [], "length"
                for output in stream:
                    on_progress()
                    ids.append(output.id)
                    reason = output.finish_reason or reason
                answers[i] = GeneratedCompletion(self.backbone.decode(ids), reason, time.monotonic() - started)
        finally:
            for stream, _ in streams.values():
                stream.cancel()
            if not own_thread:
                self.close()
        return [answers[i] for i in range(len(requests))]

    def _collectable(self, prompt: Prompt, sampling: Sampling) -> list[int]:
        """The token ids of a stored prompt, which must leave room for an answer with content; the context may cut a longer one."""
        ids = self.prompt(prompt.messages)
        context, room = self.backbone.context, min(sampling.max_new_tokens, LEAST_ROOM)
        if context is not None and len(ids) + room > context:
            raise PromptTooLong(
                f"the prompt has {len(ids):,} tokens, and with an answer of {room:,} that is more than the model's context of {context:,}: "
                "shorten it"
            )
        return ids

    def _adapter(self, version: PolicyVersion) -> str | None:
        """The name of a version's adapter in the backbone, loaded if it is new or has changed. Runs in the engine's thread."""
        if version.id < 0:
            if version.id not in self._loaded:
                raise ModelError(f"{version.name} was unloaded: load it again")
            return self._loaded[version.id].name
        if version.adapter_path is None:
            return None
        try:
            folder = policies.adapter_folder(self.store, version)
        except StoreError as error:
            raise ModelError(str(error)) from error
        if folder is None:
            return None
        found = fingerprint(folder)
        loaded = self._loaded.get(version.id)
        if loaded is None or loaded.fingerprint != found:
            # PEFT takes no dot in an adapter's name.
            name = f"v{version.id}g{next(self._generations)}"
            self.backbone.load_adapter(name, folder)
            loaded = self._loaded[version.id] = LoadedAdapter(name, found, 0.0)
        loaded.used = time.monotonic()
        self._drop_unused()
        return loaded.name

    def _drop_unused(self) -> None:
        """Drops adapters that no request uses: old ones of versions that were loaded again, and the ones unused for longest."""
        newest = sorted(self._loaded.values(), key=lambda loaded: loaded.used, reverse=True)[:MAX_ADAPTERS]
        keep = {loaded.name for loaded in newest} | self.engine.adapters_in_use()
        for name in self.backbone.adapters:
            if name not in keep:
                self.engine.forget(name)
                self.backbone.delete_adapter(name)
        self._loaded = {version: loaded for version, loaded in self._loaded.items() if loaded.name in keep}


def fingerprint(folder: Path) -> Fingerprint:
    """Changes whenever the adapter in a folder is replaced.

    Raises:
        ModelError: the folder has no adapter.
    """
    try:
        stat = (folder / "adapter_model.safetensors").stat()
    except OSError as error:
        raise ModelError(f"{folder}: its adapter is missing. Put it back, or repeat its run.") from error
    return str(folder), stat.st_mtime_ns, stat.st_size
