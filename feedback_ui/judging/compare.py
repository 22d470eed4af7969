"""The Compare page: one blind comparison after another, judged by key, tap or drag.

Judging takes one round trip and one commit, and bypasses Gradio's queue: the component's server functions save the
judgment and then return the next comparison. `feedback_ui.server.auth` decides who the annotator is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import gradio as gr

from feedback_ui.judging import acts, judging_view, problems
from feedback_ui.judging.component import judging_component
from feedback_ui.server.auth import AccessRefused, Auth
from feedback_ui.shared.errors import for_browser
from feedback_ui.shared.i18n import Translator, translator_for
from rlhf.serving.client import PolicyClient, PolicyServerDown
from storage.core.clock import as_text
from storage.core.database import Database, StoreError, StoreLocked
from storage.core.records import Annotator, Comparison, Presentation, ProjectSettings
from storage.judging import judgments, presentations, queue
from storage.judging.details import of_judgments
from storage.judging.judgments import AlreadyJudged, BadJudgment, Given, LeaseOver
from storage.judging.row_tokens import RowTokens
from storage.people import annotators
from storage.project import current
from storage.project.current import Project

Reply = dict[str, Any]
NextPresentation = tuple[Comparison, Presentation] | None

MAX_UTC_OFFSET_MIN = 14 * 60


def build(store: Database, client: PolicyClient, auth: Auth) -> gr.HTML:
    """Builds the page's component. Gradio publishes its server functions by name and passes the request by its annotation."""
    service = CompareService(store, client)
    ask = partial(call_as_annotator, auth)

    def next_comparison(data: dict[str, Any], request: gr.Request) -> Reply:
        return ask(request, service.next_for, data)

    def judge(act: dict[str, Any], request: gr.Request) -> Reply:
        return ask(request, service.judge, act)

    def undo(data: dict[str, Any], request: gr.Request) -> Reply:
        return ask(request, service.undo, data)

    def renew(data: dict[str, Any], request: gr.Request) -> Reply:
        return ask(request, service.renew, data)

    return judging_component("compare", [next_comparison, judge, undo, renew])


def call_as_annotator(
    auth: Auth, request: gr.Request, function: Callable[[Annotator, Translator, dict[str, Any]], Reply], data: Any
) -> Reply:
    """The function's reply for the signed-in annotator, or a refusal or problem; then the page keeps its draft and shows the message."""
    try:
        visitor = auth.acts(request, "annotator")
    except AccessRefused as refusal:
        return {"refused": refusal.message, "signed_out": refusal.status == 401}
    try:
        return function(visitor.annotator, translator_for(request), data if isinstance(data, dict) else {})
    except StoreError as error:
        return {"problem": problems.problem(translator_for(request), error)}


RECOUNT_AFTER = 10
"""Judgments after which what waits for an annotator is counted again."""


