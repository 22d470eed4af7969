"""Error messages for a browser: absolute paths of this machine are removed from them and go to the log instead."""

from __future__ import annotations

import logging
import re

log = logging.getLogger(__name__)

_IN_A_FOLDER = r"""(?:(?![,;.]\s|\s[/\\])[^:\n'"`<>|])*"""
"""Folder names may contain spaces; a match ends at punctuation, or where the next path begins."""

ABSOLUTE_PATH = re.compile(
    r"""(?:^|(?<=[\s'"`(\[{<=:,;|])|(?<=file://))"""
    rf"""(?:/(?!/){_IN_A_FOLDER}/|[A-Za-z]:[\\/](?:{_IN_A_FOLDER}[\\/])?|\\\\{_IN_A_FOLDER}\\)"""
    r"""(?=[^/\\\s:'"`<>|])""",
    re.MULTILINE,
)
"""Matches the folders of an absolute POSIX or Windows path. Ordinary text with a slash may lose some words, because the pattern rather
removes too much than too little."""


def without_paths(text: str) -> str:
    """Cuts each absolute path in the text down to its last part."""
    return ABSOLUTE_PATH.sub("", text) if "/" in text or "\\" in text else text


def named(error: Exception) -> str:
    """The browser message with the error's class before it, for errors whose message alone is unclear: `KeyError: 'steps'`."""
    return f"{type(error).__name__}: {browser_message(error)}"


def browser_message(error: Exception) -> str:
    """The error's message without paths. If that removes anything, the full message is logged."""
    full = str(error).strip() or type(error).__name__
    message = without_paths(full)
    if message != full:
        log.warning("%s", full)
    return message
