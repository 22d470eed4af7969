"""Presenters of the guidelines: a draft, one version, and the list of all. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.lead.lead_view import _prose, who
from feedback_ui.shared import markdown
from feedback_ui.shared.html import button, muted, table, tag, when
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import empty_state
from storage.core.records import Guidelines


def guideline_preview(translate: Translator, draft: str) -> Markup:
    body = markdown.render(draft, translate)
    return _prose(body) if body else muted(translate("lead.guidelines.preview_empty"))


def guideline_version(translate: Translator, number: int, guidelines: Guidelines) -> Markup:
    """One version of the guidelines, for reading."""
    title = tag("p", f"{translate('lead.guidelines.version')} {number} · ", when(guidelines.created_at), class_="rl-subheading")
    return tag("section", title, tag("div", markdown.render(guidelines.text, translate), class_="rl-prose"), class_="rl-panel")


def guideline_list(translate: Translator, versions: Sequence[Guidelines], names: Mapping[int, str]) -> Markup:
    if not versions:
        return empty_state(translate("lead.guidelines.none"))
    numbers = range(len(versions), 0, -1)
    rows = [
        [
            f"{number}",
            when(g.created_at),
            who(translate, names, g.by_id),
            translate("lead.guidelines.holds") if g is versions[0] else "",
            button("view", g.id, translate("lead.guidelines.view"), f"{number}"),
        ]
        for number, g in zip(numbers, versions, strict=True)
    ]
    heads = [translate(f"lead.guidelines.{name}") for name in ("version", "published_at", "by")] + ["", ""]
    return table(heads, rows, caption=translate("lead.guidelines.list"), numbers=(0,))
