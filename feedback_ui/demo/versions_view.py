"""The card of a policy version on the Demo page, as HTML. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from feedback_ui.shared.errors import without_paths
from feedback_ui.shared.html import EMPTY, fragment, muted, tag, when
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import empty_state, figures, notice
from rlhf.analysis.model_card import NAME, changed_options
from rlhf.analysis.run_table import SHOWN_HASH
from rlhf.analysis.version_card import FIGURES, Limit, VersionCard
from rlhf.runs.results import Estimate
from storage.core.records import PolicyVersion


def choices(translate: Translator, versions: Sequence[PolicyVersion]) -> list[tuple[str, str]]:
    """The entries of the list of versions, newest first: each with its kind."""
    return [(f"{v.name} · {translate(f'version.kind.{v.kind}')}", v.name) for v in sorted(versions, key=lambda v: -v.id)]


def none_yet(translate: Translator) -> Markup:
    return empty_state(translate("version.none_yet"))


def card(translate: Translator, of: VersionCard) -> Markup:
    """Everything that is known of one version."""
    sections = {
        "data": data(translate, of),
        "figures": measured(translate, of),
        "lineage": lineage(translate, of),
        "decision": decision(translate, of),
    }
    return tag(
        "article",
        tag("h2", of.version.name),
        tag("p", summary(translate, of), class_="rl-muted"),
        *(tag("section", tag("h3", translate(f"version.{name}")), body) for name, body in sections.items() if body),
        tag("section", tag("h3", translate("version.limits")), tag("ul", *(tag("li", limit(translate, one)) for one in of.limits))),
        muted(translate("version.file", name=NAME)) if of.version.kind == "tuned" else EMPTY,
        class_="rl-card rl-version",
        data_testid="version-card",
    )


def summary(translate: Translator, of: VersionCard) -> str:
    """What the version is, and the licence of its base."""
    kind = translate(f"version.summary.{of.version.kind}", base=of.base_name)
    if of.version.kind == "external":
        return kind
    unknown = of.licence == "unknown"
    return f"{kind} {translate('version.licence_unknown') if unknown else translate('version.licence', licence=of.licence)}"


def data(translate: Translator, of: VersionCard) -> Markup:
    """What it learned from; empty for a version that no run made."""
    pairs = of.data
    counts = {"train": pairs.train, "heldout": pairs.heldout, "simulated": pairs.simulated, "ties": pairs.ties, "demo": pairs.demo_votes}
    shown = {translate(f"version.pairs.{name}"): f"{number:,}" for name, number in counts.items() if number}
    return figures(shown) if of.data.pairs else EMPTY


def measured(translate: Translator, of: VersionCard) -> Markup:
    """Its figures with their intervals; empty where nothing was measured."""
    found = ((name, getattr(of.result, name)) for name in FIGURES)
    shown = {translate(f"run.figure.{name}"): _estimate(translate, estimate) for name, estimate in found if estimate}
    if of.result.kl is not None:
        shown[translate("run.figure.kl")] = translate("run.nats", nats=of.result.kl)
    return fragment(figures(shown), muted(translate("version.measured_on"))) if shown else EMPTY


def _estimate(translate: Translator, of: Estimate) -> str:
    return translate("run.interval", value=f"{of.value:.0%}", low=f"{of.low:.0%}", high=f"{of.high:.0%}")


def lineage(translate: Translator, of: VersionCard) -> Markup:
    """The base, the run with its seed and packages, the judgments' hash and the options that differ from the defaults."""
    rows: dict[str, str] = {} if of.version.kind == "external" else {"base": tag("code", of.base_id or of.base_name)}
    rows["since"] = when(of.version.created_at)
    if of.result.started_from:
        rows["start"] = tag("code", of.result.started_from)
    if of.run is not None:
        rows |= {"run": tag("code", of.run.id), "seed": str(of.run.seed)}
        rows |= {"packages": _pairs(of.run.versions)} if of.run.versions else {}
    if of.data.sha256:
        rows["judgments"] = tag("code", of.data.sha256[:SHOWN_HASH])
    if changed := changed_options(of):
        rows["options"] = _pairs(changed)
    terms = (tag("div", tag("dt", translate(f"version.line.{name}")), tag("dd", value)) for name, value in rows.items())
    return tag("dl", *terms, class_="rl-findings")


def decision(translate: Translator, of: VersionCard) -> Markup:
    """What was decided about it, by whom and why; empty for a version that nobody decides about."""
    made = of.outcome
    if made is None:
        return EMPTY
    outcome = translate(f"version.outcome.{made.key}")
    if made.by is None:
        return tag("p", outcome)
    who = made.who or translate("round.nobody") if made.by == "person" else translate(f"round.decided_by.{made.by}")
    return fragment(tag("p", tag("strong", outcome), " ", who, ", ", when(made.at)), tag("p", made.reason, dir="auto"))


def _pairs(values: Mapping[str, Any]) -> Markup:
    return fragment(*(tag("div", tag("code", f"{name} = {value}")) for name, value in sorted(values.items())))


def limit(translate: Translator, of: Limit) -> str:
    """A known limit as a sentence."""
    values = of.values | ({"figure": translate(f"run.figure.{of.values['figure']}")} if "figure" in of.values else {})
    values |= {"problem": without_paths(of.values["problem"])} if "problem" in of.values else {}
    return translate(f"version.limit.{of.key}", **values)


def with_missing(translate: Translator, shown: Markup, linked: str) -> Markup:
    """A card under the note that the version of the link is not there."""
    return fragment(notice(translate("version.not_here", name=linked), "warn"), shown)
