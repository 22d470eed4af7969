"""The Comparisons section: batches of comparisons that the policy server generates on request."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.lead import batches_view, lead_view
from feedback_ui.lead.prompt_filter import PromptFilterFields
from feedback_ui.lead.section import SectionContext, chosen, listing, names, refusal
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from rlhf.serving import batch_plan
from rlhf.serving.client import PolicyServerDown
from storage.content import batches, policies, prompt_list
from storage.content.comparisons import MAX_COMPLETIONS, MIN_COMPLETIONS
from storage.core.database import StoreError
from storage.core.records import PolicyVersion, Sampling
from storage.judging import assignments
from storage.people import accounts
from storage.project import settings
from storage.project.settings import MAX_OVERLAP

POLL_S = 3


class BatchesSection:
    def __init__(self, context: SectionContext):
        self.store, self.client, self.auth = context.store, context.client, context.auth
        with gr.Column(elem_classes="rl-action-form rl-panel") as self.asking:
            html(static_text("lead.batches.ask_title"), elem_classes="rl-subheading")
            with gr.Row(equal_height=False):
                self.prompts = PromptFilterFields("batch")
            self.who = gr.CheckboxGroup([], label=label("lead.batches.who_answers"), elem_id="batch-policies")
            with gr.Row(equal_height=False):
                self.count = gr.Number(20, label=label("lead.batches.count"), precision=0, minimum=1, min_width=130, elem_id="batch-count")
                self.answers = gr.Number(
                    2, label=label("lead.batches.answers"), precision=0, minimum=MIN_COMPLETIONS, maximum=MAX_COMPLETIONS, min_width=130,
                    elem_id="batch-answers",
                )  # fmt: skip
                self.wanted = gr.Number(
                    1, label=label("lead.batches.wanted"), precision=0, minimum=1, maximum=MAX_OVERLAP, min_width=130,
                    elem_id="batch-wanted",
                )  # fmt: skip
                self.priority = gr.Dropdown(
                    list(batches_view.PRIORITIES), value="normal", label=label("lead.batches.priority_head"), filterable=False,
                    min_width=130, elem_id="batch-priority",
                )  # fmt: skip
            self.annotators = gr.Dropdown(
                [], multiselect=True, label=label("lead.batches.who_judges"), info=label("lead.batches.who_judges_help"),
                elem_id="batch-annotators",
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
                        768, label=label("lead.batches.longest"), info=label("lead.batches.longest_help"), precision=0, min_width=150,
                        elem_id="batch-longest",
                    )  # fmt: skip
            self.outlook = html(elem_id="batch-outlook", elem_classes="rl-min-height")
            self.ask_button = gr.Button(label("lead.batches.ask"), variant="primary", elem_id="batch-ask", scale=0, min_width=160)
        self.message = html(elem_id="batches-message", elem_classes="rl-optional")
        self.assigned = gr.State(None)
        with gr.Column(visible=False, elem_classes="rl-action-form rl-panel", elem_id="batch-assign") as self.assigning:
            self.which = html(elem_id="batch-assign-which")
            self.judges = gr.Dropdown(
                [], multiselect=True, label=label("lead.batches.who_judges"), info=label("lead.batches.who_judges_help"),
                elem_id="batch-judges",
            )  # fmt: skip
            self.assign_button = gr.Button(
                label("lead.batches.assign_save"), variant="primary", elem_id="batch-assign-save", scale=0, min_width=160
            )
        self.list = listing(elem_id="batches-list")
        self.timer = gr.Timer(POLL_S, active=False)
        self.numbers = {
            "count": self.count, "answers": self.answers, "wanted": self.wanted, "temperature": self.temperature, "top_p": self.top_p,
            "top_k": self.top_k, "longest": self.longest,
        }  # fmt: skip
        self.assign_fields = [self.assigned, self.assigning, self.which, self.judges]
        self.shown = [
            self.asking, *self.prompts.fields, self.who, self.wanted, self.priority, self.annotators, self.outlook, self.message,
            *self.assign_fields, self.list, self.timer,
        ]  # fmt: skip

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        foreseen = {*self.prompts.fields, self.who, self.count, self.answers, self.wanted}
        chooses = [self.prompts.kind.input, self.prompts.import_id.input, self.prompts.split.input, self.prompts.text.change]
        gr.on(chooses, self.choose_prompts, {*foreseen}, [self.count, self.outlook], trigger_mode="always_last", **QUIET)
        sizes = [self.who.change, self.count.change, self.answers.change, self.wanted.change]
        gr.on(sizes, self.foresee, {*foreseen}, self.outlook, trigger_mode="always_last", **QUIET)
        asked: set[Block] = {*self.prompts.fields, self.who, self.priority, self.annotators, *self.numbers.values()}
        self.ask_button.click(self.ask, asked, [self.message, self.list, self.timer], **QUIET)
        self.list.click(self.act, None, [self.message, self.list, self.timer, *self.assign_fields], **QUIET)
        self.assign_button.click(
            self.assign, [self.assigned, self.judges], [self.message, self.list, self.timer, *self.assign_fields], **QUIET
        )
        self.timer.tick(self.follow, self.list, [self.list, self.timer], **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        acts = visitor.may_act("lead")
        able = self._available()
        judges = self._judges()
        return {
            self.asking: gr.Column(visible=acts),
            **self.prompts.open(self.store, translate),
            self.who: gr.CheckboxGroup([(v.name, v.id) for v in able]),
            self.wanted: settings.current(self.store).overlap,
            self.priority: gr.Dropdown([(translate(f"lead.batches.priority.{name}"), name) for name in batches_view.PRIORITIES]),
            self.annotators: gr.Dropdown(judges, value=[], multiselect=True, visible=bool(judges)),
            self.outlook: presenters.notice(translate("lead.batches.choose_who")),
            self.message: EMPTY if able else presenters.notice(translate("lead.batches.no_versions"), "warn"),
            **self._closed(),
            **self._list(translate, acts=acts),
        }

    def choose_prompts(self, values: dict[Component, Any], request: gr.Request) -> dict[Component, Any]:
        """Takes as many comparisons as prompts were chosen, and says what that would do."""
        self.auth.reads(request, "lead")
        there = len(prompt_list.ids_in_use(self.store, self.prompts.chosen(values)))
        count = min(there, batches.MAX_COMPARISONS) or values[self.count]
        return {self.count: count, self.outlook: self._outlook(translator_for(request), values | {self.count: count})}

    def foresee(self, values: dict[Component, Any], request: gr.Request) -> Markup:
        """Says what a request would do, before it does it."""
        self.auth.reads(request, "lead")
        return self._outlook(translator_for(request), values)

    def ask(self, values: dict[Component, Any], request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        numbers = {name: values[field] for name, field in self.numbers.items()}
        if empty := next((name for name, value in numbers.items() if value is None), None):
            return {self.message: presenters.notice(translate("lead.batches.empty", title=translate(f"lead.batches.{empty}")), "bad")}
        priority = values[self.priority] or "normal"
        sampling = Sampling(float(numbers["temperature"]), float(numbers["top_p"]), int(numbers["top_k"]), int(numbers["longest"]))
        prompts = self.prompts.chosen(values)
        if not prompt_list.ids_in_use(self.store, prompts):
            return {self.message: presenters.notice(translate("lead.batches.no_prompt_chosen"), "bad")}
        try:
            batch = batches.request(
                self.store, values[self.who] or [], completions=int(numbers["answers"]), sampling=sampling, count=int(numbers["count"]),
                priority=batches_view.PRIORITIES[priority], prompts=prompts, wanted=int(numbers["wanted"]),
                annotator_ids=values[self.annotators] or [], by=visitor.annotator.id,
            )  # fmt: skip
        except StoreError as error:
            return {self.message: refusal(error)}
        asked = presenters.notice(translate(f"lead.batches.asked.{priority}", number=batch.id))
        return {self.message: asked, **self._list(translate, acts=True)}

    def act(self, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        """Cancels a batch, or opens the form that says who gets it."""
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            act, batch_id = chosen(event)
            if act == "assign":
                return self._open_assignment(translate, batch_id)
            batches.cancel(self.store, batch_id, visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        return {
            self.message: presenters.notice(translate("lead.batches.was_cancelled", number=batch_id)),
            **self._list(translate, acts=True),
        }

    def assign(self, batch_id: int | None, annotator_ids: list[int], request: gr.Request) -> dict[Component, Any]:
        """Gives a batch to these annotators alone; to everybody if nobody is chosen."""
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            if batch_id is None:
                raise StoreError(translate("lead.batches.nothing_to_assign"))
            assignments.assign(self.store, batch_id, annotator_ids or [], visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        said = presenters.notice(translate("lead.batches.was_assigned", number=batch_id))
        return {self.message: said, **self._closed(), **self._list(translate, acts=True)}

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

    def _judges(self) -> list[tuple[str, int]]:
        """The annotators to whom a batch can be given: those with an account that may judge."""
        every = accounts.all_accounts(self.store)
        return [(account.name, account.annotator.id) for account in every if "annotator" in account.roles and not account.disabled]

    def _outlook(self, translate: Translator, values: dict[Component, Any]) -> Markup:
        numbers = [values[self.count], values[self.answers], values[self.wanted]]
        if not values[self.who] or not all(numbers):
            return presenters.notice(translate("lead.batches.choose_who"))
        count, answers, wanted = map(int, numbers)
        try:
            seconds = self.client.status().seconds_per_answer
        except PolicyServerDown:
            seconds = None
        versions = [version for version in policies.all_versions(self.store) if version.id in values[self.who]]
        found = batch_plan.outlook(self.store, versions, self.prompts.chosen(values), count)
        return batches_view.outlook(translate, found, count=count, answers=answers, wanted=wanted, seconds_per_answer=seconds)

    def _open_assignment(self, translate: Translator, batch_id: int) -> dict[Component, Any]:
        batch = batches.get(self.store, batch_id)
        known = dict(self._judges())
        # Somebody whose account has changed meanwhile still has the batch, until a lead takes it away.
        others = {names(self.store).get(i, f"#{i}"): i for i in batch.annotator_ids if i not in known.values()}
        return {
            self.assigned: batch.id,
            self.assigning: gr.Column(visible=True),
            self.which: lead_view.heading(translate("lead.batches.assign_title", number=batch.id)),
            self.judges: gr.Dropdown([*(known | others).items()], value=list(batch.annotator_ids), multiselect=True),
            self.message: EMPTY,
        }

    def _closed(self) -> dict[Component, Any]:
        return {self.assigned: None, self.assigning: gr.Column(visible=False)}

    def _list(self, translate: Translator, *, acts: bool) -> dict[Component, Any]:
        every = batches.all_batches(self.store)
        unfinished = any(b.generated < b.requested and b.cancelled_at is None for b in every)
        notes, seconds, down = {}, None, EMPTY
        if unfinished:
            try:
                status = self.client.status()
                notes, seconds = status.batch_notes, status.seconds_per_answer
            except PolicyServerDown as error:
                down = presenters.notice(translate("lead.batches.server_down", error=presenters.sentence(error)), "warn")
        known = {version.id: version for version in policies.all_versions(self.store)}
        listed = batches_view.batch_list(
            translate, every, known, names(self.store), notes=notes, seconds_per_answer=seconds, acts=acts, assigns=bool(self._judges())
        )
        return {self.list: down + listed, self.timer: gr.Timer(active=unfinished)}
