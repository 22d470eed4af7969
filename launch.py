"""rankloop's command line and composition root: opens the store, starts the engine's processes, builds the app.

This module has the verbs `serve`, `project-server`, `policy-server` and `doctor`; the others are in `rlhf.cli`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf import model_files
from rlhf.cli import accounts as account_verbs
from rlhf.cli import deploy, exchange, loop, prompts, rounds, runs, statistics
from rlhf.cli import projects as project_verbs
from rlhf.cli.terminal import UsageError, Verbs, engine_options, fetch_weights, open_store
from rlhf.config import DEFAULT_MODEL, DEFAULT_PRESET, PRESETS, ConfigError, with_options
from rlhf.data.pairs import NotEnoughPairs
from rlhf.runs import doctor as doctor_checks
from rlhf.runs import ray_jobs
from rlhf.runs.deciding import DecisionWatcher
from rlhf.runs.environment import engine_environment
from rlhf.runs.jobs import Jobs, RoundError
from rlhf.runs.ray_api import AddressError
from rlhf.runs.ray_jobs import SchedulerOptionError
from rlhf.runs.reward_function import RewardFunctionError
from rlhf.runs.triggers import RoundStarter
from rlhf.safe_files import ModelError
from rlhf.safe_output import escaped_output
from rlhf.serving import api_key, endpoints, lora_options
from rlhf.serving.endpoints import EndpointOptionError
from rlhf.simulation.judges import JudgeError
from storage.core import file_modes, file_watch, folder_lock, integrity
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.core.projects_folder import ProjectsFolder
from storage.people import accounts

if TYPE_CHECKING:
    from feedback_ui.app import Pages
    from feedback_ui.server.auth import Auth, SharedAccounts
    from feedback_ui.server.serving import Serving
    from rlhf.serving.supervisor import PolicyServerOnDemand, WatchedProcess

HOST = "127.0.0.1"
PORT = 7860
POLICY_PORT = 8000

REAP_S = 5.0
"""Interval at which `serve` looks for runs whose worker died and for rounds to begin, in seconds."""

POLICY_IDLE_S = 900.0
"""Of several projects, one that nobody has used for so long has no policy server, in seconds; the next visitor starts it again."""

PROJECT_STOPS_WITHIN_S = 20.0
"""How long a project's process may take to end, with its policy server, in seconds."""

