"""The app: tabs and wiring only. What a page does is in the file of its name."""

from __future__ import annotations

import gradio as gr

from feedback_ui import compare
from feedback_ui.data import DataPage
from feedback_ui.demo import DemoPage
from feedback_ui.theme import html, launch_options
from feedback_ui.training import TrainingPage
from rlhf.client import PolicyClient
from rlhf.config import RoundConfig
from rlhf.jobs import Jobs
from storage import annotators
from storage.database import Database
from storage.records import Annotator

__all__ = ["build_app", "launch_options"]

LOCAL_ANNOTATOR = "local"


def build_app(store: Database, jobs: Jobs, client: PolicyClient, *, default_config: RoundConfig) -> gr.Blocks:
    """Every page over one store. Launch or mount it with `**launch_options()`."""

    def annotator_of(request: gr.Request | None) -> Annotator:
        return annotators.ensure(store, LOCAL_ANNOTATOR)

    with gr.Blocks(title="rankloop", analytics_enabled=False) as app:
        html("<h1>rankloop</h1>", elem_id="title")
        with gr.Tabs(elem_id="pages"):
            with gr.Tab("Compare", id="compare"):
                compare.build(store, client, annotator_of=annotator_of)
            with gr.Tab("Training", id="training") as training_tab:
                training = TrainingPage(store, jobs, default_config=default_config)
            with gr.Tab("Demo", id="demo") as demo_tab:
                demo = DemoPage(store, client)
            with gr.Tab("Data", id="data") as data_tab:
                data = DataPage(store)
        training.wire(training_tab)
        demo.wire(demo_tab)
        data.wire(data_tab)
    return app
