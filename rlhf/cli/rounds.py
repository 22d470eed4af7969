"""The verbs `simulate`, `train`, `runs`, `rounds` and `round`: simulated judgments, a training round, its run, and its decision."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from tqdm import tqdm

from rlhf import model_files
from rlhf.analysis import model_card, round_story
from rlhf.analysis.run_table import MALFORMED_ROW_ERRORS
from rlhf.cli import report, rounds_report
from rlhf.cli.terminal import UsageError, Verbs, engine_options, fetch_weights, model_reference, open_store, round_bar
from rlhf.config import DEFAULT_MODEL, DEFAULT_PRESET, PRESETS, RENAMED_OPTIONS, AtChance, Option, RoundConfig, options, with_options
from rlhf.data import lineage
from rlhf.runs import deciding, dry_run, ray_jobs, results, reward_function, scheduler, triggers
from rlhf.runs.jobs import Jobs, RoundError
from rlhf.safe_output import one_line
from rlhf.serving import rollout_options
from rlhf.serving.endpoints import EndpointOptionError
from rlhf.simulation.judges import RULES, LabelRule
from rlhf.simulation.simulate import Plan, SimulationError
from rlhf.simulation.simulate import simulate as run_simulation
from storage.content import policies
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.core.records import ACTIVE_STATUSES, QueuedRound, Run, Sampling
from storage.judging import judgments
from storage.people import annotators
from storage.project import queued_rounds, rounds, runs, settings


def add(verbs: Verbs) -> None:
    p = verbs.add("simulate", simulate, [engine_options()])
    add_judging(p)
    p.add_argument("--judgments", type=int, default=600, help="how many to add, one per comparison")
    p.add_argument("--seed", type=int, default=0, help="seed of the answers and of the label noise")
    p.add_argument("--deciding", action="store_true", help="also judge comparisons that are to decide about people's rounds")

    p = verbs.add("train", train)
    p.add_argument("--resume", metavar="RUN_ID", help="resume this run from its last checkpoint, with its own options")
    p.add_argument(
        "--reward",
        metavar="MODULE:FUNCTION",
        help="score completions by this Python function(prompts, completions) instead of the reward model; repeat it with --resume",
    )
    rollout_options.add_options(p)
    p.add_argument("--dry-run", action="store_true", help="say what a round would learn from and whether it would start; start nothing")
    p.add_argument("--debug", action="store_true", help="run the round inside this process, for breakpoint() and profilers")
    p.add_argument(
        "--no-start", action="store_true", help="write the run and say how several hosts train it with accelerate launch; start nothing"
    )
    p.add_argument("--judges", default="people", choices=["people", "simulated"], help="whose comparisons decide about the new version")
    ray_jobs.add_options(p)
    add_round_options(p)

    p = verbs.add("runs", runs_)
    ray_jobs.add_options(p, starts=False)
    p.add_argument("run_id", nargs="?", help="one run in full")

    p = verbs.add("rounds", rounds_)
    ray_jobs.add_options(p, starts=False)
    p.add_argument("--judgment", type=int, metavar="ID", help="list the rounds that learned from this judgment instead")

    group = verbs.group("round", "The story of one round, and the decisions of a person.")
    p = group.add("show", show)
    _add_number(p)
    p = group.add("promote", promote)
    _add_number(p)
    _add_reason(p)
    p = group.add("reject", reject)
    _add_number(p)
    _add_reason(p)
    p = group.add("rollback", rollback)
    _add_reason(p)
    p.add_argument("--to", metavar="VERSION", help="policy version that was current before; the one before the current one otherwise")
    p.add_argument("--model", type=model_reference, default=DEFAULT_MODEL, help="base model whose current policy is rolled back")
    p = group.add("trigger", trigger)
    p.add_argument("--after-judgments", type=int, metavar="N", help="begin a round by itself once N judgments are new; 0 turns this off")
    p.add_argument(
        "--schedule",
        metavar="CRON",
        help="begin a round by itself at these times: a cron expression in UTC, '' turns this off",
    )
    p.add_argument("--dry-run", action="store_true", help="say what a round would learn from now; the status is 0 if one would begin")
    add_round_options(p)
    p.set_defaults(preset=None, reward=None)
    p = group.add("unqueue", unqueue)
    p.add_argument("number", type=int, help="number of the queued round, as `rankloop rounds` lists it")


def add_judging(parser: argparse.ArgumentParser) -> None:
    """The options of simulated annotators and of the answers that they judge."""
    parser.add_argument("--judge", required=True, choices=list(RULES), help="rule to judge by")
    parser.add_argument("--words", default="", metavar="A,B,...", help="words that the lexical rule counts")
    parser.add_argument("--annotators", type=int, default=5, help="how many simulated annotators share the judgments")
    parser.add_argument("--label-noise", type=float, default=0.1, help="probability that a judgment is reversed, 0 to 0.5")
    add_renamed(parser, "flip", "label-noise")
    parser.add_argument("--temperature", type=float, default=0.7, help="sampling temperature of the answers that are missing")
    parser.add_argument("--max-new-tokens", type=int, default=48, help="longest answer, in tokens")


def judging_plan(args: argparse.Namespace, judgments_wanted: int, seed: int) -> Plan:
    """The plan that these options describe.

    Raises:
        UsageError: a number is out of its range.
    """
    judge = LabelRule(args.judge, tuple(w.strip() for w in args.words.split(",") if w.strip()))
    if not 0 <= args.label_noise <= 0.5:
        raise UsageError(f"--label-noise {args.label_noise}: must be between 0 and 0.5")
    if args.annotators < 1 or args.max_new_tokens < 1:
        raise UsageError("--annotators and --max-new-tokens must be at least 1")
    sampling = Sampling(temperature=args.temperature, max_new_tokens=args.max_new_tokens)
    return Plan(judge, judgments_wanted, args.annotators, args.label_noise, seed, sampling)


def add_round_options(parser: argparse.ArgumentParser, leave_out: Collection[str] = ()) -> None:
    """`--preset` and the options of a round, for `chosen_config`."""
    parser.add_argument("--preset", default=DEFAULT_PRESET, choices=list(PRESETS), help="named set of the options below")
    group = parser.add_argument_group("options of the round (defaults are the laptop preset's)")
    for option in options(PRESETS[DEFAULT_PRESET]):
        if option.name not in leave_out:
            _add_option(group, option)
    for old, new in RENAMED_OPTIONS.items():
        add_renamed(group, old, new)


def _add_number(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", type=int, help="number of the round, as `rankloop rounds` lists it")


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, help="why, in a sentence; it is kept with the decision")


def _add_option(group: argparse._ArgumentGroup, option: Option) -> None:
    convert = model_reference if option.name in ("model", "reward-model-path") else option.type
    kind = {"action": argparse.BooleanOptionalAction} if option.type is bool else {"type": convert, "metavar": option.type.__name__}
    text = option.help.replace("`", "").replace("%", "%%")
    group.add_argument(f"--{option.name}", default=argparse.SUPPRESS, help=f"{text} [{option.default}]".replace("[None]", "[off]"), **kind)


class Renamed(argparse.Action):
    """The old name of an option: an error that gives the current name."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        parser.error(f"{option_string} was renamed: use {self.const}")


