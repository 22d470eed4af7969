"""Error messages for annotators: without ids of the store, and with the answers' names as the page shows them.

Leads and researchers get the store's own messages instead, because they may see ids.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from feedback_ui.shared.i18n import Translator
from storage.core.database import StoreError, StoreFilesGone, StoreLocked
from storage.judging.details import BadJudgment

log = logging.getLogger("rankloop.judging")


def problem(translate: Translator, error: StoreError) -> str:
    """What went wrong and what to do. A failure of the store itself is logged in full."""
    if isinstance(error, BadJudgment):
        return translate(f"judging.{error.problem}", **_shown_values(translate, error.values))
    log.warning("the store failed; an annotator was shown an error", exc_info=error)
    if isinstance(error, StoreFilesGone):
        return translate("visitor.files_gone")
    return translate("judging.busy" if isinstance(error, StoreLocked) else "judging.store_failed")


def slot_name(slot: int, shown: int) -> str:
    """An answer's name on the page: A or B of two answers, a number of more."""
    return "AB"[slot] if shown == 2 else str(slot + 1)


def _shown_values(translate: Translator, values: dict[str, Any]) -> dict[str, Any]:
    shown = {name: f"{value:,}" if isinstance(value, int) else value for name, value in values.items()}
    if "slots" in values:
        shown["answers"] = _names(values["slots"], values["shown"])
    if "field" in values:
        shown["field"] = translate(f"judging.field.{values['field']}")
    return shown


def _names(slots: Sequence[int], shown: int) -> str:
    return ", ".join(slot_name(slot, shown) for slot in slots)
