"""Starts, queues, cancels, resumes and reaps rounds. Each round is a process of its own, and one trains at a time. No torch here.

A run's row is written before its process starts, so that every started run has a row. A round that is asked for while another one
trains waits in the queue, `storage.project.queued_rounds`; any process may begin the next one, and one of them does. Where the process
runs is the scheduler's matter (`scheduler`).
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from rlhf import model_files
from rlhf.config import AtChance, ConfigError, RoundConfig, check
from rlhf.data import demonstrations, pairs
from rlhf.data.pairs import NotEnoughPairs
from rlhf.runs import log_text, policy_start
from rlhf.runs.scheduler import LocalProcesses, Look, OutOfSight, Scheduler
from rlhf.safe_files import ModelError
from storage.content import policies
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.core.records import ACTIVE_STATUSES, QueuedRound, RoundJudges, RoundTrigger, Run
from storage.project import queued_rounds, rounds, runs

log = logging.getLogger("rankloop.jobs")

HEARTBEAT_S = 3.0
"""Interval of a worker's heartbeat, in seconds."""

STALE_S = 60.0
"""Age of the last heartbeat, in seconds, at which a run is marked lost."""

ORPHAN_S = 10.0
"""Seconds after which a run that left the queue and has no worker is given one: the process that was about to start it is gone."""

RECORDED_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets")

LOG_TAIL_BYTES = 64 * 1024


class RoundError(Exception):
    """A round cannot be started, resumed or cancelled; the message says why and what to do."""


