"""Label Studio's JSON exports, also JSON-MIN: the data of each task, and what each annotation says of its answers.

Read are `Pairwise`, `Choices` that name an answer or a tie, `Ranker` over a `List`, `Rating` of the answers, and a `TextArea` for the
reason. The export does not name the fields that were shown left and right. They are taken from pairs of usual names (`left` and
`right`, `answer1` and `answer2`, ...), then from the two names in `to_name`, then from the only two fields besides the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import Any

from storage.content import comparisons
from storage.core.records import Message, Strength, Tiers
from storage.exchange import choice_labels, export, sinks, strict_json
from storage.exchange.rows import (
    FIRST,
    SECOND,
    BadRow,
    Found,
    Left,
    NewComparison,
    Record,
    Vote,
    by_score,
    check_tiers,
    conversation,
    name_of,
    number_of,
    timestamp,
)
from storage.exchange.things import THINGS

PROMPT_FIELDS = ("prompt", "instruction", "question", "messages", "dialogue", "context", "text")
STEMS = ("", "answer", "response", "text", "completion", "output", "reply", "summary", "generation")
SERIES = (("left", "right"), "123456789", [f"_{number}" for number in range(1, 10)], "abcdefghi", [f"_{letter}" for letter in "abcdefghi"],
          ("_left", "_right"))  # fmt: skip
"""What stands after the stem in the names of answers: of two that were shown side by side, or of more."""
NAMES = [[stem + suffix for suffix in suffixes] for stem in STEMS for suffixes in SERIES]
REASONS = ("rationale", "reason", "comment", "explanation", "feedback", "justification", "why")
ITEM_TEXTS = ("body", "text", "html", "title")
MIN_FIELDS = ("id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time")
IGNORED_FIELDS = (
    "id", "inner_id", "project", "created_at", "updated_at", "updated_by", "file_upload", "total_annotations", "cancelled_annotations",
    "total_predictions", "comment_count", "unresolved_comment_count", "comment_authors[]", "last_comment_updated_at", "drafts", "meta",
    "annotation_id", "data.id", "annotations[].id", "annotations[].result[].id", "annotations[].result[].origin",
    "annotations[].result[].to_name", "annotations[].result[].from_name", "annotations[].result[].type", "annotations[].updated_at",
    "annotations[].draft_created_at", "annotations[].unique_id", "annotations[].task", "annotations[].project",
    "annotations[].updated_by", "annotations[].result_count", "annotations[].import_id", "annotations[].last_action",
    "annotations[].bulk_created", "annotations[].last_created_by", "annotations[].was_cancelled", "annotations[].ground_truth",
    "annotations[].completed_by.id", "annotations[].completed_by.first_name", "annotations[].completed_by.last_name",
    "annotations[].completed_by.username", "annotations[].prediction", "annotations[].parent_prediction",
    "annotations[].parent_annotation",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a task: their names (fields, or ids of a list), texts and models."""

    names: tuple[str, ...]
    texts: tuple[Any, ...]
    models: tuple[str | None, ...]
    sides: bool
    """Whether they are shown side by side, in this order."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one annotation says."""

    tiers: Tiers | None = None
    all_bad: bool = False
    strength: Strength | None = None
    rationale: str = ""
    aspects: tuple[tuple[int, str, int], ...] = ()


def read(record: Record) -> Iterator[Found]:
    """One comparison, with a vote for each annotation that says which answer is better."""
    if "data" not in record and "annotation_id" in record:
        yield from _minimal(record)
        return
    data = record.get("data")
    if not isinstance(data, dict):
        raise BadRow("needs data, an object")
    annotations = record.get("annotations", record.get("completions", ()))
    if not isinstance(annotations, (list, tuple)) or not all(isinstance(one, dict) for one in annotations):
        raise BadRow("annotations must be a list of objects")
    finished = [one for one in annotations if not one.get("was_cancelled")]
    if len(finished) < len(annotations):
        yield Left("cancelled annotations", len(annotations) - len(finished))
    answers = _answers(data, [result for one in finished for result in _results(one)])
    votes: list[Vote] = []
    gold: Tiers | None = None
    for annotation in finished:
        opinion, left = _opinion(_results(annotation), answers)
        yield from left
        if opinion.tiers is None:
            yield Left("annotations without a verdict")
        elif annotation.get("ground_truth"):
            gold = opinion.tiers
        else:
            votes.append(_vote(annotation, opinion, annotation.get("completed_by"), answers))
    yield NewComparison(_prompt(data, answers.names), answers.texts, answers.models, tuple(votes), gold)


