"""Accounts and sessions. An account has a password, roles and the annotator as whom its owner judges.

While there is no account, everybody who reaches the app is the annotator named `local` with every role. A session is a
random token of which only the hash is stored. `storage.people.sign_in_throttle` delays repeated wrong passwords. Cookies, pages and the
permissions of each role are in `feedback_ui.server.auth`.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from storage.core import json_columns
from storage.core.clock import as_text
from storage.core.database import Database, StoreError, now
from storage.core.records import ACCOUNT_ROLES, Annotator, Role
from storage.people import account_names, annotators, known_browsers, sign_in_throttle
from storage.people.sign_in_throttle import COMMAND_LINE, SignInOrigin, SignInRefused

__all__ = ["SignInRefused"]

LOCAL_NAME = "local"

IDLE_HOURS = 12
"""Hours without use after which a session ends."""
MAX_SESSION_DAYS = 7
"""Days after the sign-in after which a session ends, used or not."""
RENEW_MINUTES = 15
"""A session is renewed in the store when that moves its end by at least this many minutes."""

MIN_PASSWORD_CHARS = 8
MAX_PASSWORD_CHARS = 1000

SIGNED_OUT = "You are not signed in any more: sign in again, then change the password."

HASHER = PasswordHasher()

_COLUMNS = "a.id, a.roles, a.created_at, a.disabled_at, n.id AS annotator_id, n.name, n.kind, n.rule, n.pseudonym, n.shows_name, n.judged"
_ACCOUNTS = f"SELECT {_COLUMNS} FROM accounts a JOIN annotators n ON n.id = a.annotator_id"


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may sign in. They judge, and appear in tables, as the annotator of the same name."""

    id: int
    annotator: Annotator
    roles: frozenset[Role]
    disabled: bool
    created_at: str

    @property
    def name(self) -> str:
        return self.annotator.name


@dataclass(frozen=True, slots=True)
class Session:
    """A session that has not ended."""

    account: Account
    due: bool
    """Whether the caller should renew the session in the store with `renew`."""


def any_accounts(store: Database) -> bool:
    """Whether there is an account, so that people must sign in. Accounts are never deleted, so this never turns false again.

    Raises:
        StoreError: the store cannot be read now.
    """
    try:
        return bool(store.value("SELECT EXISTS (SELECT 1 FROM accounts)"))
    except sqlite3.Error as error:
        raise _unreadable(store, error) from error


def local(store: Database) -> Annotator:
    """The annotator as whom everybody acts while there are no accounts."""
    # Every judgment calls this, and `ensure` would take the write lock each time.
    row = store.row("SELECT id AS annotator_id, * FROM annotators WHERE name = ?", [LOCAL_NAME])
    return _annotator(row) if row else annotators.ensure(store, LOCAL_NAME)


def all_accounts(store: Database) -> list[Account]:
    """Every account, oldest first, disabled ones too."""
    return [_from_row(row) for row in store.rows(f"{_ACCOUNTS} ORDER BY a.id")]


def get(store: Database, account_id: int) -> Account:
    """One account.

    Raises:
        StoreError: there is none with this id.
    """
    if (row := store.row(f"{_ACCOUNTS} WHERE a.id = ?", [account_id])) is None:
        raise StoreError(f"There is no account {account_id} in {store.path}: reload the page.")
    return _from_row(row)


def named(store: Database, name: str) -> Account:
    """The account of this name.

    Raises:
        StoreError: there is none.
    """
    if (row := store.row(f"{_ACCOUNTS} WHERE n.name = ?", [account_names.normal(name)])) is None:
        raise StoreError(f"There is no account named {name}: `rankloop account list` shows the names of all accounts.")
    return _from_row(row)


def in_use(store: Database, name: str) -> Account | None:
    """The account of exactly this name; None if there is none or it is disabled. One indexed read."""
    row = store.row(f"{_ACCOUNTS} WHERE n.name = ? AND a.disabled_at IS NULL", [name])
    return None if row is None else _from_row(row)


