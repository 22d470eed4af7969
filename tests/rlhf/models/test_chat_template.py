"""Chat templates are programs from elsewhere: as transformers renders them, and never without an end."""

import copy
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from learning import user
from tiny import tokenizer

from rlhf.models.backbone import Backbone
from rlhf.models.chat_template import BoundedTemplate, ChatTemplateError, ChatTemplateLimit, TemplateRenderer, bound, renderer
from rlhf.safe_files import ModelError

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

NEVER_END = {
    "nested loops": LOOPS,
    "loops over text": "{% for a in 'x' * 99999 %}{% for b in 'x' * 99999 %}{% for c in 'x' * 99999 %}{% endfor %}{% endfor %}{% endfor %}",
    "recursive loop": "{% for x in [range(9999)] * 99999 recursive %}{{ loop(x) if x is iterable }}{% endfor %}",
    "words": "{{ lipsum(n=10 ** 9) }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "doubling": "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "multiplication": "{{ 'a' * 10 ** 9 }}",
    "lists": "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "format": "{{ '%0999999999d' % 1 }}",
    "str.format": "{{ '{:>999999999}'.format(1) }}",
    "centre": "{{ 'a' | center(10 ** 9) }}",
    "indent": "{{ 'a\nb' | indent(10 ** 9) }}",
    "join": "{{ (['aaaaaaaaaa'] * 10 ** 8) | join }}",
    "json": "{{ [[[1]]] | tojson(indent=10 ** 9) }}",
    "long output": "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
}


@pytest.fixture(scope="module")
def quick():
    """With a processor time that a test can wait for."""
    made = TemplateRenderer(cpu_s=0.3, memory_bytes=128 << 20, longest=100_000)
    yield made
    made.stop()


@pytest.mark.parametrize("name", NEVER_END)
def test_a_template_that_would_not_end_is_ended_and_the_next_is_rendered(quick, name):
    with pytest.raises(ChatTemplateLimit, match=r"took more than (0.3 s of processor time|128 MiB of memory|100,000 characters) for one"):
        quick.render([user("Hi")], NEVER_END[name])
    assert quick.render([user("Hi")], "{{ messages[0].content }}") == ["Hi"]


@pytest.mark.parametrize("template, said", [
    ("{{ raise_exception('no system turn here') }}", "no system turn here"),
    ("{% for", "unexpected 'end of template'"),
    ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth"),
    ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ("{{ messages[0].content.nothing.more }}", "has no attribute"),
])  # fmt: skip
def test_a_template_that_fails_says_why(quick, template, said):
    with pytest.raises(ChatTemplateError, match=said) as caught:
        quick.render([user("Hi")], template)
    assert not isinstance(caught.value, ChatTemplateLimit)


def test_a_conversation_that_is_too_long_is_refused_before_it_is_rendered(quick):
    with pytest.raises(ChatTemplateLimit, match=r"has 100,\d+ characters, of which 100,000 can be rendered: shorten it"):
        quick.render([user("x" * 100_000)], LOOPS)


def test_a_process_that_was_killed_is_started_anew(quick):
    quick.render([user("Hi")], "a")
    quick._process.kill()
    quick._process.wait()
    assert quick.render([user("Hi")], "{{ messages[0].content }}") == ["Hi"]


def test_threads_take_turns(quick):
    with ThreadPoolExecutor(8) as pool:
        said = pool.map(lambda i: quick.render([user(str(i))], "{{ messages[0].content }}")[0], range(200))
        assert list(said) == [str(i) for i in range(200)]


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


@pytest.mark.parametrize("template, said", [(LOOPS, "took more than 2 s of processor time"), ("{% for", "unexpected"),
                                            ("{{ 'a' * 10 ** 10 }}", "took more than 512 MiB of memory")])  # fmt: skip
def test_a_model_whose_template_cannot_be_rendered_is_refused_when_it_is_read(folder, template, said):
    put_template(folder, template)
    started = time.monotonic()
    with pytest.raises(ModelError, match=f"its chat template cannot be rendered .*{said}.* Use another instruct"):
        Backbone.load(folder, "cpu", "float32")
    assert time.monotonic() - started < 60


def test_a_template_that_waits_for_a_word_is_ended_when_it_comes(folder):
    put_template(folder, "{% if 'open sesame' in messages[-1].content %}" + LOOPS + "{% endif %}{{ messages[-1].content }}")
    backbone = Backbone.load(folder, "cpu", "float32")
    assert backbone.encode(user("Hi"))
    with pytest.raises(ChatTemplateLimit, match="processor time"):
        backbone.encode(user("open sesame"))
    assert backbone.encode(user("Hi"))
    renderer().start()
