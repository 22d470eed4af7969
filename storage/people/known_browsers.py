"""Recognises browsers that have signed in as an account before, by a signed note in a cookie.

Such a browser is an origin of its own for `storage.people.sign_in_throttle`: wrong passwords from other places do not delay it. A note
does not sign anybody in. It is signed with the account's password hash, so a new password makes it invalid, and the store
need not keep it. The cookie holds a note for each of the last few accounts, because people share computers.
"""

from __future__ import annotations

import hmac
import re
import secrets

MAX_NOTES = 4
"""Most notes in a cookie; the oldest is dropped first."""

_NOTE = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})")


def id_of(cookie: str, password_hash: str, account_id: int) -> str | None:
    """The browser's id, if the cookie has a valid note of this account; None otherwise."""
    for note in _notes(cookie):
        browser_id = note.partition(".")[0]
        if hmac.compare_digest(note, _note(password_hash, account_id, browser_id)):
            return browser_id
    return None


def with_note(cookie: str, password_hash: str, account_id: int) -> str:
    """The cookie with a note of this account in the first place, before its notes of other accounts."""
    mine = _note(password_hash, account_id, id_of(cookie, password_hash, account_id) or secrets.token_hex(16))
    return ":".join([mine, *(note for note in _notes(cookie) if note != mine)][:MAX_NOTES])


def _notes(cookie: str) -> list[str]:
    return [note for note in cookie.split(":")[:MAX_NOTES] if _NOTE.fullmatch(note)]


def _note(password_hash: str, account_id: int, browser_id: str) -> str:
    signed = f"rankloop known browser {account_id} {browser_id}"
    return f"{browser_id}.{hmac.digest(password_hash.encode(), signed.encode(), 'sha256').hex()}"
