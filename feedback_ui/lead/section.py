"""Shared parts of the Lead page's sections: their context, and tables whose buttons report their row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from feedback_ui.server.auth import Auth
from feedback_ui.shared import presenters
from feedback_ui.shared.listing import chosen as chosen
from feedback_ui.shared.listing import listing as listing
from rlhf.serving.client import PolicyClient
from storage.core.database import Database
from storage.people import annotators


@dataclass(frozen=True, slots=True)
class SectionContext:
    """The store, the policy server's client and the access checks that every section uses."""

    store: Database
    client: PolicyClient
    auth: Auth


def refusal(error: Exception, as_on_the_page: Callable[[str], str] = str) -> Markup:
    """The error's message as a notice. `as_on_the_page` names the options in it by the titles of their fields."""
    return presenters.notice(presenters.sentence(error, as_on_the_page), "bad")


def names(store: Database) -> dict[int, str]:
    """Annotators' names by id."""
    return {annotator.id: annotator.name for annotator in annotators.all_annotators(store)}
