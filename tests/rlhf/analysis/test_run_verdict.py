"""The verdict on a round: which measure counts, what its interval says, and whether the reward model beats a coin."""

import pytest

from rlhf.analysis import run_verdict
from rlhf.runs.results import Estimate, RoundResult

COIN = Estimate(0.52, 0.41, 0.63, 80)
GOOD = Estimate(0.71, 0.62, 0.79, 118)
EVEN = Estimate(0.46, 0.37, 0.56, 40)
WORSE = Estimate(0.3, 0.2, 0.42, 40)


def test_the_sentence_says_what_the_round_showed():
    verdict = run_verdict.of(RoundResult(win_rate=EVEN, heldout_accuracy=COIN))
    assert verdict.in_words() == (
        "No improvement shown: 46% (37 to 56%) under the rule; the reward model cannot be told from a coin: 52% (41 to 63%)"
    )
    assert verdict.tone == "warn"


@pytest.mark.parametrize(
    ("result", "improvement", "measure", "tone"),
    [
        (RoundResult(win_rate=GOOD, win_rate_by_reward_model=EVEN), "better", "rule", "good"),
        (RoundResult(win_rate=EVEN, win_rate_by_reward_model=GOOD), "not_shown", "rule", "warn"),
        (RoundResult(win_rate=WORSE), "worse", "rule", "bad"),
        (RoundResult(win_rate_by_reward_function=GOOD, win_rate_by_reward_model=GOOD), "better", "reward_function", "good"),
        (RoundResult(win_rate_by_reward_model=GOOD), "proxy", "reward_model", "warn"),
        (RoundResult(win_rate_by_reward_model=WORSE), "worse", "reward_model", "bad"),
        (RoundResult(), "unknown", None, "muted"),
    ],
)
def test_the_measure_that_depends_least_on_the_training_decides(result, improvement, measure, tone):
    verdict = run_verdict.of(result)
    assert (verdict.improvement, verdict.measure, verdict.tone) == (improvement, measure, tone)


def test_the_votes_of_people_count_first():
    evidence = {"win_rate": 0.64, "low": 0.52, "high": 0.75, "units": 42, "verdict": "promote"}
    verdict = run_verdict.of(RoundResult(win_rate=WORSE), evidence)
    assert (verdict.improvement, verdict.measure, verdict.win_rate) == ("better", "people", Estimate(0.64, 0.52, 0.75, 42))
    assert run_verdict.of(RoundResult(win_rate=WORSE), {"win_rate": "high", "guards": []}).measure == "rule"
    simulated = run_verdict.of(RoundResult(win_rate=WORSE), evidence | {"judges": "simulated"})
    assert simulated.measure == "simulated" and "64% (52 to 75%) by simulated annotators' blind votes" in simulated.in_words()
    assert "people" not in simulated.in_words()


@pytest.mark.parametrize(
    ("accuracy", "found"),
    [
        (None, "unknown"),
        (Estimate(0.6, 0.51, 0.7, 9), "above"),
        (Estimate(0.6, 0.5, 0.7, 9), "coin"),
        (Estimate(0.4, 0.3, 0.5, 9), "coin"),
        (Estimate(0.4, 0.3, 0.49, 9), "below"),
    ],
)
def test_an_accuracy_whose_interval_holds_one_half_is_a_coin(accuracy, found):
    assert run_verdict.against_coin(accuracy) == found
