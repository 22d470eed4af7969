"""Prompts from a JSONL file: on each line `{"prompt": "..."}` or `{"messages": [...]}`, with kind and split or not.

A bad line costs only itself; the caller adds the good ones with `storage.prompts.add`.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from pathlib import Path

from storage import prompts
from storage.database import StoreError
from storage.prompts import NewPrompt


@dataclass(frozen=True, slots=True)
class RowError:
    """A line that holds no prompt, counted from 1, and why."""

    line: int
    reason: str


class _BadRow(Exception):
    pass


def read(path: Path | str) -> tuple[list[NewPrompt], list[RowError]]:
    """The prompts of a file, and the lines that could not be read. Blank lines count for nothing.

    Raises:
        StoreError: the file cannot be opened.
    """
    found: list[NewPrompt] = []
    errors: list[RowError] = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if not line.strip():
                    continue
                try:
                    found.append(_prompt(line))
                except _BadRow as error:
                    errors.append(RowError(number, str(error)))
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): check its name and permissions.") from error
    return found, errors


def _prompt(line: bytes) -> NewPrompt:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        raise _BadRow("not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise _BadRow("not JSON") from None
    if not isinstance(row, dict):
        raise _BadRow("not a JSON object")
    if ("prompt" in row) == ("messages" in row):
        raise _BadRow("needs either prompt or messages")
    if "prompt" in row and not isinstance(row["prompt"], str):
        raise _BadRow("prompt must be text; use messages for a conversation")
    messages = row["messages"] if "messages" in row else [{"role": "user", "content": row["prompt"]}]
    if reason := prompts.problem(messages):
        raise _BadRow(reason)
    kind = row.get("kind", "imported")
    if not isinstance(kind, str) or not kind.strip() or not prompts.is_storable(kind):
        raise _BadRow("kind must be a word")
    split = row.get("split")
    if split not in (None, "train", "heldout"):
        raise _BadRow(f"split must be train or heldout, not {split!r}")
    turns = tuple({"role": message["role"], "content": message["content"]} for message in messages)
    return NewPrompt(turns, kind.strip(), split)
