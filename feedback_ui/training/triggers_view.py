"""Presenters of the rounds that begin by themselves: where the triggers stand, and what a round would do now. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from feedback_ui.shared.errors import for_browser, without_paths
from feedback_ui.shared.html import EMPTY, fragment, tag, when
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import duration, figures, notice
from rlhf import model_files
from rlhf.runs.dry_run import DryRun
from rlhf.runs.triggers import Triggers
from storage.core.clock import as_text
from storage.core.records import QueuedRound


def section(translate: Translator, found: Triggers, chosen: Mapping[str, Any]) -> Markup:
    """Where the triggers stand.

    Args:
        chosen: the options of the rounds that they begin.
    """
    if not found.on:
        return tag("section", tag("p", translate("triggers.off"), class_="rl-muted"), data_testid="triggers", data_state="off")
    shown: dict[str, str] = {}
    if found.after:
        shown[translate("triggers.new")] = translate("triggers.of", count=found.counted, wanted=found.after)
    if found.next_due is not None:
        shown[translate("triggers.next")] = when(as_text(found.next_due))
    state = "held" if found.due and found.hold else "due" if found.due else "waiting"
    return tag(
        "section",
        figures(shown),
        tag("p", standing(translate, found), data_testid="triggers-standing"),
        tag("p", translate("triggers.last"), " ", _last(translate, found.last)) if found.last else EMPTY,
        tag("p", translate("triggers.options"), " ", tag("code", _options(chosen)), class_="rl-muted"),
        class_="rl-triggers",
        data_testid="triggers",
        data_state=state,
    )


def _options(chosen: Mapping[str, Any]) -> str:
    """The options as on the command line, without paths of this machine."""
    shown = {name: model_files.display_name(str(value)) if name == "model" else value for name, value in chosen.items()}
    return without_paths(", ".join(f"{name} {value}" for name, value in shown.items()))


def standing(translate: Translator, found: Triggers) -> str:
    """Whether a round begins now, or what it waits for."""
    if not found.due:
        return translate("triggers.not_due")
    if found.hold is None:
        return translate("triggers.now")
    return translate(f"triggers.hold.{found.hold.reason}", subject=found.hold.subject)


def _last(translate: Translator, row: QueuedRound) -> Markup:
    trigger = translate(f"round.triggers.{row.trigger}")
    became = translate("triggers.became", run=row.run_id) if row.run_id else translate(f"triggers.state.{row.state.replace(' ', '_')}")
    return fragment(when(row.created_at), f" ({trigger}): {became}", f" {for_browser(row.reason)}" if row.reason else "")


def dry_run(translate: Translator, would: DryRun, hindrance: str | None) -> Markup:
    """What a round with the options of the triggers would do if it began now. `section` says whether one does.

    Args:
        hindrance: why it would not start, as the page names options.
    """
    shown = {
        translate("triggers.dry.teach"): f"{would.train:,}",
        translate("triggers.dry.measure"): f"{would.heldout:,}",
        translate("triggers.dry.new"): f"{would.new_judgments:,}",
        translate("triggers.dry.time"): "" if would.minutes is None else duration(translate, 60 * would.minutes),
    }
    verdict = notice(hindrance, "bad") if hindrance else notice(translate("triggers.dry.would_start"))
    known = {name: value for name, value in shown.items() if value}
    return tag(
        "section", tag("h3", translate("triggers.dry_run")), figures(known), verdict, class_="rl-triggers", data_testid="triggers-dry-run"
    )
