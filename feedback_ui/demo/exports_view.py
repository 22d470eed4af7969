"""The state of an export on the Demo page, as HTML. No Gradio."""

from __future__ import annotations

from markupsafe import Markup

from feedback_ui.demo.running_export import RunningExport
from feedback_ui.shared.errors import without_paths
from feedback_ui.shared.html import EMPTY, fragment, tag
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import notice

FOLDER = "exports"
"""Inside the data folder."""


def status(translate: Translator, running: RunningExport | None) -> Markup:
    """How far the last export is, or what came of it; nothing before the first."""
    if running is None:
        return EMPTY
    named = {"version": running.version, "format": running.format}
    if not running.is_over:
        return tag(
            "div",
            tag("p", translate("export.running", **named), " ", tag("span", running.doing, class_="rl-muted")),
            tag("progress", value=f"{running.done:.2f}", max="1", aria_label=translate("export.running", **named)),
            class_="rl-export",
            role="status",
        )
    says = tag("p", without_paths(running.says), class_="rl-muted rl-small rl-lines") if running.says else EMPTY
    kind = {0: "muted", 1: "warn"}.get(running.code or 0, "bad")
    key = {0: "export.passed", 1: "export.failed"}.get(running.code or 0, "export.broken")
    return fragment(notice(translate(key, **named, folder=FOLDER), kind), says)
