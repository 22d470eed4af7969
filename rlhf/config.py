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
    kind: str = "lora"
    """PEFT's kind of adapter: `lora`, `rslora`, `dora`, `peanut`, `ia3`, or `prompt` for learned prompts."""
    rank: int = 16
    """Inner dimension of the matrices of `lora`, `rslora`, `dora` and `peanut`."""
    alpha: int = 32
    """Scale of those kinds: updates are multiplied by alpha / rank, with `rslora` by alpha / sqrt(rank)."""
    top_layers: int = 0
    """How many of the last decoder layers get an adapter; 0 means all of them. A learned prompt has no layers."""
    virtual_tokens: int = 16
    """Learned vectors that `prompt` puts before every conversation."""


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
    pooling: str = "mean"
    """What the head reads: the `mean` hidden state over the answer, or that of its `last` token."""
    ensemble: int = 1
    """Heads on the same features, each fitted to its own bootstrap of the prompts; with more than one, their spread tells doubt."""
    conservatism: float = 0.0
    """Standard deviations over the heads taken off each score, so that doubtful answers are paid less."""
    ties: str = "drop"
    """What a tie teaches: nothing (`drop`), a pair that is right either way (`soft`), or a term of its own (`rao-kupper`, `davidson`)."""
    strength: str = "off"
    """What a vote's strength becomes: nothing (`off`), a `margin` in raw score units, or a `soft` label."""
    rankings: str = "pairs"
    """How three and more ranked completions are learned from: as all `pairs`, or as a row of picks (`plackett-luce`)."""
    annotator_weights: bool = False
    """Weigh votes by the log-odds of their annotator being right, from gold answers and agreement with others."""


@dataclass(frozen=True, slots=True)
class PPOConfig:
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
    length_penalty: float = 0.0
    """Reward units taken off the score per token of the completion; 0 is off."""
    kl_estimator: str = "k1"
    """KL per token: `k1`, the log-ratio, or `k3`, which is never negative (Schulman 2020)."""
    microbatch_size: int = 0
    """Completions read at once while learning; their gradients add up to the minibatch's. 0 reads it whole."""
    epoch_kl_stop: float = 0.0
    """KL per token to the policy that sampled, in nats, above which a step's remaining epochs are left out; 0 is off."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus beside the policy loss, per nat; 0 is off."""
    ptx_coef: float = 0.0
    """Weight of the loss on demonstrations, per nat and token (Ouyang 2022, eq. 2); 0 is off."""
    value_init: str = "zero"
    """Where values start: at `zero`, or at `reward`, a linear fit to the scores of one batch."""
    value_warmup: int = 0
    """Steps at the start in which only the value head learns."""
    kl_budget: float = 0.0
    """KL per completion, in nats, above which PPO ends; 0 is off."""
    keep: str = "last"
    """Which policy is kept: the `last` one, or the `best` by conservative score within the KL budget."""


@dataclass(frozen=True, slots=True)
class DPOConfig:
    epochs: int = 2
    """Passes of DPO over the preference pairs."""
    batch_size: int = 8
    """Preference pairs per update."""
    learning_rate: float = 2e-4
    """Adam step size of the policy."""
    beta: float = 0.1
    """How closely DPO keeps to the reference (Rafailov 2023, eq. 7); its implicit reward is beta times the log-ratio, in nats."""


@dataclass(frozen=True, slots=True)
class GroupConfig:
    steps: int = 10
    """Steps of RLOO or GRPO: each samples, scores and learns from one batch."""
    batch_size: int = 64
    """Completions sampled per step; drawn and paid as PPO's are."""
    minibatch_size: int = 16
    """Completions per gradient update."""
    size: int = 4
    """Completions of one prompt, whose scores are each other's baseline."""
    learning_rate: float = 3e-4
    """Adam step size of the policy."""
    clip: float = 0.2
    """Clip range of the policy ratio."""
    kl_coef: float = 0.05
    """Reward units per nat of KL to the reference; GRPO has it in the loss, per token, where RLOO takes it off the score."""