class Jobs:
    """The rounds of one store, whose workers a scheduler starts: processes of this machine, unless another one is named."""

    def __init__(self, store: Database, folder: DataFolder, scheduler: Scheduler | None = None):
        self.store, self.folder = store, folder
        self.scheduler: Scheduler = scheduler or LocalProcesses()
        self._hindrance = ""

    def start(
        self, config: RoundConfig, by: int | None = None, *, trigger: RoundTrigger = "hand", judges: RoundJudges = "people"
    ) -> Run | QueuedRound:
        """Starts a round whose reward needs no code, or queues it while another one trains or waits.

        Args:
            by: the person who asked for it.
            judges: whose comparisons decide about the policy version that it makes.

        Raises:
            RoundError: the configuration names a reward function, the round could not begin, or no worker can be started now.
            NotEnoughPairs: there are fewer preference pairs than the configuration asks for.
            ConfigError: an option is invalid, or two options contradict each other.
        """
        require_startable(self.store, config)
        self.require_scheduler()
        asked = queued_rounds.add(self.store, config.to_dict(), trigger=trigger, judges=judges, by=by)
        self.start_next()
        asked = queued_rounds.get(self.store, asked.id)
        if asked.reason is not None:
            raise RoundError(asked.reason)
        return asked if asked.run_id is None else runs.get(self.store, asked.run_id)

    def start_next(self) -> None:
        """Starts the round whose turn it is, if none trains. Call it as often as you like, in as many processes: each round starts once.

        A round that cannot start leaves the queue with the reason, and the next one has its turn.
        """
        self.reap()
        if (orphan := self._adopt()) is not None or (orphan := self._begin_next()) is not None:
            self._start_worker(orphan)

    def _adopt(self) -> str | None:
        """The run that left the queue while its process died before a worker was started, queued again."""
        run_id = queued_rounds.without_worker(self.store, ORPHAN_S)
        if run_id is None or self._hindered():
            return None
        with self.store.atomic():
            if runs.get(self.store, run_id).status != "lost":
                return run_id
            if runs.active(self.store) is not None:
                return None
            return runs.requeue(self.store, run_id).id

    def _begin_next(self) -> str | None:
        """Makes the first round of the queue that can start a run, and returns its id; None while another run is active."""
        for asked in queued_rounds.waiting(self.store):
            if runs.active(self.store) is not None or self._hindered():
                return None
            try:
                config = self._readable(asked)
                require_startable(self.store, config)
            except (ConfigError, NotEnoughPairs, RoundError) as error:
                if queued_rounds.refuse(self.store, asked.id, str(error)):
                    log.warning("queued round %d was not started: %s", asked.id, error)
                continue
            with self.store.atomic():
                # Read again under the write lock: another process may have begun this round or another one.
                if runs.active(self.store) is not None or queued_rounds.get(self.store, asked.id).state != "waiting":
                    return None
                run = self._write(config, asked.by_id, asked.trigger, asked.judges)
                queued_rounds.begin(self.store, asked.id, run.id)
            return run.id
        return None

    def require_scheduler(self) -> None:
        """Raises RoundError while no worker can be started."""
        if hindrance := self.scheduler.hindrance():
            raise RoundError(hindrance)

    def _hindered(self) -> bool:
        """Whether rounds wait because no worker can be started; the reason is logged once."""
        before, self._hindrance = self._hindrance, self.scheduler.hindrance()
        if self._hindrance and self._hindrance != before:
            log.warning("rounds wait: %s", self._hindrance)
        return bool(self._hindrance)

    @staticmethod
    def _readable(asked: QueuedRound) -> RoundConfig:
        if asked.problem:
            raise RoundError(asked.problem)
        return RoundConfig.from_dict(asked.config)

    def _start_worker(self, run_id: str) -> None:
        try:
            self.spawn(run_id)
        except RoundError as error:
            log.warning("%s", error)
        queued_rounds.record_worker(self.store, run_id)

    def create(self, config: RoundConfig, by: int | None = None, *, trigger: RoundTrigger = "hand", judges: RoundJudges = "people") -> Run:
        """Checks what can be checked without a model, and writes the rows of a round and its queued run.

        Args:
            by: the annotator who started it.
            judges: whose comparisons decide about the policy version that it makes.
        """
        require_material(self.store, config)
        self.require_scheduler()
        self.reap()
        with self.store.atomic():
            refuse_second(self.store)
            return self._write(config, by, trigger, judges)

    def _write(self, config: RoundConfig, by: int | None, trigger: RoundTrigger, judges: RoundJudges) -> Run:
        """Writes the rows. Call it inside `atomic`."""
        run_id = f"r{datetime.now(UTC):%m%d-%H%M}-{secrets.token_hex(2)}"
        versions = {name: version(name) for name in RECORDED_PACKAGES}
        run = runs.create(self.store, run_id, config=config.to_dict(), seed=config.seed, versions=versions, by=by)
        policies.ensure_base(self.store, config.model, name=model_files.display_name(config.model))
        baseline = rounds.current(self.store, config.model)
        rounds.create(self.store, run_id, trigger=trigger, judges=judges, baseline=baseline)
        return run

    def resume(self, run_id: str, *, go_on: bool = False) -> Run:
        """Resumes a run that failed, was cancelled or was lost, from its last checkpoint, at a page's request.

        Args:
            go_on: the policy is to be trained although the reward model cannot be told from a coin.

        Raises:
            RoundError: the run has another status, it names a reward function, another round is running, or no worker can be started.
            ConfigError: the run's options cannot be read.
        """
        config = RoundConfig.from_dict(runs.readable(self.store, run_id).config)
        _refuse_code(config.reward_function, f"rankloop train --resume {run_id}")
        self.requeue(run_id)
        if go_on:
            self.spawn(run_id, at_chance="continue")
        else:
            self.spawn(run_id)
        return runs.get(self.store, run_id)

    def requeue(self, run_id: str) -> None:
        self.require_scheduler()
        self.reap()
        with self.store.atomic():
            refuse_second(self.store)
            try:
                runs.requeue(self.store, run_id)
            except StoreError as error:
                raise RoundError(str(error)) from error

    def cancel(self, run_id: str) -> None:
        """Asks the worker to stop; it does so within seconds, and the run can be resumed. One that has not begun is stopped by `reap`."""
        runs.request_cancel(self.store, run_id)

    def reap(self) -> list[str]:
        """Ends the runs whose worker is gone without having written how the run ended. Returns their ids."""
        ended, kept = [], []
        for run in runs.all_runs(self.store):
            if run.status not in ACTIVE_STATUSES:
                continue
            found = self._look(run)
            if found.state == "alive":
                runs.beat(self.store, run.id)
            if found.state in ("alive", "kept"):
                kept.append(run.id)
            elif found.state == "ended" and self._end(run, found):
                ended.append(run.id)
        return ended + runs.mark_stale_lost(self.store, STALE_S, kept)

    def _look(self, run: Run) -> Look:
        if run.job is None:
            return LocalProcesses().look(self.store, self.folder, run)
        return (self.scheduler if self.scheduler.knows(run) else OutOfSight()).look(self.store, self.folder, run)

    def _end(self, run: Run, found: Look) -> bool:
        """Writes how a run ended, unless its worker has, or another attempt has begun, since it was looked at."""
        with self.store.atomic():
            now = runs.get(self.store, run.id)
            same = (now.status, now.pid, (now.job or {}).get("id")) == (run.status, run.pid, (run.job or {}).get("id"))
            if same:
                runs.finish(self.store, run.id, found.status, error=found.error)
        return same

    def log_tail(self, run_id: str, lines: int = 40) -> str:
        """The last lines of the worker's log, without progress bars and the warnings of libraries; empty where there is no log."""
        try:
            with self.folder.run_log(run_id).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
                return "\n".join(log_text.readable(file.read().decode("utf-8", "replace")).splitlines()[-lines:])
        except (OSError, StoreError):
            return ""

    def spawn(self, run_id: str, reward: str | None = None, *, at_chance: AtChance | None = None, more: Sequence[str] = ()) -> None:
        """Starts the worker of a run whose row exists.

        Args:
            reward: the function that the command line names, if any.
            at_chance: what to do where the reward model cannot be told from a coin, in place of the run's option.
            more: further arguments of the worker, which name where a key is.

        Raises:
            RoundError: it could not be started; the run has failed.
        """
        options = [*(["--reward", reward] if reward else []), *(["--at-chance", at_chance] if at_chance else []), *more]
        try:
            self.scheduler.start(self.store, self.folder, run_id, options)
        except OSError as error:
            reason = f"its worker could not be started: {error}"
            runs.finish(self.store, run_id, "failed", error=reason)
            raise RoundError(f"{run_id} failed: {reason}") from error