def add_renamed(group: argparse._ActionsContainer, old: str, new: str) -> None:
    group.add_argument(f"--{old}", action=Renamed, const=f"--{new}", nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def simulate(args: argparse.Namespace) -> int:
    """Simulated annotators judge by a declared rule; missing comparisons are generated first."""
    plan = replace(judging_plan(args, args.judgments, args.seed), deciding=args.deciding)
    if args.judgments < 1:
        raise UsageError("--judgments must be at least 1")
    _, store = open_store(args.data)
    fetch_weights(args.model)

    from rlhf.generation.policy_service import PolicyService
    from rlhf.models.backbone import Backbone

    backbone = Backbone.load(model_files.resolve(args.model), args.device, load_in_4bit=args.load_in_4bit)
    service = PolicyService(store, args.model, backbone)
    with tqdm(total=args.judgments, unit="judgment", desc="simulated judgments") as bar:
        try:
            ties = run_simulation(store, service.generate, service.base, plan, progress=lambda done, total: bar.update(done - bar.n))
        except SimulationError as error:
            raise UsageError(str(error)) from error
    print(f"{args.judgments} simulated judgments by the rule {plan.judge.name!r} added ({ties} ties); human data is untouched")
    return 0


def train(args: argparse.Namespace) -> int:
    """Run one round and show its progress. Ctrl-C cancels it; it can be resumed."""
    workers = ray_jobs.from_options(args)
    if args.scheduler != "local" and (args.debug or args.no_start):
        raise UsageError(f"--scheduler {args.scheduler} starts a worker elsewhere: leave out --debug and --no-start")
    if args.scheduler != "local" and args.rollouts_key_env:
        raise UsageError("--rollouts-key-env: a job does not have this command's environment; name a file with --rollouts-key-file")
    folder, store = open_store(args.data)
    jobs = Jobs(store, folder, workers)
    if args.dry_run:
        return dry(args, jobs)
    # The configuration is checked and the weights are fetched before the row is queued: a download may take long, or fail.
    config = RoundConfig.from_dict(runs.readable(store, args.resume).config) if args.resume else chosen_config(args)
    jobs.require_scheduler()
    # The worker checks this too; here it is checked before a row is written.
    reward_function.load_confirmed(config.reward_function, args.reward)
    check_key(args, config)
    if args.debug and config.processes > 1:
        raise UsageError(f"--debug runs the round inside this process, and --processes {config.processes} need more: leave one of them out")
    if args.no_start:
        return not_started(args, jobs, config)
    fetch_weights(config.model)
    run_id = begin(args, jobs, config)
    print(f"run {run_id}", flush=True)
    if args.debug:
        debug(store, folder, run_id, args.reward, rollouts_key=partial(rollout_options.read, args), **answered(args))
    else:
        follow(store, jobs, run_id)
    run = runs.get(store, run_id)
    print(report.table(run, runs.metrics(store, run_id)) if run.status == "done" else failure_report(run, jobs))
    if (found := rounds.of_run(store, run_id)) is not None and run.status == "done":
        print(f"\n{rounds_report.story(round_story.of_round(store, found.id))}")
    return 0 if run.status == "done" else 130 if run.status == "cancelled" else 1


def check_key(args: argparse.Namespace, config: RoundConfig) -> None:
    """Refuses a key that cannot be read or that is for no server. The worker reads it again."""
    try:
        key = rollout_options.read(args)
    except EndpointOptionError as error:
        raise UsageError(str(error)) from error
    if key and not config.rollouts:
        raise UsageError("a key for rollouts, which this process samples itself: add --rollouts URL, or leave out the key")


def not_started(args: argparse.Namespace, jobs: Jobs, config: RoundConfig) -> int:
    """Writes the run, and prints the command that trains it on several hosts."""
    if args.resume or args.debug:
        raise UsageError("--no-start writes a new run: leave out --resume and --debug")
    run_id = jobs.create(config, judges=args.judges).id
    named = [
        *(["--device", config.device] if config.device != "auto" else []),
        *(["--reward", args.reward] if args.reward else []),
        *rollout_options.as_arguments(args),
    ]
    worker = " ".join(["-m rlhf.worker --resume --data", str(jobs.folder.root), *named, run_id])
    print(
        f"run {run_id} is written and not started. On each host, with the same versions installed; {config.processes} processes in all:\n"
        f"accelerate launch --multi_gpu --num_processes {config.processes} --num_machines MACHINES --machine_rank RANK_OF_THIS_HOST "
        f"--main_process_ip HOST_0 --main_process_port 29500 {worker}\n"
        "Host 0 has the data folder; the others need the base model alone."
    )
    return 0


def answered(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says about a reward model at chance for a run that goes on with its own options."""
    return {"at_chance": args.at_chance} if args.resume and getattr(args, "at_chance", None) else {}


def begin(args: argparse.Namespace, jobs: Jobs, config: RoundConfig) -> str:
    """Begins the round, and returns its run's id; the worker is started, except for `--debug`.

    A round waits for those that train or wait before it. A resumed run, one with `--debug`, one for another scheduler, and one that needs
    code or a key that this command line names do not wait: no other process could begin them, so they are refused while another round
    trains.
    """
    if not (args.resume or args.debug or args.reward or args.scheduler != "local" or rollout_options.named(args)):
        return wait_for_turn(jobs, jobs.start(config, judges=args.judges))
    if args.resume:
        jobs.requeue(args.resume)
    run_id: str = args.resume or jobs.create(config, judges=args.judges).id
    if not args.debug:
        jobs.spawn(run_id, args.reward, more=rollout_options.as_arguments(args), **answered(args))
    return run_id


def wait_for_turn(jobs: Jobs, asked: Run | QueuedRound) -> str:
    """The id of the run that a round became, once it has begun: here, or in the web app. Ctrl-C takes it out of the queue."""
    if isinstance(asked, Run):
        return asked.id
    print(f"{queued_behind(jobs.store, asked)} (Ctrl-C takes it out of the queue)", flush=True)
    try:
        while asked.state == "waiting":
            time.sleep(1.0)
            jobs.start_next()
            asked = queued_rounds.get(jobs.store, asked.id)
    except KeyboardInterrupt:
        queued_rounds.take_out(jobs.store, asked.id)
        raise
    if asked.run_id is None:
        raise RoundError(f"queued round {asked.id} was {asked.state}" + (f": {asked.reason}" if asked.reason else ""))
    return asked.run_id


def queued_behind(store: Database, asked: QueuedRound) -> str:
    """`queued as 3: 1 round waits before it, and r1127-1012-ab12 is running`"""
    before = sum(other.id < asked.id for other in queued_rounds.waiting(store))
    active = runs.active(store)
    training = f"{active.id} is {active.status}" if active else "none trains now"
    return f"queued as {asked.id}: {before} wait before it, and {training}"


def dry(args: argparse.Namespace, jobs: Jobs) -> int:
    """Prints what `train` with these options would do; the status is 0 if it would start a round."""
    if args.resume:
        raise UsageError("--dry-run is about a new round: leave out --resume")
    jobs.reap()
    would = dry_run.of(jobs.store, chosen_config(args))
    print(rounds_report.dry_run(would))
    return 0 if would.hindrance is None else 2


def debug(
    store: Database,
    folder: DataFolder,
    run_id: str,
    reward: str | None,
    at_chance: AtChance | None = None,
    rollouts_key: Callable[[], str] = str,
) -> None:
    """Runs the round inside this process; its errors are raised here, for a debugger to see."""
    from rlhf.runs.progress import Cancelled
    from rlhf.worker import work

    with round_bar() as show, contextlib.suppress(Cancelled, KeyboardInterrupt):
        work(store, folder, run_id, show, reward, at_chance, rollouts_key)


def runs_(args: argparse.Namespace) -> int:
    """List the runs, or show one of them in full."""
    workers = ray_jobs.from_options(args)
    folder, store = open_store(args.data)
    Jobs(store, folder, workers).reap()
    if args.run_id:
        run = runs.get(store, args.run_id)
        try:
            print(
                report.table(run, runs.metrics(store, run.id), round_story.evidence(round_story.of_run(store, run.id)))
                if run.status == "done" and run.result
                else failure_report(run, Jobs(store, folder))
            )
        except MALFORMED_ROW_ERRORS as error:
            raise UsageError(f"{run.id}: its metrics cannot be read, rankloop did not write them ({error!r})") from error
        return 0
    all_runs = runs.all_runs(store)
    print(report.overview(all_runs))
    print_queue(store)
    if side_by_side := report.comparison(all_runs):
        print(f"\n{side_by_side}")
    return 0


def rounds_(args: argparse.Namespace) -> int:
    """List the rounds with what became of each; decides those that have all the comparisons they need."""
    workers = ray_jobs.from_options(args)
    folder, store = open_store(args.data)
    Jobs(store, folder, workers).reap()
    if args.judgment is not None:
        return _uses(store, folder, args.judgment)
    deciding.decide_open_rounds(store)
    print(rounds_report.overview(round_story.states(store), {r.id: deciding.standing(store, r) for r in rounds.open_rounds(store)}))
    print_queue(store)
    return 0


def print_queue(store: Database) -> None:
    """Prints the rounds that wait, and the newest that could not begin; nothing where there are none."""
    if rows := [*queued_rounds.waiting(store), *queued_rounds.not_started(store)]:
        print(f"\n{rounds_report.queue(rows, {a.id: a.name for a in annotators.all_annotators(store)})}")


def _uses(store: Database, folder: DataFolder, judgment_id: int) -> int:
    """Prints the rounds that learned from a judgment."""
    judgments.get(store, judgment_id)
    uses = lineage.uses_of(store, folder, judgment_id)
    found = [rounds.of_run(store, run_id) for run_id in uses.run_ids]
    for one in found:
        if one is not None:
            print(f"round {one.id}, run {one.run_id}, policy version {one.version.name if one.version else 'none'}")
    if not found:
        print(f"no round learned from judgment {judgment_id}")
    if uses.unknown:
        print(f"not known of {', '.join(uses.unknown)}: the snapshot that the run learned from is not in its folder")
    return 0


def show(args: argparse.Namespace) -> int:
    """The story of one round: its votes, options, figures, guards, comparisons and decisions."""
    _, store = open_store(args.data)
    print(rounds_report.story(round_story.of_round(store, args.number)))
    return 0


def promote(args: argparse.Namespace) -> int:
    """Make a round's version the current policy, whatever guards and comparisons say."""
    return _decide(args, "promoted")


def reject(args: argparse.Namespace) -> int:
    """Reject a round's version: it gets no new comparisons. Its votes stay."""
    return _decide(args, "rejected")


def _decide(args: argparse.Namespace, act: Literal["promoted", "rejected"]) -> int:
    _, store = open_store(args.data)
    version = rounds.get(store, args.number).version
    if version is None:
        raise UsageError(f"round {args.number} has made no policy version: there is nothing to decide")
    model_card.write_decided(store, rounds.decide(store, version, act, decided_by="person", reason=args.reason))
    return _say_current(store, version.base_model)


def rollback(args: argparse.Namespace) -> int:
    """Make the policy before the current one current again; the one that was taken back gets no new comparisons."""
    _, store = open_store(args.data)
    target = policies.by_name(store, args.to) if args.to else None
    model_card.write_decided(store, rounds.roll_back(store, args.model, reason=args.reason, to=target))
    return _say_current(store, args.model)


def trigger(args: argparse.Namespace) -> int:
    """Show or change what begins rounds by itself while rankloop serves, and the options that such rounds have."""
    folder, store = open_store(args.data)
    Jobs(store, folder).reap()
    named = args.preset is not None or any(hasattr(args, o.name.replace("-", "_")) for o in options(PRESETS[DEFAULT_PRESET]))
    if args.dry_run and (named or args.after_judgments is not None or args.schedule is not None):
        raise UsageError("--dry-run changes nothing: leave out the other options")
    if named or args.after_judgments is not None or args.schedule is not None:
        args.preset = args.preset or DEFAULT_PRESET
        chosen = triggers.options_of(args.preset, chosen_config(args)) if named else None
        triggers.choose(store, None, after=args.after_judgments, expression=args.schedule, chosen=chosen)
    found, now_chosen = triggers.state(store, datetime.now(UTC)), settings.current(store).retrain_options
    print(rounds_report.triggers(found, now_chosen))
    if not args.dry_run:
        return 0
    would = dry_run.of(store, triggers.config_of(now_chosen))
    print(rounds_report.dry_run(would))
    return 0 if found.due and not found.hold and would.hindrance is None else 2


def unqueue(args: argparse.Namespace) -> int:
    """Take a round that waits for its turn out of the queue."""
    _, store = open_store(args.data)
    queued_rounds.take_out(store, args.number)
    print(f"queued round {args.number} was taken out")
    return 0


def _say_current(store: Database, base_model: str) -> int:
    print(f"the current policy is {rounds.current(store, base_model).name}")
    return 0


def chosen_config(args: argparse.Namespace) -> RoundConfig:
    """The preset with the options of the command line."""
    chosen = {o.name: getattr(args, o.name.replace("-", "_"), None) for o in options(PRESETS[args.preset])}
    config = with_options(PRESETS[args.preset], {name: value for name, value in chosen.items() if value is not None})
    return replace(config, reward_function=args.reward)


def follow(store: Database, jobs: Jobs, run_id: str) -> None:
    """Shows a run's progress until it ends. Ctrl-C requests its cancellation and waits until it has stopped."""
    told = ""
    with round_bar() as show:
        while True:
            try:
                run = runs.get(store, run_id)
                words = scheduler.in_words(job) if (job := scheduler.job_of(run)) is not None else ""
                if words != told:
                    tqdm.write(one_line(words))
                    told = words
                show(run.stage or "starting", run.progress, run.eta_s)
                if run.status not in ACTIVE_STATUSES:
                    return
                time.sleep(1.0)
                jobs.reap()
            except KeyboardInterrupt:
                tqdm.write("cancelling: the run stops within seconds and can be resumed")
                jobs.cancel(run_id)


def failure_report(run: Run, jobs: Jobs) -> str:
    """The status, error and log of a run without a result, and the command that resumes it."""
    lines = [f"{report.titled(run.id, run.name)}: {run.status}" + (f" in stage {run.stage}" if run.stage else "")]
    if run.note:
        lines.append(f"note: {one_line(run.note)}")
    if run.problem:
        lines.append(run.problem)
    job = scheduler.job_of(run)
    if run.status in ACTIVE_STATUSES and job is not None:
        lines.append(one_line(scheduler.in_words(job)))
    if run.error:
        lines.append(run.error)
    if tail := jobs.log_tail(run.id, 5):
        lines.append(f"log ({jobs.folder.run_log(run.id)}) ends in:\n{tail}")
    if run.status not in ACTIVE_STATUSES and not run.problem:
        go_on = " --at-chance continue" if results.of_run_or_empty(run).stopped_at_chance else ""
        there = f" --scheduler {job.scheduler} --address {one_line(job.address)}" if job is not None else ""
        lines.append(f"resume with: rankloop train --data {jobs.folder.root} --resume {run.id}{there}{go_on}")
    return "\n".join(lines)
