"""The verb `projects`: makes the projects that `serve --projects` serves, and says who may sign in and with which roles in each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from rlhf.cli.accounts import new_password, password_option, roles_option
from rlhf.cli.terminal import UsageError, Verbs, open_store
from rlhf.safe_output import one_line
from storage.core.database import Database
from storage.core.projects_folder import ProjectsFolder
from storage.people import accounts, members
from storage.people.accounts import Account


def projects_option() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--projects", type=Path, default=Path("projects"), metavar="DIR", help="folder with a data folder for each project and the accounts"
    )  # fmt: skip
    return common


def add(verbs: Verbs) -> None:
    commands = verbs.group(
        "projects",
        "Several projects at one address: list, create, accounts, add-account, password, disable, enable, roles, remove.",
        common=projects_option,
    )

    def of_one(name: str, run: Callable[[argparse.Namespace], int], *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        p = commands.add(name, run, parents)
        p.add_argument("name", metavar="NAME", help="the account's name")
        return p

    commands.add("list", list_projects).add_argument("--json", action="store_true", help="machine-readable")
    p = commands.add("create", create)
    p.add_argument("project", metavar="PROJECT", help="small letters, digits and hyphens; a part of the project's address")
    commands.add("accounts", list_accounts).add_argument("--json", action="store_true", help="machine-readable")
    of_one("add-account", add_account, password_option())
    of_one("password", set_password, password_option())
    of_one("disable", disable)
    of_one("enable", enable)
    for name, run, parents in (("roles", give_roles, [roles_option()]), ("remove", remove, [])):
        of_one(name, run, *parents).add_argument("project", metavar="PROJECT", help="the project's name")


def folder_of(args: argparse.Namespace) -> ProjectsFolder:
    return ProjectsFolder(args.projects.absolute())


def accounts_of(args: argparse.Namespace) -> Database:
    """The store of accounts, made at its first use."""
    return Database(folder_of(args).accounts.database)


def create(args: argparse.Namespace) -> int:
    """Make a project. `serve --projects` finds it within seconds."""
    folder = folder_of(args).project(args.project)
    if folder.root.exists():
        raise UsageError(f"{folder.root} is there already: choose another name")
    open_store(folder.root)
    print(f"project {args.project} made in {folder.root}; rankloop projects roles NAME {args.project} --role lead lets a lead in")
    return 0


def list_projects(args: argparse.Namespace) -> int:
    """List all projects, with the accounts that may enter each and their roles there."""
    folder, known = folder_of(args), {a.name for a in accounts.all_accounts(accounts_of(args))}
    entering = {name: _entering(Database(folder.project(name).database)) for name in folder.names()}
    if args.json:
        rows = [
            {"name": name, "accounts": [{"name": a.name, "roles": accounts.in_order(a.roles)} for a in each]}
            for name, each in entering.items()
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    for name, each in entering.items():
        print(f"{name}  ({len(each)} account{'' if len(each) == 1 else 's'})")
        for a in each:
            missing = "" if a.name in known else "  (cannot sign in: rankloop projects add-account makes that account)"
            print(f"    {one_line(a.name)}: {', '.join(accounts.in_order(a.roles))}{missing}")
    if not entering:
        print(f"no projects in {folder.root}: rankloop projects create PROJECT makes one")
    return 0


def list_accounts(args: argparse.Namespace) -> int:
    """List all accounts that may sign in, also disabled ones."""
    listed = accounts.all_accounts(accounts_of(args))
    if args.json:
        rows = [{"name": a.name, "disabled": a.disabled, "created_at": a.created_at} for a in listed]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    for a in listed:
        print(f"{one_line(a.name)}{'  (disabled)' if a.disabled else ''}")
    if not listed:
        print("no accounts: rankloop projects add-account NAME makes the first")
    return 0


def add_account(args: argparse.Namespace) -> int:
    """Add an account that may sign in; `roles` lets it enter projects."""
    account = members.add_account(accounts_of(args), args.name, new_password(args))
    print(f"account {account.name} added; rankloop projects roles {account.name} PROJECT --role annotator lets it enter a project")
    return 0


def set_password(args: argparse.Namespace) -> int:
    """Set a new password; all sessions of the account end."""
    shared, account = _account(args)
    accounts.set_password(shared, account.id, new_password(args))
    print(f"account {account.name}: new password, signed out everywhere")
    return 0


def disable(args: argparse.Namespace) -> int:
    """Disable an account: it cannot sign in any more, to no project. Its judgments stay."""
    shared, account = _account(args)
    if {each.name for each in accounts.all_accounts(shared) if not each.disabled} == {account.name}:
        raise UsageError(f"{account.name} is the only account that can sign in: add another one first")
    print(f"account {accounts.disable(shared, account.id).name} disabled")
    return 0


def enable(args: argparse.Namespace) -> int:
    """Enable a disabled account, with its old password and its roles."""
    shared, account = _account(args)
    print(f"account {accounts.enable(shared, account.id).name} enabled")
    return 0


def give_roles(args: argparse.Namespace) -> int:
    """Let an account enter a project with these roles, in place of those that it had there."""
    project = _project(args)
    member = members.give_roles(project, accounts_of(args), args.name, args.role)
    print(f"account {member.name} in {args.project}: {', '.join(accounts.in_order(member.roles))}")
    return 0


def remove(args: argparse.Namespace) -> int:
    """Take all its roles in a project from an account. Its judgments stay."""
    print(f"account {members.remove(_project(args), args.name).name} may not enter {args.project} any more")
    return 0


def _project(args: argparse.Namespace) -> Database:
    return Database(folder_of(args).existing(args.project).database)


def _account(args: argparse.Namespace) -> tuple[Database, Account]:
    shared = accounts_of(args)
    return shared, members.named(shared, args.name)


def _entering(project: Database) -> list[Account]:
    return [a for a in accounts.all_accounts(project) if not a.disabled]