def _minimal(record: Record) -> Iterator[Found]:
    """A row of JSON-MIN: the data and what one annotation says of it side by side."""
    data = {name: _of_cell(value) for name, value in record.items() if name not in MIN_FIELDS}
    results: list[Record] = []
    for name, value in data.items():
        # Only choices and texts stand without a list around them.
        if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], dict):
            value = value[0]
        if isinstance(value, dict) and (kind := next((kind for kind in RESULT_KINDS if kind in value), None)):
            said = value if isinstance(record[name], str) else record[name] if isinstance(record[name], dict) else record[name][0]
            results.append({"type": {"selected": "pairwise"}.get(kind, kind), "from_name": name, "value": said})
    answers = _answers(record, results, {name: value for name, value in data.items() if isinstance(value, (str, list))})
    for name, value in data.items():
        if name not in answers.names and name not in PROMPT_FIELDS and isinstance(value, str):
            if choice_labels.parse(value, answers.names) is not None:
                results.append({"type": "choices", "from_name": name, "value": {"choices": [record[name]]}})
            elif name in REASONS:
                results.append({"type": "textarea", "from_name": name, "value": {"text": [record[name]]}})
    opinion, left = _opinion(results, answers)
    yield from left
    if opinion.tiers is None:
        yield Left("annotations without a verdict")
    votes = () if opinion.tiers is None else (_vote(record, opinion, record.get("annotator"), answers),)
    yield NewComparison(_prompt(record, answers.names), answers.texts, answers.models, votes)


RESULT_KINDS = ("choices", "selected", "ranker")


def _of_cell(value: Any) -> Any:
    """The result, or the items of a ranker, that a cell of CSV holds as JSON; any other value as it is."""
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return value
    try:
        found = strict_json.decode(value)
    except (ValueError, RecursionError):
        return value
    is_result = isinstance(found, dict) and any(kind in found for kind in RESULT_KINDS)
    return found if is_result or _are_items(found) else value


