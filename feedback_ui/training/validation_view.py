"""Presenters of a reward model's validation (`rlhf.analysis.validation`) on the Training page, as texts, tables and interval marks.

Nothing is computed here: every number comes from the run's row. No Gradio; the plots are in `charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, NOTHING, comparison_link, fragment, interval, muted, table, tag
from feedback_ui.shared.i18n import Translator
from feedback_ui.training.run_view import is_active
from rlhf.analysis import validation
from rlhf.analysis.bootstrap import FEWEST_CLUSTERS
from rlhf.analysis.validation import (
    FEWEST_PAIRS,
    Accuracy,
    AnnotatorAccuracy,
    Calibration,
    HighLossJudgment,
    KindAccuracy,
    LearningCurve,
    Validation,
)
from storage.core.records import Annotator, Comparison, Run

CHANCE = 0.5


def compared(run: Run) -> list[int]:
    """Ids of the comparisons that the card lists."""
    report = validation.of_run(run)
    return [judgment.comparison_id for judgment in report.high_loss_judgments] if report else []


# ---- the card


def card(words: Translator, run: Run) -> Markup:
    """Accuracy, the gain to expect from more judgments, and calibration; during the run, a note that they are still to come."""
    report = validation.of_run(run)
    body = _not_yet(words, run) if report is None else _measured(words, report)
    title = tag("h2", words("validation.title"), class_="rl-heading")
    return tag("section", title, body, data_testid="validation") if body else EMPTY


def _not_yet(words: Translator, run: Run) -> Markup:
    return tag("p", words("validation.not_yet"), class_="rl-muted") if is_active(run) else EMPTY


def _measured(words: Translator, report: Validation) -> Markup:
    accuracy, curve, calibration = report.accuracy, report.curve, report.calibration
    if accuracy is None or curve is None or calibration is None:
        return tag("p", words("validation.one_prompt"), class_="rl-notice rl-warn")
    rests_on = words("validation.rests_on", count=report.pairs, prompts=report.prompts)
    lines = {"more": more(words, curve), "calibration": calibrated(words, calibration)}
    definitions = (tag("div", tag("dt", words(f"validation.{name}_title")), tag("dd", line)) for name, line in lines.items())
    return fragment(_accuracy(words, accuracy), tag("dl", *definitions, class_="rl-findings"), muted(rests_on))


def _accuracy(words: Translator, accuracy: Accuracy) -> Markup:
    value, low, high = accuracy.value, accuracy.low, accuracy.high
    if low is None or high is None:
        ends = EMPTY
    else:
        ends = tag("span", words("validation.ends", low=_share(low), high=_share(high)), class_="rl-muted")
    tone = "rl-muted" if low is not None and low > CHANCE else "rl-warn"
    return tag(
        "div",
        tag("span", _share(value), " " if ends else "", ends, class_="rl-value"),
        interval((value, low, high), (CHANCE,)),
        tag("span", verdict(words, accuracy), class_=f"rl-small {tone}"),
        class_="rl-accuracy",
    )


def verdict(words: Translator, accuracy: Accuracy) -> str:
    """The accuracy as a sentence: whether it is better than chance."""
    if accuracy.low is None:
        return words("validation.too_few_prompts", count=accuracy.prompts, needed=FEWEST_CLUSTERS)
    beats_chance = accuracy.low > CHANCE
    return words("validation.beats_chance" if beats_chance else "validation.may_be_chance", share=f"{100 * accuracy.value:.0f}")


def more_would_help(curve: LearningCurve) -> bool:
    """Whether the learning curve rises significantly; only then is it extrapolated."""
    return curve.gain is not None and curve.gain.low > 0


def more(words: Translator, curve: LearningCurve) -> str:
    """The gain to expect from more judgments, or why it is unknown."""
    gain = curve.gain
    if gain is None:
        return words("validation.more_unknown", pairs=FEWEST_PAIRS, prompts=FEWEST_CLUSTERS)
    if not more_would_help(curve):
        return words("validation.more_unclear", more=curve.additional_judgments)
    points = {name: f"{100 * value:.1f}" for name, value in (("value", gain.value), ("low", gain.low), ("high", gain.high))}
    return words("validation.more", more=curve.additional_judgments, **points)


def calibrated(words: Translator, calibration: Calibration) -> str:
    """Whether the predicted probabilities are calibrated."""
    ece, by_chance = f"{100 * calibration.ece:.0f}", f"{100 * calibration.ece_by_chance:.0f}"
    if calibration.ece <= calibration.ece_by_chance:
        return words("validation.calibrated", ece=ece, by_chance=by_chance)
    too_sure = calibration.confidence > calibration.accuracy
    return words("validation.too_sure" if too_sure else "validation.too_modest", ece=ece, by_chance=by_chance)


def _share(value: float) -> str:
    return f"{100 * value:.0f}%"


# ---- the tables


def details(words: Translator, run: Run, annotators: Mapping[int, Annotator], comparisons: Mapping[int, Comparison]) -> Markup:
    """Accuracy by kind of prompt and by annotator, and the judgments that the probe most strongly disagrees with."""
    report = validation.of_run(run)
    if not report or not report.by_kind:
        return EMPTY
    kinds = [(row.kind.replace("_", " "), row) for row in report.by_kind]
    people = [(_who(words, annotators, row.annotator_id), row) for row in report.by_annotator]
    return fragment(
        tag("div", _shares(words, "kinds", kinds), _shares(words, "annotators", people), class_="rl-side-by-side"),
        _high_loss_judgments(words, report.high_loss_judgments, annotators, comparisons),
    )


def _shares(words: Translator, name: str, rows: Sequence[tuple[str, KindAccuracy | AnnotatorAccuracy]]) -> Markup:
    heads = [words(f"validation.{name}.head"), words("validation.accuracy"), words("validation.pairs")]
    cells = [[who, _accuracy_cell(words, row.accuracy), f"{row.pairs:,}"] for who, row in rows]
    title = words(f"validation.{name}.title")
    return tag(
        "section",
        tag("h3", title, class_="rl-subheading"),
        table(heads, cells, caption=title, numbers=(1, 2), cards=False),
        muted(words(f"validation.{name}.note")),
        data_testid=f"validation-{name}",
    )


def _accuracy_cell(words: Translator, accuracy: Accuracy | None) -> Markup:
    if accuracy is None or accuracy.low is None or accuracy.high is None:
        return tag("span", words("validation.too_few"), class_="rl-muted")
    ends = words("validation.ends", low=_share(accuracy.low), high=_share(accuracy.high))
    spread = (accuracy.value, accuracy.low, accuracy.high)
    return fragment(_share(accuracy.value), " ", tag("span", ends, class_="rl-muted rl-small"), interval(spread, (CHANCE,)))


def _high_loss_judgments(
    words: Translator,
    judgments: Sequence[HighLossJudgment],
    annotators: Mapping[int, Annotator],
    comparisons: Mapping[int, Comparison],
) -> Markup:
    title = words("validation.high_loss_judgments.title")
    if not judgments:
        body = muted(words("validation.high_loss_judgments.none"))
    else:
        rows = [
            [
                tag("span", _prompt(comparisons, row.comparison_id), class_="rl-line-clamp"),
                _who(words, annotators, row.annotator_id),
                "<1%" if row.probability < 0.01 else _share(row.probability),
                _link(words, row.comparison_id),
            ]
            for row in judgments
        ]
        heads = [*(words(f"validation.high_loss_judgments.{name}") for name in ("prompt", "annotator", "probability")), ""]
        body = fragment(table(heads, rows, caption=title, numbers=(2,)), muted(words("validation.high_loss_judgments.note")))
    return tag("section", tag("h3", title, class_="rl-subheading"), body, data_testid="validation-high-loss")


def _prompt(comparisons: Mapping[int, Comparison], comparison_id: int) -> str:
    return comparisons[comparison_id].prompt.text if comparison_id in comparisons else NOTHING


def _link(words: Translator, comparison_id: int) -> Markup:
    return tag(
        "a",
        words("validation.high_loss_judgments.open"),
        class_="rl-small-button",
        href=comparison_link(comparison_id),
        target="_blank",
        rel="noopener",
        aria_label=words("validation.high_loss_judgments.open_comparison", number=comparison_id),
    )


def _who(words: Translator, annotators: Mapping[int, Annotator], annotator_id: int) -> str:
    annotator = annotators.get(annotator_id)
    if annotator is None:
        return f"#{annotator_id}"
    mark = fragment(" ", tag("span", words("data.simulated"), class_="rl-tag")) if annotator.kind == "simulated" else EMPTY
    return fragment(annotator.name, mark)
