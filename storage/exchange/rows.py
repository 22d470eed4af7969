"""Importable items: prompts, and comparisons with their votes, without ids. Also their checks.

Every format turns its records into these items; `storage.exchange.imports` checks all of them with `check` and stores them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from storage.content import comparisons, prompts
from storage.content.prompts import NewPrompt
from storage.core.database import to_json
from storage.core.records import STRENGTHS, Message, ProjectSettings, Split, Strength, Tiers

MAX_NAME_CHARS = 200
"""Longest name of an annotator, a model or an aspect, in characters."""

DEFAULT_CHARS = ProjectSettings().text_max_chars

BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the writing direction, which can make one name look like another."""

EARLIEST, LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


class BadRow(Exception):
    """A record cannot be imported; the message says why."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One annotator's ranking of a comparison. Tiers and slots hold indexes into its completions instead of ids."""

    tiers: Tiers
    annotator: str | None = None
    """None if the record names no annotator: the vote is then attributed to the source."""
    rule: str | None = None
    """The rule of a simulated annotator; None for a person."""
    all_bad: bool = False
    created_at: str | None = None
    strength: Strength | None = None
    rationale: str = ""
    aspects: tuple[tuple[int, str, int], ...] = ()
    """(completion, aspect, rating)."""
    shown: tuple[int, ...] | None = None
    """Index of the completion in each slot; None if nobody recorded it: the order of the file means nothing then."""
    ideal: str | None = None
    active_ms: int | None = None
    idle_ms: int | None = None
    client_ms: int | None = None
    server_ms: int | None = None


@dataclass(frozen=True, slots=True)
class NewComparison:
    """A prompt with 2 to 9 completions, the votes on them, and the known answer of a gold comparison."""

    messages: Sequence[Message]
    completions: tuple[str, ...]
    models: tuple[str | None, ...]
    votes: tuple[Vote, ...] = ()
    gold: Tiers | None = None
    kind: str = "imported"
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class NewLabel:
    """A prompt with one completion that somebody called good or bad, without another to compare it with."""

    messages: Sequence[Message]
    completion: str
    good: bool
    model: str | None = None
    annotator: str | None = None
    """None if the record names no annotator."""
    rule: str | None = None
    """The rule of a simulated annotator; None for a person."""
    created_at: str | None = None
    rationale: str = ""
    kind: str = "imported"
    split: Split | None = None


Record = dict[str, Any]
"""One record of a file: a JSON object, or a row of CSV or Parquet. Its values are unchecked."""


@dataclass(frozen=True, slots=True)
class Left:
    """Something in a record that is not imported. An import counts it by name; an export counts what a format cannot hold."""

    what: str
    """A short name, the same for all of its kind: `draft responses`."""
    count: int = 1
    harmless: bool = False
    """Whether it says nothing, or nothing new: blank lines, numbers of rows. `--strict` lets it pass."""


@dataclass(frozen=True, slots=True)
class ReadAs:
    """Something in a file that was read under another name than its own, for the summary."""

    name: str
    what: str


Row = Record | BadRow | Left | ReadAs
"""What a file gives one after the other: records, and what is to be said of those that are none."""


Item = NewPrompt | NewComparison | NewLabel
"""An importable item that a reader makes of a record."""

Found = Item | Left
"""What a reader yields."""


def pair(
    messages: Sequence[Message],
    left: str,
    right: str,
    votes: Sequence[Vote] = (),
    *,
    models: tuple[str | None, str | None] = (None, None),
    gold: Tiers | None = None,
    kind: str = "imported",
    split: Split | None = None,
) -> NewComparison:
    return NewComparison(messages, (left, right), models, tuple(votes), gold, kind, split)


FIRST: Tiers = ((0,), (1,))
SECOND: Tiers = ((1,), (0,))
TIE: Tiers = ((0, 1),)


def check_different(chosen: str, rejected: str) -> None:
    if chosen == rejected:
        raise BadRow("chosen and rejected are the same: there is nothing to compare")


def check(item: Item, max_chars: int = DEFAULT_CHARS) -> None:
    """Checks that the store can hold an item. No text may be longer than `max_chars`; a prompt's turns count together.

    Raises:
        BadRow: it cannot; the message says why.
    """
    if reason := prompts.problem(item.messages):
        raise BadRow(reason)
    _check_length("the prompt", prompt_size(item), max_chars)
    for message in item.messages:
        _check_text("a message", message["content"])
    if not isinstance(item.kind, str) or not item.kind.strip():
        raise BadRow("kind must be a word")
    check_name("kind", item.kind)
    if item.split not in (None, "train", "heldout"):
        raise BadRow(f"split must be train or heldout, not {item.split!r}")
    if isinstance(item, NewComparison):
        _check_comparison(item, max_chars)
    if isinstance(item, NewLabel):
        _check_label(item, max_chars)


