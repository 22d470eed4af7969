"""Reliabilities: against a slow count of all coin flips, on simulated annotators, and in a store where one contradicts the others."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad

from rlhf.data import reliability
from rlhf.data.reliability import DIFFERENCES, SharedVotes, fit, log_odds
from storage.content import comparisons, completions, policies, prompts
from storage.core.database import now
from storage.core.records import Sampling
from storage.people import annotators

NO_GOLD = np.zeros(3)


def votes(*rows):
    """`(pair, annotator, first)`: 1 where the first is better."""
    pair, annotator, first = (np.array(column) for column in zip(*rows, strict=True))
    return SharedVotes(pair, annotator, first.astype(float), np.ones(len(rows)))


def simulated(rng, reliabilities, pairs, per_pair):
    """Each pair is judged by some of the annotators, in the model's own way."""
    r, d = np.array(reliabilities), rng.normal(0, 2, pairs)
    pair = np.repeat(np.arange(pairs), per_pair)
    annotator = np.concatenate([rng.choice(len(r), per_pair, replace=False) for _ in range(pairs)])
    follows = rng.random(len(pair)) < r[annotator]
    first = rng.random(len(pair)) < np.where(follows, 1 / (1 + np.exp(-d[pair])), 0.5)
    return SharedVotes(pair, annotator, first.astype(float), np.ones(len(pair)))


def test_two_votes_that_follow_the_completions_agree_in_70_percent_of_pairs():
    first = 1 / (1 + np.exp(-DIFFERENCES))
    assert (first**2 + (1 - first) ** 2).mean() == pytest.approx(0.70, abs=0.005)


def test_the_posterior_is_that_of_all_coin_flips_counted_one_by_one():
    """Three annotators, five pairs, no array operations: differences and coin flips are enumerated, and the grid is an integral."""
    by_pair = [[(0, 1), (1, 1), (2, 0)], [(0, 0), (1, 0), (2, 1)], [(0, 1), (1, 1)], [(0, 0), (2, 0)], [(1, 1), (2, 0)]]
    rows = [(pair, *vote) for pair, said in enumerate(by_pair) for vote in said]
    r, average = [0.75] * 3, 0.75

    def probability(first, d, follows):
        p = 1 / (1 + math.exp(-d)) if follows else 0.5
        return p if first else 1 - p

    def of_pair(said, r, follower=None):
        """The pair's probability; with `follower`, that part of it in which this annotator's vote is no coin flip."""
        total = 0.0
        for d in DIFFERENCES:
            for follows in product([True, False], repeat=len(said)):
                if follower is None or dict(zip([a for a, _ in said], follows, strict=True))[follower]:
                    each = ((r[a] if f else 1 - r[a]) * probability(first, d, f) for (a, first), f in zip(said, follows, strict=True))
                    total += math.prod(each) / len(DIFFERENCES)
        return total

    for _ in range(300):
        followed = [sum(of_pair(said, r, a) / of_pair(said, r) for said in by_pair if a in dict(said)) for a in range(3)]
        number = [sum(a in dict(said) for said in by_pair) for a in range(3)]
        r = [(followed[a] + average) / (number[a] + 1) for a in range(3)]
        average = (sum(r[a] * number[a] for a in range(3)) + 0.75 * 10) / (sum(number) + 10)

    def density(q, a):
        others = [*r[:a], q, *r[a + 1 :]]
        return q ** (average - 1) * (1 - q) ** -average * math.prod(of_pair(said, others) for said in by_pair)

    expected = [quad(lambda q, a=a: q * density(q, a), 0, 1)[0] / quad(density, 0, 1, args=(a,))[0] for a in range(3)]
    found = fit(votes(*rows), NO_GOLD, NO_GOLD)
    assert found.average == pytest.approx(average, abs=1e-3)
    assert found.reliability == pytest.approx(expected, abs=0.01)
    assert found.reliability[2] < found.reliability[0]


