"""KTO: rows of a prompt, one completion and a label, true for a good one. `KTOTrainer` reads them unchanged.

They hold the labels of single completions, and each pair of a ranking as two rows, as TRL unpairs preference data: the better
completion is good there, and the worse one bad. Ties have no pairs. Read again, the rows of a pair are labels of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring as quoted

from storage.core.database import Database, to_json
from storage.exchange import export
from storage.exchange.export import ExportedComparison, ExportedVote
from storage.judging import completion_labels
from storage.judging.completion_labels import CompletionLabel
from storage.judging.judgments import ordered_pairs

KEEPS = ("system", "turns", "order", "models", "annotator", "simulated", "time", "reason", "kind", "heldout")


def labels(store: Database, simulated: bool, names: bool) -> Iterator[str]:
    """A row for each label of a single completion."""
    for label in completion_labels.active(store, simulated=simulated, names=names):
        yield _line(label.messages, label.completion, label.model, label.good, _about(label, label.kind, label.split))


def rows(comparison: ExportedComparison, votes: Sequence[ExportedVote]) -> Iterator[str]:
    """Two rows for each pair of a ranking."""
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
    return f'{{"prompt":{messages},"completion":[{turn}],"label":{label},"model":{quoted(model)},{about[1:]}'


write = export.Writer(rows, KEEPS, export.omits_ties, as_pairs=True, labels=labels)