@dataclass(frozen=True, slots=True)
class SFTConfig:
    epochs: int = 3
    """Passes of SFT over the ideal answers."""
    batch_size: int = 8
    """Ideal answers per update."""
    learning_rate: float = 2e-4
    """Adam step size of the policy."""
    min_answers: int = 20
    """Fewest ideal answers on training prompts that SFT accepts."""


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    completions_per_prompt: int = 4
    """Completions of base and tuned policy compared per held-out prompt."""
    max_new_tokens: int = 48
    """Longest completion sampled for evaluation, in tokens."""
    shown_samples: int = 8
    """Held-out prompts whose answers before and after are shown."""
    best_of: int = 0
    """Most answers that best-of-n may choose from, beside the policy at equal KL; 0 is off."""


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
    method: str = "ppo"
    """How the policy learns: `ppo`, `rloo` or `grpo` by the reward model, `dpo` from the pairs, `sft` from ideal answers."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    adapter: AdapterConfig = field(default_factory=lambda: AdapterConfig(top_layers=10))
    ppo: PPOConfig = field(default_factory=PPOConfig)
    dpo: DPOConfig = field(default_factory=DPOConfig)
    group: GroupConfig = field(default_factory=GroupConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    reward_function: str | None = None
    """`module:function` that pays PPO in the reward model's place. No option: only the command line may name code (`--reward`)."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoundConfig:
        """Inverse of `to_dict`.

        Raises:
            ConfigError: a key is unknown, as in a run written by another version, or a value is none that an option can have.
        """
        try:
            config = _build(cls, _of_today(values))
            check(config)
        except (AttributeError, TypeError) as error:
            raise ConfigError(f"the options of the run cannot be read: rankloop did not write them ({error})") from error
        return config


PRESETS: dict[str, RoundConfig] = {
    # As measured on the default model: docs/research/reward-model.md for the first, docs/research/ppo.md for the second.
    "laptop": RoundConfig(reward=RewardConfig(depth=0.6, epochs=0), ppo=PPOConfig(lam=1.0, learning_rate=3e-4)),
    "tiny": RoundConfig(
        reward=RewardConfig(epochs=1, batch_size=8, min_pairs=4, reference_samples=8),
        ppo=PPOConfig(steps=2, batch_size=8, minibatch_size=4, max_new_tokens=8),
        dpo=DPOConfig(epochs=1),
        group=GroupConfig(steps=2, batch_size=8, minibatch_size=4, size=2),
        sft=SFTConfig(epochs=1, min_answers=1),
        evaluation=EvaluationConfig(completions_per_prompt=1, max_new_tokens=8, shown_samples=2),
    ),
}


ADAPTER_KINDS = ("lora", "rslora", "dora", "peanut", "ia3", "prompt")

