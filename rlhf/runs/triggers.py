"""Triggers: rounds that begin by themselves, once enough judgments are new, or at the times of a schedule. No torch.

Where a trigger stands follows from rows alone: the settings, the rounds, and what the triggers have queued. A trigger that fires queues a
round, `storage.project.queued_rounds`, and the row says what came of it. While a run trains or waits, or a version is not decided about, a
trigger that is due is held; it then fires once, however many times of the schedule have passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from rlhf.config import DEFAULT_PRESET, PRESETS, ConfigError, RoundConfig, options, with_options
from rlhf.runs import dry_run
from rlhf.runs.jobs import Jobs
from storage.core.clock import as_text
from storage.core.database import Database
from storage.core.records import ProjectSettings, QueuedRound
from storage.project import queued_rounds, rounds, runs, schedule, settings

TriggerName = Literal["judgments", "schedule"]
TRIGGERS: tuple[TriggerName, ...] = ("judgments", "schedule")

HoldReason = Literal["training", "queued", "undecided"]


@dataclass(frozen=True, slots=True)
class Hold:
    """Why no trigger fires now, though one may be due."""

    reason: HoldReason
    subject: str
    """The run that trains, the number of the queued round, or the number of the round that is not decided."""


@dataclass(frozen=True, slots=True)
class Triggers:
    """Where the triggers of a project stand."""

    after: int
    """New judgments after which a round begins; 0 if that trigger is off."""
    schedule: str
    """The cron expression; empty if that trigger is off."""
    new: int
    """Judgments since the newest round began."""
    counted: int
    """Those of them since the trigger for judgments last queued a round that did not begin: `after` of them make it due."""
    next_due: datetime | None
    """The first time of the schedule that no round has answered; it may have passed."""
    due: tuple[TriggerName, ...]
    hold: Hold | None
    last: QueuedRound | None
    """The newest round that a trigger queued."""

    @property
    def on(self) -> bool:
        return bool(self.after or self.schedule)


def options_of(preset: str, config: RoundConfig) -> dict[str, Any]:
    """What the setting `retrain_options` holds of a configuration: the preset's name and the options that differ from it."""
    usual = {option.name: option.default for option in options(PRESETS[preset])}
    return {"preset": preset} | {o.name: o.default for o in options(config) if o.default != usual[o.name]}


def config_of(chosen: Mapping[str, Any]) -> RoundConfig:
    """The configuration of the rounds that begin by themselves.

    Raises:
        ConfigError: there is no such preset or option, or an option has an invalid value.
    """
    preset = chosen.get("preset", DEFAULT_PRESET)
    if preset not in PRESETS:
        raise ConfigError(f"the options of triggered rounds name the preset {preset!r}, which there is not: save them again")
    return with_options(PRESETS[preset], {name: value for name, value in chosen.items() if name != "preset"})


def choose(
    store: Database, by: int | None, *, after: int | None = None, expression: str | None = None, chosen: Mapping[str, Any] | None = None
) -> None:
    """Changes the triggers, or the options of the rounds that they begin; what is None stays as it is.

    Raises:
        ConfigError: the options are not those of a round.
        StoreError: a value is out of its range; nothing was changed.
    """
    with store.atomic():
        before = settings.current(store)
        changed = replace(
            before,
            retrain_after_judgments=before.retrain_after_judgments if after is None else after,
            retrain_schedule=before.retrain_schedule if expression is None else " ".join(expression.split()),
            retrain_options=before.retrain_options if chosen is None else dict(chosen),
        )
        config_of(changed.retrain_options)
        if changed != before:
            settings.change(store, changed, by)


def state(store: Database, now: datetime) -> Triggers:
    """Where the triggers stand at this moment."""
    project = settings.current(store)
    after, expression = project.retrain_after_judgments, project.retrain_schedule
    if not (after or expression):
        return Triggers(0, "", 0, 0, None, (), None, None)
    new, counted = _counts(store, project)
    next_due = _next_due(store, expression) if expression else None
    due: list[TriggerName] = []
    if after and counted >= after:
        due.append("judgments")
    if next_due is not None and next_due <= now:
        due.append("schedule")
    last = queued_rounds.newest(store, TRIGGERS)
    return Triggers(after, expression, new, counted, next_due, tuple(due), _hold(store), last)


