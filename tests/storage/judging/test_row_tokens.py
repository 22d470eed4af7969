"""Tokens of rows: always the same for one annotator, useless to anybody else, and all of one length."""

import random
from itertools import pairwise

import pytest

from storage.core.database import Database
from storage.judging.row_tokens import LENGTH, RowTokens


@pytest.fixture
def tokens(store):
    return RowTokens(store)


@pytest.fixture
def token(tokens):
    return tokens.seal("presentation", 5, 7)


def test_a_token_is_opened_to_its_row(tokens):
    ids = (0, 1, 2, 2**31, 2**63 - 1)
    made = [tokens.seal("presentation", row_id, 7) for row_id in ids]
    assert [tokens.open("presentation", token, 7) for token in made] == list(ids)
    assert {len(token) for token in made} == {LENGTH} == {32}
    assert all(token.isascii() and token.replace("-", "").replace("_", "").isalnum() for token in made)


def test_another_process_and_a_restart_make_the_same(store, token):
    again = Database(store.path)
    try:
        assert RowTokens(again).seal("presentation", 5, 7) == token
        assert RowTokens(again).open("presentation", token, 7) == 5
    finally:
        again.close()


def test_two_processes_that_start_at_once_create_one_key(store):
    other = Database(store.path)
    try:
        first, second = RowTokens(store), RowTokens(other)
        assert (first.open("judgment", "x" * 32, 1), second.open("judgment", "x" * 32, 1)) == (None, None)
        # As if both had found none.
        assert first._create_key() == second._create_key() == RowTokens(store)._key()
        assert store.value("SELECT count(*) FROM keys") == 1
    finally:
        other.close()


def test_another_store_makes_others(tmp_path, token):
    other = Database(tmp_path / "other.db")
    try:
        elsewhere = RowTokens(other)
        assert elsewhere.seal("presentation", 5, 7) != token
        assert elsewhere.open("presentation", token, 7) is None
    finally:
        other.close()


def test_it_is_bound_to_its_annotator_and_its_kind(tokens, token):
    assert tokens.open("presentation", token, 8) is None
    assert tokens.open("judgment", token, 7) is None
    assert len({tokens.seal(kind, 5, who) for kind in ("presentation", "judgment") for who in (7, 8)}) == 4


def test_an_invalid_token_opens_to_none(tokens, token):
    letters = "".join(random.Random(1).choices(token, k=32))
    every_bit = [token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :] for n in range(32)]
    strange = (token[:-1], token + "=", token[:-1] + "=", "=" * 32, "!" * 32, "A" * 29 + "!!!", "ü" * 32, "\ud83d" * 32, "a\x00" * 16)
    others = (token.encode(), 5, 2**63, -1, 1.5, None, True, [token], {"a": token}, "", "5", "A" * 100_000)
    for forged in (letters, token[1:] + token[0], token.swapcase(), *every_bit, *strange, *others):
        assert tokens.open("presentation", forged, 7) is None


def test_tokens_rise_as_often_as_they_fall(tokens):
    """1,000 ids in a row: names that rose with them more than half the time would tell the order (5 deviations)."""
    made = [tokens.seal("judgment", row_id, 7) for row_id in range(1, 1001)]
    rising = sum(a < b for a, b in pairwise(made))
    # Rising pairs of a random order have a variance of (n + 1) / 12.
    assert abs(rising - 499.5) < 5 * (1001 / 12) ** 0.5
