"""The options of a round: one frozen dataclass for each section, and named presets of them all.

The command line, the Training page's form and the run's row are derived from these dataclasses, so an option is added in one
place: a field whose type holds its bounds or choices, with its meaning and unit in the line under it. Only the translations of
that line stand elsewhere, in `feedback_ui/locales`. Rules that concern several options are in `check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import docstring_parser
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from storage.core.records import Sampling

DEFAULT_MODEL = "default"
"""The packaged SmolLM2-135M-Instruct."""

DEFAULT_PRESET = "laptop"

Share = Annotated[float, Field(ge=0, le=1)]

AdapterKind = Literal["lora", "rslora", "dora", "peanut", "ia3", "prompt"]
Method = Literal["ppo", "rloo", "grpo", "dpo", "sft"]
METHODS: tuple[Method, ...] = get_args(Method)
AtChance = Literal["auto", "ask", "continue", "stop"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a field has its bounds; appended to the error message."""

    text: str


class Naming(Enum):
    """How the option of a field is named if not `--section-field`."""

    UNPREFIXED = "unprefixed"
    """The field's name alone, without its section."""
    NOT_AN_OPTION = "not an option"
    """The field is not an option: only the command line may set it, not a page's form."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    kind: AdapterKind = "lora"
    """PEFT's kind of adapter: `lora`, `rslora`, `dora`, `peanut`, `ia3`, or `prompt` for learned prompts."""
    rank: PositiveInt = 16
    """Inner dimension of the matrices of `lora`, `rslora`, `dora` and `peanut`."""
    alpha: NonNegativeInt = 32
    """Scale of those kinds: updates are multiplied by alpha / rank, with `rslora` by alpha / sqrt(rank)."""
    top_layers: NonNegativeInt = 0
    """How many of the last decoder layers get an adapter; 0 means all of them. A learned prompt has no layers."""
    virtual_tokens: PositiveInt = 16
    """Learned vectors that `prompt` puts before every conversation."""


@dataclass(frozen=True, slots=True)
class RewardConfig:
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    depth: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Fraction of the decoder layers in the reward model's forward pass; scoring needs no next-token layers."""
    probe_l2: NonNegativeFloat = 1.0
    """L2 penalty of the linear probe that the head starts from, per squared weight on standardised features."""
    epochs: NonNegativeInt = 1
    """Passes over the preference pairs after the probe; 0 keeps the probe on the frozen base."""
    batch_size: PositiveInt = 16
    """Preference pairs per update."""
    learning_rate: NonNegativeFloat = 1e-4
    """Adam step size of the reward model."""
    min_pairs: Annotated[PositiveInt, Naming.UNPREFIXED] = 50
    """Fewest preference pairs that teach, those on training prompts, that a round accepts."""
    normalize_samples: PositiveInt = 64
    """Completions of the base model on which scores are normalised to mean 0, standard deviation 1."""
    pooling: Literal["mean", "last"] = "mean"
    """Input of the head: the `mean` hidden state over the answer, or that of its `last` token."""
    ensemble: PositiveInt = 1
    """Heads on the same features, each fitted to its own bootstrap of the prompts; the spread of their scores measures uncertainty."""
    std_penalty: NonNegativeFloat = 0.0
    """Standard deviations over the heads subtracted from each score, so that uncertain answers score lower."""
    ties: Literal["drop", "soft", "rao-kupper", "davidson"] = "drop"
    """Loss of a tie: none (`drop`), a pair that is right either way (`soft`), or a term of its own (`rao-kupper`, `davidson`)."""
    strength: Literal["off", "margin", "soft"] = "off"
    """Use of a vote's strength: none (`off`), a `margin` in raw score units, or a `soft` label."""
    rankings: Literal["pairs", "plackett-luce"] = "pairs"
    """Loss of three and more ranked completions: over all `pairs`, or over successive choices of the best one left (`plackett-luce`)."""
    annotator_weights: bool = False
    """Weigh votes by the log-odds of their annotator being right, from gold answers and agreement with others."""
    model_path: str | None = None
    """Folder of a sequence-classification model with one output that scores too, with a base and a tokenizer of its own; off when empty."""
    model_weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of that model's score, above 0 and at most 1; the rest is the learned reward model's."""


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How the round samples completions: in training by PPO, RLOO and GRPO, and for the reward model's normalisation."""

    max_new_tokens: PositiveInt = 48
    """Longest completion sampled while training, in tokens."""
    temperature: PositiveFloat = 0.7
    """Sampling temperature in training and evaluation; log-probabilities are computed from logits divided by it."""

    def to_sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens)