def prompt_size(item: Item) -> int:
    """Characters in all turns of the prompt."""
    return sum(len(message["content"]) for message in item.messages)


def size_of(item: Item) -> int:
    """Characters in all texts of the item, approximately."""
    if isinstance(item, NewLabel):
        return prompt_size(item) + len(item.completion) + len(item.rationale) + 500
    if not isinstance(item, NewComparison):
        return prompt_size(item)
    return prompt_size(item) + sum(map(len, item.completions)) + sum(len(v.rationale) + len(v.ideal or "") + 500 for v in item.votes)


def _check_comparison(item: NewComparison, max_chars: int) -> None:
    number = len(item.completions)
    if not comparisons.MIN_COMPLETIONS <= number <= comparisons.MAX_COMPLETIONS:
        raise BadRow(f"{number} completions: a comparison holds {comparisons.MIN_COMPLETIONS} to {comparisons.MAX_COMPLETIONS}")
    for text in item.completions:
        _check_completion(text, max_chars)
    if len(item.models) != number:
        raise BadRow(f"{len(item.models)} models for {number} completions")
    for model in item.models:
        check_name("a model", model)
    if len(set(zip(item.completions, item.models, strict=True))) == 1:
        raise BadRow("the completions are the same: there is nothing to compare")
    for vote in item.votes:
        _check_vote(vote, number, max_chars)
    if item.gold is not None:
        check_tiers(item.gold, number)
        if len(item.gold) < 2 or sum(map(len, item.gold)) != number:
            raise BadRow("a known answer must rank every completion, and put one before another")


def _check_completion(text: Any, max_chars: int) -> None:
    if not isinstance(text, str):
        raise BadRow("a completion must be text")
    _check_length("a completion", len(text), max_chars)
    _check_text("a completion", text)


def _check_label(item: NewLabel, max_chars: int) -> None:
    _check_completion(item.completion, max_chars)
    check_name("the model", item.model)
    check_name("the annotator", item.annotator)
    check_name("the rule", item.rule)
    _check_rationale(item.rationale, max_chars)


def _check_vote(vote: Vote, number: int, max_chars: int) -> None:
    check_tiers(vote.tiers, number)
    check_name("the annotator", vote.annotator)
    check_name("the rule", vote.rule)
    if vote.strength is not None and vote.strength not in STRENGTHS:
        raise BadRow(f"strength must be one of {', '.join(STRENGTHS)}, not {vote.strength!r}")
    if vote.strength is not None and (number != 2 or len(vote.tiers) != 2):
        raise BadRow("a strength says how much better one of two completions is")
    _check_rationale(vote.rationale, max_chars)
    for index, aspect, rating in vote.aspects:
        check_name("an aspect", aspect)
        if type(rating) is not int or not 1 <= rating <= 10 or not 0 <= index < number:
            raise BadRow(f"a rating must be a whole number from 1 to 10, not {rating!r}")
    if vote.shown is not None and (any(type(index) is not int for index in vote.shown) or sorted(vote.shown) != list(range(number))):
        raise BadRow(f"shown must name each of the {number} completions once, not {list(vote.shown)}")
    if vote.ideal is not None:
        if not isinstance(vote.ideal, str) or not vote.ideal.strip():
            raise BadRow("the ideal answer must be text")
        _check_length("the ideal answer", len(vote.ideal), max_chars)
        _check_text("the ideal answer", vote.ideal)
    for field in ("active_ms", "idle_ms", "client_ms", "server_ms"):
        ms = getattr(vote, field)
        if ms is not None and (type(ms) is not int or not 0 <= ms < 1 << 53):
            raise BadRow(f"{field} must be milliseconds, not {ms!r}")


def _check_rationale(text: Any, max_chars: int) -> None:
    if not isinstance(text, str):
        raise BadRow("the rationale must be text")
    _check_length("the rationale", len(text), max_chars)
    _check_text("the rationale", text)


def check_tiers(tiers: Tiers, number: int) -> None:
    """Checks that the tiers rank at least two of `number` completions, each at most once."""
    ranked = [index for tier in tiers for index in tier]
    if not all(tiers):
        raise BadRow("a tier is empty")
    if any(type(index) is not int or not 0 <= index < number for index in ranked):
        raise BadRow(f"tiers must hold indexes from 0 to {number - 1}, not {[list(tier) for tier in tiers]}")
    if len(set(ranked)) != len(ranked):
        raise BadRow("a completion is ranked twice")
    if len(ranked) < 2:
        raise BadRow("a ranking needs at least two completions")


