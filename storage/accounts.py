"""Accounts: who may sign in, as which annotator and with which roles; their sessions, and the brake on guessing.

While there is no account, everybody who reaches the app is the annotator named `local` with every role. A session is a
random token of which only the hash is kept. Leaves out cookies, pages and which role may do what: `feedback_ui.gate`.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import ceil

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from storage import annotators, columns
from storage.database import Database, StoreError, now
from storage.records import ROLES, Annotator, Role

LOCAL_NAME = "local"

IDLE_HOURS = 12
"""A session ends when it has not been used for so long."""
LONGEST_DAYS = 7
"""A session ends so long after the sign-in, however much it is used."""
RENEW_MINUTES = 15
"""A session in use is written down anew at most so often."""

FREE_FAILURES = 3
"""Wrong passwords in a row that cost no waiting."""
LONGEST_WAIT_S = 300
"""The wait doubles with each further failure from 2 s up to this, in seconds."""
FORGET_HOURS = 1
"""Failures older than this no longer count."""

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1000
LONGEST_NAME = 80

HASHER = PasswordHasher()

_COLUMNS = (
    "a.id, a.roles, a.created_at, a.disabled_at, n.id AS annotator_id, n.name, n.kind, n.rule, n.pseudonym, n.shows_name, n.judged"
)
_ACCOUNTS = f"SELECT {_COLUMNS} FROM accounts a JOIN annotators n ON n.id = a.annotator_id"


class SignInRefused(StoreError):
    """The name and password do not fit, or were wrong too often; the message is the same for names that do not exist."""

    def __init__(self, message: str, wait_s: int):
        super().__init__(message)
        self.wait_s = wait_s
        """Seconds before the next attempt is looked at; 0 if it may come at once."""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may sign in. Acts, and is shown, as the annotator of the same name."""

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
    """An account that is signed in."""

    account: Account
    due: bool
    """Whether its use should be written down, with `renew`."""


def any_accounts(store: Database) -> bool:
    """Whether people must sign in. Accounts are never deleted, so this never turns false again.

    Raises:
        StoreError: the store cannot be read now.
    """
    try:
        return bool(store.value("SELECT EXISTS (SELECT 1 FROM accounts)"))
    except sqlite3.Error as error:
        raise _unreadable(store, error) from error


def local(store: Database) -> Annotator:
    """Whom everybody acts as while there are no accounts."""
    # On the path of every judgment: `ensure` would take the write lock each time.
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
    if (row := store.row(f"{_ACCOUNTS} WHERE n.name = ?", [_normal(name)])) is None:
        raise StoreError(f"There is no account named {name}: `rankloop account list` shows those that there are.")
    return _from_row(row)


# ---- acts


def create(store: Database, name: str, password: str, roles: Iterable[Role], by: int | None = None) -> Account:
    """A new account. The first one turns sign-in on, and must be a lead's: nobody else could add the others.

    The name may be that of somebody who has judged here already, such as `local`: those judgments are then theirs.

    Raises:
        StoreError: the name is taken, belongs to a rule or came with an import; or password or roles will not do.
    """
    name = _checked_name(name)
    roles = checked_roles(roles)
    hashed = HASHER.hash(_checked_password(password))
    with store.atomic():
        if "lead" not in roles and not any_accounts(store):
            raise StoreError("The first account needs the role lead: nobody else could add the others.")
        annotator = annotators.ensure(store, name)
        if store.value("SELECT EXISTS (SELECT 1 FROM accounts WHERE annotator_id = ?)", [annotator.id]):
            raise StoreError(f"There is an account named {name} already: choose another name, or set its password anew.")
        if store.value("SELECT EXISTS (SELECT 1 FROM judgments WHERE annotator_id = ? AND import_id IS NOT NULL)", [annotator.id]):
            raise StoreError(f"{name} came with an import, and who that was is not known here: choose another name.")
        values = {"annotator_id": annotator.id, "password_hash": hashed, "roles": in_order(roles), "created_at": now()}
        account_id = store.insert("accounts", values)
        _log(store, annotator.id, "created", ", ".join(in_order(roles)), by)
        return get(store, account_id)


def set_roles(store: Database, account_id: int, roles: Iterable[Role], by: int | None = None) -> Account:
    """Other roles for an account; it must sign in again.

    Raises:
        StoreError: no role, an unknown one, or the last lead would lose that role.
    """
    roles = checked_roles(roles)
    with store.atomic() as connection:
        account = get(store, account_id)
        if "lead" not in roles:
            _keep_a_lead(store, account, "lose that role")
        connection.conn.execute("UPDATE accounts SET roles = ? WHERE id = ?", [json.dumps(in_order(roles)), account_id])
        _end_sessions(store, account_id)
        _log(store, account.annotator.id, "roles", ", ".join(in_order(roles)), by)
        return get(store, account_id)


