"""Error messages for a browser: paths of this machine and shell commands are removed from them and go to the log instead.

Who reads a page has no shell on the server. Command-line options that stand on the page as fields are named as there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

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


COMMAND = re.compile(
    r"""`(?:rankloop|git|pip|python3?|make|apt-get) [^`\n]{1,200}`|["“]rankloop [^"”\n]{1,200}["”]"""
    r"""|\brankloop (?:[a-z][a-z-]{0,30} ){1,3}--"""
    r"""|(?:^|[\s`'"“‘(\[,])--[a-z][a-z0-9-]*"""
    r"""|\b(?:pip install|git [a-z]{1,20} --?|chmod [0-7+a-z]{1,8} |python3? (?:-m |\S{1,200}\.py))"""
)
"""Matches a shell command, or an option of one."""

_CLAUSE = re.compile(r"(?<=[.;:])\s+")

IN_THE_LOG = "What to type on the server stands in its log."


def _same(text: str) -> str:
    return text


def without_commands(text: str, as_on_the_page: Callable[[str], str] = _same) -> str:
    """Leaves out each clause with a shell command, and says at the end that there is one.

    Args:
        as_on_the_page: names options that are fields of the page by their titles, so that they are no commands any more.
    """
    named = as_on_the_page(text)
    if not COMMAND.search(named):
        return named
    kept = [clause for clause in _CLAUSE.split(named) if not COMMAND.search(clause)]
    rest = " ".join(kept).rstrip(" ,;:")
    return f"{rest}{'' if not rest or rest.endswith(('.', '!', '?')) else '.'} {IN_THE_LOG}".strip()


def without_paths(text: str) -> str:
    """Cuts each absolute path in the text down to its last part."""
    return ABSOLUTE_PATH.sub("", text) if "/" in text or "\\" in text else text


def named(error: Exception) -> str:
    """The browser message with the error's class before it, for errors whose message alone is unclear: `KeyError: 'steps'`."""
    return f"{type(error).__name__}: {browser_message(error)}"


def for_browser(text: str, as_on_the_page: Callable[[str], str] = _same) -> str:
    """The text without paths and shell commands; the full text is logged if that removes anything."""
    message = without_commands(without_paths(text), as_on_the_page)
    if message != as_on_the_page(text):
        log.warning("%s", text)
    return message


def browser_message(error: Exception, as_on_the_page: Callable[[str], str] = _same) -> str:
    """The error's message, as `for_browser` gives it."""
    return for_browser(str(error).strip() or type(error).__name__, as_on_the_page)
