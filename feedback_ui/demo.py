"""The Demo page: one prompt, answered by the base model and by a tuned version side by side as they write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from feedback_ui import presenters
from feedback_ui.theme import QUIET
from rlhf.client import PolicyClient, PolicyServerDown
from storage import policies
from storage.database import Database

EXAMPLES = (
    "I always feel nervous before giving a talk at work. What should I do?",
    "Explain in two sentences why bread dough rises.",
    "Write a kind reply to a neighbour whose dog barks at night.",
)
PAINT_S = 0.08
"""Least time between two repaints of a pane; text that comes faster is shown together."""
NO_TUNED = "No tuned version exists yet. Train one on the Training page; until then only the base model answers."
NO_BASE = "The policy server has no base model yet. It may still be loading: reload this page in a moment."


class DemoPage:
    def __init__(self, store: Database, client: PolicyClient):
        self.store = store
        self.client = client
        self.notice = gr.HTML(elem_id="demo-notice")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self.prompt = gr.Textbox(
                    label="Prompt", lines=3, max_lines=12, elem_id="demo-prompt", placeholder="Ask the model something"
                )
                gr.Examples([[text] for text in EXAMPLES], self.prompt, label="Examples", elem_id="demo-examples")
            with gr.Column(scale=2, min_width=260):
                self.version = gr.Dropdown([], label="Tuned version", elem_id="demo-version")
                self.temperature = gr.Slider(0, 1.5, 0.7, step=0.1, label="Temperature", elem_id="demo-temperature")
                self.max_tokens = gr.Slider(16, 256, 96, step=16, label="Longest answer, in tokens", elem_id="demo-tokens")
        with gr.Row():
            self.ask = gr.Button("Answer", variant="primary", elem_id="demo-ask", scale=2)
            self.stop = gr.Button("Stop", elem_id="demo-stop", interactive=False, scale=1)
        self.base = gr.State(None)
        with gr.Row(equal_height=True):
            with gr.Column(min_width=300, elem_classes="rl-pane"):
                self.base_title = gr.HTML("<h3>Base</h3>")
                self.base_answer = gr.HTML(elem_id="demo-base", min_height=160)
            with gr.Column(min_width=300, elem_classes="rl-pane"):
                self.tuned_title = gr.HTML("<h3>Tuned</h3>")
                self.tuned_answer = gr.HTML(elem_id="demo-tuned", min_height=160)

    def wire(self, app: gr.Blocks, tab: gr.Tab) -> None:
        gr.on(
            [app.load, tab.select],
            self.refresh,
            inputs=self.version,
            outputs=[self.notice, self.version, self.base, self.ask],
            **QUIET,
        )
        asked = [self.ask.click, self.prompt.submit]
        sampling = [self.prompt, self.temperature, self.max_tokens]
        gr.on(asked, self.begin, outputs=[self.stop, self.ask], **QUIET)
        streams = [
            gr.on(
                asked,
                self.stream,
                inputs=[model, *sampling],
                outputs=pane,
                show_progress="hidden",
                api_visibility="private",
                concurrency_limit=8,
            )
            for model, pane in ((self.base, self.base_answer), (self.version, self.tuned_answer))
        ]
        for stream in streams:
            stream.then(self.end, outputs=[self.stop, self.ask], **QUIET)
        self.stop.click(self.end, outputs=[self.stop, self.ask], cancels=streams, **QUIET)

    def refresh(self, chosen: str | None) -> dict[Any, Any]:
        """Which models can answer now. A choice that is still served is kept."""
        try:
            base, tuned = presenters.served_versions(self.client.models(), policies.all_versions(self.store))
        except PolicyServerDown as error:
            return {self.notice: presenters.notice(f"The policy server does not answer. {error}", "bad"), self.ask: off()}
        said = NO_BASE if base is None else "" if tuned else NO_TUNED
        value = chosen if chosen in tuned else tuned[0] if tuned else None
        return {
            self.notice: presenters.notice(said),
            self.base: base,
            self.version: gr.Dropdown(tuned, value=value, interactive=bool(tuned)),
            self.ask: gr.Button(interactive=base is not None),
        }

    def begin(self) -> dict[Any, Any]:
        return {self.stop: gr.Button(interactive=True), self.ask: off()}

    def end(self) -> dict[Any, Any]:
        return {self.stop: off(), self.ask: gr.Button(interactive=True)}

    def stream(self, model: str | None, prompt: str, temperature: float, max_tokens: int) -> Iterator[str]:
        """One pane, repainted while its model writes."""
        if not prompt.strip() or model is None:
            yield ""
            return
        yield presenters.answer("", writing=True)
        text, painted = "", 0.0
        try:
            deltas = self.client.stream(
                model, [{"role": "user", "content": prompt}], temperature=temperature, max_tokens=int(max_tokens)
            )
            with closing(deltas):
                for delta in deltas:
                    text += delta
                    if (at := time.monotonic()) - painted > PAINT_S:
                        painted = at
                        yield presenters.answer(text, writing=True)
        except PolicyServerDown as error:
            yield (presenters.answer(text) if text else "") + presenters.notice(str(error), "bad")
            return
        yield presenters.answer(text)


def off() -> gr.Button:
    return gr.Button(interactive=False)
