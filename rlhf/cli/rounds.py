"""Rounds: simulated judgments to try one on, one followed until it ends, and those that were."""

from __future__ import annotations

import argparse
import contextlib
import time
from dataclasses import replace

from tqdm import tqdm

from rlhf import model_files
from rlhf.analysis.run_table import MISREAD
from rlhf.cli import report
from rlhf.cli.terminal import UsageError, Verbs, engine_options, fetch_weights, model_reference, open_store, round_bar
from rlhf.config import DEFAULT_PRESET, PRESETS, Option, RoundConfig, options, with_options
from rlhf.runs import reward_function
from rlhf.runs.jobs import Jobs
from rlhf.simulation.judges import RULES, LabelRule
from storage.core.database import Database, DataFolder
from storage.core.records import ACTIVE_STATUSES, Run, Sampling
from storage.project import runs


def add(verbs: Verbs) -> None:
    p = verbs.add("simulate", simulate, [engine_options()])
    p.add_argument("--judge", required=True, choices=list(RULES), help="rule to judge by")
    p.add_argument("--words", default="", metavar="A,B,...", help="words that the lexical rule counts")
    p.add_argument("--judgments", type=int, default=600, help="how many to add, one per comparison")
    p.add_argument("--annotators", type=int, default=5, help="how many simulated annotators share them")
    p.add_argument("--flip", type=float, default=0.1, help="probability that a judgment is turned round, 0 to 0.5")
    p.add_argument("--seed", type=int, default=0, help="seed of the answers and of the flips")
    p.add_argument("--temperature", type=float, default=0.7, help="sampling temperature of the answers that are missing")
    p.add_argument("--max-new-tokens", type=int, default=48, help="longest answer, in tokens")

    p = verbs.add("train", train)
    p.add_argument("--preset", default=DEFAULT_PRESET, choices=list(PRESETS), help="named set of the options below")
    p.add_argument("--resume", metavar="RUN_ID", help="go on with this run from its last checkpoint; its own options stay")
    p.add_argument(
        "--reward",
        metavar="MODULE:FUNCTION",
        help="pay PPO by this Python function(prompts, completions) in the reward model's place; name it again to --resume",
    )
    p.add_argument("--debug", action="store_true", help="run the round inside this process, for breakpoint() and profilers")
    group = p.add_argument_group("options of the round (defaults are the laptop preset's)")
    for option in options(PRESETS[DEFAULT_PRESET]):
        _add_option(group, option)

    p = verbs.add("runs", runs_)
    p.add_argument("run_id", nargs="?", help="one run in full")


def _add_option(group: argparse._ArgumentGroup, option: Option) -> None:
    convert = model_reference if option.name == "model" else option.type
    kind = {"action": argparse.BooleanOptionalAction} if option.type is bool else {"type": convert, "metavar": option.type.__name__}
    text = option.help.replace("`", "").replace("%", "%%")
    group.add_argument(f"--{option.name}", default=argparse.SUPPRESS, help=f"{text} [{option.default}]".replace("[None]", "[off]"), **kind)


def simulate(given: argparse.Namespace) -> int:
    """Simulated annotators judge by a declared rule; missing comparisons are generated first."""
    judge = LabelRule(given.judge, tuple(w.strip() for w in given.words.split(",") if w.strip()))
    if not 0 <= given.flip <= 0.5:
        raise UsageError(f"--flip {given.flip}: must be between 0 and 0.5")
    if given.judgments < 1 or given.annotators < 1 or given.max_new_tokens < 1:
        raise UsageError("--judgments, --annotators and --max-new-tokens must be at least 1")
    _, store = open_store(given.data)
    fetch_weights(given.model)

    from rlhf.generation.engine import Engine
    from rlhf.models.backbone import Backbone
    from rlhf.simulation.simulate import Plan, SimulationError
    from rlhf.simulation.simulate import simulate as run

    engine = Engine(store, given.model, Backbone.load(model_files.resolve(given.model), given.device))
    sampling = Sampling(temperature=given.temperature, max_new_tokens=given.max_new_tokens)
    plan = Plan(judge, given.judgments, given.annotators, given.flip, given.seed, sampling)
    with tqdm(total=given.judgments, unit="judgment", desc="simulated judgments") as bar:
        try:
            ties = run(store, engine.generate, engine.base, plan, progress=lambda done, total: bar.update(done - bar.n))
        except SimulationError as error:
            raise UsageError(str(error)) from error
    print(f"{given.judgments} simulated judgments by the rule {judge.name!r} added ({ties} ties); human data is untouched")
    return 0


