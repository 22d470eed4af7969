"""Presenters of the audit log. No Gradio."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from urllib.parse import quote

from markupsafe import Markup

from feedback_ui.lead.exclusions_view import rule
from feedback_ui.shared.html import comparison_link, table, tag, when
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import empty_state
from storage.core.records import ProjectSettings
from storage.people.audit import AuditEntry


def audit_list(translate: Translator, entries: Sequence[AuditEntry], names: Mapping[int, str]) -> Markup:
    if not entries:
        return empty_state(translate("lead.audit.none"))
    rows = [
        [
            when(e.at),
            e.who or tag("span", translate("lead.by_program"), class_="rl-muted"),
            translate(f"lead.audit.act.{e.act.replace(' ', '_')}"),
            _linked(e, f"{translate(f'lead.audit.subject.{e.subject}')} {_subject(e, names)}"),
            tag("span", detail, class_="rl-muted") if (detail := _detail(translate, e, names)) else "",
        ]
        for e in entries
    ]
    heads = [translate(f"lead.audit.{name}") for name in ("at", "who", "did", "what", "detail")]
    return table(heads, rows, caption=translate("lead.audit.list"))


SECTION_OF = {
    "prompt": "prompts", "exclusion": "exclusions", "settings": "settings", "guidelines": "guidelines", "import": "prompts",
    "batch": "comparisons", "account": "accounts",
}  # fmt: skip
"""The section of the Lead page in which what was done is found."""


def _linked(entry: AuditEntry, text: str) -> Markup:
    """The subject as a link to where it is."""
    if entry.subject == "comparison":
        address = comparison_link(int(entry.subject_id))
    elif entry.subject == "run":
        address = f"#training/{quote(entry.subject_id, safe='')}"
    elif entry.subject == "round":
        address = "#training"
    elif entry.subject == "policy":
        address = f"#version-{quote(entry.subject_id, safe='')}"
    else:
        address = f"#lead/{SECTION_OF[entry.subject]}"
    return tag("a", text, href=address)


def _subject(entry: AuditEntry, names: Mapping[int, str]) -> str:
    """The name of an account, or the id of any other subject."""
    return names.get(int(entry.subject_id), entry.subject_id) if entry.subject == "account" else entry.subject_id


def _detail(translate: Translator, entry: AuditEntry, names: Mapping[int, str]) -> str:
    """The details of an entry: settings as their differences from the defaults, a batch as a translated count, others unchanged."""
    if entry.subject == "settings":
        usual = json.loads(json.dumps(asdict(ProjectSettings())))
        changed = {name: value for name, value in json.loads(entry.detail).items() if value != usual.get(name)}
        changes = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in changed.items()]
        return ", ".join(changes) or translate("lead.audit.usual")
    if entry.subject == "batch":
        numbers = [int(part) for part in entry.detail.split() if part.isdigit()]
        if entry.act == "assigned":
            to = ", ".join(names.get(number, f"#{number}") for number in json.loads(entry.detail))
            return to or translate("lead.audit.everybody")
        if entry.act == "cancelled":
            return translate("lead.audit.made_of", made=numbers[0], asked=numbers[1])
        return translate("lead.audit.comparisons", count=numbers[0])
    if entry.act == "edited":
        return translate("lead.prompts.replaces", number=int(entry.detail))
    if entry.act == "excluded":
        rule_name, _, reason = entry.detail.partition(": ")
        return f"{rule(translate, rule_name)}: {reason}"
    return entry.detail
