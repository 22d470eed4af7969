"""The process of one training round: `python -m rlhf.worker --data DIR RUN_ID`.

Runs the round and writes to its row how it ended. The round itself is in `round`. A run of several processes is begun by one that
starts the others (`runs.rank_processes`), or by `accelerate launch` on each host; then rank 0 runs the round and the others follow.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import get_args

from rlhf.config import AtChance, ConfigError, RoundConfig
from rlhf.runs import rank_processes, scheduled_worker
from rlhf.runs.at_chance import StoppedAtChance
from rlhf.runs.jobs import HEARTBEAT_S
from rlhf.runs.progress import Cancelled, RunProgress
from rlhf.runs.results import RoundResult
from rlhf.serving import rollout_options
from storage.core import file_modes
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.core.records import RESUMABLE_STATUSES
from storage.project import runs

log = logging.getLogger("rankloop.worker")


class NotQueued(StoreError):
    """The run waits for no worker: another one has it, or it has ended."""


def work(
    store: Database,
    folder: DataFolder,
    run_id: str,
    on_change: Callable[[str, float, float | None], None] | None = None,
    reward: str | None = None,
    at_chance: AtChance | None = None,
    rollouts_key: Callable[[], str] = str,
    job: str | None = None,
) -> None:
    """Runs one round in this process and writes how it ended.

    Args:
        reward: the function that the command line names.
        at_chance: what to do where the reward model cannot be told from a coin, in place of the run's option.
        rollouts_key: reads the API key of the server that samples the rollouts.
        job: the id of the cluster's job that this process is.

    Raises:
        NotQueued: the run waits for no worker; nothing was changed.
        Exception: whatever ended the round, after its row says `failed`.
    """
    # A long write by another process, such as a restore, must not fail a round that has trained for hours.
    store.use_training_timeout()
    # After a crash the same run may have been given to two workers: one of them gets it.
    if not runs.claim(store, run_id, os.getpid(), job):
        raise NotQueued(
            f"run {run_id} is {runs.get(store, run_id).status}: only a queued run is begun, and only by the job that it was given to"
        )
    progress = RunProgress(store, run_id, on_change)
    try:
        with heartbeat(store, run_id):
            # This import takes seconds and fails where torch is broken: the row must show both.
            from rlhf.round import run_round

            version = run_round(store, folder, run_id, progress, reward, at_chance, rollouts_key())
        log.info("done: %s", version.name)
    except StoppedAtChance as stopped:
        progress.close_stage()
        result = RoundResult(heldout_accuracy=stopped.accuracy, stopped_at_chance=True)
        runs.finish(store, run_id, "cancelled", error=str(stopped), result=result.to_json())
        log.warning("%s", stopped)
        raise
    except (Cancelled, KeyboardInterrupt):
        progress.close_stage()
        runs.finish(store, run_id, "cancelled")
        log.info("cancelled; resume goes on from the last checkpoint")
        raise
    except Exception as error:
        progress.close_stage()
        runs.finish(store, run_id, "failed", error=f"{type(error).__name__}: {error}")
        raise


@contextmanager
def heartbeat(store: Database, run_id: str) -> Iterator[None]:
    """Writes a heartbeat to the run's row every few seconds, in a thread of its own."""
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(HEARTBEAT_S):
            try:
                runs.beat(store, run_id)
            except StoreError as error:
                # The store may be locked or full for a while; without further heartbeats the run would be marked lost.
                log.warning("no heartbeat written: %s", error)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def of_several_processes(store: Database, run_id: str) -> RoundConfig | None:
    """The options of a run that waits for several processes, which this one is to start; None where it trains itself."""
    run = runs.get(store, run_id)
    if rank_processes.started_by_launcher() or run.status != "queued":
        return None
    try:
        config = RoundConfig.from_dict(run.config)
    except ConfigError:
        # The worker that trains fails for this reason, and writes it into the run's row.
        return None
    return config if config.processes > 1 else None


def follow(device: str, reward: str | None) -> int:
    """Trains as one of several ranks, but not the first: without a store, as rank 0 says. Returns the exit status."""
    from rlhf.models import ranks
    from rlhf.stages import follow

    try:
        follow.follow(ranks.join(device), reward)
    except KeyboardInterrupt:
        return rank_processes.STOPPED
    except Exception as error:
        if "Connection closed by peer" in str(error):
            log.warning("rank %d ends, because another rank has ended", rank_processes.rank())
        else:
            log.exception("rank %d ends", rank_processes.rank())
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rlhf.worker", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the store")
    parser.add_argument("run_id")
    parser.add_argument("--at-chance", choices=get_args(AtChance), help="in place of the option of the run's row")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="the run's --device, for ranks other than 0")
    parser.add_argument("--resume", action="store_true", help="queue the run again if it has ended, as `rankloop train --resume` does")
    parser.add_argument("--reward", metavar="MODULE:FUNCTION", help="the reward function that the run's row must record")
    parser.add_argument("--job", help="the id of the cluster's job that this process is, as the run's row has it")
    parser.add_argument("--machine", default="", help="with --job: the machine that has the store, as `scheduled_worker.machine` names it")
    rollout_options.add_options(parser)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    # SIGTERM ends a run as Ctrl-C does: cancelled, and resumable.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.umask(file_modes.UMASK)
    if rank_processes.rank():
        return follow(arguments.device, arguments.reward)
    folder = DataFolder(arguments.data)
    if arguments.job and not rank_processes.started_by_launcher():
        try:
            scheduled_worker.require_store(folder, arguments.machine)
        except scheduled_worker.WrongMachine as error:
            log.error("the round cannot begin: %s", error)
            return 1
        scheduled_worker.copy_output(folder.run_log(arguments.run_id))
    store = Database(folder.database)
    try:
        if arguments.resume and runs.get(store, arguments.run_id).status in RESUMABLE_STATUSES:
            runs.requeue(store, arguments.run_id)
        if (config := of_several_processes(store, arguments.run_id)) is not None:
            command = [sys.executable, "-m", "rlhf.worker", *sys.argv[1:], "--device", config.device]
            return rank_processes.train(store, arguments.run_id, command, config.processes)
        key = partial(rollout_options.read, arguments)
        work(
            store,
            folder,
            arguments.run_id,
            reward=arguments.reward,
            at_chance=arguments.at_chance,
            rollouts_key=key,
            job=arguments.job,
        )
    except NotQueued as error:
        log.info("nothing to do: %s", error)
        return 0
    except (Cancelled, KeyboardInterrupt):
        return 130
    except Exception:
        log.exception("the round failed")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
