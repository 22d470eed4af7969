"""The handlers of the Demo page's first section, called as Gradio calls them."""

import asyncio
from types import SimpleNamespace

import pytest
from called_pages import ENGLISH, asking, page
from waiting import PATIENCE_S

from feedback_ui.demo.conversation import Answer, Conversation, to_link
from feedback_ui.shared.i18n import tables
from rlhf.serving.client import PolicyServerBusy, PolicyServerDown
from rlhf.serving.limits import MAX_DEMO_CHARS, MAX_PROMPT_TOKENS
from storage.content import comparisons, policies
from storage.core.records import Sampling
from storage.judging import demo_votes, history
from storage.people import accounts, annotators
from storage.project import runs

PASSWORD = "correct horse battery staple"


@pytest.fixture
def demo(app, store):
    policies.ensure_base(store, "Base")
    runs.create(store, "r", config={}, seed=0, versions={})
    for name in ("t1", "t2"):
        policies.register_tuned(store, name=name, base_model="Base", adapter_path=f"runs/r/{name}", run_id="r")
    return page(app, "TryingSection")


@pytest.fixture
def server(server):
    server.answers = {"Base": ["I am ", "the base"], "t1": ["I am t1"], "t2": ["I am t2"]}
    return server


def final(generator):
    """Everything that a handler sent, the last of each."""

    async def read():
        sent = {}
        async for update in generator:
            sent |= update
        return sent

    return asyncio.run(read())


def ask(demo, prompt="Hi", versions=("Base", "t1"), conversation=None, blind=False, request=ENGLISH, **sampling):
    values = {"temperature": 0.7, "max_tokens": 32, "top_p": 0.9, "top_k": 5, "seed": 11} | sampling
    return demo.answer(conversation or Conversation(), [*versions], blind, prompt, *values.values(), request)


def answers(sent, demo):
    return [a.text for a in sent[demo.conversation].turns[-1].answers]


# ---- opening


def test_the_base_and_the_newest_tuned_version_are_chosen(demo, store, server):
    shown = demo.open("", Conversation(), None, ENGLISH)
    assert [value for _, value in shown[demo.versions].choices] == ["Base", "t2", "t1"]
    assert shown[demo.versions].value == ["Base", "t2"] and shown[demo.ask].interactive
    assert demo.open("", Conversation(), ["t1", "gone"], ENGLISH)[demo.versions].value == ["t1"]
    assert shown[demo.notice] == ""


def test_without_a_tuned_version_the_page_says_where_to_train_one(demo, server):
    server.answers = {"Base": []}
    assert "Train one on the Training page" in demo.open("", Conversation(), None, ENGLISH)[demo.notice]


def test_a_server_that_is_down_is_reported(demo, server):
    server.fall_over("no answer at :1")
    shown = demo.open("", Conversation(), None, ENGLISH)
    assert "No answer at :1." in shown[demo.notice]
    assert not shown[demo.ask].interactive


def test_a_conversation_that_is_going_on_is_left_alone(demo, server):
    going_on = final(ask(demo))[demo.conversation]
    shown = demo.open("x", going_on, None, ENGLISH)
    assert set(shown) == {demo.versions} and not shown[demo.versions].interactive


# ---- answering


def test_all_versions_answer_side_by_side(demo, server):
    server.answers["Base"] = ["**a", "b** ", "<img src=x>"]
    server.answers["t1"] = ["${x}"]
    sent = final(ask(demo))
    assert answers(sent, demo) == ["**ab** <img src=x>", "${x}"]
    assert "<strong>ab</strong> &lt;img src=x&gt;" in sent[demo.current] and "${x}" in sent[demo.current]
    assert "aria-busy" not in sent[demo.current]


def test_each_turn_is_asked_for_with_its_own_sampling_and_history(demo, server):
    first = final(ask(demo))[demo.conversation]
    final(ask(demo, "Why?", conversation=first, seed=12, temperature=1.0))
    model, messages, sampling, seed = server.requests[-1]
    assert (model, sampling, seed) == ("t1", Sampling(1.0, 0.9, 5, 32), 12)
    assert [m["content"] for m in messages] == ["Hi", "I am t1", "Why?"]
    assert server.requests[0][2:] == (Sampling(0.7, 0.9, 5, 32), 11)