CHOICES = {
    "method": ("ppo", "rloo", "grpo", "dpo", "sft"),
    "adapter-kind": ADAPTER_KINDS,
    "reward-adapter-kind": ADAPTER_KINDS,
    "device": ("auto", "cpu", "cuda"),
    "dtype": ("auto", "float32", "bfloat16"),
    "ppo-kl-estimator": ("k1", "k3"),
    "ppo-value-init": ("zero", "reward"),
    "ppo-keep": ("last", "best"),
    "reward-pooling": ("mean", "last"),
    "reward-ties": ("drop", "soft", "rao-kupper", "davidson"),
    "reward-strength": ("off", "margin", "soft"),
    "reward-rankings": ("pairs", "plackett-luce"),
}
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
    for name in (
        "reward-batch-size",
        "reward-reference-samples",
        "reward-depth",
        "ppo-steps",
        "ppo-batch-size",
        "ppo-minibatch-size",
        "ppo-epochs",
        "ppo-max-new-tokens",
        "evaluation-completions-per-prompt",
        "evaluation-max-new-tokens",
        "ppo-temperature",
        "reward-adapter-rank",
        "adapter-rank",
        "reward-adapter-virtual-tokens",
        "adapter-virtual-tokens",
        "dpo-epochs",
        "dpo-batch-size",
        "dpo-beta",
        "group-steps",
        "group-minibatch-size",
        "sft-epochs",
        "sft-batch-size",
        "sft-min-answers",
        "min-pairs",
        "reward-ensemble",
    ):
        if not next(o.default for o in options(config) if o.name == name):
            raise ConfigError(f"--{name} 0: must be greater than 0")
    for name, value in {"reward-depth": config.reward.depth, "ppo-gamma": config.ppo.gamma, "ppo-lam": config.ppo.lam}.items():
        if value > 1:
            raise ConfigError(f"--{name} {value}: must be at most 1")
    if config.reward.conservatism and config.reward.ensemble < 2:
        raise ConfigError(
            f"--reward-conservatism {config.reward.conservatism}: one head has no doubt to take off; set --reward-ensemble 3 or more"
        )
    if config.reward.rankings == "plackett-luce" and (config.reward.ties, config.reward.strength) != ("drop", "off"):
        raise ConfigError(
            "--reward-rankings plackett-luce: picks know neither ties nor strengths; set --reward-ties drop --reward-strength off"
        )
    for name, adapter, default in (
        ("adapter", config.adapter, RoundConfig().adapter),
        ("reward-adapter", config.reward.adapter, RewardConfig().adapter),
    ):
        if adapter.kind == "prompt" and adapter.top_layers not in (0, default.top_layers):
            raise ConfigError(
                f"--{name}-top-layers {adapter.top_layers}: a learned prompt lies before the first layer. Leave it out, or set it to 0"
            )
    if config.seed >= 2**32:
        raise ConfigError(f"--seed {config.seed}: must be below 2^32, as numpy's seeds are")
    if config.ppo.kl_target and not config.ppo.kl_horizon:
        raise ConfigError("--ppo-kl-horizon 0: must be greater than 0, or set --ppo-kl-target 0 to keep the coefficient fixed")
    if config.ppo.value_warmup and config.ppo.value_warmup >= config.ppo.steps:
        raise ConfigError(
            f"--ppo-value-warmup {config.ppo.value_warmup}: of {config.ppo.steps} steps none would be left in which the policy learns"
        )
    if config.group.size < 2:
        raise ConfigError(f"--group-size {config.group.size}: must be at least 2, for completions are compared within their group")
    for name, part in (("minibatch-size", config.group.minibatch_size), ("size", config.group.size)):
        if not config.group.batch_size or config.group.batch_size % part:
            raise ConfigError(f"--group-batch-size {config.group.batch_size} is no multiple of --group-{name} {part}")
    if config.ppo.batch_size % config.ppo.minibatch_size:
        raise ConfigError(f"--ppo-batch-size {config.ppo.batch_size} is no multiple of --ppo-minibatch-size {config.ppo.minibatch_size}")


def _of_today(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Before every method shared the policy's adapter, it was an option of PPO: such rows are resumed and compared too."""
    ppo = dict(values.get("ppo", {}))
    return {**values, "adapter": ppo.pop("adapter"), "ppo": ppo} if "adapter" in ppo else values


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls)
    unknown = set(values) - set(hints)
    if unknown:
        raise ConfigError(f"{cls.__name__} has no {', '.join(sorted(unknown))}: the run was made by another version")
    return cls(**{key: _build(hints[key], v) if is_dataclass(hints[key]) else v for key, v in values.items()})


@cache
def _help(cls: type) -> dict[str, str]:
    return {p.arg_name: p.description for p in docstring_parser.parse_from_object(cls).params}


# What only a person at the command line may say: a page's form, made from the options, never has it.
_NO_OPTION = {"reward_function"}

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
        if f.name in _NO_OPTION:
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
        elif f.name not in _NO_OPTION:
            yield ("-".join([f.name] if f.name in _UNPREFIXED else here)).replace("_", "-"), here


def _replace_at(node: Any, path: tuple[str, ...], value: Any) -> Any:
    head, *rest = path
    return replace(node, **{head: _replace_at(getattr(node, head), tuple(rest), value) if rest else value})
