"""Reads rows by a field map: the prompt with its system message and earlier turns, the answers, and the verdict on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from storage.content.prompts import NewPrompt
from storage.core.records import Message, Strength, Tiers
from storage.exchange import hh_rlhf, strict_json
from storage.exchange.field_maps import LETTER_OUTCOMES, SIDES_KNOWN, FieldMap, Outcome, Paths
from storage.exchange.rows import (
    FIRST,
    BadRow,
    Found,
    Left,
    NewComparison,
    NewLabel,
    Record,
    Vote,
    as_text,
    by_rank,
    by_score,
    conversation,
    name_of,
    number_of,
    split_shared_prompt,
    timestamp,
    whole,
)

MEDIA = ("image", "images", "video", "videos", "audio", "audios")
"""Fields of a row with images, video or audio beside the text."""

CompletionValue = str | list[Message] | list[str]
"""One answer: a text, messages, or a text for each turn of the assistant."""


def read(fields: FieldMap, record: Record) -> Iterator[Found]:
    """One comparison with its votes, one label, or one prompt if the map has no answers, and what of the row is left behind."""
    left: list[Found] = []
    if media := [name for name in MEDIA if not is_empty(untracked(record).get(name))]:
        raise BadRow(f"only text can be imported, not {', '.join(media)}")
    if not fields.chosen and not fields.completions:
        yield _prompt_alone(fields, record, left)
        yield from left
        return
    if fields.label:
        yield _label(fields, record, left)
        yield from left
        return
    answers = _answers(fields, record)
    messages, texts = _prompt_and_texts(fields, record, answers, left)
    models = _models(fields, record, len(texts))
    votes = list(_votes(fields, record, models, left))
    if not votes:
        left.append(Left("comparisons without a verdict"))
    yield NewComparison(
        messages,
        tuple(texts),
        models,
        tuple(votes),
        kind=_name(fields.kind, record) or "imported",
        split=_split(fields.split, record),
    )
    yield from left


# ---- paths


def find(record: Any, path: str) -> Any:
    """The value at a path; None if there is none. A field whose own name has dots in it goes first.

    After `[]` it is a list with the value of each item.
    """
    if isinstance(record, dict) and path in record:
        return record[path]
    if path.endswith("[]"):
        return _list(find(record, path[:-2]), path)
    if "[]." in path:
        before, after = path.split("[].", 1)
        items = _list(find(record, before), before)
        return None if items is None else [find(item, after) for item in items]
    if "." in path:
        before, after = path.split(".", 1)
        return find(find(record, before), after) if isinstance(record, dict) and before in record else None
    return None


def _list(value: Any, path: str) -> list[Any] | None:
    """A list, which CSV holds as JSON."""
    if isinstance(value, str):
        try:
            value = strict_json.decode(value)
        except (ValueError, RecursionError):
            raise BadRow(f"{path.removesuffix('[]')} must be a list, in CSV as JSON") from None
        if isinstance(value, BadRow):
            raise value
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        raise BadRow(f"{path.removesuffix('[]')} must be a list")
    return list(value)


def is_empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def has(record: Record, path: str) -> bool:
    """Whether a row has a value for a path, or for a part of a joined one; nothing counts as read by asking."""
    return any(not is_empty(find(untracked(record), part)) for part in path.split("+") if part)


def untracked(record: Record) -> Record:
    """The same record, which notes no reading."""
    return dict(record.items())


def first(paths: Paths, record: Record) -> Any:
    """The value of the first alternative that has one."""
    for path in paths:
        if has(record, path):
            return find(record, path)
    return None


# ---- the prompt and the answers


def _answers(fields: FieldMap, record: Record) -> list[CompletionValue]:
    if fields.chosen:
        chosen, rejected = first(fields.chosen, record), first(fields.rejected, record)
        for value, paths in ((chosen, fields.chosen), (rejected, fields.rejected)):
            if value is None:
                raise BadRow(f"needs {' or '.join(paths)}")
        worse = rejected if _is_texts(rejected) else [rejected]
        if _is_texts(chosen):
            raise BadRow(f"{fields.chosen[0]} must be text or messages")
        return [_answer(value, path) for value, path in ((chosen, fields.chosen[0]), *((value, fields.rejected[0]) for value in worse))]
    for path in fields.completions:
        if not has(record, path):
            continue
        parts = path.split("+")
        if len(parts) > 1:
            # A model that said nothing is null in some files.
            if missing := [part for part in parts if part.removesuffix("[]") not in record and find(record, part) is None]:
                raise BadRow(f"needs {', '.join(missing)}")
            return [_answer(find(record, part), part, turns=part.endswith("[]")) for part in parts]
        return [_answer(value, path) for value in _list(find(record, path), path) or ()]
    raise BadRow(f"needs {' or '.join(fields.completions)}")


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, str) for item in value)


def _answer(value: Any, path: str, *, turns: bool = False) -> CompletionValue:
    if turns:
        texts = ["" if item is None else item for item in value or ()]
        if not all(isinstance(text, str) for text in texts):
            raise BadRow(f"{path.removesuffix('[]')} must be a list of texts")
        return texts
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, (list, tuple, dict)):
        return conversation(value, what=path)
    raise BadRow(f"{path} must be text or messages")


def _prompt_and_texts(
    fields: FieldMap, record: Record, answers: Sequence[CompletionValue], left: list[Found]
) -> tuple[list[Message], list[str]]:
    path = _prompt_path(fields, record)
    value = joined(record, path) if path else None
    before = _before(fields, record, left)
    complete = all(_is_whole(answer, value is None) for answer in answers)
    if path and path.endswith("[]"):
        turns, texts = split_shared_prompt([_interleaved(value, answer) for answer in answers])
        return before + turns, texts
    if complete:
        turns, texts = split_shared_prompt(_without_own_systems(cast(Sequence[list[Message]], answers), left))
        _check_repeated(value, turns, path)
        return _after(before, turns), texts
    if value is None:
        if all(isinstance(answer, str) and answer.startswith("\n\nHuman:") for answer in answers):
            turns, texts = split_shared_prompt([hh_rlhf.dialogue(cast(str, answer)) for answer in answers])
            return _after(before, turns), texts
        raise BadRow(f"no prompt: needs one of {', '.join(fields.prompt)}, or --map prompt=FIELD")
    return _after(before, prompt_turns(value, path or "prompt")), [_text(answer) for answer in answers]


def _prompt_alone(fields: FieldMap, record: Record, left: list[Found]) -> NewPrompt:
    path = _prompt_path(fields, record)
    if path is None:
        raise BadRow(f"needs {' or '.join(fields.prompt)}")
    value = joined(record, path)
    messages = _after(_before(fields, record, left), prompt_turns(value[0] if path.endswith("[]") and value else value, path))
    return NewPrompt(messages, _name(fields.kind, record) or "imported", _split(fields.split, record))


def _before(fields: FieldMap, record: Record, left: list[Found]) -> list[Message]:
    """The system message and the turns that other fields hold."""
    path = next((path for path in fields.system if has(record, path)), None)
    systems = [find(record, part) for part in path.split("+")] if path else [None]
    if any(system is not None and not isinstance(system, str) for system in systems):
        raise BadRow(f"{fields.system[0]} must be text")
    if any(system != systems[0] for system in systems):
        left.append(Left(OWN_SYSTEMS))
        systems = [None]
    system = systems[0]
    before: list[Message] = [{"role": "system", "content": system}] if system and system.strip() else []
    return before + _history(fields, record)


OWN_SYSTEMS = "system messages that only some of the models had"


def _without_own_systems(conversations: Sequence[list[Message]], left: list[Found]) -> Sequence[list[Message]]:
    """The conversations without system messages that differ among them: each model of an arena may have its own."""
    systems = [turns[0] if turns[0]["role"] == "system" else None for turns in conversations]
    if all(system == systems[0] for system in systems):
        return conversations
    if Left(OWN_SYSTEMS) not in left:
        left.append(Left(OWN_SYSTEMS))
    return [turns if system is None else turns[1:] for turns, system in zip(conversations, systems, strict=True)]


def _after(before: list[Message], turns: list[Message]) -> list[Message]:
    """The turns after those of other fields. A system message that stands in both is one.

    Raises:
        BadRow: they have different system messages.
    """
    if not before or before[0]["role"] != "system" or turns[0]["role"] != "system":
        return before + turns
    if before[0]["content"].strip() != turns[0]["content"].strip():
        raise BadRow("two system messages: one in a field of its own, another in the conversation")
    return before + turns[1:]


def _is_whole(answer: CompletionValue, alone: bool) -> bool:
    """Whether an answer is a conversation that begins with its prompt; without a prompt beside it, also if the assistant began."""
    if not answer or not isinstance(answer[0], dict):
        return False
    return answer[0]["role"] != "assistant" or (alone and any(turn["role"] == "user" for turn in cast(list[Message], answer)))


def _prompt_path(fields: FieldMap, record: Record) -> str | None:
    """The path of the prompt.

    Raises:
        BadRow: several fields may be the prompt, and none of them is called so.
    """
    found = [path for path in fields.prompt if has(record, path)]
    # `input` is an object in OpenAI's rows, and a text beside an instruction in others.
    found = [
        path for path in found if "+" not in path or not any(other.split(".")[0] in path.split("+") for other in found if other != path)
    ]
    if len(found) > 1 and fields.usual_prompt and found[0] != "prompt":
        raise BadRow(f"which field is the prompt, {' or '.join(found)}? Say --map prompt=FIELD")
    return found[0] if found else None


def joined(record: Record, path: str) -> Any:
    """The value at a path; the texts of a joined one, by a line break."""
    if "+" not in path:
        value = find(record, path)
        # A field that every row of a group repeats.
        return value[0] if "[]." in path and value else value
    values = [find(record, part) for part in path.split("+")]
    texts = [value for value in values if not is_empty(value)]
    if not all(isinstance(text, str) for text in texts):
        raise BadRow(f"{path.replace('+', ' and ')} must be texts")
    return "\n".join(texts)


_NEMO = re.compile(r"<extra_id_1>(User|Assistant)(?=\n)")
"""What stands between the turns of a prompt in NVIDIA's files."""