def normal_name(name: str) -> str:
    """The form in which a name is stored."""
    return account_names.normal(name)


# ---- acts


def random_password() -> str:
    """A password of 16 letters and digits that no reader confuses, in four groups: 79 bits."""
    letters = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(4))


def count_local(store: Database) -> int:
    """How many judgments were made without sign-in, which the first account may take over."""
    return int(store.value("SELECT coalesce(sum(judged), 0) FROM annotators WHERE name = ? AND kind = 'human'", [LOCAL_NAME]))


def create(
    store: Database, name: str, password: str, roles: Iterable[Role], by: int | None = None, *, adopts_local: bool = False
) -> Account:
    """Creates an account. The first one turns sign-in on and must have the role lead, because only a lead can add others.

    The name may be that of an annotator who has judged here already, such as `local`: the account then owns those judgments.

    Args:
        adopts_local: the first account's owner is who judged without sign-in: that annotator gets the account's name.

    Raises:
        StoreError: the name is taken, looks like another account's, belongs to a rule or came with an import; or the password or the
            roles are not allowed.
    """
    name = _checked_name(name)
    roles = checked_roles(roles)
    hashed = HASHER.hash(_checked_password(password))
    with store.atomic():
        if "lead" not in roles and not any_accounts(store):
            raise StoreError("The first account needs the role lead: nobody else could add the others.")
        if adopts_local:
            _rename_local(store, name)
        annotator = annotators.ensure(store, name)
        if store.value("SELECT EXISTS (SELECT 1 FROM accounts WHERE annotator_id = ?)", [annotator.id]):
            raise StoreError(f"There is an account named {name} already: choose another name, or set a new password for it.")
        key = account_names.look_alike_key(name)
        if alike := next((other.name for other in all_accounts(store) if account_names.look_alike_key(other.name) == key), None):
            raise StoreError(f"{name} looks like the account {alike}, and readers could not tell them apart: choose another name.")
        if store.value("SELECT EXISTS (SELECT 1 FROM judgments WHERE annotator_id = ? AND import_id IS NOT NULL)", [annotator.id]):
            raise StoreError(f"{name} came with an import, and its judgments may be another person's: choose another name.")
        values = {"annotator_id": annotator.id, "password_hash": hashed, "roles": in_order(roles), "created_at": now()}
        account_id = store.insert("accounts", values)
        _log(store, annotator.id, "created", ", ".join(in_order(roles)), by)
        return get(store, account_id)


def _rename_local(store: Database, name: str) -> None:
    if any_accounts(store):
        raise StoreError("Only the first account can take over the judgments made without sign-in: leave that out.")
    if name == LOCAL_NAME:
        return
    if store.value("SELECT 1 FROM annotators WHERE name = ?", [name]):
        raise StoreError(f"{name} has judged here already, and cannot take over other judgments: choose another name.")
    store.connection.conn.execute("UPDATE annotators SET name = ? WHERE id = ?", [name, local(store).id])


def set_roles(store: Database, account_id: int, roles: Iterable[Role], by: int | None = None) -> Account:
    """Replaces the roles of an account and ends its sessions.

    Raises:
        StoreError: there is no role, a role is unknown, or the last lead would lose that role.
    """
    roles = checked_roles(roles)
    with store.atomic() as connection:
        account = get(store, account_id)
        if "lead" not in roles:
            _require_another_lead(store, account, "lose that role")
        connection.conn.execute("UPDATE accounts SET roles = ? WHERE id = ?", [json.dumps(in_order(roles)), account_id])
        _end_sessions(store, account_id)
        _log(store, account.annotator.id, "roles", ", ".join(in_order(roles)), by)
        return get(store, account_id)


def set_password(store: Database, account_id: int, password: str, by: int | None = None) -> None:
    """Sets a new password, ends the account's sessions and clears the count of wrong passwords for its name.

    Raises:
        StoreError: the password is too short or too long, or there is no such account.
    """
    hashed = HASHER.hash(_checked_password(password))
    with store.atomic() as connection:
        account = get(store, account_id)
        connection.conn.execute("UPDATE accounts SET password_hash = ? WHERE id = ?", [hashed, account_id])
        sign_in_throttle.release_all(store, account_names.folded(account.name))
        _end_sessions(store, account_id)
        _log(store, account.annotator.id, "password", "", by)


