"""Validation of a reward model before a policy is trained with it.

Cross-validates its linear probe on given features, with all pairs of a prompt in one fold: accuracy,
calibration, the gain from more judgments, accuracy by kind of prompt and by annotator, and the judgments with the highest loss.
The features come from `reward.model`, and `reward.probe` is passed in as `Fit`. The fine-tuned reward model is measured on
held-out prompts by `evaluation`. No torch.

Probes of different folds learn from mostly the same pairs, so their errors are correlated, and an interval that resamples the
test pairs alone is too narrow. All intervals are widened by the factor of Nadeau and Bengio (2003, Inference for the
generalization error, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rlhf.analysis import bootstrap
from rlhf.analysis.bootstrap import MIN_CLUSTERS
from rlhf.analysis.intervals import CONFIDENCE, wilson
from rlhf.runs import typed_json
from rlhf.runs.results import Estimate
from storage.core.records import Run
from storage.judging.judgments import JudgmentMetadata

FOLDS = 5
REPEATS = 4
"""Times that the cross-validation is repeated with other folds; metrics are means over them."""
FRACTIONS = (0.15, 0.25, 0.4, 0.55, 0.75, 1.0)
"""Of the judgments outside a fold: the sizes of the learning curve."""
INTERVAL_WIDENING = math.sqrt(1 / REPEATS + FOLDS / (FOLDS - 1))
"""Nadeau and Bengio's variance of a mean over J = `FOLDS` * `REPEATS` splits is (1 / J + test / train) times that of one split,
which is `FOLDS` times that of a mean over all pairs; this is the square root of the product."""
BINS = 10
REPLICATES = 2000
ADDITIONAL_JUDGMENTS = 200
"""Judgments by which the learning curve is extrapolated."""
MIN_CURVE_PAIRS = 100
"""With fewer, the learning curve is not extrapolated."""
CURVE_GRID_POINTS = 60
"""Grid points of the learning curve's one nonlinear parameter."""
MAX_HIGH_LOSS_JUDGMENTS = 10

Fit = Callable[[Bool[np.ndarray, " n"]], Float[np.ndarray, " d"]]
"""Fits a probe to some of the pairs; a completion's score is its features times the result."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often the probe prefers what the annotator preferred, with its 95% interval; None with too few prompts."""

    value: float
    low: float | None
    high: float | None
    pairs: int
    prompts: int


@dataclass(frozen=True, slots=True)
class Bin:
    """The pairs whose confidence lies between `low` and `high`."""

    low: float
    high: float
    pairs: int
    confidence: float | None
    """Mean probability that the probe gave to the completion it preferred."""
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    confidence: float
    """Mean probability that the probe gave to the completion it preferred; above the accuracy, the probe is overconfident."""
    accuracy: float
    ece: float
    """Expected calibration error."""
    ece_by_chance: float
    """95% quantile of the calibration error that perfectly calibrated probabilities have in samples of this size."""
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Accuracy of probes fitted to `judgments` judgments."""

    judgments: float
    accuracy: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ExpectedGain:
    """Accuracy that `ADDITIONAL_JUDGMENTS` judgments would add, as a fraction, with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """accuracy = 1/2 + asymptote * sqrt(judgments / (judgments + half_saturation))"""

    points: tuple[CurvePoint, ...]
    asymptote: float
    """Accuracy above chance in the limit of infinitely many judgments."""
    half_saturation: float
    """Judgments with which the probe's correlation with the best one, squared, is one half."""
    additional_judgments: int
    """Number of additional judgments for which `gain` is computed."""
    gain: ExpectedGain | None
    """None with too few pairs or prompts."""


@dataclass(frozen=True, slots=True)
class KindAccuracy:
    kind: str
    pairs: int
    prompts: int
    accuracy: Accuracy | None
    """None with too few prompts."""


@dataclass(frozen=True, slots=True)
class AnnotatorAccuracy:
    annotator_id: int
    pairs: int
    prompts: int
    accuracy: Accuracy | None
    """None with too few prompts."""


@dataclass(frozen=True, slots=True)
class HighLossJudgment:
    """A judgment that the probe, fitted to other prompts, disagrees with."""

    judgment_id: int
    comparison_id: int
    annotator_id: int
    probability: float
    """Geometric mean of the probabilities that the probe gave to its pairs."""