def prompt_turns(value: Any, path: str) -> list[Message]:
    """The turns of a prompt: a text is the user's, unless it is a dialogue that ends where the assistant speaks."""
    if isinstance(value, str):
        if value.lstrip().startswith("Human:") and value.rstrip().endswith("Assistant:"):
            return hh_rlhf.dialogue("\n\n" + value.strip())[:-1]
        if len(parts := _NEMO.split(value)) > 1:
            speakers = ["user", *(speaker.lower() for speaker in parts[1::2])]
            texts = [text.strip("\n") for text in parts[::2]]
            return [{"role": speaker, "content": text} for speaker, text in zip(speakers, texts, strict=True)]
        return [{"role": "user", "content": value}]
    return conversation(value, what=path)


def _history(fields: FieldMap, record: Record) -> list[Message]:
    value = first(fields.history, record)
    if value is None:
        return []
    turns: list[Message] = []
    for item in _list(value, fields.history[0]) or ():
        if isinstance(item, dict):
            turns += conversation([item], what=fields.history[0])
        elif isinstance(item, (list, tuple)) and len(item) == 2 and all(isinstance(text, str) for text in item):
            turns += [{"role": "user", "content": item[0]}, {"role": "assistant", "content": item[1]}]
        else:
            raise BadRow(f"{fields.history[0]} must hold messages, or pairs of a question and an answer")
    return turns


