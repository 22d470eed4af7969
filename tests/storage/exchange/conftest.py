"""Files of rows, imported."""

import json
from itertools import count

import pytest

from storage.exchange import imports

NAMES = count()


@pytest.fixture
def bring(store, tmp_path):
    """Imports rows from a file of their own; returns (id, report)."""

    def bring(*rows, format="jsonl", name=None, **options):
        path = tmp_path / (name or f"rows{next(NAMES)}.jsonl")
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in rows), encoding="utf-8")
        return imports.import_file(store, path, format, **options)

    return bring