def disable(store: Database, account_id: int, by: int | None = None) -> Account:
    """Disables an account: its sessions end and it cannot sign in. Its judgments stay. A disabled account stays as it is.

    Raises:
        StoreError: it is the last account with the role lead, or there is no such account.
    """
    with store.atomic() as connection:
        account = get(store, account_id)
        if account.disabled:
            return account
        _require_another_lead(store, account, "be disabled")
        connection.conn.execute("UPDATE accounts SET disabled_at = ? WHERE id = ?", [now(), account_id])
        _end_sessions(store, account_id)
        _log(store, account.annotator.id, "disabled", "", by)
        return get(store, account_id)


def enable(store: Database, account_id: int, by: int | None = None) -> Account:
    """Lets a disabled account sign in again, with its old password.

    Raises:
        StoreError: there is no such account.
    """
    with store.atomic() as connection:
        account = get(store, account_id)
        if not account.disabled:
            return account
        connection.conn.execute("UPDATE accounts SET disabled_at = NULL WHERE id = ?", [account_id])
        _log(store, account.annotator.id, "enabled", "", by)
        return get(store, account_id)


# ---- sessions


def sign_in(store: Database, name: str, password: str, origin: SignInOrigin = COMMAND_LINE) -> str:
    """Checks name and password and returns the token of a new session.

    A name without an account takes as long as a wrong password, so that the time does not reveal which names exist.

    Raises:
        SignInRefused: name and password do not match, the account is disabled, or the attempt comes too soon after failures.
    """
    wait_s = sign_in_throttle.begin(store, account_names.folded(name), origin)
    row = _row(store, name)
    fits = _verify(row["password_hash"] if row else None, password)
    if row is None or not fits or row["disabled_at"] is not None:
        raise SignInRefused(
            "This name and password do not match: try again"
            + (f" in {wait_s} s" if wait_s else "")
            + ", or ask a lead to set a new password.",
            wait_s,
        )
    rehashed = HASHER.hash(account_names.composed(password)) if HASHER.check_needs_rehash(row["password_hash"]) else None
    with store.atomic() as connection:
        _check_unchanged(store, row)
        sign_in_throttle.release(store, account_names.folded(name), origin)
        if rehashed:
            connection.conn.execute("UPDATE accounts SET password_hash = ? WHERE id = ?", [rehashed, row["id"]])
        return _begin_session(store, row["id"])


def check_throttle(store: Database, name: str, origin: SignInOrigin) -> None:
    """Refuses an attempt that comes too soon, before the password is verified: that takes much memory and time.

    Raises:
        SignInRefused: the attempt comes too soon after failures.
    """
    sign_in_throttle.check(store, account_names.folded(name), origin)


def change_password(store: Database, token: str, current: str, new: str, origin: SignInOrigin = COMMAND_LINE) -> str:
    """Sets a new password for the account of this session, given its current one. All sessions of the account end.

    Returns:
        The token of a new session, in place of `token`.

    Raises:
        SignInRefused: the current password is wrong, or the attempt comes too soon after failures.
        StoreError: the new password is too short or too long, or the session has ended.
    """
    account = of_token(store, token)
    if account is None:
        raise StoreError(SIGNED_OUT)
    new = _checked_password(new)
    wait_s = sign_in_throttle.begin(store, account_names.folded(account.name), origin)
    row = _row(store, account.name)
    if row is None:
        raise StoreError(SIGNED_OUT)
    if not _verify(row["password_hash"], current):
        again = f"try again in {wait_s} s" if wait_s else "try again"
        raise SignInRefused(f"This is not your current password: {again}, or ask a lead to set a new one.", wait_s)
    hashed = HASHER.hash(new)
    with store.atomic() as connection:
        _check_unchanged(store, row)
        sign_in_throttle.release(store, account_names.folded(account.name), origin)
        connection.conn.execute("UPDATE accounts SET password_hash = ? WHERE id = ?", [hashed, account.id])
        _end_sessions(store, account.id)
        _log(store, account.annotator.id, "password", "", account.annotator.id)
        return _begin_session(store, account.id)


