"""Presenters of a reward model's validation (`rlhf.analysis.validation`) on the Training page, as texts, tables and interval marks.

Nothing is computed here: every number comes from the run's row. No Gradio; the plots are in `charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, NOTHING, comparison_link, fragment, interval, muted, table, tag
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import prompt_kind
from feedback_ui.training.run_view import is_active
from rlhf.analysis import validation
from rlhf.analysis.bootstrap import MIN_CLUSTERS
from rlhf.analysis.validation import (
    MIN_CURVE_PAIRS,
    Accuracy,
    AnnotatorAccuracy,
    Calibration,
    HighLossJudgment,
    KindAccuracy,
    LearningCurve,
    Validation,
)
from rlhf.data import pairs
from storage.core.records import Annotator, Comparison, Run

CHANCE = 0.5


def compared(run: Run) -> list[int]:
    """Ids of the comparisons that the card lists."""
    report = validation.of_run(run)
    return [judgment.comparison_id for judgment in report.high_loss_judgments] if report else []


# ---- the card


def card(translate: Translator, run: Run) -> Markup:
    """Accuracy, the gain to expect from more judgments, and calibration; during the run, a note that they will follow."""
    report = validation.of_run(run)
    body = (
        _not_yet(translate, run)
        if report is None
        else fragment(_measured(translate, report), _outside(translate, report), _left_out(translate, run))
    )
    title = tag("h2", translate("validation.title"), class_="rl-heading")
    return tag("section", title, body, data_testid="validation") if body else EMPTY


def _not_yet(translate: Translator, run: Run) -> Markup:
    return tag("p", translate("validation.not_yet"), class_="rl-muted") if is_active(run) else EMPTY


def _outside(translate: Translator, report: Validation) -> Markup:
    """How far the reward model from elsewhere agrees with the votes."""
    if report.outside is None:
        return EMPTY
    found = report.outside.agreement
    values = {"name": report.outside.name, "weight": f"{report.outside.weight:g}"}
    if found is None:
        return tag("p", translate("validation.outside_unknown", **values), class_="rl-notice rl-warn")
    shares = {"share": _share(found.value), "low": _share(found.low), "high": _share(found.high)}
    line = translate("validation.outside", count=found.cases, **values, **shares)
    chance = "" if found.low > CHANCE else f" {translate('validation.outside_may_be_chance')}"
    return tag("p", line, chance, class_="rl-muted" if not chance else "rl-notice rl-warn", data_testid="outside-agreement")


def _left_out(translate: Translator, run: Run) -> Markup:
    """The votes that the round was not asked to learn from."""
    votes = pairs.manifest_of_run(run).demo_votes
    return muted(translate("validation.demo_votes_left_out", count=votes)) if votes else EMPTY


def _measured(translate: Translator, report: Validation) -> Markup:
    accuracy, curve, calibration = report.accuracy, report.curve, report.calibration
    if accuracy is None or curve is None or calibration is None:
        return tag("p", translate("validation.one_prompt"), class_="rl-notice rl-warn")
    rests_on = translate("validation.rests_on", count=report.pairs, prompts=report.prompts)
    lines = {"more": more(translate, curve), "calibration": calibrated(translate, calibration)}
    definitions = (tag("div", tag("dt", translate(f"validation.{name}_title")), tag("dd", line)) for name, line in lines.items())
    return fragment(_accuracy(translate, accuracy), tag("dl", *definitions, class_="rl-findings"), muted(rests_on))


def _accuracy(translate: Translator, accuracy: Accuracy) -> Markup:
    value, low, high = accuracy.value, accuracy.low, accuracy.high
    if low is None or high is None:
        ends = EMPTY
    else:
        ends = tag("span", translate("validation.ends", low=_share(low), high=_share(high)), class_="rl-muted")
    tone = "rl-muted" if low is not None and low > CHANCE else "rl-warn"
    return tag(
        "div",
        tag("span", _share(value), " " if ends else "", ends, class_="rl-value"),
        interval((value, low, high), (CHANCE,)),
        tag("span", verdict(translate, accuracy), class_=f"rl-small {tone}"),
        class_="rl-accuracy",
    )


def verdict(translate: Translator, accuracy: Accuracy) -> str:
    """The accuracy as a sentence: whether it is better than chance."""
    if accuracy.low is None:
        return translate("validation.too_few_prompts", count=accuracy.prompts, needed=MIN_CLUSTERS)
    beats_chance = accuracy.low > CHANCE
    return translate("validation.beats_chance" if beats_chance else "validation.may_be_chance", share=f"{100 * accuracy.value:.0f}")


def more_would_help(curve: LearningCurve) -> bool:
    """Whether the learning curve rises significantly; only then is it extrapolated."""
    return curve.gain is not None and curve.gain.low > 0


def more(translate: Translator, curve: LearningCurve) -> str:
    """The gain to expect from more judgments, or why it is unknown."""
    gain = curve.gain
    if gain is None:
        return translate("validation.more_unknown", pairs=MIN_CURVE_PAIRS, prompts=MIN_CLUSTERS)
    if not more_would_help(curve):
        return translate("validation.more_unclear", more=curve.additional_judgments)
    points = {name: f"{100 * value:.1f}" for name, value in (("value", gain.value), ("low", gain.low), ("high", gain.high))}
    return translate("validation.more", more=curve.additional_judgments, **points)


def calibrated(translate: Translator, calibration: Calibration) -> str:
    """Whether the predicted probabilities are calibrated."""
    ece, by_chance = f"{100 * calibration.ece:.0f}", f"{100 * calibration.ece_by_chance:.0f}"
    if calibration.ece <= calibration.ece_by_chance:
        return translate("validation.calibrated", ece=ece, by_chance=by_chance)
    overconfident = calibration.confidence > calibration.accuracy
    return translate("validation.overconfident" if overconfident else "validation.underconfident", ece=ece, by_chance=by_chance)


def _share(value: float) -> str:
    return f"{100 * value:.0f}%"


# ---- the tables


def details(translate: Translator, run: Run, annotators: Mapping[int, Annotator], comparisons: Mapping[int, Comparison]) -> Markup:
    """Accuracy by kind of prompt and by annotator, and the judgments that the probe most strongly disagrees with."""
    report = validation.of_run(run)
    if not report or not report.by_kind:
        return EMPTY
    kinds = [(prompt_kind(translate, row.kind), row) for row in report.by_kind]
    people = [(_who(translate, annotators, row.annotator_id), row) for row in report.by_annotator]
    return fragment(
        tag("div", _shares(translate, "kinds", kinds), _shares(translate, "annotators", people), class_="rl-side-by-side"),
        _high_loss_judgments(translate, report.high_loss_judgments, annotators, comparisons),
    )


def _shares(translate: Translator, name: str, rows: Sequence[tuple[str, KindAccuracy | AnnotatorAccuracy]]) -> Markup:
    heads = [translate(f"validation.{name}.head"), translate("validation.accuracy"), translate("validation.pairs")]
    cells = [[who, _accuracy_cell(translate, row.accuracy), f"{row.pairs:,}"] for who, row in rows]
    title = translate(f"validation.{name}.title")
    return tag(
        "section",
        tag("h3", title, class_="rl-subheading"),
        table(heads, cells, caption=title, numbers=(1, 2), cards=False),
        muted(translate(f"validation.{name}.note")),
        data_testid=f"validation-{name}",
    )


def _accuracy_cell(translate: Translator, accuracy: Accuracy | None) -> Markup:
    if accuracy is None or accuracy.low is None or accuracy.high is None:
        return tag("span", translate("validation.too_few"), class_="rl-muted")
    ends = translate("validation.ends", low=_share(accuracy.low), high=_share(accuracy.high))
    spread = (accuracy.value, accuracy.low, accuracy.high)
    return fragment(_share(accuracy.value), " ", tag("span", ends, class_="rl-muted rl-small"), interval(spread, (CHANCE,)))


def _high_loss_judgments(
    translate: Translator,
    judgments: Sequence[HighLossJudgment],
    annotators: Mapping[int, Annotator],
    comparisons: Mapping[int, Comparison],
) -> Markup:
    title = translate("validation.high_loss_judgments.title")
    if not judgments:
        body = muted(translate("validation.high_loss_judgments.none"))
    else:
        rows = [
            [
                tag("span", _prompt(comparisons, row.comparison_id), class_="rl-line-clamp"),
                _who(translate, annotators, row.annotator_id),
                "<1%" if row.probability < 0.01 else _share(row.probability),
                _link(translate, row.comparison_id),
            ]
            for row in judgments
        ]
        heads = [*(translate(f"validation.high_loss_judgments.{name}") for name in ("prompt", "annotator", "probability")), ""]
        body = fragment(table(heads, rows, caption=title, numbers=(2,)), muted(translate("validation.high_loss_judgments.note")))
    return tag("section", tag("h3", title, class_="rl-subheading"), body, data_testid="validation-high-loss")


def _prompt(comparisons: Mapping[int, Comparison], comparison_id: int) -> str:
    return comparisons[comparison_id].prompt.text if comparison_id in comparisons else NOTHING


def _link(translate: Translator, comparison_id: int) -> Markup:
    return tag(
        "a",
        translate("validation.high_loss_judgments.open"),
        class_="rl-small-button",
        href=comparison_link(comparison_id),
        target="_blank",
        rel="noopener",
        aria_label=translate("validation.high_loss_judgments.open_comparison", number=comparison_id),
    )


def _who(translate: Translator, annotators: Mapping[int, Annotator], annotator_id: int) -> str:
    annotator = annotators.get(annotator_id)
    if annotator is None:
        return f"#{annotator_id}"
    mark = fragment(" ", tag("span", translate("data.simulated"), class_="rl-tag")) if annotator.kind == "simulated" else EMPTY
    return fragment(annotator.name, mark)