def _are_items(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 1 and all(isinstance(item, dict) and "id" in item for item in value)


def _results(annotation: Record) -> list[Record]:
    results = annotation.get("result")
    return [result for result in results if isinstance(result, dict)] if isinstance(results, (list, tuple)) else []


def _opinion(results: Sequence[Record], answers: Answers) -> tuple[Opinion, list[Found]]:
    """What the results of an annotation say together, and those that say nothing of the answers.

    Raises:
        BadRow: two of them say different things.
    """
    said: list[Opinion] = []
    left: list[Found] = []
    opinion = Opinion()
    for result in results:
        kind, value = result.get("type"), result.get("value")
        value = value if isinstance(value, dict) else {}
        name = str(result.get("from_name", ""))
        if kind == "pairwise":
            said.append(Opinion(_selected(value)))
        elif kind == "ranker":
            if (ranking := _ranked(value.get("ranker"), answers)) is None:
                left.append(Left("rankings in several buckets"))
            else:
                said.append(Opinion(ranking))
        elif kind == "choices" and (verdict := _chosen(value.get("choices"), answers)):
            said.append(Opinion(verdict.tiers(len(answers.names)), verdict.outcome == "both_bad", verdict.strength))
        elif kind == "rating" and (rated := _rating(result, value, answers, name)):
            opinion = replace(opinion, aspects=(*opinion.aspects, rated))
        elif kind == "textarea" and (not opinion.rationale or name.lower() in REASONS):
            opinion = replace(opinion, rationale=_text(value.get("text")))
        else:
            left.append(Left(f"results of {name or kind}"))
    if len({(one.tiers, one.all_bad) for one in said}) > 1:
        raise BadRow("an annotation says different things about which answer is better")
    if said:
        strength = next((one.strength for one in said if one.strength), None)
        opinion = replace(opinion, tiers=said[0].tiers, all_bad=said[0].all_bad, strength=strength)
    elif opinion.aspects:
        # Only ratings: they rank the answers, if they are of one question.
        scores = {index: rating for index, _, rating in opinion.aspects}
        if len({aspect for _, aspect, _ in opinion.aspects}) <= len(answers.names) and len(scores) == len(answers.names):
            opinion = replace(opinion, tiers=by_score([scores[index] for index in range(len(answers.names))]))
    return opinion, left


def _selected(value: Mapping[str, Any]) -> Tiers:
    side = value.get("selected")
    if side not in ("left", "right"):
        raise BadRow(f"selected must be left or right, not {side!r}")
    return FIRST if side == "left" else SECOND


def _chosen(choices: Any, answers: Answers) -> choice_labels.ParsedChoice | None:
    if isinstance(choices, str):
        choices = [choices]
    if not isinstance(choices, (list, tuple)) or len(choices) != 1 or not isinstance(choices[0], str):
        return None
    return choice_labels.parse(choices[0], answers.names)


def _ranked(value: Any, answers: Answers) -> Tiers | None:
    """The order of the one list that was sorted; None for several buckets, which have no order among them."""
    if isinstance(value, dict):
        buckets = [value[name] for name in value if name != "_"] or [value[name] for name in value]
        if len(buckets) > 1:
            return None
        value = buckets[0] if buckets else None
    if not isinstance(value, (list, tuple)):
        raise BadRow("a ranker must have a list of items")
    names = [str(item) for item in value]
    if unknown := [name for name in names if name not in answers.names]:
        raise BadRow(f"a ranker names {unknown[0][:40]!r}, which is no item of the task")
    tiers = tuple((answers.names.index(name),) for name in names)
    check_tiers(tiers, len(answers.names))
    return tiers


def _rating(result: Record, value: Mapping[str, Any], answers: Answers, name: str) -> tuple[int, str, int] | None:
    rated = str(result.get("to_name", ""))
    rating = value.get("rating")
    if rated not in answers.names or type(rating) is not int:
        return None
    index = answers.names.index(rated)
    aspect = name.replace(rated, "").strip("_- ") or "rating"
    return index, aspect, rating


def _text(value: Any) -> str:
    texts = value if isinstance(value, (list, tuple)) else [value]
    return "\n".join(text for text in texts if isinstance(text, str))


def _vote(annotation: Record, opinion: Opinion, by: Any, answers: Answers) -> Vote:
    seconds = number_of(annotation.get("lead_time"))
    assert opinion.tiers is not None, "only opinions with a verdict are votes"
    return Vote(
        opinion.tiers,
        _annotator(by),
        all_bad=opinion.all_bad,
        created_at=timestamp(annotation.get("created_at")),
        strength=opinion.strength,
        rationale=opinion.rationale,
        aspects=opinion.aspects,
        client_ms=None if seconds is None or seconds < 0 else round(seconds * 1000),
        shown=(0, 1) if answers.sides else None,
    )


def _annotator(value: Any) -> str | None:
    if isinstance(value, dict):
        return name_of(value.get("email")) or name_of(value.get("username")) or _annotator(value.get("id"))
    name = name_of(value)
    return f"labelstudio-{name}" if name and name.isdecimal() else name


def _answers(data: Record, results: Sequence[Record], candidates: Mapping[str, Any] | None = None) -> Answers:
    fields = data if candidates is None else candidates
    if listed := _listed(data, fields):
        return listed
    names = _named(fields, results)
    models = tuple(name_of(data.get(f"{name}_model")) for name in names)
    return Answers(names, tuple(data[name] for name in names), models, len(names) == 2)


def _listed(data: Record, fields: Mapping[str, Any]) -> Answers | None:
    """The items of the field that is a list of objects with an id, for a Ranker."""
    for field, value in fields.items():
        if field not in PROMPT_FIELDS and _are_items(value):
            items = value if isinstance(data[field], str) else data[field]
            return Answers(
                tuple(str(item["id"]) for item in items),
                tuple(_item_text(item) for item in items),
                tuple(name_of(item.get("model")) for item in items),
                False,
            )
    return None


def _item_text(item: Record) -> Any:
    """The text of an item; an answer may be empty."""
    named = [name for name in ITEM_TEXTS if item.get(name) is not None]
    return next((item[name] for name in named if item[name]), item[named[0]] if named else None)


def _named(data: Mapping[str, Any], results: Sequence[Record]) -> tuple[str, ...]:
    """The fields of the answers: left and right, or more where nobody was asked for a side."""
    texts = [name for name, value in data.items() if isinstance(value, str)]
    most = 2 if any(result.get("type") == "pairwise" for result in results) else comparisons.MAX_COMPLETIONS
    for series in NAMES:
        there = tuple(takewhile(texts.__contains__, series))
        if len(there) > 1:
            return there[:most]
    for result in results:
        named = [name.strip() for name in str(result.get("to_name", "")).split(",")]
        if len(named) == 2 and all(name in texts for name in named):
            return named[0], named[1]
    others = [name for name in texts if name not in PROMPT_FIELDS]
    if len(others) != 2:
        raise BadRow("which fields of data are left and right? Name them left and right")
    return others[0], others[1]


def _prompt(data: Record, sides: Sequence[str]) -> list[Message]:
    values = [data[name] for name in PROMPT_FIELDS if name in data and name not in sides][:1]
    if not values:
        raise BadRow(f"data has no prompt: name it {', '.join(PROMPT_FIELDS[:-1])} or {PROMPT_FIELDS[-1]}")
    system = data.get("system")
    before: list[Message] = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    return (
        [*before, {"role": "user", "content": values[0]}] if isinstance(values[0], str) else before + conversation(values[0], what="prompt")
    )


KEEPS = ("system", "turns", "order", "ties", "several", "unranked", "all_bad", "models", "annotator", "time", "reason", "strength",
         "ratings", "sides")  # fmt: skip


def omits(held: frozenset[str], vote: export.ExportedVote) -> str | None:
    """Leaves out rankings of more than two answers with ties among some: a Ranker has an order, and Choices one tie of all."""
    level = len(vote.tiers) == 1 and not vote.partial
    return f"ties in {THINGS['several']}" if {"several", "ties"} <= held and not level else None


def rows(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> Iterator[Record | Left]:
    """A task for the votes that saw the answers in the same order. Two answers whose sides are known are `left` and `right`."""
    answers = {item.id: item for item in comparison.completions}
    for (sides_known, slots), group in groupby(sorted(votes, key=_shown), key=_shown):
        same = list(group)
        shown = [answers[item] for item in slots]
        names = dict(zip(slots, ("left", "right") if sides_known else [f"answer_{n}" for n in range(1, len(slots) + 1)], strict=True))
        yield {
            "id": same[0].id,
            "data": _data(comparison, shown, names, sides_known),
            "annotations": [_annotation(vote, names, sides_known) for vote in same],
        }
        if not sides_known and (listed := sum(vote.sides_known for vote in same)):
            yield Left(f"{THINGS['sides']} of {THINGS['several']}", listed)


def _shown(vote: export.ExportedVote) -> tuple[bool, tuple[int, ...]]:
    """Whether the answers stood left and right, and their order: in a list the order says nothing."""
    pair = vote.sides_known and len(vote.slots) == 2
    return pair, vote.slots if pair else tuple(sorted(vote.slots))


def _data(
    comparison: export.ExportedComparison, shown: Sequence[export.ExportedCompletion], names: Mapping[int, str], sides_known: bool
) -> Record:
    turns = json.loads(comparison.messages)
    prompt = {"prompt": turns[0]["content"] if len(turns) == 1 else turns}
    if not sides_known:
        return prompt | {"answers": [{"id": names[item.id], "body": item.text, "model": item.model} for item in shown]}
    texts = {names[item.id]: item.text for item in shown}
    return prompt | texts | {f"{names[item.id]}_model": item.model for item in shown}


def _annotation(vote: export.ExportedVote, names: Mapping[int, str], sides_known: bool) -> Record:
    to = "left,right" if sides_known else "answers"
    results = [_result("rating", f"{aspect}_{names[item]}", names[item], {"rating": rating}) for item, aspect, rating in vote.aspects]
    if vote.rationale:
        results.append(_result("textarea", "reason", to, {"text": [vote.rationale]}))
    spent = {} if vote.client_ms is None else {"lead_time": vote.client_ms / 1000}
    return {
        "id": vote.id,
        "completed_by": {"email": vote.annotator},
        "created_at": vote.created_at,
        **spent,
        "was_cancelled": False,
        "ground_truth": False,
        "result": [*_verdict(vote, names, to), *results],
    }


def _verdict(vote: export.ExportedVote, names: Mapping[int, str], to: str) -> Iterator[Record]:
    order = [names[item] for tier in vote.tiers for item in tier]
    if len(vote.tiers) == 1:
        yield _result("choices", "verdict", to, {"choices": ["both bad" if vote.all_bad else "tie"]})
    elif to == "answers":
        yield _result("ranker", "ranking", to, {"ranker": {"ranking": order}})
    else:
        yield _result("pairwise", "pairwise", to, {"selected": order[0]})
    if vote.strength:
        yield _result("choices", "verdict", to, {"choices": [f"{order[0]} is {_WORDS[vote.strength]} better"]})


_WORDS: dict[Strength, str] = {
    "significantly": "significantly", "better": "clearly", "slightly": "slightly", "negligibly": "negligibly",
}  # fmt: skip


def _result(kind: str, name: str, to: str, value: Record) -> Record:
    return {"type": kind, "from_name": name, "to_name": to, "value": value}


write = export.Writer(rows, KEEPS, omits, sinks.json_list)