@dataclass(frozen=True, slots=True)
class ScoringConfig:
    """How the scores of PPO, RLOO, GRPO and best-of-n come from those of the reward model or the reward function."""

    missing_eos_score: float | None = None
    """Score of a completion that did not end within max_new_tokens, in place of its own; off when empty."""
    length_penalty: NonNegativeFloat = 0.0
    """Reward units subtracted from the score per token of the completion; 0 is off."""


@dataclass(frozen=True, slots=True)
class PPOConfig:
    steps: PositiveInt = 10
    """PPO steps: each samples, scores and learns from one batch."""
    batch_size: PositiveInt = 64
    """Completions sampled per step."""
    minibatch_size: PositiveInt = 16
    """Completions per gradient update."""
    epochs: PositiveInt = 2
    """Passes over each step's batch."""
    learning_rate: NonNegativeFloat = 1e-3
    """Adam step size of the policy."""
    value_learning_rate: NonNegativeFloat = 1e-3
    """Adam step size of the value head."""
    max_grad_norm: NonNegativeFloat = 1.0
    """Global gradient norm above which the gradient is scaled down."""
    clip: NonNegativeFloat = 0.2
    """Clip range of the policy ratio (Schulman 2017, eq. 7)."""
    value_clip: NonNegativeFloat = 0.2
    """Clip range of the value, in reward units."""
    value_coef: NonNegativeFloat = 0.1
    """Weight of the value loss beside the policy loss."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Discount per token."""
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    """GAE's lambda (Schulman 2015, eq. 16)."""
    kl_coef: NonNegativeFloat = 0.05
    """Reward units per nat of KL to the reference."""
    kl_target: NonNegativeFloat = 6.0
    """KL per completion, in nats, that the adaptive controller steers to; 0 keeps the coefficient fixed."""
    kl_horizon: NonNegativeInt = 500
    """Completions over which the controller adapts (Ziegler 2019, section 2.2)."""
    whiten_rewards: bool = False
    """Scale each batch's rewards to standard deviation 1, without moving their mean."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """KL per token: `k1`, the log-ratio, or `k3`, which is never negative (Schulman 2020)."""
    microbatch_size: NonNegativeInt = 0
    """Completions per forward and backward pass; gradients are summed over the minibatch. 0 takes the whole minibatch."""
    early_stopping_kl: NonNegativeFloat = 0.0
    """KL per token to the policy that sampled, in nats, above which a step's remaining epochs are left out; 0 is off."""
    entropy_coef: NonNegativeFloat = 0.0
    """Weight of the entropy bonus beside the policy loss, per nat; 0 is off."""
    ptx_coef: NonNegativeFloat = 0.0
    """Weight of the loss on demonstrations, per nat and token (Ouyang 2022, eq. 2); 0 is off."""
    value_init: Literal["zero", "reward"] = "zero"
    """Where values start: at `zero`, or at `reward`, a linear fit to the scores of one batch."""
    value_warmup: NonNegativeInt = 0
    """Steps at the start in which only the value head learns."""
    kl_budget: NonNegativeFloat = 0.0
    """KL per completion, in nats, above which PPO ends; 0 is off."""
    keep: Literal["last", "best"] = "last"
    """Which policy is kept: the `last` one, or the `best` by conservative score within the KL budget."""
    importance_sampling_clip_max: PositiveFloat = 3.0
    """With rollouts from another server: largest weight of a token's loss, its probability here over that there."""


@dataclass(frozen=True, slots=True)
class DPOConfig:
    epochs: PositiveInt = 2
    """Passes of DPO over the preference pairs."""
    batch_size: PositiveInt = 8
    """Preference pairs per update."""
    learning_rate: NonNegativeFloat = 2e-4
    """Adam step size of the policy."""
    beta: PositiveFloat = 0.1
    """How closely DPO keeps to the reference (Rafailov 2023, eq. 7): the implicit reward is beta times the log-ratio, in nats."""


