"""The Training page: starts rounds, follows them and shows their results.

Everything shown is read from the store, so that a reload or a second window shows the same. Training itself runs in a worker
process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component
from markupsafe import Markup

from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.errors import named, without_paths
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.scripts import in_browser
from feedback_ui.shared.theme import QUIET, heading, html, label, static_text, unchanged
from feedback_ui.training import charts, config_view, download_view, round_view, rounds_table, run_view, validation_view, verdict_view
from feedback_ui.training.form import RoundForm, with_option_titles
from feedback_ui.training.naming import NamePanel
from feedback_ui.training.queue_panel import QueuePanel
from feedback_ui.training.side_by_side import SideBySide
from feedback_ui.training.triggers_panel import TriggersPanel
from rlhf.analysis import model_card, round_story, validation
from rlhf.analysis.run_table import MALFORMED_ROW_ERRORS
from rlhf.config import ConfigError, RoundConfig
from rlhf.data import pairs
from rlhf.runs import deciding, run_files
from rlhf.runs.jobs import Jobs, RoundError
from rlhf.runs.run_files import NoAdapter
from storage.content import comparisons, prompts
from storage.core.database import Database, StoreError
from storage.core.records import DecisionAct, Metric, QueuedRound, Round, Run
from storage.judging import demo_votes, pair_counts
from storage.people import annotators
from storage.project import rounds, runs

POLL_S = 2

REWARD_PLOTS = ("reward-loss", "reward-heldout_accuracy")
POLICY_PLOTS = ("policy-1", "policy-2", "policy-3", "policy-4")
"""Names of the plots; the metrics of the policy plots depend on the method."""

VALIDATION_CHARTS = {"learning_curve": charts.learning_curve, "reliability": charts.reliability}
"""The plots of a run's validation."""

SHOWN_ERRORS = (ConfigError, RoundError, pairs.NotEnoughPairs, StoreError)
"""Errors whose message is shown to the user."""


@dataclass(frozen=True, slots=True)
class ShownState:
    """The state that a browser shows, compared with the store to decide which updates to send."""

    run_id: str
    status: str
    stopping: bool
    validated: bool
    runs: int
    points: int
    revision: tuple[int, ...] = ()
    """Changes with every act that could change the round's comparisons or decision: `rounds.revision`."""
    newest_name: int = 0
    """Changes with the name and note of any run: `runs.newest_name`."""


