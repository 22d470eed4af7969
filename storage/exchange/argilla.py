"""Argilla 2 records, as `records.to_json` writes them: fields, and the responses of several people to each question.

The answers are the fields that a ranking question ranks; without one, those that rating questions are named after
(`response_1` by `response_1_rating`). The prompt is the field `prompt`, `instruction`, `question`, `messages`, `chat` or
`context`, or the only other one. Suggestions, which come from models, are no votes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.core.database import Database, to_json
from storage.core.records import Message
from storage.exchange import export, files
from storage.exchange.files import Progress
from storage.exchange.rows import (
    BadRow,
    Item,
    NewComparison,
    Record,
    Vote,
    by_rank,
    by_score,
    conversation,
    moment,
    name_of,
    number_of,
    places,
)

PROMPT_FIELDS = ("prompt", "instruction", "question", "messages", "chat", "context")
TEXT_QUESTIONS = ("rationale", "reason", "comment", "feedback")


def read(record: Record) -> Iterator[Item]:
    """One comparison with a vote for each person who ranked or rated it."""
    fields = record.get("fields")
    if not isinstance(fields, dict):
        raise BadRow("needs fields, an object")
    by_question = _responses(record)
    suggested = record.get("suggestions")
    rankings = {name: given for name, given in by_question.items() if any(_is_ranking(value, fields) for _, value, _ in given)}
    answers = _answers(fields, by_question, suggested if isinstance(suggested, dict) else {})
    prompt = _prompt(fields, answers)
    metadata = record.get("metadata")
    models = metadata if isinstance(metadata, dict) else {}
    if len(rankings) > 1:
        raise BadRow(f"several ranking questions: {', '.join(sorted(rankings))}")
    if rankings:
        given = [_ranked(value, answers, user, at) for user, value, at in next(iter(rankings.values()))]
    else:
        given = _rated(by_question, answers)
    reasons = {user: value for name in TEXT_QUESTIONS for user, value, _ in by_question.get(name, ()) if isinstance(value, str)}
    yield NewComparison(
        prompt,
        tuple(fields[name] for name in answers),
        tuple(name_of(models.get(f"{name}_model") or models.get(f"{name}-model")) for name in answers),
        tuple(_with_reason(vote, reasons) for vote in given),
    )


Given = tuple[str | None, Any, str | None]
"""Who said what, and when."""


def _responses(record: Record) -> dict[str, list[Given]]:
    """Submitted responses by question, in both shapes that Argilla has written: by question, or by person."""
    responses = record.get("responses")
    found: dict[str, list[Given]] = {}
    if isinstance(responses, dict):
        for question, given in responses.items():
            for one in given if isinstance(given, (list, tuple)) else ():
                if isinstance(one, dict) and one.get("status") in (None, "submitted"):
                    found.setdefault(question, []).append((name_of(one.get("user_id")), one.get("value"), None))
    elif isinstance(responses, (list, tuple)):
        for one in responses:
            values = one.get("values") if isinstance(one, dict) else None
            if not isinstance(values, dict) or one.get("status") not in (None, "submitted"):
                continue
            at = moment(one.get("updated_at") or one.get("inserted_at"))
            for question, value in values.items():
                said = value.get("value") if isinstance(value, dict) else value
                found.setdefault(question, []).append((name_of(one.get("user_id")), said, at))
    elif responses is not None:
        raise BadRow("responses must be an object or a list")
    return found


def _ranks(value: Any) -> dict[str, float] | None:
    """Field name to rank; None if this is no ranking. A list of names is in order, best first."""
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


def _answers(fields: Mapping[str, Any], by_question: Mapping[str, list[Given]], suggested: Mapping[str, Any]) -> list[str]:
    """The names of the fields that hold completions, in the order of the record."""
    ranked: set[str] = set()
    for value in [value for given in by_question.values() for _, value, _ in given] + [_suggestion(one) for one in suggested.values()]:
        if _is_ranking(value, fields):
            ranked.update(_ranks(value) or ())
    rated = {name for question in [*by_question, *suggested] if (name := _rated_field(question, fields))}
    found = ranked or rated
    if len(found) < 2:
        # Nobody has said anything yet: what is not the prompt is an answer.
        prompts = [name for name in PROMPT_FIELDS if name in fields][:1]
        found = {name for name, value in fields.items() if isinstance(value, str) and name not in prompts} if prompts else set()
    if len(found) < 2:
        raise BadRow("no ranking or rating tells which fields hold the answers")
    return [name for name in fields if name in found]


def _suggestion(one: Any) -> Any:
    return one.get("value") if isinstance(one, dict) else None


def _rated_field(question: str, fields: Mapping[str, Any]) -> str | None:
    """The field that a rating question is about: the longest whose name is in the question's."""
    plain = question.replace("-", "_")
    named = [name for name in fields if name not in PROMPT_FIELDS and name.replace("-", "_") in plain and name != question]
    return max(named, key=len, default=None)


