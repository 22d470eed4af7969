"""Base and tuned policies by name over one backbone, as the policy server and the simulation speak through them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from rlhf import weights
from rlhf.backbone import Backbone
from rlhf.filler import Drawn
from rlhf.sampling import Step, gather, generator, stream
from storage import policies
from storage.database import Database, StoreError
from storage.records import Message, PolicyVersion, Prompt, Sampling


class Speakers:
    """Who can answer. The adapter in use is a state of the backbone, so one token is drawn at a time under a lock."""

    def __init__(self, store: Database, model: str, backbone: Backbone):
        self.store, self.model, self.backbone = store, model, backbone
        self.base = policies.ensure_base(store, model, name=weights.display_name(model))
        self._lock = threading.Lock()
        self._chats = 0
        self._no_chat = threading.Condition()

    def versions(self) -> list[PolicyVersion]:
        """Those that this backbone can speak as."""
        return [
            v for v in policies.all_versions(self.store) if v.id == self.base.id or (v.kind == "tuned" and v.base_model == self.model)
        ]

    def why_not(self, version: PolicyVersion) -> str:
        """What keeps a version from answering here, as a sentence; empty when nothing does."""
        if version.kind == "external":
            return f"{version.name} does not run here: it cannot write new answers. Cancel the batch and choose other versions."
        if version.id not in {known.id for known in self.versions()}:
            return f"{version.name} stands over another base model: start rankloop with --model {version.base_model}."
        try:
            folder = policies.adapter_folder(self.store, version)
        except StoreError as error:
            return str(error)
        if folder is not None and not (folder / "adapter_config.json").is_file():
            return f"The adapter of {version.name} is missing: put it back into {folder}, or cancel the batch."
        return ""

    def named(self, name: str) -> PolicyVersion:
        """Raises KeyError when no such policy speaks here."""
        return {v.name: v for v in self.versions()}[name]

    def draw(
        self, asked: Sequence[tuple[PolicyVersion, Prompt]], sampling: Sampling, seed: int, tick: Callable[[], None] = lambda: None
    ) -> list[Drawn]:
        """Whole answers, those of one policy in one batch. Waits while somebody chats."""
        drawn: dict[int, Drawn] = {}
        for policy_id in sorted({policy.id for policy, _ in asked}):
            mine = [i for i, (policy, _) in enumerate(asked) if policy.id == policy_id]
            started = time.monotonic()
            prompts = [self.backbone.encode(asked[i][1].messages) for i in mine]
            tokens = self._turns(asked[mine[0]][0], prompts, sampling, generator(self.backbone.device, seed, policy_id))
            sampled = gather(self._yielding_to_chats(tokens), len(prompts), self.backbone.eos_id, tick)
            latency = time.monotonic() - started
            for i, s in zip(mine, sampled, strict=True):
                drawn[i] = Drawn(self.backbone.decode(s.ids), s.finish_reason, latency)
        return [drawn[i] for i in range(len(asked))]

    def speak(
        self, version: PolicyVersion, messages: Sequence[Message], sampling: Sampling, seed: int
    ) -> Iterator[tuple[str, str | None]]:
        """Pieces of one answer with None, and at last an empty piece with the finish reason."""
        ids: list[int] = []
        said, reason = "", "length"
        self._count_chat(1)
        try:
            prompt = self.backbone.encode(messages)
            for token, *_ in self._turns(version, [prompt], sampling, generator(self.backbone.device, seed)):
                if int(token[0]) == self.backbone.eos_id:
                    reason = "stop"
                    break
                ids.append(int(token[0]))
                text = self.backbone.tokenizer.decode(ids, skip_special_tokens=True)
                # A character of several tokens decodes to U+FFFD until its last one is there.
                if not text.endswith("\N{REPLACEMENT CHARACTER}") and len(text) > len(said):
                    yield text[len(said) :], None
                    said = text
            yield "", reason
        finally:
            self._count_chat(-1)

    def _turns(self, version: PolicyVersion, prompts: Sequence[Sequence[int]], sampling: Sampling, rng) -> Iterator[Step]:
        """The steps of `stream`, each under the lock and through the version's adapter."""
        tokens = stream(self.backbone, prompts, sampling, rng)
        while True:
            with self._lock, self.backbone.using(self._adapter(version)):
                step = next(tokens, None)
            if step is None:
                return
            yield step

    def _adapter(self, version: PolicyVersion) -> str | None:
        """The name of a version's adapter, loaded when it is first asked for. Call with the lock held."""
        if version.adapter_path is None:
            return None
        # PEFT takes no dot in an adapter's name.
        name = f"v{version.id}"
        if name not in self.backbone.adapters:
            try:
                folder = policies.adapter_folder(self.store, version)
            except StoreError as error:
                raise weights.ModelError(str(error)) from error
            self.backbone.load_adapter(name, folder)
        return name

    def _yielding_to_chats(self, tokens: Iterator[Step]) -> Iterator[Step]:
        for step in tokens:
            yield step
            with self._no_chat:
                self._no_chat.wait_for(lambda: self._chats == 0)

    def _count_chat(self, change: int) -> None:
        with self._no_chat:
            self._chats += change
            self._no_chat.notify_all()
