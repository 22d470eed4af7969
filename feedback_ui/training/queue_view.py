"""Presenters of the rounds that wait for their turn, and of those that could not begin. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.shared.errors import for_browser
from feedback_ui.shared.html import EMPTY, button, fragment, tag, when
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import notice
from feedback_ui.training.run_view import METHOD_NAMES
from storage.core.records import QueuedRound


def section(
    translate: Translator, waiting: Sequence[QueuedRound], not_started: Sequence[QueuedRound], names: Mapping[int, str], *, acts: bool
) -> Markup:
    """The rounds in the order in which they will begin; empty where none waits and none failed to begin.

    Args:
        names: the names of the people who asked, by id.
        acts: whether the reader may take rounds out.
    """
    if not waiting and not not_started:
        return EMPTY
    items = (tag("li", _asked(translate, one, names), *_take_out(translate, one, acts), data_queued=one.id) for one in waiting)
    failures = (
        notice(translate("queue.not_started", round=asked_by(translate, one, names), reason=for_browser(one.reason or "")), "bad")
        for one in not_started
    )
    return tag(
        "section",
        tag("h2", translate("queue.title")),
        tag("ol", *items, class_="rl-queue") if waiting else EMPTY,
        *failures,
        class_="rl-card",
        data_testid="round-queue",
    )


def _asked(translate: Translator, one: QueuedRound, names: Mapping[int, str]) -> Markup:
    method = METHOD_NAMES.get(str(one.config.get("method")), "")
    return tag("span", asked_by(translate, one, names), ", ", when(one.created_at), f" · {method}" if method else "")


def _take_out(translate: Translator, one: QueuedRound, acts: bool) -> list[Markup]:
    if not acts:
        return []
    return [fragment(" ", button("take-out", one.id, translate("queue.take_out"), translate("queue.number", number=one.id)))]


def asked_by(translate: Translator, one: QueuedRound, names: Mapping[int, str]) -> str:
    """Who or what asked for the round: a name, the command line, or the trigger."""
    if one.by_id is not None:
        return names.get(one.by_id, "?")
    return translate("queue.command_line") if one.trigger == "hand" else translate(f"round.triggers.{one.trigger}")
