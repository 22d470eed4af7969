"""The process that renders chat templates: it ends a template that would not end, and is started anew."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from learning import user

from rlhf.models.chat_template import ChatTemplateError, ChatTemplateLimit, TemplateRenderer

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


@pytest.mark.slow
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
