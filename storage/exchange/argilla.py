"""Argilla 2 records, as `records.to_json` writes them: fields, and the responses of several people to each question.

The answers are the fields that a ranking question ranks, or of which a label names the better one (or a tie); without either,
those that rating questions are named after (`response_1` by `response_1_rating`). The prompt is the field `prompt`,
`instruction`, `question`, `messages`, `chat` or `context`, or the only other one. Suggestions come from models and are not
imported as votes. Records that `datasets` flattened (`preference.responses`, `preference.responses.users`; or a list of answers
in `preference`) are read too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from storage.core.records import Message
from storage.exchange import choice_labels, export, sinks
from storage.exchange.paths import as_list
from storage.exchange.rows import (
    BadRow,
    Found,
    Left,
    NewComparison,
    Record,
    Vote,
    by_rank,
    by_score,
    conversation,
    name_of,
    number_of,
    places,
    timestamp,
    whole,
)

PROMPT_FIELDS = ("prompt", "instruction", "question", "messages", "chat", "context")
TEXT_QUESTIONS = ("rationale", "reason", "comment", "feedback")


PREFERRED = ("preference", "preferred", "better", "best", "winner", "overall", "choice", "ranking")
"""Usual names of the question which answer is better."""

FLAT_OWN = ("id", "status", "_server_id", "external_id", "inserted_at", "updated_at")
IGNORED_FIELDS = (*FLAT_OWN, "fields.id", "vectors", "responses[].id", "responses[].inserted_at", "responses[].updated_at")


def read(record: Record) -> Iterator[Found]:
    """One comparison with a vote for each person who ranked, chose or rated."""
    fields = record.get("fields") if "fields" in record else _flat_fields(record)
    if not isinstance(fields, dict) or not fields:
        raise BadRow("needs fields, an object")
    by_question, unfinished = _responses(record) if "fields" in record else _flat_responses(record)
    for status, number in unfinished.items():
        yield Left(f"{status} responses", number)
    suggested = record.get("suggestions")
    rankings = {name: responses for name, responses in by_question.items() if any(_is_ranking(value, fields) for _, value, _ in responses)}
    if len(rankings) > 1:
        raise BadRow(f"several ranking questions: {', '.join(sorted(rankings))}")
    answers = _answers(fields, by_question, suggested if isinstance(suggested, dict) else {})
    if "fields" not in record and len(answers) > 2 and not rankings:
        answers = _numbered(answers)
    asked_by = _prompt_field(fields, answers)
    if "fields" not in record:
        # Other columns are metadata, and left behind.
        whole({name: record[name] for name in (*answers, asked_by)})
    value = fields[asked_by]
    prompt: list[Message] = [{"role": "user", "content": value}] if isinstance(value, str) else conversation(value, what="prompt")
    metadata = record.get("metadata")
    models = metadata if isinstance(metadata, dict) else record
    asked = next(iter(rankings), None) or _label_question(by_question, answers)
    if rankings:
        votes = [_ranked(value, answers, user, at) for user, value, at in next(iter(rankings.values()))]
    elif asked is not None:
        votes = [_labelled(value, answers, user, at, asked) for user, value, at in by_question[asked]]
    else:
        votes = _rated(by_question, answers)
        if alone := _rated_alone(by_question, answers):
            yield Left("ratings of one answer alone", alone)
    reasons = {user: value for name in TEXT_QUESTIONS for user, value, _ in by_question.get(name, ()) if isinstance(value, str)}
    for name, responses in by_question.items():
        if not (name == asked or name in TEXT_QUESTIONS or (asked is None and _rated_field(name, dict.fromkeys(answers)))):
            yield Left(f"responses to {name}", len(responses))
    yield NewComparison(
        prompt,
        tuple(fields[name] for name in answers),
        tuple(name_of(models.get(f"{name}_model") or models.get(f"{name}-model")) for name in answers),
        tuple(_with_reason(vote, reasons) for vote in votes),
    )


Response = tuple[str | None, Any, str | None]
"""(user, value, time) of one response to a question."""


def _responses(record: Record) -> tuple[dict[str, list[Response]], Counter[str]]:
    """Submitted responses by question, and how many others there are by status.

    Argilla has exported them in two forms, by question and by user; both are read.
    """
    responses = record.get("responses")
    by_question: dict[str, list[Response]] = {}
    unfinished: Counter[str] = Counter()
    if isinstance(responses, dict):
        for question in responses:
            values = responses[question]
            for one in values if isinstance(values, (list, tuple)) else ():
                if isinstance(one, dict) and _is_submitted(one, unfinished):
                    by_question.setdefault(question, []).append((name_of(one.get("user_id")), whole(one.get("value")), None))
    elif isinstance(responses, (list, tuple)):
        for one in responses:
            values = one.get("values") if isinstance(one, dict) else None
            if not isinstance(values, dict) or not _is_submitted(one, unfinished):
                continue
            at = timestamp(one.get("updated_at") or one.get("inserted_at"))
            for question in values:
                value = whole(values[question])
                answer = value.get("value") if isinstance(value, dict) else value
                by_question.setdefault(question, []).append((name_of(one.get("user_id")), answer, at))
    elif responses is not None:
        raise BadRow("responses must be an object or a list")
    return by_question, unfinished


def _is_submitted(response: Record, unfinished: Counter[str]) -> bool:
    status = response.get("status")
    if status in (None, "submitted"):
        return True
    unfinished[str(status)[:20]] += 1
    return False


# A record that `datasets` flattened: fields and questions are columns side by side.


def _flat_fields(record: Record) -> Record:
    names = [
        name for name, value in record.items()
        if isinstance(value, str) and "." not in name and not name.endswith(("-suggestion", "_model", "-model")) and name not in FLAT_OWN
    ]  # fmt: skip
    # Nothing is read yet: columns of metadata are among them.
    return {name: value for name, value in record.items() if name in names}


_FLAT_LIST = re.compile(r"\.responses(?:\.users|\.status)?$")


def _flat_responses(record: Record) -> tuple[dict[str, list[Response]], Counter[str]]:
    # A table of text holds the lists as JSON.
    lists = [name for name, value in record.items() if _FLAT_LIST.search(name) and isinstance(value, str)]
    record = {**record, **{name: as_list(record[name], name) for name in lists}} if lists else record
    by_question: dict[str, list[Response]] = {}
    unfinished: Counter[str] = Counter()
    for name, value in record.items():
        question = name.removesuffix(".responses")
        if question != name and isinstance(value, (list, tuple)):
            columns = {"value": record[name], "user_id": record.get(f"{name}.users"), "status": record.get(f"{name}.status")}
            responses = _rows_of(columns)
        elif isinstance(value, (list, tuple)) and value and all(isinstance(one, dict) and "user_id" in one for one in value):
            responses = record[name]
        elif isinstance(value, dict) and "user_id" in value and "value" in value:
            responses = _rows_of(whole(record[name]))
        else:
            continue
        for one in responses:
            if _is_submitted(one, unfinished):
                by_question.setdefault(question, []).append((name_of(one.get("user_id")), _by_row(whole(one.get("value"))), None))
    return by_question, unfinished


def _rows_of(columns: Mapping[str, Any]) -> list[Record]:
    """The rows of columns that are lists of the same length."""
    number = max((len(values) for values in columns.values() if isinstance(values, (list, tuple))), default=0)
    return [
        {name: values[row] for name, values in columns.items() if isinstance(values, (list, tuple)) and row < len(values)}
        for row in range(number)
    ]


def _by_row(value: Any) -> Any:
    """A ranking that Parquet holds by columns: `{"rank": [1, 2], "value": ["b", "a"]}`."""
    return _rows_of(value) if isinstance(value, dict) and isinstance(value.get("value"), list) else value


def _label_question(by_question: Mapping[str, list[Response]], answers: Sequence[str]) -> str | None:
    """The question whose labels say which answer is better.

    Raises:
        BadRow: there are several, and none has a usual name.
    """
    found = [
        name for name, responses in by_question.items()
        if name not in TEXT_QUESTIONS and any(_verdict(value, answers) for _, value, _ in responses)
    ]  # fmt: skip
    usual = [name for name in found if name.lower() in PREFERRED]
    if len(found) > 1 and len(usual) != 1:
        raise BadRow(f"several questions say which answer is better: {', '.join(sorted(found))}")
    return next(iter(usual or found), None)


def _verdict(value: Any, answers: Sequence[str]) -> choice_labels.ParsedChoice | None:
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return choice_labels.parse(value, answers) if isinstance(value, str) else None


def _labelled(value: Any, answers: Sequence[str], user: str | None, at: str | None, question: str) -> Vote:
    verdict = _verdict(value, answers)
    if verdict is None:
        raise BadRow(f"{question} says {str(value)[:40]!r}, which names no answer and no tie")
    return Vote(verdict.tiers(len(answers)), user, all_bad=verdict.outcome == "both_bad", created_at=at, strength=verdict.strength)


def _ranks(value: Any) -> dict[str, float] | None:
    """The rank of each field; None if the value is not a ranking. A list of names ranks them in order, best first."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    if all(isinstance(item, str) for item in value):
        return {name: place for place, name in enumerate(value)}
    if not all(isinstance(item, dict) and isinstance(item.get("value"), str) for item in value):
        return None
    return {item["value"]: rank for item in value if (rank := number_of(item.get("rank"))) is not None}