@dataclass(frozen=True, slots=True)
class GroupConfig:
    steps: PositiveInt = 10
    """Steps of RLOO or GRPO: each samples, scores and learns from one batch."""
    batch_size: PositiveInt = 64
    """Completions sampled per step."""
    minibatch_size: PositiveInt = 16
    """Completions per gradient update."""
    num_generations: Annotated[int, Field(ge=2), Reason("because completions are compared within their group")] = 4
    """Completions of one prompt, whose scores serve as each other's baseline."""
    learning_rate: NonNegativeFloat = 3e-4
    """Adam step size of the policy."""
    clip: NonNegativeFloat = 0.2
    """Clip range of the policy ratio."""
    kl_coef: NonNegativeFloat = 0.05
    """Reward units per nat of KL to the reference; GRPO adds it to the loss, per token; RLOO subtracts it from the score."""


@dataclass(frozen=True, slots=True)
class SFTConfig:
    epochs: PositiveInt = 3
    """Passes of SFT over the ideal answers."""
    batch_size: PositiveInt = 8
    """Ideal answers per update."""
    learning_rate: NonNegativeFloat = 2e-4
    """Adam step size of the policy."""
    min_answers: PositiveInt = 20
    """Fewest ideal answers on training prompts that SFT accepts."""


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    completions_per_prompt: PositiveInt = 4
    """Completions of base and tuned policy compared per held-out prompt."""
    max_new_tokens: PositiveInt = 48
    """Longest completion sampled for evaluation, in tokens."""
    batch_size: PositiveInt = 16
    """Completions per forward pass in which the KL of the tuned policy is measured."""
    shown_samples: NonNegativeInt = 8
    """Held-out prompts whose answers before and after are shown."""
    best_of: NonNegativeInt = 0
    """Largest n of the best-of-n sampling that the policy is compared with at equal KL; 0 is off."""


@dataclass(frozen=True, slots=True)
class GuardsConfig:
    min_win_rate: Share = 0.4
    """Lowest upper end of the 95% interval of the win rate over the base under the reward model, 0 to 1; 0 turns it off."""
    max_kl: NonNegativeFloat = 50.0
    """Largest KL to the base, in nats per held-out answer."""
    max_length_ratio: Annotated[float, Field(ge=1)] = 3.0
    """Most times that held-out answers may be longer or shorter than the base's, in tokens."""
    max_repetition: Share = 0.25
    """Largest rise of the share of four-token runs that stood in the same answer before, 0 to 1."""
    max_unended: Share = 0.3
    """Largest rise of the share of answers that are cut at the limit of tokens, 0 to 1."""
    max_empty: Share = 0.1
    """Largest share of empty answers, 0 to 1."""
    max_phrase: Share = 0.5
    """Largest rise of the share of held-out prompts whose answers contain one and the same phrase of five words, 0 to 1."""


@dataclass(frozen=True, slots=True)
class RoundConfig:
    model: str = DEFAULT_MODEL
    """`default`, a local folder, or a hub id."""
    seed: Annotated[int, Field(ge=0, lt=2**32), Reason("because numpy's seeds are unsigned 32-bit numbers")] = 0
    """Seed of everything random in the round."""
    include_simulated: bool = False
    """Learn from simulated judgments as well as from people's."""
    demo_votes: bool = False
    """Learn from the blind votes of the Demo page as well."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`, `cpu` or `cuda`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the frozen base weights: `float32`, `bfloat16`, or `auto` for bfloat16 where the processor computes in it."""
    load_in_4bit: bool = False
    """Pack the frozen base's weights in 4 bits, where they would fill a GPU. It needs bitsandbytes, and on a processor it saves nothing."""
    launcher: Literal["none", "accelerate"] = "none"
    """Who starts the processes that train: `none` is one process, `accelerate` starts `processes` of them on this machine."""
    processes: PositiveInt = 1
    """Processes that train side by side, each on a GPU of its own where there are some; batch sizes are those of all together."""
    max_length: Annotated[int, Field(ge=16)] = 2048
    """Most tokens of prompt and answer together, and never more than the model's context: longer answers are cut at their end."""
    gradient_checkpointing: bool = False
    """Compute the activations of each layer again in the backward pass and do not keep them: less memory, more time."""
    fold_system: bool = True
    """Put a system message before the first user turn where the chat template has no system role; off leaves such prompts out."""
    method: Method = "ppo"
    """How the policy learns: `ppo`, `rloo` or `grpo` by the reward model, `dpo` from the pairs, `sft` from ideal answers."""
    at_chance: AtChance = "auto"
    """Before a policy learns from a reward model no better than a coin: `ask`, `continue`, `stop`, or `auto`, by who started the round."""
    rollouts: str | None = None
    """Address of an OpenAI-compatible server that samples PPO's rollouts with the adapter it is sent, as vLLM's; off when empty."""
    rollouts_model: str | None = None
    """Name of the base model at that server, where it serves several; off when empty."""
    policy_start: Literal["base", "current"] = "base"
    """Where the policy begins, and what the KL penalty holds it to: the `base`, or the `current` policy, which was promoted last."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    adapter: AdapterConfig = field(default_factory=lambda: AdapterConfig(top_layers=10))
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    dpo: DPOConfig = field(default_factory=DPOConfig)
    group: GroupConfig = field(default_factory=GroupConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    guards: GuardsConfig = field(default_factory=GuardsConfig)
    reward_function: Annotated[str | None, Naming.NOT_AN_OPTION] = None
    """`module:function` that scores completions in place of the reward model. Only the command line may name code (`--reward`)."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoundConfig:
        """Inverse of `to_dict`.

        Raises:
            ConfigError: a key is unknown, as in a run written by another version, or an option cannot have that value.
        """
        try:
            config: RoundConfig = _build(cls, values)
            check(config)
        except (AttributeError, TypeError) as error:
            raise ConfigError(f"the options of the run cannot be read: rankloop did not write them ({error})") from error
        return config


