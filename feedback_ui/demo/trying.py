"""The Demo page's first section: several versions answer a conversation side by side, streamed together, openly or blind.

No thread of the web server is blocked while a model generates, because annotators' requests need those threads.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import gradio as gr
from anyio import to_thread
from gradio.blocks import Block

from feedback_ui.demo import demo_view
from feedback_ui.demo.conversation import Answer, Conversation, Refusal, Verdict, from_link, to_link
from feedback_ui.demo.streams import MAX_CONCURRENT, MAX_PER_VISITOR, PromptAdmission, StreamEvent, merge_streams
from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY, asset
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, html, label
from rlhf.serving.client import AnswerPiece, PolicyClient, PolicyServerBusy, PolicyServerDown
from rlhf.serving.limits import MAX_ANSWER_TOKENS, MAX_DEMO_CHARS, MAX_DEMO_VERSIONS
from storage.content import policies
from storage.core.database import Database, StoreError
from storage.core.records import Sampling
from storage.judging import demo_votes
from storage.judging.demo_votes import DemoAnswer

EXAMPLES = (
    "I always feel nervous before giving a talk at work. What should I do?",
    "Explain in two sentences why bread dough rises.",
    "Write a kind reply to a neighbour whose dog barks at night.",
)
PAINT_S = 0.2
"""Minimum time between two repaints, in seconds; text that arrives faster is shown together."""

TIERS: dict[Verdict, tuple[tuple[int, ...], ...]] = {"a": ((0,), (1,)), "b": ((1,), (0,)), "tie": ((0, 1),), "both_bad": ((0, 1),)}
"""The ranking that each verdict with a vote stands for, as places in the order shown."""

Update = dict[Block, Any]


class TryingSection:
    def __init__(self, store: Database, client: PolicyClient, auth: Auth):
        self.store = store
        self.client = client
        self.auth = auth
        self.admission = PromptAdmission()
        self.conversation = gr.State(Conversation())
        self.place = gr.Textbox(visible=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self.prompt = gr.Textbox(
                    label=label("demo.prompt"),
                    lines=3,
                    max_lines=12,
                    elem_id="demo-prompt",
                    placeholder=label("demo.ask_something"),
                    info=label("demo.limits"),
                    max_length=MAX_DEMO_CHARS,
                )
                gr.Examples([[text] for text in EXAMPLES], self.prompt, label=label("demo.examples"), elem_id="demo-examples")
            with gr.Column(scale=2, min_width=260):
                self.versions = gr.Dropdown(
                    [], multiselect=True, max_choices=MAX_DEMO_VERSIONS, label=label("demo.versions"), elem_id="demo-versions-chosen"
                )
                self.blind = gr.Checkbox(False, label=label("demo.blind"), info=label("demo.blind_info"), elem_id="demo-blind")
                self._sampling()
        with gr.Row(elem_id="demo-bar"):
            self.ask = gr.Button(label("demo.answer"), variant="primary", elem_id="demo-ask", min_width=140, scale=0)
            self.stop = gr.Button(label("demo.stop"), elem_id="demo-stop", interactive=False, min_width=100, scale=0)
            self.retry = gr.Button(label("demo.retry"), elem_id="demo-retry", interactive=False, min_width=100, scale=0)
            self.link = gr.Button(label("demo.link"), elem_id="demo-link", interactive=False, min_width=100, scale=0)
            self.begin_anew = gr.Button(label("demo.new"), elem_id="demo-new", interactive=False, min_width=190, scale=0)
            # Beside the buttons, so that nothing moves when it appears.
            self.notice = html(elem_id="demo-notice", elem_classes="rl-optional", min_width=260)
        self.address = gr.Textbox(visible=False, interactive=False, label=label("demo.link_made"), elem_id="demo-address", buttons=["copy"])
        # Earlier turns are not sent again while the last one is written.
        self.earlier = html(elem_id="demo-earlier", elem_classes="rl-optional", js_on_load=asset("copy_buttons.js"))
        self.current = html(elem_id="demo-current", js_on_load=asset("copy_buttons.js"))
        with gr.Row(visible=False, elem_id="demo-vote") as self.vote_bar:
            self.votes: dict[Verdict, gr.Button] = {
                verdict: gr.Button(label(f"demo.vote.{verdict}"), elem_id=f"demo-vote-{verdict.replace('_', '-')}", min_width=120)
                for verdict in ("a", "tie", "b", "both_bad")
            }
            self.reveal = gr.Button(label("demo.vote.none"), elem_id="demo-vote-none", min_width=160)

    def _sampling(self) -> None:
        self.temperature = gr.Slider(0, 1.5, 0.7, step=0.1, label=label("demo.temperature"), elem_id="demo-temperature", buttons=[])
        self.max_tokens = gr.Slider(16, MAX_ANSWER_TOKENS, 96, step=16, label=label("demo.longest"), elem_id="demo-tokens", buttons=[])
        with gr.Accordion(label("demo.more"), open=False, elem_id="demo-more"):
            self.top_p = gr.Slider(0.05, 1, 1, step=0.05, label=label("demo.top_p"), elem_id="demo-top-p", buttons=[])
            self.top_k = gr.Number(0, precision=0, minimum=0, label=label("demo.top_k"), elem_id="demo-top-k")
            self.seed = gr.Number(0, precision=0, minimum=0, label=label("demo.seed"), info=label("demo.seed_info"), elem_id="demo-seed")

    def wire(self, tab: gr.Tab) -> None:
        settled = [
            self.conversation, self.earlier, self.current, self.notice, self.stop, self.ask, self.retry, self.link, self.begin_anew,
            self.versions, self.blind, self.vote_bar, *self.votes.values(), self.address,
        ]  # fmt: skip
        # As few as possible: Gradio updates each of them with every piece of an answer.
        written = [self.conversation, self.earlier, self.current, self.notice]
        tab.select(
            self.open,
            [self.place, self.conversation, self.versions],
            [*settled, self.temperature, self.max_tokens, self.top_p, self.top_k, self.seed],
            js=in_browser("demoPlace"),
            **QUIET,
        )
        options: dict[str, Any] = {
            "show_progress": "hidden",
            "api_visibility": "private",
            # `PromptAdmission` refuses prompts over its limits, so that none wait in Gradio's queue.
            "concurrency_limit": None,
        }
        begun = [self.stop, self.ask, self.retry, self.link, self.begin_anew, self.vote_bar, self.address]
        asked = gr.on([self.ask.click, self.prompt.submit], self.begin, outputs=begun, **QUIET)
        # One event for all answers, because the browser runs the events of one click one after another.
        sampling = [self.temperature, self.max_tokens, self.top_p, self.top_k, self.seed]
        answering = asked.then(self.answer, [self.conversation, self.versions, self.blind, self.prompt, *sampling], written, **options)
        answering.then(self.end, self.conversation, settled, **QUIET)
        answering.then(self.clear_prompt, [self.conversation, self.prompt], self.prompt, **QUIET)
        retried = self.retry.click(self.begin, outputs=begun, **QUIET)
        retrying = retried.then(self.answer_again, self.conversation, written, **options)
        retrying.then(self.end, self.conversation, settled, **QUIET)
        retrying.then(self.show_seed, self.conversation, self.seed, **QUIET)
        self.stop.click(self.end, self.conversation, settled, cancels=[answering, retrying], **QUIET)
        self.begin_anew.click(self.reset, outputs=settled, **QUIET)
        judges = (self.prefer_a, self.call_a_tie, self.prefer_b, self.call_both_bad)
        for button, judge in zip(self.votes.values(), judges, strict=True):
            button.click(judge, self.conversation, settled, **QUIET)
        self.reveal.click(self.show_names, self.conversation, settled, **QUIET)
        made = self.link.click(self.make_link, self.conversation, [self.notice, self.address], **QUIET)
        made.then(None, self.address, self.address, js=in_browser("demoLinkMade"))

    # ---- opening

    def open(self, linked: str | None, conversation: Conversation, chosen: list[str] | None, request: gr.Request) -> Update:
        """Updates the list of versions that can answer now. A link fills the page, unless a conversation is going on."""
        visitor = self.auth.reads(request, "annotator")
        translate = translator_for(request)
        if conversation.turns:
            # It is on the page already, and may be on its way.
            return {self.versions: gr.Dropdown(interactive=False)}
        filled: Update = {}
        if linked:
            try:
                conversation = from_link(linked)
                filled = self._filled(conversation) | {self.notice: presenters.notice(translate("demo.from_link"))}
            except Refusal as refusal:
                filled = {self.notice: demo_view.refused(translate, refusal)}
        shown = self._settled(translate, conversation, votes=visitor.may_act("annotator"))
        if conversation.turns:
            names = list(conversation.versions)
            return shown | filled | {self.versions: gr.Dropdown(names, value=names, multiselect=True, interactive=False)}
        try:
            answering = demo_view.available(self.client.models(), policies.all_versions(self.store))
        except PolicyServerDown as error:
            return shown | {self.notice: presenters.server_down(translate, error), self.ask: off()}
        names = [version.name for version in answering]
        choice = demo_view.opening_choice(answering, chosen)
        shown |= {
            self.notice: demo_view.missing(translate, answering),
            self.versions: gr.Dropdown(names, value=choice, multiselect=True, interactive=bool(names)),
            self.ask: gr.Button(interactive=bool(names)),
        }
        return shown | filled

    def _filled(self, conversation: Conversation) -> Update:
        """The sampling parameters of a linked conversation, for the turns that come after it."""
        last = conversation.turns[-1]
        return {
            self.temperature: last.sampling.temperature,
            self.max_tokens: last.sampling.max_new_tokens,
            self.top_p: last.sampling.top_p,
            self.top_k: last.sampling.top_k,
            self.seed: last.seed,
        }

    # ---- answering

    def begin(self, request: gr.Request) -> Update:
        self.auth.reads(request, "annotator")
        others = {button: off() for button in (self.ask, self.retry, self.link, self.begin_anew)}
        return others | {
            self.stop: gr.Button(interactive=True),
            self.vote_bar: gr.Row(visible=False),
            self.address: gr.Textbox(visible=False),
        }

    async def answer(
        self,
        conversation: Conversation,
        versions: list[str] | None,
        blind: bool,
        prompt: str,
        temperature: float,
        max_tokens: float,
        top_p: float,
        top_k: float | None,
        seed: float | None,
        request: gr.Request,
    ) -> AsyncIterator[Update]:
        """Adds a turn, and writes all missing answers, of earlier turns first; they are repainted while they arrive."""
        visitor = await to_thread.run_sync(self.auth.reads, request, "annotator")
        translate = translator_for(request)
        sampling = Sampling(float(temperature), float(top_p), int(top_k or 0), int(max_tokens))
        try:
            asked = conversation.asked(versions or (), bool(blind), prompt or "", sampling, int(seed or 0))
        except Refusal as refusal:
            yield {self.notice: demo_view.refused(translate, refusal)}
            return
        async for update in self._write(translate, asked, visitor.annotator.id):
            yield update

    async def answer_again(self, conversation: Conversation, request: gr.Request) -> AsyncIterator[Update]:
        """Writes the answers of the last turn once more, with the next seed."""
        visitor = await to_thread.run_sync(self.auth.reads, request, "annotator")
        translate = translator_for(request)
        try:
            again = conversation.retried()
        except Refusal as refusal:
            yield {self.notice: demo_view.refused(translate, refusal)}
            return
        async for update in self._write(translate, again, visitor.annotator.id):
            yield update

    async def _write(self, translate: Translator, conversation: Conversation, visitor: int) -> AsyncIterator[Update]:
        unknown = await to_thread.run_sync(self._unknown, conversation)
        if unknown:
            yield {self.notice: presenters.notice(translate("demo.no_such_version", names=", ".join(unknown)), "warn")}
            return
        with self.admission.admit(visitor) as admitted:
            if not admitted:
                yield {self.notice: presenters.notice(translate("demo.too_many", each=MAX_PER_VISITOR, all=MAX_CONCURRENT), "warn")}
                return
            yield {self.notice: EMPTY, self.conversation: conversation}
            for number, turn in enumerate(conversation.turns):
                if not turn.pending:
                    continue
                yield {self.earlier: demo_view.earlier(translate, conversation, number)}
                async for written in self._turn(translate, conversation, number):
                    conversation = written
                    yield {self.conversation: written, self.current: demo_view.turn(translate, written, number, writing=True)}
                if conversation.turns[number].pending:
                    # The next prompt follows these answers.
                    return

    async def _turn(self, translate: Translator, conversation: Conversation, number: int) -> AsyncIterator[Conversation]:
        """The conversation as the missing answers of one turn arrive."""
        turn = conversation.turns[number]
        for place in turn.pending:
            turn = turn.with_answer(place, Answer())
        conversation, started, painted = conversation.with_turn(number, turn), time.monotonic(), 0.0
        yield conversation
        streams = {
            place: self.client.stream(conversation.name(number, place), conversation.messages(number, place), turn.sampling, seed=turn.seed)
            for place in turn.pending
        }
        async with aclosing(merge_streams(streams)) as pieces:
            async for place, piece in pieces:
                took = time.monotonic() - started
                written = turn.answers[place]
                answer = arrived(translate, written, piece, took, hidden=conversation.hidden)
                turn = turn.with_answer(place, answer)
                conversation = conversation.with_turn(number, turn)
                ended = answer.finish_reason != written.finish_reason or answer.problem != written.problem
                if ended or (at := time.monotonic()) - painted > PAINT_S:
                    painted = painted if ended else at
                    yield conversation

    def _unknown(self, conversation: Conversation) -> list[str]:
        """The names in a conversation that no version of this store has which could answer."""
        known = {version.name for version in policies.all_versions(self.store) if version.kind != "external"}
        return [name for name in conversation.versions if name not in known]

    def end(self, conversation: Conversation, request: gr.Request) -> Update:
        """After the last answer, and on Stop, which leaves the answers as they are."""
        visitor = self.auth.reads(request, "annotator")
        shown = self._settled(translator_for(request), conversation.stopped(), votes=visitor.may_act("annotator"))
        # A refusal of the prompt stays to be read.
        del shown[self.notice]
        return shown

    def clear_prompt(self, conversation: Conversation, prompt: str | None, request: gr.Request) -> str:
        """A prompt that became a turn leaves its box, so that the next one can be typed; one that was refused stays."""
        self.auth.reads(request, "annotator")
        return "" if conversation.turns and conversation.turns[-1].user == prompt else prompt or ""

    def show_seed(self, conversation: Conversation, request: gr.Request) -> int:
        """The seed of the last turn, from which the next try counts on."""
        self.auth.reads(request, "annotator")
        return conversation.turns[-1].seed if conversation.turns else 0

    def reset(self, request: gr.Request) -> Update:
        """A new conversation; the versions can be chosen again."""
        visitor = self.auth.reads(request, "annotator")
        return self._settled(translator_for(request), Conversation(), votes=visitor.may_act("annotator"))

    def _settled(self, translate: Translator, conversation: Conversation, *, votes: bool) -> Update:
        """The page while no answer is being written. `votes`: whether the visitor may judge."""
        last = len(conversation.turns) - 1
        begun = bool(conversation.turns)
        return {
            self.conversation: conversation,
            self.earlier: demo_view.earlier(translate, conversation, last) if begun else EMPTY,
            self.current: demo_view.turn(translate, conversation, last) if begun else demo_view.nothing_yet(translate),
            self.notice: EMPTY,
            self.stop: off(),
            self.ask: gr.Button(interactive=True),
            self.retry: gr.Button(interactive=begun),
            self.link: gr.Button(interactive=begun and not conversation.hidden),
            self.begin_anew: gr.Button(interactive=begun),
            self.versions: gr.Dropdown(interactive=not begun),
            self.blind: gr.Checkbox(interactive=not begun),
            self.vote_bar: gr.Row(visible=conversation.hidden and bool(conversation.turns[-1].answers)),
            **{button: gr.Button(visible=votes and conversation.votable) for button in self.votes.values()},
            self.address: gr.Textbox(visible=False),
        }

    # ---- voting

    def prefer_a(self, conversation: Conversation, request: gr.Request) -> Update:
        return self._vote(conversation, "a", request)

    def prefer_b(self, conversation: Conversation, request: gr.Request) -> Update:
        return self._vote(conversation, "b", request)

    def call_a_tie(self, conversation: Conversation, request: gr.Request) -> Update:
        return self._vote(conversation, "tie", request)

    def call_both_bad(self, conversation: Conversation, request: gr.Request) -> Update:
        return self._vote(conversation, "both_bad", request)

    def _vote(self, conversation: Conversation, verdict: Verdict, request: gr.Request) -> Update:
        """Saves the vote on a blind turn, and then shows the names."""
        visitor = self.auth.acts(request, "annotator")
        translate = translator_for(request)
        if not conversation.votable:
            return {self.notice: presenters.notice(translate("demo.nothing_to_vote_on"), "warn")}
        number = len(conversation.turns) - 1
        turn = conversation.turns[number]
        version_ids = {version.name: version.id for version in policies.all_versions(self.store)}
        answers = [
            DemoAnswer(version_ids[conversation.name(number, place)], a.text, turn.sampling, turn.seed, a.finish_reason, a.latency_s)
            for place, a in enumerate(turn.answers)
        ]
        try:
            demo_votes.add(
                self.store,
                visitor.annotator.id,
                conversation.messages(number, 0),
                answers,
                tiers=TIERS[verdict],
                all_bad=verdict == "both_bad",
            )
        except StoreError as error:
            return {self.notice: presenters.notice(presenters.sentence(error), "bad")}
        return self._revealed(translate, conversation.judged(verdict))

    def show_names(self, conversation: Conversation, request: gr.Request) -> Update:
        """Shows the names of a blind turn without a vote."""
        self.auth.reads(request, "annotator")
        translate = translator_for(request)
        if not conversation.hidden:
            return {self.notice: presenters.notice(translate("demo.nothing_to_vote_on"), "warn")}
        return self._revealed(translate, conversation.judged("none"))

    def _revealed(self, translate: Translator, conversation: Conversation) -> Update:
        return self._settled(translate, conversation, votes=True) | {self.notice: demo_view.voted(translate, conversation)}

    # ---- links

    def make_link(self, conversation: Conversation, request: gr.Request) -> Update:
        """The hash of an address that opens this conversation; the browser adds the rest."""
        self.auth.reads(request, "annotator")
        translate = translator_for(request)
        try:
            return {self.notice: EMPTY, self.address: gr.Textbox(f"#demo-{to_link(conversation)}", visible=True)}
        except Refusal as refusal:
            return {self.notice: demo_view.refused(translate, refusal), self.address: gr.Textbox("", visible=False)}


def arrived(translate: Translator, written: Answer, piece: StreamEvent, took_s: float, *, hidden: bool) -> Answer:
    """An answer with one more piece of its stream, or with what ended it. A hidden version is not named by an error."""
    if isinstance(piece, AnswerPiece):
        return replace(written, text=written.text + piece.text, finish_reason=piece.finish_reason or "", latency_s=took_s)
    if piece is None:
        # A server that does not say why an answer ended has ended it.
        return written if written.finish_reason else replace(written, finish_reason="stop", latency_s=took_s)
    if isinstance(piece, PolicyServerBusy):
        return replace(written, problem=translate("demo.busy"))
    error = translate("demo.broke_off") if hidden else translate("demo.server_down", error=presenters.sentence(piece))
    return replace(written, problem=error)


def off() -> gr.Button:
    return gr.Button(interactive=False)
