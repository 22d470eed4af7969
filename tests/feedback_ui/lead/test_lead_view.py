"""Names, and a comparison with its answers."""

from lead_page import EN

from feedback_ui.lead import lead_view
from storage.core.records import Prompt


def test_an_act_without_a_known_annotator_is_the_programs():
    assert lead_view.who(EN, {4: "<b>Tom</b>"}, 4) == "&lt;b&gt;Tom&lt;/b&gt;"
    for unknown in (None, 5):
        assert lead_view.who(EN, {4: "Tom"}, unknown) == '<span class="rl-muted">the program</span>'


def test_letters_follow_the_order_of_the_answers_and_not_of_their_ids(of_three):
    first, second, third = (c.id for c in of_three.completions)
    assert lead_view.letters(of_three, ((third,), (second, first))) == "C > A = B"
    assert lead_view.letters(of_three, ((third,), (first + 1_000,))) == "C > ?", "an answer of another comparison"


def test_speakers_are_named_where_there_is_more_than_one_turn():
    asked = {"role": "user", "content": "Why?"}
    assert "Person" not in lead_view.conversation(EN, Prompt(1, (asked,), "chat", "train"))
    html = lead_view.conversation(EN, Prompt(1, ({"role": "system", "content": "Be brief."}, asked), "chat", "train"))
    assert html.index("Instructions") < html.index("Be brief.") < html.index("Person") < html.index("Why?")