@dataclass(frozen=True, slots=True)
class OutsideAgreement:
    """How often a reward model from elsewhere, which scores too, prefers what the annotators preferred."""

    name: str
    """Of its folder."""
    weight: float
    """Its share of the score."""
    agreement: Estimate | None = None
    """On held-out pairs; None without any."""


@dataclass(frozen=True, slots=True)
class Validation:
    """The whole report."""

    pairs: int
    judgments: int
    prompts: int
    accuracy: Accuracy | None
    """None where all pairs are of one prompt: cross-validation needs two."""
    calibration: Calibration | None = None
    curve: LearningCurve | None = None
    by_kind: tuple[KindAccuracy, ...] = ()
    by_annotator: tuple[AnnotatorAccuracy, ...] = ()
    high_loss_judgments: tuple[HighLossJudgment, ...] = ()
    outside: OutsideAgreement | None = None
    """None where the learned reward model alone scores."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Validation:
        """Raises UnreadableRecord."""
        return typed_json.from_json(cls, value)


def of_run(run: Run) -> Validation | None:
    """The validation of the run's reward model; None before there is one.

    Raises:
        UnreadableRecord: rankloop did not write it.
    """
    return None if run.validation is None else Validation.from_json(run.validation)


def validate(
    difference: Float[np.ndarray, "n d"],
    origins: Sequence[JudgmentMetadata],
    fit: Fit,
    *,
    ties: Bool[np.ndarray, " n"] | None = None,
    seed: int,
    on_progress: Callable[[], None] = lambda: None,
) -> Validation:
    """The whole report on a probe, from the features of chosen minus rejected and the judgment of each pair.

    Args:
        ties: pairs of which neither side is better: a probe may be fitted to them, but metrics leave them out.
    """
    prompt, judgment = (np.array([getattr(o, name) for o in origins]) for name in ("prompt_id", "judgment_id"))
    measured = np.ones(len(origins), bool) if ties is None else ~ties
    origins = [o for o, is_measured in zip(origins, measured, strict=True) if is_measured]
    judgments, prompts = len({o.judgment_id for o in origins}), len({o.prompt_id for o in origins})
    if prompts < 2:
        return Validation(len(origins), judgments, prompts, accuracy=None)
    margins, sizes = out_of_fold(difference, prompt, judgment, fit, seed=seed, on_progress=on_progress)
    margins, prompt = margins[..., measured], prompt[measured]
    annotator, kind = np.array([o.annotator_id for o in origins]), np.array([o.kind for o in origins])
    right = credit(margins)

    def of(rows: Bool[np.ndarray, " n"]) -> tuple[int, int, Accuracy | None]:
        estimate = accuracy(right[-1][:, rows], prompt[rows], seed=seed)
        return estimate.pairs, estimate.prompts, estimate if estimate.prompts >= MIN_CLUSTERS else None

    return Validation(
        len(origins),
        judgments,
        prompts,
        accuracy=accuracy(right[-1], prompt, seed=seed),
        calibration=calibration(margins[-1, 0], seed=seed),
        curve=learning_curve(right, sizes, prompt, len(np.unique(judgment)), seed=seed),
        by_kind=tuple(KindAccuracy(str(name), *of(kind == name)) for name in _most_first(kind)),
        by_annotator=tuple(AnnotatorAccuracy(int(name), *of(annotator == name)) for name in _most_first(annotator)),
        high_loss_judgments=high_loss_judgments(margins[-1], origins),
    )


# ---- cross-validation


def grouped_folds(prompt: Int[np.ndarray, " n"], folds: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """The fold of each pair: prompts are assigned at random, and all pairs of a prompt are in its fold."""
    prompts, which = np.unique(prompt, return_inverse=True)
    return (rng.permutation(len(prompts)) % folds)[which]


def out_of_fold(
    difference: Float[np.ndarray, "n d"],
    prompt: Int[np.ndarray, " n"],
    judgment: Int[np.ndarray, " n"],
    fit: Fit,
    *,
    seed: int,
    on_progress: Callable[[], None] = lambda: None,
) -> tuple[Float[np.ndarray, "sizes repeats n"], Float[np.ndarray, " sizes"]]:
    """Out-of-fold score differences (chosen minus rejected) by size, repeat and pair; and the mean number of judgments of each size.

    No probe scores a pair of a prompt that it was fitted to. Within a repeat each size contains the smaller ones; the last is all
    judgments outside the fold.
    """
    rng = np.random.default_rng(seed)
    folds = min(FOLDS, len(np.unique(prompt)))
    margins = np.empty((len(FRACTIONS), REPEATS, len(prompt)))
    seen = np.zeros(len(FRACTIONS))
    for repeat in range(REPEATS):
        fold = grouped_folds(prompt, folds, rng)
        for left_out in range(folds):
            test = fold == left_out
            outside = rng.permutation(np.unique(judgment[~test]))
            for size, fraction in enumerate(FRACTIONS):
                among = outside[: max(1, round(fraction * len(outside)))]
                train = ~test & np.isin(judgment, among)
                margins[size, repeat, test] = difference[test] @ fit(train)
                seen[size] += len(among) / (REPEATS * folds)
                on_progress()
    return margins, seen


def credit(margins: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """1 where the probe prefers the annotator's choice, 0 where it prefers the other, 1/2 where it prefers neither."""
    credits: Float[np.ndarray, "*shape"] = (1 + np.sign(margins)) / 2
    return credits


