"""Presenters of a round on the Training page: from the votes it learned from to what was decided about its version. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from feedback_ui.shared.html import EMPTY, fragment, interval, muted, table, tag, when
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import figures, pair_counts
from feedback_ui.training import run_view
from rlhf.analysis.round_story import Made, State, Story
from rlhf.analysis.sequential_test import Assessment
from rlhf.runs.deciding import Standing
from rlhf.runs.results import GUARDS, GuardCheck

GUARD_FORMS = {"kl": "{:.1f}", "length_ratio": "{:.2f}"}
"""How the value of a guard is written; a percentage where none is given."""

EVEN = 0.5
"""The win rate of a version that is as good as the current one."""


def state(translate: Translator, of: State) -> str:
    return translate(f"round.state.{of.replace(' ', '_')}")


def section(translate: Translator, story: Story, drawn: Sequence[Assessment]) -> Markup:
    """The story of a round, from top to bottom.

    Args:
        drawn: the assessments so far, for the picture of an open round.
    """
    parts = (_votes, _options, _reward_model, _guards)
    return tag(
        "section",
        tag(
            "h2",
            translate("round.title", number=story.round.id),
            " ",
            tag("span", state(translate, story.state), class_="rl-tag", data_testid="round-state"),
        ),
        *(part(translate, story) for part in parts),
        _comparisons(translate, story, drawn),
        _decisions(translate, story),
        class_="rl-card rl-round",
        data_testid="round",
        data_state=story.state,
    )


def _part(translate: Translator, name: str, *content: str) -> Markup:
    return tag("div", tag("h3", translate(f"round.part.{name}")), *content, data_testid=f"round-{name}") if any(content) else EMPTY


def _votes(translate: Translator, story: Story) -> Markup:
    snapshot = story.snapshot
    if not snapshot.sha256:
        return EMPTY
    shown = {
        translate("round.pairs"): pair_counts(translate, snapshot.train, snapshot.heldout),
        translate("round.simulated"): f"{snapshot.simulated:,}",
    }
    return _part(
        translate, "votes", figures(shown | {translate("round.snapshot"): tag("code", snapshot.sha256[:16], title=snapshot.sha256)})
    )


def _options(translate: Translator, story: Story) -> Markup:
    config, run = story.run.config, story.run
    shown = {
        translate("round.model"): str(config.get("model", "")),
        translate("round.method"): str(config.get("method", "")),
        translate("round.seed"): str(run.seed),
        translate("round.trigger"): translate(f"round.triggers.{story.round.trigger}"),
        translate("round.judges"): translate(f"round.judged_by.{story.round.judges}"),
        translate("round.baseline"): story.baseline or "",
    }
    packages = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return _part(
        translate, "options", figures({name: value for name, value in shown.items() if value}), muted(packages) if packages else ""
    )


def _reward_model(translate: Translator, story: Story) -> Markup:
    names = ("heldout_accuracy", "win_rate_by_reward_model")
    found = {name: estimate for name in names if (estimate := getattr(story.result, name))}
    shown = {translate(f"run.figure.{name}"): run_view.interval(translate, estimate) for name, estimate in found.items()}
    return _part(translate, "reward_model", figures(shown)) if shown else EMPTY


def _guards(translate: Translator, story: Story) -> Markup:
    checks = story.result.guards
    if not checks:
        return EMPTY
    rows = [
        [_guard_title(translate, check), _guard_value(check, check.value), _bounds(translate, check), _passed(translate, check)]
        for check in checks
    ]
    heads = [translate(f"round.guards.{name}") for name in ("what", "value", "bounds", "passed")]
    return _part(translate, "guards", table(heads, rows, caption=translate("round.part.guards"), numbers=(1,)))


def _guard_title(translate: Translator, check: GuardCheck) -> str:
    """A guard of a newer version, or of a row that rankloop did not write, has its name alone."""
    return translate(f"round.guard.{check.name}") if check.name in GUARDS else check.name


def _guard_value(check: GuardCheck, value: float) -> str:
    return GUARD_FORMS.get(check.name, "{:.0%}").format(value)


def _bounds(translate: Translator, check: GuardCheck) -> str:
    bounds = {"at_least": check.low, "at_most": check.high}
    given = [translate(f"round.guards.{word}", bound=_guard_value(check, bound)) for word, bound in bounds.items() if bound is not None]
    return ", ".join(given)


def _passed(translate: Translator, check: GuardCheck) -> str:
    return tag("span", translate("round.guards.yes" if check.passed else "round.guards.no"), class_=None if check.passed else "rl-bad")


def _comparisons(translate: Translator, story: Story, drawn: Sequence[Assessment]) -> Markup:
    if story.standing is not None:
        stands = story.standing
        shown = _figures(translate, stands.to_json()) | {translate("round.asked"): f"{story.asked:,}"}
        return _part(
            translate,
            "comparisons",
            figures(shown),
            picture(translate, drawn),
            tag("p", verdict(translate, story, stands), class_="rl-verdict", data_testid="round-verdict"),
        )
    evidence = next((made.decision.evidence for made in story.decisions if made.decision.decided_by == "comparisons"), None)
    return _part(translate, "comparisons", figures(_figures(translate, evidence))) if evidence else EMPTY


def _figures(translate: Translator, evidence: Mapping[str, Any]) -> dict[str, str]:
    """The figures of a standing, or of a decision's row, which may hold anything."""
    shown = {}
    for name, form in (("units", "{:,}"), ("annotators", "{:,}"), ("evidence_better", "{:.1f}"), ("evidence_worse", "{:.1f}")):
        if isinstance(value := evidence.get(name), int | float):
            shown[translate(f"round.{name}")] = form.format(value)
    rates = [evidence.get(name) for name in ("win_rate", "low", "high")]
    if all(isinstance(rate, int | float) for rate in rates):
        value, low, high = (float(rate) for rate in rates if rate is not None)
        numbers = translate("run.interval", value=f"{value:.0%}", low=f"{low:.0%}", high=f"{high:.0%}")
        shown[translate("round.win_rate")] = fragment(numbers, " ", interval((value, low, high), (EVEN,)))
    return shown