class TrainingPage:
    def __init__(self, store: Database, jobs: Jobs, auth: Auth, *, default_config: RoundConfig):
        self.store = store
        self.jobs = jobs
        self.auth = auth
        html(static_text("chart.save"), elem_id="chart-save", elem_classes="rl-sr-only")
        with gr.Tabs(elem_id="training-sections"):
            with gr.Tab(label("training.section.rounds"), id="rounds", elem_id="training-rounds") as self.rounds_tab:
                self._rounds_section(default_config)
            with gr.Tab(label("training.section.compare"), id="compare", elem_id="training-compare") as self.compare_tab:
                self.side_by_side = SideBySide(self.store, self.auth)
        self.shown_state = gr.State(None)
        self.timer = gr.Timer(POLL_S, active=False)
        self.address = gr.Button(visible="hidden", elem_id="training-follow")
        self.linked = gr.Textbox(visible=False)
        self.followed: list[Block] = [
            self.picker, self.material, self.progress, self.result, self.samples, self.log, self.cancel, self.resume,
            self.reward_section, self.policy_section, self.parts, self.verdict, self.go_on, self.config, self.kl_note,
            self.downloads, self.rounds, self.shown_state,
            *self.plots.values(),
            self.validation, self.validation_card, self.validation_row, self.validation_details, *self.validation_plots.values(),
            self.round, self.decision, self.promote, self.reject, self.roll_back,
        ]  # fmt: skip

    def _rounds_section(self, default_config: RoundConfig) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300, elem_id="round-form"):
                self.material = html(elem_id="pairs-available")
                self.form = RoundForm(default_config, self.auth)
                self.start = gr.Button(label("training.start"), variant="primary", elem_id="start-round")
                self.refusal = html(elem_id="start-refusal", elem_classes="rl-optional")
                self.queue = QueuePanel(self.store, self.auth)
                self.form.place_others()
                self.triggers = TriggersPanel(self.store, self.auth, self.form, refusal)
            with gr.Column(scale=2, min_width=320, elem_id="run-view"):
                self._run_view()
        self.rounds = html(elem_id="rounds", elem_classes="rl-optional")

    def _run_view(self) -> None:
        with gr.Row(elem_id="run-bar"):
            self.picker = gr.Dropdown([], label=label("training.run"), visible=False, elem_id="run-picker", scale=3, min_width=200)
            self.cancel = gr.Button(label("training.cancel"), elem_id="cancel-run", visible=False, scale=1, min_width=90)
            self.resume = gr.Button(label("training.resume"), elem_id="resume-run", visible=False, scale=1, min_width=90)
        self.progress = html(elem_id="run-progress")
        self.verdict = html(elem_id="run-verdict", elem_classes="rl-optional")
        self.go_on = gr.Button(label("verdict.go_on"), elem_id="go-on-run", visible=False, scale=0, min_width=200)
        self.naming = NamePanel(self.store, self.auth)
        self.plots: dict[str, gr.Plot] = {}
        with gr.Tabs(elem_id="run-parts", visible=False) as self.parts:
            for name, build in self._parts().items():
                with gr.Tab(label(f"training.part.{name}"), id=f"run-{name}", elem_id=f"run-part-{name}"):
                    build()

    def _parts(self) -> dict[str, Callable[[], None]]:
        """The tabs of a run, and what builds each."""
        return {
            "result": self._result_part,
            "trust": self._trust_part,
            "policy": self._policy_part,
            "samples": self._samples_part,
            "config": self._config_part,
            "log": self._log_part,
        }

    def _result_part(self) -> None:
        self.result = html(elem_id="run-result", elem_classes="rl-optional")
        self.round = html(elem_id="run-round", elem_classes="rl-optional")
        with gr.Column(visible=False, elem_id="round-decision", elem_classes="rl-action-form") as self.decision:
            self.reason = gr.Textbox(label=label("round.reason"), info=label("round.reason_help"), lines=2, elem_id="decision-reason")
            with gr.Row():
                self.promote, self.reject, self.roll_back = (
                    gr.Button(label(f"round.{act}"), elem_id=f"{act.replace('_', '-')}-version", visible=False, scale=0, min_width=120)
                    for act in ("promote", "reject", "roll_back")
                )
            self.decided = html(elem_id="decision-message", elem_classes="rl-optional")
        self.downloads = html(elem_id="run-downloads", elem_classes="rl-optional")

    def _trust_part(self) -> None:
        with gr.Column(visible=False, elem_id="run-validation", elem_classes="rl-card") as self.validation:
            self.validation_card = html(elem_classes="rl-optional")
            with gr.Row(visible=False) as self.validation_row:
                self.validation_plots = {name: plot(name) for name in VALIDATION_CHARTS}
            self.validation_details = html(elem_classes="rl-optional")
        self.reward_section = self._section("run.stage.reward", REWARD_PLOTS)

    def _policy_part(self) -> None:
        self.policy_section = self._section("run.policy", POLICY_PLOTS)
        with self.policy_section:
            self.plots["score_over_kl"] = plot("score_over_kl")
            self.kl_note = html(elem_id="kl-note", elem_classes="rl-optional")

    def _samples_part(self) -> None:
        self.samples = html(elem_id="run-samples")

    def _config_part(self) -> None:
        self.config = html(elem_id="run-config")

    def _log_part(self) -> None:
        self.log = gr.Textbox(
            label=label("training.log"), lines=18, max_lines=18, interactive=False, elem_id="run-log", elem_classes="rl-log"
        )

    def _section(self, title: str, names: Sequence[str]) -> gr.Column:
        """Charts two by two under a heading."""
        section = gr.Column(visible=False)
        with section:
            html(heading(title))
            for pair in zip(names[::2], names[1::2], strict=True):
                with gr.Row():
                    self.plots |= {name: plot(name) for name in pair}
        return section

    def wire(self, tab: gr.Tab) -> None:
        self.form.wire()
        tab.select(None, None, js=in_browser("followOptions"))
        tab.select(None, None, js=in_browser("followCharts"))
        self.rounds_tab.select(None, js=in_browser("rememberRounds"))
        self.side_by_side.wire(self.compare_tab)
        self.queue.wire(tab, self.timer)
        self.triggers.wire(tab, self.timer)
        opened = [self.timer, *self.followed]
        tab.select(self.open, self.linked, opened, js=in_browser("runOfAddress"), **QUIET)
        self.address.click(self.pick, self.linked, self.followed, js=in_browser("runOfAddress"), trigger_mode="always_last", **QUIET)
        self.timer.tick(self.follow, [self.picker, self.shown_state], self.followed, **QUIET)
        self.picker.input(self.pick, self.picker, self.followed, js=in_browser("rememberRun"), **QUIET)
        self.naming.wire(self.picker).then(self.follow, [self.picker, self.shown_state], self.followed, **QUIET)
        started = self.start.click(self.start_round, self.form.components, [self.refusal, *self.queue.followed, *self.followed], **QUIET)
        started.then(None, self.picker, js=in_browser("showStartedRun"))
        self.cancel.click(self.cancel_round, self.picker, [self.refusal, *self.followed], **QUIET)
        self.resume.click(self.resume_round, self.picker, [self.refusal, *self.followed], **QUIET)
        self.go_on.click(self.go_on_round, self.picker, [self.refusal, *self.followed], **QUIET)
        for button, act in ((self.promote, self.promote_version), (self.reject, self.reject_version), (self.roll_back, self.take_back)):
            button.click(act, [self.picker, self.reason], [self.decided, self.reason, *self.followed], **QUIET)

    # ---- starting, cancelling and resuming

    def start_round(self, values: dict[Component, Any], request: gr.Request) -> dict[Block, Any]:
        visitor = self.auth.acts(request, "researcher")
        translate = translator_for(request)
        try:
            asked = self.jobs.start(self.form.read(translate, values), visitor.annotator.id)
        except SHOWN_ERRORS as error:
            return self._refused(translate, error)
        if isinstance(asked, QueuedRound):
            return {self.refusal: EMPTY, **self.queue.show(translate, presenters.notice(translate("queue.queued")), acts=True)}
        return {self.refusal: EMPTY, **self.show(translate, asked.id)}

    def cancel_round(self, run_id: str, request: gr.Request) -> dict[Block, Any]:
        self.auth.acts(request, "researcher")
        translate = translator_for(request)
        try:
            self.jobs.cancel(run_id)
        except SHOWN_ERRORS as error:
            return self._refused(translate, error)
        return {self.refusal: EMPTY, **self.show(translate, run_id)}

    def resume_round(self, run_id: str, request: gr.Request) -> dict[Block, Any]:
        self.auth.acts(request, "researcher")
        translate = translator_for(request)
        try:
            run = self.jobs.resume(run_id)
        except SHOWN_ERRORS as error:
            return self._refused(translate, error)
        return {self.refusal: EMPTY, **self.show(translate, run.id)}

    def go_on_round(self, run_id: str, request: gr.Request) -> dict[Block, Any]:
        """Trains the policy of a run that has stopped because its reward model cannot be told from a coin."""
        self.auth.acts(request, "researcher")
        translate = translator_for(request)
        try:
            run = self.jobs.resume(run_id, go_on=True)
        except SHOWN_ERRORS as error:
            return self._refused(translate, error)
        return {self.refusal: EMPTY, **self.show(translate, run.id)}

    def _refused(self, translate: Translator, error: Exception) -> dict[Block, Any]:
        return {self.refusal: presenters.notice(refusal(translate, error), "bad")}

    # ---- deciding

    def promote_version(self, run_id: str | None, reason: str | None, request: gr.Request) -> dict[Block, Any]:
        visitor = self.auth.acts(request, "researcher")
        return self._decide(run_id, reason, "promoted", visitor.annotator.id, translator_for(request))

    def reject_version(self, run_id: str | None, reason: str | None, request: gr.Request) -> dict[Block, Any]:
        visitor = self.auth.acts(request, "researcher")
        return self._decide(run_id, reason, "rejected", visitor.annotator.id, translator_for(request))

    def take_back(self, run_id: str | None, reason: str | None, request: gr.Request) -> dict[Block, Any]:
        """Rolls back from the version of this run, which is the current policy."""
        visitor = self.auth.acts(request, "researcher")
        return self._decide(run_id, reason, "rolled back", visitor.annotator.id, translator_for(request))

    def _decide(self, run_id: str | None, reason: str | None, act: DecisionAct, by: int, translate: Translator) -> dict[Block, Any]:
        try:
            if not (reason or "").strip():
                raise StoreError(translate("round.no_reason"))
            self._write(rounds.of_run(self.store, run_id or ""), reason or "", act, by)
        except StoreError as error:
            return {self.decided: presenters.notice(presenters.sentence(error), "bad")}
        return {self.decided: EMPTY, self.reason: "", **self.show(translate, run_id)}

    def _write(self, found: Round | None, reason: str, act: DecisionAct, by: int) -> None:
        if found is None or found.version is None:
            raise StoreError("This run has made no policy version: there is nothing to decide.")
        if act != "rolled back":
            made = rounds.decide(self.store, found.version, act, decided_by="person", reason=reason, by=by)
            model_card.write_decided(self.store, made)
            return
        with self.store.atomic():
            # Two pages may be open: a rollback takes back the version that its page shows, and no other.
            if rounds.current(self.store, found.version.base_model).id != found.version.id:
                raise StoreError(f"{found.version.name} is not the current policy: reload the page.")
            made = rounds.roll_back(self.store, found.version.base_model, reason=reason, by=by)
        model_card.write_decided(self.store, made)

    # ---- showing runs

    def open(self, chosen: str | None, request: gr.Request) -> dict[Block, Any]:
        """Opens the page with the run that the visitor chose before, the active one or the newest.

        Nothing about a run is sent earlier, so that annotators do not learn the names of policies.
        """
        self.auth.reads(request, "researcher")
        translate = translator_for(request)
        return {
            self.material: self._pairs_available(translate),
            self.timer: gr.Timer(active=True),
            **self.show(translate, self._known(chosen)),
        }

    def _pairs_available(self, translate: Translator) -> Markup:
        counts = pair_counts.count(self.store)
        return presenters.pairs_available(
            translate,
            *((counts.total(kind, splits=("train",)), counts.total(kind, splits=("heldout",))) for kind in ("human", "simulated")),
            few_measure=pairs.FEW_MEASURE,
            unused_starter_votes=prompts.unused_starter_votes(self.store),
            demo_votes=demo_votes.count(self.store),
        )

    def follow(self, chosen: str | None, shown: ShownState | None, request: gr.Request) -> dict[Block, Any]:
        """Handles the timer's tick. Unchanged parts are not sent again, so that the page does not move."""
        self.auth.reads(request, "researcher")
        run_id = chosen or self._opening_run()
        if run_id is None:
            return unchanged()
        run = runs.get(self.store, run_id)
        if not run_view.is_active(run) and shown == self._state_of(run):
            return unchanged()
        translate = translator_for(request)
        update = self.show(translate, run_id, shown)
        if shown is not None and shown.status != run.status:
            # Judging goes on while a run trains.
            update[self.material] = self._pairs_available(translate)
        if chosen and self.picker in update:
            # A tick that began before another run was started or picked must not select the old run again.
            update[self.picker] = gr.Dropdown(self._choices(translate))
        return update

    def _choices(self, translate: Translator) -> list[tuple[str, str]]:
        return run_view.choices(translate, runs.all_runs(self.store))

    def pick(self, run_id: str | None, request: gr.Request) -> dict[Block, Any]:
        self.auth.reads(request, "researcher")
        return self.show(translator_for(request), self._known(run_id))

    def show(self, translate: Translator, run_id: str | None, shown: ShownState | None = None) -> dict[Block, Any]:
        """The updates that show one run. With `shown`, the state on the page, only the parts that changed."""
        if run_id is None:
            return {self.progress: run_view.progress(translate, None)}
        run = runs.get(self.store, run_id)
        now = self._state_of(run)
        update: dict[Block, Any] = {
            self.progress: run_view.readable(translate, lambda: run_view.progress(translate, run, self._steps_done(run))),
            self.result: run_view.readable(translate, lambda: run_view.result(translate, run)),
            self.samples: run_view.samples(translate, runs.samples(self.store, run_id)),
            self.log: without_paths(self.jobs.log_tail(run_id)),
            self.shown_state: now,
        }
        if shown is None or shown.revision != now.revision or shown.run_id != run_id or shown.status != now.status:
            update |= self._round(translate, run)
        if shown is None or replace(shown, points=now.points) != now:
            update |= {
                self.picker: gr.Dropdown(self._choices(translate), value=run_id, visible=True),
                self.cancel: gr.Button(visible=run_view.is_active(run), interactive=not run.cancel_requested),
                self.resume: gr.Button(visible=run_view.is_resumable(run) and not run_view.asks(run)),
                self.go_on: gr.Button(visible=run_view.asks(run)),
                self.parts: gr.Tabs(visible=True),
                self.config: run_view.readable(translate, lambda: config_view.section(translate, run_view.options_of(run))),
                self.rounds: rounds_table.section(translate, runs.all_runs(self.store), self._states()),
            }
        if shown is None or (shown.run_id, shown.status, shown.points) != (run_id, now.status, now.points):
            update |= self._plots(translate, run, runs.metrics(self.store, run_id))
        if shown is None or replace(shown, points=now.points, runs=now.runs, revision=now.revision) != now:
            update |= self._validation(translate, run)
        return update

    def _steps_done(self, run: Run) -> int:
        """The steps that the policy of an active run has been trained for."""
        logged = runs.metrics(self.store, run.id) if run_view.is_active(run) else []
        return max((metric.step for metric in logged if metric.name == "objective/kl"), default=0)

    def _states(self) -> dict[str, round_story.State]:
        """What became of the version of each run, by the run's id."""
        return {found.run_id: state for found, state in round_story.states(self.store) if found.version is not None}

    def _round(self, translate: Translator, run: Run) -> dict[Block, Any]:
        """The verdict, the story of the run's round, and the buttons that can decide about its version now."""
        found = rounds.of_run(self.store, run.id)
        story = None if found is None else round_story.of_round(self.store, found.id)
        verdict = run_view.readable(translate, lambda: verdict_view.section(translate, run, story))
        if found is None or story is None:
            return {self.verdict: verdict, self.round: EMPTY, self.decision: gr.Column(visible=False)}
        drawn = deciding.sequence(self.store, found) if found.is_open else []
        is_current = story.state == "current"
        return {
            self.verdict: verdict,
            self.round: run_view.readable(translate, lambda: round_view.section(translate, story, drawn)),
            self.decision: gr.Column(visible=found.version is not None),
            self.promote: gr.Button(visible=not is_current),
            self.reject: gr.Button(visible=not is_current and story.state != "rejected"),
            self.roll_back: gr.Button(visible=is_current),
        }

    def _plots(self, translate: Translator, run: Run, metrics: Sequence[Metric]) -> dict[Block, Any]:
        method = run_view.method(run)
        charts_by_place = zip(REWARD_PLOTS + POLICY_PLOTS, charts.REWARD_CHARTS + charts.POLICY_CHARTS[method], strict=True)
        logged = {metric.name for metric in metrics}

        def section(of: Sequence[charts.Chart], to_come: bool) -> gr.Column:
            """A section with data, or with empty axes for metrics that are still to come; hidden if none will come."""
            return gr.Column(visible=(to_come and run_view.is_active(run)) or any(chart.metric.name in logged for chart in of))

        return {
            self.reward_section: section(charts.REWARD_CHARTS, run_view.tunes_reward(run)),
            self.policy_section: section(charts.POLICY_CHARTS[method], True),
            **{self.plots[name]: charts.figure(translate, chart, metrics) for name, chart in charts_by_place},
            self.downloads: self._downloads(translate, run, len(metrics)),
            self.kl_note: presenters.notice(charts.on_negative_kl(translate, metrics)),
            self.plots["score_over_kl"]: gr.Plot(charts.score_over_kl(translate, metrics), visible=method in run_view.SAMPLING_METHODS),
        }

    def _downloads(self, translate: Translator, run: Run, points: int) -> Markup:
        adapter: int | run_files.Missing
        try:
            adapter = run_files.adapter(self.store, run).size_bytes
        except NoAdapter as error:
            adapter = error.reason
        except (OSError, StoreError):
            adapter = "gone"
        return download_view.section(translate, run, adapter=adapter, points=points)

    def _validation(self, translate: Translator, run: Run) -> dict[Block, Any]:
        try:
            return self._readable_validation(translate, run)
        except MALFORMED_ROW_ERRORS as error:
            nothing = replace(run, validation=None)
            unreadable = {self.validation: gr.Column(visible=True), self.validation_card: run_view.unreadable(translate, named(error))}
            return self._readable_validation(translate, nothing) | unreadable

    def _readable_validation(self, translate: Translator, run: Run) -> dict[Block, Any]:
        card = validation_view.card(translate, run)
        people = {annotator.id: annotator for annotator in annotators.all_annotators(self.store)}
        judged = {comparison.id: comparison for comparison in comparisons.many(self.store, validation_view.compared(run))}
        report = validation.of_run(run)
        return {
            self.validation: gr.Column(visible=bool(card)),
            self.validation_card: card,
            self.validation_row: gr.Row(visible=report is not None and report.accuracy is not None),
            self.validation_details: validation_view.details(translate, run, people, judged),
            **{self.validation_plots[name]: draw(translate, report) for name, draw in VALIDATION_CHARTS.items()},
        }

    def _state_of(self, run: Run) -> ShownState:
        points = len(runs.metrics(self.store, run.id))
        return ShownState(
            run.id,
            run.status,
            run.cancel_requested,
            run.validation is not None,
            len(runs.all_runs(self.store)),
            points,
            rounds.revision(self.store),
            runs.newest_name(self.store),
        )

    def _known(self, run_id: str | None) -> str | None:
        """The run, which an address may name; the active or newest one if the address is of none here."""
        return run_id if any(run.id == run_id for run in runs.all_runs(self.store)) else self._opening_run()

    def _opening_run(self) -> str | None:
        return run_view.opening_run(runs.all_runs(self.store))


def plot(name: str) -> gr.Plot:
    return gr.Plot(
        show_label=False,
        container=False,
        min_width=240,
        elem_classes="rl-plot",
        elem_id=f"plot-{name}",
    )


def refusal(translate: Translator, error: Exception) -> str:
    """The message for a refused action: the reason and the remedy, with options named as on the page."""
    if isinstance(error, pairs.NotEnoughPairs) and error.found < error.needed:
        ways = translate("training.or_ask_for_fewer", found=error.found) if error.found else ""
        missing = translate("training.not_enough_pairs", count=error.found, needed=error.needed, missing=error.needed - error.found)
        return f"{missing}{ways}. {translate('training.what_counts')}"
    return translate("training.refused", error=presenters.sentence(error, partial(with_option_titles, translate)))