def _interleaved(questions: Any, answer: CompletionValue) -> list[Message]:
    """A conversation of a text for each turn of the user and of the assistant."""
    if not _is_texts(questions) or not isinstance(answer, list) or len(answer) > len(questions):
        raise BadRow("the prompt must have one text for each answer of a model")
    turns: list[Message] = []
    for number, question in enumerate(questions):
        turns.append({"role": "user", "content": question})
        if number < len(answer):
            turns.append({"role": "assistant", "content": cast(str, answer[number])})
    return turns


def _check_repeated(value: Any, turns: Sequence[Message], path: str | None) -> None:
    """Some files repeat the prompt beside conversations that begin with it; another text there would be lost."""
    repeated = value if isinstance(value, str) or value is None else conversation(value, what=path or "prompt")
    if isinstance(repeated, list) and list(turns[-len(repeated) :]) != repeated and list(turns[: len(repeated)]) != repeated:
        raise BadRow(f"{path} says something else than the conversations begin with")
    if isinstance(repeated, str) and repeated.strip() and not any(repeated.strip() in turn["content"] for turn in turns):
        raise BadRow(f"{path} says something else than the conversations begin with")


def _text(answer: CompletionValue) -> str:
    if isinstance(answer, str):
        return answer
    if answer and isinstance(answer[0], str):
        raise BadRow("an answer must be text or messages")
    return as_text(cast(list[Message], answer))


# ---- the label of one answer