def _is_ranking(value: Any, fields: Mapping[str, Any]) -> bool:
    ranks = _ranks(value)
    return ranks is not None and len(ranks) >= 2 and all(name in fields for name in ranks)


def _answers(fields: Mapping[str, Any], by_question: Mapping[str, list[Response]], suggested: Mapping[str, Any]) -> list[str]:
    """The names of the fields that hold completions, in the order of the record."""
    ranked: set[str] = set()
    for value in [value for responses in by_question.values() for _, value, _ in responses] + [
        _suggestion(one) for one in suggested.values()
    ]:
        if _is_ranking(value, fields):
            ranked.update(_ranks(value) or ())
    rated = {name for question in [*by_question, *suggested] if (name := _rated_field(question, fields))}
    answers = ranked or rated
    if len(answers) < 2:
        # No ranking names the answers: every text field except the prompt is one.
        prompts = [name for name in PROMPT_FIELDS if name in fields][:1]
        answers = {name for name, value in fields.items() if isinstance(value, str) and name not in prompts} if prompts else set()
    if len(answers) < 2:
        raise BadRow("no ranking or rating tells which fields hold the answers")
    return [name for name in fields if name in answers]


def _suggestion(one: Any) -> Any:
    return one.get("value") if isinstance(one, dict) else None


