"""The rounds that wait for their turn, on the Training page: who asked for them, and the button that takes one out."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.blocks import Block

from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.listing import chosen, listing
from feedback_ui.shared.theme import QUIET, html, unchanged
from feedback_ui.training import queue_view
from storage.core.database import Database, StoreError
from storage.people import annotators
from storage.project import queued_rounds


class QueuePanel:
    def __init__(self, store: Database, auth: Auth):
        self.store, self.auth = store, auth
        self.message = html(elem_id="queue-message", elem_classes="rl-optional")
        self.list = listing(elem_id="round-queue", elem_classes="rl-optional")
        self.shown_state = gr.State(None)
        self.followed: list[Block] = [self.list, self.shown_state]

    def wire(self, tab: gr.Tab, timer: gr.Timer) -> None:
        tab.select(self.open, None, [self.message, *self.followed], **QUIET)
        timer.tick(self.follow, self.shown_state, self.followed, **QUIET)
        self.list.click(self.take_out, None, [self.message, *self.followed], **QUIET)

    def open(self, request: gr.Request) -> dict[Block, Any]:
        visitor = self.auth.reads(request, "researcher")
        return {self.message: EMPTY, **self.show(translator_for(request), acts=visitor.may_act("researcher"))}

    def follow(self, shown: tuple[int, ...] | None, request: gr.Request) -> dict[Block, Any]:
        """Handles the timer's tick; nothing is sent again while the queue is as it was."""
        visitor = self.auth.reads(request, "researcher")
        if shown == queued_rounds.revision(self.store):
            return unchanged()
        return self.show(translator_for(request), acts=visitor.may_act("researcher"))

    def take_out(self, event: gr.EventData, request: gr.Request) -> dict[Block, Any]:
        visitor = self.auth.acts(request, "researcher")
        message = EMPTY
        try:
            _, queued_id = chosen(event)
            queued_rounds.take_out(self.store, queued_id, visitor.annotator.id)
        except StoreError as error:
            message = presenters.notice(presenters.sentence(error), "bad")
        return {self.message: message, **self.show(translator_for(request), acts=True)}

    def show(self, translate: Translator, *, acts: bool) -> dict[Block, Any]:
        revision = queued_rounds.revision(self.store)
        waiting, not_started = queued_rounds.waiting(self.store), queued_rounds.not_started(self.store)
        names = {person.id: person.name for person in annotators.all_annotators(self.store)} if waiting or not_started else {}
        return {self.list: queue_view.section(translate, waiting, not_started, names, acts=acts), self.shown_state: revision}