def require_material(store: Database, config: RoundConfig) -> None:
    """Checks what can be checked of a round without a model: its options, and that there is enough to learn from.

    Raises:
        ConfigError, NotEnoughPairs: the message has cause and remedy.
    """
    check(config)
    policy_start.of_new_round(store, config)
    if config.reward.model_path:
        try:
            model_files.outside_reward_model(config.reward.model_path)
        except ModelError as error:
            raise ConfigError(f"--reward-model-path {error}") from error
    if demonstrations.wanted(config):
        demonstrations.require(demonstrations.of_store(store, include_simulated=config.include_simulated), config)
    pairs.require_in_store(store, config.reward.min_pairs, include_simulated=config.include_simulated, demo_votes=config.demo_votes)


def require_startable(store: Database, config: RoundConfig) -> None:
    """As `require_material`, of a round that a page, the queue or a trigger starts: those run no code.

    Raises:
        RoundError: the configuration names a reward function.
        ConfigError, NotEnoughPairs: the message has cause and remedy.
    """
    _refuse_code(config.reward_function, "rankloop train")
    require_material(store, config)


def refuse_second(store: Database) -> None:
    """Raises RoundError while a round is queued or running."""
    if active := runs.active(store):
        raise RoundError(f"{active.id} is {active.status}: wait for it, or cancel it first.")


def _refuse_code(named: str | None, command: str) -> None:
    if named:
        raise RoundError(
            f"This run is scored by the Python function {named}, and no page runs code: use the command line, {command} --reward {named}."
        )
