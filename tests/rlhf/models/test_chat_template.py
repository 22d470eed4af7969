"""Chat templates are programs from elsewhere: as transformers renders them, and never without an end."""

import copy
import json
import shutil
from pathlib import Path

import pytest
from learning import user
from tiny import tokenizer

from rlhf.models.backbone import Backbone
from rlhf.models.chat_template import BoundedTemplate, ChatTemplateError, ChatTemplateLimit, bound, renderer
from rlhf.safe_files import ModelError

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
# Through a tokenizer.

TEMPLATES = {
    "tiny": tokenizer().chat_template,
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "specials": "{{ bos_token }}{% for m in messages %}{{ m.content | trim }}{{ eos_token }}{% endfor %}",
    "blocks": "{% for m in messages %}\n    {%- if m.role == 'user' %}\n    {{ m.content }}\n    {% endif %}\n{% endfor %}",
    "json": "{{ messages | tojson }}{% generation %}x{% endgeneration %}{% for m in messages %}{% break %}{% endfor %}",
    "thinking": "{% for m in messages %}{{ m.thinking }}{{ m.reasoning_content }}{% endfor %}",
}
CONVERSATIONS = (
    user("Hi"), [{"role": "system", "content": "Be kind."}, *user("안녕 🤖 \x00 <|end|>")], user(""),
    [*user("a"), {"role": "assistant", "content": "b", "reasoning": "since", "name": None}, *user(" c \n")],
)  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_rendered_is_what_transformers_renders(name):
    plain, bounded = tokenizer(), bound(tokenizer())
    plain.chat_template = bounded.chat_template = TEMPLATES[name]
    assert not isinstance(plain, BoundedTemplate)
    for conversation in CONVERSATIONS:
        for options in ({"return_dict": False}, {"tokenize": False}, {}, {"add_generation_prompt": True}, {"bos_token": "<|user|>"}):
            assert bounded.apply_chat_template(conversation, **options) == plain.apply_chat_template(conversation, **options)
    for options in ({"return_dict": False, "padding": True}, {"tokenize": False}, {"return_tensors": None}):
        assert bounded.apply_chat_template(list(CONVERSATIONS), **options) == plain.apply_chat_template(list(CONVERSATIONS), **options)


def test_a_copy_is_bound_too_and_keeps_its_own_settings():
    one = bound(bound(tokenizer()))
    two = copy.deepcopy(one)
    two.padding_side = "right" if one.padding_side == "left" else "left"
    two.chat_template = "{{ raise_exception('the copy') }}"
    assert one.padding_side != two.padding_side and type(one).__name__ == type(tokenizer()).__name__
    with pytest.raises(ChatTemplateError, match="the copy"):
        two.apply_chat_template(user("Hi"))
    assert one.apply_chat_template(user("Hi"))


def test_what_would_need_places_in_the_text_is_not_promised():
    with pytest.raises(NotImplementedError):
        bound(tokenizer()).apply_chat_template(user("Hi"), return_assistant_tokens_mask=True)


@pytest.fixture
def folder(tmp_path, tiny_folder):
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def put_template(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "template, said",
    [
        ("{% for", "unexpected"),
        ("{{ 'a' * 10 ** 10 }}", "took more than 512 MiB of memory"),
        pytest.param(LOOPS, "took more than 2 s of processor time", marks=pytest.mark.slow),
    ],
)
def test_a_model_whose_template_cannot_be_rendered_is_refused_when_it_is_read(folder, template, said):
    put_template(folder, template)
    with pytest.raises(ModelError, match=f"its chat template cannot be rendered .*{said}.* Use another instruct"):
        Backbone.load(folder, "cpu", "float32")


@pytest.mark.slow
def test_a_template_that_waits_for_a_word_is_ended_when_it_comes(folder):
    put_template(folder, "{% if 'open sesame' in messages[-1].content %}" + LOOPS + "{% endif %}{{ messages[-1].content }}")
    backbone = Backbone.load(folder, "cpu", "float32")
    assert backbone.encode(user("Hi"))
    with pytest.raises(ChatTemplateLimit, match="processor time"):
        backbone.encode(user("open sesame"))
    assert backbone.encode(user("Hi"))
    renderer().start()
