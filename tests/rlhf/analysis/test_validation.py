"""Cross-validation on made-up features: what it must find where the answer is known, and that nothing leaks between folds."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx
from scipy import stats

from rlhf.analysis import validation
from rlhf.analysis.validation import (
    FOLDS,
    FRACTIONS,
    REPEATS,
    Validation,
    calibration,
    curve_accuracy,
    fit_curve,
    grouped_folds,
    high_loss_judgments,
    out_of_fold,
    validate,
)
from storage.judging.judgments import JudgmentMetadata

Z2 = stats.norm.ppf(0.975) ** 2


def origins(prompt, *, judgment=None, annotator=None, kind=None):
    """Pairs of these prompts, each a judgment of its own unless said otherwise."""
    n = len(prompt)
    judgment = range(n) if judgment is None else judgment
    return [
        JudgmentMetadata(int(j), 1000 + int(j), int(prompt[i]), annotator[i] if annotator else 1, kind[i] if kind else "k")
        for i, j in enumerate(judgment)
    ]


def mean_of(difference):
    """The plainest probe: the sum of what it is shown."""
    return lambda rows: difference[rows].sum(0)


def world(n, prompts, d, *, seed, strength):
    """Pairs that a hidden direction explains as far as `strength` goes; 0 makes their labels coin flips."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(d) / math.sqrt(d)
    difference = rng.standard_normal((n, d))
    preferred = rng.random(n) < 1 / (1 + np.exp(-strength * difference @ direction))
    return np.where(preferred, 1, -1)[:, None] * difference, rng.integers(prompts, size=n)


# ---- what must come out


def test_a_linear_preference_is_found_by_every_fold():
    rng = np.random.default_rng(0)
    difference = np.abs(rng.standard_normal((120, 3)))
    report = validate(difference, origins(np.arange(120) % 40), mean_of(difference), seed=0)
    assert (report.accuracy.value, report.accuracy.high) == (1.0, approx(1.0))
    # Wilson's interval where all of 40 prompts came out right: 1 / (1 + z^2 / 40).
    assert report.accuracy.low == approx(1 / (1 + Z2 / 40))
    assert (report.accuracy.pairs, report.accuracy.prompts) == (120, 40)
    assert report.high_loss_judgments == () and report.curve.gain.low <= 0 <= report.curve.gain.high


def test_random_votes_have_chance_accuracy():
    held, claimed = 0, 0
    for seed in range(12):
        difference, prompt = world(150, 50, 20, seed=seed, strength=0)
        report = validate(difference, origins(prompt), mean_of(difference), seed=seed)
        held += report.accuracy.low <= 0.5 <= report.accuracy.high
        claimed += report.curve.gain.low > 0
    assert held >= 11 and claimed == 0


def test_a_leak_between_folds_would_be_detected():
    """Each prompt has an axis of its own: a probe that saw it knows its other pairs, one that did not knows nothing."""
    prompt = np.repeat(np.arange(30), 4)
    difference = np.eye(30)[prompt]
    report = validate(difference, origins(prompt), mean_of(difference), seed=0)
    assert (report.accuracy.value, report.calibration.accuracy) == (0.5, 0.5)
    everything = mean_of(difference)(np.ones(120, bool))
    assert (difference @ everything > 0).all(), "what a leak would look like"


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda p: len(set(p)) >= 2), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_no_prompt_is_in_both_folds_and_sizes_are_nested(prompt, seed):
    prompt, calls = np.array(prompt), []

    def fit(rows):
        calls.append(rows)
        return np.array([len(calls) - 1.0])

    # With 1 for every difference a pair's margin is the number of the fit that judged it.
    margins, sizes = out_of_fold(np.ones((len(prompt), 1)), prompt, np.arange(len(prompt)), fit, seed=seed)
    assert len(calls) == len(FRACTIONS) * REPEATS * min(FOLDS, len(set(prompt.tolist())))
    for repeat in range(REPEATS):
        for pair in range(len(prompt)):
            seen = [calls[int(margins[size, repeat, pair])] for size in range(len(FRACTIONS))]
            assert not any((rows & (prompt == prompt[pair])).any() for rows in seen)
            assert all((small <= large).all() and small.any() for small, large in pairwise(seen))
    assert (np.diff(sizes) >= 0).all()


