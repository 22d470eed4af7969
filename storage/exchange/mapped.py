"""Reads rows by a field map: the prompt with its system message and earlier turns, the answers, and the verdict on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from storage.content.prompts import NewPrompt
from storage.core.records import Message
from storage.exchange import hh_rlhf
from storage.exchange.field_maps import FieldMap, Paths
from storage.exchange.paths import as_list, find, first, has, is_empty, joined, name_at, per_answer, untracked
from storage.exchange.rows import (
    BadRow,
    Found,
    Left,
    NewComparison,
    NewLabel,
    Record,
    as_text,
    conversation,
    name_of,
    split_shared_prompt,
    timestamp,
    whole,
)
from storage.exchange.verdicts import rule_of, votes_of, word_of

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
    answers = _as_turns(_answers(fields, record))
    messages, texts = _prompt_and_texts(fields, record, answers, left)
    models = _models(fields, record, len(texts))
    votes = list(votes_of(fields, record, models, left))
    if not votes:
        left.append(Left("comparisons without a verdict"))
    yield NewComparison(
        messages,
        tuple(texts),
        models,
        tuple(votes),
        kind=name_at(fields.kind, record) or "imported",
        split=_split(fields.split, record),
    )
    yield from left


# ---- the prompt and the answers


def _answers(fields: FieldMap, record: Record) -> list[CompletionValue]:
    if fields.chosen:
        chosen, rejected = first(fields.chosen, record), first(fields.rejected, record)
        if chosen is None:
            chosen = _empty(fields.chosen, record)
        if rejected is None:
            rejected = _empty(fields.rejected, record)
        worse = rejected if _is_texts(rejected) else [rejected]
        if _is_texts(chosen) and len(chosen) == 1:
            chosen = chosen[0]
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
        return [_answer(value, path) for value in as_list(find(record, path), path) or ()]
    raise BadRow(f"needs {' or '.join(fields.completions)}")


def _empty(paths: Paths, record: Record) -> str:
    """The answer of a model that said nothing.

    Raises:
        BadRow: there is no answer, not even an empty one.
    """
    path = next((path for path in paths if untracked(record).get(path) == ""), None)
    if path is None:
        raise BadRow(f"needs {' or '.join(paths)}")
    return str(record[path])


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
        raise BadRow(f"no prompt: needs one of {', '.join(fields.prompt)}, or --map prompt=FIELD")
    return _after(before, prompt_turns(value, path or "prompt")), [_text(answer) for answer in answers]


def _prompt_alone(fields: FieldMap, record: Record, left: list[Found]) -> NewPrompt:
    path = _prompt_path(fields, record)
    if path is None:
        raise BadRow(f"needs {' or '.join(fields.prompt)}")
    value = joined(record, path)
    messages = _after(_before(fields, record, left), prompt_turns(value[0] if path.endswith("[]") and value else value, path))
    return NewPrompt(messages, name_at(fields.kind, record) or "imported", _split(fields.split, record))


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


def _as_turns(answers: Sequence[CompletionValue]) -> Sequence[CompletionValue]:
    """Answers that are all texts of a whole dialogue, as its turns."""
    if all(isinstance(answer, str) and hh_rlhf.begins_dialogue(answer) for answer in answers):
        return [hh_rlhf.dialogue(cast(str, answer)) for answer in answers]
    return answers


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


_NEMO = re.compile(r"<extra_id_1>(User|Assistant)(?=\n)")
"""What stands between the turns of a prompt in NVIDIA's files."""


def prompt_turns(value: Any, path: str) -> list[Message]:
    """The turns of a prompt: a text is the user's, unless it is a dialogue that ends where the assistant speaks."""
    if isinstance(value, str):
        if value.lstrip().startswith("Human:") and value.rstrip().endswith("Assistant:"):
            return hh_rlhf.dialogue(value)[:-1]
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
    for item in as_list(value, fields.history[0]) or ():
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
    if value is None:
        return
    repeated = prompt_turns(value, path or "prompt")
    if isinstance(value, str) and len(repeated) == 1:
        text = repeated[0]["content"].strip()
        agrees = not text or any(text in turn["content"] for turn in turns)
    else:
        agrees = repeated in (list(turns[-len(repeated) :]), list(turns[: len(repeated)]))
    if not agrees:
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
    messages, texts = _prompt_and_texts(fields, record, _as_turns([answer]), left)
    rationale = first(fields.rationale, record)
    return NewLabel(
        messages,
        texts[0],
        word in fields.good,
        name_at(fields.models, record),
        name_at(fields.annotator, record),
        rule_of(fields, record),
        timestamp(first(fields.created_at, record)),
        rationale if isinstance(rationale, str) else "",
        name_at(fields.kind, record) or "imported",
        _split(fields.split, record),
    )


# ---- beside them


def _models(fields: FieldMap, record: Record, number: int) -> tuple[str | None, ...]:
    values = per_answer(fields.models, record)
    if values is None or len(values) != number:
        return (None,) * number
    return tuple(name_of(value) for value in values)


def _split(paths: Paths, record: Record) -> Any:
    for path in paths:
        # Other words are left unread, and named as left behind.
        if untracked(record).get(path) in ("train", "heldout"):
            return record[path]
    return None
