"""The Demo page: one prompt, answered by the base model and by a tuned version side by side as they write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import gradio as gr
from gradio.components import Component

from feedback_ui import presenters
from feedback_ui.gate import Gate
from feedback_ui.theme import QUIET, heading, html, label, quiet
from feedback_ui.words import words_of
from rlhf.client import PolicyClient, PolicyServerDown
from storage import policies
from storage.database import Database

EXAMPLES = (
    "I always feel nervous before giving a talk at work. What should I do?",
    "Explain in two sentences why bread dough rises.",
    "Write a kind reply to a neighbour whose dog barks at night.",
)
PAINT_S = 0.08
"""Least time between two repaints; text that comes faster is shown together."""


class DemoPage:
    def __init__(self, store: Database, client: PolicyClient):
        self.store = store
        self.client = client
        self.gate = Gate(store)
        self.base = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self.prompt = gr.Textbox(
                    label=label("demo.prompt"), lines=3, max_lines=12, elem_id="demo-prompt", placeholder=label("demo.ask_something")
                )
                gr.Examples([[text] for text in EXAMPLES], self.prompt, label=label("demo.examples"), elem_id="demo-examples")
            with gr.Column(scale=2, min_width=260):
                self.version = gr.Dropdown([], label=label("demo.version"), elem_id="demo-version")
                self.temperature = gr.Slider(
                    0, 1.5, 0.7, step=0.1, label=label("demo.temperature"), elem_id="demo-temperature", buttons=[]
                )
                self.max_tokens = gr.Slider(
                    16, 256, 96, step=16, label=label("demo.longest"), elem_id="demo-tokens", buttons=[]
                )
        with gr.Row(elem_id="demo-bar"):
            self.ask = gr.Button(label("demo.answer"), variant="primary", elem_id="demo-ask", min_width=140, scale=0)
            self.stop = gr.Button(label("demo.stop"), elem_id="demo-stop", interactive=False, min_width=100, scale=0)
            # Beside the buttons, where nothing moves when it comes.
            self.notice = html(elem_id="demo-notice", elem_classes="rl-optional", min_width=260)
        with gr.Row(equal_height=True):
            with gr.Column(min_width=300, elem_classes="rl-pane"):
                html(heading("demo.base"))
                self.base_pane = html(quiet("demo.no_base_answer_yet"), elem_id="demo-base")
            with gr.Column(min_width=300, elem_classes="rl-pane"):
                html(heading("demo.tuned"))
                self.tuned_pane = html(quiet("demo.no_tuned_answer_yet"), elem_id="demo-tuned")

    def wire(self, tab: gr.Tab) -> None:
        buttons = [self.stop, self.ask]
        tab.select(self.refresh, self.version, [self.notice, self.version, self.base, self.ask], **QUIET)
        asked = gr.on([self.ask.click, self.prompt.submit], self.begin, outputs=buttons, **QUIET)
        # One event for both panes: the browser runs the events of one click one after another.
        answering = asked.then(
            self.answer,
            [self.base, self.version, self.prompt, self.temperature, self.max_tokens],
            [self.base_pane, self.tuned_pane],
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=8,
        )
        answering.then(self.end, outputs=buttons, **QUIET)
        self.stop.click(self.end, outputs=buttons, cancels=answering, **QUIET)

    def refresh(self, chosen: str | None, request: gr.Request) -> dict[Component, Any]:
        """Which models can answer now. A choice that is still served is kept."""
        self.gate.reads(request, "annotator")
        words = words_of(request)
        try:
            base, tuned = presenters.served_versions(self.client.models(), policies.all_versions(self.store))
        except PolicyServerDown as error:
            return {self.notice: presenters.server_down(words, error), self.ask: off()}
        return {
            self.notice: presenters.notice(presenters.missing_versions(words, base, tuned)),
            self.base: base,
            self.version: gr.Dropdown(
                tuned, value=chosen if chosen in tuned else next(iter(tuned), None), interactive=bool(tuned)
            ),
            self.ask: gr.Button(interactive=base is not None),
        }

    def begin(self, request: gr.Request) -> dict[Component, Any]:
        self.gate.reads(request, "annotator")
        return {self.stop: gr.Button(interactive=True), self.ask: off()}

    def end(self, request: gr.Request) -> dict[Component, Any]:
        self.gate.reads(request, "annotator")
        return {self.stop: off(), self.ask: gr.Button(interactive=True)}

    def answer(
        self, base: str | None, tuned: str | None, prompt: str, temperature: float, max_tokens: float, request: gr.Request
    ) -> Iterator[dict[Component, str]]:
        """Both panes, repainted while the models write."""
        self.gate.reads(request, "annotator")
        words = words_of(request)
        models = {pane: model for pane, model in ((self.base_pane, base), (self.tuned_pane, tuned)) if model}
        if not prompt.strip() or not models:
            return
        yield {pane: presenters.answer(words, "", writing=True) for pane in models}
        conversation = [{"role": "user", "content": prompt}]
        streams = {
            pane: self.client.stream(model, conversation, temperature=temperature, max_tokens=int(max_tokens))
            for pane, model in models.items()
        }
        texts, painted = dict.fromkeys(models, ""), 0.0
        for pane, said in merged(streams):
            if isinstance(said, PolicyServerDown):
                yield {pane: presenters.answer_cut_short(words, texts.pop(pane), said)}
            elif said is None:
                yield {pane: presenters.answer(words, texts.pop(pane))}
            else:
                texts[pane] += said
                if (at := time.monotonic()) - painted > PAINT_S:
                    painted = at
                    yield {pane: presenters.answer(words, text, writing=True) for pane, text in texts.items()}


def merged(streams: Mapping[Any, Iterator[str]]) -> Iterator[tuple[Any, str | PolicyServerDown | None]]:
    """What several streams say, as it comes: each one's deltas, then None, or the error that ended it.

    Closing this closes them: a model that nobody listens to stops writing at its next word.
    """
    inbox: SimpleQueue[tuple[Any, str | PolicyServerDown | None]] = SimpleQueue()
    stopped = Event()

    def pump(name: Any, deltas: Iterator[str]) -> None:
        end: PolicyServerDown | None = None
        try:
            with closing(deltas):
                for delta in deltas:
                    if stopped.is_set():
                        return
                    inbox.put((name, delta))
        except PolicyServerDown as error:
            end = error
        finally:
            inbox.put((name, end))

    for item in streams.items():
        Thread(target=pump, args=item, name=f"rl-demo-{item[0]}", daemon=True).start()
    try:
        left = len(streams)
        while left:
            name, said = inbox.get()
            left -= not isinstance(said, str)
            yield name, said
    finally:
        stopped.set()


def off() -> gr.Button:
    return gr.Button(interactive=False)
