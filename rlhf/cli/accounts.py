"""The verb `account`: adds, lists, changes and disables accounts."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable

from rlhf.cli.terminal import UsageError, Verbs, open_store
from rlhf.safe_output import one_line
from storage.core.records import ACCOUNT_ROLES
from storage.people import accounts


def add(verbs: Verbs) -> None:
    commands = verbs.group("account", "Accounts that may sign in, and their roles: add, list, password, roles, disable, enable.")

    def of_one(name: str, run: Callable[[argparse.Namespace], int], *parents: argparse.ArgumentParser) -> None:
        p = commands.add(name, run, parents)
        p.add_argument("name", metavar="NAME", help="also the name of the annotator that the account judges as")

    of_one("add", account_add, roles_option(), password_option())
    commands.add("list", account_list).add_argument("--json", action="store_true", help="machine-readable")
    of_one("password", account_password, password_option())
    of_one("roles", account_roles, roles_option())
    of_one("disable", account_disable)
    of_one("enable", account_enable)


def password_option() -> argparse.ArgumentParser:
    password = argparse.ArgumentParser(add_help=False)
    password.add_argument("--password-stdin", action="store_true", help="read the password from the standard input, not the terminal")
    return password


def roles_option() -> argparse.ArgumentParser:
    roles = argparse.ArgumentParser(add_help=False)
    roles.add_argument(
        "--role",
        action="append",
        required=True,
        default=argparse.SUPPRESS,
        choices=ACCOUNT_ROLES,
        help="annotators judge, leads prepare, researchers train; repeat for more",
    )
    return roles


def account_add(args: argparse.Namespace) -> int:
    """Add an account. The first one turns sign-in on."""
    _, store = open_store(args.data)
    account = accounts.create(store, args.name, new_password(args), args.role)
    print(f"account {account.name} added: {', '.join(accounts.in_order(account.roles))}")
    return 0


def account_list(args: argparse.Namespace) -> int:
    """List all accounts, also disabled ones."""
    _, store = open_store(args.data)
    listed = accounts.all_accounts(store)
    if args.json:
        rows = [{"name": a.name, "roles": accounts.in_order(a.roles), "disabled": a.disabled, "created_at": a.created_at} for a in listed]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    shown = [one_line(a.name) for a in listed]
    width = max(map(len, shown), default=0)
    for name, a in zip(shown, listed, strict=True):
        print(f"{name:<{width}}  {', '.join(accounts.in_order(a.roles))}{'  (disabled)' if a.disabled else ''}")
    if not listed:
        print("no accounts: everybody who reaches rankloop has every role. rankloop account add NAME --role lead adds the first")
    return 0


def account_password(args: argparse.Namespace) -> int:
    """Set a new password; all sessions of the account end."""
    _, store = open_store(args.data)
    account = accounts.named(store, args.name)
    accounts.set_password(store, account.id, new_password(args))
    print(f"account {account.name}: new password, signed out everywhere")
    return 0


def account_roles(args: argparse.Namespace) -> int:
    """Replace the roles of an account; all its sessions end."""
    _, store = open_store(args.data)
    account = accounts.set_roles(store, accounts.named(store, args.name).id, args.role)
    print(f"account {account.name}: {', '.join(accounts.in_order(account.roles))}, signed out everywhere")
    return 0


def account_disable(args: argparse.Namespace) -> int:
    """Disable an account: it cannot sign in any more. Its judgments stay."""
    _, store = open_store(args.data)
    print(f"account {accounts.disable(store, accounts.named(store, args.name).id).name} disabled")
    return 0


def account_enable(args: argparse.Namespace) -> int:
    """Enable a disabled account, with its old password."""
    _, store = open_store(args.data)
    print(f"account {accounts.enable(store, accounts.named(store, args.name).id).name} enabled")
    return 0


def new_password(args: argparse.Namespace) -> str:
    """Reads a password twice from the terminal, or with `--password-stdin` once from the first line of the standard input."""
    if args.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass(f"Password for {args.name} (at least {accounts.MIN_PASSWORD_CHARS} characters): ")
    if getpass.getpass("Once more: ") != first:
        raise UsageError("the two passwords differ: nothing was changed")
    return first