def test_a_failed_stream_keeps_its_text_and_is_asked_for_again(demo, server):
    async def broken(model, messages, sampling, *, seed):
        yield server.piece("Half an")
        raise PolicyServerDown("connection lost")

    whole, server.stream = server.stream, broken
    sent = final(ask(demo, versions=["Base"]))
    assert "Half an" in sent[demo.current] and "Connection lost." in sent[demo.current]
    server.stream = whole
    again = final(ask(demo, "", conversation=demo.end(sent[demo.conversation], ENGLISH)[demo.conversation]))
    assert answers(again, demo) == ["I am the base"] and "Connection lost" not in again[demo.current]


def test_the_next_turn_waits_for_answers_that_broke_off(demo, server):
    async def broken(model, messages, sampling, *, seed):
        server.requests.append((model, messages, sampling, seed))
        raise PolicyServerDown("connection lost")
        yield

    server.stream = broken
    first = final(ask(demo, versions=["Base"]))[demo.conversation]
    server.requests.clear()
    both = final(ask(demo, "Why?", conversation=first))[demo.conversation]
    assert len(both.turns) == 2 and not both.turns[1].answers and len(server.requests) == 1


def test_an_answer_that_its_limit_cut_off_is_marked(demo, server):
    server.finish_reason = "length"
    assert "Cut off here: the limit is 32 tokens." in final(ask(demo, versions=["Base"]))[demo.current]


def test_an_empty_prompt_changes_nothing_but_the_note(demo, server):
    server.fall_over("must not be asked")
    for conversation in (Conversation(), Conversation(("Base",), False, ())):
        sent = final(ask(demo, "  ", conversation=conversation))
        assert set(sent) == {demo.notice} and "Write a prompt first." in sent[demo.notice]


def test_a_prompt_that_became_a_turn_leaves_its_box(demo):
    conversation = final(ask(demo, "Hi"))[demo.conversation]
    assert demo.clear_prompt(conversation, "Hi", ENGLISH) == ""
    assert demo.clear_prompt(conversation, "Refused", ENGLISH) == "Refused"
    assert demo.clear_prompt(Conversation(), "Hi", ENGLISH) == "Hi"


def test_a_retry_asks_with_the_next_seed(demo, server):
    first = final(ask(demo))[demo.conversation]
    server.answers["t1"] = ["another"]
    sent = final(demo.answer_again(first, ENGLISH))
    assert answers(sent, demo) == ["I am the base", "another"] and demo.show_seed(sent[demo.conversation], ENGLISH) == 12
    assert [request[3] for request in server.requests] == [11, 11, 12, 12]
    assert "no answer to repeat" in final(demo.answer_again(Conversation(), ENGLISH))[demo.notice]


def test_a_name_that_no_version_has_is_not_sent(demo, server, store):
    policies.ensure_external(store, "gpt")
    sent = final(ask(demo, versions=["Base", "<b>", "gpt"]))
    assert "no version of these names: &lt;b&gt;, gpt." in sent[demo.notice] and not server.requests


@pytest.mark.parametrize(
    "language, message", [("en", "The prompt has 8,001 characters, and the limit is 8,000."), ("ko", "프롬프트가 8,001자입니다.")]
)
def test_a_prompt_that_is_too_long_is_refused_and_not_sent(demo, server, language, message):
    sent = final(ask(demo, "\N{ROBOT FACE}" * 8001, request=asking(language)))
    assert message in sent[demo.notice] and set(sent) == {demo.notice} and not server.requests
    assert tables()[language]["demo.limits"].startswith(("At most 8,000 characters", "최대 8,000자")) and MAX_DEMO_CHARS == 8_000
    assert "4,096" in tables()[language]["demo.limits"] and MAX_PROMPT_TOKENS == 4096