def check_name(what: str, name: Any) -> None:
    """Checks a name; `what` says in the message whose it is. None is allowed."""
    if name is None:
        return
    if not isinstance(name, str) or not name.strip():
        raise BadRow(f"{what} must be a name, not {name!r}")
    if len(name) > MAX_NAME_CHARS:
        raise BadRow(f"{what} has a name of {len(name):,} characters, at most {MAX_NAME_CHARS} are kept")
    _check_text(what, name)
    if any(character in BIDI or unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        raise BadRow(f"{what} has a name with a control character in it: {name!r}")


def _check_length(what: str, chars: int, max_chars: int) -> None:
    if chars > max_chars:
        raise BadRow(
            f"{what} has {chars:,} characters, at most {max_chars:,} are taken: a lead can raise that in Settings, and "
            "--max-text-chars for one import"
        )


def _check_text(what: str, text: str) -> None:
    if "\0" in text:
        raise BadRow(f"{what} holds a NUL character")
    if not prompts.is_storable(text):
        raise BadRow("the text has half a surrogate pair, which UTF-8 cannot hold")


def text_of(record: Record, key: str) -> str:
    """The text under a key of a record.

    Raises:
        BadRow: the key is missing, or its value is not text.
    """
    value = record.get(key)
    if not isinstance(value, str):
        raise BadRow(f"needs {key}, as text" if value is None else f"{key} must be text")
    return value


def whole(value: Any) -> Any:
    """The value with all that is in it, each part taken: what `tracking` counts as read."""
    if isinstance(value, dict):
        return {key: whole(value[key]) for key in value}
    return [whole(item) for item in value] if isinstance(value, (list, tuple)) else value


def name_of(value: Any) -> str | None:
    """A name in a record, which may be text or a number; None if it is empty."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        if value is None:
            return None
        raise BadRow(f"a name must be text, not {value!r}")
    return str(value).strip() or None


def number_of(value: Any) -> float | None:
    """A finite number, also one written as text; None for anything else, such as `N/A`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def conversation(value: Any, *, what: str = "messages") -> list[Message]:
    """Messages, each with `role` and `content`, with `from` and `value` (ShareGPT), or with `role` and `text`.

    Content may be a list of parts, as in multi-modal files, if all are text. Calls of tools and their results become text turns
    that begin with `[tool call]` and `[tool result]`. One message may stand without a list around it.

    Raises:
        BadRow: the value is not such a list.
    """
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise BadRow(f"{what} must be a list with at least one message")
    return [_message(message, what) for message in value]


ROLE_ALIASES = {
    "human": "user", "prompter": "user", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "chatbot": "assistant", "ai": "assistant", "developer": "system",
}  # fmt: skip
"""What files call the roles, in any case, beside their usual names."""

TOOL_CALLS = ("function_call", "tool_call")
TOOL_RESULTS = ("tool", "function", "observation", "function_response", "tool_response", "ipython")
TOOL_CALL, TOOL_RESULT = "[tool call]", "[tool result]"


def _message(message: Any, what: str) -> Message:
    if not isinstance(message, dict):
        raise BadRow(f"each of the {what} must be an object with role and content")
    # A table has all the names in every message, with null for those that a message lacks.
    role = message.get("from") if message.get("role") is None else message.get("role")
    named = next((name for name in ("content", "value", "text") if message.get(name) is not None), "content")
    content = message.get(named)
    if isinstance(content, (list, tuple)):
        content = "".join(_part(part) for part in content)
    if calls := message.get("tool_calls"):
        content = "\n".join([content or "", *_calls(calls)]).strip()
    if not isinstance(role, str) or not isinstance(content, str):
        raise BadRow(f"each of the {what} must have a role and a content of text")
    role = role.strip().lower()
    if role in TOOL_CALLS:
        return {"role": "assistant", "content": f"{TOOL_CALL} {content}"}
    if role in TOOL_RESULTS:
        name = message.get("name")
        return {"role": "user", "content": f"{TOOL_RESULT} {name}: {content}" if isinstance(name, str) else f"{TOOL_RESULT} {content}"}
    return {"role": ROLE_ALIASES.get(role, role), "content": content}


def _calls(calls: Any) -> list[str]:
    if not isinstance(calls, (list, tuple)):
        raise BadRow("tool_calls must be a list")
    texts = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise BadRow("a tool call must have a function with a name")
        arguments = function.get("arguments")
        texts.append(f"{TOOL_CALL} {name} {arguments if isinstance(arguments, str) else to_json(whole(arguments))}")
    return texts


def _part(part: Any) -> str:
    text = None
    if isinstance(part, dict):
        text = part.get("value") if part.get("type") == "text" and "text" not in part else part.get("text")
    if not isinstance(text, str):
        raise BadRow("only text can be imported, not images or files")
    return text


def as_text(turns: Sequence[Message]) -> str:
    """The turns after a prompt as one text. Turns after the first get headings, as in Anthropic's dialogues."""
    if not turns or turns[0]["role"] != "assistant":
        raise BadRow("a completion must begin with the assistant's turn")
    later_turns = "".join(f"\n\n{HEADINGS.get(turn['role'], 'Human')}: {turn['content']}" for turn in turns[1:])
    return turns[0]["content"] + later_turns


HEADINGS = {"user": "Human", "assistant": "Assistant", "system": "System"}


def split_common_prompt(left: Sequence[Message], right: Sequence[Message]) -> tuple[list[Message], str, str]:
    """As `split_shared_prompt`, of two conversations."""
    prompt, (one, other) = split_shared_prompt([left, right])
    return prompt, one, other


def split_shared_prompt(conversations: Sequence[Sequence[Message]]) -> tuple[list[Message], list[str]]:
    """Splits conversations into their shared prompt and the completion that follows it in each.

    The prompt ends with the last user turn that all share. All later turns belong to the completions.

    Raises:
        BadRow: they share no user turn, or differ in the user's turns alone.
    """
    common = 0
    for turns in zip(*(turns[:-1] for turns in conversations), strict=False):
        if any(turn != turns[0] for turn in turns):
            break
        common += 1
    first = conversations[0]
    if common and not any(turn["role"] == "assistant" for turns in conversations for turn in turns[common:]):
        raise BadRow("the conversations differ in what the user says, not in an answer")
    while common and first[common - 1]["role"] != "user":
        common -= 1
    if not common:
        raise BadRow("the conversations share no prompt: they must begin with the same user's turn")
    return list(first[:common]), [as_text(turns[common:]) for turns in conversations]


def timestamp(value: Any) -> str | None:
    """A time in the text form of the store, from ISO 8601 text or that of mails (RFC 2822), a datetime, or a Unix time.

    Times without a zone are in UTC.

    Raises:
        BadRow: the value is none of these.
    """
    if value is None or value == "":
        return None
    try:
        at = _datetime_of(value)
    except (ValueError, OverflowError, OSError, TypeError, AttributeError):
        raise BadRow(f"not a time: {str(value)[:40]!r}") from None
    if not EARLIEST < at < LATEST:
        raise BadRow(f"not a time: {str(value)[:40]!r}")
    return at.isoformat(timespec="milliseconds")


_MAIL = re.compile(r"^[A-Z][a-z]{2}, \d")
_DATE = re.compile(r"^(\d{4})/(\d{2})/(\d{2})")
_ZONE = re.compile(r"\s*(?:UTC|GMT|\s([+-]\d{2}:?\d{2})(?:\s*UTC)?)$")
"""How some programs write the zone after a time: `UTC`, or an offset after a blank."""


def _datetime_of(value: Any) -> datetime:
    number = number_of(value)
    if number is not None:
        # Seconds, or milli-, micro- or nanoseconds.
        seconds = next((number / unit for unit in (1, 1e3, 1e6, 1e9) if abs(number / unit) < 1e11), number)
        return datetime.fromtimestamp(seconds, UTC)
    at = value if isinstance(value, datetime) else _from_text(value.strip())
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _from_text(text: str) -> datetime:
    if _MAIL.match(text):
        return parsedate_to_datetime(text)
    return datetime.fromisoformat(_ZONE.sub(r"\1", _DATE.sub(r"\1-\2-\3", text)))


def by_score(scores: Sequence[float | None]) -> Tiers:
    """Tiers of indexes by decreasing score. Equal scores share a tier; indexes without a score are left out."""
    values = sorted({score for score in scores if score is not None}, reverse=True)
    return tuple(tuple(index for index, score in enumerate(scores) if score == value) for value in values)


def by_rank(ranks: Sequence[float | None]) -> Tiers:
    """Tiers of indexes by increasing rank. Equal ranks share a tier; indexes without a rank are left out."""
    return by_score([None if rank is None else -rank for rank in ranks])


def places(tiers: Tiers) -> Iterator[tuple[int, int]]:
    """(item, tier number from 0) of each ranked item."""
    for number, tier in enumerate(tiers):
        for item in tier:
            yield item, number