def test_gold_answers_alone():
    """Nine of ten, none of ten, and nobody's: the posterior of a binomial share (1 - r) / 2 + .95 r with the average as its prior."""
    nobody = SharedVotes(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))
    found = fit(nobody, np.array([9.0, 0, 0]), np.array([10.0, 10, 0]))
    for right, reliability_ in zip((9, 0), found.reliability[:2], strict=True):

        def density(r, right=right):
            p = 0.95 * r + (1 - r) / 2
            return r ** (found.average - 1) * (1 - r) ** -found.average * p**right * (1 - p) ** (10 - right)

        assert reliability_ == pytest.approx(quad(lambda r, f=density: r * f(r), 0, 1)[0] / quad(density, 0, 1)[0], abs=0.01)
    assert found.reliability[2] == found.average
    assert found.low[1] < 0.05 and found.high[1] < 0.4 < found.low[0] + 0.3


def test_random_annotators_are_told_from_the_others():
    found = fit(simulated(np.random.default_rng(0), [0.9] * 7 + [0.0] * 3, 1000, 3), np.zeros(10), np.zeros(10))
    assert found.reliability[7:].max() < 0.3 < 0.7 < found.reliability[:7].min()
    assert (found.low <= found.reliability).all() and (found.reliability <= found.high).all()


def test_intervals_cover_the_true_reliability():
    truth = np.array([0.9] * 6 + [0.5] * 2 + [0.0] * 2)
    covered = []
    for seed in range(20):
        found = fit(simulated(np.random.default_rng(seed), truth, 300, 3), np.zeros(10), np.zeros(10))
        # Ends are cells of the grid.
        covered.append((found.low - 1 / 64 <= truth) & (truth <= found.high + 1 / 64))
    assert np.mean(covered) > 0.9


def test_turning_all_pairs_round_changes_nothing():
    told = simulated(np.random.default_rng(1), [0.9, 0.9, 0.1], 60, 3)
    turned = told._replace(first=1 - told.first)
    assert fit(told, NO_GOLD, NO_GOLD).reliability == pytest.approx(fit(turned, NO_GOLD, NO_GOLD).reliability)


def test_votes_beyond_one_chunk_count_too(monkeypatch):
    told = simulated(np.random.default_rng(2), [0.9, 0.9, 0.1], 60, 3)
    whole = fit(told, NO_GOLD, NO_GOLD)
    monkeypatch.setattr(reliability, "CHUNK_VOTES", 7)
    assert fit(told, NO_GOLD, NO_GOLD).reliability == pytest.approx(whole.reliability)


def test_log_odds():
    """A reliability of .6 is right in .8 of clear pairs."""
    assert log_odds(0.6) == pytest.approx(math.log(4))
    assert log_odds(0.0) == 0.0
    assert log_odds(1.0) == pytest.approx(math.log(19)), "certainty is not believed"


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
    for number in range(40):
        ids = [vote(store, number, "Ann", True), vote(store, number, "Bo", True), vote(store, number, "Cy", number % 2 == 0)]
    alone = vote(store, 99, "Di", True)
    found = {row.annotator_id: row for row in reliability.of_store(store, include_simulated=False)}
    ann, bo, cy = (found[i] for i in ids)
    assert (ann.shared, ann.agreement, cy.agreement) == (40, pytest.approx(0.75), pytest.approx(0.5))
    assert ann.reliability == bo.reliability > 0.8 > 0.3 > cy.reliability > cy.low
    assert 0 < cy.weight < 0.4 < 1 < ann.weight
    assert reliability.weights(store, include_simulated=False) == {i: row.weight for i, row in found.items()}
    assert (found[alone].reliability, found[alone].low, found[alone].weight, found[alone].judgments) == (None, None, 1.0, 1)


def test_without_votes_nobody_has_a_reliability(store):
    assert reliability.of_store(store, include_simulated=True) == ()
