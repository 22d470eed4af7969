"""Browsers that have signed in as an account before: each keeps a note of it that only this store could have written.

Such a browser is its own origin for the brake (`storage.people.sign_in_throttle`), so that nobody who guesses elsewhere keeps it out. The
note signs nobody in. It is signed with the account's password hash: a new password makes every note void, and the store
keeps nothing. A browser keeps a note for each of the last few accounts, because people share computers.
"""

from __future__ import annotations

import hmac
import re
import secrets

MOST_NOTES = 4
"""Accounts that one browser is known for; the newest stay."""

_NOTE = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})")


def id_of(kept: str, password_hash: str, account_id: int) -> str | None:
    """The browser's id, if one of its notes is of this account; None otherwise."""
    for note in _notes(kept):
        browser_id = note.partition(".")[0]
        if hmac.compare_digest(note, _note(password_hash, account_id, browser_id)):
            return browser_id
    return None


def with_note(kept: str, password_hash: str, account_id: int) -> str:
    """What the browser keeps from now on: a note of this account, before those that it has of others."""
    mine = _note(password_hash, account_id, id_of(kept, password_hash, account_id) or secrets.token_hex(16))
    return ":".join([mine, *(note for note in _notes(kept) if note != mine)][:MOST_NOTES])


def _notes(kept: str) -> list[str]:
    return [note for note in kept.split(":")[:MOST_NOTES] if _NOTE.fullmatch(note)]


def _note(password_hash: str, account_id: int, browser_id: str) -> str:
    said = f"rankloop known browser {account_id} {browser_id}"
    return f"{browser_id}.{hmac.digest(password_hash.encode(), said.encode(), 'sha256').hex()}"