def _counts(store: Database, project: ProjectSettings) -> tuple[int, int]:
    """New judgments since the newest round began, and since the trigger for judgments last failed to begin one."""
    try:
        config = config_of(project.retrain_options)
    except ConfigError:
        # Firing says what is wrong with the options.
        config = RoundConfig()
    began = _newest_round(store)
    new = dry_run.new_judgments(store, config, began)
    failed = queued_rounds.newest(store, TRIGGERS[:1])
    if failed is None or failed.state not in ("not started", "taken out") or failed.ended_at is None:
        return new, new
    chosen_at = settings.unchanged_since(store, "retrain_after_judgments", "retrain_options")
    if failed.ended_at <= max(began or "", chosen_at or ""):
        return new, new
    return new, dry_run.new_judgments(store, config, failed.ended_at)


def _newest_round(store: Database) -> str | None:
    every = rounds.all_rounds(store)
    return every[-1].created_at if every else None


def _next_due(store: Database, expression: str) -> datetime:
    """The first time after the schedule was set, and after the newest round that a trigger queued: that one answers the times before."""
    answered = queued_rounds.newest(store, TRIGGERS)
    times = [settings.unchanged_since(store, "retrain_schedule")]
    if answered is not None:
        times += [answered.created_at, answered.ended_at]
    return schedule.next_after(expression, datetime.fromisoformat(max(filter(None, times))))


def _hold(store: Database) -> Hold | None:
    if active := runs.active(store):
        return Hold("training", active.id)
    if waiting := queued_rounds.waiting(store):
        return Hold("queued", str(waiting[0].id))
    undecided = rounds.open_rounds(store)
    return Hold("undecided", str(undecided[0].id)) if undecided else None


def fire(jobs: Jobs, now: datetime) -> QueuedRound | None:
    """Queues a round if a trigger is due and none is held, and begins it. Returns its row; None if nothing was due.

    One that cannot begin leaves the queue at once, with the reason in its row.
    """
    found = state(jobs.store, now)
    if not found.due or found.hold:
        return None
    with jobs.store.atomic():
        # Read again under the write lock: somebody may have started a round since, or a vote may have been undone.
        found = state(jobs.store, now)
        if not found.due or found.hold:
            return None
        asked = _queue(jobs.store, found, now)
    jobs.start_next()
    return queued_rounds.get(jobs.store, asked.id)


def _queue(store: Database, found: Triggers, now: datetime) -> QueuedRound:
    """Writes the row of the round. One that would be about nothing is refused at once."""
    trigger, chosen = found.due[0], settings.current(store).retrain_options
    config, reason = {}, None
    try:
        config = config_of(chosen).to_dict()
    except ConfigError as error:
        reason = str(error)
    if reason is None and not found.new:
        # The same votes would make the same version again, and people would be asked to compare it.
        reason = "no judgment is new" + (" since the newest round began" if rounds.all_rounds(store) else "")
    asked = queued_rounds.add(store, config, trigger=trigger, at=as_text(now))
    if reason is not None:
        queued_rounds.refuse(store, asked.id, reason)
    return asked


def revision(store: Database) -> tuple[object, ...]:
    """Changes with every act that could change where the triggers stand."""
    active = runs.active(store)
    return (*rounds.revision(store), *queued_rounds.revision(store), active.id if active else "")


class RoundStarter:
    """Begins the rounds whose turn it is and fires the triggers, for as long as `look` is called every few seconds."""

    def __init__(self, jobs: Jobs):
        self.jobs = jobs
        self._revision: tuple[object, ...] | None = None
        self._next: datetime | None = None

    def look(self, now: datetime | None = None) -> None:
        """Looks once. The triggers are looked at when the store has changed or a time of the schedule has come."""
        now = now or datetime.now(UTC)
        self.jobs.start_next()
        seen = revision(self.jobs.store)
        if seen == self._revision and (self._next is None or now < self._next):
            return
        found = state(self.jobs.store, now)
        if found.due and not found.hold:
            fire(self.jobs, now)
        # A time that has passed and is held waits for a change of the store, as the hold does.
        self._next = found.next_due if found.next_due is not None and found.next_due > now else None
        self._revision = seen
