"""The brake on guessing passwords: after a few wrong ones the next is looked at later and later.

Wrong passwords are counted by name and by origin, which is either an address or a browser that has signed in as this
name before. So somebody who guesses keeps themselves waiting, and nobody else at another address or at a known browser.
Over all addresses together there is a second, gentle brake, for those who guess from many. Leaves out whether a password
is right, which is `storage.people.accounts`' work, and whose is looked at first: `feedback_ui.server.password_queue`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from storage.core.clock import as_text
from storage.core.database import Database, StoreError

FREE_FAILURES = 3
"""Wrong passwords in a row from one origin that cost no waiting."""
LONGEST_WAIT_S = 300
"""The wait of an origin doubles with each further failure from 2 s up to this, in seconds."""
CROWD_FREE_FAILURES = 30
"""Wrong passwords for a name from all addresses together that cost no waiting."""
CROWD_WAIT_S = 10
"""The wait of every address doubles with each further failure from 2 s up to this, in seconds."""
FORGET_HOURS = 1
"""Failures older than this no longer count."""


class SignInRefused(StoreError):
    """The name and password do not fit, or were wrong too often; the message is the same for names that do not exist."""

    def __init__(self, message: str, wait_s: int):
        super().__init__(message)
        self.wait_s = wait_s
        """Seconds before the next attempt is looked at; 0 if it may come at once."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a password comes from."""

    place: str = ""
    """The address, or the id of the browser."""
    known: bool = False
    """Whether it is a browser that has signed in as this name before."""

    @property
    def key(self) -> str:
        return f"{'browser' if self.known else 'address'} {self.place}"


COMMAND_LINE = Origin()
"""Where there is neither browser nor address."""


def check(store: Database, name: str, origin: Origin) -> None:
    """Refuses an attempt that comes too early. `name` is as `accounts` folds it.

    Raises:
        SignInRefused: this origin, or all addresses together, must wait.
    """
    at = store.clock.now()
    # From before the clock was set back and the program started again: what is yet to come would never be long enough ago.
    if store.value("SELECT 1 FROM sign_in_failures WHERE name = ? AND created_at > ? LIMIT 1", [name, as_text(at)]):
        with store.atomic() as connection:
            connection.conn.execute("UPDATE sign_in_failures SET created_at = ?1 WHERE created_at > ?1", [as_text(at)])
    _refuse_early(store, name, origin, at)


def begin(store: Database, name: str, origin: Origin) -> int:
    """Counts an attempt as a failure until it proves right, so that guessing side by side is no faster.

    Returns:
        Seconds to wait before the next one, should this one be wrong.

    Raises:
        SignInRefused: this one comes too early; it is not counted.
    """
    # Once without the write lock: somebody who asks again and again must not keep the annotators from it.
    check(store, name, origin)
    with store.atomic() as connection:
        at = store.clock.now()
        forgotten = as_text(at - timedelta(hours=FORGET_HOURS))
        connection.conn.execute("DELETE FROM sign_in_failures WHERE created_at <= ?", [forgotten])
        own, crowd = _refuse_early(store, name, origin, at)
        values = [name, origin.key, as_text(at)]
        connection.conn.execute("INSERT INTO sign_in_failures (name, origin, created_at) VALUES (?, ?, ?)", values)
    return max(_own_wait_s(own + 1), 0 if origin.known else _crowd_wait_s(crowd + 1))


def release(store: Database, name: str, origin: Origin) -> None:
    """The password was right: what this origin got wrong before is forgotten. What others got wrong is not."""
    with store.atomic() as connection:
        connection.conn.execute("DELETE FROM sign_in_failures WHERE name = ? AND origin = ?", [name, origin.key])


def release_all(store: Database, name: str) -> None:
    """There is a new password: nobody has got it wrong yet."""
    with store.atomic() as connection:
        connection.conn.execute("DELETE FROM sign_in_failures WHERE name = ?", [name])


def _refuse_early(store: Database, name: str, origin: Origin, at: datetime) -> tuple[int, int]:
    """Returns the failures of this origin and of all addresses together, unless the attempt comes too early."""
    since = as_text(at - timedelta(hours=FORGET_HOURS))
    counted = "SELECT count(*), max(created_at) FROM sign_in_failures WHERE name = ? AND created_at > ?"
    own, own_last = _count_and_last(store, f"{counted} AND origin = ?", [name, since, origin.key])
    crowd, crowd_last = _count_and_last(store, f"{counted} AND origin NOT LIKE 'browser %'", [name, since])
    left = max(
        _left(_own_wait_s(own), own_last, at),
        0 if origin.known else _left(_crowd_wait_s(crowd), crowd_last, at),
    )
    if left > 0:
        raise SignInRefused(f"Too many wrong passwords for this name: try again in {left} s.", left)
    return own, crowd


def _count_and_last(store: Database, sql: str, parameters: list[str]) -> tuple[int, str | None]:
    """The number of failures that a query counts, and the time of the last one."""
    row = store.row(sql, parameters)
    return (0, None) if row is None else (row[0], row[1])


def _left(wait_s: int, last: str | None, at: datetime) -> int:
    """Seconds that remain of a wait of `wait_s` since `last`, at most `wait_s`."""
    if not wait_s or last is None:
        return 0
    return ceil(wait_s - max(0.0, (at - datetime.fromisoformat(last)).total_seconds()))


def _own_wait_s(failures: int) -> int:
    return _doubling(failures - FREE_FAILURES, LONGEST_WAIT_S)


def _crowd_wait_s(failures: int) -> int:
    return _doubling(failures - CROWD_FREE_FAILURES, CROWD_WAIT_S)


def _doubling(beyond: int, longest: int) -> int:
    return min(longest, 2 ** min(beyond, 20)) if beyond > 0 else 0
