"""Presenters of the exclusions of votes, and the names of their rules. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.lead.lead_view import who
from feedback_ui.shared.html import button, fragment, table, tag, when, with_note
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import empty_state, notice
from storage.core.records import Exclusion
from storage.judging.exclusions import Effect

EXCLUSION_RULES = ("gold accuracy", "too fast", "inconsistent", "asked by the annotator", "other")
"""The rules that are offered; they are stored in English and shown in the reader's language."""


def rule(translate: Translator, name: str) -> str:
    """A rule's name, translated if it is one of `EXCLUSION_RULES`."""
    return translate(f"lead.rule.{name.replace(' ', '_')}") if name in EXCLUSION_RULES else name


def effect(translate: Translator, found: Effect) -> Markup:
    """What would stop counting, before it does."""
    if not found.votes:
        return notice(translate("lead.exclusions.no_effect"), "warn")
    votes = translate("lead.exclusions.effect_votes", count=found.votes, all=f"{found.all_votes:,}")
    return notice(f"{votes} {translate('lead.exclusions.effect_reopened', count=found.reopened)}")


def exclusion_list(translate: Translator, exclusions: Sequence[Exclusion], names: Mapping[int, str], *, acts: bool) -> Markup:
    if not exclusions:
        return empty_state(translate("lead.exclusions.none"))
    rows = [
        [
            str(e.id),
            with_note(when(e.created_at), who(translate, names, e.by_id)),
            fragment(", ".join(sorted(names[i] for i in e.annotator_ids if i in names))),
            fragment(tag("strong", rule(translate, e.rule)), tag("br"), e.reason),
            f"{e.judgments:,}",
            fragment(translate("lead.exclusions.lifted"), " ", when(e.lifted_at)) if e.lifted_at else translate("lead.exclusions.holds"),
            button("lift", e.id, translate("lead.exclusions.lift"), str(e.id)) if acts and not e.lifted_at else "",
        ]
        for e in exclusions
    ]
    heads = ["#", *(translate(f"lead.exclusions.{name}") for name in ("made", "annotator", "why", "votes", "state")), ""]
    return table(heads, rows, caption=translate("lead.exclusions.list"), numbers=(0, 4))
