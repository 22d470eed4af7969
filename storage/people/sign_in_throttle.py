"""Delays repeated wrong passwords: after a few failures, each further one doubles the wait before the next attempt.

Failures are counted by name and origin. An origin is an address, or a browser that has signed in with this name before: guesses
from one address delay neither other addresses nor known browsers. All addresses together have a second, shorter wait, against
guesses from many of them. `storage.people.accounts` verifies passwords; `feedback_ui.server.password_queue` orders the attempts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from storage.core.clock import as_text
from storage.core.database import Database, StoreError

FREE_FAILURES = 3
"""Failures of one origin without a wait."""
MAX_WAIT_S = 300
"""Longest wait of one origin, in seconds. It starts at 2 s and doubles with each further failure."""
ALL_ADDRESSES_FREE_FAILURES = 30
"""Failures for a name from all addresses together without a wait."""
ALL_ADDRESSES_MAX_WAIT_S = 10
"""Longest wait of every address, in seconds. It starts at 2 s and doubles with each further failure."""
FORGET_HOURS = 1
"""Hours after which a failure no longer counts."""


class SignInRefused(StoreError):
    """The name and password do not match, or the attempt came too soon. The message is the same for names that do not exist."""

    def __init__(self, message: str, wait_s: int):
        super().__init__(message)
        self.wait_s = wait_s
        """Seconds before the next attempt is accepted; 0 if it may come at once."""


@dataclass(frozen=True, slots=True)
class SignInOrigin:
    """Where a sign-in attempt comes from."""

    place: str = ""
    """The address, or the id of the browser."""
    known: bool = False
    """Whether it is a browser that has signed in with this name before."""

    @property
    def key(self) -> str:
        return f"{'browser' if self.known else 'address'} {self.place}"


COMMAND_LINE = SignInOrigin()
"""The origin of attempts without a browser or an address."""


def check(store: Database, name: str, origin: SignInOrigin) -> None:
    """Refuses an attempt that comes too soon. `name` is folded by `account_names.folded`, here and below.

    Raises:
        SignInRefused: this origin, or all addresses together, must wait.
    """
    at = store.clock.now()
    # Failures stored before the clock was set back and the program restarted lie in the future: they count as of now.
    if store.value("SELECT 1 FROM sign_in_failures WHERE name = ? AND created_at > ? LIMIT 1", [name, as_text(at)]):
        with store.atomic() as connection:
            connection.conn.execute("UPDATE sign_in_failures SET created_at = ?1 WHERE created_at > ?1", [as_text(at)])
    _check_wait(store, name, origin, at)


def begin(store: Database, name: str, origin: SignInOrigin) -> int:
    """Counts an attempt as a failure until `release` is called, so that guesses in parallel are no faster.

    Returns:
        Seconds to wait before the next attempt, if this one fails.

    Raises:
        SignInRefused: this attempt comes too soon; it is not counted.
    """
    # First without the write lock: many early attempts must not delay the annotators' writes.
    check(store, name, origin)
    with store.atomic() as connection:
        at = store.clock.now()
        forgotten = as_text(at - timedelta(hours=FORGET_HOURS))
        connection.conn.execute("DELETE FROM sign_in_failures WHERE created_at <= ?", [forgotten])
        own, all_addresses = _check_wait(store, name, origin, at)
        values = [name, origin.key, as_text(at)]
        connection.conn.execute("INSERT INTO sign_in_failures (name, origin, created_at) VALUES (?, ?, ?)", values)
    return max(_own_wait_s(own + 1), 0 if origin.known else _all_addresses_wait_s(all_addresses + 1))


def release(store: Database, name: str, origin: SignInOrigin) -> None:
    """Deletes the failures of this origin after a right password. Those of other origins stay."""
    with store.atomic() as connection:
        connection.conn.execute("DELETE FROM sign_in_failures WHERE name = ? AND origin = ?", [name, origin.key])


def release_all(store: Database, name: str) -> None:
    """Deletes the failures of all origins for a name that has a new password."""
    with store.atomic() as connection:
        connection.conn.execute("DELETE FROM sign_in_failures WHERE name = ?", [name])


def _check_wait(store: Database, name: str, origin: SignInOrigin, at: datetime) -> tuple[int, int]:
    """Returns the failures of this origin and of all addresses together; raises `SignInRefused` if the attempt comes too soon."""
    since = as_text(at - timedelta(hours=FORGET_HOURS))
    counted = "SELECT count(*), max(created_at) FROM sign_in_failures WHERE name = ? AND created_at > ?"
    own, own_last = _count_and_last(store, f"{counted} AND origin = ?", [name, since, origin.key])
    all_addresses, all_last = _count_and_last(store, f"{counted} AND origin NOT LIKE 'browser %'", [name, since])
    remaining_s = max(
        _remaining_s(_own_wait_s(own), own_last, at),
        0 if origin.known else _remaining_s(_all_addresses_wait_s(all_addresses), all_last, at),
    )
    if remaining_s > 0:
        raise SignInRefused(f"Too many wrong passwords for this name: try again in {remaining_s} s.", remaining_s)
    return own, all_addresses


def _count_and_last(store: Database, sql: str, parameters: list[str]) -> tuple[int, str | None]:
    """The number of failures that a query counts, and the time of the last one."""
    row = store.row(sql, parameters)
    return (0, None) if row is None else (row[0], row[1])


def _remaining_s(wait_s: int, last: str | None, at: datetime) -> int:
    """Seconds that remain of a wait of `wait_s` since `last`, at most `wait_s`."""
    if not wait_s or last is None:
        return 0
    return ceil(wait_s - max(0.0, (at - datetime.fromisoformat(last)).total_seconds()))


def _own_wait_s(failures: int) -> int:
    return _doubling(failures - FREE_FAILURES, MAX_WAIT_S)


def _all_addresses_wait_s(failures: int) -> int:
    return _doubling(failures - ALL_ADDRESSES_FREE_FAILURES, ALL_ADDRESSES_MAX_WAIT_S)


def _doubling(failures: int, longest: int) -> int:
    return min(longest, 2 ** min(failures, 20)) if failures > 0 else 0
