"""`kill -9` of the web process, the policy server and a training worker, in turn at random moments: `python benchmarks/kill_every.py`.

Annotators judge all the time, as in `benchmarks/kill9.py`, and a real round trains a tiny model. What was acknowledged must be
in the database once and unchanged; the policy server must start again; the run must become `lost`, and continue from
its last checkpoint when it is resumed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.annotating import LoadTest
from benchmarks.figures import machine, verdict
from benchmarks.invariants import problems
from benchmarks.kill9 import AnnotatorThread, check_database
from rlhf.config import PRESETS, RoundConfig, with_options
from rlhf.runs.jobs import Jobs
from storage.content import prompts
from storage.project import runs
from tests.browser.program import eventually
from tests.support.votes import rule_votes

VICTIMS = ("web", "policy server", "worker")

STEPS = 100_000
"""Steps of PPO: more than are taken before the last kill."""


@dataclass
class Outcome:
    """The counts of all kills."""

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    lost: int = 0
    broken: list[str] = field(default_factory=list)
    resumed_at: list[tuple[int, int]] = field(default_factory=list)
    """For each kill of the worker, the last step before it and the first after the resume."""


class Scene:
    """The served program, its annotators, and a training round."""

    def __init__(self, folder: Path, *, people: int, comparisons: int):
        self.room = LoadTest(folder, people=people, comparisons=comparisons, overlap=2, lease_minutes=1)
        self.store = self.room.program.store
        self.jobs = Jobs(self.store, self.room.program.folder)
        self.outcome = Outcome()

    def begin(self) -> None:
        self.room.start()
        rule_votes(self.store, self.room.program.model, 8)
        heldout = [prompts.NewPrompt(({"role": "user", "content": f"Held out {n}?"},), split="heldout") for n in range(3)]
        prompts.add(self.store, heldout, source="benchmark")
        self.run_id = self.jobs.start(self._config()).id
        self._until_step(1)
        self.judging = AnnotatorThread(self.room.annotators)

    def _config(self) -> RoundConfig:
        tiny = with_options(PRESETS["tiny"], {"ppo-steps": STEPS, "min-pairs": 4, "include-simulated": True, "device": "cpu"})
        return replace(tiny, model=str(self.room.program.model))

    def kill(self, victim: str) -> None:
        """Kills the process, checks the database, and waits until the process works again."""
        getattr(self, f"_kill_{victim.replace(' ', '_')}")()
        self.outcome.kills[victim] += 1

    def _kill_web(self) -> None:
        self.room.program.kill()
        self.outcome.broken += check_database(self.room, self.judging)[0]
        self.room.start()

    def _kill_policy_server(self) -> None:
        before = eventually(self.room.program.policy_server, "a policy server", within_s=120)
        before.kill()
        eventually(
            lambda: (now := self.room.program.policy_server()) and now.pid != before.pid, "another policy server", within_s=180
        )  # fmt: skip
        self._compare()

    def _kill_worker(self) -> None:
        last = self._step()
        os.kill(runs.get(self.store, self.run_id).pid, signal.SIGKILL)
        eventually(lambda: runs.get(self.store, self.run_id).status == "lost", "the run is lost", within_s=120)
        checkpointed = self._step()
        self.jobs.resume(self.run_id)
        self._until_step(checkpointed + 1)
        self.outcome.resumed_at.append((last, self._step()))
        self._compare()

    def _compare(self) -> None:
        self.outcome.broken += self.room.reconcile(list(self.judging.tally.acknowledged)).wrong

    def _step(self) -> int:
        return self.store.value("SELECT coalesce(max(step), 0) FROM metrics WHERE run_id = ? AND name = 'objective/scores'", [self.run_id])

    def _until_step(self, step: int) -> None:
        def reached() -> bool:
            run = runs.get(self.store, self.run_id)
            assert run.status in ("queued", "running"), f"{run.status}: {run.error}\n{self.jobs.log_tail(self.run_id)}"
            return self._step() >= step

        eventually(reached, f"step {step} of the round", within_s=300)

    def end(self) -> Outcome:
        """Stops the annotators, cancels the round, and compares all judgments."""
        self.judging.stop()
        self.jobs.cancel(self.run_id)
        eventually(lambda: runs.get(self.store, self.run_id).status == "cancelled", "the round is cancelled", within_s=120)
        self.room.program.stop()
        wrong = self.room.reconcile(list(self.judging.tally.acknowledged)).wrong
        self.outcome.acknowledged, self.outcome.lost = len(self.judging.tally.acknowledged), len(wrong)
        self.outcome.broken += wrong + problems(self.room.database)
        return self.outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how often, in turn of web process, policy server and worker")
    parser.add_argument("--people", type=int, default=10, help="number of concurrent annotators")
    parser.add_argument("--comparisons", type=int, default=6000, help="comparisons prepared")
    parser.add_argument("--longest", type=float, default=6.0, help="longest time between one kill and the next, in seconds")
    parser.add_argument("--seed", type=int, help="seed of the random moments; random by default")
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        scene = Scene(Path(name), people=args.people, comparisons=args.comparisons)
        try:
            outcome = measure(scene, args.kills, args.longest, random.Random(args.seed))
        finally:
            scene.room.end()
    kills = ", ".join(f"{number} of the {victim}" for victim, number in outcome.kills.items())
    print(f"kills: {kills}; {outcome.acknowledged:,} acknowledged, {outcome.lost} of them lost")
    print(f"the round went on after each kill, (last step before, step after the resume): {outcome.resumed_at}")
    for broken in outcome.broken:
        print(f"  {broken}")
    print(f"nothing lost or broken: {verdict(not outcome.broken)}")
    return 1 if outcome.broken else 0


def measure(scene: Scene, kills: int, longest_s: float, rng: random.Random) -> Outcome:
    """Kills the processes in turn, `kills` times, while the annotators judge."""
    scene.begin()
    try:
        for number in range(kills):
            time.sleep(rng.uniform(0.1, longest_s))
            victim = VICTIMS[number % len(VICTIMS)]
            began = time.monotonic()
            scene.kill(victim)
            acknowledged = len(scene.judging.tally.acknowledged)
            print(
                f"{number + 1:4}  {victim:13}  {acknowledged:8,} acknowledged  restarted after {time.monotonic() - began:.1f} s", flush=True
            )
    except BaseException:
        scene.judging.stop()
        raise
    return scene.end()


if __name__ == "__main__":
    sys.exit(main())
