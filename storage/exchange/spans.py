"""Sets of ids as ranges: an import has up to millions, most of which follow each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

Spans = list[tuple[int, int]]
"""Ranges (first, last) of ids."""


def ids_in(spans: Spans) -> Iterator[int]:
    return chain.from_iterable(range(first, last + 1) for first, last in spans)


def spans_of(ids: Iterable[int]) -> Spans:
    """Ranges of consecutive ids."""
    spans: Spans = []
    for item in sorted(ids):
        if spans and spans[-1][1] == item - 1:
            spans[-1] = (spans[-1][0], item)
        else:
            spans.append((item, item))
    return spans
