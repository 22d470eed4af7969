"""What a round may be told. One frozen dataclass a subject, and named presets over them.

The command line, the Training page's form and the run's row are all derived from here, so an option is added in one
place: a field, with its unit in the line under it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import Any, get_type_hints

import docstring_parser

DEFAULT_MODEL = "default"
"""The packaged SmolLM2-135M-Instruct."""

DEFAULT_PRESET = "laptop"


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    rank: int = 16
    """Inner dimension of the LoRA matrices."""
    alpha: int = 32
    """LoRA scale: updates are multiplied by alpha / rank."""
    top_layers: int = 0
    """How many of the last decoder layers get an adapter; 0 means all of them."""


@dataclass(frozen=True, slots=True)
class RewardConfig:
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    depth: float = 0.4
    """Fraction of the decoder layers that the reward model reads through; judging needs no next-token layers."""
    probe_l2: float = 1.0
    """L2 penalty of the linear probe that the head starts from, per squared weight on standardised features."""
    epochs: int = 1
    """Passes over the preference pairs after the probe; 0 keeps the probe on the frozen base."""
    batch_size: int = 16
    """Preference pairs per update."""
    learning_rate: float = 1e-4
    """Adam step size of the reward model."""
    min_pairs: int = 50
    """Fewest preference pairs that a round accepts."""
    reference_samples: int = 64
    """Completions of the base model on which scores are normalised to mean 0, standard deviation 1."""


@dataclass(frozen=True, slots=True)
class PPOConfig:
    adapter: AdapterConfig = field(default_factory=lambda: AdapterConfig(top_layers=10))
    steps: int = 10
    """PPO steps: each samples, scores and learns from one batch."""
    batch_size: int = 64
    """Completions sampled per step."""
    minibatch_size: int = 16
    """Completions per gradient update."""
    epochs: int = 2
    """Passes over each step's batch."""
    max_new_tokens: int = 48
    """Longest completion sampled while training, in tokens."""
    temperature: float = 0.7
    """Sampling temperature; it divides the logits in both log-probability passes too."""
    learning_rate: float = 1e-3
    """Adam step size of the policy."""
    value_learning_rate: float = 1e-3
    """Adam step size of the value head."""
    max_grad_norm: float = 1.0
    """Global gradient norm above which the gradient is scaled down."""
    clip: float = 0.2
    """Clip range of the policy ratio (Schulman 2017, eq. 7)."""
    value_clip: float = 0.2
    """Clip range of the value, in reward units."""
    value_coef: float = 0.1
    """Weight of the value loss beside the policy loss."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """GAE's lambda (Schulman 2015, eq. 16)."""
    kl_coef: float = 0.05
    """Reward units per nat of KL to the reference."""
    kl_target: float = 6.0
    """KL per completion, in nats, that the adaptive controller steers to; 0 keeps the coefficient fixed."""
    kl_horizon: int = 500
    """Completions over which the controller adapts (Ziegler 2019, section 2.2)."""
    whiten_rewards: bool = False
    """Scale each batch's rewards to standard deviation 1, without moving their mean."""
    missing_eos_score: float | None = None
    """Score given instead to a completion that did not end within max_new_tokens; off when empty."""


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    completions_per_prompt: int = 4
    """Completions of base and tuned policy compared per held-out prompt."""
    max_new_tokens: int = 48
    """Longest completion sampled for evaluation, in tokens."""
    shown_samples: int = 8
    """Held-out prompts whose answers before and after are shown."""


@dataclass(frozen=True, slots=True)
class RoundConfig:
    model: str = DEFAULT_MODEL
    """`default`, a local folder, or a hub id."""
    seed: int = 0
    """Seed of everything random in the round."""
    include_simulated: bool = False
    """Learn from simulated judgments as well as from people's."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    dtype: str = "auto"
    """Of the frozen base weights: `float32`, `bfloat16`, or `auto` for bfloat16 where the processor computes in it."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoundConfig:
        """Inverse of `to_dict`.

        Raises:
            ConfigError: a key is unknown, as in a run written by another version.
        """
        return _build(cls, values)


PRESETS: dict[str, RoundConfig] = {
    "laptop": RoundConfig(),
    "tiny": RoundConfig(
        reward=RewardConfig(epochs=1, batch_size=8, min_pairs=4, reference_samples=8),
        ppo=PPOConfig(steps=2, batch_size=8, minibatch_size=4, max_new_tokens=8),
        evaluation=EvaluationConfig(completions_per_prompt=1, max_new_tokens=8, shown_samples=2),
    ),
}


CHOICES = {"device": ("auto", "cpu", "cuda"), "dtype": ("auto", "float32", "bfloat16")}
"""What an option of text may be, where that is not everything."""


