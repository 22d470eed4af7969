"""Project settings: overlap, leases, gold and repeat shares, the details that annotators are asked for, and what begins and decides rounds.

A change adds a version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import date
from functools import lru_cache

from storage.core import json_columns
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import ProjectSettings
from storage.project import schedule

MAX_OVERLAP = 20
MAX_ASPECTS = 8
MAX_SHARE = 0.5
MAX_NEW_SHARE = 0.9
"""Largest `base_share` and `deciding_share`: some new comparisons are always two samples of the current policy."""
MIN_HELDOUT, MAX_HELDOUT = 0.1, 0.2
"""Bounds of `heldout_share`: with less nothing can be measured, with more too little is left to learn from."""
MIN_ERROR, MAX_ERROR = 0.001, 0.2
MIN_DECIDING, MAX_DECIDING = 10, 5_000
MAX_DAILY_GOAL = 1_000
MAX_TARGET = 10_000_000
DAY = re.compile(r"\d{4}-\d\d-\d\d")

MAX_RETRAIN_AFTER = 1_000_000
MAX_OPTIONS_CHARS = 10_000

MIN_TEXT_LIMIT, MAX_TEXT_LIMIT = 1_000, 10_000_000
"""Bounds of the setting `text_max_chars`, the longest text that an import accepts, in characters."""

NO_SYSTEM_ROLE = "the chat template has no system role"
"""What the reason of a refusal contains where a system message was not folded, see `rlhf.models.chat_tokens`."""

_INTEGER_FIELDS = (
    "overlap", "lease_minutes", "aspect_scale", "rationale_min_chars", "text_max_chars", "deciding_annotators", "deciding_most",
    "daily_goal",
    "retrain_after_judgments", "target_judgments",
)  # fmt: skip

_SHARES = {
    "gold_share": (0, MAX_SHARE), "repeat_share": (0, MAX_SHARE), "base_share": (0, MAX_NEW_SHARE),
    "heldout_share": (MIN_HELDOUT, MAX_HELDOUT), "deciding_share": (0, MAX_NEW_SHARE), "deciding_error": (MIN_ERROR, MAX_ERROR),
}  # fmt: skip
"""The bounds of each fraction."""


def current(store: Database) -> ProjectSettings:
    """The newest version; the defaults before the first change, and while the newest row cannot be read."""
    text = store.value('SELECT "values" FROM settings ORDER BY id DESC LIMIT 1')
    return ProjectSettings() if text is None else _from_json(text)


# Each judgment reads the settings several times, and a project changes them a few times in its life.
@lru_cache(maxsize=16)
def _from_json(text: str) -> ProjectSettings:
    known = {field.name for field in fields(ProjectSettings)}
    try:
        values = {name: value for name, value in json_columns.from_json(text, dict, "The project's settings").items() if name in known}
        settings = _within(ProjectSettings(**values | {"aspects": tuple(values.get("aspects", ()))}))
        if reason := problem(settings):
            raise json_columns.Unreadable(f"The project's settings cannot be read: {reason}. Save them again.")
        return settings
    except (json_columns.Unreadable, TypeError) as error:
        json_columns.log.warning("%s The defaults are used until then.", error)
        return ProjectSettings()


def _within(stored: ProjectSettings) -> ProjectSettings:
    """The settings with the held-out share that is nearest to the stored one: rows from before its bounds hold 0 to 0.5."""
    if not isinstance(stored.heldout_share, int | float) or not 0 <= stored.heldout_share <= MAX_SHARE:
        return stored
    nearest = min(max(stored.heldout_share, MIN_HELDOUT), MAX_HELDOUT)
    if nearest != stored.heldout_share:
        json_columns.log.warning("The share on held-out prompts is %s and was stored as %s.", nearest, stored.heldout_share)
    return replace(stored, heldout_share=nearest)


def change(store: Database, settings: ProjectSettings, by: int | None) -> None:
    """Saves a new version of the settings. A new overlap also changes the votes wanted of the comparisons that exist already; turning
    `fold_system` on clears the refusals that came from its being off, so that the models are asked again.

    Raises:
        StoreError: a value is out of its range; nothing was changed.
    """
    if reason := problem(settings):
        raise StoreError(f"Settings not saved: {reason}.")
    with store.atomic() as connection:
        before = current(store)
        store.insert("settings", {"values": asdict(settings), "by_id": by, "created_at": now()})
        if settings.fold_system and not before.fold_system:
            connection.conn.execute("DELETE FROM prompt_refusals WHERE instr(reason, ?)", [NO_SYSTEM_ROLE])
        if settings.overlap != before.overlap:
            # With a lower overlap, comparisons that have enough votes stay closed; with a higher one they open again. None is wanted of
            # those that simulated annotators alone judge, and a batch may have said how many it wants.
            connection.conn.execute(
                "UPDATE comparisons SET wanted = ?1 WHERE retired = 0 AND gold = 0 AND wanted NOT IN (0, ?1) AND import_id IS NULL "
                "AND (batch_id IS NULL OR batch_id IN (SELECT id FROM batches WHERE wanted IS NULL))",
                [settings.overlap],
            )


def unchanged_since(store: Database, *names: str) -> str | None:
    """When these settings got the values that they have; None if no saved version has changed them."""
    since, values = None, None
    for row in store.rows('SELECT "values", created_at FROM settings ORDER BY id DESC'):
        then = _values(_from_json(row["values"]), names)
        if values is not None and then != values:
            return since
        since, values = row["created_at"], then
    return since if values != _values(ProjectSettings(), names) else None


def _values(settings: ProjectSettings, names: Sequence[str]) -> list[object]:
    return [getattr(settings, name) for name in names]


def problem(settings: ProjectSettings) -> str | None:
    """Why these settings are not allowed, as part of a sentence; None if they are."""
    for name in _INTEGER_FIELDS:
        if type(getattr(settings, name)) is not int:
            return f"{name} must be a whole number, not {getattr(settings, name)!r}"
    if not 1 <= settings.overlap <= MAX_OVERLAP:
        return f"overlap must be 1 to {MAX_OVERLAP} judgments, not {settings.overlap}"
    if not 1 <= settings.lease_minutes <= 24 * 60:
        return f"a lease lasts 1 minute to 24 hours, not {settings.lease_minutes} minutes"
    for name, (low, high) in _SHARES.items():
        if not low <= getattr(settings, name) <= high:
            return f"{name} must be {low} to {high}, not {getattr(settings, name)}"
    if not 1 <= settings.deciding_annotators <= MAX_OVERLAP:
        return f"deciding_annotators must be 1 to {MAX_OVERLAP}, not {settings.deciding_annotators}"
    if not MIN_DECIDING <= settings.deciding_most <= MAX_DECIDING:
        return f"deciding_most must be {MIN_DECIDING} to {MAX_DECIDING} comparisons, not {settings.deciding_most}"
    if len(settings.aspects) > MAX_ASPECTS or len(set(settings.aspects)) != len(settings.aspects):
        return f"aspects must be at most {MAX_ASPECTS} different names"
    if not all(isinstance(aspect, str) and aspect.strip() for aspect in settings.aspects):
        return "an aspect has no name"
    if not 2 <= settings.aspect_scale <= 10:
        return f"the highest rating must be 2 to 10, not {settings.aspect_scale}"
    if settings.rationale not in ("off", "optional", "required"):
        return f"rationale must be off, optional or required, not {settings.rationale!r}"
    for name in ("fold_system", "four_strengths"):
        if type(getattr(settings, name)) is not bool:
            return f"{name} must be true or false, not {getattr(settings, name)!r}"
    if not 0 <= settings.daily_goal <= MAX_DAILY_GOAL:
        return f"the daily goal must be 0 to {MAX_DAILY_GOAL} judgments, not {settings.daily_goal}"
    if settings.starters not in ("auto", "on", "off"):
        return f"starters must be auto, on or off, not {settings.starters!r}"
    if not 1 <= settings.rationale_min_chars <= 2000:
        return f"the shortest rationale must be 1 to 2000 characters, not {settings.rationale_min_chars}"
    if not MIN_TEXT_LIMIT <= settings.text_max_chars <= MAX_TEXT_LIMIT:
        return f"the longest text must be {MIN_TEXT_LIMIT} to {MAX_TEXT_LIMIT} characters, not {settings.text_max_chars}"
    return _problem_of_target(settings) or _problem_of_triggers(settings)


def _problem_of_target(settings: ProjectSettings) -> str | None:
    day = settings.target_date
    if not 0 <= settings.target_judgments <= MAX_TARGET:
        return f"the target must be 0 to {MAX_TARGET} judgments, not {settings.target_judgments}"
    if not isinstance(day, str) or (day and not _is_day(day)):
        return f"the day of the target must be written as 2026-12-12, not {day!r}"
    return "the day of the target needs a number of judgments" if day and not settings.target_judgments else None


def _is_day(text: str) -> bool:
    try:
        return DAY.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _problem_of_triggers(settings: ProjectSettings) -> str | None:
    if not 0 <= settings.retrain_after_judgments <= MAX_RETRAIN_AFTER:
        return f"retrain_after_judgments must be 0 to {MAX_RETRAIN_AFTER}, not {settings.retrain_after_judgments}"
    if not isinstance(settings.retrain_schedule, str):
        return f"retrain_schedule must be text, not {settings.retrain_schedule!r}"
    if settings.retrain_schedule and (reason := schedule.problem(settings.retrain_schedule)):
        return reason
    options = settings.retrain_options
    if not isinstance(options, dict) or not all(isinstance(value, str | int | float | None) for value in options.values()):
        return "retrain_options must be option names with a text, a number, true, false or null each"
    if len(to_json(options)) > MAX_OPTIONS_CHARS:
        return f"retrain_options must have at most {MAX_OPTIONS_CHARS:,} characters"
    return None
