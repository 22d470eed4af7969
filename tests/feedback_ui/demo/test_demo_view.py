"""What a conversation looks like, and which versions can be chosen."""

from feedback_ui.demo import demo_view
from feedback_ui.demo.conversation import Answer, Conversation, Refusal, Turn
from feedback_ui.shared.i18n import Translator
from storage.core.records import PolicyVersion, Sampling

EN, KO = Translator("en"), Translator("ko")


def versions(*kinds):
    return [PolicyVersion(i, name, kind, "m", None, None, "") for i, (name, kind) in enumerate(kinds)]


def conversation(*answers, **changes):
    turn = Turn("**Hi**", 3, Sampling(0.7, 1.0, 0, 96), tuple(range(len(answers))), answers, **changes)
    return Conversation(("base", "<t1>"), False, (turn,))


def test_versions_to_choose_are_those_served_the_base_first_and_the_newest_next():
    known = versions(("base", "base"), ("t1", "tuned"), ("t2", "tuned"), ("gone", "tuned"), ("x", "external"))
    available = demo_view.available(["t1", "base", "t2", "x"], known)
    assert [v.name for v in available] == ["base", "t2", "t1"]
    assert demo_view.opening_choice(available, None) == ["base", "t2"] == demo_view.opening_choice(available, ["gone"])
    assert demo_view.opening_choice(available, ["t1", "x"]) == ["t1"]
    assert demo_view.missing(EN, available) == "" and "no base model yet" in demo_view.missing(EN, [])
    assert "No tuned version exists yet" in demo_view.missing(EN, available[:1])


def test_answers_stand_beside_each_other_with_their_names_and_copies():
    html = demo_view.turn(EN, conversation(Answer("a **b**", "stop"), Answer("<c>", "length")), 0)
    assert html.count("<article") == 2 and "<h3>base</h3>" in html and "<h3>&lt;t1&gt;</h3>" in html
    assert 'rl-source">a **b**<' in html and 'rl-source">&lt;c&gt;<' in html and html.count('data-act="copy"') == 2
    assert "Seed 3, temperature 0.7, at most 96 tokens" in html and html.count("Cut off here: the limit is 96 tokens.") == 1
    assert "시드 3, 온도 0.7, 최대 96토큰" in demo_view.turn(KO, conversation(Answer("a", "stop"), Answer("b", "stop")), 0)


def test_while_it_is_written_an_answer_has_no_button():
    html = demo_view.turn(EN, conversation(Answer("a"), Answer("")), 0, writing=True)
    assert html.count('aria-busy="true"') == 2 and "Writing" in html and "data-act" not in html and "rl-source" not in html


def test_an_answer_that_broke_off_says_why_beside_what_has_come():
    html = demo_view.turn(EN, conversation(Answer("Half", problem="The server is gone."), Answer("", problem="Gone.")), 0)
    assert "Half" in html and "The server is gone." in html and "The answer is empty" not in html


def test_an_empty_answer_and_one_that_is_not_there_are_told_apart():
    html = demo_view.turn(EN, conversation(Answer("", "stop"), Answer()), 0)
    assert "The answer is empty." in html and "Not written yet. Press Answer." in html


def test_the_note_after_a_vote_names_both():
    of = conversation(Answer("a", "stop"), Answer("b", "stop"), verdict="b", continued=1)
    assert "You preferred &lt;t1&gt; to base." in demo_view.voted(EN, of)
    assert demo_view.voted(EN, conversation(Answer("a", "stop"), Answer("b", "stop"))) == ""


def test_a_refusal_is_in_the_readers_language():
    assert "At most 16 prompts" not in demo_view.refused(EN, Refusal("demo.too_many_turns", limit=16))
    assert "A conversation has at most 16 prompts." in demo_view.refused(EN, Refusal("demo.too_many_turns", limit=16))
    assert "최대 16개" in demo_view.refused(KO, Refusal("demo.too_many_turns", limit=16))
