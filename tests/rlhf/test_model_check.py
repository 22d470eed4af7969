"""The doctor's report on a model: each peculiarity is found, with its cost."""

import json

import architectures
import pytest
import tiny

from rlhf import model_check
from rlhf.config import PRESETS, AdapterConfig, RoundConfig
from rlhf.models.backbone import Backbone
from rlhf.runs import memory

CONFIG = PRESETS["laptop"]


def with_template(template, **changes):
    tok = tiny.tokenizer()
    tok.add_tokens(["<think>", "</think>", "<|turn_end|>"], special_tokens=True)
    tok.chat_template = template
    for name, value in changes.items():
        setattr(tok, name, value)
    net = tiny.model(len(tok))
    net.generation_config.eos_token_id = tok.convert_tokens_to_ids("<|end|>")
    return Backbone(net, tok)


def test_every_check_of_a_sound_model_passes_in_order(tiny_folder):
    checks = list(model_check.checks(tiny_folder, "cpu", CONFIG))
    assert [c.name for c in checks] == [
        "model", "chat template", "thinking", "end tokens", "padding", "context", "layers", "adapters", "memory", "speed",
    ]  # fmt: skip
    assert all(c.ok for c in checks)
    found = {c.name: c.found for c in checks}
    assert found["chat template"] == "system messages, roles in any order, generation prompt"
    assert found["thinking"] == "the model has no thinking tokens"
    assert found["end tokens"] == "<|end|>; <|end|> ends a turn"
    assert found["padding"] == "<|pad|>; begin of sequence: none"
    assert found["context"] == "512 tokens; a round reads up to 512, prompts up to 463"
    assert found["layers"] == "frozen layers computed once, head in parts"
    assert found["adapters"] == "lora, rslora, dora, peanut, ia3, prompt"
    assert "tokens/s for 8 answers at once" in found["speed"]


def test_a_model_that_cannot_be_loaded_is_the_only_check(tmp_path):
    folder = tiny.write(tmp_path)
    (folder / "chat_template.jinja").unlink()
    fields = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in fields.items() if k != "chat_template"}))
    [check] = model_check.checks(folder, "cpu", CONFIG)
    assert check.name == "model" and "no chat template" in check.remedy


GEMMA_LIKE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
)


def test_unsupported_roles_of_a_template_are_named():
    check = model_check.template(with_template(GEMMA_LIKE))
    assert check.found == "no system messages, roles must alternate, no generation prompt"
    assert "before the first user turn" in check.warning and "may begin with a role's name" in check.warning and check.ok
    # Some templates leave a system message out in silence.
    silent = "{% for m in messages %}{% if m['role'] != 'system' %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    assert model_check.template(with_template(silent)).found.startswith("no system messages, roles in any order")


@pytest.mark.parametrize(
    ("prompt", "found", "warned"),
    [
        ("<|assistant|>", "reasoning up to </think> is removed from answers", False),
        ("<|assistant|><think>", "every answer begins with reasoning, which is removed", True),
        (
            "<|assistant|>{% if not enable_thinking %}<think></think>{% endif %}",
            "the template has a switch for it, which is turned off",
            False,
        ),
    ],
)
def test_reasoning_of_a_model_is_described(prompt, found, warned):
    check = model_check.reasoning(with_template(tiny.TEMPLATE.replace("<|assistant|>{% endif %}", prompt + "{% endif %}")), CONFIG)
    assert (check.found, bool(check.warning)) == (found, warned)
    assert not warned or "768 tokens in collecting, 48 in training" in check.warning


def test_a_turn_end_that_is_no_eos_token_is_a_warning():
    backbone = with_template(tiny.TEMPLATE.replace("<|end|>", "<|turn_end|>\n"))
    stray = backbone.tokenizer.convert_tokens_to_ids("<|turn_end|>")
    check = model_check.end_tokens(backbone)
    assert (
        "ends a turn with <|turn_end|>, which is no end-of-sequence token" in check.warning
        and f"add {stray} to eos_token_id" in check.warning
    )
    backbone.eos_token_ids = (*backbone.eos_token_ids, stray)
    assert not model_check.end_tokens(backbone).warning


def test_tokenizers_without_pad_and_begin_are_named():
    assert model_check.padding(with_template(tiny.TEMPLATE, pad_token=None)).found == "none, <|end|> in its place; begin of sequence: none"


def test_a_context_without_room_for_a_prompt_must_be_mended(backbone):
    backbone.context = 40
    backbone.limit_rows(2048)
    check = model_check.context(backbone, CONFIG)
    assert not check.ok and "lower --sampling-max-new-tokens 48" in check.remedy


def test_architectures_that_cost_more_are_named():
    assert "about twice as long" in model_check.partial_forward(architectures.backbone("opt")).warning
    assert "--ppo-microbatch-size" in model_check.partial_forward(architectures.backbone("cohere")).warning
    check = model_check.adapters(architectures.backbone("gpt2"), RoundConfig(adapter=AdapterConfig(kind="peanut")))
    assert check.remedy == "choose another --adapter-kind: lora, rslora, dora, ia3, prompt"
    assert model_check.adapters(architectures.backbone("gpt2"), CONFIG).ok


def test_too_little_memory_must_be_mended(backbone, monkeypatch):
    assert model_check.memory_needed(backbone, CONFIG).ok
    monkeypatch.setattr(memory, "PROCESS_GIB", 1e6)
    check = model_check.memory_needed(backbone, CONFIG)
    assert not check.ok and "smaller model" in check.remedy