def _rated_field(question: str, fields: Mapping[str, Any]) -> str | None:
    """The field that a rating question rates: the one with the longest name that is, as a word, part of the question's name."""
    plain = question.replace("-", "_")
    named = [name for name in fields if name not in PROMPT_FIELDS and name != question and _is_word_of(name.replace("-", "_"), plain)]
    return max(named, key=len, default=None)


def _is_word_of(name: str, question: str) -> bool:
    """Whether a name stands in another one with no letter or digit that goes on before or after it; a capital begins a word."""
    return re.search(rf"(?<![^\W_]){re.escape(name)}(?![a-z\d])", question) is not None


def _numbered(names: Sequence[str]) -> list[str]:
    """The names that differ in a number or a letter at their end: `response_1`, `response_2`.

    Raises:
        BadRow: there are none, or several kinds of them.
    """
    stems = Counter(stem for name in names if (stem := _stem(name)))
    shared = [stem for stem, number in stems.items() if number > 1]
    if len(shared) != 1:
        raise BadRow(f"which of {', '.join(sorted(names))[:200]} are the answers? Give them names such as response_1 and response_2")
    return [name for name in names if _stem(name) == shared[0]]


def _stem(name: str) -> str | None:
    match = re.fullmatch(r"(.+?)(?:[-_ ]?\d+|[-_ ][A-Za-z]|(?<=[a-z])[A-Z])", name)
    return match[1] if match else None


