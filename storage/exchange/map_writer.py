"""Writes rows by a field map: one for each vote on two answers, in the order in which they were shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from storage.core.records import Message
from storage.exchange import export, sinks
from storage.exchange.field_maps import SIDES_KNOWN, FieldMap, Outcome, Paths, things_of
from storage.exchange.rows import Left, Record
from storage.exchange.sinks import Sink
from storage.exchange.things import THINGS

NEVER = frozenset(("system", "order", "several", "unranked", "ratings", "all_bad", "simulated"))
"""What a map may hold and these rows do not."""


def writer(fields: FieldMap, prompt: str, *, sink: Sink = sinks.lines, csv_columns: Sequence[str] = ()) -> export.Writer:
    """The writer of a map whose prompt stands in one field: a text, or with `[]` a text for each turn of the user.

    Args:
        csv_columns: the columns of a CSV file; without them the sink writes the rows.
    """
    turns = prompt.endswith("[]")

    def rows(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> Iterator[Record | Left]:
        messages: list[Message] = json.loads(comparison.messages)
        asked = [turn["content"] for turn in messages if turn["role"] == "user"]
        answered = [turn["content"] for turn in messages if turn["role"] == "assistant"]
        answers = {answer.id: answer for answer in comparison.completions}
        for vote in votes:
            shown = [answers[item] for item in vote.slots]
            row: Record = {}
            _put(row, (prompt,), asked if turns else asked[0])
            _put_each(row, fields.completions, [[*answered, item.text] if turns else item.text for item in shown])
            _put_each(row, fields.models, [item.model for item in shown])
            yield from _put_verdict(row, fields, vote)
            if fields.sides_known:
                row[SIDES_KNOWN] = vote.sides_known
            _put(row, fields.annotator, vote.annotator)
            _put(row, fields.created_at, vote.created_at)
            _put(row, fields.rationale, vote.rationale or None)
            _put(row, fields.kind, comparison.kind)
            _put(row, fields.split, comparison.split)
            yield {"id": vote.id} | row if "id" in csv_columns else row

    unheld = NEVER if turns else NEVER | {"turns"}
    keeps = tuple(thing for thing in things_of(fields) if thing not in unheld)
    omits = export.without(*sorted({"several", "system", "order", "turns"} & unheld))
    return export.Writer(rows, keeps, omits, partial(sinks.csv_table, columns=csv_columns) if csv_columns else sink)


def _put(row: Record, paths: Paths, value: Any) -> None:
    if paths and value is not None:
        row[paths[0].removesuffix("[]")] = value


def _put_each(row: Record, paths: Paths, values: Sequence[Any]) -> None:
    if paths:
        for path, value in zip(paths[0].split("+"), values, strict=True):
            _put(row, (path,), value)


def _put_verdict(row: Record, fields: FieldMap, vote: export.ExportedVote) -> Iterator[Left]:
    outcome: Outcome = vote.slots.index(vote.tiers[0][0]) if len(vote.tiers) > 1 else "tie"
    if fields.flags:
        said = {0: 0, 1: 1, "tie": 2}[outcome]
        row.update({path: int(index == said) for index, path in enumerate(fields.flags[:3])})
        return
    words = [word for word, means in fields.outcomes.items() if means == outcome]
    exact = [word for word in words if fields.strengths.get(word) == vote.strength]
    if fields.strengths and not exact and outcome != "tie":
        usual = [word for word in words if fields.strengths[word] == "better"]
        yield Left(f"{THINGS['strength']} that the format has no word for, written as better")
        exact = usual
    number = float((exact or words)[0])
    row[fields.winner[0]] = int(number) if number.is_integer() else number
