"""Turns the tokens of one answer into text, as they are sampled.

Text is held back while it may still change: a character of which bytes are missing, or the beginning of a text that ends the answer.
A model's reasoning before its answer is no part of the text (`rlhf.models.reasoning`). Leaves out where the tokens come from.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rlhf.models.reasoning import ReasoningMarks

T = TypeVar("T")

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a character of several tokens decodes to until its last one is there."""

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A token of SentencePiece that is one byte."""


@dataclass(slots=True)
class Piece(Generic[T]):
    """Text that will not change any more, with the notes of the tokens whose text begins in it."""

    text: str = ""
    notes: list[T] = field(default_factory=list)


class TextStream(Generic[T]):
    """The text of one answer. `add` takes a token and returns what is certain; `finish` returns the rest.

    Args:
        decode: the text of token ids, special tokens left out.
        stops: texts that end the answer; they are no part of it.
        reasoning: the marks of the model's reasoning, if it has any.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = (), reasoning: ReasoningMarks | None = None):
        self._decode, self._stops, self._reasoning = decode, stops, reasoning
        self.stopped = False
        """Whether one of `stops` came: the answer is over, and further tokens are ignored."""
        self.reasoning_tokens = 0
        """Tokens of reasoning, with its marks."""
        self._in_reasoning = reasoning is not None and reasoning.opened
        self._after_reasoning = False
        # Ids that are decoded again with the next token, and how many of them are in `_text` already.
        self._window: list[int] = []
        self._decoded = 0
        # Text that is complete and not returned yet; its first character is number `_sent` of the answer.
        self._text, self._sent = "", 0
        self._notes: deque[tuple[int, T]] = deque()

    def add(self, token: int, note: T | None = None) -> Piece[T]:
        """The text that became certain with this token. `note` comes back with the text in which the token's own begins."""
        if self.stopped or self._is_reasoning(token):
            return Piece()
        if note is not None:
            self._notes.append((self._sent + len(self._text), note))
        self._window.append(token)
        before = self._decode(self._window[: self._decoded])
        text = self._decode(self._window)
        if text.endswith(INCOMPLETE) or len(text) <= len(before):
            return Piece()
        # The tokens before the last one stay in the window: SentencePiece decodes a token by what is before it.
        self._window, self._decoded = self._window[self._decoded :], len(self._window) - self._decoded
        return self._append(text[len(before) :])

    def finish(self) -> Piece[T]:
        """The rest of the text, when there are no more tokens."""
        if self.stopped:
            return Piece()
        rest = self._decode(self._window)[len(self._decode(self._window[: self._decoded])) :]
        self._window, self._decoded = [], 0
        piece = self._append(rest)
        if not self.stopped:
            more = self._take(len(self._text))
            piece = Piece(piece.text + more.text, [*piece.notes, *more.notes, *(note for _, note in self._notes)])
            self._notes.clear()
        return piece

    def _append(self, text: str) -> Piece[T]:
        if self._after_reasoning:
            # Empty lines set the answer apart from the reasoning.
            text = text.lstrip()
            self._after_reasoning = not text
        self._text += text
        found = [(at, -len(stop)) for stop in self._stops if (at := self._text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._take(min(found)[0])
        return self._take(len(self._text) - self._held_back())

    def _held_back(self) -> int:
        """How many characters at the end may be the beginning of a stop text."""
        longest = max(map(len, self._stops), default=0) - 1
        for start in range(max(0, len(self._text) - longest), len(self._text)):
            if any(stop.startswith(self._text[start:]) for stop in self._stops):
                return len(self._text) - start
        return 0

    def _take(self, length: int) -> Piece[T]:
        text, self._text = self._text[:length], self._text[length:]
        self._sent += length
        notes = []
        while self._notes and self._notes[0][0] < self._sent:
            notes.append(self._notes.popleft()[1])
        return Piece(text, notes)

    def _is_reasoning(self, token: int) -> bool:
        if self._reasoning is None:
            return False
        if token == self._reasoning.start:
            self._in_reasoning = True
        was_inside = self._in_reasoning
        if token == self._reasoning.end:
            self._in_reasoning = False
            self._after_reasoning = True
        inside = was_inside or token == self._reasoning.end
        self.reasoning_tokens += inside
        return inside


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """The bytes of one token, which may be a part of a character."""
    piece: str | None = tokenizer.convert_ids_to_tokens(token)
    if piece is None:
        return b""
    if token not in tokenizer.added_tokens_decoder:
        if found := BYTE_TOKEN.fullmatch(piece):
            return bytes([int(found[1], 16)])
        if INCOMPLETE in tokenizer.decode([token]) and all(character in BYTE_OF for character in piece):
            return bytes(BYTE_OF[character] for character in piece)
    text: str = tokenizer.decode([token])
    return text.encode()


def _byte_alphabet() -> dict[str, int]:
    """The byte for which each character of a byte-level vocabulary stands: those that print stand for themselves (GPT-2)."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("\N{INVERTED EXCLAMATION MARK}"), 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_alphabet()