# ---- accuracy


def accuracy(right: Float[np.ndarray, "repeats n"], prompt: Int[np.ndarray, " n"], *, seed: int) -> Accuracy:
    """The mean over pairs and repeats, with an interval over resampled prompts (percentile bootstrap, widened)."""
    value, prompts, pairs = float(right.mean()), len(np.unique(prompt)), len(prompt)
    if prompts < MIN_CLUSTERS:
        return Accuracy(value, None, None, pairs, prompts)
    # One repeat only: means over several repeats vary less between pairs, but their error is hardly smaller.
    values, cell = np.unique(right[0], return_inverse=True)
    if len(values) == 1:
        # Where all pairs have the same value, so has every replicate; Wilson's interval over the prompts takes its place.
        return Accuracy(value, *wilson(round(value * prompts), prompts), pairs, prompts)
    counts = bootstrap.totals(prompt, cell, cells=len(values), replicates=REPLICATES, seed=seed)
    spread = counts @ values / counts.sum(1) - right[0].mean()
    low, high = _widened(value, spread)
    return Accuracy(value, max(0.0, low), min(1.0, high), pairs, prompts)


def _widened(value: float, spread: Float[np.ndarray, " r"]) -> tuple[float, float]:
    low, high = bootstrap.interval(spread)
    return value + INTERVAL_WIDENING * low, value + INTERVAL_WIDENING * high


def _most_first(labels: np.ndarray) -> list[Any]:
    names, counts = np.unique(labels, return_counts=True)
    return [name for _, name in sorted(zip(-counts, names, strict=True))]


# ---- calibration