def _label(fields: FieldMap, record: Record, left: list[Found]) -> NewLabel | Left:
    word = word_of(first(fields.label, record))
    if word in fields.unrated:
        # The whole row is left behind, and has one name.
        whole(record)
        return Left("answers without a rating")
    if word not in (*fields.good, *fields.bad):
        words = ", ".join((*fields.good, *fields.bad))
        raise BadRow(f"{' or '.join(fields.label)} must be one of {words}, not {word[:80]!r}")
    path = next((path for path in fields.completions if has(record, path)), None)
    if path is None:
        raise BadRow(f"needs {' or '.join(fields.completions)}")
    answer = _answer(find(record, path), path)
    messages, texts = _prompt_and_texts(fields, record, [answer], left)
    rationale = first(fields.rationale, record)
    return NewLabel(
        messages,
        texts[0],
        word in fields.good,
        _name(fields.models, record),
        _name(fields.annotator, record),
        _rule(fields, record),
        timestamp(first(fields.created_at, record)),
        rationale if isinstance(rationale, str) else "",
        _name(fields.kind, record) or "imported",
        _split(fields.split, record),
    )


# ---- the verdict


def _votes(fields: FieldMap, record: Record, models: Sequence[str | None], left: list[Found]) -> Iterator[Vote]:
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
        yield _vote(fields, record, _tiers(outcome, number), all_bad=outcome == "both_bad")
    elif (value := first(fields.winner, record)) is not None:
        yield from _decided(fields, record, value, models, left)


def _decided(
    fields: FieldMap, record: Record, value: Any, models: Sequence[str | None], left: list[Found], annotator: str | None = None
) -> Iterator[Vote]:
    outcome = outcome_of(fields, value, models)
    if outcome is None:
        number = number_of(value)
        if number is None or "1.5" not in fields.outcomes or not 1 <= number <= 2:
            words = ", ".join(fields.outcomes or LETTER_OUTCOMES)
            raise BadRow(f"{' or '.join(fields.winner)} must be one of {words}, or the name of a model, not {value!r}")
        # A preference between 1 and 2 says how sure a judge is.
        outcome = 0 if number < 1.5 else 1
        left.append(Left("how sure a preference is"))
    if outcome != "none":
        strength = fields.strengths.get(word_of(value))
        yield _vote(
            fields, record, _tiers(outcome, len(models)), all_bad=outcome == "both_bad", annotator=annotator, strength=cast(Any, strength)
        )


def word_of(value: Any) -> str:
    """A verdict as a word: `1` for 1, 1.0 and "1"."""
    number = number_of(value)
    if number is not None:
        return str(int(number)) if number == int(number) else str(number)
    return str(value).strip().lower()


def outcome_of(fields: FieldMap, value: Any, models: Sequence[str | None]) -> Outcome | None:
    """What a verdict says; None if it is not among the words of the map, and no model's name."""
    if isinstance(value, str) and list(models).count(value) == 1:
        return list(models).index(value)
    outcomes, word = fields.outcomes or LETTER_OUTCOMES, word_of(value)
    return outcomes.get(word, outcomes.get(re.sub(r"[\s-]+", "_", word)))


def is_true(value: Any) -> bool:
    return word_of(value) in ("1", "true")


def _flagged(fields: FieldMap, record: Record) -> Outcome | None:
    raised = [index for index, path in enumerate(fields.flags) if path and path in record and is_true(record[path])]
    if len(raised) > 1:
        raise BadRow(f"several verdicts: {', '.join(fields.flags[index] for index in raised)}")
    outcomes: tuple[Outcome, ...] = (0, 1, "tie", "both_bad")
    return outcomes[raised[0]] if raised else None


def _tiers(outcome: Outcome, number: int) -> Tiers:
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


def per_answer(paths: Paths, record: Record) -> list[Any] | None:
    """A value for each answer, of a list or of joined fields; None if there is none."""
    for path in paths:
        if has(record, path):
            parts = path.split("+")
            return [find(record, part) for part in parts] if len(parts) > 1 else _list(find(record, path), path)
    return None


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
        annotator or _name(fields.annotator, record),
        _rule(fields, record),
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


# ---- beside them


def _models(fields: FieldMap, record: Record, number: int) -> tuple[str | None, ...]:
    values = per_answer(fields.models, record)
    if values is None or len(values) != number:
        return (None,) * number
    return tuple(name_of(value) for value in values)


def _name(paths: Paths, record: Record) -> str | None:
    value = first(paths, record)
    return name_of(value[0] if isinstance(value, list) and value else value)


def _rule(fields: FieldMap, record: Record) -> str | None:
    """The rule of a simulated annotator; None for a person."""
    simulated = word_of(first(fields.annotator_kind, record)) == "simulated"
    return (_name(fields.rule, record) or "unknown") if simulated else None


def _split(paths: Paths, record: Record) -> Any:
    for path in paths:
        # Other words are left unread, and named as left behind.
        if untracked(record).get(path) in ("train", "heldout"):
            return record[path]
    return None
