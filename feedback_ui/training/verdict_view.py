"""Presenters of the verdict on a run, and of the question before a policy learns from a reward model at chance. No Gradio."""

from __future__ import annotations

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, tag
from feedback_ui.shared.i18n import Translator
from feedback_ui.training.run_view import asks
from rlhf.analysis import round_story, run_verdict
from rlhf.analysis.round_story import Story
from rlhf.analysis.run_verdict import Verdict
from rlhf.runs import results
from rlhf.runs.results import Estimate
from storage.core.records import Run

TONES = {"good": "rl-good", "warn": "rl-warn", "bad": "rl-bad", "muted": "rl-muted"}


def section(translate: Translator, run: Run, story: Story | None) -> Markup:
    """The verdict on a finished run, the question of one that has stopped at chance; empty for all others."""
    if asks(run):
        accuracy = results.of_run(run).heldout_accuracy
        text = translate("verdict.asks", figure=figure(translate, accuracy), count=accuracy.cases if accuracy else 0)
        return tag("p", text, class_="rl-run-verdict rl-warn", role="status", data_testid="run-question")
    if run.status != "done" or not run.result:
        return EMPTY
    verdict = run_verdict.of(results.of_run(run), round_story.evidence(story))
    return tag(
        "p",
        sentence(translate, verdict),
        class_=f"rl-run-verdict {TONES[verdict.tone]}",
        role="status",
        data_testid="run-verdict",
        data_tone=verdict.tone,
    )


def sentence(translate: Translator, verdict: Verdict) -> str:
    """`No improvement shown: 46% (37 to 56%) under the rule; the reward model cannot be told from a coin: 52% (41 to 63%).`"""
    improved = translate(f"verdict.improvement.{verdict.improvement}")
    if verdict.win_rate and verdict.measure:
        shown = translate(f"verdict.measure.{verdict.measure}", figure=figure(translate, verdict.win_rate))
        improved = translate("verdict.with_figure", what=improved, figure=shown)
    model = translate(f"verdict.reward_model.{verdict.reward_model}")
    if verdict.accuracy:
        model = translate("verdict.with_figure", what=model, figure=figure(translate, verdict.accuracy))
    return translate("verdict.both", improved=improved, model=model)


def figure(translate: Translator, estimate: Estimate | None) -> str:
    """`46% (37 to 56%)`"""
    if estimate is None:
        return "–"
    value, low, high = (f"{100 * number:.0f}" for number in (estimate.value, estimate.low, estimate.high))
    return translate("verdict.figure", value=value, low=low, high=high)
