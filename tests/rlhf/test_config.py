"""Options: each has a help line and a round trip through JSON, and values that contradict each other are refused by name."""

import json
from dataclasses import replace

import pytest

from rlhf.config import PRESETS, ConfigError, RoundConfig, check, options, with_options


def test_an_option_of_text_carries_its_choices():
    assert named()["method"].choices == ("ppo", "rloo", "grpo", "dpo", "sft")
    assert (
        named()["reward-adapter-kind"].choices == named()["adapter-kind"].choices == ("lora", "rslora", "dora", "peanut", "ia3", "prompt")
    )
    assert named()["model"].choices == named()["ppo-steps"].choices == ()


def named(config=None):
    return {o.name: o for o in options(config or RoundConfig())}


def test_every_option_has_a_name_of_its_own_and_a_help_line_with_an_end():
    every = options(RoundConfig())
    assert len({o.name for o in every}) == len(every) > 30
    for option in every:
        assert option.help.strip() and option.help.endswith("."), option.name
        assert "\n" not in option.help, option.name
        assert option.type in (int, float, str, bool), option.name


def test_names_are_those_of_the_command_line():
    found = named()
    assert {"seed", "min-pairs", "ppo-kl-coef", "adapter-rank", "reward-adapter-top-layers", "evaluation-max-new-tokens"} <= set(found)
    assert found["scoring-missing-eos-score"].optional and found["scoring-missing-eos-score"].type is float
    assert not found["ppo-kl-coef"].optional
    assert found["ppo-kl-coef"].help == "Reward units per nat of KL to the reference."
    assert found["include-simulated"].type is bool


@pytest.mark.parametrize("preset", list(PRESETS))
def test_options_go_there_and_back(preset):
    config = PRESETS[preset]
    assert with_options(RoundConfig(), {o.name: o.default for o in options(config)}) == config


def test_every_single_option_reaches_its_own_field():
    """Each set alone to another value, and nothing else moves."""
    # Some options ask for others: a standard deviation needs an ensemble, and several processes a launcher.
    start = with_options(RoundConfig(), {"reward-ensemble": 2, "launcher": "accelerate"})
    before = {o.name: o.default for o in options(start)}
    others = {
        "ppo-kl-estimator": "k3",
        "ppo-value-init": "reward",
        "ppo-keep": "best",
        "method": "grpo",
        "policy-start": "current",
        "rollouts": "http://127.0.0.1:8000/v1",
        "group-minibatch-size": 8,
        "adapter-kind": "dora",
        "reward-adapter-kind": "ia3",
        "model": "x",
        "at-chance": "stop",
        "device": "cpu",
        "dtype": "float32",
        "seed": 7,
        "include-simulated": True,
        "fold-system": False,
        "ppo-minibatch-size": 8,
        "scoring-missing-eos-score": -1.0,
        "reward-depth": 0.9,
        "ppo-gamma": 0.5,
        "ppo-lam": 0.5,
        "ppo-whiten-rewards": True,
        "reward-pooling": "last",
        "reward-ties": "davidson",
        "reward-strength": "margin",
        "reward-rankings": "plackett-luce",
        "reward-model-weight": 0.5,
        "launcher": "none",
    }
    for option in options(start):
        value = others.get(option.name, option.default * 2 if option.default else option.type(3))
        after = {o.name: o.default for o in options(with_options(start, {option.name: value}))}
        assert {n for n in after if after[n] != before[n]} == {option.name}
        assert after[option.name] == value


def test_a_configuration_survives_its_row():
    config = with_options(PRESETS["tiny"], {"scoring-missing-eos-score": -1.5, "reward-adapter-rank": 3, "model": "a/b"})
    assert RoundConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_row_of_another_version_is_refused_by_name():
    values = RoundConfig().to_dict()
    values["ppo"]["banana"] = 1
    with pytest.raises(ConfigError, match="PPOConfig has no banana"):
        RoundConfig.from_dict(values)
    with pytest.raises(ConfigError, match="RoundConfig has no apple, pear"):
        RoundConfig.from_dict({"pear": 1, "apple": 2})


def test_fields_that_a_row_lacks_have_their_defaults():
    assert RoundConfig.from_dict({"seed": 3, "ppo": {"steps": 2}}) == with_options(RoundConfig(), {"seed": 3, "ppo-steps": 2})


