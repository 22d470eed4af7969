"""Why something was not saved, in an annotator's words: no ids of the store, and answers by the names that the page shows.

Leaves out what leads and researchers read: they may know ids, and get the store's own messages.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from feedback_ui.shared.i18n import Translator
from storage.core.database import StoreError, StoreLocked
from storage.judging.details import BadJudgment

log = logging.getLogger("rankloop.judging")


def problem(words: Translator, error: StoreError) -> str:
    """What went wrong and what to do. What the store itself could not do goes to the log in full."""
    if isinstance(error, BadJudgment):
        return words(f"judging.{error.problem}", **_said(words, error.values))
    log.warning("an annotator was told that the store failed", exc_info=error)
    return words("judging.busy" if isinstance(error, StoreLocked) else "judging.store_failed")


def slot_name(slot: int, shown: int) -> str:
    """What the page calls an answer: A and B of two, numbers of more."""
    return "AB"[slot] if shown == 2 else str(slot + 1)


def _said(words: Translator, values: dict[str, Any]) -> dict[str, Any]:
    said = {name: f"{value:,}" if isinstance(value, int) else value for name, value in values.items()}
    if "slots" in values:
        said["answers"] = _names(values["slots"], values["shown"])
    if "field" in values:
        said["field"] = words(f"judging.field.{values['field']}")
    return said


def _names(slots: Sequence[int], shown: int) -> str:
    return ", ".join(slot_name(slot, shown) for slot in slots)