@given(st.lists(st.integers(-5, 30), min_size=1, max_size=80), st.integers(1, 8), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_prompts_are_assigned_to_folds_whole_and_evenly(prompt, folds, seed):
    fold = grouped_folds(np.array(prompt), folds, np.random.default_rng(seed))
    of_prompt = {}
    for p, f in zip(prompt, fold.tolist(), strict=True):
        assert of_prompt.setdefault(p, f) == f
    dealt = np.bincount(list(of_prompt.values()), minlength=folds)
    assert dealt.max() - dealt.min() <= 1 and fold.max() < folds


def test_the_order_of_the_pairs_does_not_matter():
    rng = np.random.default_rng(1)
    # Whole numbers, so that sums are the same in any order.
    difference, prompt = rng.integers(-3, 4, (90, 4)).astype(float), rng.integers(20, size=90)
    where = origins(prompt, judgment=np.arange(90) // 2, annotator=[1 + i // 2 % 3 for i in range(90)], kind=list("abc") * 30)
    order = rng.permutation(90)
    shuffled = difference[order]
    one = validate(difference, where, mean_of(difference), seed=4)
    other = validate(shuffled, [where[i] for i in order], mean_of(shuffled), seed=4)
    assert one.accuracy == other.accuracy and one.by_kind == other.by_kind and one.by_annotator == other.by_annotator
    assert one.curve.points == other.curve.points and one.high_loss_judgments == other.high_loss_judgments


# ---- accuracy and its interval


def test_the_interval_is_the_cluster_bootstrap_widened():
    # 12 of 20 prompts right: replicates are Binomial(20, 0.6) / 20, whose 2.5% and 97.5% points are 8 and 16.
    right = np.repeat([[1.0] * 12 + [0.0] * 8], REPEATS, axis=0)
    report = validation.accuracy(right, np.arange(20), seed=0)
    # Four draws of five folds: (1/20 + 1/4) * 5 = 1.5.
    assert report.value == approx(0.6)
    assert (report.low, report.high) == (approx(0.6 - 0.2 * math.sqrt(1.5)), approx(0.6 + 0.2 * math.sqrt(1.5)))


def test_duplicated_pairs_of_a_prompt_do_not_narrow_the_interval():
    once = np.repeat([[1.0] * 12 + [0.0] * 8], REPEATS, axis=0)
    one = validation.accuracy(once, np.arange(20), seed=0)
    four = validation.accuracy(np.repeat(once, 4, axis=1), np.repeat(np.arange(20), 4), seed=0)
    assert (four.value, four.low, four.high) == (one.value, approx(one.low), approx(one.high))
    assert (four.pairs, four.prompts) == (80, 20)


def test_a_margin_of_zero_is_half_right():
    assert validation.credit(np.array([2.0, 0.0, -0.1])).tolist() == [1.0, 0.5, 0.0]


def test_with_few_prompts_there_is_a_figure_and_no_interval():
    difference, prompt = world(60, 9, 3, seed=0, strength=3)
    report = validate(difference, origins(prompt), mean_of(difference), seed=0)
    assert 0 < report.accuracy.value <= 1 and (report.accuracy.low, report.accuracy.high) == (None, None)
    assert report.curve.gain is None and {p.low for p in report.curve.points} == {None}
    assert report.by_kind[0].accuracy is None and report.by_annotator[0].accuracy is None


def test_a_single_prompt_cannot_be_validated_on():
    report = validate(np.ones((5, 2)), origins([7] * 5), mean_of(np.ones((5, 2))), seed=0)
    assert (report.pairs, report.prompts, report.accuracy, report.curve, report.high_loss_judgments) == (5, 1, None, None, ())


def test_ties_may_be_trained_on_and_are_not_measured():
    difference = np.ones((40, 1))
    difference[::2] = -1
    ties, seen = np.arange(40) % 2 == 0, []

    def fit(rows):
        seen.append(rows)
        return np.ones(1)

    report = validate(difference, origins(np.arange(40) // 2), fit, ties=ties, seed=0)
    assert (report.pairs, report.judgments, report.accuracy.value) == (20, 20, 1.0)
    assert any((rows & ties).any() for rows in seen)


def test_the_report_survives_its_row():
    difference, prompt = world(120, 30, 5, seed=3, strength=2)
    report = validate(difference.astype(np.float32), origins(prompt), mean_of(difference.astype(np.float32)), seed=3)
    assert Validation.from_json(json.loads(json.dumps(report.to_json(), allow_nan=False))) == report


# ---- calibration


def margin(probability):
    return math.log(probability / (1 - probability))


def test_calibrated_confidence_has_no_error():
    # Of those it gives 3/5, it is right in 3 of 5; of those it gives 9/10, in 9 of 10.
    margins = [margin(0.62)] * 31 + [-margin(0.62)] * 19 + [margin(0.92)] * 46 + [-margin(0.92)] * 4
    report = calibration(np.array(margins), seed=0)
    assert report.ece == approx(0, abs=1e-12)
    filled = {round(b.low, 2): (b.pairs, b.confidence, b.accuracy) for b in report.bins if b.pairs}
    assert filled == {0.6: (50, approx(0.62), approx(0.62)), 0.9: (50, approx(0.92), approx(0.92))}
    assert (len(report.bins), report.bins[0].low, report.bins[-1].high) == (10, 0.5, 1.0)
    assert (report.bins[0].confidence, report.bins[0].accuracy) == (None, None)


def test_the_error_is_how_far_confidence_is_off():
    # Sure at 0.92 and right half the time, in half of the pairs; at 0.62 and always right in the others.
    margins = [margin(0.92)] * 5 + [-margin(0.92)] * 5 + [margin(0.62)] * 10
    report = calibration(np.array(margins), seed=0)
    assert report.ece == approx((0.42 + 0.38) / 2)
    assert (report.confidence, report.accuracy) == (approx(0.77), approx(0.75))


def test_what_chance_alone_would_give():
    # One pair at 0.7: off by 0.3 when right, by 0.7 when wrong, which is more than 5% of the time.
    assert calibration(np.array([margin(0.7)]), seed=0).ece_by_chance == approx(0.7)
    # Ten thousand at 0.7: 1.96 standard errors of a share.
    many = calibration(np.full(10_000, margin(0.7)), seed=0)
    assert many.ece_by_chance == approx(1.96 * math.sqrt(0.7 * 0.3 / 10_000), rel=0.15)


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=50))
@settings(deadline=None, max_examples=50)
def test_every_pair_is_in_one_bin(margins):
    report = calibration(np.array(margins), seed=0)
    assert sum(b.pairs for b in report.bins) == len(margins)
    assert all(b.low - 1e-9 <= b.confidence <= b.high + 1e-9 for b in report.bins if b.pairs)
    assert 0 <= report.ece <= 1 and 0 <= report.ece_by_chance <= 1


# ---- more judgments


def test_the_curve_at_known_points():
    assert curve_accuracy(100, np.array([0.4]), np.array([300.0])) == approx(0.5 + 0.4 * 0.5)
    assert curve_accuracy(100, np.array([0.2]), np.array([0.0])) == approx(0.7)


@pytest.mark.parametrize(("reach", "half"), [(0.3, 200.0), (0.2, 30.0), (-0.1, 100.0), (0.25, 0.0)])
def test_the_fit_recovers_a_curve_from_its_points(reach, half):
    sizes = np.array([50.0, 90, 150, 220, 300, 400])
    on_it = curve_accuracy(sizes, np.array([reach]), np.array([half]))
    report = fit_curve(sizes, on_it[None])
    for n in (50, 400, 700):
        assert curve_accuracy(n, *report) == approx(float(curve_accuracy(n, np.array([reach]), np.array([half]))[0]), abs=0.003)


def test_the_fit_has_the_smallest_squared_error():
    sizes, points = np.array([10.0, 40, 160]), np.array([[0.55, 0.64, 0.66]])
    reach, half = fit_curve(sizes, points)
    missed = np.square(curve_accuracy(sizes, reach, half) - points).sum()
    rng = np.random.default_rng(0)
    for other in np.exp(rng.normal(0, 0.3, (200, 2))) * [reach[0], half[0] + 1]:
        assert missed <= np.square(curve_accuracy(sizes, other[:1], other[1:]) - points).sum() + 1e-5


def test_the_gain_from_more_judgments_is_estimated():
    difference, prompt = world(600, 150, 200, seed=0, strength=4)
    report = validate(difference, origins(prompt), mean_of(difference), seed=0).curve
    assert report.additional_judgments == 200 and 0 < report.gain.low < report.gain.value < report.gain.high
    # The same taste with 200 more pairs, on many fresh ones.
    more, other = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        direction = rng.standard_normal(200) / math.sqrt(200)
        fresh = rng.standard_normal((30_000, 200))
        for n, accuracies in ((600, other), (800, more)):
            pairs = rng.standard_normal((n, 200))
            sign = np.where(rng.random(n) < 1 / (1 + np.exp(-4 * pairs @ direction)), 1, -1)
            sure = 1 / (1 + np.exp(-4 * fresh @ direction))
            says = fresh @ (sign[:, None] * pairs).sum(0) > 0
            accuracies.append(np.where(says, sure, 1 - sure).mean())
    assert report.gain.low <= np.mean(more) - np.mean(other) <= report.gain.high


def test_nothing_is_extrapolated_from_fewer_than_a_hundred_pairs():
    for pairs, known in ((99, False), (100, True)):
        difference, prompt = world(pairs, 30, 5, seed=0, strength=3)
        report = validate(difference, origins(prompt), mean_of(difference), seed=0)
        assert (report.curve.gain is not None) is known
        assert len(report.curve.points) == 6


# ---- who and what


def test_a_contrary_annotator_has_a_low_accuracy_and_one_with_few_prompts_none():
    rng = np.random.default_rng(0)
    difference = np.abs(rng.standard_normal((100, 2)))
    annotator = [1] * 70 + [2] * 21 + [3] * 9
    difference[70:91] *= -1
    kind = ["explain"] * 50 + ["poem"] * 41 + ["code"] * 9
    report = validate(difference, origins(np.arange(100), annotator=annotator, kind=kind), mean_of(difference), seed=0)
    ann, contrary, new = report.by_annotator
    assert (ann.annotator_id, ann.pairs, ann.prompts, ann.accuracy.value) == (1, 70, 70, 1.0)
    assert (contrary.annotator_id, contrary.accuracy.value, contrary.accuracy.high) == (2, 0.0, approx(Z2 / 21 / (1 + Z2 / 21)))
    assert (new.annotator_id, new.pairs, new.accuracy) == (3, 9, None)
    assert [(k.kind, k.pairs, k.accuracy and k.accuracy.value) for k in report.by_kind] == [
        ("explain", 50, 1.0), ("poem", 41, approx(20 / 41)), ("code", 9, None),
    ]  # fmt: skip
    assert {s.annotator_id for s in report.high_loss_judgments} == {2} and len(report.high_loss_judgments) == 10


def test_high_loss_judgments_are_judgments_by_their_mean_loss():
    # Judgment 1 has two pairs: probabilities 1/10 and 4/10, geometric mean 1/5. 2 was agreed with; 3 was a coin flip, 4 worse.
    given_ = {1: (0.1, 0.4), 2: (0.9,), 3: (0.5,), 4: (0.05,)}
    where = origins([0] * 5, judgment=[1, 1, 2, 3, 4])
    margins = np.array([[margin(p) for ps in given_.values() for p in ps]] * 2)
    report = high_loss_judgments(margins, where)
    assert [(s.judgment_id, s.comparison_id, s.probability) for s in report] == [(4, 1004, approx(0.05)), (1, 1001, approx(0.2))]


def test_high_loss_judgments_are_the_same_in_every_repeat():
    # Probabilities 1/100 and 99/100 in two draws: the mean loss is 2.31, more than always giving 1/5, whose is 1.61.
    margins = np.array([[margin(0.01), margin(0.2)], [margin(0.99), margin(0.2)]])
    first, second = high_loss_judgments(margins, origins([0, 1]))
    assert (first.judgment_id, first.probability) == (0, approx(math.sqrt(0.01 * 0.99)))
    assert second.probability == approx(0.2)
