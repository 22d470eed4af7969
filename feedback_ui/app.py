"""The app: its tabs and their wiring. Each page's behaviour is in its own module."""

from __future__ import annotations

import gradio as gr

from feedback_ui.data import DataPage
from feedback_ui.demo import page as demo_page
from feedback_ui.judging import compare, history
from feedback_ui.lead import LeadPage
from feedback_ui.leaderboard.page import LeaderboardPage
from feedback_ui.server.auth import Auth
from feedback_ui.shared.html import tag
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import html, label, launch_options
from feedback_ui.training.page import TrainingPage
from feedback_ui.visitor import visitor_line
from rlhf.config import RoundConfig
from rlhf.runs.jobs import Jobs
from rlhf.serving.client import PolicyClient
from storage.core.database import Database

__all__ = ["Pages", "build_app", "launch_options"]

Pages = gr.Blocks


def page(name: str) -> gr.Tab:
    """A tab that the style sheet hides from users without its role."""
    return gr.Tab(label(f"app.{name}"), id=name, elem_id=f"tab-{name}")


def build_app(store: Database, jobs: Jobs, client: PolicyClient, auth: Auth, *, default_config: RoundConfig) -> gr.Blocks:
    """Builds all pages for one store. Launch or mount the result with `**launch_options()`."""
    title = f"{auth.shared.project} · rankloop" if auth.shared else "rankloop"
    app = gr.Blocks(title=title, analytics_enabled=False)
    with app:
        html(tag("h1", title), elem_id="title")
        visitor_line(app, auth)
        with gr.Tabs(elem_id="pages") as pages:
            with page("compare"):
                compare.build(store, client, auth)
            with page("history"):
                history.build(store, auth)
            with page("lead") as lead_tab:
                lead = LeadPage(store, client, auth)
            with page("leaderboard") as leaderboard_tab:
                leaderboard = LeaderboardPage(store, auth)
            with page("training") as training_tab:
                training = TrainingPage(store, jobs, auth, default_config=default_config)
            with page("demo") as demo_tab:
                demo = demo_page.DemoPage(store, client, auth)
            with page("data") as data_tab:
                data = DataPage(store, auth)
        app.load(None, js=in_browser("followAddress"))
        lead.wire(lead_tab)
        demo_page.follow_links(app, pages, auth)
        leaderboard.wire(leaderboard_tab)
        training.wire(training_tab)
        demo.wire(demo_tab)
        data.wire(data_tab)
    return app
