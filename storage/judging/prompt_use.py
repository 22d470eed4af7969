"""Retires prompts, brings them back, replaces them by edited ones, and sets whether the starter prompts are in use, on a lead's decision.

`storage.content.prompts` says which prompts are in use. Other prompts get no new comparisons, and their waiting ones are not
shown; their judgments stay. Only votes on starter prompts that are not in use are also left out of training and of statistics.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Literal

from storage.content import prompts
from storage.core.database import Database, StoreError, now, to_json
from storage.core.records import Message, Prompt
from storage.judging import queue
from storage.project import settings


def retire(store: Database, prompt_ids: Collection[int], by: int | None = None) -> int:
    """Takes prompts out of use, and returns how many of them were not retired before. `by` is who did it, for the audit.

    Raises:
        StoreError: there is no prompt with one of the ids; nothing was changed.
    """
    return _set_retired(store, prompt_ids, True, by)


def restore(store: Database, prompt_ids: Collection[int], by: int | None = None) -> int:
    """Brings retired prompts back, and returns how many there were among these. Their waiting comparisons are shown again.

    Raises:
        StoreError: there is no prompt with one of the ids; nothing was changed.
    """
    with store.atomic():
        restored = _set_retired(store, prompt_ids, False, by)
        queue.requeue(store, prompt_ids)
        return restored


def edit(store: Database, prompt_id: int, text: str, by: int | None = None) -> Prompt:
    """Replaces a prompt by a new one whose last turn has this text, and returns the new one.

    The old one is retired and its judgments stay with it. The new one has its kind, its split, so that nothing that measured ever teaches,
    and its import.

    Raises:
        StoreError: there is no such prompt, the text is empty or too long, or a prompt with this text is there already.
    """
    max_chars = settings.current(store).text_max_chars
    with store.atomic():
        before = prompts.get(store, prompt_id)
        if store.value("SELECT 1 FROM prompts WHERE id = ? AND import_id IN unfinished_imports", [prompt_id]):
            raise StoreError(f"Prompt {prompt_id} is being imported: change it when the import is done.")
        messages = (*before.messages[:-1], Message(role=before.messages[-1]["role"], content=text))
        if reason := prompts.problem(messages):
            raise StoreError(f"The prompt was not changed: {reason}.")
        if len(text) > max_chars:
            raise StoreError(f"The prompt was not changed: its text has {len(text):,} characters, and {max_chars:,} are allowed.")
        for there in prompts.stored(store, [prompts.digest(messages)]):
            remedy = ": change it" if there["id"] == prompt_id else ": bring it back" if there["retired"] else ""
            raise StoreError(f"The prompt was not changed: prompt {there['id']} has this text already{remedy}.")
        new_id = prompts.add_version(store, prompt_id, messages)
        store.insert("prompt_edits", {"prompt_id": new_id, "from_id": prompt_id, "by_id": by, "created_at": now()})
        _set_retired(store, [prompt_id], True, by)
        return prompts.get(store, new_id)


def use_starters(store: Database, choice: Literal["auto", "on", "off"], by: int | None = None) -> prompts.Starters:
    """Sets whether the starter prompts are in use: `on`, `off`, or `auto`, while the store has no others. Returns their new state.

    Raises:
        StoreError: there is no such choice.
    """
    with store.atomic():
        were_in_use = prompts.starters(store).in_use
        settings.change(store, replace(settings.current(store), starters=choice), by)
        now = prompts.starters(store)
        if now.in_use and not were_in_use:
            queue.requeue(store, _ids(store, "SELECT id FROM prompts WHERE starter = 1"))
        return now


def _set_retired(store: Database, prompt_ids: Iterable[int], retired: bool, by: int | None) -> int:
    wanted = sorted(set(prompt_ids))
    with store.atomic() as connection:
        there = set(_ids(store, "SELECT id FROM prompts WHERE id IN (SELECT value FROM json_each(?))", to_json(wanted)))
        if missing := [prompt_id for prompt_id in wanted if prompt_id not in there]:
            raise StoreError(
                f"There is no prompt {', '.join(map(str, missing))}: `rankloop prompts` lists those there are. Nothing was changed."
            )
        changed = _ids(
            store, "SELECT id FROM prompts WHERE retired != ? AND id IN (SELECT value FROM json_each(?))", int(retired), to_json(wanted)
        )
        connection.conn.execute(
            "UPDATE prompts SET retired = ? WHERE id IN (SELECT value FROM json_each(?))", [int(retired), to_json(changed)]
        )
        act, at = ("retired" if retired else "restored"), now()
        store.insert_rows("prompt_events", ("prompt_id", "act", "by_id", "created_at"), [(id, act, by, at) for id in changed])
        return len(changed)


def _ids(store: Database, sql: str, *parameters: str | int) -> list[int]:
    return [row[0] for row in store.rows(sql, parameters)]
