"""The weight of a vote, in cases worked out by hand, and among annotators of whom one contradicts the others."""

import math

import pytest

from rlhf.analysis.agreement import AnnotatorRow, LeftShare, Share
from rlhf.data import reliability
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import now
from storage.core.records import Sampling
from storage.people import annotators


def row(agreement=None, units=0, right=0, known=0):
    share = Share(None, None, None, right, known)
    return AnnotatorRow(1, "Ann", "human", 10, 0, None, share, share, LeftShare(None, None, None, 0, None), agreement, units)


def test_agreement_of_68_percent_is_an_accuracy_of_80():
    """.8^2 + .2^2 = .68."""
    assert reliability.average_accuracy([row(0.6, 10), row(0.76, 10)]) == pytest.approx(0.8)


def test_gold_answers_count_beside_agreement():
    """(.8 * 20 + 9) / (20 + 10)."""
    assert reliability.average_accuracy([row(0.68, 20), row(right=9, known=10)]) == pytest.approx(25 / 30)


def test_without_evidence_all_weights_are_one():
    assert reliability.average_accuracy([row(), row()]) == reliability.UNKNOWN_ACCURACY
    assert reliability.accuracy(row(), 0.8) == pytest.approx(0.8)


def test_an_annotator_with_average_agreement_has_average_accuracy():
    assert reliability.accuracy(row(0.68, 30), 0.8) == pytest.approx(0.8)


def test_few_cases_are_shrunk_to_the_average():
    """Agreement .5 with those who are right in .8 is a coin's: (.5 - .2) / .6. With ten prior pairs: (5 + 8) / 20, (45 + 8) / 100."""
    assert reliability.accuracy(row(0.5, 10), 0.8) == pytest.approx(13 / 20)
    assert reliability.accuracy(row(0.5, 90), 0.8) == pytest.approx(53 / 100)
    assert reliability.accuracy(row(right=30, known=30), 0.8) == pytest.approx(38 / 40)


def test_disagreement_beyond_chance_counts_as_always_wrong():
    assert reliability.accuracy(row(0.0, 10), 0.8) == pytest.approx(8 / 20)


def test_log_odds():
    assert reliability.log_odds(0.8) == pytest.approx(math.log(4))
    assert reliability.log_odds(0.5) == reliability.log_odds(0.1) == 0.0
    assert reliability.log_odds(1.0) == pytest.approx(math.log(19)), "certainty is not believed"


def test_annotators_at_chance_do_not_make_all_weights_zero():
    assert reliability.average_accuracy([row(0.5, 40)]) == pytest.approx(0.55)


def vote(store, number, who, first_is_better):
    base = policies.ensure_base(store, "hub/tiny")
    text = f"Question {number}?"
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": text},), kind="k", split="train")], source="t")
    prompt = next(p for p in prompts.of_split(store) if p.text == text)
    known = store.value("SELECT id FROM comparisons WHERE prompt_id = ?", [prompt.id])
    if known is None:
        ids = [
            completions.add(
                store,
                prompt_id=prompt.id,
                policy_version_id=base.id,
                text=name,
                sampling=Sampling(),
                seed=0,
                finish_reason="stop",
                latency_s=0.1,
            )
            for name in "ab"
        ]
        known = comparisons.add(store, prompt.id, ids, purpose="collect")
    shown = [c.id for c in comparisons.get(store, known).completions]
    order = shown if first_is_better else shown[::-1]
    annotator = annotators.ensure(store, who)
    store.insert(
        "judgments",
        {
            "comparison_id": known,
            "annotator_id": annotator.id,
            "verdict": "rank",
            "created_at": now(),
            "tiers": [[i] for i in order],
            "purpose": "vote",
        },
    )
    return annotator.id


def test_an_annotator_who_contradicts_the_others_has_a_lower_weight(store):
    for number in range(12):
        ids = [vote(store, number, "Ann", True), vote(store, number, "Bo", True), vote(store, number, "Cy", number % 2 == 0)]
    alone = vote(store, 99, "Di", True)
    found = reliability.weights(store, include_simulated=False)
    ann, bo, cy = (found[i] for i in ids)
    # Agreement: Ann and Bo (1 + 1/2) / 2, Cy 1/2; all 36 pairs (.75 + .75 + .5) / 3 = 2/3.
    average = (1 + math.sqrt(2 * 2 / 3 - 1)) / 2
    own = (min(1.0, (0.75 - (1 - average)) / (2 * average - 1)) * 12 + average * 10) / 22
    assert ann == bo == pytest.approx(reliability.log_odds(own) / reliability.log_odds(average))
    assert 0 < cy < 1 < ann
    assert found[alone] == 1.0
