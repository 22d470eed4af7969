"""Presenters of a reward model's validation (`rlhf.analysis.validation`) on the Training page, as texts, tables and interval marks.

Nothing is computed here: every number comes from the run's row. Strings of HTML, no Gradio; the plots are in `charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedback_ui.shared.html import NOTHING, comparison_link, interval, muted, table, text
from feedback_ui.shared.i18n import Translator
from feedback_ui.training.run_view import is_active
from rlhf.analysis.bootstrap import FEWEST_CLUSTERS
from rlhf.analysis.validation import FEWEST_PAIRS
from storage.core.records import Annotator, Comparison, Run

Figures = Mapping[str, Any]

CHANCE = 0.5


def compared(run: Run) -> list[int]:
    """Ids of the comparisons that the card lists."""
    return [surprise["comparison_id"] for surprise in (run.validation or {}).get("surprises", ())]


# ---- the card


def card(words: Translator, run: Run) -> str:
    """Accuracy, the gain to expect from more judgments, and calibration; during the run, a note that they are still to come."""
    body = _not_yet(words, run) if run.validation is None else _measured(words, run.validation)
    return f'<section data-testid="validation"><h2 class="rl-heading">{words("validation.title")}</h2>{body}</section>' if body else ""


def _not_yet(words: Translator, run: Run) -> str:
    return f'<p class="rl-muted">{words("validation.not_yet")}</p>' if is_active(run) else ""


def _measured(words: Translator, validation: Figures) -> str:
    accuracy = validation["accuracy"]
    if accuracy is None:
        return f'<p class="rl-notice rl-warn">{words("validation.one_prompt")}</p>'
    rests_on = words("validation.rests_on", count=validation["pairs"], prompts=validation["prompts"])
    lines = {"more": more(words, validation["curve"]), "calibration": calibrated(words, validation["calibration"])}
    definitions = "".join(f"<div><dt>{words(f'validation.{name}_title')}</dt><dd>{text(line)}</dd></div>" for name, line in lines.items())
    return f'{_accuracy(words, accuracy)}<dl class="rl-findings">{definitions}</dl>{muted(text(rests_on))}'


def _accuracy(words: Translator, accuracy: Figures) -> str:
    value, low, high = (accuracy[name] for name in ("value", "low", "high"))
    ends = "" if low is None else f' <span class="rl-muted">{text(words("validation.ends", low=_share(low), high=_share(high)))}</span>'
    tone = "rl-muted" if low is not None and low > CHANCE else "rl-warn"
    return (
        f'<div class="rl-accuracy"><span class="rl-value">{_share(value)}{ends}</span>{interval((value, low, high), (CHANCE,))}'
        f'<span class="rl-small {tone}">{text(verdict(words, accuracy))}</span></div>'
    )


def verdict(words: Translator, accuracy: Figures) -> str:
    """The accuracy as a sentence: whether it is better than chance."""
    if accuracy["low"] is None:
        return words("validation.too_few_prompts", count=accuracy["prompts"], needed=FEWEST_CLUSTERS)
    beats_chance = accuracy["low"] > CHANCE
    return words("validation.beats_chance" if beats_chance else "validation.may_be_chance", share=f"{100 * accuracy['value']:.0f}")


def more_would_help(curve: Figures) -> bool:
    """Whether the learning curve rises significantly; only then is it extrapolated."""
    gain = curve.get("gain")
    return gain is not None and gain["low"] > 0


def more(words: Translator, curve: Figures) -> str:
    """The gain to expect from more judgments, or why it is unknown."""
    gain = curve["gain"]
    if gain is None:
        return words("validation.more_unknown", pairs=FEWEST_PAIRS, prompts=FEWEST_CLUSTERS)
    if not more_would_help(curve):
        return words("validation.more_unclear", more=curve["more"])
    points = {name: f"{100 * gain[name]:.1f}" for name in ("value", "low", "high")}
    return words("validation.more", more=curve["more"], **points)


def calibrated(words: Translator, calibration: Figures) -> str:
    """Whether the predicted probabilities are calibrated."""
    ece, by_chance = f"{100 * calibration['ece']:.0f}", f"{100 * calibration['by_chance']:.0f}"
    if calibration["ece"] <= calibration["by_chance"]:
        return words("validation.calibrated", ece=ece, by_chance=by_chance)
    too_sure = calibration["confidence"] > calibration["accuracy"]
    return words("validation.too_sure" if too_sure else "validation.too_modest", ece=ece, by_chance=by_chance)


def _share(value: float) -> str:
    return f"{100 * value:.0f}%"


# ---- the tables


def details(words: Translator, run: Run, annotators: Mapping[int, Annotator], comparisons: Mapping[int, Comparison]) -> str:
    """Accuracy by kind of prompt and by annotator, and the judgments that the probe most strongly disagrees with."""
    if not run.validation or not run.validation.get("by_kind"):
        return ""
    validation = run.validation
    kinds = [(text(row["kind"].replace("_", " ")), row) for row in validation["by_kind"]]
    people = [(_who(words, annotators, row["annotator_id"]), row) for row in validation["by_annotator"]]
    return (
        f'<div class="rl-side-by-side">{_shares(words, "kinds", kinds)}{_shares(words, "annotators", people)}</div>'
        f"{_surprises(words, validation['surprises'], annotators, comparisons)}"
    )


def _shares(words: Translator, name: str, rows: Sequence[tuple[str, Figures]]) -> str:
    heads = [words(f"validation.{name}.head"), words("validation.accuracy"), words("validation.pairs")]
    cells = [[who, _accuracy_cell(words, row["accuracy"]), f"{row['pairs']:,}"] for who, row in rows]
    title = words(f"validation.{name}.title")
    return (
        f'<section data-testid="validation-{name}"><h3 class="rl-subheading">{title}</h3>'
        f"{table(heads, cells, caption=title, numbers=(1, 2), cards=False)}{muted(words(f'validation.{name}.note'))}</section>"
    )


def _accuracy_cell(words: Translator, accuracy: Figures | None) -> str:
    if accuracy is None:
        return f'<span class="rl-muted">{words("validation.too_few")}</span>'
    ends = words("validation.ends", low=_share(accuracy["low"]), high=_share(accuracy["high"]))
    spread = (accuracy["value"], accuracy["low"], accuracy["high"])
    return f'{_share(accuracy["value"])} <span class="rl-muted rl-small">{text(ends)}</span>{interval(spread, (CHANCE,))}'


def _surprises(
    words: Translator, surprises: Sequence[Figures], annotators: Mapping[int, Annotator], comparisons: Mapping[int, Comparison]
) -> str:
    title = words("validation.surprises.title")
    if not surprises:
        body = muted(words("validation.surprises.none"))
    else:
        rows = [
            [
                f'<span class="rl-line-clamp">{_prompt(comparisons, row["comparison_id"])}</span>',
                _who(words, annotators, row["annotator_id"]),
                _probability(row["probability"]),
                _link(words, row["comparison_id"]),
            ]
            for row in surprises
        ]
        heads = [*(words(f"validation.surprises.{name}") for name in ("prompt", "annotator", "probability")), ""]
        body = table(heads, rows, caption=title, numbers=(2,)) + muted(words("validation.surprises.note"))
    return f'<section data-testid="validation-surprises"><h3 class="rl-subheading">{title}</h3>{body}</section>'


def _probability(value: float) -> str:
    return "&lt;1%" if value < 0.01 else _share(value)


def _prompt(comparisons: Mapping[int, Comparison], comparison_id: int) -> str:
    return text(comparisons[comparison_id].prompt.text) if comparison_id in comparisons else NOTHING


def _link(words: Translator, comparison_id: int) -> str:
    about = words("validation.surprises.open_comparison", number=comparison_id)
    return (
        f'<a class="rl-small-button" href="{comparison_link(comparison_id)}" target="_blank" rel="noopener" aria-label="{text(about)}">'
        f"{text(words('validation.surprises.open'))}</a>"
    )


def _who(words: Translator, annotators: Mapping[int, Annotator], annotator_id: int) -> str:
    annotator = annotators.get(annotator_id)
    if annotator is None:
        return f"#{annotator_id}"
    mark = f' <span class="rl-tag">{words("data.simulated")}</span>' if annotator.kind == "simulated" else ""
    return f"{text(annotator.name)}{mark}"
