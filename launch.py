"""rankloop's command line and composition root: opens the store, starts the engine's processes, builds the app.

Each verb is one function below. What they do is elsewhere; here it is only put together and said on the terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from tqdm import tqdm

from rlhf import report, reward_function, weights
from rlhf.config import DEFAULT_MODEL, DEFAULT_PRESET, PRESETS, ConfigError, Option, RoundConfig, options, with_options
from rlhf.environment import engine_environment
from rlhf.jobs import Jobs, RoundError
from rlhf.judges import JUDGES, Judge, JudgeError
from rlhf.pairs import NotEnoughPairs
from rlhf.reward_function import RewardFunctionError
from rlhf.weights import ModelError
from storage import accounts, backup, imports, prompts, runs
from storage.database import Database, DataFolder, StoreError
from storage.exchange import formats, native
from storage.records import ACTIVE_STATUSES, ROLES, Run, Sampling
from storage.stats import stats

HOST = "127.0.0.1"
PORT = 7860

REAP_S = 5.0
"""How often the served store is searched for runs whose worker died, in seconds."""


class UsageError(Exception):
    """What was asked for cannot be done; the message says why and what to do."""


REFUSALS = (
    UsageError, StoreError, ConfigError, JudgeError, ModelError, NotEnoughPairs, RoundError, RewardFunctionError, OSError,
)
"""Errors whose message is for the reader."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status: 0 done, 1 not well, 2 refused, 130 interrupted."""
    given = build_parser().parse_args(_with_default_verb(sys.argv[1:] if arguments is None else list(arguments)))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return given.verb(given)
    except REFUSALS as error:
        print(f"rankloop: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def serve(given: argparse.Namespace) -> int:
    """The app and the policy server, until Ctrl-C."""
    from rlhf.doctor import free_port
    from rlhf.supervisor import PolicyServer

    if bool(given.endpoint) != bool(given.endpoint_model):
        raise UsageError("--endpoint and --endpoint-model go together")
    if not (port := free_port(given.port)).ok:
        raise UsageError(f"port {port.found}: {port.remedy}")
    folder, store = open_store(given.data)
    keep_to_this_machine(given, store)
    fetch_weights(given.model)
    server_options = ["--model", given.model, "--device", given.device]
    if given.endpoint:
        server_options += ["--endpoint", given.endpoint, "--endpoint-model", given.endpoint_model]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = PolicyServer(folder.root, folder.logs / "policy-server.log", server_options)
    # First of all: it loads the model while this process loads the pages.
    server.start()
    try:
        return serve_pages(given, Jobs(store, folder), server.base_url)
    except KeyboardInterrupt:
        print("\nstopping", file=sys.stderr)
        return 0
    finally:
        server.stop()


def serve_pages(given: argparse.Namespace, jobs: Jobs, base_url: str) -> int:
    """The web app, until KeyboardInterrupt."""
    from feedback_ui.app import build_app
    from feedback_ui.gate import Gate
    from feedback_ui.serving import Serving
    from feedback_ui.web import Web
    from rlhf.client import PolicyClient

    config = with_options(PRESETS[DEFAULT_PRESET], {"model": given.model, "device": given.device})
    gate = Gate(jobs.store)
    serving = Serving(Web(build_app(jobs.store, jobs, PolicyClient(base_url), default_config=config), gate), given.host, given.port)
    try:
        print(f"rankloop is at {serving.url}  (data in {jobs.folder.root}; Ctrl-C stops it)", flush=True)
        while serving.alive:
            reap(jobs)
            time.sleep(REAP_S)
        raise UsageError("the web server ended: the lines above say why")
    finally:
        serving.stop()


def keep_to_this_machine(given: argparse.Namespace, store: Database) -> None:
    """Refuses any address but this machine's own while whoever reaches the app may do everything."""
    if is_loopback(given.host) or accounts.any_accounts(store):
        return
    raise UsageError(
        f"--host {given.host}: without accounts everybody who reaches that address could do everything. "
        f"Make one first: rankloop account add NAME --role lead --data {given.data}"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches every address of this host."""
    found = {address[0] for *_, address in socket.getaddrinfo(host, None)}
    return all(ip_address(item.split("%")[0]).is_loopback for item in found)


def reap(jobs: Jobs) -> None:
    """Marks the runs whose worker died. A look that fails, as at a full disk, is no reason to stop serving."""
    try:
        jobs.reap()
    except Exception as error:
        logging.warning("runs not looked at: %s", error)


def import_(given: argparse.Namespace) -> int:
    """Prompts, comparisons and judgments from a file; wrong rows are named and left out. An import can be undone."""
    if (given.file is not None) + (given.undo is not None) + given.list != 1:
        raise UsageError("say what to import: a FILE, or --undo ID, or --list")
    if given.file is not None and given.format == formats.NATIVE:
        return import_native(given)
    _, store = open_store(given.data)
    if given.list:
        print(report.imports(imports.all_imports(store)))
        return 0
    if given.undo is not None:
        undone = imports.undo(store, given.undo)
        print(
            f"import {given.undo} undone: {undone.judgments} judgments no longer count, {undone.comparisons} comparisons and "
            f"{undone.prompts} prompts retired"
        )
        return 0

    def name_wrong_row(line: int, reason: str) -> None:
        tqdm.write(f"{given.file}:{line}: {reason}", file=sys.stderr)

    with file_bar("importing", "B") as progress:
        import_id, found = imports.import_file(
            store, given.file, given.format, strict=given.strict, rule=given.simulated, wrong_row=name_wrong_row, progress=progress
        )
    print(report.imported(import_id, found, prompts_only=given.format == "prompts"))
    return 1 if found.wrong or import_id is None else 0


def import_native(given: argparse.Namespace) -> int:
    """A whole store, into one that holds nothing yet."""
    if given.simulated:
        raise UsageError("--simulated is for files that do not tell: a native export does")
    with file_bar("importing", "row") as progress:
        # Not by open_store: starter prompts would be in the way of the store's own.
        rows = native.read(Database(DataFolder(given.data.absolute()).database), given.file, progress=progress)
    print(f"{rows} rows imported: the store is as the one that was exported. Accounts and runs/ are not part of it")
    return 0


def export(given: argparse.Namespace) -> int:
    """Judgments in one of several formats, for training or for keeping."""
    _, store = open_store(given.data)
    if given.format == formats.NATIVE:
        with file_bar("exporting", "row") as progress:
            print(f"{native.write(store, given.file, progress=progress)} rows written to the folder {given.file}")
        return 0
    chosen = formats.FORMATS[given.format]
    with file_bar("exporting", "judgment") as progress:
        written = chosen.write(store, given.file, include_simulated=given.include_simulated, names=given.names, progress=progress)
    print(f"{written} {chosen.unit} written to {given.file}")
    return 0


def backup_(given: argparse.Namespace) -> int:
    """The store as one checked file, taken while people judge."""
    _, store = open_store(given.data)
    with file_bar("copying", "page") as progress:
        size = backup.backup(store, given.file, force=given.force, progress=progress)
    print(f"{given.file}: {size / 1e6:.1f} MB, checked. runs/ (adapters, checkpoints) is not in it")
    return 0


def restore(given: argparse.Namespace) -> int:
    """A backup in the place of the data folder's store."""
    folder = DataFolder(given.data.absolute())
    with file_bar("copying", "page") as progress:
        kept = backup.restore(folder, given.file, force=given.force, progress=progress)
    print(f"{folder.database} is as {given.file} was" + (f"; the store before it is {kept.name}" if kept else ""))
    return 0


@contextlib.contextmanager
def file_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left for what takes long, on a terminal only."""
    with tqdm(desc=what, unit=unit, unit_scale=True, leave=False, delay=1.0, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def simulate(given: argparse.Namespace) -> int:
    """Simulated annotators judge by a declared rule; missing comparisons are generated first."""
    judge = Judge(given.judge, tuple(w.strip() for w in given.words.split(",") if w.strip()))
    if not 0 <= given.flip <= 0.5:
        raise UsageError(f"--flip {given.flip}: must be between 0 and 0.5")
    if given.judgments < 1 or given.annotators < 1 or given.max_new_tokens < 1:
        raise UsageError("--judgments, --annotators and --max-new-tokens must be at least 1")
    _, store = open_store(given.data)
    fetch_weights(given.model)

    from rlhf.backbone import Backbone
    from rlhf.simulate import Plan, SimulationError
    from rlhf.simulate import simulate as run
    from rlhf.speakers import Speakers

    speakers = Speakers(store, given.model, Backbone.load(weights.resolve(given.model), given.device))
    sampling = Sampling(temperature=given.temperature, max_new_tokens=given.max_new_tokens)
    plan = Plan(judge, given.judgments, given.annotators, given.flip, given.seed, sampling)
    with tqdm(total=given.judgments, unit="judgment", desc="simulated judgments") as bar:
        try:
            ties = run(store, speakers.draw, speakers.base, plan, progress=lambda done, total: bar.update(done - bar.n))
        except SimulationError as error:
            raise UsageError(str(error)) from error
    print(f"{given.judgments} simulated judgments by the rule {judge.name!r} added ({ties} ties); human data is untouched")
    return 0


def train(given: argparse.Namespace) -> int:
    """One round, followed until it ends. Ctrl-C cancels it and leaves it resumable."""
    folder, store = open_store(given.data)
    jobs = Jobs(store, folder)
    # Before the row is queued: a download may take long, or fail.
    config = RoundConfig.from_dict(runs.get(store, given.resume).config) if given.resume else chosen_config(given)
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
    from rlhf.progress import Cancelled
    from rlhf.worker import work

    with round_bar() as show, contextlib.suppress(Cancelled, KeyboardInterrupt):
        work(store, folder, run_id, show, reward)


def runs_(given: argparse.Namespace) -> int:
    """The runs so far, or one of them in full."""
    folder, store = open_store(given.data)
    Jobs(store, folder).reap()
    if given.run_id:
        run = runs.get(store, given.run_id)
        print(report.table(run, runs.metrics(store, run.id)) if run.result else ended_badly(run, Jobs(store, folder)))
        return 0
    made = runs.all_runs(store)
    print(report.overview(made))
    if side_by_side := report.comparison(made):
        print(f"\n{side_by_side}")
    return 0


def stats_(given: argparse.Namespace) -> int:
    """How much of everything is in the store."""
    _, store = open_store(given.data)
    figures = stats(store)
    print(json.dumps(figures, indent=2) if given.json else report.figures(figures))
    return 0


def account_add(given: argparse.Namespace) -> int:
    """A new account. The first one turns sign-in on."""
    _, store = open_store(given.data)
    made = accounts.create(store, given.name, new_password(given), given.role)
    print(f"account {made.name} added: {', '.join(accounts.in_order(made.roles))}")
    return 0


def account_list(given: argparse.Namespace) -> int:
    """Every account, disabled ones too."""
    _, store = open_store(given.data)
    found = accounts.all_accounts(store)
    if given.json:
        rows = [
            {"name": a.name, "roles": accounts.in_order(a.roles), "disabled": a.disabled, "created_at": a.created_at} for a in found
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    width = max((len(a.name) for a in found), default=0)
    for a in found:
        print(f"{a.name:<{width}}  {', '.join(accounts.in_order(a.roles))}{'  (disabled)' if a.disabled else ''}")
    if not found:
        print("no accounts: whoever uses this machine may do everything. rankloop account add NAME --role lead makes the first")
    return 0


def account_password(given: argparse.Namespace) -> int:
    """A new password; the account is signed out everywhere."""
    _, store = open_store(given.data)
    account = accounts.named(store, given.name)
    accounts.set_password(store, account.id, new_password(given))
    print(f"account {account.name}: new password, signed out everywhere")
    return 0


def account_roles(given: argparse.Namespace) -> int:
    """Other roles in place of those it has; the account is signed out everywhere."""
    _, store = open_store(given.data)
    account = accounts.set_roles(store, accounts.named(store, given.name).id, given.role)
    print(f"account {account.name}: {', '.join(accounts.in_order(account.roles))}, signed out everywhere")
    return 0


def account_disable(given: argparse.Namespace) -> int:
    """Nobody can use the account from now on; what was done with it stays."""
    _, store = open_store(given.data)
    print(f"account {accounts.disable(store, accounts.named(store, given.name).id).name} disabled")
    return 0


def account_enable(given: argparse.Namespace) -> int:
    """The account can be used again, with the password that it had."""
    _, store = open_store(given.data)
    print(f"account {accounts.enable(store, accounts.named(store, given.name).id).name} enabled")
    return 0


def new_password(given: argparse.Namespace) -> str:
    """Asked for twice at a terminal; with `--password-stdin` the first line of the standard input."""
    if given.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass(f"Password for {given.name} (at least {accounts.SHORTEST_PASSWORD} characters): ")
    if getpass.getpass("Once more: ") != first:
        raise UsageError("the two passwords differ: nothing was changed")
    return first


def agreement(given: argparse.Namespace) -> int:
    """How far annotators agree, and how each of them judges."""
    from rlhf import agreement, tables

    _, store = open_store(given.data)
    found = agreement.report(store, include_simulated=given.include_simulated)
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if given.json else tables.agreement(found))
    return 0


def leaderboard(given: argparse.Namespace) -> int:
    """Policy versions by the votes on their answers."""
    from rlhf import leaderboard, tables

    _, store = open_store(given.data)
    found = leaderboard.leaderboard(store, include_simulated=given.include_simulated)
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if given.json else tables.leaderboard(found))
    return 0


def doctor(given: argparse.Namespace) -> int:
    """Whether everything that is needed is there, and what to do where it is not."""
    from rlhf.doctor import checks

    well = True
    for check in checks(DataFolder(given.data), given.model, given.port):
        well &= check.ok
        print(f"{'ok  ' if check.ok else 'FIX '} {check.name}: {check.found}" + (f"\n      -> {check.remedy}" if not check.ok else ""))
    return 0 if well else 1


def open_store(data: Path) -> tuple[DataFolder, Database]:
    """The folder's store, with the starter prompts in it if it was empty."""
    folder = DataFolder(data.absolute())
    store = Database(folder.database)
    if not stats(store)["prompts"]:
        prompts.load_starter(store)
    return folder, store


def fetch_weights(model: str) -> None:
    """Makes the model ready in a process of its own, so that this one stays small."""
    if model == DEFAULT_MODEL and weights.is_intact(weights.default_folder()):
        return
    if subprocess.run([sys.executable, "-m", "rlhf.weights", model], env=engine_environment()).returncode:
        raise UsageError("the model is not ready: see the line above")


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


class round_bar:
    """A terminal bar over a whole round: stage, fraction, time left."""

    def __enter__(self) -> Callable[[str, float, float | None], None]:
        self.bar = tqdm(total=100, bar_format="{desc:<9}|{bar:30}| {n:3.0f}% [{elapsed}{postfix}]")
        return self.show

    def show(self, stage: str, fraction: float, eta_s: float | None) -> None:
        self.bar.set_description_str(stage, refresh=False)
        self.bar.set_postfix_str(f"about {eta_s / 60:.1f} min left" if eta_s is not None else "", refresh=False)
        self.bar.n = 100 * fraction
        self.bar.refresh()

    def __exit__(self, *error) -> None:
        self.bar.close()


def ended_badly(run: Run, jobs: Jobs) -> str:
    """What is known of a run that has no result, and how to go on."""
    lines = [f"{run.id}: {run.status}" + (f" in stage {run.stage}" if run.stage else "")]
    if run.error:
        lines.append(run.error)
    if tail := jobs.log_tail(run.id, 5):
        lines.append(f"log ({jobs.folder.run_log(run.id)}) ends in:\n{tail}")
    if run.status not in ACTIVE_STATUSES:
        lines.append(f"go on with: rankloop train --data {jobs.folder.root} --resume {run.id}")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """Every verb with its options, units and defaults."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="folder that holds everything that lasts")
    engine = argparse.ArgumentParser(add_help=False)
    engine.add_argument(
        "--model", type=model_reference, default=DEFAULT_MODEL,
        help="`default` (packaged SmolLM2-135M-Instruct), a local folder, or a hub id",
    )
    engine.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where the model computes")

    parser = argparse.ArgumentParser(prog="rankloop", description="People rank a model's answers; their judgments tune it.")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")

    def verb(name: str, run: Callable, parents: Iterable[argparse.ArgumentParser] = ()) -> argparse.ArgumentParser:
        summary = run.__doc__.splitlines()[0]
        added = verbs.add_parser(
            name, parents=[common, *parents], help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        added.set_defaults(verb=run)
        return added

    p = verb("serve", serve, [engine])
    p.add_argument("--port", type=int, default=PORT, help="TCP port on 127.0.0.1, or on the address of --host")
    p.add_argument("--host", default=HOST, help="address to serve at; any but this machine's own needs accounts")
    p.add_argument("--endpoint", metavar="URL", help="collect answers from this OpenAI-compatible endpoint instead (ends in /v1)")
    p.add_argument("--endpoint-model", metavar="NAME", help="the model to ask there")

    p = verb("import", import_)
    p.add_argument("file", type=Path, nargs="?", help="file to read, .gz too; with --format native the folder of a native export")
    p.add_argument(
        "--format", default="prompts", choices=formats.READABLE,
        help="what the file holds (docs/formats.md); prompts are JSONL rows of a prompt or messages",
    )
    p.add_argument("--strict", action="store_true", help="import nothing if any row is wrong")
    p.add_argument("--simulated", metavar="RULE", help="the file's judgments were made by this rule or model, not by people")
    p.add_argument("--undo", type=int, metavar="ID", help="take an earlier import out of everything that counts; nothing is deleted")
    p.add_argument("--list", action="store_true", help="show the imports so far")

    p = verb("export", export)
    p.add_argument("file", type=Path, help="file to write (gzipped if it ends in .gz); with --format native a new folder")
    p.add_argument("--format", default="trl", choices=formats.WRITABLE, help="docs/formats.md shows a row of each")
    p.add_argument("--include-simulated", action="store_true", help="simulated judgments too, marked as such")
    p.add_argument("--names", action="store_true", help="annotators by name; by pseudonym otherwise")

    p = verb("backup", backup_)
    p.add_argument("file", type=Path, help="file to write")
    p.add_argument("--force", action="store_true", help="replace the file if there is one")

    p = verb("restore", restore)
    p.add_argument("file", type=Path, help="a file that backup wrote")
    p.add_argument("--force", action="store_true", help="put a store that is there aside, under a name with the date")

    p = verb("simulate", simulate, [engine])
    p.add_argument("--judge", required=True, choices=list(JUDGES), help="rule to judge by")
    p.add_argument("--words", default="", metavar="A,B,...", help="words that the lexical rule counts")
    p.add_argument("--judgments", type=int, default=600, help="how many to add, one per comparison")
    p.add_argument("--annotators", type=int, default=5, help="how many simulated annotators share them")
    p.add_argument("--flip", type=float, default=0.1, help="probability that a judgment is turned round, 0 to 0.5")
    p.add_argument("--seed", type=int, default=0, help="seed of the answers and of the flips")
    p.add_argument("--temperature", type=float, default=0.7, help="sampling temperature of the answers that are missing")
    p.add_argument("--max-new-tokens", type=int, default=48, help="longest answer, in tokens")

    p = verb("train", train)
    p.add_argument("--preset", default=DEFAULT_PRESET, choices=list(PRESETS), help="named set of the options below")
    p.add_argument("--resume", metavar="RUN_ID", help="go on with this run from its last checkpoint; its own options stay")
    p.add_argument(
        "--reward", metavar="MODULE:FUNCTION",
        help="pay PPO by this Python function(prompts, completions) in the reward model's place; name it again to --resume",
    )
    p.add_argument("--debug", action="store_true", help="run the round inside this process, for breakpoint() and profilers")
    group = p.add_argument_group("options of the round (defaults are the laptop preset's)")
    for option in options(PRESETS[DEFAULT_PRESET]):
        _add_option(group, option)

    p = verb("runs", runs_)
    p.add_argument("run_id", nargs="?", help="one run in full")

    p = verb("stats", stats_)
    p.add_argument("--json", action="store_true", help="machine-readable")

    for name, run in (("agreement", agreement), ("leaderboard", leaderboard)):
        p = verb(name, run)
        p.add_argument("--json", action="store_true", help="machine-readable")
        p.add_argument("--include-simulated", action="store_true", help="votes of simulated annotators too")

    p = verb("doctor", doctor, [engine])
    p.add_argument("--port", type=int, default=PORT, help="TCP port to look at")

    _add_account_verbs(verbs, common)
    return parser


def _add_account_verbs(verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    summary = "Who may sign in, and as what: add, list, password, roles, disable, enable."
    acts = verbs.add_parser("account", help=summary, description=summary).add_subparsers(title="acts", metavar="ACT", required=True)
    password = argparse.ArgumentParser(add_help=False)
    password.add_argument("--password-stdin", action="store_true", help="read the password from the standard input, not the terminal")
    roles = argparse.ArgumentParser(add_help=False)
    roles.add_argument(
        "--role", action="append", required=True, choices=ROLES, help="annotators judge, leads prepare, researchers train; repeat for more"
    )

    def act(name: str, run: Callable, *parents: argparse.ArgumentParser, of_one: bool = True) -> argparse.ArgumentParser:
        summary = run.__doc__.splitlines()[0]
        added = acts.add_parser(name, parents=[common, *parents], help=summary, description=summary)
        added.set_defaults(verb=run)
        if of_one:
            added.add_argument("name", metavar="NAME", help="also the name of the annotator that the account judges as")
        return added

    act("add", account_add, roles, password)
    act("list", account_list, of_one=False).add_argument("--json", action="store_true", help="machine-readable")
    act("password", account_password, password)
    act("roles", account_roles, roles)
    act("disable", account_disable)
    act("enable", account_enable)


def model_reference(said: str) -> str:
    """A folder by its full path, so that a run can be resumed from anywhere; a hub id or `default` as it was said."""
    return str(Path(said).expanduser().resolve()) if Path(said).expanduser().is_dir() else said


def _add_option(group: argparse._ArgumentGroup, option: Option) -> None:
    convert = model_reference if option.name == "model" else option.type
    kind = {"action": argparse.BooleanOptionalAction} if option.type is bool else {"type": convert, "metavar": option.type.__name__}
    text = option.help.replace("`", "").replace("%", "%%")
    group.add_argument(f"--{option.name}", default=argparse.SUPPRESS, help=f"{text} [{option.default}]".replace("[None]", "[off]"), **kind)


def _with_default_verb(arguments: list[str]) -> list[str]:
    """`rankloop --port 8000` means `rankloop serve --port 8000`."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        return ["serve", *arguments]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