def test_a_third_prompt_of_one_visitor_is_not_sent(demo, server):
    async def waits(model, messages, sampling, *, seed):
        server.asked = getattr(server, "asked", 0) + 1
        await asyncio.sleep(600)
        yield

    server.stream = waits

    async def begin(generator):
        """Reads until the answers are on their way, or it is refused."""
        async for update in generator:
            if demo.current in update or (demo.conversation not in update and demo.notice in update):
                return update

    async def three():
        generators = [ask(demo, versions=["Base"]) for _ in range(3)]
        first = [await begin(generator) for generator in generators]
        waiting = [asyncio.create_task(anext(generator)) for generator in generators[:2]]
        while getattr(server, "asked", 0) < 2:
            await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return first, await begin(ask(demo, versions=["Base"]))

    (*begun, refused), again = asyncio.run(asyncio.wait_for(three(), PATIENCE_S))
    assert all(demo.current in update for update in (*begun, again))
    assert "This prompt was not sent: 2 prompts of one person" in refused[demo.notice] and server.asked == 2


def test_a_busy_server_is_reported(demo, server):
    server._answer = lambda: (_ for _ in ()).throw(PolicyServerBusy("http://127.0.0.1:1/v1 refused (503): ..."))
    shown = final(ask(demo, versions=["Base"]))[demo.current]
    assert "generating too many answers" in shown and "127.0.0.1" not in shown


def test_stopping_keeps_what_has_come(demo):
    turn = Conversation().asked(["Base", "t1"], False, "Hi", Sampling(), 0).turns[0].with_answer(0, Answer("Half an"))
    shown = demo.end(Conversation(("Base", "t1"), False, (turn,)), ENGLISH)
    assert "You stopped it here." in shown[demo.current] and "Not written yet" in shown[demo.current]
    assert shown[demo.ask].interactive and shown[demo.retry].interactive and not shown[demo.stop].interactive
    assert demo.notice not in shown, "a refusal stays to be read"


# ---- blind turns and votes


def hidden(demo, versions=("Base", "t1"), **options):
    return final(ask(demo, versions=versions, blind=True, **options))


def test_a_hidden_version_is_named_nowhere_before_the_vote(demo, server, store):
    sent = hidden(demo, ("Base", "t1", "t2"))
    ended = demo.end(sent[demo.conversation], ENGLISH)
    for text in (sent[demo.current], ended[demo.current], ended[demo.earlier]):
        assert not any(f">{name}" in text or f"· {name}" in text for name in ("Base", "t1", "t2"))
    assert ">A</h3>" in ended[demo.current] and ">B</h3>" in ended[demo.current]
    assert ended[demo.vote_bar].visible and all(ended[button].visible for button in demo.votes.values())
    assert not ended[demo.link].interactive


def test_an_error_names_no_hidden_version(demo, server):
    async def broken(model, messages, sampling, *, seed):
        raise PolicyServerDown(f"The model {model} does not exist")
        yield

    server.stream = broken
    sent = hidden(demo)
    assert "This answer broke off." in sent[demo.current] and "does not exist" not in sent[demo.current]
    ended = demo.end(sent[demo.conversation], ENGLISH)
    assert ended[demo.vote_bar].visible and not any(ended[button].visible for button in demo.votes.values())


@pytest.mark.parametrize(
    "name, tiers, bad", [("prefer_a", "ab", False), ("prefer_b", "ba", False), ("call_a_tie", "tie", False), ("call_both_bad", "tie", True)]
)
def test_a_vote_is_stored_with_what_was_shown_and_then_the_names_appear(demo, store, name, tiers, bad):
    conversation = hidden(demo)[demo.conversation]
    shown = getattr(demo, name)(conversation, ENGLISH)
    local = accounts.local(store)
    (past,) = history.of_annotator(store, local.id)
    texts = {c.id: c.text for c in past.comparison.completions}
    turn = conversation.turns[0]
    assert [texts[one] for one in past.order] == [a.text for a in turn.answers]
    first, second = past.order
    assert past.judgment.tiers == {"ab": ((first,), (second,)), "ba": ((second,), (first,)), "tie": ((first, second),)}[tiers]
    assert past.judgment.all_bad == bad and past.comparison.purpose == comparisons.DEMO
    assert {c.sampling["top_k"] for c in past.comparison.completions} == {5} and {c.seed for c in past.comparison.completions} == {11}
    for place in (0, 1):
        assert f"{'AB'[place]} · {conversation.name(0, place)}" in shown[demo.current]
    assert "The vote is saved" in shown[demo.notice] and not shown[demo.vote_bar].visible and shown[demo.link].interactive