def set_password(store: Database, account_id: int, password: str, by: int | None = None) -> None:
    """A new password; whoever is signed in with the old one is signed out, and the brake is released.

    Raises:
        StoreError: it is too short or too long, or there is no such account.
    """
    hashed = HASHER.hash(_checked_password(password))
    with store.atomic() as connection:
        account = get(store, account_id)
        connection.conn.execute("UPDATE accounts SET password_hash = ? WHERE id = ?", [hashed, account_id])
        connection.conn.execute("DELETE FROM sign_in_failures WHERE name = ?", [_brake(account.name)])
        _end_sessions(store, account_id)
        _log(store, account.annotator.id, "password", "", by)


def disable(store: Database, account_id: int, by: int | None = None) -> Account:
    """Nobody can use the account from now on; what was done with it stays. Disabling it twice is disabling it once.

    Raises:
        StoreError: it is the last lead's, or there is no such account.
    """
    with store.atomic() as connection:
        account = get(store, account_id)
        if account.disabled:
            return account
        _keep_a_lead(store, account, "be disabled")
        connection.conn.execute("UPDATE accounts SET disabled_at = ? WHERE id = ?", [now(), account_id])
        _end_sessions(store, account_id)
        _log(store, account.annotator.id, "disabled", "", by)
        return get(store, account_id)


def enable(store: Database, account_id: int, by: int | None = None) -> Account:
    """The account can be used again, with the password that it had.

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


def sign_in(store: Database, name: str, password: str) -> str:
    """The token of a new session. Takes as long for a name that does not exist as for a wrong password.

    Raises:
        SignInRefused: they do not fit, the account is disabled, or it must wait after too many failures.
    """
    braked = _brake(name)
    failures = _begin_attempt(store, braked)
    row = store.row("SELECT a.* FROM accounts a JOIN annotators n ON n.id = a.annotator_id WHERE n.name = ?", [_normal(name)])
    fits = _verify(row["password_hash"] if row else None, password)
    if row is None or not fits or row["disabled_at"] is not None:
        wait_s = _wait_s(failures)
        raise SignInRefused(
            "This name and password do not fit: try again"
            + (f" in {wait_s} s" if wait_s else "")
            + ", or ask a lead to set a new password.",
            wait_s,
        )
    rehashed = HASHER.hash(_composed(password)) if HASHER.check_needs_rehash(row["password_hash"]) else None
    token, at = secrets.token_urlsafe(32), datetime.now(UTC)
    with store.atomic() as connection:
        # It may have been disabled, or given another password, while the password was looked at.
        still = store.value(
            "SELECT 1 FROM accounts WHERE id = ? AND disabled_at IS NULL AND password_hash = ?", [row["id"], row["password_hash"]]
        )
        if not still:
            raise SignInRefused("The account was changed just now: try again.", 0)
        connection.conn.execute("DELETE FROM sign_in_failures WHERE name = ?", [braked])
        connection.conn.execute("DELETE FROM sessions WHERE expires_at <= ?", [_text(at)])
        if rehashed:
            connection.conn.execute("UPDATE accounts SET password_hash = ? WHERE id = ?", [rehashed, row["id"]])
        # Not `insert`: what it says of a failure would show the row.
        connection.conn.execute(
            "INSERT INTO sessions (token_hash, account_id, created_at, expires_at) VALUES (?, ?, ?, ?)",
            [_hash(token), row["id"], _text(at), _text(at + timedelta(hours=IDLE_HOURS))],
        )
    return token


def session(store: Database, token: str) -> Session | None:
    """The session of this token, None if there is none or it is over. One indexed read.

    Raises:
        StoreError: the store cannot be read now.
    """
    at = datetime.now(UTC)
    try:
        row = store.row(
            f"SELECT {_COLUMNS}, s.created_at AS since, s.expires_at FROM sessions s "
            "JOIN accounts a ON a.id = s.account_id JOIN annotators n ON n.id = a.annotator_id "
            "WHERE s.token_hash = ? AND s.expires_at > ? AND a.disabled_at IS NULL",
            [_hash(token), _text(at)],
        )
    except sqlite3.Error as error:
        raise _unreadable(store, error) from error
    if row is None:
        return None
    gained = _renewed(row["since"], at) - datetime.fromisoformat(row["expires_at"])
    return Session(_from_row(row), gained >= timedelta(minutes=RENEW_MINUTES))


def of_token(store: Database, token: str) -> Account | None:
    """Whose session this is, None if it is nobody's or over."""
    found = session(store, token)
    return found and found.account


def renew(store: Database, token: str) -> None:
    """Writes down that this session is in use. Asked for when `Session.due`, that is seldom.

    Raises:
        StoreError: nothing can be written now; the session goes on until it would have ended.
    """
    with store.atomic() as connection:
        row = store.row("SELECT created_at FROM sessions WHERE token_hash = ?", [_hash(token)])
        if row is not None:
            until = _text(_renewed(row["created_at"], datetime.now(UTC)))
            connection.conn.execute("UPDATE sessions SET expires_at = ? WHERE token_hash = ?", [until, _hash(token)])


def sign_out(store: Database, token: str) -> None:
    """Ends this session, if it is one."""
    with store.atomic() as connection:
        connection.conn.execute("DELETE FROM sessions WHERE token_hash = ?", [_hash(token)])