def _prompt_field(fields: Mapping[str, Any], answers: Sequence[str]) -> str:
    """The field of the prompt."""
    others = [name for name, value in fields.items() if name not in answers and value]
    named = [name for name in PROMPT_FIELDS if name in others]
    if not named and len(others) != 1:
        raise BadRow(f"which field is the prompt? Name it {', '.join(PROMPT_FIELDS[:-1])} or {PROMPT_FIELDS[-1]}")
    return (named or others)[0]


def _ranked(value: Any, answers: Sequence[str], user: str | None, at: str | None) -> Vote:
    ranks = _ranks(value)
    if not ranks or not set(ranks) <= set(answers):
        raise BadRow("a ranking must name fields of the record")
    return Vote(by_rank([ranks.get(name) for name in answers]), user, created_at=at)


def _rated(by_question: Mapping[str, list[Response]], answers: Sequence[str]) -> list[Vote]:
    """One vote for each user, ranked by their ratings. Users who rated fewer than two answers give no vote."""
    scores, times = _ratings(by_question, answers)
    return [
        Vote(by_score([ratings.get(name) for name in answers]), user, created_at=times[user])
        for user, ratings in scores.items()
        if len(ratings) >= 2
    ]


def _rated_alone(by_question: Mapping[str, list[Response]], answers: Sequence[str]) -> int:
    """How many users rated only one answer, which gives no vote."""
    return sum(len(ratings) == 1 for ratings in _ratings(by_question, answers)[0].values())


def _ratings(
    by_question: Mapping[str, list[Response]], answers: Sequence[str]
) -> tuple[dict[str | None, dict[str, float]], dict[str | None, str | None]]:
    """The ratings that each user gave, by answer; and when."""
    scores: dict[str | None, dict[str, float]] = {}
    times: dict[str | None, str | None] = {}
    for question, responses in by_question.items():
        field = _rated_field(question, dict.fromkeys(answers))
        if not field:
            continue
        for user, value, at in responses:
            number = number_of(value)
            if number is not None:
                scores.setdefault(user, {})[field] = number
                times[user] = at
    return scores, times


def _with_reason(vote: Vote, reasons: Mapping[str | None, str]) -> Vote:
    if not (reason := reasons.get(vote.annotator)):
        return vote
    return replace(vote, rationale=reason)


KEEPS = ("system", "turns", "order", "ties", "several", "models", "annotator", "reason")


def rows(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> Iterator[Record]:
    """One record for a comparison that was judged."""
    if votes:
        yield _record(comparison, votes)


def _record(comparison: export.ExportedComparison, votes: Sequence[export.ExportedVote]) -> dict[str, Any]:
    field_of = {item.id: f"response_{place}" for place, item in enumerate(comparison.completions, start=1)}
    turns = json.loads(comparison.messages)
    prompt = turns[0]["content"] if len(turns) == 1 else turns
    responses: dict[str, list[Record]] = {"preference": []}
    for vote in votes:
        ranking = [{"rank": place + 1, "value": field_of[item]} for item, place in places(vote.tiers)]
        responses["preference"].append({"value": ranking, "user_id": vote.annotator})
        if vote.rationale:
            responses.setdefault("rationale", []).append({"value": vote.rationale, "user_id": vote.annotator})
    return {
        "id": f"comparison-{comparison.id}",
        "fields": {"prompt": prompt} | {field_of[item.id]: item.text for item in comparison.completions},
        "metadata": {f"{field_of[item.id]}_model": item.model for item in comparison.completions},
        "suggestions": {},
        "responses": responses,
        "vectors": {},
        "status": "completed",
    }


write = export.Writer(rows, KEEPS, sink=sinks.json_list)
