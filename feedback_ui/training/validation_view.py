"""Presenters of a reward model's validation (`rlhf.analysis.validation`) on the Training page, as texts, tables and interval marks.

Nothing is computed here: every number comes from the run's row. No Gradio; the plots are in `charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, NOTHING, comparison_link, fragment, interval, muted, table, tag
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


def card(words: Translator, run: Run) -> Markup:
    """Accuracy, the gain to expect from more judgments, and calibration; during the run, a note that they are still to come."""
    body = _not_yet(words, run) if run.validation is None else _measured(words, run.validation)
    title = tag("h2", words("validation.title"), class_="rl-heading")
    return tag("section", title, body, data_testid="validation") if body else EMPTY


def _not_yet(words: Translator, run: Run) -> Markup:
    return tag("p", words("validation.not_yet"), class_="rl-muted") if is_active(run) else EMPTY


def _measured(words: Translator, validation: Figures) -> Markup:
    accuracy = validation["accuracy"]
    if accuracy is None:
        return tag("p", words("validation.one_prompt"), class_="rl-notice rl-warn")
    rests_on = words("validation.rests_on", count=validation["pairs"], prompts=validation["prompts"])
    lines = {"more": more(words, validation["curve"]), "calibration": calibrated(words, validation["calibration"])}
    definitions = (tag("div", tag("dt", words(f"validation.{name}_title")), tag("dd", line)) for name, line in lines.items())
    return fragment(_accuracy(words, accuracy), tag("dl", *definitions, class_="rl-findings"), muted(rests_on))


def _accuracy(words: Translator, accuracy: Figures) -> Markup:
    value, low, high = (accuracy[name] for name in ("value", "low", "high"))
    ends = "" if low is None else tag("span", words("validation.ends", low=_share(low), high=_share(high)), class_="rl-muted")
    tone = "rl-muted" if low is not None and low > CHANCE else "rl-warn"
    return tag(
        "div",
        tag("span", _share(value), " " if ends else "", ends, class_="rl-value"),
        interval((value, low, high), (CHANCE,)),
        tag("span", verdict(words, accuracy), class_=f"rl-small {tone}"),
        class_="rl-accuracy",
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


def details(words: Translator, run: Run, annotators: Mapping[int, Annotator], comparisons: Mapping[int, Comparison]) -> Markup:
    """Accuracy by kind of prompt and by annotator, and the judgments that the probe most strongly disagrees with."""
    if not run.validation or not run.validation.get("by_kind"):
        return EMPTY
    validation = run.validation
    kinds = [(row["kind"].replace("_", " "), row) for row in validation["by_kind"]]
    people = [(_who(words, annotators, row["annotator_id"]), row) for row in validation["by_annotator"]]
    return fragment(
        tag("div", _shares(words, "kinds", kinds), _shares(words, "annotators", people), class_="rl-side-by-side"),
        _surprises(words, validation["surprises"], annotators, comparisons),
    )


def _shares(words: Translator, name: str, rows: Sequence[tuple[str, Figures]]) -> Markup:
    heads = [words(f"validation.{name}.head"), words("validation.accuracy"), words("validation.pairs")]
    cells = [[who, _accuracy_cell(words, row["accuracy"]), f"{row['pairs']:,}"] for who, row in rows]
    title = words(f"validation.{name}.title")
    return tag(
        "section",
        tag("h3", title, class_="rl-subheading"),
        table(heads, cells, caption=title, numbers=(1, 2), cards=False),
        muted(words(f"validation.{name}.note")),
        data_testid=f"validation-{name}",
    )


def _accuracy_cell(words: Translator, accuracy: Figures | None) -> Markup:
    if accuracy is None:
        return tag("span", words("validation.too_few"), class_="rl-muted")
    ends = words("validation.ends", low=_share(accuracy["low"]), high=_share(accuracy["high"]))
    spread = (accuracy["value"], accuracy["low"], accuracy["high"])
    return fragment(_share(accuracy["value"]), " ", tag("span", ends, class_="rl-muted rl-small"), interval(spread, (CHANCE,)))


def _surprises(
    words: Translator, surprises: Sequence[Figures], annotators: Mapping[int, Annotator], comparisons: Mapping[int, Comparison]
) -> Markup:
    title = words("validation.surprises.title")
    if not surprises:
        body = muted(words("validation.surprises.none"))
    else:
        rows = [
            [
                tag("span", _prompt(comparisons, row["comparison_id"]), class_="rl-line-clamp"),
                _who(words, annotators, row["annotator_id"]),
                "<1%" if row["probability"] < 0.01 else _share(row["probability"]),
                _link(words, row["comparison_id"]),
            ]
            for row in surprises
        ]
        heads = [*(words(f"validation.surprises.{name}") for name in ("prompt", "annotator", "probability")), ""]
        body = fragment(table(heads, rows, caption=title, numbers=(2,)), muted(words("validation.surprises.note")))
    return tag("section", tag("h3", title, class_="rl-subheading"), body, data_testid="validation-surprises")


def _prompt(comparisons: Mapping[int, Comparison], comparison_id: int) -> str:
    return comparisons[comparison_id].prompt.text if comparison_id in comparisons else NOTHING


def _link(words: Translator, comparison_id: int) -> Markup:
    return tag(
        "a",
        words("validation.surprises.open"),
        class_="rl-small-button",
        href=comparison_link(comparison_id),
        target="_blank",
        rel="noopener",
        aria_label=words("validation.surprises.open_comparison", number=comparison_id),
    )


def _who(words: Translator, annotators: Mapping[int, Annotator], annotator_id: int) -> str:
    annotator = annotators.get(annotator_id)
    if annotator is None:
        return f"#{annotator_id}"
    mark = fragment(" ", tag("span", words("data.simulated"), class_="rl-tag")) if annotator.kind == "simulated" else EMPTY
    return fragment(annotator.name, mark)
