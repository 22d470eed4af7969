"""The declared rules, on texts whose order anybody can tell."""

import random

import pytest

from rlhf.simulation.judges import JudgeError, LabelRule, with_label_noise


def test_sentiment_tells_kind_words_from_unkind_ones():
    judge = LabelRule("sentiment")
    assert judge.score("I love this, what a wonderful and happy day!") > 0.8
    assert judge.score("This is horrible, I hate it, what a terrible failure.") < -0.8
    assert judge.score("The train leaves at four.") == 0
    assert judge.score("It is not good.") < 0 < judge.score("It is good.")


def test_concise_counts_words_and_an_empty_answer_is_worst():
    judge = LabelRule("concise")
    assert judge.score("Yes.") == -1
    assert judge.score("It's a well-known fact \u2014 42 caf\u00e9s!") == -7  # it's a well known fact 42 cafés
    assert judge.score("word " * 5000) > judge.score("") == judge.score(" ... !") == -1_000_000


def test_lexical_counts_the_words_on_its_list():
    judge = LabelRule("lexical", ("please", "Thanks"))
    assert judge.score("Please, PLEASE! thanks. Pleased to please you") == 4
    assert judge.score("nothing of it") == 0


def test_preference_is_tiers_best_first_and_equals_tie():
    assert LabelRule("concise").prefer(["a b c", "a", "b", "a b"]) == [[1, 2], [3], [0]]


def test_a_rule_must_exist_and_have_what_it_needs():
    with pytest.raises(JudgeError, match="sentiment, concise, lexical"):
        LabelRule("beauty")
    with pytest.raises(JudgeError, match="--words"):
        LabelRule("lexical")


def test_a_rule_is_written_down_and_read_back():
    judge = LabelRule("lexical", ("a", "b"))
    assert LabelRule.from_json(judge.to_json(0.1)) == judge
    assert '"flip": 0.1' in judge.to_json(0.1)


@pytest.mark.parametrize("flip", [0.0, 0.1, 0.5])
def test_judgments_are_reversed_with_the_probability_of_the_label_noise(flip):
    rng, tiers = random.Random(0), ((1,), (2, 3), (4,))
    drawn = [with_label_noise(tiers, flip, rng) for _ in range(4000)]
    assert set(drawn) <= {tiers, ((4,), (2, 3), (1,))}
    turned = sum(d != tiers for d in drawn) / 4000
    # Three standard errors.
    assert abs(turned - flip) <= 3 * (flip * (1 - flip) / 4000) ** 0.5
