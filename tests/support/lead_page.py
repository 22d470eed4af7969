"""The Lead page as a test calls it: visitors, presses of a button in a table, answers to gold comparisons."""

from types import SimpleNamespace

import gradio as gr

from feedback_ui.shared.i18n import Translator
from storage.judging import judgments, presentations
from storage.people import accounts

EN, KO = Translator("en"), Translator("ko")


def asking(language="en", **cookies):
    return SimpleNamespace(headers={"accept-language": language}, cookies=cookies)


HERE = asking()


def pressed(act, row):
    """A click on a button in a table's row."""
    return gr.EventData(None, {"act": act, "row": row})


def sign_in(store, auth, name, *roles):
    accounts.create(store, name, "long enough", roles)
    return asking(**{auth.cookie: accounts.sign_in(store, name, "long enough")})


def meet_gold(store, annotator, comparison, order):
    """Judges a gold comparison as if the queue had chosen it for this annotator."""
    shown = presentations.record(store, comparison, annotator.id, purpose="gold")
    tiers = tuple((comparison.completions[place].id,) for place in order)
    return judgments.save(store, shown.id, annotator.id, verdict="rank", tiers=tiers)
