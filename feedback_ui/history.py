"""The History page: an annotator finds their own judgments again and corrects them.

A correction is a judgment of its own that supersedes the earlier one, which stays in the store.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from feedback_ui import acts, judging_view
from feedback_ui.compare import answered
from feedback_ui.component import judging_component
from feedback_ui.errors import public
from feedback_ui.gate import Gate
from feedback_ui.words import Words
from storage import history, judgments, settings
from storage.database import Database, StoreError
from storage.judgments import BadJudgment
from storage.records import Annotator, PastJudgment

Reply = dict[str, Any]

PAGE_ROWS = 20


def build(store: Database, gate: Gate) -> gr.HTML:
    """The page's one component. Gradio publishes its functions by name and finds the request by its annotation."""
    archive = Archive(store)
    ask = partial(answered, gate)

    def past_judgments(filters: dict[str, Any], request: gr.Request) -> Reply:
        return ask(request, archive.rows, filters)

    def past_judgment(data: dict[str, Any], request: gr.Request) -> Reply:
        return ask(request, archive.one, data)

    def correct(act: dict[str, Any], request: gr.Request) -> Reply:
        return ask(request, archive.correct, act)

    return judging_component("history", [past_judgments, past_judgment, correct])


class Archive:
    """What an annotator may see of, and say about, the judgments they gave."""

    def __init__(self, store: Database):
        self.store = store

    def rows(self, annotator: Annotator, words: Words, filters: dict[str, Any]) -> Reply:
        """A page of judgments, newest first, and whether there are older ones."""
        verdict, before, text = filters.get("verdict"), filters.get("before"), filters.get("text")
        found = history.of_annotator(
            self.store,
            annotator.id,
            verdict=verdict if verdict in ("rank", "skip") else None,
            flagged=bool(filters.get("flagged")),
            excluded=bool(filters.get("excluded")),
            text=text if isinstance(text, str) else "",
            before_id=before if type(before) is int else None,
            limit=PAGE_ROWS + 1,
        )
        shown = found[:PAGE_ROWS]
        return {
            "rows": [judging_view.past_row(words, past) for past in shown],
            "older": shown[-1].judgment.id if len(found) > PAGE_ROWS else None,
        }

    def one(self, annotator: Annotator, words: Words, data: dict[str, Any]) -> Reply:
        """One judgment, to be read or corrected."""
        try:
            past = self._own(annotator, words, data.get("judgment_id"))
        except StoreError as error:
            return {"problem": public(error)}
        return {"view": judging_view.past_view(words, past, settings.current(self.store))}

    def correct(self, annotator: Annotator, words: Words, act: dict[str, Any]) -> Reply:
        """Saves what is said now in the place of what was said; sent twice, it is corrected once."""
        try:
            with self.store.atomic():
                past = self._own(annotator, words, act.get("judgment_id"))
                said = acts.judged(act, past.order)
                corrected = judgments.correct(self.store, past.judgment.id, annotator.id, **said)
        except StoreError as error:
            return self._sent_before(annotator, words, act) or {"problem": words("compare.not_saved", why=public(error))}
        return {"row": judging_view.past_row(words, history.get(self.store, corrected.id)), "replaces": past.judgment.id}

    def _sent_before(self, annotator: Annotator, words: Words, act: dict[str, Any]) -> Reply | None:
        """The correction that an earlier try has made, whose reply was lost."""
        for newest in history.of_annotator(self.store, annotator.id, limit=1):
            if newest.judgment.supersedes is not None and newest.judgment.supersedes == act.get("judgment_id"):
                return {"row": judging_view.past_row(words, newest), "replaces": newest.judgment.supersedes}
        return None

    def _own(self, annotator: Annotator, words: Words, judgment_id: Any) -> PastJudgment:
        """Somebody else's is as good as not there."""
        past = history.get(self.store, judgment_id) if type(judgment_id) is int else None
        if past is None or past.judgment.annotator_id != annotator.id:
            raise BadJudgment(words("history.not_there"))
        return past