class CompareService:
    """Serves comparisons to annotators and saves their judgments."""

    def __init__(self, store: Database, client: PolicyClient):
        self.store = store
        self.client = client
        self.tokens = RowTokens(store)
        # By annotator: how many judgments they had given when what waits for them was counted, and the count.
        self._counted: dict[int, tuple[int, int]] = {}

    def next_for(self, annotator: Annotator, translate: Translator, data: dict[str, Any]) -> Reply:
        return self._next(annotator, translate, data, current.load(self.store))

    def _next(self, annotator: Annotator, translate: Translator, data: dict[str, Any], project: Project) -> Reply:
        annotator = annotators.get(self.store, annotator.id)
        return self._view(annotator, translate, data, project, queue.next_presentation(self.store, annotator, project=project))

    def judge(self, annotator: Annotator, translate: Translator, act: dict[str, Any]) -> Reply:
        """Saves one judgment and returns the next comparison, in one commit. A judgment that is sent twice counts once.

        A reply without `next` means that nothing was saved, and the page keeps its draft.
        """
        try:
            with self.store.atomic():
                project = current.load(self.store)
                self._save(annotator, act, project.settings)
                # After the judgment, which their number of judgments includes.
                annotator = annotators.get(self.store, annotator.id)
                following = queue.next_presentation(self.store, annotator, project=project)
        except AlreadyJudged as error:
            return self._already_judged(annotator, translate, act, error)
        except BadJudgment as error:
            return self._refused(annotator, translate, act, error)
        except StoreLocked as error:
            # A second wait for the lock would outlast the page's own time limit.
            return self._not_saved(translate, error)
        except StoreError:
            return self._judge_alone(annotator, translate, act)
        return {"next": self._view(annotator, translate, act, project, following)}

    def _judge_alone(self, annotator: Annotator, translate: Translator, act: dict[str, Any]) -> Reply:
        """Saves the judgment without fetching the next comparison: an error in the queue must not lose the judgment."""
        try:
            self._save(annotator, act)
        except StoreError as error:
            return self._not_saved(translate, error)
        count = judging_view.progress(translate, self._today(annotator, act))
        return {"next": judging_view.empty_queue_view(translate, translate("compare.next_failed"), count)}

    def undo(self, annotator: Annotator, translate: Translator, data: dict[str, Any]) -> Reply:
        """Withdraws the last judgment; its comparison is shown again, in the same order, and `undone` is what was judged."""
        project = current.load(self.store)
        undone = judgments.undo(self.store, annotator.id, project=project.settings)
        annotator = annotators.get(self.store, annotator.id)
        following = queue.next_presentation(self.store, annotator, project=project)
        view = self._view(annotator, translate, data, project, following)
        if undone is None:
            return {"message": translate("compare.nothing_to_undo"), "next": view}
        if undone.presentation_id is None:
            return {"message": translate("compare.undone"), "next": view}
        order = presentations.existing(self.store, undone.presentation_id).order
        message = translate("compare.undone_what", verdict=judging_view.verdict(translate, undone, order))
        if following is None or following[1].id != undone.presentation_id:
            return {"message": message, "next": view}
        details = of_judgments(self.store, [undone.id])[undone.id]
        view = judging_view.with_inputs_for(view, following[0], order, details)
        return {"message": message, "next": view, "undone": judging_view.act_of(undone, details, order)}

    def renew(self, annotator: Annotator, translate: Translator, data: dict[str, Any]) -> Reply:
        """Renews the lease of a presentation. `held` stays true after the lease has ended, as long as a judgment would be accepted."""
        shown = self._own(annotator, data)
        if shown is None:
            return {"held": False}
        if queue.renew(self.store, shown.id, annotator.id):
            return {"held": True}
        lease = queue.lease_of(self.store, shown.id)
        return {"held": not judgments.is_judged(self.store, shown) and queue.can_accept(self.store, shown, lease)}

    def _save(self, annotator: Annotator, act: dict[str, Any], project: ProjectSettings | None = None) -> None:
        if (shown := self._own(annotator, act)) is None:
            raise BadJudgment("There is no such presentation: reload the page.", "not_there")
        judgments.save(self.store, shown, annotator.id, project=project, **acts.judgment_arguments(act, shown.order))

    def _own(self, annotator: Annotator, data: dict[str, Any]) -> Presentation | None:
        """The presentation that the page names by its token; None unless it was shown to this annotator."""
        presentation_id = self.tokens.open("presentation", data.get("presentation_id"), annotator.id)
        return None if presentation_id is None else presentations.get(self.store, presentation_id)

    def _refused(self, annotator: Annotator, translate: Translator, act: dict[str, Any], error: BadJudgment) -> Reply:
        lease_over = isinstance(error, LeaseOver)
        why = problems.problem(translate, error)
        problem = why if lease_over else translate("compare.not_saved", why=why)
        return {"problem": problem, "lease_over": lease_over, "next": self.next_for(annotator, translate, act)}

    def _already_judged(self, annotator: Annotator, translate: Translator, act: dict[str, Any], error: AlreadyJudged) -> Reply:
        """The reply names the judgment that the store has, as the answers lie on the page, and its token, to correct it."""
        shown = self._own(annotator, act)
        judgment = error.judgment
        order = shown.order if shown else ()
        return {
            "problem": translate("compare.already_judged", verdict=judging_view.verdict(translate, judgment, order)),
            "stored": self.tokens.seal("judgment", judgment.id, annotator.id),
            "next": self.next_for(annotator, translate, act),
        }

    def _not_saved(self, translate: Translator, error: StoreError) -> Reply:
        return {"problem": translate("compare.not_saved", why=problems.problem(translate, error))}

    def _view(
        self, annotator: Annotator, translate: Translator, data: dict[str, Any], project: Project, following: NextPresentation
    ) -> Reply:
        count = self._progress(annotator, translate, data, project.settings, shows=following is not None)
        guidelines_part = judging_view.guidelines_view(project.guidelines, data.get("guidelines"))
        if following is None:
            return judging_view.empty_queue_view(translate, self._empty_queue_note(translate), count, guidelines_part)
        comparison, shown = following
        return judging_view.comparison_view(
            translate,
            comparison,
            shown.order,
            project.settings,
            presentation=self.tokens.seal("presentation", shown.id, annotator.id),
            count=count,
            guidelines=guidelines_part,
            practice=annotator.judged == 0,
        )

    def _progress(
        self, annotator: Annotator, translate: Translator, data: dict[str, Any], project: ProjectSettings, *, shows: bool = True
    ) -> str:
        """The day's count. `shows`: a comparison is on the page, so that others may wait."""
        # Gold comparisons and repeats do not come out of the queue: a count that stays as it is would give them away.
        told = not (project.gold_share or project.repeat_share)
        waiting = (self._waiting(annotator) if shows else 0) if told else None
        return judging_view.progress(translate, self._today(annotator, data), goal=project.daily_goal, waiting=waiting)

    def _waiting(self, annotator: Annotator) -> int:
        """What waits for the annotator: counted at every `RECOUNT_AFTER`th judgment, and one less after each in between.

        A share that was set back to 0 may have left gold on a page, and a count after each judgment would show which one it was.
        """
        at, count = self._counted.get(annotator.id, (annotator.judged - RECOUNT_AFTER, 0))
        if abs(annotator.judged - at) >= RECOUNT_AFTER:
            at, count = annotator.judged, queue.waiting(self.store, annotator.id, judging_view.WAITING_SHOWN + 1)
            self._counted[annotator.id] = at, count
        return max(0, count - (annotator.judged - at))

    def _today(self, annotator: Annotator, data: dict[str, Any]) -> Given:
        return judgments.given_since(self.store, annotator.id, midnight(data.get("minutes_east")))

    def _empty_queue_note(self, translate: Translator) -> str:
        try:
            status = self.client.status()
        except PolicyServerDown as error:
            return judging_view.server_down_note(translate, error)
        return judging_view.waiting_note(
            translate,
            ready=status.ready,
            filling=status.filling,
            seconds_per_comparison=status.seconds_per_comparison,
            note=for_browser(status.note),
        )


def midnight(minutes_east: Any, now: datetime | None = None) -> str:
    """When the reader's day began, as the store writes times.

    Args:
        minutes_east: how far the browser's time zone is ahead of UTC; anything else than a number counts as UTC.
    """
    minutes = minutes_east if type(minutes_east) is int else 0
    ahead = timedelta(minutes=max(-MAX_UTC_OFFSET_MIN, min(MAX_UTC_OFFSET_MIN, minutes)))
    local = (now or datetime.now(UTC)) + ahead
    return as_text(local.replace(hour=0, minute=0, second=0, microsecond=0) - ahead)
