"""A GGUF file, read by llama.cpp through xllamacpp, which has it built. Its server gives log-probabilities and no logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from xllamacpp import CommonParams, Server

CONTEXT = 4096


class Model:
    """See `check.Model`."""

    gives_logprobs = True

    def __init__(self, folder: Path):
        file = str(folder / "model.gguf")
        tokens = GGUFReader(file).fields["tokenizer.ggml.tokens"].contents()
        self.vocabulary, self.plain = len(tokens), tokens.index("a")
        params = CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.warmup = file, CONTEXT, 1, False
        self.server = Server(params)
        self.ids: list[int] = []

    def read(self, prompt: list[int]) -> Any:
        self.ids = list(prompt)
        return self._next()

    def step(self, token: int) -> Any:
        self.ids.append(token)
        return self._next()

    def _next(self) -> Any:
        asked = {"prompt": self.ids, "max_tokens": 1, "logprobs": self.vocabulary, "cache_prompt": True}
        # The log-probabilities are of before the bias. It has a plain token chosen, because an end token comes without them.
        reply: Any = self.server.handle_completions(asked | {"temperature": 0.0, "logit_bias": [[self.plain, 1000.0]]})
        logprobs = np.full(self.vocabulary, -np.inf)
        for token in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            logprobs[token["id"]] = token["logprob"]
        return logprobs
