"""The Demo page: streams the base model's and a tuned version's completions of one prompt side by side.

No thread of the web server is blocked while a model generates, because annotators' requests need those threads.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

import gradio as gr
from anyio import to_thread
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import translator_for
from feedback_ui.shared.theme import QUIET, heading, html, label, quiet
from rlhf.serving.client import PolicyClient, PolicyServerBusy, PolicyServerDown
from rlhf.serving.limits import MAX_DEMO_CHARS
from storage.content import policies
from storage.core.database import Database
from storage.core.records import Message

EXAMPLES = (
    "I always feel nervous before giving a talk at work. What should I do?",
    "Explain in two sentences why bread dough rises.",
    "Write a kind reply to a neighbour whose dog barks at night.",
)
PAINT_S = 0.08
"""Minimum time between two repaints, in seconds; text that arrives faster is shown together."""
MAX_CONCURRENT = 8
"""Maximum number of prompts answered at the same time, for all visitors together."""
MAX_PER_VISITOR = 2
"""Maximum number of prompts answered at the same time for one visitor."""

StreamEvent = str | PolicyServerDown | None
"""A piece of a stream's text, or its end: None, or the error that ended it."""


class DemoPage:
    def __init__(self, store: Database, client: PolicyClient, auth: Auth):
        self.store = store
        self.client = client
        self.auth = auth
        self.admission = PromptAdmission()
        self.base = gr.State(None)
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
                self.version = gr.Dropdown([], label=label("demo.version"), elem_id="demo-version")
                self.temperature = gr.Slider(0, 1.5, 0.7, step=0.1, label=label("demo.temperature"), elem_id="demo-temperature", buttons=[])
                self.max_tokens = gr.Slider(16, 256, 96, step=16, label=label("demo.longest"), elem_id="demo-tokens", buttons=[])
        with gr.Row(elem_id="demo-bar"):
            self.ask = gr.Button(label("demo.answer"), variant="primary", elem_id="demo-ask", min_width=140, scale=0)
            self.stop = gr.Button(label("demo.stop"), elem_id="demo-stop", interactive=False, min_width=100, scale=0)
            # Beside the buttons, so that nothing moves when it appears.
            self.notice = html(elem_id="demo-notice", elem_classes="rl-optional", min_width=260)
        with gr.Row(equal_height=True):
            with gr.Column(min_width=300, elem_classes="rl-panel"):
                html(heading("demo.base"))
                self.base_pane = html(quiet("demo.no_base_answer_yet"), elem_id="demo-base")
            with gr.Column(min_width=300, elem_classes="rl-panel"):
                html(heading("demo.tuned"))
                self.tuned_pane = html(quiet("demo.no_tuned_answer_yet"), elem_id="demo-tuned")

    def wire(self, tab: gr.Tab) -> None:
        buttons = [self.stop, self.ask]
        tab.select(self.refresh, self.version, [self.notice, self.version, self.base, self.ask], **QUIET)
        asked = gr.on([self.ask.click, self.prompt.submit], self.begin, outputs=buttons, **QUIET)
        # One event for both panes, because the browser runs the events of one click one after another.
        answering = asked.then(
            self.answer,
            [self.base, self.version, self.prompt, self.temperature, self.max_tokens],
            [self.base_pane, self.tuned_pane, self.notice],
            show_progress="hidden",
            api_visibility="private",
            # `PromptAdmission` refuses prompts over its limits, so that none wait in Gradio's queue.
            concurrency_limit=None,
        )
        answering.then(self.end, outputs=buttons, **QUIET)
        self.stop.click(self.end, outputs=buttons, cancels=answering, **QUIET)

    def refresh(self, chosen: str | None, request: gr.Request) -> dict[Component, Any]:
        """Updates the list of models that can answer now; the chosen version stays if it is still served."""
        self.auth.reads(request, "annotator")
        translate = translator_for(request)
        try:
            base, tuned = presenters.served_versions(self.client.models(), policies.all_versions(self.store))
        except PolicyServerDown as error:
            return {self.notice: presenters.server_down(translate, error), self.ask: off()}
        return {
            self.notice: presenters.notice(presenters.missing_versions(translate, base, tuned)),
            self.base: base,
            self.version: gr.Dropdown(tuned, value=chosen if chosen in tuned else next(iter(tuned), None), interactive=bool(tuned)),
            self.ask: gr.Button(interactive=base is not None),
        }

    def begin(self, request: gr.Request) -> dict[Component, Any]:
        self.auth.reads(request, "annotator")
        return {self.stop: gr.Button(interactive=True), self.ask: off()}

    def end(self, request: gr.Request) -> dict[Component, Any]:
        self.auth.reads(request, "annotator")
        return {self.stop: off(), self.ask: gr.Button(interactive=True)}

    async def answer(
        self, base: str | None, tuned: str | None, prompt: str, temperature: float, max_tokens: float, request: gr.Request
    ) -> AsyncIterator[dict[Component, Markup]]:
        """Generates both completions and repaints the panes while they arrive."""
        visitor = await to_thread.run_sync(self.auth.reads, request, "annotator")
        translate = translator_for(request)
        models = {pane: model for pane, model in ((self.base_pane, base), (self.tuned_pane, tuned)) if model}
        if not prompt.strip() or not models:
            return
        if len(prompt) > MAX_DEMO_CHARS:
            yield {self.notice: presenters.notice(translate("demo.too_long", found=len(prompt), limit=MAX_DEMO_CHARS), "warn")}
            return
        with self.admission.admit(visitor.annotator.id) as admitted:
            if not admitted:
                yield {self.notice: presenters.notice(translate("demo.too_many", each=MAX_PER_VISITOR, all=MAX_CONCURRENT), "warn")}
                return
            yield {self.notice: EMPTY, **{pane: presenters.answer(translate, "", writing=True) for pane in models}}
            conversation: list[Message] = [{"role": "user", "content": prompt}]
            streams = {
                pane: self.client.stream(model, conversation, temperature=temperature, max_tokens=int(max_tokens))
                for pane, model in models.items()
            }
            texts, painted = dict.fromkeys(models, ""), 0.0
            async with aclosing(merge_streams(streams)) as pieces:
                async for pane, piece in pieces:
                    if isinstance(piece, PolicyServerBusy):
                        texts.pop(pane)
                        yield {pane: presenters.notice(translate("demo.busy"), "warn")}
                    elif isinstance(piece, PolicyServerDown):
                        yield {pane: presenters.answer_cut_short(translate, texts.pop(pane), piece)}
                    elif piece is None:
                        yield {pane: presenters.answer(translate, texts.pop(pane))}
                    else:
                        texts[pane] += piece
                        if (at := time.monotonic()) - painted > PAINT_S:
                            painted = at
                            yield {pane: presenters.answer(translate, text, writing=True) for pane, text in texts.items()}


