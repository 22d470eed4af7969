"""Conversations that are stored as messages with the id of the one before: Open WebUI's feedback, Open-Assistant's message files.

A vote is about answers to the same message; the way from the root to it is the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from storage.core.records import Message, Tiers
from storage.exchange import oasst
from storage.exchange.rows import (
    ROLE_ALIASES,
    BadRow,
    Found,
    Left,
    NewComparison,
    NewLabel,
    Record,
    Vote,
    by_rank,
    name_of,
    number_of,
    text_of,
    timestamp,
    whole,
)

_WEBUI_CHAT = (
    "id", "created_at", "updated_at", "user_id", "timestamp", "share_id", "archived", "pinned", "title", "models", "folder_id", "messages",
    "history.currentId",
)  # fmt: skip
_WEBUI_MESSAGE = (
    "id", "childrenIds", "timestamp", "models", "model", "modelName", "modelIdx", "arena", "done", "annotation", "feedbackId",
)  # fmt: skip
_WEBUI_CHATS = ("snapshot.", "snapshot.chat.", "snapshot.chat.chat.")
WEBUI_IGNORED_FIELDS = (
    "id", "version", "type", "updated_at", "data.model_id", "data.sibling_model_ids", "base_models", "user", "user_id",
    *(f"meta.{name}" for name in ("arena", "chat_id", "message_index", "model_id", "base_models")),
    *(chat + name for chat in _WEBUI_CHATS for name in _WEBUI_CHAT),
    *(f"{chat}history.messages[].{name}" for chat in _WEBUI_CHATS for name in _WEBUI_MESSAGE),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a conversation."""

    role: str
    text: str
    parent: str | None
    model: str | None = None


def way_to(messages: Mapping[str, Said], last: str) -> list[Message]:
    """The turns from the root to a message.

    Raises:
        BadRow: a message is missing, or the way goes round in a circle.
    """
    return [{"role": messages[key].role, "content": messages[key].text} for key in keys_to(messages, last)]


def keys_to(messages: Mapping[str, Said], last: str) -> list[str]:
    """The ids of the turns from the root to a message.

    Raises:
        BadRow: a message is missing, or the way goes round in a circle.
    """
    keys: list[str] = []
    at: str | None = last
    while at is not None:
        if at not in messages:
            raise BadRow(f"the message {at[:40]!r} is not there")
        if len(keys) >= oasst.MAX_TREE_DEPTH:
            raise BadRow(f"a conversation of more than {oasst.MAX_TREE_DEPTH} turns")
        keys.append(at)
        at = messages[at].parent
    return keys[::-1]


# ---- Open WebUI


def read_webui(record: Record) -> Iterator[Found]:
    """One comparison of the rated answer with its siblings; without siblings one label."""
    data, meta = _object(record, "data"), _object(record, "meta")
    rated = name_of(meta.get("message_id"))
    rating = number_of(data.get("rating"))
    if rating == 0 or data.get("rating") is None:
        # The whole row is left behind, and has one name.
        whole(record)
        yield Left("answers without a rating")
        return
    if rating not in (1, -1):
        raise BadRow(f"rating must be 1 or -1, not {data.get('rating')!r}")
    messages = _webui_messages(record)
    if rated is None or rated not in messages or messages[rated].parent is None:
        raise BadRow("the rated message is not in the snapshot of the chat")
    said = messages[rated]
    models = data.get("sibling_model_ids")
    models = models if isinstance(models, (list, tuple)) else []
    siblings = [key for key, other in messages.items() if key != rated and other.parent == said.parent and other.model in models]
    turns = [*_webui_system(record), *way_to(messages, str(said.parent))]
    annotator, at = name_of(record.get("user_id")), timestamp(record.get("created_at"))
    reasons = [text for text in (data.get("reason"), data.get("comment")) if isinstance(text, str) and text.strip()]
    detail = number_of(_object(data, "details").get("rating") if "details" in data else _object(record, "details").get("rating"))
    shown = [key for key in messages if key == rated or key in siblings]
    if others := len(messages) - len(keys_to(messages, str(said.parent))) - len(shown):
        yield Left("other messages of the chat", others)
    if not siblings:
        yield NewLabel(turns, said.text, rating == 1, said.model, annotator, None, at, ": ".join(reasons))
        if detail is not None:
            yield Left("ratings from 1 to 10 of single answers")
        return
    place = shown.index(rated)
    rivals = tuple(index for index in range(len(shown)) if index != place)
    tiers: Tiers = ((place,), rivals) if rating == 1 else (rivals, (place,))
    aspects = ((place, "rating", int(detail)),) if detail is not None and detail in range(1, 11) else ()
    vote = Vote(tiers, annotator, created_at=at, rationale=": ".join(reasons), aspects=aspects)
    yield NewComparison(turns, tuple(messages[key].text for key in shown), tuple(messages[key].model for key in shown), (vote,))


