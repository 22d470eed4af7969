"""Runs laid side by side on the Training page: their curves over each other, their figures and their options in columns.

The chosen runs are in the address, so that the view can be shared and survives a reload.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block
from markupsafe import Markup

from feedback_ui.server.auth import Auth
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.presenters import empty_state
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, heading, html, label
from feedback_ui.training import charts, run_view, side_by_side_view
from feedback_ui.training.side_by_side_view import FEWEST, MOST
from rlhf.analysis import round_story
from storage.core.database import Database
from storage.core.records import Run
from storage.project import rounds, runs

FOLLOW_S = 5.0
"""Interval at which runs that train are looked at again, in seconds."""


class SideBySide:
    def __init__(self, store: Database, auth: Auth):
        self.store, self.auth = store, auth
        self.picker = gr.Dropdown(
            [], multiselect=True, max_choices=MOST, label=label("side_by_side.choose"), info=label("side_by_side.choose_help"),
            elem_id="compared-runs",
        )  # fmt: skip
        self.message = html(elem_id="compared-message", elem_classes="rl-optional")
        self.figures = html(elem_id="compared-figures", elem_classes="rl-optional")
        with gr.Column(visible=False, elem_id="compared-curves") as self.curves:
            html(heading("side_by_side.curves"))
            with gr.Column(elem_classes="rl-charts"):
                self.plots = {chart.metric.name: _plot(chart.metric.key) for chart in charts.EVERY_CHART}
                self.score_over_kl = _plot("score_over_kl")
        self.options = html(elem_id="compared-options", elem_classes="rl-optional")
        self.revision = gr.State("")
        self.timer = gr.Timer(FOLLOW_S, active=False)
        self.linked = gr.Textbox(visible=False)
        self.address = gr.Button(visible="hidden", elem_id="compare-follow")
        self.shown: list[Block] = [
            self.message, self.figures, self.curves, self.options, self.score_over_kl, *self.plots.values(), self.revision, self.timer,
        ]  # fmt: skip

    def wire(self, tab: gr.Tab) -> None:
        # The address is pressed when it changes while the view is open, by Back or by a link.
        for event in (tab.select, self.address.click):
            event(self.open, self.linked, [self.picker, *self.shown], js=in_browser("comparedRuns"), trigger_mode="always_last", **QUIET)
        self.timer.tick(self.follow, [self.picker, self.revision], self.shown, **QUIET)
        self.picker.input(self.pick, self.picker, self.shown, js=in_browser("rememberCompared"), trigger_mode="always_last", **QUIET)

    def open(self, linked: str | None, request: gr.Request) -> dict[Block, Any]:
        """Shows the runs that the address names."""
        self.auth.reads(request, "researcher")
        translate = translator_for(request)
        every = runs.all_runs(self.store)
        chosen, shown = self._show(translate, every, side_by_side_view.runs_of_address(linked or ""))
        choices, value = run_view.choices(translate, every), [run.id for run in chosen]
        return {self.picker: gr.Dropdown(choices, value=value, multiselect=True, max_choices=MOST), **shown}

    def pick(self, run_ids: Sequence[str] | None, request: gr.Request) -> dict[Block, Any]:
        self.auth.reads(request, "researcher")
        return self._show(translator_for(request), runs.all_runs(self.store), [*dict.fromkeys(run_ids or [])])[1]

    def follow(self, run_ids: Sequence[str] | None, revision: str, request: gr.Request) -> dict[Block, Any]:
        """Handles the timer's tick, while a chosen run trains. Nothing is drawn again while the runs are as they were."""
        self.auth.reads(request, "researcher")
        chosen = [run for run in runs.all_runs(self.store) if run.id in (run_ids or [])]
        if self._revision(chosen) == revision:
            return {self.timer: gr.Timer(active=any(map(run_view.is_active, chosen)))}
        return self.pick(run_ids, request)

    def _revision(self, chosen: Sequence[Run]) -> str:
        """Changes with what the worker of a chosen run writes, and with the runs' names."""
        logged = sorted((run.id, run.status, len(runs.metrics(self.store, run.id))) for run in chosen)
        return f"{runs.newest_name(self.store)} {logged}"

    def _show(self, translate: Translator, every: Sequence[Run], asked: Sequence[str]) -> tuple[list[Run], dict[Block, Any]]:
        """The runs that are shown, and the updates that show them."""
        known = {run.id: run for run in every}
        found = [run_id for run_id in asked if run_id in known]
        chosen = [known[run_id] for run_id in found[:MOST]]
        unknown = [run_id for run_id in asked if run_id not in known]
        message = side_by_side_view.warnings(translate, chosen, unknown, found[MOST:])
        if len(chosen) < FEWEST:
            return chosen, self._empty(translate, message, len(every))
        return chosen, {
            self.revision: self._revision(chosen),
            self.timer: gr.Timer(active=any(map(run_view.is_active, chosen))),
            self.message: message,
            self.figures: self._figures(translate, chosen),
            self.options: side_by_side_view.options(translate, chosen),
            **self._curves(translate, chosen),
        }

    def _empty(self, translate: Translator, message: Markup, count: int) -> dict[Block, Any]:
        why = "side_by_side.empty" if count >= FEWEST else "side_by_side.too_few"
        nothing = empty_state(translate(why, fewest=FEWEST, most=MOST))
        return {
            self.message: message,
            self.figures: nothing,
            self.options: EMPTY,
            self.curves: gr.Column(visible=False),
            self.timer: gr.Timer(active=False),
        }

    def _figures(self, translate: Translator, chosen: Sequence[Run]) -> Markup:
        of_runs = {run.id: rounds.of_run(self.store, run.id) for run in chosen}
        stories = {run_id: round_story.of_round(self.store, found.id) for run_id, found in of_runs.items() if found is not None}
        evidence = {run_id: round_story.evidence(story) for run_id, story in stories.items()}
        became = {run_id: story.state for run_id, story in stories.items() if story.round.version is not None}
        return run_view.readable(translate, lambda: side_by_side_view.figures(translate, chosen, evidence, became))

    def _curves(self, translate: Translator, chosen: Sequence[Run]) -> dict[Block, Any]:
        metrics = [runs.metrics(self.store, run.id) for run in chosen]
        curves = [*zip(side_by_side_view.titles(chosen), metrics, strict=True)]
        logged = {metric.name for of_run in metrics for metric in of_run}
        drawn = {
            self.plots[chart.metric.name]: gr.Plot(charts.overlaid(translate, chart, curves), visible=True)
            if chart.metric.name in logged
            else gr.Plot(visible=False)
            for chart in charts.EVERY_CHART
        }
        by_kl = charts.overlaid_score_over_kl(translate, curves)
        return {
            self.curves: gr.Column(visible=any(chart.metric.name in logged for chart in charts.EVERY_CHART)),
            self.score_over_kl: gr.Plot(by_kl, visible=bool(by_kl.data)),
            **drawn,
        }


def _plot(key: str) -> gr.Plot:
    return gr.Plot(
        show_label=False, container=False, min_width=240, visible=False, elem_classes="rl-plot rl-overlaid", elem_id=f"compared-{key}"
    )
