"""What the stages work with: the base model as the options ask for it, and what scores completions. Every rank makes its own."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf import model_files
from rlhf.config import RoundConfig
from rlhf.models.backbone import Backbone
from rlhf.reward.model import RewardModel
from rlhf.reward.outside import OutsideRewardModel, WeightedReward
from rlhf.reward.scoring import FunctionReward, Scorer
from rlhf.runs.reward_function import RewardFunction
from storage.core.records import Message


def load_backbone(config: RoundConfig) -> Backbone:
    """The base model. Raises ModelError where it is not available."""
    backbone = Backbone.load(model_files.resolve(config.model), config.device, config.dtype, load_in_4bit=config.load_in_4bit)
    backbone.fold_system = config.fold_system
    backbone.decoder.checkpoint_layers = config.gradient_checkpointing
    backbone.limit_rows(config.max_length, virtual_tokens=virtual_tokens(config))
    return backbone


def virtual_tokens(config: RoundConfig) -> int:
    """The most learned vectors that an adapter of the round puts before a row."""
    return max((a.virtual_tokens for a in (config.adapter, config.reward.adapter) if a.kind == "prompt"), default=0)


def load_outside(config: RoundConfig, backbone: Backbone) -> OutsideRewardModel | None:
    """The reward model from elsewhere that the options name, on the backbone's device and in its precision; None without one.

    Raises:
        ModelError: its folder is no such model, or cannot be read.
    """
    if not config.reward.model_path:
        return None
    folder = model_files.outside_reward_model(config.reward.model_path)
    return OutsideRewardModel.load(folder, backbone.device, backbone.base.dtype)


def make_scorer(
    config: RoundConfig,
    backbone: Backbone,
    model: RewardModel,
    outside: OutsideRewardModel | None,
    function: RewardFunction | None,
    asked: Sequence[Sequence[Message]],
) -> Scorer:
    """What scores the completions of a round: the reward model, alone or with one from elsewhere, or a function in its place.

    Args:
        asked: all prompts whose completions are scored.
    """
    if function is not None and config.reward_function is not None:
        return FunctionReward(function, config.reward_function, backbone, asked)
    if outside is not None:
        return WeightedReward(model, outside, config.reward.model_weight, backbone, asked)
    return model