def _object(record: Record, name: str) -> Record:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _webui_chat(record: Record) -> Record:
    """The chat. Versions of Open WebUI put it at different depths of the snapshot."""
    found = _object(record, "snapshot")
    for _ in range(3):
        if "history" in found:
            break
        found = _object(found, "chat")
    return found


def _webui_system(record: Record) -> list[Message]:
    """The system message that the user gave this chat."""
    system = _object(_webui_chat(record), "params").get("system")
    return [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []


def _webui_messages(record: Record) -> dict[str, Said]:
    """The messages of the chat, by id. In an arena `model` is that of the arena, and `selectedModelId` the one that answered."""
    messages = _object(_webui_chat(record), "history").get("messages")
    if isinstance(messages, dict):
        found = {key: messages[key] for key in messages if isinstance(messages[key], dict)}
    elif isinstance(messages, (list, tuple)):
        found = {str(one.get("id")): one for one in messages if isinstance(one, dict)}
    else:
        raise BadRow("needs snapshot, with the history of the chat")
    return {
        key: Said(
            text_of(one, "role"), text_of(one, "content"), name_of(one.get("parentId")),
            name_of(one.get("selectedModelId") or one.get("model")),
        )
        for key, one in found.items()
    }  # fmt: skip


# ---- LibreChat

LIBRECHAT_IGNORED = (
    "conversationId", "endpoint", "title", "exportAt", "branches", "recursive", "options",
    *(f"{messages}[].{name}" for messages in ("messages", "messagesTree", "messages[].children", "messagesTree[].children") for name in (
        "messageId", "conversationId", "parentMessageId", "sender", "endpoint", "tokenCount", "updatedAt", "createdAt", "unfinished",
        "error", "user", "_id", "__v", "expiredAt", "children", "depth", "siblingIndex", "model", "iconURL", "clientTimestamp")),
)  # fmt: skip


def read_librechat(record: Record) -> Iterator[Found]:
    """One label for each answer with a thumb, up or down."""
    options = _object(record, "options")
    system = options.get("promptPrefix") or options.get("system")
    before: list[Message] = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    rows = list(_librechat_messages(record.get("messages", record.get("messagesTree"))))
    messages: dict[str, Said] = {}
    for row in rows:
        role = "user" if row.get("isCreatedByUser") is True else "assistant"
        messages[text_of(row, "messageId")] = Said(
            role, _librechat_text(row), name_of(row.get("parentMessageId")), name_of(row.get("model"))
        )
    # The first message names a parent that no file holds.
    messages = {key: said if said.parent in messages else replace(said, parent=None) for key, said in messages.items()}
    unrated = 0
    for row in rows:
        said, feedback = messages[text_of(row, "messageId")], _object(row, "feedback")
        rating = feedback.get("rating")
        if said.role == "assistant" and rating is None:
            unrated += 1
        if rating is None:
            continue
        if rating not in ("thumbsUp", "thumbsDown") or said.parent is None:
            raise BadRow(f"a rating must be thumbsUp or thumbsDown, and of an answer, not {str(rating)[:40]!r}")
        tag = feedback.get("tag")
        reasons = [tag.get("key") if isinstance(tag, dict) else tag, feedback.get("text")]
        yield NewLabel(
            [*before, *way_to(messages, said.parent)], said.text, rating == "thumbsUp", said.model,
            created_at=timestamp(row.get("createdAt")),
            rationale=": ".join(reason for reason in reasons if isinstance(reason, str) and reason.strip()),
        )  # fmt: skip
    if unrated:
        yield Left("answers without a rating", unrated)


def _librechat_messages(value: Any) -> Iterator[Record]:
    """The messages of a list; of a tree, those below each too."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if found is None:
            continue
        if not isinstance(found, (list, tuple)) or not all(isinstance(one, dict) for one in found):
            raise BadRow("messages must be a list of objects")
        for one in found:
            yield one
            waiting.append(one.get("children"))


def _librechat_text(row: Record) -> str:
    """The text of a message: its parts where an agent wrote it."""
    parts = row.get("content")
    if not isinstance(parts, (list, tuple)):
        return text_of(row, "text")
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    texts = [text.get("value") if isinstance(text, dict) else text for text in texts]
    if not texts or not all(isinstance(text, str) for text in texts):
        return text_of(row, "text")
    return "\n".join(cast(list[str], texts))


# ---- Open-Assistant's message files


def read_oasst_messages(record: Record) -> Iterator[Found]:
    """One comparison for each set of ranked replies to the same message. The rows of a tree follow each other."""
    rows = record.get("rows")
    assert isinstance(rows, list), "rows are grouped by tree"
    messages: dict[str, Said] = {}
    replies: dict[str, list[str]] = {}
    ranks: dict[str, float] = {}
    unranked = 0
    for row in rows:
        key, parent, role = text_of(row, "message_id"), name_of(row.get("parent_id")), text_of(row, "role")
        written = row.get("synthetic") is False
        model = name_of(row.get("model_name")) or ("human" if written else None)
        messages[key] = Said(ROLE_ALIASES.get(role, role), text_of(row, "text"), parent, model)
        if parent is None or messages[key].role != "assistant":
            continue
        rank = number_of(row.get("rank"))
        if rank is None or row.get("deleted"):
            unranked += 1
            continue
        replies.setdefault(parent, []).append(key)
        ranks[key] = rank
    for parent, keys in replies.items():
        if len(keys) < 2:
            unranked += 1
            continue
        yield _siblings(messages, parent, keys, [ranks[key] for key in keys])
    if unranked:
        yield Left("replies without a rank", unranked)


def _siblings(messages: Mapping[str, Said], parent: str, keys: Sequence[str], ranks: Sequence[Any]) -> NewComparison:
    turns = way_to(messages, parent)
    return NewComparison(
        turns,
        tuple(messages[key].text for key in keys),
        tuple(messages[key].model for key in keys),
        (Vote(by_rank(ranks)),),
        kind="conversation" if len(turns) > 1 else "imported",
    )


# ---- PRISM


def read_prism(record: Record) -> Iterator[Found]:
    """One comparison for each turn of a conversation: the models' answers by their scores; the chosen one goes on."""
    history: Any
    if "rows" in record:
        history = [said for row in record["rows"] for said in _as_said(row)]
        user, at = record["rows"][0].get("user_id"), None
    else:
        history, user, at = record.get("conversation_history"), record.get("user_id"), timestamp(record.get("generated_datetime"))
    if not isinstance(history, list) or not all(isinstance(one, dict) for one in history):
        raise BadRow("needs conversation_history, a list of objects")
    turns: list[Message] = []
    # CSV has numbers as text.
    numbers = [number_of(one.get("turn")) for one in history]
    if None in numbers:
        raise BadRow("each message of conversation_history must have the number of its turn")
    for number in sorted(set(cast(list[float], numbers))):
        said = [one for one, turn in zip(history, numbers, strict=True) if turn == number]
        asked = [text_of(one, "content") for one in said if one.get("role") == "user"][:1]
        answers = [one for one in said if one.get("role") == "model"]
        if not asked:
            raise BadRow(f"turn {number:g} has no message of the user")
        turns = [*turns, {"role": "user", "content": asked[0]}]
        scores = [number_of(one.get("score")) for one in answers]
        texts = tuple(text_of(one, "content") for one in answers)
        if len(answers) >= 2 and all(score is not None for score in scores):
            vote = Vote(by_rank([-score for score in scores if score is not None]), name_of(user), created_at=at)
            models = tuple(name_of(one.get("model_name")) for one in answers)
            yield NewComparison(turns, texts, models, (vote,), kind=name_of(record.get("conversation_type")) or "imported")
        elif answers:
            yield Left("answers without a rival", len(answers))
        chosen = [text for text, one in zip(texts, answers, strict=True) if str(one.get("if_chosen")).lower() in ("true", "1")] or list(
            texts[:1]
        )
        if chosen:
            turns = [*turns, {"role": "assistant", "content": chosen[0]}]


def _as_said(row: Record) -> Iterator[Record]:
    """A row of PRISM's utterances as the two messages that `conversation_history` has for it."""
    turn = row.get("turn")
    yield {"turn": turn, "role": "user", "content": row.get("user_prompt")}
    yield {
        "turn": turn, "role": "model", "content": row.get("model_response"), "model_name": row.get("model_name"),
        "score": row.get("score"), "if_chosen": row.get("if_chosen"),
    }  # fmt: skip
