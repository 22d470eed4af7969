"""The Comparisons section: batches of comparisons that the policy server generates on request."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from feedback_ui.lead import batches_view
from feedback_ui.lead.section import SectionContext, chosen, listing, names, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from rlhf.serving.client import PolicyServerDown
from storage.content import batches, policies
from storage.content.comparisons import FEWEST, MOST
from storage.core.database import StoreError
from storage.core.records import PolicyVersion, Sampling

POLL_S = 3


class BatchesSection:
    def __init__(self, context: SectionContext):
        self.store, self.client, self.auth = context.store, context.client, context.auth
        with gr.Column(elem_classes="rl-action-form rl-panel") as self.asking:
            html(static_text("lead.batches.ask_title"), elem_classes="rl-subheading")
            self.who = gr.CheckboxGroup([], label=label("lead.batches.who_answers"), elem_id="batch-policies")
            with gr.Row(equal_height=False):
                self.count = gr.Number(20, label=label("lead.batches.count"), precision=0, minimum=1, min_width=130, elem_id="batch-count")
                self.answers = gr.Number(
                    2, label=label("lead.batches.answers"), precision=0, minimum=FEWEST, maximum=MOST, min_width=130,
                    elem_id="batch-answers",
                )  # fmt: skip
                self.priority = gr.Dropdown(
                    list(batches_view.PRIORITIES), value="normal", label=label("lead.batches.priority_head"), filterable=False,
                    min_width=130, elem_id="batch-priority",
                )  # fmt: skip
            with gr.Accordion(label("lead.batches.sampling"), open=False, elem_id="batch-sampling"):
                with gr.Row(equal_height=False):
                    self.temperature = gr.Number(
                        0.7, label=label("lead.batches.temperature"), info=label("lead.batches.temperature_help"), step=0.1,
                        min_width=150, elem_id="batch-temperature",
                    )  # fmt: skip
                    self.top_p = gr.Number(
                        1.0, label="Top-p", info=label("lead.batches.top_p_help"), step=0.05, min_width=150, elem_id="batch-top-p"
                    )
                    self.top_k = gr.Number(
                        0, label="Top-k", info=label("lead.batches.top_k_help"), precision=0, min_width=150, elem_id="batch-top-k"
                    )
                    self.longest = gr.Number(
                        96, label=label("lead.batches.longest"), info=label("lead.batches.longest_help"), precision=0, min_width=150,
                        elem_id="batch-longest",
                    )  # fmt: skip
            self.ask_button = gr.Button(label("lead.batches.ask"), variant="primary", elem_id="batch-ask", scale=0, min_width=160)
        self.message = html(elem_id="batches-message", elem_classes="rl-optional")
        self.list = listing(elem_id="batches-list")
        self.timer = gr.Timer(POLL_S, active=False)
        self.numbers = {
            "count": self.count, "answers": self.answers, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k,
            "longest": self.longest,
        }  # fmt: skip
        self.shown = [self.asking, self.who, self.priority, self.message, self.list, self.timer]

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        self.ask_button.click(self.ask, {self.who, self.priority, *self.numbers.values()}, [self.message, self.list, self.timer], **QUIET)
        self.list.click(self.cancel, None, [self.message, self.list, self.timer], **QUIET)
        self.timer.tick(self.follow, self.list, [self.list, self.timer], **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        acts = visitor.may_act("lead")
        able = self._available()
        return {
            self.asking: gr.Column(visible=acts),
            self.who: gr.CheckboxGroup([(v.name, v.id) for v in able]),
            self.priority: gr.Dropdown([(translate(f"lead.batches.priority.{name}"), name) for name in batches_view.PRIORITIES]),
            self.message: EMPTY if able else presenters.notice(translate("lead.batches.no_versions"), "warn"),
            **self._list(translate, acts=acts),
        }

    def ask(self, values: dict[Component, Any], request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        numbers = {name: values[field] for name, field in self.numbers.items()}
        if empty := next((name for name, value in numbers.items() if value is None), None):
            return {self.message: presenters.notice(translate("lead.batches.empty", title=translate(f"lead.batches.{empty}")), "bad")}
        priority = values[self.priority] or "normal"
        sampling = Sampling(float(numbers["temperature"]), float(numbers["top_p"]), int(numbers["top_k"]), int(numbers["longest"]))
        try:
            batch = batches.request(
                self.store, values[self.who] or [], completions=int(numbers["answers"]), sampling=sampling, count=int(numbers["count"]),
                priority=batches_view.PRIORITIES[priority], by=visitor.annotator.id,
            )  # fmt: skip
        except StoreError as error:
            return {self.message: refusal(error)}
        asked = presenters.notice(translate(f"lead.batches.asked.{priority}", number=batch.id))
        return {self.message: asked, **self._list(translate, acts=True)}

    def cancel(self, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            _, batch_id = chosen(event)
            batches.cancel(self.store, batch_id, visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        return {
            self.message: presenters.notice(translate("lead.batches.was_cancelled", number=batch_id)),
            **self._list(translate, acts=True),
        }

    def follow(self, shown: str, request: gr.Request) -> dict[Component, Any]:
        """Handles the timer's tick; an unchanged list is not sent again."""
        visitor = self.auth.reads(request, "lead")
        update = self._list(translator_for(request), acts=visitor.may_act("lead"))
        if update[self.list] == shown:
            del update[self.list]
        return update

    def _available(self) -> list[PolicyVersion]:
        """The versions that could write answers: those of an outside model only while the policy server collects from it."""
        try:
            collectors = self.client.status().collectors
        except PolicyServerDown:
            collectors = []
        return [v for v in policies.all_versions(self.store) if v.kind != "external" or v.name in collectors]

    def _list(self, translate: Translator, *, acts: bool) -> dict[Component, Any]:
        every = batches.all_batches(self.store)
        unfinished = any(b.generated < b.requested and b.cancelled_at is None for b in every)
        notes, seconds, down = {}, None, EMPTY
        if unfinished:
            try:
                status = self.client.status()
                notes, seconds = status.batch_notes, status.seconds_per_comparison
            except PolicyServerDown as error:
                down = presenters.notice(translate("lead.batches.server_down", error=presenters.sentence(error)), "warn")
        known = {version.id: version for version in policies.all_versions(self.store)}
        listed = batches_view.batch_list(translate, every, known, names(self.store), notes=notes, seconds_per_comparison=seconds, acts=acts)
        return {self.list: down + listed, self.timer: gr.Timer(active=unfinished)}