class ConfigError(ValueError):
    """An option does not exist or cannot hold that value; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Option:
    """One field as the command line and the form show it."""

    name: str
    type: type
    optional: bool
    default: Any
    help: str


def options(config: RoundConfig) -> list[Option]:
    """Every option of a round, in the order of the page: `--seed`, `--min-pairs`, `--ppo-steps`, ..."""
    return list(_walk(config, ()))


def with_options(config: RoundConfig, values: Mapping[str, Any]) -> RoundConfig:
    """The configuration with the named options replaced; names as in `options`.

    Raises:
        ConfigError: a name is unknown or a value is out of its range.
    """
    paths = {name: path for name, path in _paths(config)}
    for name, value in values.items():
        if name not in paths:
            raise ConfigError(f"unknown option {name!r}")
        config = _replace_at(config, paths[name], value)
    check(config)
    return config


def check(config: RoundConfig) -> None:
    """Raises ConfigError with cause and remedy if the figures do not go together."""
    for option in options(config):
        value = option.default
        if value is None and option.optional:
            continue
        if not isinstance(value, (int, float) if option.type is float else option.type) or isinstance(value, bool) != (option.type is bool):
            raise ConfigError(f"--{option.name} {value!r}: must be {option.type.__name__}")
        if option.type in (int, float) and not math.isfinite(value):
            raise ConfigError(f"--{option.name} {value}: must be finite")
        if option.type in (int, float) and not option.optional and value < 0:
            raise ConfigError(f"--{option.name} {value}: must not be negative")
        if value not in (known := CHOICES.get(option.name, (value,))):
            raise ConfigError(f"--{option.name} {value}: choose one of {', '.join(known)}")
    for name in ("reward-batch-size", "reward-reference-samples", "reward-depth", "ppo-steps", "ppo-batch-size", "ppo-minibatch-size",
                 "ppo-epochs", "ppo-max-new-tokens", "evaluation-completions-per-prompt", "evaluation-max-new-tokens", "ppo-temperature",
                 "reward-adapter-rank", "ppo-adapter-rank", "min-pairs"):
        if not next(o.default for o in options(config) if o.name == name):
            raise ConfigError(f"--{name} 0: must be greater than 0")
    for name, value in {"reward-depth": config.reward.depth, "ppo-gamma": config.ppo.gamma, "ppo-lam": config.ppo.lam}.items():
        if value > 1:
            raise ConfigError(f"--{name} {value}: must be at most 1")
    if config.seed >= 2**32:
        raise ConfigError(f"--seed {config.seed}: must be below 2^32, as numpy's seeds are")
    if config.ppo.kl_target and not config.ppo.kl_horizon:
        raise ConfigError("--ppo-kl-horizon 0: must be greater than 0, or set --ppo-kl-target 0 to keep the coefficient fixed")
    if config.ppo.batch_size % config.ppo.minibatch_size:
        raise ConfigError(
            f"--ppo-batch-size {config.ppo.batch_size} is no multiple of --ppo-minibatch-size {config.ppo.minibatch_size}"
        )


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls)
    unknown = set(values) - set(hints)
    if unknown:
        raise ConfigError(f"{cls.__name__} has no {', '.join(sorted(unknown))}: the run was made by another version")
    return cls(**{key: _build(hints[key], v) if is_dataclass(hints[key]) else v for key, v in values.items()})


@cache
def _help(cls: type) -> dict[str, str]:
    return {p.arg_name: p.description for p in docstring_parser.parse_from_object(cls).params}


# Fields whose name says enough without the section it stands in.
_UNPREFIXED = {"min_pairs"}


def _walk(node: Any, path: tuple[str, ...]):
    hints = get_type_hints(type(node))
    for f in fields(node):
        value = getattr(node, f.name)
        here = (*path, f.name)
        if is_dataclass(value):
            yield from _walk(value, here)
            continue
        kinds = [t for t in getattr(hints[f.name], "__args__", (hints[f.name],)) if t is not type(None)]
        yield Option(
            name=("-".join([f.name] if f.name in _UNPREFIXED else here)).replace("_", "-"),
            type=kinds[0],
            optional=kinds != [hints[f.name]],
            default=value,
            help=_help(type(node)).get(f.name, ""),
        )


def _paths(node: Any, path: tuple[str, ...] = ()):
    for f in fields(node):
        value = getattr(node, f.name)
        here = (*path, f.name)
        if is_dataclass(value):
            yield from _paths(value, here)
        else:
            yield ("-".join([f.name] if f.name in _UNPREFIXED else here)).replace("_", "-"), here


def _replace_at(node: Any, path: tuple[str, ...], value: Any) -> Any:
    head, *rest = path
    return replace(node, **{head: _replace_at(getattr(node, head), tuple(rest), value) if rest else value})
