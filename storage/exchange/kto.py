"""KTO: rows of a prompt, one completion and a label, true for a good one. `KTOTrainer` reads them unchanged.

They hold the labels of single completions, and each pair of a ranking as two rows, as TRL unpairs preference data: the better
completion is good there, and the worse one bad. Ties have no pairs. Read again, the rows of a pair are labels of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from json.encoder import encode_basestring as quoted
from pathlib import Path

from storage.core.database import Database, to_json
from storage.exchange import export, files
from storage.exchange.export import ExportedVote
from storage.exchange.files import Progress
from storage.judging import completion_labels
from storage.judging.completion_labels import CompletionLabel
from storage.judging.judgments import ordered_pairs


def write(
    store: Database, path: Path | str, *, include_simulated: bool = False, names: bool = False, progress: Progress | None = None
) -> int:
    """Writes labels and pairs, and returns the number of rows. The file appears whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    written = 0
    with files.atomic_write_text(path) as file, store.snapshot():
        for line in _lines(store, include_simulated, names, progress):
            file.write(line)
            written += 1
    return written


def _lines(store: Database, simulated: bool, names: bool, progress: Progress | None) -> Iterator[str]:
    for label in completion_labels.active(store, simulated=simulated, names=names):
        yield _line(label.messages, label.completion, label.model, label.good, _about(label, label.kind, label.split))
    for comparison, votes in export.grouped(store, simulated=simulated, names=names, progress=progress):
        answers = {answer.id: answer for answer in comparison.completions}
        for vote in votes:
            about = _about(vote, comparison.kind, comparison.split)
            for pair in ordered_pairs(vote.tiers):
                for completion_id, good in zip(pair, (True, False), strict=True):
                    answer = answers[completion_id]
                    yield _line(comparison.messages, answer.text, answer.model, good, about)


def _about(said: CompletionLabel | ExportedVote, kind: str, split: str) -> str:
    judge = {"annotator": said.annotator, "annotator_kind": said.annotator_kind, "created_at": said.created_at}
    more = {name: value for name, value in (("annotator_rule", said.rule), ("rationale", said.rationale)) if value}
    return to_json(judge | more | {"kind": kind, "split": split})


def _line(messages: str, completion: str, model: str, good: bool, about: str) -> str:
    turn = f'{{"role":"assistant","content":{quoted(completion)}}}'
    label = "true" if good else "false"
    return f'{{"prompt":{messages},"completion":[{turn}],"label":{label},"model":{quoted(model)},{about[1:]}\n'
