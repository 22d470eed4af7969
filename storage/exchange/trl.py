"""TRL's preference datasets. A ranking of K completions is all its ordered pairs, one JSONL row each.

Read are a prompt of its own, as text or messages and under any of its usual names, or conversations that begin with the same
turns. A text that both answers begin with is not taken for a prompt. Two forms with messages are written; `RewardTrainer` and
`DPOTrainer` read them unchanged. Pairs have no weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.encoder import encode_basestring as quoted
from pathlib import Path

from storage.core.database import Database
from storage.exchange import export, field_maps, files, mapped
from storage.exchange.files import Progress
from storage.exchange.rows import Found, NewComparison, Record, check_different
from storage.judging.judgments import ordered_pairs


def read(record: Record) -> Iterator[Found]:
    """One comparison with one vote."""
    for found in mapped.read(field_maps.TRL, record):
        if isinstance(found, NewComparison):
            check_different(*found.completions[:2])
        yield found


def write(
    store: Database,
    path: Path | str,
    *,
    include_simulated: bool = False,
    names: bool = False,
    progress: Progress | None = None,
    implicit: bool = False,
) -> int:
    """Writes the votes as pairs and returns how many. The file appears whole or not at all.

    Annotators appear by pseudonym, or with `names` by their names. With `implicit` the prompt has no field
    of its own: chosen and rejected begin with it.

    Raises:
        StoreError: the file cannot be written.
    """
    written = 0
    lines = _implicit if implicit else _explicit
    with files.atomic_write_text(path) as file, store.snapshot():
        for comparison, rows in export.merged(store, simulated=include_simulated, names=names, progress=progress):
            turns = {answer.id: f'{{"role":"assistant","content":{quoted(answer.text)}}}' for answer in comparison.completions}
            about = f',"kind":{quoted(comparison.kind)},"split":"{comparison.split}"}}\n'
            for _, _, tiers, annotator, kind in rows:
                end = f',"annotator":{quoted(annotator)},"annotator_kind":"{kind}"{about}'
                for better, worse in ordered_pairs(json.loads(tiers)):
                    file.write(lines(comparison.messages, turns[better], turns[worse]) + end)
                    written += 1
    return written


# Rows are assembled from JSON text: decoding and encoding the same prompt for each of its pairs took two thirds of the time.
def _explicit(messages: str, better: str, worse: str) -> str:
    return f'{{"prompt":{messages},"chosen":[{better}],"rejected":[{worse}]'


def _implicit(messages: str, better: str, worse: str) -> str:
    return f'{{"chosen":{messages[:-1]},{better}],"rejected":{messages[:-1]},{worse}]'


def write_implicit(
    store: Database, path: Path | str, *, include_simulated: bool = False, names: bool = False, progress: Progress | None = None
) -> int:
    """As `write`, with the prompt implicit."""
    return write(store, path, include_simulated=include_simulated, names=names, progress=progress, implicit=True)