def _prompt(fields: Mapping[str, Any], answers: Sequence[str]) -> list[Message]:
    others = [name for name in fields if name not in answers and fields[name]]
    named = [name for name in PROMPT_FIELDS if name in others]
    if not named and len(others) != 1:
        raise BadRow(f"which field is the prompt? Name it {', '.join(PROMPT_FIELDS[:-1])} or {PROMPT_FIELDS[-1]}")
    value = fields[(named or others)[0]]
    return [{"role": "user", "content": value}] if isinstance(value, str) else conversation(value, what="prompt")


def _ranked(value: Any, answers: Sequence[str], user: str | None, at: str | None) -> Vote:
    ranks = _ranks(value)
    if not ranks or not set(ranks) <= set(answers):
        raise BadRow("a ranking must name fields of the record")
    return Vote(by_rank([ranks.get(name) for name in answers]), user, created_at=at)


def _rated(by_question: Mapping[str, list[Given]], answers: Sequence[str]) -> list[Vote]:
    """A vote by each person's ratings; whoever rated fewer than two answers ranked none."""
    scores: dict[str | None, dict[str, float]] = {}
    times: dict[str | None, str | None] = {}
    for question, given in by_question.items():
        field = _rated_field(question, dict.fromkeys(answers))
        if not field:
            continue
        for user, value, at in given:
            number = number_of(value)
            if number is not None:
                scores.setdefault(user, {})[field] = number
                times[user] = at
    return [
        Vote(by_score([said.get(name) for name in answers]), user, created_at=times[user])
        for user, said in scores.items()
        if len(said) >= 2
    ]


def _with_reason(vote: Vote, reasons: Mapping[str | None, str]) -> Vote:
    if not (said := reasons.get(vote.annotator)):
        return vote
    return Vote(vote.tiers, vote.annotator, created_at=vote.created_at, rationale=said)


def write(
    store: Database, path: Path | str, *, include_simulated: bool = False, names: bool = False, progress: Progress | None = None
) -> int:
    """A JSON list with one record for each comparison that was judged; returns how many."""
    written = 0
    with files.atomic_write_text(path) as file, store.snapshot():
        file.write("[")
        for shown, given in export.grouped(store, simulated=include_simulated, names=names, progress=progress):
            file.write(",\n" if written else "\n")
            file.write(to_json(_record(shown, given)))
            written += 1
        file.write("\n]\n")
    return written


def _record(shown: export.Shown, given: Sequence[export.Given]) -> dict[str, Any]:
    field_of = {item.id: f"response_{place}" for place, item in enumerate(shown.completions, start=1)}
    turns = json.loads(shown.messages)
    prompt = turns[0]["content"] if len(turns) == 1 else turns
    responses: dict[str, list[Record]] = {"preference": []}
    for vote in given:
        ranking = [{"rank": place + 1, "value": field_of[item]} for item, place in places(vote.tiers)]
        responses["preference"].append({"value": ranking, "user_id": vote.annotator})
        if vote.rationale:
            responses.setdefault("rationale", []).append({"value": vote.rationale, "user_id": vote.annotator})
    return {
        "id": f"comparison-{shown.id}",
        "fields": {"prompt": prompt} | {field_of[item.id]: item.text for item in shown.completions},
        "metadata": {f"{field_of[item.id]}_model": item.model for item in shown.completions},
        "suggestions": {},
        "responses": responses,
        "vectors": {},
        "status": "completed",
    }