PRESETS: dict[str, RoundConfig] = {
    # As measured on the default model: docs/research/reward-model.md for the first, docs/research/ppo.md for the second.
    "laptop": RoundConfig(reward=RewardConfig(depth=0.6, epochs=0), ppo=PPOConfig(lam=1.0, learning_rate=3e-4)),
    "tiny": RoundConfig(
        reward=RewardConfig(epochs=1, batch_size=8, min_pairs=4, normalize_samples=8),
        sampling=SamplingConfig(max_new_tokens=8),
        ppo=PPOConfig(steps=2, batch_size=8, minibatch_size=4),
        dpo=DPOConfig(epochs=1),
        group=GroupConfig(steps=2, batch_size=8, minibatch_size=4, num_generations=2),
        sft=SFTConfig(epochs=1, min_answers=1),
        evaluation=EvaluationConfig(completions_per_prompt=1, max_new_tokens=8, batch_size=4, shown_samples=2),
    ),
}


RENAMED_OPTIONS: Mapping[str, str] = {
    "ppo-max-new-tokens": "sampling-max-new-tokens",
    "ppo-temperature": "sampling-temperature",
    "ppo-missing-eos-score": "scoring-missing-eos-score",
    "ppo-length-penalty": "scoring-length-penalty",
    "ppo-epoch-kl-stop": "ppo-early-stopping-kl",
    "reward-conservatism": "reward-std-penalty",
    "reward-reference-samples": "reward-normalize-samples",
    "group-size": "group-num-generations",
}
"""Options by their names in version 0.1.0, with the current names. An old name is refused with an error that gives the current one.

The rows of old runs have the current names: a migration renamed them.
"""


