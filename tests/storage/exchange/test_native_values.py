"""Which values a native export may hold in which column."""

import pytest

from storage.exchange.native_values import MAX_ID, problem


@pytest.mark.parametrize(
    ("column", "declared", "value"),
    [
        ("text", "TEXT", "가"),
        ("text", "TEXT", None),
        ("created_at", "TEXT", "2025-01-02T03:04:05.678+00:00"),
        ("latency_s", "REAL", 1),
        ("latency_s", "REAL", 0.5),
        ("id", "INTEGER", MAX_ID - 1),
        ("position", "INTEGER", 0),
        ("seed", "INTEGER", -(2**63)),
        ("seed", "INTEGER", 2**63 - 1),
        ("name", "", "judgments"),
    ],
)
def test_what_rankloop_writes_is_right(column, declared, value):
    assert problem(column, declared, value) is None


@pytest.mark.parametrize(
    ("column", "declared", "value", "said"),
    [
        ("text", "TEXT", 1, "text must be text"),
        ("text", "TEXT", "\ud800", "text has half a surrogate pair, which UTF-8 cannot hold"),
        ("created_at", "TEXT", "yesterday", "created_at must be a time, not 'yesterday'"),
        ("latency_s", "REAL", True, "latency_s must be a number"),
        ("latency_s", "REAL", "1", "latency_s must be a number"),
        ("seed", "INTEGER", 1.0, "seed must be a whole number"),
        ("seed", "INTEGER", True, "seed must be a whole number"),
        ("seed", "INTEGER", 2**63, "seed is larger than a column holds"),
        ("id", "INTEGER", -1, "id must be from 0 to 9007199254740991, not -1"),
        ("run_id", "INTEGER", 2**53, "run_id must be from 0 to 9007199254740991, not 9007199254740992"),
    ],
)
def test_what_it_never_writes_is_named(column, declared, value, said):
    assert problem(column, declared, value) == said