USER_ERRORS = (
    UsageError,
    EndpointOptionError,
    StoreError,
    ConfigError,
    JudgeError,
    ModelError,
    NotEnoughPairs,
    RoundError,
    RewardFunctionError,
    SchedulerOptionError,
    AddressError,
    OSError,
)
"""Errors that end a verb with their message alone, without a traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status: 0 success, 1 failure, 2 refused, 130 interrupted."""
    # Verbs print names, texts and errors that may be untrusted, so that all output is escaped here.
    # Only exports are readable by other users; every other file is the store or a copy of it.
    with escaped_output():
        args = build_parser().parse_args(_with_default_verb(sys.argv[1:] if arguments is None else list(arguments)))
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        before = os.umask(file_modes.UMASK) if args.verb is not exchange.export else None
        try:
            status: int = args.verb(args)
            return status
        except USER_ERRORS as error:
            print(f"rankloop: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            return 130
        finally:
            if before is not None:
                os.umask(before)


def serve(args: argparse.Namespace) -> int:
    """The app and the policy server, until Ctrl-C; with --projects, several projects at one address."""

    if args.projects is not None:
        return serve_projects(args)
    # Checks the options before the store and a model are opened; the policy server reads the keys.
    endpoints.from_options(args)
    ray_jobs.from_options(args)
    api_key.read(args.api_key_file)
    with folder_lock.exclusive(DataFolder(args.data.absolute()), "serve") as tell_address:
        if not (port := doctor_checks.free_port(args.port)).ok:
            raise UsageError(f"port {port.found}: {port.remedy}")
        if args.policy_port is not None:
            keep_policy_port_free(args.policy_port)
        return serve_folder(args, tell_address)


def serve_folder(args: argparse.Namespace, tell_address: Callable[[str], None]) -> int:
    """As `serve`, once this process has the folder's lock."""
    from rlhf.serving.supervisor import PolicyServer

    folder, store = open_store(args.data)
    restrict_and_report(folder)
    require_accounts_for_remote(args, store)
    endpoints.named_apart(store, args.model, endpoints.from_options(args))
    fetch_weights(args.model)
    server_options = policy_server_options(args)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = PolicyServer(folder.root, folder.logs / "policy-server.log", server_options, args.policy_port)
    # Started first: it loads the model while this process loads the pages.
    server.start()
    try:
        return serve_pages(args, Jobs(store, folder, ray_jobs.from_options(args)), server.base_url, tell_address)
    except KeyboardInterrupt:
        print("\nstopping", file=sys.stderr)
        return 0
    finally:
        server.stop()


def serve_projects(args: argparse.Namespace) -> int:
    """As `serve`, for a folder of projects: the address, the sign-in and the list of projects here, and a process for each project."""
    if args.policy_port is not None:
        raise UsageError("--policy-port: each project has a policy server of its own, at a free port: leave that out with --projects")
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("--projects needs Unix sockets, which this system does not have: serve each project with --data and --port")
    endpoints.from_options(args)
    ray_jobs.from_options(args)
    api_key.read(args.api_key_file)
    folder = ProjectsFolder(args.projects.absolute())
    with (
        folder_lock.exclusive(DataFolder(folder.root), "serve") as tell_address,
        tempfile.TemporaryDirectory(prefix="rankloop-") as sockets,
    ):
        if not (port := doctor_checks.free_port(args.port)).ok:
            raise UsageError(f"port {port.found}: {port.remedy}")
        shared = Database(folder.accounts.database)
        if not accounts.any_accounts(shared):
            raise UsageError(f"there is no account yet: rankloop projects add-account NAME --projects {args.projects} makes the first")
        fetch_weights(args.model)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return serve_front(args, folder, shared, Path(sockets), tell_address)


def serve_front(
    args: argparse.Namespace, folder: ProjectsFolder, shared: Database, sockets: Path, tell_address: Callable[[str], None]
) -> int:
    """The front of several projects, until KeyboardInterrupt."""
    from feedback_ui.projects.front import Front
    from feedback_ui.projects.running import RunningProjects
    from feedback_ui.server.connections import ConnectionLimits, max_connections
    from feedback_ui.server.serving import Serving

    projects = RunningProjects(folder, shared, sockets, lambda name, path: project_process(args, folder, name, path))
    # Each request that is passed on has a second connection.
    serving = Serving(Front(shared, projects), args.host, args.port, ConnectionLimits(max_connections() // 2))
    try:
        tell_address(serving.url)
        integrity.start_quick_check(shared)
        projects.look()
        print(f"rankloop is at {serving.url}  (projects in {folder.root}; Ctrl-C stops it)", flush=True)
        while serving.alive:
            time.sleep(REAP_S)
            projects.look()
        raise UsageError("the web server ended: the lines above say why")
    except KeyboardInterrupt:
        print("\nstopping", file=sys.stderr)
        return 0
    finally:
        serving.stop()
        projects.stop()


def project_process(args: argparse.Namespace, folder: ProjectsFolder, name: str, path: Path) -> WatchedProcess:
    """The process of one project."""
    from rlhf.serving.supervisor import WatchedProcess

    command = [
        sys.executable, "-m", "launch", "project-server", name, "--projects", str(folder.root), "--socket", str(path),
        "--parent", str(os.getpid()), *policy_server_options(args), *ray_jobs.as_arguments(args),
    ]  # fmt: skip
    log_file = folder.project(name).logs / "web.log"
    return WatchedProcess(f"the project {name}", command, log_file, stops_within_s=PROJECT_STOPS_WITHIN_S)


def project_server(args: argparse.Namespace) -> int:
    """One project of `serve --projects`, which starts this by itself: the pages at a Unix socket, behind the common address."""
    from feedback_ui.server.auth import SharedAccounts
    from rlhf.serving.supervisor import PolicyServerOnDemand

    projects = ProjectsFolder(args.projects.absolute())
    place = projects.existing(args.project)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with folder_lock.exclusive(place, "serve") as tell_address:
        folder, store = open_store(place.root)
        restrict_and_report(folder)
        endpoints.named_apart(store, args.model, endpoints.from_options(args))
        shared = SharedAccounts(args.project, Database(projects.accounts.database))
        options = policy_server_options(args)
        policy = PolicyServerOnDemand(folder.root, folder.logs / "policy-server.log", options)
        try:
            return serve_project(args, Jobs(store, folder, ray_jobs.from_options(args)), shared, policy, tell_address)
        except KeyboardInterrupt:
            return 0
        finally:
            policy.stop()


def policy_server_options(args: argparse.Namespace) -> list[str]:
    """The options of a policy server that `serve` starts."""
    return [*engine_arguments(args), *api_key.as_arguments(args), *endpoints.as_arguments(args)]


def policy_server(args: argparse.Namespace) -> int:
    """The policy server alone, for programs that speak OpenAI's protocol, until Ctrl-C: no pages, and no answers for the queue."""
    # Named before the model is fetched; the process that starts then checks them again.
    api_key.for_host(args.host, args.api_key_file)
    keep_policy_port_free(args.port)
    open_store(args.data)
    fetch_weights(args.model)
    command = [
        sys.executable, "-m", "rlhf.generation.server", "--data", str(args.data.absolute()), "--host", args.host, "--port", str(args.port),
        *engine_arguments(args), "--no-queue", *api_key.as_arguments(args), *lora_options.as_arguments(args),
    ]  # fmt: skip
    print(f"the policy server will answer at http://{args.host}:{args.port}/v1 when its model is loaded (Ctrl-C stops it)", flush=True)
    with subprocess.Popen(command, env=engine_environment()) as process:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return process.wait()
        except KeyboardInterrupt:
            print("\nstopping", file=sys.stderr)
            # Ctrl-C reaches both, and a signal to this process alone must reach the other one too.
            process.terminate()
            process.wait()
            return 0


def engine_arguments(args: argparse.Namespace) -> list[str]:
    """The engine's options, as the policy server's program takes them."""
    return ["--model", args.model, "--device", args.device, *(["--load-in-4bit"] if args.load_in_4bit else [])]


def keep_policy_port_free(port: int) -> None:
    """Refuses a port at which another program listens."""
    if not (found := doctor_checks.free_port(port)).ok:
        raise UsageError(f"the policy server's port {found.found}: choose another one, or end the program that uses it")


def serve_pages(args: argparse.Namespace, jobs: Jobs, base_url: str, tell_address: Callable[[str], None] = lambda address: None) -> int:
    """The web app, until KeyboardInterrupt."""
    from feedback_ui.server.auth import Auth
    from feedback_ui.server.serving import Serving
    from feedback_ui.server.web import Web

    auth = Auth(jobs.store)
    serving = Serving(Web(build_pages(args, jobs, base_url, auth), auth), args.host, args.port)

    def ready() -> None:
        tell_address(serving.url)
        print(f"rankloop is at {serving.url}  (data in {jobs.folder.root}; Ctrl-C stops it)", flush=True)

    return look_after(serving, jobs, ready, lambda: True)


def serve_project(
    args: argparse.Namespace, jobs: Jobs, shared: SharedAccounts, policy: PolicyServerOnDemand, tell_address: Callable[[str], None]
) -> int:
    """The web app of one project behind the front, until KeyboardInterrupt or the front's end."""
    from feedback_ui.projects.project_web import ProjectWeb
    from feedback_ui.server.auth import Auth
    from feedback_ui.server.serving import Serving

    auth = Auth(jobs.store, shared)
    web = ProjectWeb(build_pages(args, jobs, policy.base_url, auth), auth, shared)
    serving = Serving(web, "", 0, socket_path=args.socket)

    def used() -> bool:
        policy.keep(web.idle_s is not None and web.idle_s < POLICY_IDLE_S)
        return args.parent is None or os.getppid() == args.parent

    return look_after(serving, jobs, lambda: tell_address(f"the address of all projects, {shared.path}/"), used)


def build_pages(args: argparse.Namespace, jobs: Jobs, base_url: str, auth: Auth) -> Pages:
    """The pages of one store."""
    from feedback_ui.app import build_app
    from rlhf.serving.client import PolicyClient

    config = with_options(PRESETS[DEFAULT_PRESET], {"model": args.model, "device": args.device, "load-in-4bit": args.load_in_4bit})
    client = PolicyClient(base_url, api_key.read(args.api_key_file) or "unused")
    return build_app(jobs.store, jobs, client, auth, default_config=config)


def look_after(serving: Serving, jobs: Jobs, ready: Callable[[], None], go_on: Callable[[], bool]) -> int:
    """Looks after the store's rounds and the served pages until KeyboardInterrupt, or until `go_on` says no."""
    watcher = DecisionWatcher(jobs.store)
    starter = RoundStarter(jobs)
    try:
        watcher.start()
        integrity.start_quick_check(jobs.store)
        ready()
        while serving.alive:
            if not go_on():
                return 0
            look_after_rounds(starter)
            time.sleep(REAP_S)
        raise UsageError("the web server ended: the lines above say why")
    finally:
        watcher.stop()
        serving.stop()


def restrict_and_report(folder: DataFolder) -> None:
    """Removes other users' access to files of older versions, and reports a copy that was saved when the store's files were deleted."""
    if closed := file_modes.restrict_to_owner(folder.root, folder.database):
        print(f"no longer accessible to other users of this machine: {', '.join(closed)}", file=sys.stderr)
    if copies := file_watch.rescued(folder.database):
        print(
            f"{copies[-1]} is a copy of the store from when its files were deleted or replaced. Restore it with `rankloop restore --data "
            f"{folder.root} {copies[-1]} --force`, or move it elsewhere if this store has all of it.",
            file=sys.stderr,
        )


def require_accounts_for_remote(args: argparse.Namespace, store: Database) -> None:
    """Refuses to serve at an address that other machines can reach while there are no accounts."""
    if is_loopback(args.host) or accounts.any_accounts(store):
        return
    raise UsageError(
        f"--host {args.host}: without accounts, everybody who reaches that address has every role. "
        f"Add an account first: rankloop account add NAME --role lead --data {args.data}"
    )


def is_loopback(host: str) -> bool:
    """Whether every address of this host is a loopback address."""
    try:
        addresses = {str(socket_address[0]) for *_, socket_address in socket.getaddrinfo(host, None)}
    except UnicodeError as error:
        raise UsageError(f"--host {host}: is not a host name: give an address or a host name") from error
    return all(ip_address(address.split("%")[0]).is_loopback for address in addresses)


def look_after_rounds(starter: RoundStarter) -> None:
    """Marks the runs whose worker died as lost, begins the round whose turn it is, and fires the triggers that are due. An error, such as a
    full disk, is logged and does not stop serving."""
    try:
        starter.look()
    except Exception as error:
        logging.warning("the queue of rounds was not looked at: %s", error)


def doctor(args: argparse.Namespace) -> int:
    """Check this machine and the store, and with --model also the model; print a remedy for what is missing or slow."""
    passed = True
    for check in _checks(args):
        passed &= check.ok
        mark = "FIX " if check.remedy else "warn" if check.warning else "ok  "
        print(f"{mark} {check.name}: {check.found}", flush=True)
        for advice in filter(None, (check.remedy, check.warning)):
            print(f"      -> {advice}")
    return 0 if passed else 1


def _checks(args: argparse.Namespace) -> Iterator[doctor_checks.Check]:
    """The checks of the machine; then those of the model, if one is named and downloaded and torch can use the device."""
    passed = set()
    for check in doctor_checks.checks(DataFolder(args.data), args.model or DEFAULT_MODEL, args.port, args.device):
        if check.ok:
            passed.add(check.name)
        yield check
    if args.model and {"torch", "weights"} <= passed and (folder := model_files.resolve(args.model, fetch=False)) is not None:
        # This imports torch, which takes seconds.
        from rlhf import model_check

        yield from model_check.checks(folder, args.device, replace(PRESETS[DEFAULT_PRESET], load_in_4bit=args.load_in_4bit))


def build_parser() -> argparse.ArgumentParser:
    """Every verb with its options, units and defaults."""
    parser = argparse.ArgumentParser(prog="rankloop", description="People rank a model's answers; their judgments tune it.")
    verbs = Verbs(parser, "verbs", "VERB")

    p = verbs.add("serve", serve, [engine_options()])
    p.add_argument("--port", type=int, default=PORT, help="TCP port on 127.0.0.1, or on the address of --host")
    p.add_argument("--host", default=HOST, help="address to serve at; an address that other machines can reach needs accounts")
    p.add_argument("--policy-port", type=int, metavar="PORT", help="TCP port of the policy server on 127.0.0.1; a free one otherwise")
    p.add_argument(
        "--projects", type=Path, metavar="DIR", help="serve every project in this folder at one address, in place of the one of --data"
    )
    api_key.add_option(p)
    endpoints.add_options(p)
    ray_jobs.add_options(p)

    p = verbs.add("project-server", project_server, [engine_options()], common=project_verbs.projects_option)
    p.add_argument("project", metavar="PROJECT", help="the project's name")
    p.add_argument("--socket", type=Path, required=True, metavar="PATH", help="path of the Unix socket to answer at, in a private folder")
    p.add_argument("--parent", type=int, metavar="PID", help="end when this process, which started the server, has ended")
    api_key.add_option(p)
    endpoints.add_options(p)
    ray_jobs.add_options(p)

    p = verbs.add("policy-server", policy_server, [engine_options()])
    p.add_argument("--port", type=int, default=POLICY_PORT, help="TCP port on 127.0.0.1, or on the address of --host")
    p.add_argument("--host", default=HOST, help="address to serve at; any but this machine's own needs --api-key-file")
    lora_options.add_options(p)
    api_key.add_option(p)

    exchange.add(verbs)
    prompts.add(verbs)
    rounds.add(verbs)
    runs.add(verbs)
    deploy.add(verbs)
    loop.add(verbs)
    statistics.add(verbs)

    p = verbs.add("doctor", doctor, [engine_options()])
    p.add_argument("--port", type=int, default=PORT, help="TCP port to check")
    # Without --model, the checks of the model are left out: they take a minute.
    p.set_defaults(model=None)

    account_verbs.add(verbs)
    project_verbs.add(verbs)
    return parser


def _with_default_verb(arguments: list[str]) -> list[str]:
    """`rankloop --port 8000` means `rankloop serve --port 8000`."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        return ["serve", *arguments]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
