"""Policy and value head as one module: token ids in; log-probabilities, entropy and values out.

Everything that PPO trains goes through `ActorCritic.forward`, so that what wraps a module (DistributedDataParallel, FSDP) sees every
pass. The reference is the same pass without an adapter. Leaves out the losses (`ppo_math`) and where batches come from
(`rollout`, `ptx`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rlhf.models.adapters import AdapterChoice
from rlhf.models.backbone import Backbone
from rlhf.models.decoder import CachedHidden
from rlhf.models.padding import positions


class TokenBatch(NamedTuple):
    """Rows of tokens, of which the last t columns are looked at where the mask says so."""

    ids: Int[Tensor, "b s"]
    real: Bool[Tensor, "b s"]
    """False for padding."""
    mask: Bool[Tensor, "b t"]
    """Which of the last t columns' tokens are asked for; the first column of a row never is, because nothing predicts it."""
    cached: CachedHidden | None = None
    """Activations of the lowest layers at all columns but the last, [b, s-1, d]: no pass computes them again."""
    asked: tuple[Int[Tensor, " n"], Int[Tensor, " n"]] | None = None
    """The rows and columns in which the mask is true, where the host knows them: an accelerator is not waited for then."""


class TokenStats(NamedTuple):
    """Results of one forward pass at the tokens that are asked for; 0 outside the mask."""

    logprobs: Float[Tensor, "b t"]
    entropy: Float[Tensor, "b t"] | None
    values: Float[Tensor, "b t"] | None
    hidden: Float[Tensor, "b t d"] | None = None
    """The last hidden states, from which the tokens' logits and values are computed."""


class ActorCritic(nn.Module):
    """The policy, on a shared backbone, and the value head.

    Its parameters with a gradient are the adapter's and the value head's; the base's are there too, frozen.
    """

    backbone: Backbone

    def __init__(self, backbone: Backbone, value_head: nn.Module, *, trained: str | None, temperature: float):
        super().__init__()
        self.model = backbone.trained_module(trained)
        self.value_head, self.temperature = value_head, temperature
        # Not a submodule of its own: `model` holds the weights.
        object.__setattr__(self, "backbone", backbone)

    def train(self, mode: bool = True) -> ActorCritic:
        """Sets the flag alone and leaves the base in eval mode: with dropout the trained policy would differ from the sampled one."""
        self.training = mode
        return self

    def forward(
        self,
        batch: TokenBatch,
        *,
        adapter: AdapterChoice,
        train_policy: bool = True,
        entropy: bool = False,
        values: bool = True,
        return_hidden: bool = False,
    ) -> TokenStats:
        """Log-probabilities, entropy and values of the tokens that the batch asks for. Logits are computed at those alone.

        Args:
            train_policy: whether gradients reach the adapter; without, they reach the value head alone.
            entropy: also compute the entropy, with its gradient. Sampling records it without one.
            values: compute the values.
            return_hidden: also return the last hidden states.
        """
        stats = forward_logprobs(
            self.backbone,
            self.value_head if values else None,
            batch,
            self.temperature,
            adapter=adapter,
            train_policy=train_policy,
            entropy=entropy,
        )
        return stats if return_hidden else stats._replace(hidden=None)


def forward_logprobs(
    backbone: Backbone,
    value_head: nn.Module | None,
    batch: TokenBatch,
    temperature: float,
    *,
    adapter: AdapterChoice,
    train_policy: bool = True,
    entropy: bool = False,
) -> TokenStats:
    """As `ActorCritic.forward`, for a pass that trains nothing and has no module: of the reference, say."""
    # No token follows the last one, so its hidden state is not needed.
    ids, real = batch.ids[:, :-1], batch.real[:, :-1]
    first = batch.ids.shape[1] - batch.mask.shape[1]
    hidden = backbone.decoder.forward_upper(batch.cached, ids, real, positions=positions(real), adapter=adapter)
    predicting = hidden[:, first - 1 :]
    if not train_policy:
        predicting = predicting.detach()
    asked = batch.mask.nonzero(as_tuple=True) if batch.asked is None else batch.asked
    tokens = backbone.token_logprobs(predicting[asked], batch.ids[:, first:][asked], temperature, entropy=entropy)
    return TokenStats(
        _scatter(tokens.logprobs, batch.mask),
        None if tokens.entropy is None else _scatter(tokens.entropy, batch.mask),
        None if value_head is None else value_head(predicting.float()) * batch.mask,
        predicting,
    )


def _scatter(flat: Float[Tensor, " n"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)