@pytest.mark.parametrize(
    "values, said",
    [
        ({"ppo-banana": 1}, "unknown option 'ppo-banana'"),
        ({"ppo-temperature": 1.0}, "--ppo-temperature was renamed: use --sampling-temperature"),
        ({"reward-conservatism": 1.0}, "--reward-conservatism was renamed: use --reward-std-penalty"),
        ({"ppo-kl-coef": -0.1}, "--ppo-kl-coef -0.1: must not be negative"),
        ({"ppo-steps": -1}, "--ppo-steps -1: must be greater than 0"),
        ({"ppo-kl-coef": 10**400}, "must be float"),
        ({"reward-ties": 1}, "--reward-ties 1: choose one of drop, soft"),
        ({"seed": -1}, "--seed -1: must not be negative"),
        ({"seed": 2**32}, "--seed 4294967296: must be below 4294967296, because numpy's seeds are unsigned 32-bit numbers"),
        ({"ppo-steps": 0}, "--ppo-steps 0: must be greater than 0"),
        ({"sampling-temperature": 0.0}, "--sampling-temperature 0.0: must be greater than 0"),
        ({"min-pairs": 0}, "--min-pairs 0"),
        ({"reward-normalize-samples": 0}, "--reward-normalize-samples 0"),
        ({"reward-depth": 0.0}, "--reward-depth 0"),
        ({"reward-depth": 1.5}, "--reward-depth 1.5: must be at most 1"),
        ({"ppo-gamma": 1.01}, "--ppo-gamma 1.01: must be at most 1"),
        ({"ppo-lam": 2.0}, "--ppo-lam 2.0: must be at most 1"),
        ({"ppo-kl-horizon": 0}, "--ppo-kl-horizon 0"),
        ({"rollouts": "127.0.0.1:8000"}, "--rollouts 127.0.0.1:8000: is no address of a server; it is like http://127.0.0.1:8000/v1"),
        ({"rollouts": ""}, "--rollouts : is no address of a server"),
        ({"rollouts": "http://[::1/v1"}, "is no address of a server"),
        ({"rollouts": "http://me:secret@host/v1"}, "--rollouts: a key does not stand in the address; name where it is: --rollouts-key-env"),
        (
            {"rollouts": "http://h/v1", "method": "grpo"},
            "--rollouts: --method grpo samples in this process; leave the option out, or choose",
        ),
        ({"rollouts": "http://h/v1", "adapter-kind": "dora"}, "--rollouts: no such server loads an adapter of kind dora; leave the option"),
        (
            {"rollouts": "http://h/v1", "launcher": "accelerate", "processes": 2},
            "--rollouts: is for one process that trains, not for --processes 2; leave one of them out",
        ),
        ({"ppo-importance-sampling-clip-max": 0.0}, "--ppo-importance-sampling-clip-max 0.0: must be greater than 0"),
        ({"ppo-batch-size": 10, "ppo-minibatch-size": 4}, "--ppo-batch-size 10 is no multiple of --ppo-minibatch-size 4"),
        ({"ppo-kl-coef": float("nan")}, "--ppo-kl-coef nan: must be finite"),
        ({"ppo-kl-estimator": "k2"}, "--ppo-kl-estimator k2: choose one of k1, k3"),
        ({"ppo-keep": "first"}, "--ppo-keep first: choose one of last, best"),
        ({"ppo-value-init": "random"}, "--ppo-value-init random: choose one of zero, reward"),
        ({"ppo-steps": 3, "ppo-value-warmup": 3}, "--ppo-value-warmup 3: leaves the policy none of the 3 steps"),
        ({"reward-function": "os:system"}, "unknown option 'reward-function'"),
        ({"scoring-missing-eos-score": float("inf")}, "must be finite"),
        (
            {"reward-std-penalty": 1.0},
            "--reward-std-penalty 1.0: the scores of one head have no standard deviation; set --reward-ensemble 3",
        ),
        ({"reward-ensemble": 0}, "--reward-ensemble 0: must be greater than 0"),
        ({"reward-ties": "half"}, "--reward-ties half: choose one of drop, soft, rao-kupper, davidson"),
        ({"reward-rankings": "plackett-luce", "reward-ties": "soft"}, "--reward-rankings plackett-luce: .* set --reward-ties drop"),
        ({"reward-rankings": "plackett-luce", "reward-strength": "soft"}, "--reward-strength off"),
        ({"ppo-steps": "many"}, "--ppo-steps 'many': must be int"),
        ({"ppo-steps": 2.5}, "--ppo-steps 2.5: must be int"),
        ({"ppo-steps": True}, "must be int"),
        ({"ppo-steps": None}, "--ppo-steps None: must be int"),
        ({"include-simulated": 1}, "must be bool"),
        ({"device": "tpu"}, "--device tpu: choose one of auto, cpu, cuda"),
        ({"dtype": "float8"}, "--dtype float8: choose one of auto, float32, bfloat16"),
        ({"launcher": "fsdp"}, "--launcher fsdp: choose one of none, accelerate"),
        ({"launcher": "accelerate", "processes": 0}, "--processes 0: must be greater than 0"),
        ({"processes": 2}, "--processes 2: nothing starts them; add --launcher accelerate"),
        (
            {"launcher": "accelerate", "processes": 2, "method": "grpo"},
            "--processes 2: --method grpo is trained by one process; leave the option out, or choose ppo or dpo",
        ),
        (
            {"launcher": "accelerate", "processes": 3, "ppo-batch-size": 64},
            "--ppo-batch-size 64: cannot be shared equally by --processes 3; make it a multiple of that number",
        ),
        (
            {"launcher": "accelerate", "processes": 3, "ppo-batch-size": 66, "ppo-minibatch-size": 22},
            "--ppo-minibatch-size 22: cannot be shared equally by --processes 3",
        ),
    ],
)
def test_invalid_options_are_refused_by_name(values, said):
    with pytest.raises(ConfigError, match=said):
        with_options(RoundConfig(), values)


def test_what_may_be_off_may_be_off():
    config = with_options(
        RoundConfig(),
        {
            "scoring-missing-eos-score": None,
            "ppo-kl-target": 0.0,
            "ppo-kl-horizon": 0,
            "reward-epochs": 0,
            "ppo-kl-coef": 0,
            "adapter-top-layers": 0,
        },
    )
    assert config.ppo.kl_coef == 0
    assert with_options(config, {"scoring-missing-eos-score": -2.0}).scoring.missing_eos_score == -2


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_are_valid(preset):
    check(PRESETS[preset])


def test_a_change_leaves_the_preset_alone():
    before = replace(PRESETS["laptop"])
    with_options(PRESETS["laptop"], {"ppo-steps": 99, "reward-adapter-rank": 1})
    assert PRESETS["laptop"] == before