class ConfigError(ValueError):
    """An option does not exist or cannot hold that value; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Option:
    """One field as the command line and the form show it."""

    name: str
    section: str
    """`ppo` of `--ppo-steps`; empty for an option of the round itself."""
    type: type
    optional: bool
    default: Any
    help: str
    choices: tuple[str, ...]
    """All values that an option of text can have; empty where it can have any."""
    bounds: str
    """`above 0, at most 1`; empty where a number can have any value."""


def options(config: RoundConfig) -> list[Option]:
    """Every option of a round, in the order of the page: `--seed`, `--min-pairs`, `--ppo-steps`, ..."""
    return [
        Option(_option_name(path, rule), _section(path, rule), rule.type, rule.optional, value, rule.help, rule.choices, rule.bounds)
        for path, rule, value in _fields(config)
    ]


def with_options(config: RoundConfig, values: Mapping[str, Any]) -> RoundConfig:
    """The configuration with the named options replaced; names as in `options`.

    Raises:
        ConfigError: a name is unknown or a value is out of its range.
    """
    paths = {_option_name(path, rule): path for path, rule, _ in _fields(config)}
    for name, value in values.items():
        if name in RENAMED_OPTIONS:
            raise ConfigError(f"--{name} was renamed: use --{RENAMED_OPTIONS[name]}")
        if name not in paths:
            raise ConfigError(f"unknown option {name!r}")
        config = _replace_at(config, paths[name], value)
    check(config)
    return config


def check(config: RoundConfig) -> None:
    """Checks each option against its field, and the options that depend on each other.

    Raises:
        ConfigError: an option is invalid; the message has the first one, with cause and remedy.
    """
    for path, rule, value in _fields(config):
        if refusal := rule.refusal(value):
            raise ConfigError(f"--{_option_name(path, rule)} {refusal}")
    if config.reward.std_penalty and config.reward.ensemble < 2:
        raise ConfigError(
            f"--reward-std-penalty {config.reward.std_penalty}: the scores of one head have no standard deviation; "
            "set --reward-ensemble 3 or more"
        )
    if config.reward.rankings == "plackett-luce" and (config.reward.ties, config.reward.strength) != ("drop", "off"):
        raise ConfigError(
            "--reward-rankings plackett-luce: this loss supports neither ties nor strengths; set --reward-ties drop --reward-strength off"
        )
    if config.reward.model_path and config.reward_function:
        raise ConfigError(f"--reward-model-path and --reward {config.reward_function}: one of them scores, leave out the other")
    for name, adapter, default in (
        ("adapter", config.adapter, RoundConfig().adapter),
        ("reward-adapter", config.reward.adapter, RewardConfig().adapter),
    ):
        if adapter.kind == "prompt" and adapter.top_layers not in (0, default.top_layers):
            raise ConfigError(
                f"--{name}-top-layers {adapter.top_layers}: a learned prompt lies before the first layer. "
                "Leave the option out, or set it to 0"
            )
    if config.ppo.kl_target and not config.ppo.kl_horizon:
        raise ConfigError("--ppo-kl-horizon 0: must be greater than 0, or set --ppo-kl-target 0 to keep the coefficient fixed")
    if config.ppo.value_warmup and config.ppo.value_warmup >= config.ppo.steps:
        raise ConfigError(f"--ppo-value-warmup {config.ppo.value_warmup}: leaves the policy none of the {config.ppo.steps} steps; lower it")
    for name, tokens in (("sampling", config.sampling.max_new_tokens), ("evaluation", config.evaluation.max_new_tokens)):
        if tokens + 2 > config.max_length:
            raise ConfigError(
                f"--{name}-max-new-tokens {tokens}: leaves no room for a prompt within --max-length {config.max_length}; "
                "raise that, or lower this"
            )
    _check_processes(config)
    _check_rollouts(config)
    for name, part in (("minibatch-size", config.group.minibatch_size), ("num-generations", config.group.num_generations)):
        if config.group.batch_size % part:
            raise ConfigError(f"--group-batch-size {config.group.batch_size} is no multiple of --group-{name} {part}")
    if config.ppo.batch_size % config.ppo.minibatch_size:
        raise ConfigError(f"--ppo-batch-size {config.ppo.batch_size} is no multiple of --ppo-minibatch-size {config.ppo.minibatch_size}")


TRAINED_TOGETHER: tuple[Method, ...] = ("ppo", "dpo")
"""Methods that several processes train together."""


def _check_processes(config: RoundConfig) -> None:
    if config.processes == 1:
        return
    if config.launcher == "none":
        raise ConfigError(f"--processes {config.processes}: nothing starts them; add --launcher accelerate")
    if config.method not in TRAINED_TOGETHER:
        raise ConfigError(
            f"--processes {config.processes}: --method {config.method} is trained by one process; leave the option out, "
            f"or choose {' or '.join(TRAINED_TOGETHER)}"
        )
    for name, size in (("batch-size", config.ppo.batch_size), ("minibatch-size", config.ppo.minibatch_size)):
        if config.method == "ppo" and size % config.processes:
            raise ConfigError(
                f"--ppo-{name} {size}: cannot be shared equally by --processes {config.processes}; make it a multiple of that number"
            )


SERVED_KINDS: tuple[AdapterKind, ...] = ("lora", "rslora")
"""Kinds of adapter that a rollout server can load."""


def _check_rollouts(config: RoundConfig) -> None:
    if config.rollouts is None:
        return
    try:
        url = urlsplit(config.rollouts)
        wrong = url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment
    except ValueError:
        wrong = True
    if wrong:
        raise ConfigError(f"--rollouts {config.rollouts}: is no address of a server; it is like http://127.0.0.1:8000/v1")
    if url.username is not None or url.password is not None:
        # What stands in the run's row is shown to people.
        raise ConfigError("--rollouts: a key does not stand in the address; name where it is: --rollouts-key-env or --rollouts-key-file")
    if config.method != "ppo":
        raise ConfigError(f"--rollouts: --method {config.method} samples in this process; leave the option out, or choose ppo")
    if config.adapter.kind not in SERVED_KINDS:
        raise ConfigError(
            f"--rollouts: no such server loads an adapter of kind {config.adapter.kind}; leave the option out, or set --adapter-kind "
            f"{' or '.join(SERVED_KINDS)}"
        )
    if config.processes > 1:
        raise ConfigError(f"--rollouts: is for one process that trains, not for --processes {config.processes}; leave one of them out")


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls)
    unknown = set(values) - set(hints)
    if unknown:
        raise ConfigError(f"{cls.__name__} has no {', '.join(sorted(unknown))}: the run was made by another version")
    return cls(**{key: _build(hints[key], v) if is_dataclass(hints[key]) else v for key, v in values.items()})


@dataclass(frozen=True, slots=True)
class _Rule:
    """The metadata of one field: its type with bounds and choices, and its help text."""

    type: type
    optional: bool
    help: str
    choices: tuple[str, ...]
    bounds: str
    reason: str
    naming: Naming | None
    adapter: TypeAdapter[Any]

    def refusal(self, value: Any) -> str:
        """An error such as `2.0: must be at most 1`; empty if the value is valid."""
        try:
            self.adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return self._in_words(value, first["type"], first.get("ctx", {}))
        return ""

    def _in_words(self, value: Any, error: str, limits: Mapping[str, Any]) -> str:
        reason = f", {self.reason}" if self.reason else ""
        match error:
            case "greater_than":
                return f"{value}: must be greater than {limits['gt']:g}{reason}"
            case "greater_than_equal" if limits["ge"] == 0:
                return f"{value}: must not be negative{reason}"
            case "greater_than_equal":
                return f"{value}: must be at least {limits['ge']:g}{reason}"
            case "less_than":
                return f"{value}: must be below {limits['lt']}{reason}"
            case "less_than_equal":
                return f"{value}: must be at most {limits['le']:g}{reason}"
            case "finite_number":
                return f"{value}: must be finite"
            case "literal_error":
                return f"{value}: choose one of {', '.join(self.choices)}"
        return f"{value!r}: must be {self.type.__name__}"


@cache
def _rules(cls: Any) -> dict[str, _Rule]:
    """The rules of a dataclass by field; fields that are sections have none."""
    helps = {p.arg_name: p.description or "" for p in docstring_parser.parse_from_object(cls).params}
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: _rule(hints[f.name], helps.get(f.name, "")) for f in fields(cls) if not is_dataclass(hints[f.name])}


def _rule(hint: Any, text: str) -> _Rule:
    bare, marks = (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
    kinds = [kind for kind in get_args(bare) if kind is not type(None)] if type(None) in get_args(bare) else [bare]
    choices = get_args(kinds[0]) if get_origin(kinds[0]) is Literal else ()
    adapter = TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))
    return _Rule(
        type=str if choices else kinds[0],
        optional=kinds != [bare],
        help=text,
        choices=choices,
        bounds=_bounds(adapter.json_schema()),
        reason=next((mark.text for mark in marks if isinstance(mark, Reason)), ""),
        naming=next((mark for mark in marks if isinstance(mark, Naming)), None),
        adapter=adapter,
    )


BOUND_WORDS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
"""The bounds of a JSON schema in words."""


def _bounds(schema: Mapping[str, Any]) -> str:
    return ", ".join(f"{words} {schema[bound]:.10g}" for bound, words in BOUND_WORDS.items() if bound in schema)


def _fields(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], _Rule, Any]]:
    """Every field that is an option: its path, its rule and its value."""
    rules = _rules(type(node))  # type: ignore[arg-type]  # mypy takes the __hash__ of instances for that of the class
    for f in fields(node):
        value = getattr(node, f.name)
        if f.name not in rules:
            yield from _fields(value, (*path, f.name))
        elif rules[f.name].naming is not Naming.NOT_AN_OPTION:
            yield (*path, f.name), rules[f.name], value


def _option_name(path: tuple[str, ...], rule: _Rule) -> str:
    return "-".join(path[-1:] if rule.naming is Naming.UNPREFIXED else path).replace("_", "-")


def _section(path: tuple[str, ...], rule: _Rule) -> str:
    return "" if rule.naming is Naming.UNPREFIXED or len(path) == 1 else path[0]


def _replace_at(node: Any, path: tuple[str, ...], value: Any) -> Any:
    head, *rest = path
    return replace(node, **{head: _replace_at(getattr(node, head), tuple(rest), value) if rest else value})
