"""A judgment of the page names slots; the store's names completions. Slots here hold completions 70, 71 and 72."""

import pytest

from feedback_ui.judging.acts import judgment_arguments
from storage.core.records import Details, Flag, IdealAnswer, Timing
from storage.judging.details import BadJudgment

TWO, THREE = (71, 70), (72, 70, 71)


@pytest.mark.parametrize(
    ("act", "order", "tiers", "all_bad"),
    [
        ({"choice": "a"}, TWO, ((71,), (70,)), False),
        ({"choice": "b"}, TWO, ((70,), (71,)), False),
        ({"choice": "tie"}, TWO, ((71, 70),), False),
        ({"choice": "both_bad"}, TWO, ((71, 70),), True),
        ({"choice": "rank", "tiers": [[1], [0, 2]]}, THREE, ((70,), (72, 71)), False),
    ],
)
def test_slots_are_converted_to_completions(act, order, tiers, all_bad):
    assert judgment_arguments(act, order) == {"verdict": "rank", "tiers": tiers, "all_bad": all_bad, "details": Details()}


def test_details_are_converted_too():
    act = {
        "choice": "a", "strength": 2, "rationale": "clear", "aspects": {"1": {"Helpful": 4}}, "ideal": {"text": "Better.", "slot": 0},
        "flags": [{"kind": "unsafe", "note": "look", "slot": 1}, {"kind": "broken_prompt"}],
        "timing": {"active_ms": 900, "idle_ms": 20, "client_ms": 950},
    }  # fmt: skip
    assert judgment_arguments(act, TWO)["details"] == Details(
        strength=2,
        aspects={70: {"Helpful": 4}},
        rationale="clear",
        ideal=IdealAnswer("Better.", 71),
        flags=(Flag("unsafe", "look", 70), Flag("broken_prompt", "", None)),
        timing=Timing(900, 20, 950),
    )


def test_a_skip_keeps_its_reason_and_no_ratings():
    act = {"choice": "skip", "reason": "not sure", "strength": 2, "rationale": "hm"}
    assert judgment_arguments(act, TWO) == {"verdict": "skip", "skip_reason": "not sure", "details": Details(rationale="hm")}


@pytest.mark.parametrize(
    "act",
    [
        {},
        {"choice": "c"},
        {"choice": ["a"]},
        {"choice": "rank"},
        {"choice": "rank", "tiers": [[2]]},
        {"choice": "rank", "tiers": [[-1]]},
        {"choice": "rank", "tiers": [[True]]},
        {"choice": "rank", "tiers": [["0"]]},
        {"choice": "rank", "tiers": 1},
        {"choice": "a", "timing": {}},
        {"choice": "a", "ideal": {"slot": 0}},
        {"choice": "a", "flags": [{}]},
        {"choice": "a", "aspects": {"9": {}}},
    ],
)
def test_invalid_judgments_are_refused(act):
    with pytest.raises(BadJudgment, match="The page sent an invalid judgment: reload the page"):
        judgment_arguments(act, TWO)


def test_buttons_of_two_answers_are_refused_for_three():
    with pytest.raises(BadJudgment):
        judgment_arguments({"choice": "a"}, THREE)
