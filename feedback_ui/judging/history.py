"""The History page: annotators look up and correct their own judgments.

A correction is a new judgment that supersedes the earlier one, which stays in the store.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from feedback_ui.judging import acts, judging_view, problems
from feedback_ui.judging.compare import Reply, call_as_annotator
from feedback_ui.judging.component import judging_component
from feedback_ui.server.auth import Auth
from feedback_ui.shared.i18n import Translator
from storage.core.database import Database, StoreError
from storage.core.records import Annotator, PastJudgment
from storage.judging import history, judgments
from storage.judging.judgments import BadJudgment
from storage.judging.row_tokens import RowTokens
from storage.project import settings

PAGE_ROWS = 20


def build(store: Database, auth: Auth) -> gr.HTML:
    """Builds the page's component. Gradio publishes its server functions by name and passes the request by its annotation."""
    service = HistoryService(store)
    ask = partial(call_as_annotator, auth)

    def past_judgments(filters: dict[str, Any], request: gr.Request) -> Reply:
        return ask(request, service.rows, filters)

    def past_judgment(data: dict[str, Any], request: gr.Request) -> Reply:
        return ask(request, service.one, data)

    def correct(act: dict[str, Any], request: gr.Request) -> Reply:
        return ask(request, service.correct, act)

    return judging_component("history", [past_judgments, past_judgment, correct])


class HistoryService:
    """Lists an annotator's own judgments and saves corrections of them."""

    def __init__(self, store: Database):
        self.store = store
        self.tokens = RowTokens(store)

    def rows(self, annotator: Annotator, translate: Translator, filters: dict[str, Any]) -> Reply:
        """One page of judgments, newest first, and the token to continue from if there are older ones."""
        verdict, text = filters.get("verdict"), filters.get("text")
        matches = history.of_annotator(
            self.store,
            annotator.id,
            verdict=verdict if verdict in ("rank", "skip") else None,
            flagged=bool(filters.get("flagged")),
            excluded=bool(filters.get("excluded")),
            text=searchable(text),
            before_id=self.tokens.open("judgment", filters.get("before"), annotator.id),
            limit=PAGE_ROWS + 1,
        )
        shown = matches[:PAGE_ROWS]
        return {
            "rows": [self._row(translate, past) for past in shown],
            "older": self._token(shown[-1]) if len(matches) > PAGE_ROWS else None,
        }

    def one(self, annotator: Annotator, translate: Translator, data: dict[str, Any]) -> Reply:
        """One judgment, to read or correct."""
        try:
            past = self._own(annotator, data.get("judgment_id"))
        except StoreError as error:
            return {"problem": problems.problem(translate, error)}
        # The judging form identifies an old presentation by its judgment's token.
        return {"view": judging_view.past_view(translate, past, settings.current(self.store), token=self._token(past))}

    def correct(self, annotator: Annotator, translate: Translator, act: dict[str, Any]) -> Reply:
        """Saves a judgment that supersedes an earlier one. A correction that is sent twice is saved once."""
        judgment = None
        try:
            with self.store.atomic():
                past = self._own(annotator, act.get("judgment_id"))
                judgment = acts.judgment_arguments(act, past.order)
                corrected = judgments.correct(self.store, past.judgment, annotator.id, presentation=past.presentation, **judgment)
        except StoreError as error:
            problem = translate("compare.not_saved", why=problems.problem(translate, error))
            return self._corrected_already(annotator, translate, act, judgment) or {"problem": problem}
        return {"row": self._row(translate, history.after_correction(self.store, past, corrected)), "replaces": act["judgment_id"]}

    def _corrected_already(
        self, annotator: Annotator, translate: Translator, act: dict[str, Any], judgment: dict[str, Any] | None
    ) -> Reply | None:
        """The reply for a judgment that an earlier request has corrected: saved if it says the same, a problem otherwise.

        None if the judgment was not corrected.
        """
        judgment_id = self.tokens.open("judgment", act.get("judgment_id"), annotator.id)
        if judgment_id is None or judgment is None:
            return None
        later = history.correction_of(self.store, judgment_id)
        if later is None:
            return None
        row = self._row(translate, later)
        if judgments.says(self.store, later.judgment, **judgment):
            return {"row": row, "replaces": act["judgment_id"]}
        return {"problem": translate("history.corrected_already", verdict=row["verdict"]), "stored": row["id"]}

    def _own(self, annotator: Annotator, token: Any) -> PastJudgment:
        """The judgment of that token. Another annotator's judgment counts as missing."""
        judgment_id = self.tokens.open("judgment", token, annotator.id)
        if judgment_id is None:
            raise BadJudgment("There is no such judgment: reload the page.", "superseded")
        return history.get(self.store, judgment_id)

    def _row(self, translate: Translator, past: PastJudgment) -> dict[str, Any]:
        return judging_view.past_row(translate, past, token=self._token(past))

    def _token(self, past: PastJudgment) -> str:
        return self.tokens.seal("judgment", past.judgment.id, past.judgment.annotator_id)


def searchable(text: Any) -> str:
    """The search text without lone surrogates, which SQLite cannot take and no text contains."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""
