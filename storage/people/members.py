"""Members of a project whose accounts are kept in one store for several projects (`storage.core.projects_folder`).

The store of accounts has everybody's name, password and sessions. A project's own store has an account of the same name for each
person who may enter it, with their roles there and a password that nobody knows. So a project's rows refer to its own annotators, its
leads change roles as anywhere else, and its store can be served alone once somebody sets a password in it.
"""

from __future__ import annotations

from collections.abc import Iterable

from storage.core.database import Database, StoreError
from storage.core.records import Role
from storage.people import accounts
from storage.people.accounts import Account

SIGN_IN_ROLES: tuple[Role, ...] = ("lead",)
"""The roles that a store of accounts keeps for each account. Nothing reads them: roles are those in the projects."""


def named(shared: Database, name: str) -> Account:
    """The account of this name, also a disabled one.

    Raises:
        StoreError: there is none.
    """
    name = accounts.normal_name(name or "")
    found = _with_name(shared, name)
    if found is None:
        raise StoreError(f"There is no account named {name!r}: `rankloop projects accounts` lists all, and `add-account` makes one.")
    return found


def add_account(shared: Database, name: str, password: str) -> Account:
    """Makes an account that may sign in, and enter no project yet.

    Raises:
        StoreError: as `accounts.create`.
    """
    return accounts.create(shared, name, password, SIGN_IN_ROLES)


def add(project: Database, shared: Database, name: str, roles: Iterable[Role], by: int | None = None) -> Account:
    """Lets an account enter a project, with these roles there.

    Raises:
        StoreError: there is no account of this name, it is a member already, or `accounts.create` refuses it.
    """
    account = named(shared, name)
    with project.atomic():
        if _with_name(project, account.name):
            raise StoreError(f"{account.name} is a member already: change the roles in the list.")
        return accounts.create(project, account.name, accounts.random_password(), roles, by)


def give_roles(project: Database, shared: Database, name: str, roles: Iterable[Role]) -> Account:
    """Gives an account these roles in a project, in place of those it has there. One that was removed may enter again.

    Raises:
        StoreError: as `add`; or the project's only lead would lose that role.
    """
    account = named(shared, name)
    with project.atomic():
        member = _with_name(project, account.name)
        if member is None:
            return add(project, shared, account.name, roles)
        accounts.enable(project, member.id)
        return accounts.set_roles(project, member.id, roles)


def remove(project: Database, name: str) -> Account:
    """Takes all roles in a project from an account. Its judgments stay.

    Raises:
        StoreError: it is not a member, or the project's only lead.
    """
    member = _with_name(project, accounts.normal_name(name))
    if member is None:
        raise StoreError(f"{name} is not a member of this project: `rankloop projects list` shows who is.")
    return accounts.disable(project, member.id)


def _with_name(store: Database, name: str) -> Account | None:
    return next((account for account in accounts.all_accounts(store) if account.name == name), None)
