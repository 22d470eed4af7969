"""What each guard measures, with values worked out by hand, and that a version which collapsed fails the guard that is for it."""

from dataclasses import replace

import pytest
from pytest import approx

from rlhf.analysis import guards
from rlhf.config import GuardsConfig
from rlhf.evaluation import SampledCompletion
from rlhf.runs.results import Estimate, GuardCheck, RoundResult

GOOD = ["Yeast eats sugar and leaves gas.", "The sky scatters blue light most.", "Ice floats since it is lighter."]


def answers(*texts, end="stop", prompts=None, words=None):
    """One answer to a prompt each; a token for each word."""
    return [
        SampledCompletion(prompts[n] if prompts else n, words or [sum(map(ord, word)) for word in text.split()], text, end)
        for n, text in enumerate(texts)
    ]


BEFORE = answers(*GOOD)


def failed(after, before=BEFORE, win_rate=None, kl=None, **limits):
    checks = guards.check(before, after, win_rate=win_rate, kl=kl, config=replace(GuardsConfig(), **limits))
    return [check.name for check in checks if not check.passed]


def test_a_version_that_answers_as_before_passes(kl=4.0):
    checks = guards.check(BEFORE, BEFORE, win_rate=Estimate(0.6, 0.5, 0.7, 3), kl=kl, config=GuardsConfig())
    assert [(check.name, check.value) for check in checks] == [
        ("win_rate", 0.7), ("kl", 4.0), ("length_ratio", 1.0), ("repetition", 0.0), ("unended", 0.0), ("empty", 0.0), ("phrase", 0.0),
    ]  # fmt: skip
    assert all(check.passed for check in checks)


@pytest.mark.parametrize(
    ("after", "which"),
    [
        (answers("", " ", "\n"), ["length_ratio", "empty"]),
        (answers(*GOOD, end="length"), ["unended"]),
        (answers(*(f"{text} As I said before you know it." for text in GOOD)), ["phrase"]),
        (answers(*("so it is " * 8 for _ in GOOD)), ["length_ratio", "repetition", "phrase"]),
        (answers("Yes.", "No.", "So."), ["length_ratio"]),
        (answers("Yes it is.", "Yes it is.", "Yes it is."), ["phrase"]),
    ],
)
def test_a_version_that_collapsed_fails(after, which):
    assert failed(after) == which


def test_the_base_s_own_habits_do_not_count():
    boilerplate = answers(*(f"As an assistant I would say {text} {text}" for text in GOOD), end="length")
    assert failed(boilerplate, boilerplate) == []
    assert failed(boilerplate) == ["repetition", "unended", "phrase"] or failed(boilerplate) == ["unended", "phrase"]


@pytest.mark.parametrize(("win_rate", "fails"), [((0.3, 0.2, 0.39), True), ((0.3, 0.2, 0.41), False)])
def test_a_version_that_is_surely_worse_under_its_own_reward_model_fails(win_rate, fails):
    assert failed(BEFORE, win_rate=Estimate(*win_rate, 30)) == ["win_rate"] * fails


def test_the_bounds_are_options():
    assert failed(BEFORE, kl=51.0) == ["kl"]
    assert failed(BEFORE, kl=51.0, max_kl=60.0) == []
    ended = answers(*GOOD[:2]) + answers(GOOD[2], end="length", prompts=[2])
    assert failed(ended) == ["unended"] and failed(ended, max_unended=0.34) == []
    assert failed(answers("", *GOOD[1:])) == ["empty"] and failed(answers("", *GOOD[1:]), max_empty=0.34) == []


def test_repetition_is_the_share_of_runs_of_four_tokens_that_stood_there_before():
    def repeated(*ids):
        return guards.repetition(SampledCompletion(0, list(ids), "", "stop"))

    assert repeated(1, 2, 3) == repeated() == 0
    assert repeated(1, 2, 3, 4, 5, 6, 7, 8) == 0
    # 1234 2341 3412 4123 1234: the fifth is the first.
    assert repeated(1, 2, 3, 4, 1, 2, 3, 4) == approx(1 / 5)
    assert repeated(*[7] * 20) == approx(16 / 17)


def test_a_phrase_is_counted_once_for_each_prompt():
    texts = ("one two three four five six", "zero one two three four five", "nothing of it in here at all")
    shares = guards.phrase_shares(answers(*texts))
    assert shares == {("one", "two", "three", "four", "five"): approx(2 / 3)}
    assert guards.phrase_shares(answers(*texts[:2], prompts=[4, 4])) == {}, "one prompt's answers resemble each other"
    assert guards.phrase_shares(answers("No.", "no.", "")) == {("no", "."): approx(2 / 3)}


def test_without_held_out_answers_there_is_nothing_to_guard():
    assert guards.check([], [], win_rate=None, kl=None, config=GuardsConfig()) == []


def test_the_checks_are_stored_and_said_in_words():
    checks = [GuardCheck("empty", 0.38, high=0.1), GuardCheck("length_ratio", 0.2, 1 / 3, 3.0), GuardCheck("kl", 4.04, high=50.0)]
    assert [check.in_words() for check in checks] == [
        "empty answers 38% (at most 10%)",
        "length beside the base's 0.20 (at least 0.33, at most 3.00)",
        "KL to the base 4.0 nats (at most 50.0 nats)",
    ]
    result = RoundResult(guards=checks)
    assert RoundResult.from_json(result.to_json()) == result
    assert RoundResult.from_json({}).guards is None