def train(given: argparse.Namespace) -> int:
    """One round, followed until it ends. Ctrl-C cancels it and leaves it resumable."""
    folder, store = open_store(given.data)
    jobs = Jobs(store, folder)
    # Before the row is queued: a download may take long, or fail.
    config = RoundConfig.from_dict(runs.readable(store, given.resume).config) if given.resume else chosen_config(given)
    # What the worker will find out too, before there is a row.
    reward_function.agreed(config.reward_function, given.reward)
    fetch_weights(config.model)
    if given.resume:
        jobs.requeue(given.resume)
    run_id = given.resume or jobs.create(config).id
    print(f"run {run_id}", flush=True)
    if given.debug:
        debug(store, folder, run_id, given.reward)
    else:
        jobs.spawn(run_id, given.reward)
        follow(store, jobs, run_id)
    run = runs.get(store, run_id)
    print(report.table(run, runs.metrics(store, run_id)) if run.status == "done" else ended_badly(run, jobs))
    return 0 if run.status == "done" else 130 if run.status == "cancelled" else 1


def debug(store: Database, folder: DataFolder, run_id: str, reward: str | None) -> None:
    """The round inside this process; what goes wrong in it comes out here, for a debugger to see."""
    from rlhf.runs.progress import Cancelled
    from rlhf.worker import work

    with round_bar() as show, contextlib.suppress(Cancelled, KeyboardInterrupt):
        work(store, folder, run_id, show, reward)


def runs_(given: argparse.Namespace) -> int:
    """The runs so far, or one of them in full."""
    folder, store = open_store(given.data)
    Jobs(store, folder).reap()
    if given.run_id:
        run = runs.get(store, given.run_id)
        try:
            print(report.table(run, runs.metrics(store, run.id)) if run.result else ended_badly(run, Jobs(store, folder)))
        except MISREAD as error:
            raise UsageError(f"{run.id}: its figures cannot be read, rankloop did not write them ({error!r})") from error
        return 0
    made = runs.all_runs(store)
    print(report.overview(made))
    if side_by_side := report.comparison(made):
        print(f"\n{side_by_side}")
    return 0


def chosen_config(given: argparse.Namespace) -> RoundConfig:
    """The preset with what was said on the command line."""
    said = {o.name: getattr(given, o.name.replace("-", "_"), None) for o in options(PRESETS[given.preset])}
    config = with_options(PRESETS[given.preset], {name: value for name, value in said.items() if value is not None})
    return replace(config, reward_function=given.reward)


def follow(store: Database, jobs: Jobs, run_id: str) -> None:
    """Shows a run's progress until it ends; Ctrl-C asks it to stop and waits for that."""
    with round_bar() as show:
        while True:
            try:
                run = runs.get(store, run_id)
                show(run.stage or "starting", run.progress, run.eta_s)
                if run.status not in ACTIVE_STATUSES:
                    return
                time.sleep(1.0)
                jobs.reap()
            except KeyboardInterrupt:
                tqdm.write("cancelling: the run stops within seconds and can be resumed")
                jobs.cancel(run_id)


def ended_badly(run: Run, jobs: Jobs) -> str:
    """What is known of a run that has no result, and how to go on."""
    lines = [f"{run.id}: {run.status}" + (f" in stage {run.stage}" if run.stage else "")]
    if run.problem:
        lines.append(run.problem)
    if run.error:
        lines.append(run.error)
    if tail := jobs.log_tail(run.id, 5):
        lines.append(f"log ({jobs.folder.run_log(run.id)}) ends in:\n{tail}")
    if run.status not in ACTIVE_STATUSES and not run.problem:
        lines.append(f"go on with: rankloop train --data {jobs.folder.root} --resume {run.id}")
    return "\n".join(lines)
