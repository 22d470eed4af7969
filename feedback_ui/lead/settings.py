"""The Settings section: its form is generated from `storage.core.records.ProjectSettings`, so that new fields appear here too."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.lead.section import SectionContext, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, FieldTexts, html, label, static_text
from storage.core.database import StoreError
from storage.core.records import ProjectSettings
from storage.project import settings

GROUPS: dict[str, tuple[str, ...]] = {
    "who": ("overlap", "lease_minutes", "gold_share", "repeat_share", "daily_goal", "target_judgments", "target_date"),
    "shows": ("show_system", "strength", "four_strengths", "aspects", "aspect_scale"),
    "adds": ("rationale", "rationale_min_chars", "ideal_answers", "flags", "text_max_chars"),
    "rounds": ("base_share", "heldout_share", "deciding_share", "deciding_annotators", "deciding_error", "deciding_most"),
}
"""The groups of fields. A field that is in no group is added to `adds`."""

ELSEWHERE = ("starters", "retrain_after_judgments", "retrain_schedule", "retrain_options")
"""Settings that the Prompts section and the Training page have."""

TYPES = get_type_hints(ProjectSettings)


class SettingsSection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        self.fields: dict[str, Component] = {}
        named = {name for group in GROUPS.values() for name in group}
        others = tuple(field.name for field in fields(ProjectSettings) if field.name not in named and field.name not in ELSEWHERE)
        with gr.Column(elem_classes="rl-action-form") as self.form:
            with gr.Row(equal_height=False, elem_id="settings-form"):
                for group, members in (GROUPS | {"adds": GROUPS["adds"] + others}).items():
                    with gr.Column(min_width=300):
                        html(static_text(f"lead.settings.group.{group}"), elem_classes="rl-subheading")
                        self.fields |= {name: _field(name) for name in members}
            self.save = gr.Button(label("lead.settings.save"), variant="primary", elem_id="settings-save", scale=0, min_width=160)
            self.message = html(elem_id="settings-message", elem_classes="rl-optional")
        self.readers = html(elem_id="settings-read", elem_classes="rl-optional")
        self.shown = [self.form, self.message, self.readers, *self.fields.values()]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        self.save.click(self.change, {*self.fields.values()}, self.message, **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        acts = visitor.may_act("lead")
        now = settings.current(self.store)
        return {
            self.form: gr.Column(visible=acts),
            self.message: EMPTY,
            self.readers: EMPTY if acts else self._read_only(translate, now),
            **{field: _shown(translate, name, getattr(now, name)) for name, field in self.fields.items()},
        }

    def change(self, values: dict[Component, Any], request: gr.Request) -> Markup:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            values_by_name = {name: _value(translate, name, values[field]) for name, field in self.fields.items()}
            settings.change(self.store, replace(settings.current(self.store), **values_by_name), visitor.annotator.id)
        except (ValueError, StoreError) as error:
            return refusal(error)
        return presenters.notice(translate("lead.settings.saved"))

    def _read_only(self, translate: Translator, now: ProjectSettings) -> Markup:
        return presenters.figures(
            {translate(f"lead.settings.{name}.label"): _plain(translate, name, getattr(now, name)) for name in self.fields}
        )


def _field(name: str) -> Component:
    common: FieldTexts = {
        "label": label(f"lead.settings.{name}.label"),
        "info": label(f"lead.settings.{name}.help"),
        "elem_id": f"setting-{name.replace('_', '-')}",
    }
    kind, default = TYPES[name], getattr(ProjectSettings(), name)
    if kind is bool:
        return gr.Checkbox(default, **common)
    if kind in (int, float):
        return gr.Number(default, precision=0 if kind is int else None, step=1 if kind is int else 0.01, **common)
    if get_origin(kind) is Literal:
        return gr.Dropdown(list(get_args(kind)), value=default, filterable=False, **common)
    return gr.Textbox(default if kind is str else ", ".join(default), max_lines=1, **common)


def _shown(translate: Translator, name: str, value: Any) -> Any:
    """A setting's value as its component takes it."""
    if get_origin(TYPES[name]) is Literal:
        return gr.Dropdown([(translate(f"lead.settings.{name}.{choice}"), choice) for choice in get_args(TYPES[name])], value=value)
    return ", ".join(value) if isinstance(value, tuple) else value


def _plain(translate: Translator, name: str, value: Any) -> str:
    """A setting's value as text."""
    if isinstance(value, bool):
        return translate("lead.settings.yes" if value else "lead.settings.no")
    if get_origin(TYPES[name]) is Literal:
        return translate(f"lead.settings.{name}.{value}")
    if isinstance(value, tuple):
        return ", ".join(value) or "–"
    if isinstance(value, str):
        return value or "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _value(translate: Translator, name: str, shown: Any) -> Any:
    """Converts a component's value to the setting's type.

    Raises:
        ValueError: a number is missing.
    """
    kind = TYPES[name]
    if kind in (int, float):
        if shown is None or shown == "":
            raise ValueError(translate("lead.settings.empty", title=translate(f"lead.settings.{name}.label")))
        return kind(shown)
    if kind is bool or get_origin(kind) is Literal:
        return shown
    if kind is str:
        return (shown or "").strip()
    return tuple(part.strip() for part in (shown or "").split(",") if part.strip())