def test_one_vote_a_turn(demo, store):
    judged = demo.prefer_a(hidden(demo)[demo.conversation], ENGLISH)[demo.conversation]
    assert "nothing to vote on" in demo.prefer_a(judged, ENGLISH)[demo.notice]
    assert "nothing to vote on" in demo.show_names(judged, ENGLISH)[demo.notice]
    assert "nothing to vote on" in demo.prefer_b(final(ask(demo))[demo.conversation], ENGLISH)[demo.notice]
    assert demo_votes.count(store) == 1


def test_names_can_be_shown_without_a_vote(demo, store):
    shown = demo.show_names(hidden(demo)[demo.conversation], ENGLISH)
    assert "No vote was saved." in shown[demo.notice] and demo_votes.count(store) == 0


def test_the_second_turn_follows_the_better_answer(demo, store, server):
    judged = demo.prefer_b(hidden(demo)[demo.conversation], ENGLISH)[demo.conversation]
    better = judged.turns[0].answers[1].text
    server.requests.clear()
    sent = final(ask(demo, "Why?", conversation=judged))
    assert {request[1][1]["content"] for request in server.requests} == {better}
    assert "The conversation went on from answer B." in sent[demo.earlier]
    demo.prefer_a(sent[demo.conversation], ENGLISH)
    latest = history.of_annotator(store, accounts.local(store).id)[0]
    assert [m["content"] for m in latest.comparison.prompt.messages] == ["Hi", better, "Why?"]


def test_who_does_not_judge_sees_no_vote_buttons_and_has_no_vote(demo, store):
    accounts.create(store, "lead", PASSWORD, ["lead"])
    token = accounts.sign_in(store, "lead", PASSWORD)
    request = SimpleNamespace(headers={}, cookies={demo.auth.cookie: token})
    conversation = hidden(demo, request=request)[demo.conversation]
    ended = demo.end(conversation, request)
    assert ended[demo.vote_bar].visible and not any(ended[button].visible for button in demo.votes.values())
    with pytest.raises(Exception, match="needs the role"):
        demo.prefer_a(conversation, request)
    assert demo_votes.count(store) == 0 and not any(a.judged for a in annotators.all_annotators(store))


# ---- links


def test_a_link_opens_the_conversation_again(demo, server):
    conversation = final(ask(demo))[demo.conversation]
    address = demo.make_link(conversation, ENGLISH)[demo.address]
    assert address.visible and address.value == f"#demo-{to_link(conversation)}"
    shown = demo.open(address.value.removeprefix("#demo-"), Conversation(), None, ENGLISH)
    assert shown[demo.seed] == 11 and shown[demo.top_k] == 5 and shown[demo.versions].value == ["Base", "t1"]
    assert "Press Answer" in shown[demo.notice] and "<p>Hi</p>" in shown[demo.current]
    server.requests.clear()
    again = final(ask(demo, "", conversation=shown[demo.conversation], seed=99))
    assert answers(again, demo) == ["I am the base", "I am t1"] and {request[3] for request in server.requests} == {11}


def test_a_damaged_link_is_told(demo, server):
    shown = demo.open("nonsense", Conversation(), None, ENGLISH)
    assert "damaged or incomplete" in shown[demo.notice] and shown[demo.versions].value == ["Base", "t2"]


def test_without_a_conversation_there_is_no_link(demo):
    shown = demo.make_link(Conversation(), ENGLISH)
    assert "no conversation to link to" in shown[demo.notice] and not shown[demo.address].visible


def test_a_new_conversation_lets_the_versions_be_chosen(demo):
    shown = demo.reset(ENGLISH)
    assert shown[demo.conversation] == Conversation() and shown[demo.versions].interactive and shown[demo.blind].interactive
    assert "The answers appear here" in shown[demo.current] and not shown[demo.retry].interactive
