"""The verdict of a row that a field map describes: a word, flags, scores or ranks, made into votes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from storage.core.records import Strength, Tiers
from storage.exchange.field_maps import LETTER_OUTCOMES, SIDES_KNOWN, FieldMap, Outcome
from storage.exchange.paths import find, first, has, name_at, per_answer, untracked
from storage.exchange.rows import FIRST, BadRow, Found, Left, Record, Vote, by_rank, by_score, number_of, timestamp


def votes_of(fields: FieldMap, record: Record, models: Sequence[str | None], left: list[Found]) -> Iterator[Vote]:
    number = len(models)
    if fields.chosen:
        yield _vote(fields, record, FIRST if number == 2 else ((0,), tuple(range(1, number))))
        return
    if fields.scores or fields.ranks:
        tiers = _numbered(fields, record, number)
        if sum(map(len, tiers)) >= 2:
            yield _vote(fields, record, tiers)
        return
    if fields.each:
        for path in fields.winner:
            if has(record, path):
                yield from _decided(fields, record, find(record, path), models, left, annotator=path)
        return
    outcome = _flagged(fields, record)
    if outcome is not None:
        yield _vote(fields, record, tiers_of(outcome, number), all_bad=outcome == "both_bad")
    elif (value := first(fields.winner, record)) is not None:
        _check_agreement(fields, record, models)
        yield from _decided(fields, record, value, models, left)


def _check_agreement(fields: FieldMap, record: Record, models: Sequence[str | None]) -> None:
    """Raises BadRow if two usual names of a verdict say different things; what says nothing of the answers is another field."""
    said = {path: outcome_of(fields, untracked(record).get(path), models) for path in fields.winner if has(record, path)}
    clear = {path: outcome for path, outcome in said.items() if outcome is not None}
    if len(set(clear.values())) > 1:
        raise BadRow(f"{' and '.join(clear)} say different things: say which is the verdict, --map winner=FIELD")


def _decided(
    fields: FieldMap, record: Record, value: Any, models: Sequence[str | None], left: list[Found], annotator: str | None = None
) -> Iterator[Vote]:
    outcome = outcome_of(fields, value, models)
    if outcome is None:
        number = number_of(value)
        if number is None or "1.5" not in fields.outcomes or not 1 <= number <= 2:
            words = ", ".join(fields.outcomes or LETTER_OUTCOMES)
            path = annotator or next(path for path in fields.winner if has(record, path))
            raise BadRow(f"{path} is {str(value)[:80]!r}, which is no model's name and none of {words}")
        # A preference between 1 and 2 says how sure a judge is.
        outcome = 0 if number < 1.5 else 1
        left.append(Left("how sure a preference is"))
    if outcome != "none":
        strength = fields.strengths.get(word_of(value))
        yield _vote(
            fields, record, tiers_of(outcome, len(models)), all_bad=outcome == "both_bad", annotator=annotator, strength=cast(Any, strength)
        )


def word_of(value: Any) -> str:
    """A verdict as a word: `1` for 1, 1.0 and "1"."""
    number = number_of(value)
    if number is not None:
        return str(int(number)) if number == int(number) else str(number)
    return str(value).strip().lower()


def outcome_of(fields: FieldMap, value: Any, models: Sequence[str | None]) -> Outcome | None:
    """What a verdict says; None if it is not among the words of the map, and no model's name."""
    outcomes, word = fields.outcomes or LETTER_OUTCOMES, word_of(value)
    word = re.sub(r"\s*([<>=])\s*", r"\1", word)
    said = outcomes.get(word, outcomes.get(re.sub(r"[\s-]+", "_", word)))
    if isinstance(value, str) and list(models).count(value) == 1:
        # A model may be called as the word for the other answer.
        index = list(models).index(value)
        return None if said not in (None, index) else index
    if said is None:
        # The name of the field itself.
        joined = [path.split("+") for path in fields.completions]
        return next((names.index(value) for names in joined if len(names) == len(models) and value in names), None)
    return said


def _is_raised(path: str, value: Any) -> bool:
    word = word_of(value)
    if word in ("1", "true"):
        return True
    if word in ("0", "false", *UNKNOWN):
        return False
    raise BadRow(f"{path} must be true or false, 1 or 0, not {str(value)[:40]!r}")


def _flagged(fields: FieldMap, record: Record) -> Outcome | None:
    raised = [index for index, path in enumerate(fields.flags) if path and path in record and _is_raised(path, record[path])]
    if len(raised) > 1:
        raise BadRow(f"several verdicts: {', '.join(fields.flags[index] for index in raised)}")
    outcomes: tuple[Outcome, ...] = (0, 1, "tie", "both_bad")
    return outcomes[raised[0]] if raised else None


def tiers_of(outcome: Outcome, number: int) -> Tiers:
    """The tiers of `number` answers, of which an outcome says which is better.

    Raises:
        BadRow: it names an answer that is not there.
    """
    everything = tuple(range(number))
    if not isinstance(outcome, int):
        return (everything,)
    if not 0 <= outcome < number:
        raise BadRow(f"the verdict names answer {outcome + 1} of {number}")
    return ((outcome,), tuple(index for index in everything if index != outcome))


def _numbered(fields: FieldMap, record: Record, number: int) -> Tiers:
    paths = fields.scores or fields.ranks
    values = per_answer(paths, record)
    if values is None:
        return ()
    if len(values) != number:
        raise BadRow(f"{len(values)} numbers in {paths[0]} for {number} answers")
    numbers = [number_of(value) for value in values]
    if unclear := [value for value, read in zip(values, numbers, strict=True) if read is None and word_of(value) not in UNKNOWN]:
        raise BadRow(f"{paths[0]} must hold numbers, not {unclear[0]!r}")
    return by_score(numbers) if fields.scores else by_rank(numbers)


UNKNOWN = ("", "none", "null", "nan", "na", "n/a", "-")
"""What stands for a number that nobody gave."""


def _vote(
    fields: FieldMap,
    record: Record,
    tiers: Tiers,
    *,
    all_bad: bool = False,
    annotator: str | None = None,
    strength: Strength | None = None,
) -> Vote:
    rationale = first(fields.rationale, record)
    return Vote(
        tiers,
        annotator or name_at(fields.annotator, record),
        rule_of(fields, record),
        all_bad,
        timestamp(first(fields.created_at, record)),
        strength,
        rationale if isinstance(rationale, str) else "",
        _ratings(fields, record),
        # A verdict on two answers that stood side by side.
        (0, 1) if fields.sides_known and word_of(record.get(SIDES_KNOWN, True)) not in ("0", "false") else None,
    )


def _ratings(fields: FieldMap, record: Record) -> tuple[tuple[int, str, int], ...]:
    return tuple(
        (index, aspect, int(number) + fields.rating_offset)
        for aspect, path in fields.ratings.items()
        for index, value in enumerate(per_answer((path,), record) or ())
        if (number := number_of(value)) is not None and number == int(number)
    )


def rule_of(fields: FieldMap, record: Record) -> str | None:
    """The rule of a simulated annotator; None for a person."""
    simulated = word_of(first(fields.annotator_kind, record)) == "simulated"
    return (name_at(fields.rule, record) or "unknown") if simulated else None
