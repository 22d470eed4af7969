"""Browsers that have signed in as an account before: each keeps a note of it that only this store could have written.

Such a browser is its own origin for the brake (`storage.brake`), so that nobody who guesses elsewhere keeps it out. The
note signs nobody in. It is signed with the account's password hash: a new password makes every note void, and the store
keeps nothing.
"""

from __future__ import annotations

import hmac
import re
import secrets

NOTE = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})")


def new_id() -> str:
    return secrets.token_hex(16)


def note(password_hash: str, account_id: int, browser_id: str) -> str:
    """What the browser keeps."""
    said = f"rankloop known browser {account_id} {browser_id}"
    return f"{browser_id}.{hmac.digest(password_hash.encode(), said.encode(), 'sha256').hex()}"


def id_of(kept: str, password_hash: str, account_id: int) -> str | None:
    """The browser's id, if its note is one of this account; None otherwise."""
    found = NOTE.fullmatch(kept)
    if found is None or not hmac.compare_digest(kept, note(password_hash, account_id, found[1])):
        return None
    return found[1]
