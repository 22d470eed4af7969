"""Opaque tokens that stand for row ids in browsers. Annotators must not learn ids, because ids reveal the order of writing.

A token is an id under deterministic authenticated encryption (SIV, Rogaway and Shrimpton 2006, with HMAC-SHA-256 as both
pseudorandom functions): the same row has the same token for the same annotator, also after a restart and in another
process, and nobody without the key can make, order or link tokens. Whether the row exists is not checked here.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Literal

from storage.core.database import Database

RowKind = Literal["presentation", "judgment"]

KEY_NAME = "row tokens"
KEY_BYTES = 32
ID_BYTES = 8
TAG_BYTES = 16
LENGTH = 4 * (TAG_BYTES + ID_BYTES) // 3
"""Length of a token in characters: 32 for every id."""

_SELECT_KEY = "SELECT value FROM keys WHERE name = ?"


class RowTokens:
    """Makes and opens the tokens of one store. The key is generated at the first use and stored in the database."""

    def __init__(self, store: Database):
        self.store = store
        self._cached_key: bytes | None = None

    def seal(self, kind: RowKind, row_id: int, annotator_id: int) -> str:
        """The token of a row for one annotator. It is not valid for another annotator or another kind of row.

        Call it outside a transaction: the first call generates the key, which must not be rolled back.
        """
        key = self._key() or self._create_key()
        plain = row_id.to_bytes(ID_BYTES, "big")
        tag = _tag(key, kind, plain, annotator_id)
        return urlsafe_b64encode(tag + _masked(key, plain, tag)).decode()

    def open(self, kind: RowKind, token: Any, annotator_id: int) -> int | None:
        """The id of the row; None for anything that is not a valid token of this annotator for this kind of row."""
        if (key := self._key()) is None or (sealed := _bytes_of(token)) is None:
            return None
        tag, masked = sealed[:TAG_BYTES], sealed[TAG_BYTES:]
        plain = _masked(key, masked, tag)
        if not hmac.compare_digest(tag, _tag(key, kind, plain, annotator_id)):
            return None
        return int.from_bytes(plain, "big")

    def _key(self) -> bytes | None:
        if self._cached_key is None:
            self._cached_key = self.store.value(_SELECT_KEY, [KEY_NAME])
        return self._cached_key

    def _create_key(self) -> bytes:
        with self.store.atomic() as connection:
            # Another process may have written a key in the meantime: the first one written is used.
            connection.conn.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", [KEY_NAME, secrets.token_bytes(KEY_BYTES)])
        key: bytes = self.store.value(_SELECT_KEY, [KEY_NAME])
        self._cached_key = key
        return key


def _bytes_of(token: Any) -> bytes | None:
    if not isinstance(token, str) or len(token) != LENGTH or not token.isascii():
        return None
    try:
        sealed = urlsafe_b64decode(token)
    except ValueError:
        return None
    # The decoder skips characters outside the alphabet, so the result may be too short.
    return sealed if len(sealed) == TAG_BYTES + ID_BYTES else None


def _tag(key: bytes, kind: RowKind, plain: bytes, annotator_id: int) -> bytes:
    return hmac.digest(key, f"tag {kind} {annotator_id} ".encode() + plain, "sha256")[:TAG_BYTES]


def _masked(key: bytes, text: bytes, tag: bytes) -> bytes:
    pad = hmac.digest(key, b"pad " + tag, "sha256")
    return bytes(a ^ b for a, b in zip(text, pad, strict=False))