def known_browser(store: Database, name: str, cookie: str | None) -> str | None:
    """The id of a browser whose cookie proves that it has signed in as this account before; None for any other."""
    if not cookie or (row := _row(store, name)) is None:
        return None
    return known_browsers.id_of(cookie, row["password_hash"], row["id"])


def browser_cookie_value(store: Database, account_id: int, cookie: str | None) -> str:
    """The new cookie of a browser that has just signed in as this account, from its old one. Valid until the password changes."""
    hashed = store.value("SELECT password_hash FROM accounts WHERE id = ?", [account_id])
    return known_browsers.with_note(cookie or "", hashed, account_id)


def session(store: Database, token: str) -> Session | None:
    """The session of this token; None if there is none or it has ended. One indexed read.

    Raises:
        StoreError: the store cannot be read now.
    """
    at = store.clock.now()
    try:
        row = store.row(
            f"SELECT {_COLUMNS}, s.created_at AS since, s.expires_at FROM sessions s "
            "JOIN accounts a ON a.id = s.account_id JOIN annotators n ON n.id = a.annotator_id "
            "WHERE s.token_hash = ? AND s.expires_at > ? AND a.disabled_at IS NULL",
            [_hash(token), as_text(at)],
        )
    except sqlite3.Error as error:
        raise _unreadable(store, error) from error
    if row is None:
        return None
    # Negative for a session that was stored before the clock was set back and the program restarted: it must be shortened.
    gained = _renewed(row["since"], at) - datetime.fromisoformat(row["expires_at"])
    return Session(_from_row(row), abs(gained) >= timedelta(minutes=RENEW_MINUTES))


def of_token(store: Database, token: str) -> Account | None:
    """The account of a session; None if there is no such session or it has ended."""
    current = session(store, token)
    return None if current is None else current.account


def renew(store: Database, token: str) -> None:
    """Moves the end of a session that is in use. Call it when `Session.due` is true.

    Raises:
        StoreError: nothing can be written now; the session keeps its earlier end.
    """
    with store.atomic() as connection:
        row = store.row("SELECT created_at FROM sessions WHERE token_hash = ?", [_hash(token)])
        if row is not None:
            at = store.clock.now()
            values = [min(row["created_at"], as_text(at)), as_text(_renewed(row["created_at"], at)), _hash(token)]
            connection.conn.execute("UPDATE sessions SET created_at = ?, expires_at = ? WHERE token_hash = ?", values)


def sign_out(store: Database, token: str) -> None:
    """Ends this session. An unknown token changes nothing."""
    with store.atomic() as connection:
        connection.conn.execute("DELETE FROM sessions WHERE token_hash = ?", [_hash(token)])


def checked_roles(roles: Iterable[str]) -> frozenset[Role]:
    """Returns the roles after checking them.

    Raises:
        StoreError: there is no role, or a role is unknown.
    """
    chosen = frozenset(roles)
    if unknown := sorted(chosen - set(ACCOUNT_ROLES)):
        raise StoreError(f"Unknown role {', '.join(unknown)}: choose among {', '.join(ACCOUNT_ROLES)}.")
    if not chosen:
        raise StoreError(f"An account needs a role: choose among {', '.join(ACCOUNT_ROLES)}.")
    return frozenset(role for role in ACCOUNT_ROLES if role in chosen)


def in_order(roles: Iterable[Role]) -> list[Role]:
    return sorted(roles, key=ACCOUNT_ROLES.index)


# ---- inside


def _row(store: Database, name: str) -> sqlite3.Row | None:
    """The row of the table `accounts`, with the hash of the password."""
    return store.row("SELECT a.* FROM accounts a JOIN annotators n ON n.id = a.annotator_id WHERE n.name = ?", [account_names.normal(name)])


