"""Presenters of a reward model's validation (`rlhf.analysis.validation`) on the Training page, as texts, tables and interval marks.

Nothing is computed here: every number comes from the run's row. Strings of HTML, no Gradio; the plots are in `charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from feedback_ui.shared.html import NOTHING, comparison_link, interval, muted, table, text
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
    found = validation.of_run(run)
    return [judgment.comparison_id for judgment in found.high_loss_judgments] if found else []


# ---- the card


def card(words: Translator, run: Run) -> str:
    """Accuracy, the gain to expect from more judgments, and calibration; during the run, a note that they are still to come."""
    found = validation.of_run(run)
    body = _not_yet(words, run) if found is None else _measured(words, found)
    return f'<section data-testid="validation"><h2 class="rl-heading">{words("validation.title")}</h2>{body}</section>' if body else ""


def _not_yet(words: Translator, run: Run) -> str:
    return f'<p class="rl-muted">{words("validation.not_yet")}</p>' if is_active(run) else ""


def _measured(words: Translator, found: Validation) -> str:
    accuracy, curve, calibration = found.accuracy, found.curve, found.calibration
    if accuracy is None or curve is None or calibration is None:
        return f'<p class="rl-notice rl-warn">{words("validation.one_prompt")}</p>'
    rests_on = words("validation.rests_on", count=found.pairs, prompts=found.prompts)
    lines = {"more": more(words, curve), "calibration": calibrated(words, calibration)}
    definitions = "".join(f"<div><dt>{words(f'validation.{name}_title')}</dt><dd>{text(line)}</dd></div>" for name, line in lines.items())
    return f'{_accuracy(words, accuracy)}<dl class="rl-findings">{definitions}</dl>{muted(text(rests_on))}'


def _accuracy(words: Translator, accuracy: Accuracy) -> str:
    value, low, high = accuracy.value, accuracy.low, accuracy.high
    ends = (
        ""
        if low is None or high is None
        else f' <span class="rl-muted">{text(words("validation.ends", low=_share(low), high=_share(high)))}</span>'
    )
    tone = "rl-muted" if low is not None and low > CHANCE else "rl-warn"
    return (
        f'<div class="rl-accuracy"><span class="rl-value">{_share(value)}{ends}</span>{interval((value, low, high), (CHANCE,))}'
        f'<span class="rl-small {tone}">{text(verdict(words, accuracy))}</span></div>'
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


def details(words: Translator, run: Run, annotators: Mapping[int, Annotator], comparisons: Mapping[int, Comparison]) -> str:
    """Accuracy by kind of prompt and by annotator, and the judgments that the probe most strongly disagrees with."""
    found = validation.of_run(run)
    if not found or not found.by_kind:
        return ""
    kinds = [(text(row.kind.replace("_", " ")), row) for row in found.by_kind]
    people = [(_who(words, annotators, row.annotator_id), row) for row in found.by_annotator]
    return (
        f'<div class="rl-side-by-side">{_shares(words, "kinds", kinds)}{_shares(words, "annotators", people)}</div>'
        f"{_high_loss_judgments(words, found.high_loss_judgments, annotators, comparisons)}"
    )


def _shares(words: Translator, name: str, rows: Sequence[tuple[str, KindAccuracy | AnnotatorAccuracy]]) -> str:
    heads = [words(f"validation.{name}.head"), words("validation.accuracy"), words("validation.pairs")]
    cells = [[who, _accuracy_cell(words, row.accuracy), f"{row.pairs:,}"] for who, row in rows]
    title = words(f"validation.{name}.title")
    return (
        f'<section data-testid="validation-{name}"><h3 class="rl-subheading">{title}</h3>'
        f"{table(heads, cells, caption=title, numbers=(1, 2), cards=False)}{muted(words(f'validation.{name}.note'))}</section>"
    )


def _accuracy_cell(words: Translator, accuracy: Accuracy | None) -> str:
    if accuracy is None or accuracy.low is None or accuracy.high is None:
        return f'<span class="rl-muted">{words("validation.too_few")}</span>'
    ends = words("validation.ends", low=_share(accuracy.low), high=_share(accuracy.high))
    spread = (accuracy.value, accuracy.low, accuracy.high)
    return f'{_share(accuracy.value)} <span class="rl-muted rl-small">{text(ends)}</span>{interval(spread, (CHANCE,))}'


def _high_loss_judgments(
    words: Translator,
    judgments: Sequence[HighLossJudgment],
    annotators: Mapping[int, Annotator],
    comparisons: Mapping[int, Comparison],
) -> str:
    title = words("validation.high_loss_judgments.title")
    if not judgments:
        body = muted(words("validation.high_loss_judgments.none"))
    else:
        rows = [
            [
                f'<span class="rl-line-clamp">{_prompt(comparisons, row.comparison_id)}</span>',
                _who(words, annotators, row.annotator_id),
                _probability(row.probability),
                _link(words, row.comparison_id),
            ]
            for row in judgments
        ]
        heads = [*(words(f"validation.high_loss_judgments.{name}") for name in ("prompt", "annotator", "probability")), ""]
        body = table(heads, rows, caption=title, numbers=(2,)) + muted(words("validation.high_loss_judgments.note"))
    return f'<section data-testid="validation-high-loss"><h3 class="rl-subheading">{title}</h3>{body}</section>'


def _probability(value: float) -> str:
    return "&lt;1%" if value < 0.01 else _share(value)


def _prompt(comparisons: Mapping[int, Comparison], comparison_id: int) -> str:
    return text(comparisons[comparison_id].prompt.text) if comparison_id in comparisons else NOTHING


def _link(words: Translator, comparison_id: int) -> str:
    about = words("validation.high_loss_judgments.open_comparison", number=comparison_id)
    return (
        f'<a class="rl-small-button" href="{comparison_link(comparison_id)}" target="_blank" rel="noopener" aria-label="{text(about)}">'
        f"{text(words('validation.high_loss_judgments.open'))}</a>"
    )


def _who(words: Translator, annotators: Mapping[int, Annotator], annotator_id: int) -> str:
    annotator = annotators.get(annotator_id)
    if annotator is None:
        return f"#{annotator_id}"
    mark = f' <span class="rl-tag">{words("data.simulated")}</span>' if annotator.kind == "simulated" else ""
    return f"{text(annotator.name)}{mark}"