def checked_roles(roles: Iterable[str]) -> frozenset[Role]:
    """The roles, if they are ones.

    Raises:
        StoreError: there are none, or an unknown one.
    """
    chosen = frozenset(roles)
    if unknown := sorted(chosen - set(ROLES)):
        raise StoreError(f"Unknown role {', '.join(unknown)}: choose among {', '.join(ROLES)}.")
    if not chosen:
        raise StoreError(f"An account needs a role: choose among {', '.join(ROLES)}.")
    return chosen


def in_order(roles: Iterable[Role]) -> list[Role]:
    return sorted(roles, key=ROLES.index)


# ---- inside


def _begin_attempt(store: Database, braked: str) -> int:
    """Counts this attempt as a failure until it proves right, so that guessing side by side is no faster."""
    at = datetime.now(UTC)
    # Once without the write lock: somebody who asks again and again must not keep the annotators from it.
    _failures_so_far(store, braked, at)
    with store.atomic() as connection:
        failures = _failures_so_far(store, braked, at)
        connection.conn.execute("DELETE FROM sign_in_failures WHERE created_at <= ?", [_text(at - timedelta(hours=FORGET_HOURS))])
        connection.conn.execute("INSERT INTO sign_in_failures (name, created_at) VALUES (?, ?)", [braked, _text(at)])
    return failures + 1


def _failures_so_far(store: Database, braked: str, at: datetime) -> int:
    failures, last = store.row(
        "SELECT count(*), max(created_at) FROM sign_in_failures WHERE name = ? AND created_at > ?",
        [braked, _text(at - timedelta(hours=FORGET_HOURS))],
    )
    left = ceil(_wait_s(failures) - (at - datetime.fromisoformat(last)).total_seconds()) if failures else 0
    if left > 0:
        raise SignInRefused(f"Too many wrong passwords for this name: try again in {left} s.", left)
    return failures


def _wait_s(failures: int) -> int:
    return min(LONGEST_WAIT_S, 2 ** min(failures - FREE_FAILURES, 20)) if failures > FREE_FAILURES else 0


def _verify(hashed: str | None, password: str) -> bool:
    password = _composed(password)[:LONGEST_PASSWORD]
    if hashed is None:
        HASHER.hash(password)
        return False
    try:
        return HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def _renewed(since: str, at: datetime) -> datetime:
    return min(at + timedelta(hours=IDLE_HOURS), datetime.fromisoformat(since) + timedelta(days=LONGEST_DAYS))


def _unreadable(store: Database, error: sqlite3.Error) -> StoreError:
    return StoreError(f"{store.path} cannot be read: {error}. Check what else has the file open, then try again.")


def _keep_a_lead(store: Database, account: Account, what: str) -> None:
    leads = [other for other in all_accounts(store) if "lead" in other.roles and not other.disabled]
    if [lead.id for lead in leads] == [account.id]:
        raise StoreError(f"{account.name} is the only lead and cannot {what}: make somebody else a lead first.")


def _end_sessions(store: Database, account_id: int) -> None:
    store.connection.conn.execute("DELETE FROM sessions WHERE account_id = ?", [account_id])


def _log(store: Database, annotator_id: int, act: str, detail: str, by: int | None) -> None:
    values = {"annotator_id": annotator_id, "act": act, "detail": detail, "by_id": by, "created_at": now()}
    store.insert("account_events", values)


def _checked_name(name: str) -> str:
    name = _normal(name)
    if not name:
        raise StoreError("An account needs a name: type one.")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise StoreError(f"A name has at most {LONGEST_NAME} characters, all of them visible: choose another.")
    return name


def _checked_password(password: str) -> str:
    password = _composed(password)
    if len(password) < SHORTEST_PASSWORD:
        raise StoreError(f"The password has {len(password)} characters, need {SHORTEST_PASSWORD}: choose a longer one.")
    if len(password) > LONGEST_PASSWORD:
        raise StoreError(f"The password has {len(password)} characters: choose one of at most {LONGEST_PASSWORD}.")
    return password


def _normal(name: str) -> str:
    return _composed(name).strip()


def _composed(password: str) -> str:
    # Keyboards disagree about how an accent or a Hangul syllable is put together; half a surrogate pair is no text.
    return unicodedata.normalize("NFC", password).encode("utf-8", "replace").decode()


def _brake(name: str) -> str:
    return _normal(name).casefold()[: 2 * LONGEST_NAME]


def _hash(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def _from_row(row: sqlite3.Row) -> Account:
    return Account(row["id"], _annotator(row), _roles(row), row["disabled_at"] is not None, row["created_at"])


def _roles(row: sqlite3.Row) -> frozenset[Role]:
    """None where the row does not say: nobody may do what nobody said."""
    try:
        return frozenset(columns.from_json(row["roles"], list, f"The roles of account {row['id']}")) & frozenset(ROLES)
    except (columns.Unreadable, TypeError) as error:
        columns.log.warning("%s", error)
        return frozenset()


def _annotator(row: sqlite3.Row) -> Annotator:
    return Annotator(
        row["annotator_id"], row["name"], row["kind"], row["rule"], row["pseudonym"], bool(row["shows_name"]), row["judged"]
    )
