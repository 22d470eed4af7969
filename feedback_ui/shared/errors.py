"""What a browser is told of an error: its message without the paths of this machine, which go to the log."""

from __future__ import annotations

import logging
import re

log = logging.getLogger(__name__)

_IN_A_FOLDER = r"""(?:(?![,;.]\s|\s[/\\])[^:\n'"`<>|])*"""
"""Folders' names may have spaces; a phrase ends at punctuation, and where the next path begins."""

ABSOLUTE_PATH = re.compile(
    r"""(?:^|(?<=[\s'"`(\[{<=:,;|])|(?<=file://))"""
    rf"""(?:/(?!/){_IN_A_FOLDER}/|[A-Za-z]:[\\/](?:{_IN_A_FOLDER}[\\/])?|\\\\{_IN_A_FOLDER}\\)"""
    r"""(?=[^/\\\s:'"`<>|])""",
    re.MULTILINE,
)
"""The folders of an absolute path, of POSIX or Windows. A phrase with a slash of its own may lose some words: too little is told
rather than too much."""


def without_paths(text: str) -> str:
    """The text with each absolute path cut down to its last part."""
    return ABSOLUTE_PATH.sub("", text) if "/" in text or "\\" in text else text


def named(error: Exception) -> str:
    """The same with the kind of the error, for one whose message says little by itself: `KeyError: 'steps'`."""
    return f"{type(error).__name__}: {browser_message(error)}"


def browser_message(error: Exception) -> str:
    """The error's message for a browser. If something is left out, the whole of it is logged."""
    full = str(error).strip() or type(error).__name__
    told = without_paths(full)
    if told != full:
        log.warning("%s", full)
    return told
