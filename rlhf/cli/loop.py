"""The verb `loop`: closed rounds without people, each from simulated votes to a decision."""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from rlhf import model_files
from rlhf.analysis import round_story
from rlhf.cli import report, rounds_report
from rlhf.cli.rounds import add_judging, add_round_options, chosen_config, failure_report, follow, judging_plan
from rlhf.cli.terminal import UsageError, Verbs, fetch_weights, open_store
from rlhf.config import RoundConfig
from rlhf.runs import ray_jobs
from rlhf.runs.jobs import Jobs
from rlhf.simulation import closed_loop
from rlhf.simulation.simulate import Plan, SimulationError
from storage.core import folder_lock
from storage.core.data_folder import DataFolder
from storage.core.database import Database, to_json
from storage.core.records import RESUMABLE_STATUSES, Round
from storage.project import rounds, runs

if TYPE_CHECKING:
    from rlhf.generation.policy_service import PolicyService

ATTEMPTS = 2
"""Times that a round's worker is started in one call: one that died, or that was never started, is started once more."""


def add(verbs: Verbs) -> None:
    p = verbs.add("loop", loop)
    p.add_argument("--rounds", type=int, default=3, help="how many decided rounds the folder has at the end, earlier ones counted")
    p.add_argument("--votes", type=int, default=600, help="simulated judgments that each round adds before it trains")
    add_judging(p)
    ray_jobs.add_options(p)
    add_round_options(p, leave_out=["include-simulated", "demo-votes"])
    p.set_defaults(reward=None)


def loop(args: argparse.Namespace) -> int:
    """Closed rounds without people: simulated votes, training, and a decision by simulated comparisons. Run again, it goes on."""
    config = replace(chosen_config(args), include_simulated=True)
    plan = judging_plan(args, args.votes, config.seed)
    workers = ray_jobs.from_options(args)
    if args.rounds < 1 or args.votes < 1:
        raise UsageError("--rounds and --votes must be at least 1")
    with folder_lock.exclusive(DataFolder(args.data.absolute()), "loop"):
        folder, store = open_store(args.data)
        fetch_weights(config.model)
        closed = ClosedLoop(store, Jobs(store, folder, workers), config, plan)
        closed.jobs.require_scheduler()
        try:
            closed.run(args.rounds)
        except SimulationError as error:
            raise UsageError(str(error)) from error
        except KeyboardInterrupt:
            print("stopped, and nothing is lost: the same command goes on from here", flush=True)
            return 130
    return 0


class ClosedLoop:
    """The rounds of one folder, one after another. What is done is read from the store at each step, so that any step may be the first."""

    def __init__(self, store: Database, jobs: Jobs, config: RoundConfig, plan: Plan):
        self.store, self.jobs, self.config, self.plan = store, jobs, config, plan

    def run(self, wanted: int) -> None:
        """Finishes rounds until `wanted` are decided, and prints their table, of however many there are."""
        closed_loop.require_simulated_alone(self.store, self.plan)
        try:
            while (number := len(self._decided()) + 1) <= wanted:
                print(f"round {number} of {wanted}", flush=True)
                self._decide(self._train(self._undecided() or self._begin()))
        finally:
            print(self._table(), flush=True)

    def _decided(self) -> list[Round]:
        return [one for one in closed_loop.rounds_of(self.store, self.config.model) if one.decision is not None]

    def _undecided(self) -> Round | None:
        """The round that an earlier call left. One that failed with other options than now is left as it is, and a new one begins."""
        for one in closed_loop.rounds_of(self.store, self.config.model):
            if one.is_open:
                return one
        found = closed_loop.unfinished(self.store, self.config.model)
        if found is None or found.status not in RESUMABLE_STATUSES:
            return found
        # As its row holds them: JSON has no tuples.
        options = json.loads(to_json(self.config.to_dict()))
        return found if runs.get(self.store, found.run_id).config == options else None

    def _begin(self) -> Round:
        """Collects the votes, writes the rows of the round, and starts its worker."""
        self._collect()
        release_memory()
        run = self.jobs.create(self.config, trigger="loop", judges="simulated")
        print(f"run {run.id}", flush=True)
        self.jobs.spawn(run.id)
        found = rounds.of_run(self.store, run.id)
        assert found is not None, "a run is created with its round"
        return found

    def _collect(self) -> None:
        if closed_loop.votes_missing(self.store, self.config.model, self.plan.judgments):
            service = self._service()
            with _bar("votes", self.plan.judgments) as progress:
                closed_loop.collect(self.store, service.generate, service.base, self.plan, progress)

    def _train(self, found: Round) -> Round:
        """Follows the round's worker to its end, and starts it again where it was stopped. Ctrl-C cancels it."""
        for _ in range(ATTEMPTS):
            if found.status == "done":
                return found
            self.jobs.reap()
            if runs.get(self.store, found.run_id).status in RESUMABLE_STATUSES:
                self.jobs.requeue(found.run_id)
                self.jobs.spawn(found.run_id)
            follow(self.store, self.jobs, found.run_id)
            found = rounds.get(self.store, found.id)
            if found.status == "cancelled":
                raise KeyboardInterrupt
            if found.status == "done":
                run = runs.get(self.store, found.run_id)
                print(report.table(run, runs.metrics(self.store, run.id)), flush=True)
                return found
            if found.status == "failed":
                break
        raise UsageError(failure_report(runs.get(self.store, found.run_id), self.jobs))

    def _decide(self, found: Round) -> None:
        if found.is_open:
            service = self._service()
            with _bar("comparisons", None) as progress:
                closed_loop.decide(self.store, service.generate, found, self.plan, progress)
        for made in round_story.of_round(self.store, found.id).decisions:
            print(f"decision: {rounds_report.in_words(made)}", flush=True)

    def _table(self) -> str:
        rows = [
            (round_story.of_round(self.store, one.id), closed_loop.votes_used(self.store, one))
            for one in closed_loop.rounds_of(self.store, self.config.model)
        ]
        return rounds_report.closed_rounds([(story, votes.learned, votes.decided) for story, votes in rows])

    def _service(self) -> PolicyService:
        """What writes the answers."""
        from rlhf.generation.policy_service import PolicyService
        from rlhf.models.backbone import Backbone

        config = self.config
        backbone = Backbone.load(model_files.resolve(config.model), config.device, config.dtype, load_in_4bit=config.load_in_4bit)
        return PolicyService(self.store, self.config.model, backbone)


def release_memory() -> None:
    """Frees the model that wrote the answers before a worker loads its own."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """A terminal bar; the number that is aimed at may change."""
    with tqdm(total=total, unit=what, desc=what) as bar:

        def show(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield show