def _check_unchanged(store: Database, row: sqlite3.Row) -> None:
    """Refuses when the account was disabled, or got another password, while the given password was being verified."""
    unchanged = "SELECT 1 FROM accounts WHERE id = ? AND disabled_at IS NULL AND password_hash = ?"
    if not store.value(unchanged, [row["id"], row["password_hash"]]):
        raise SignInRefused("The account was changed just now: try again.", 0)


def _begin_session(store: Database, account_id: int) -> str:
    token, at = secrets.token_urlsafe(32), store.clock.now()
    longest = as_text(at + timedelta(hours=IDLE_HOURS))
    execute = store.connection.conn.execute
    execute("DELETE FROM sessions WHERE expires_at <= ?", [as_text(at)])
    # A session that was stored before the clock was set back and the program restarted would last too long: it is shortened.
    execute("UPDATE sessions SET expires_at = ?1, created_at = min(created_at, ?2) WHERE expires_at > ?1", [longest, as_text(at)])
    # Not `insert`: its error message would contain the row.
    execute(
        "INSERT INTO sessions (token_hash, account_id, created_at, expires_at) VALUES (?, ?, ?, ?)",
        [_hash(token), account_id, as_text(at), longest],
    )
    return token


def _verify(hashed: str | None, password: str) -> bool:
    password = account_names.composed(password)[:MAX_PASSWORD_CHARS]
    if hashed is None:
        HASHER.hash(password)
        return False
    try:
        return HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def _renewed(since: str, at: datetime) -> datetime:
    """The end of a session that is used at `at` and began at `since`."""
    return min(at + timedelta(hours=IDLE_HOURS), datetime.fromisoformat(since) + timedelta(days=MAX_SESSION_DAYS))


def _unreadable(store: Database, error: sqlite3.Error) -> StoreError:
    return StoreError(f"{store.path} cannot be read: {error}. Check what else has the file open, then try again.")


def _require_another_lead(store: Database, account: Account, what: str) -> None:
    leads = [other for other in all_accounts(store) if "lead" in other.roles and not other.disabled]
    if [lead.id for lead in leads] == [account.id]:
        raise StoreError(f"{account.name} is the only lead and cannot {what}: make somebody else a lead first.")


def _end_sessions(store: Database, account_id: int) -> None:
    store.connection.conn.execute("DELETE FROM sessions WHERE account_id = ?", [account_id])


def _log(store: Database, annotator_id: int, act: str, detail: str, by: int | None) -> None:
    values = {"annotator_id": annotator_id, "act": act, "detail": detail, "by_id": by, "created_at": now()}
    store.insert("account_events", values)


def _checked_name(name: str) -> str:
    name = account_names.normal(name)
    if problem := account_names.problem(name):
        raise StoreError(problem)
    return name


def _checked_password(password: str) -> str:
    password = account_names.composed(password)
    if len(password) < MIN_PASSWORD_CHARS:
        raise StoreError(f"The password has {len(password)} characters, need {MIN_PASSWORD_CHARS}: choose a longer one.")
    if len(password) > MAX_PASSWORD_CHARS:
        raise StoreError(f"The password has {len(password)} characters: choose one of at most {MAX_PASSWORD_CHARS}.")
    return password


def _hash(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _from_row(row: sqlite3.Row) -> Account:
    return Account(row["id"], _annotator(row), _roles(row), row["disabled_at"] is not None, row["created_at"])


def _roles(row: sqlite3.Row) -> frozenset[Role]:
    """The account's roles; no role where the column cannot be read."""
    try:
        return frozenset(json_columns.from_json(row["roles"], list, f"The roles of account {row['id']}")) & frozenset(ACCOUNT_ROLES)
    except (json_columns.Unreadable, TypeError) as error:
        json_columns.log.warning("%s", error)
        return frozenset()


def _annotator(row: sqlite3.Row) -> Annotator:
    return Annotator(row["annotator_id"], row["name"], row["kind"], row["rule"], row["pseudonym"], bool(row["shows_name"]), row["judged"])
