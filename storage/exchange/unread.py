"""Which fields that a reader knows nothing of may hold votes or a part of the prompt, by the words in their names and by their values.

It keeps rows from being recognised as something that holds less than they do: prompts, or comparisons that nobody judged.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from storage.exchange.paths import is_empty
from storage.exchange.rows import Record

# fmt: off
_ANSWERS = frozenset({"a", "b", "answer", "reply", "response", "completion", "output", "generation", "candidate", "solution",
    "summary", "option", "assistant", "gpt", "bot", "left", "right", "good", "bad", "positive", "negative", "pos", "neg", "y"})
_VERDICTS = frozenset({"chosen", "rejected", "accepted", "preferred", "dispreferred", "preference", "prefer", "better", "worse",
    "best", "worst", "winner", "loser", "win", "lose", "winning", "losing", "accept", "reject", "vote", "verdict", "judgment", "judgement",
    "pick", "selected", "choice"})
_MARKS = frozenset({"score", "rating", "rank", "ranking", "label", "feedback", "thumb", "upvote", "grade", "reward"})
_PARTS = frozenset({"context", "passage", "document", "article", "history", "dialogue", "dialog", "conversation", "query", "post",
    "body", "image", "images"})
# fmt: on
"""Words in the names of answers, of a verdict, of a mark that may be a verdict or one of the prompt, and of a part of the prompt."""

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def votes(record: Record, known: Collection[str]) -> list[str]:
    """The fields, other than the known ones, that together say which of several answers is better.

    One answer, such as a reference, is no comparison, and a mark without an answer is one of the prompt.
    """
    words = {name: _words(name) for name, value in record.items() if name not in known and not is_empty(value)}
    answers = [name for name, said in words.items() if said & _ANSWERS]
    several = len(answers) > 1 or any(_are_several(record[name]) or _is_pair(name, record[name]) for name in answers)
    verdicts = [
        name
        for name, said in words.items()
        if said & _VERDICTS or (isinstance(record[name], str) and record[name] in words.keys() - {name})
    ]
    marks = [name for name, said in words.items() if said & _MARKS and name not in verdicts]
    found = (*answers, *verdicts, *marks) if verdicts or several or (answers and marks) else ()
    return [name for name in words if name in found]


def verdicts(record: Record, known: Collection[str]) -> list[str]:
    """The fields, other than the known ones, that may say which answer is better, where the answers are known."""
    return [name for name, value in record.items() if name not in known and not is_empty(value) and _words(name) & (_VERDICTS | _MARKS)]


def parts(record: Record, known: Collection[str]) -> list[str]:
    """The fields, other than the known ones, that usually are a part of the prompt."""
    return [name for name, value in record.items() if name not in known and not is_empty(value) and name in _PARTS]


def names_answers(name: str) -> bool:
    """Whether a list of this name holds answers."""
    return bool(_words(name) & (_ANSWERS | {"choice"}))


def _words(name: str) -> set[str]:
    """The words in the name of a field, in the singular: `responses_2` holds `response`."""
    words = [word.lower() for word in _WORD.findall(name)]
    return {word for spelled in words for word in (spelled, spelled.removesuffix("s"), spelled.removesuffix("ies") + "y")}


def _are_several(value: Any) -> bool:
    """Whether a value is a list of answers. A list of texts may be several references, if its name is in the plural."""
    if isinstance(value, dict):
        # As `datasets` holds a list of objects: each of their fields a list.
        return any(isinstance(items, list) and len(items) > 1 and _words(name) & (_VERDICTS | _MARKS) for name, items in value.items())
    return isinstance(value, (list, tuple)) and len(value) > 1 and all(isinstance(item, dict) for item in value)


def _is_pair(name: str, value: Any) -> bool:
    """Whether a list of texts is named as one answer: older files of LLaMA-Factory have the better and the worse one in `output`."""
    return isinstance(value, (list, tuple)) and len(value) > 1 and name.lower() in _ANSWERS and all(isinstance(item, str) for item in value)
