"""The Compare page: one blind comparison after another, judged by key or button.

Judging takes one round trip and goes round Gradio's queue: the component's server functions save the judgment, and
only then answer with the next comparison. Leaves out who the annotator is: `annotator_of` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from feedback_ui import presenters
from feedback_ui.theme import asset
from rlhf.client import PolicyClient, PolicyServerDown
from storage import judgments, presentations, queue
from storage.database import Database, StoreError
from storage.records import Annotator, Tiers

AnnotatorOf = Callable[[gr.Request | None], Annotator]

SLOT_TIERS: dict[str, Tiers] = {"a": ((0,), (1,)), "b": ((1,), (0,)), "tie": ((0, 1),), "both_bad": ((0, 1),)}
"""What each button says, as tiers of slots."""


def build(store: Database, client: PolicyClient, *, annotator_of: AnnotatorOf) -> gr.HTML:
    """The page's one component. Gradio publishes its functions by name and finds the request by its annotation."""
    desk = Desk(store, client)

    def next_comparison(_: Any, request: gr.Request) -> dict[str, Any]:
        return desk.next_for(annotator_of(request))

    def judge(act: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        return desk.judge(annotator_of(request), act)

    def undo(_: Any, request: gr.Request) -> dict[str, Any]:
        return desk.undo(annotator_of(request))

    return gr.HTML(
        html_template=asset("compare.html"),
        css_template=asset("compare.css"),
        js_on_load=asset("compare.js"),
        server_functions=[next_comparison, judge, undo],
        apply_default_css=False,
        elem_id="compare",
    )


class Desk:
    """What happens on the server between two comparisons."""

    def __init__(self, store: Database, client: PolicyClient):
        self.store = store
        self.client = client

    def next_for(self, annotator: Annotator) -> dict[str, Any]:
        judged = judgments.count(self.store, annotator.id)
        if (found := queue.next_presentation(self.store, annotator.id)) is None:
            return presenters.dry_queue_view(self._why_dry(), judged)
        return presenters.comparison_view(*found, judged)

    def judge(self, annotator: Annotator, act: dict[str, Any]) -> dict[str, Any]:
        """Saves one judgment, then answers with the next comparison. Sent twice, it counts once."""
        try:
            self._save(annotator, act["presentation_id"], act["choice"], act.get("reason"))
        except StoreError as error:
            return {"problem": f"Not saved. {error}", "next": self.next_for(annotator)}
        return {"next": self.next_for(annotator)}

    def undo(self, annotator: Annotator) -> dict[str, Any]:
        """Takes the last judgment back; the comparison it was about comes again, in the same order."""
        undone = judgments.undo(self.store, annotator.id)
        return {"says": "Undone" if undone else "Nothing to undo", "next": self.next_for(annotator)}

    def _save(self, annotator: Annotator, presentation_id: int, choice: str, reason: str | None) -> None:
        if choice == "skip":
            judgments.save(self.store, presentation_id, annotator.id, verdict="skip", skip_reason=reason)
            return
        judgments.save(
            self.store,
            presentation_id,
            annotator.id,
            verdict="rank",
            tiers=self._tiers(presentation_id, choice),
            all_bad=choice == "both_bad",
        )

    def _tiers(self, presentation_id: int, choice: str) -> Tiers:
        """The completions in the order meant: the browser knows slots only."""
        if (shown := presentations.get(self.store, presentation_id)) is None:
            raise judgments.BadJudgment(f"There is no presentation {presentation_id}: reload the page.")
        if choice not in SLOT_TIERS:
            raise judgments.BadJudgment(f"Unknown choice {choice!r}: reload the page.")
        return tuple(tuple(shown.order[slot] for slot in tier) for tier in SLOT_TIERS[choice])

    def _why_dry(self) -> str:
        try:
            status = self.client.status()
        except PolicyServerDown as error:
            return presenters.server_down_note(error)
        return presenters.waiting_note(
            ready=status.ready,
            filling=status.filling,
            seconds_per_comparison=status.seconds_per_comparison,
            note=status.note,
        )
