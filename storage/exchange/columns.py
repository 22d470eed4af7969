"""Finds the names that a format knows among columns that are spelt otherwise: `Prompt`, `chosenResponse`, `rejected answer`.

Names are the same if their letters and digits are, whatever their case and what stands between them. A name that is spelt as the
format spells it is never renamed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from storage.exchange.rows import BadRow, ReadAs, Record, Row

CACHED_HEADINGS = 1_000
"""Most sets of names whose spelling is cached."""

_BETWEEN = re.compile(r"[\W_]+")


def fold(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return _BETWEEN.sub("", name).lower()


class Respelling:
    """Gives the columns of records the names that a format knows.

    Args:
        known: the names of the format.
        ignored: those among them that it does not keep: two spellings of one are no matter.
    """

    def __init__(self, known: Iterable[str], ignored: Collection[str] = ()):
        self.known = frozenset(known)
        counts = Counter(map(fold, self.known))
        self.by_fold = {fold(name): name for name in self.known if counts[fold(name)] == 1 and fold(name)}
        self.ignored = frozenset(ignored)
        self.cache: dict[tuple[str, ...], dict[str, str] | str] = {}

    def renames(self, names: Iterable[str]) -> Mapping[str, str]:
        """The names that are spelt otherwise, and those of the format.

        Raises:
            BadRow: two names are the same one but for their spelling.
        """
        heading = tuple(names)
        if heading not in self.cache:
            if len(self.cache) >= CACHED_HEADINGS:
                self.cache.clear()
            try:
                self.cache[heading] = self._renames(heading)
            except BadRow as error:
                self.cache[heading] = str(error)
        found = self.cache[heading]
        if isinstance(found, str):
            raise BadRow(found)
        return found

    def _renames(self, heading: tuple[str, ...]) -> dict[str, str]:
        found: dict[str, str] = {}
        spellings: dict[str, list[str]] = {}
        for name in heading:
            meant = name if name in self.known else self.by_fold.get(fold(name))
            if meant is not None:
                spellings.setdefault(meant, []).append(name)
        for meant, spelt in spellings.items():
            if len(spelt) > 1 and meant not in self.ignored:
                raise BadRow(f"{' and '.join(spelt)} may each be {meant}: rename or leave out all but one")
            if len(spelt) == 1 and spelt[0] != meant:
                found[spelt[0]] = meant
        return found

    def respelt(self, record: Record) -> Record:
        """The record with the names of the format.

        Raises:
            BadRow: two names are the same one but for their spelling.
        """
        renames = self.renames(record)
        return {renames.get(name, name): value for name, value in record.items()} if renames else record

    def rows(self, rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
        """The rows with the names of the format; each new spelling is told once."""
        told: set[str] = set()
        for number, row in rows:
            if not isinstance(row, dict):
                yield number, row
                continue
            try:
                renames = self.renames(row)
            except BadRow as error:
                yield number, error
                continue
            for spelt, meant in renames.items():
                if spelt not in told:
                    told.add(spelt)
                    yield number, ReadAs(spelt, meant)
            yield number, {renames.get(name, name): value for name, value in row.items()} if renames else row