def calibration(margins: Float[np.ndarray, " n"], *, seed: int) -> Calibration:
    """Reliability in `BINS` bins of equal width and the expected calibration error (Guo 2017, arXiv 1706.04599, eq. 3)."""
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    right = credit(margins)
    edges = np.linspace(0.5, 1.0, BINS + 1)
    place = np.minimum(np.digitize(confidence, edges) - 1, BINS - 1)
    number, sure, correct = (np.bincount(place, weights=w, minlength=BINS) for w in (np.ones_like(right), confidence, right))
    bins = tuple(
        Bin(float(low), float(high), int(n), float(s / n) if n else None, float(r / n) if n else None)
        for low, high, n, s, r in zip(edges[:-1], edges[1:], number, sure, correct, strict=True)
    )
    # Consistency resampling (Brocker & Smith 2007): outcomes sampled with the very probabilities that the probe gave.
    rng = np.random.default_rng(seed)
    sampled = (rng.random((REPLICATES // 4, len(margins))) < confidence).astype(float)
    in_bin = sampled @ (place[:, None] == np.arange(BINS))
    by_chance = np.quantile(np.abs(in_bin - sure).sum(1) / len(margins), CONFIDENCE)
    ece = np.abs(correct - sure).sum() / len(margins)
    return Calibration(float(confidence.mean()), float(right.mean()), float(ece), float(by_chance), bins)


# ---- more judgments


def learning_curve(
    right: Float[np.ndarray, "sizes repeats n"],
    sizes: Float[np.ndarray, " sizes"],
    prompt: Int[np.ndarray, " n"],
    judgments: int,
    *,
    seed: int,
) -> LearningCurve:
    """Accuracy over the number of judgments, and the gain from `ADDITIONAL_JUDGMENTS` more, by a fitted `curve_accuracy`.

    The gain's interval resamples prompts and repeats, both at once, and fits the curve to each replicate.
    """
    points = [accuracy(of_size, prompt, seed=seed) for of_size in right]
    asymptote, half_saturation = fit_curve(sizes, np.array([[p.value for p in points]]))

    def added(asymptote: Float[np.ndarray, " r"], half_saturation: Float[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
        now, later = (curve_accuracy(n, asymptote, half_saturation) for n in (judgments, judgments + ADDITIONAL_JUDGMENTS))
        gained: Float[np.ndarray, " r"] = later - now
        return gained

    gain = None
    if len(np.unique(prompt)) >= MIN_CLUSTERS and len(prompt) >= MIN_CURVE_PAIRS:
        value = float(added(asymptote, half_saturation)[0])
        gain = ExpectedGain(value, *_widened(value, added(*fit_curve(sizes, _replicates(right, prompt, seed))) - value))
    shown = tuple(CurvePoint(float(n), p.value, p.low, p.high) for n, p in zip(sizes, points, strict=True))
    return LearningCurve(shown, float(asymptote[0]), float(half_saturation[0]), ADDITIONAL_JUDGMENTS, gain)


def curve_accuracy(
    judgments: float | Float[np.ndarray, "#r"], asymptote: Float[np.ndarray, "#r"], half_saturation: Float[np.ndarray, "#r"]
) -> Float[np.ndarray, " r"]:
    """Accuracy of a linear classifier that was fitted to n examples, by its correlation with the best one.

    That correlation is sqrt(n / (n + half_saturation)) where examples are averaged, as a strongly penalised fit does (Opper and
    Kinzel 1996, Statistical mechanics of generalization, section 2.2, the Hebb rule); accuracy above chance goes with it.
    """
    return 0.5 + asymptote * np.sqrt(judgments / (judgments + half_saturation))


def fit_curve(
    sizes: Float[np.ndarray, " sizes"], accuracies: Float[np.ndarray, "r sizes"]
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, " r"]]:
    """Fits `curve_accuracy` by least squares; `half_saturation` is searched on a grid from 0 to 100 times the data."""
    grid = np.concatenate([[0.0], np.geomspace(1, 100 * sizes[-1], CURVE_GRID_POINTS - 1)])
    correlation = np.sqrt(sizes / (sizes + grid[:, None]))
    above = accuracies - 0.5
    norm = (correlation**2).sum(1)
    asymptote = above @ correlation.T / norm
    best = (asymptote**2 * norm).argmax(1)
    return np.take_along_axis(asymptote, best[:, None], 1)[:, 0], grid[best]


def _replicates(right: Float[np.ndarray, "sizes repeats n"], prompt: Int[np.ndarray, " n"], seed: int) -> Float[np.ndarray, "r sizes"]:
    rng = np.random.default_rng(seed)
    prompts, which = np.unique(prompt, return_inverse=True)
    by_prompt = right @ (which[:, None] == np.arange(len(prompts)))
    weight = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)), size=REPLICATES)
    repeat = rng.multinomial(REPEATS, np.full(REPEATS, 1 / REPEATS), size=REPLICATES) / REPEATS
    total = np.einsum("rp,sdp,rd->rs", weight, by_prompt, repeat, optimize=True)
    means: Float[np.ndarray, "r sizes"] = total / (weight @ np.bincount(which))[:, None]
    return means


# ---- judgments with a high loss


def high_loss_judgments(margins: Float[np.ndarray, "repeats n"], origins: Sequence[JudgmentMetadata]) -> tuple[HighLossJudgment, ...]:
    """The judgments with the highest loss -log sigmoid(margin), averaged over their pairs, among those the probe disagrees with."""
    loss = np.logaddexp(0, -margins).mean(0)
    ids, example, which = np.unique([o.judgment_id for o in origins], return_index=True, return_inverse=True)
    mean = np.bincount(which, weights=loss) / np.bincount(which)
    highest = [i for i in np.argsort(-mean, kind="stable")[:MAX_HIGH_LOSS_JUDGMENTS] if mean[i] > math.log(2)]
    of = [origins[example[i]] for i in range(len(ids))]
    return tuple(HighLossJudgment(of[i].judgment_id, of[i].comparison_id, of[i].annotator_id, math.exp(-mean[i])) for i in highest)