def picture(translate: Translator, drawn: Sequence[Assessment]) -> Markup:
    """The confidence sequence as upright bars from left to right; the line is a win rate of one half."""
    if not drawn:
        return EMPTY
    bars = (
        tag(
            "li",
            tag("i", style=f"bottom:{100 * a.low:.1f}%;height:{100 * (a.high - a.low):.1f}%"),
            title=translate("round.after", count=a.units, low=f"{a.low:.0%}", high=f"{a.high:.0%}"),
        )
        for a in drawn
    )
    caption = tag("figcaption", translate("round.picture", count=drawn[-1].units))
    return tag("figure", caption, tag("ol", *bars, class_="rl-sequence", aria_hidden="true"), class_="rl-sequence-figure")


def verdict(translate: Translator, story: Story, stands: Standing) -> str:
    """What the decision waits for."""
    a = stands.assessment
    if story.state == "waiting":
        return translate("round.verdict.waiting")
    if stands.waits_for == "annotators":
        return translate(f"round.verdict.annotators_{a.verdict}", needed=stands.annotators_needed, found=stands.annotators)
    if stands.waits_for == "agreement":
        return translate(f"round.verdict.agreement_{a.verdict}")
    if stands.waits_for is None:
        return translate(f"round.verdict.{a.verdict}")
    if a.likely_needed is None:
        return translate("round.verdict.at_most", count=max(0, stands.most - a.units))
    return translate("round.verdict.likely", count=a.likely_needed)


def _decisions(translate: Translator, story: Story) -> Markup:
    items = (tag("li", _decision(translate, made), data_act=made.decision.act) for made in story.decisions)
    return _part(translate, "decisions", tag("ol", *items, class_="rl-decisions")) if story.decisions else EMPTY


def _decision(translate: Translator, made: Made) -> Markup:
    d = made.decision
    who = made.who or translate("round.nobody") if d.decided_by == "person" else translate(f"round.decided_by.{d.decided_by}")
    act = translate(f"round.act.{d.act.replace(' ', '_')}", version=made.version, before=made.before)
    return fragment(tag("strong", act), " ", who, ", ", when(d.created_at), tag("p", d.reason, dir="auto"))
