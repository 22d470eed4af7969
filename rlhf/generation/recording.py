"""Records what training needs while answers are sampled, so that no later pass computes it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlhf.models.backbone import Backbone
from rlhf.models.decoder import CachedHidden


class RolloutRecorder:
    """Log-probabilities, entropies and hidden states of every sampled token, and the activations of the lowest layers.

    Row r of every result is the request number r. Nothing is defined after a row's end.

    Args:
        prompt_lengths: of each request, in tokens.
        depths: the numbers of lowest layers whose output is recorded for prompt and answer; 0 is ignored.
    """

    def __init__(self, backbone: Backbone, prompt_lengths: Sequence[int], max_new_tokens: int, depths: Iterable[int] = ()):
        self.backbone, self.prompt_lengths = backbone, list(prompt_lengths)
        self.depths = sorted({depth for depth in depths if depth})
        self.longest_prompt = max(self.prompt_lengths, default=0)
        self.width = 0
        """Tokens of the longest answer so far."""
        rows, size, device = len(self.prompt_lengths), backbone.hidden_size, backbone.device
        dtype = backbone.base.dtype
        self.logprobs: Float[Tensor, "b t"] = torch.zeros(rows, max_new_tokens, device=device)
        self.entropy: Float[Tensor, "b t"] = torch.zeros(rows, max_new_tokens, device=device)
        self.hidden: Float[Tensor, "b t d"] = torch.zeros(rows, max_new_tokens, size, device=device, dtype=dtype)
        # One column more than prompt and answer: an end-of-sequence token follows an answer that has none.
        columns = self.longest_prompt + max_new_tokens + 1
        self._activations = {depth: torch.zeros(rows, columns, size, device=device, dtype=dtype) for depth in self.depths}
        self._passed: dict[int, Tensor] = {}

    def recording(self) -> ExitStack:
        """Inside the block, the activations of a forward pass are kept for `add_activations`."""
        stack = ExitStack()
        for depth in self.depths:
            stack.enter_context(self.backbone.decoder.record_hidden(depth, self._keep(depth)))
        return stack

    def _keep(self, depth: int) -> Callable[[Tensor], None]:
        def keep(hidden: Tensor) -> None:
            self._passed[depth] = hidden

        return keep

    def add_activations(self, requests: Sequence[int], row: int, start: int, tokens: int) -> None:
        """Adds those of `tokens` positions from `start` on, which the last pass computed in its row `row`, to these requests."""
        for depth, activations in self._activations.items():
            # Learned vectors of prompt tuning come first, and are no tokens.
            passed = self._passed[depth][row]
            for request in requests:
                first = self.longest_prompt - self.prompt_lengths[request] + start
                activations[request, first : first + tokens] = passed[:tokens]

    def add_step_activations(self, requests: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> None:
        """Adds those of one token for each of the pass's rows; columns count from the longest prompt's first token."""
        for depth in self.depths:
            self.add_activations_at(depth, requests, columns, self._passed[depth][:, 0])

    def add_activations_at(self, depth: int, requests: Int[Tensor, " n"], columns: Int[Tensor, " n"], hidden: Float[Tensor, "n d"]) -> None:
        """Adds the output of the lowest `depth` layers for one token of each of these requests."""
        self._activations[depth][requests, columns] = hidden

    def add_tokens(
        self,
        requests: Int[Tensor, " n"],
        positions: Int[Tensor, " n"],
        width: int,
        logprobs: Float[Tensor, " n"],
        entropy: Float[Tensor, " n"],
        hidden: Float[Tensor, "n d"],
    ) -> None:
        """Adds one sampled token for each of these requests, with the hidden states that it was sampled from.

        Args:
            positions: of the tokens in their answers, from 0 on.
            width: the largest of them plus 1.
        """
        self.width = max(self.width, width)
        self.logprobs[requests, positions] = logprobs
        self.entropy[requests, positions] = entropy
        self.hidden[requests, positions] = hidden

    def cached(self, depth: int) -> CachedHidden | None:
        """[rows, prompt + answer + 1, d], prompts padded on the left; None for depth 0."""
        return CachedHidden(depth, self._activations[depth][:, : self.longest_prompt + self.width + 1]) if depth else None
