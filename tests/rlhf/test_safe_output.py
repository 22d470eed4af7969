"""Escapes of control characters, and the stream that writes them."""

import io
import json

import argon2
import pytest

from rlhf.safe_output import EscapingStream, escape_controls, one_line
from storage.people import accounts

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\x7f\u202eevil\u2066\u200b\u2028\x00\U000e0041"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def test_what_people_write_stays_as_it_is():
    said = "한결 — José\tнаука 😀 👩‍👩‍👧 नमस्ते שלום العربية\n"
    assert escape_controls(said) == said
    assert one_line("a\tb\nc") == r"a\u0009b\u000ac"
    assert json.loads(f'"{escape_controls(EVIL)}"') == EVIL and json.loads(f'"{escape_controls(chr(0xD800))}"') == "\ud800"


def test_bars_may_move_and_texts_may_not():
    raw = io.StringIO()
    stream = EscapingStream(raw, bars=True)
    for text in ("\r 50%|### | stage\x1b[2J\r", "\n\x1b[A", "\x1b[Aforged", "x\rforged"):
        stream.write(text)
    assert raw.getvalue() == "\r 50%|### | stage\\u001b[2J\\u000d" + "\n\x1b[A" + "\\u001b[Aforged" + "x\\u000dforged"


def test_a_terminal_without_these_letters_gets_them_written_out():
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print("한 naïve", file=EscapingStream(raw), flush=True)
    assert raw.buffer.getvalue() == b"\\ud55c na\\xefve\n"
