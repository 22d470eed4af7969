"""The Demo page's handlers, called as Gradio calls them."""

import asyncio
from contextlib import ExitStack

import pytest
from called_pages import ENGLISH, asking, page
from waiting import PATIENCE_S

from feedback_ui import demo as demo_page
from feedback_ui.demo import merge_streams
from feedback_ui.shared.i18n import tables
from rlhf.serving.client import PolicyServerBusy, PolicyServerDown
from rlhf.serving.limits import MAX_DEMO_CHARS, MAX_PROMPT_TOKENS
from storage.content import policies
from storage.project import runs


@pytest.fixture
def demo(app):
    return page(app, "DemoPage")


def test_the_newest_tuned_version_is_chosen(demo, store, server):
    policies.ensure_base(store, "Base")
    runs.create(store, "r", config={}, seed=0, versions={})
    for name in ("t1", "t2"):
        policies.register_tuned(store, name=name, base_model="Base", adapter_path=f"runs/r/{name}", run_id="r")
    server.answers = {"Base": [], "t1": [], "t2": []}
    shown = demo.refresh(None, ENGLISH)
    assert (shown[demo.base], shown[demo.version].value) == ("Base", "t2")
    assert demo.refresh("t1", ENGLISH)[demo.version].value == "t1"
    assert shown[demo.notice] == ""


def test_without_a_tuned_version_the_page_says_where_to_train_one(demo, store, server):
    policies.ensure_base(store, "Base")
    server.answers = {"Base": []}
    assert "Train one on the Training page" in demo.refresh(None, ENGLISH)[demo.notice]


def test_a_server_that_is_down_is_reported(demo, server):
    server.fall_over("no answer at :1")
    shown = demo.refresh(None, ENGLISH)
    assert "No answer at :1." in shown[demo.notice]
    assert not shown[demo.ask].interactive


def final(demo, *arguments, request=ENGLISH):
    async def read():
        panes = {}
        async for update in demo.answer(*arguments, request):
            panes |= update
        return panes

    return asyncio.run(read())


def test_both_panes_end_with_the_whole_answer_made_safe(demo, server):
    server.answers = {"Base": ["**a", "b** ", "<img src=x>"], "t": ["${x}"]}
    panes = final(demo, "Base", "t", "Hi", 0.7, 32)
    assert "<strong>ab</strong> &lt;img src=x&gt;" in panes[demo.base_pane]
    assert "${x}" in panes[demo.tuned_pane]
    assert "aria-busy" not in panes[demo.base_pane] + panes[demo.tuned_pane]


def test_a_failed_stream_keeps_its_text(demo, server):
    async def broken(model, messages, **_):
        yield "Half an"
        raise PolicyServerDown("connection lost")

    server.stream = broken
    panes = final(demo, "Base", None, "Hi", 0.7, 32)
    assert "Half an" in panes[demo.base_pane] and "Connection lost." in panes[demo.base_pane]
    assert demo.tuned_pane not in panes


def test_an_empty_prompt_is_not_sent(demo, server):
    server.fall_over("must not be asked")
    assert final(demo, "Base", "t", "  ", 0.7, 32) == {}


def test_streams_are_merged_and_closed_with_the_reader():
    closed = []

    async def endless(name):
        try:
            while True:
                yield name
                await asyncio.sleep(0)
        finally:
            closed.append(name)

    async def silent(name):
        try:
            await asyncio.sleep(600)
            yield name
        finally:
            closed.append(name)

    async def listen():
        merged = merge_streams({"a": endless("a"), "b": endless("b"), "c": silent("c")})
        names = set()
        while names != {"a", "b"}:
            names.add((await anext(merged))[0])
        await merged.aclose()

    asyncio.run(asyncio.wait_for(listen(), PATIENCE_S))
    assert sorted(closed) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "language, message", [("en", "The prompt has 8,001 characters, and the limit is 8,000."), ("ko", "프롬프트가 8,001자입니다.")]
)
def test_a_prompt_that_is_too_long_is_refused_and_not_sent(demo, server, language, message):
    server.fall_over("must not be asked")
    panes = final(demo, "Base", "t", "\N{ROBOT FACE}" * 8001, 0.7, 32, request=asking(language))
    assert message in panes[demo.notice] and set(panes) == {demo.notice}
    assert tables()[language]["demo.limits"].startswith(("At most 8,000 characters", "최대 8,000자")) and MAX_DEMO_CHARS == 8_000
    assert "4,096" in tables()[language]["demo.limits"] and MAX_PROMPT_TOKENS == 4096


def test_concurrent_prompts_are_limited_per_visitor_and_in_total():
    asking = demo_page.PromptAdmission()
    with ExitStack() as open_now:

        def ask(visitor):
            return open_now.enter_context(asking.admit(visitor))

        assert [ask(1), ask(1), ask(1)] == [True, True, False]
        assert [ask(visitor) for visitor in (2, 2, 3, 3, 4, 4, 5, 2)] == [True] * 6 + [False] * 2
    assert not asking._now
    with asking.admit(1) as admitted:
        assert admitted


def test_a_third_prompt_of_one_visitor_is_not_sent(demo, server):
    async def waits(model, messages, **_):
        server.asked = getattr(server, "asked", 0) + 1
        await asyncio.sleep(600)
        yield ""

    server.stream = waits

    async def three():
        answers = [demo.answer("Base", None, "Hi", 0.7, 32, ENGLISH) for _ in range(3)]
        first = [await anext(answer) for answer in answers]
        waiting = [asyncio.create_task(anext(answer)) for answer in answers[:2]]
        while getattr(server, "asked", 0) < 2:
            await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        again = await anext(demo.answer("Base", None, "Hi", 0.7, 32, ENGLISH))
        return first, again

    (*begun, refused), again = asyncio.run(asyncio.wait_for(three(), PATIENCE_S))
    assert all(demo.base_pane in update for update in (*begun, again))
    assert "This prompt was not sent: 2 prompts of one person" in refused[demo.notice] and server.asked == 2


def test_a_busy_server_is_reported(demo, server):
    server._answer = lambda: (_ for _ in ()).throw(PolicyServerBusy("http://127.0.0.1:1/v1 refused (503): ..."))
    pane = final(demo, "Base", None, "Hi", 0.7, 32)[demo.base_pane]
    assert "generating too many answers" in pane and "127.0.0.1" not in pane
