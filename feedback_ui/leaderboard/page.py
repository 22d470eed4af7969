"""The Leaderboard page: standings of the policy versions for leads, and their own progress for annotators.

Annotators are sent nothing about policies, because judging is blind.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.leaderboard import leaderboard_view
from feedback_ui.server.auth import Auth, Visitor
from feedback_ui.shared import presenters
from feedback_ui.shared.html import fragment
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, html, label
from rlhf.analysis import leaderboard
from storage.analytics import rankings
from storage.content import prompts
from storage.core.database import Database
from storage.people import annotators

MAX_UTC_OFFSET_MIN = 14 * 60
"""The largest offset of any time zone from UTC, in minutes."""


class LeaderboardPage:
    def __init__(self, store: Database, auth: Auth):
        self.store = store
        self.auth = auth
        self.clock = gr.Number(0, visible=False)
        with gr.Column(elem_id="leaderboard-policies", elem_classes="rl-optional-part"):
            self.simulated = gr.Checkbox(
                False, label=label("leaderboard.include_simulated"), visible=False, elem_id="leaderboard-simulated", container=False
            )
            self.style = gr.Checkbox(
                False, label=label("leaderboard.control_style"), visible=False, elem_id="leaderboard-style", container=False
            )
            self.policies = html(elem_id="leaderboard-standings", elem_classes="rl-sections")
        with gr.Row(equal_height=False, elem_id="leaderboard-people"):
            with gr.Column(min_width=300):
                self.own = html(elem_id="leaderboard-own")
            with gr.Column(min_width=300):
                self.everyone = html(elem_id="leaderboard-annotators")
                self.show_name = gr.Checkbox(
                    False, label=label("leaderboard.show_name"), visible=False, elem_id="leaderboard-show-name", container=False
                )

    def wire(self, tab: gr.Tab) -> None:
        switches = [self.simulated, self.style]
        parts = [*switches, self.policies, self.own, self.everyone, self.show_name]
        tab.select(self.open, [self.clock, *switches], parts, js=in_browser("withClock"), **QUIET)
        for switch in switches:
            switch.input(self.include, switches, self.policies, **QUIET)
        self.show_name.input(self.name, self.show_name, self.everyone, **QUIET)

    def open(self, minutes_east: float, include_simulated: bool, control_style: bool, request: gr.Request) -> dict[Component, Any]:
        """Shows everything that the visitor may see."""
        visitor, translate = self.auth.reads(request, "annotator"), translator_for(request)
        shown: dict[Component, Any] = self._people(translate, visitor, minutes_east)
        if visitor.may_read("lead"):
            shown[self.simulated] = gr.Checkbox(visible=self._has_simulated())
            shown[self.style] = gr.Checkbox(visible=True)
            shown[self.policies] = self._standings(translate, include_simulated, control_style)
        return shown

    def include(self, include_simulated: bool, control_style: bool, request: gr.Request) -> Markup:
        self.auth.reads(request, "lead")
        return self._standings(translator_for(request), include_simulated, control_style)

    def name(self, shows: bool, request: gr.Request) -> Markup:
        """Shows or hides the visitor's name in the list of annotators."""
        visitor, translate = self.auth.acts(request, "annotator"), translator_for(request)
        annotators.show_name(self.store, visitor.annotator.id, bool(shows))
        return leaderboard_view.everyone(translate, annotators.all_annotators(self.store), visitor.annotator.id)

    def _people(self, translate: Translator, visitor: Visitor, minutes_east: float) -> dict[Component, Any]:
        minutes = int(max(-MAX_UTC_OFFSET_MIN, min(MAX_UTC_OFFSET_MIN, minutes_east or 0)))
        today = (datetime.now(UTC) + timedelta(minutes=minutes)).date()
        own = annotators.get(self.store, visitor.annotator.id)
        by_day = rankings.by_day(self.store, own.id, minutes_east=minutes)
        return {
            self.own: leaderboard_view.own(translate, by_day, own.judged, today),
            self.everyone: leaderboard_view.everyone(translate, annotators.all_annotators(self.store), own.id),
            self.show_name: gr.Checkbox(own.shows_name, visible=visitor.may_act("annotator")),
        }

    def _standings(self, translate: Translator, include_simulated: bool, control_style: bool) -> Markup:
        board = leaderboard.leaderboard(self.store, include_simulated=bool(include_simulated), control_style=bool(control_style))
        left_out = presenters.starters_left_out(translate, prompts.unused_starter_votes(self.store))
        return fragment(leaderboard_view.policies(translate, board, with_switch=self._has_simulated()), left_out)

    def _has_simulated(self) -> bool:
        return any(a.kind == "simulated" and a.judged for a in annotators.all_annotators(self.store))