class PromptAdmission:
    """Limits the prompts that are answered at the same time, per visitor and in total. Use it only in the event loop."""

    def __init__(self) -> None:
        self._now: Counter[int] = Counter()

    @contextmanager
    def admit(self, visitor: int) -> Iterator[bool]:
        """Whether one more prompt may be answered; if so, it counts until the end of the block."""
        if self._now[visitor] >= MAX_PER_VISITOR or self._now.total() >= MAX_CONCURRENT:
            yield False
            return
        self._now[visitor] += 1
        try:
            yield True
        finally:
            self._now[visitor] -= 1
            self._now += Counter()


async def merge_streams(
    streams: Mapping[Any, AsyncGenerator[str, None]],
) -> AsyncGenerator[tuple[Any, StreamEvent], None]:
    """Merges several streams of text: yields each stream's deltas as they arrive, then None or the error that ended it.

    Closing the merged stream closes all of them, even while they wait, so that the models stop generating.
    """
    inbox: asyncio.Queue[tuple[Any, StreamEvent]] = asyncio.Queue()

    async def pump(name: Any, deltas: AsyncGenerator[str, None]) -> None:
        end: PolicyServerDown | None = None
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    inbox.put_nowait((name, delta))
        except PolicyServerDown as error:
            end = error
        finally:
            inbox.put_nowait((name, end))

    pumps = [asyncio.create_task(pump(*item)) for item in streams.items()]
    try:
        left = len(streams)
        while left:
            name, piece = await inbox.get()
            left -= not isinstance(piece, str)
            yield name, piece
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


def off() -> gr.Button:
    return gr.Button(interactive=False)
