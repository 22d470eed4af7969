"""A worker's log as a person reads it: without progress bars and without the warnings that libraries write about themselves. No torch."""

from __future__ import annotations

import re

PROGRESS_BAR = re.compile(
    r"\d+%\s*\|.*\||\b\d+(\.\d+)?(it|s|example|examples|ex|row|rows|tok)/(s|it)\b|^\s*(Loading|Fetching|Materializing) [\w ]+: *\d"
)
"""A line of tqdm, whatever it counts."""

ABOUT_LIBRARIES = re.compile(
    r"\b(\w*Warning): |^\s*warnings\.warn\(|`\w+` is deprecated|\bis deprecated\b|^\[transformers\]|^Some weights of |"
    r"^You should probably TRAIN|^The (attention mask|following generation flags)|^Setting `pad_token_id`|^huggingface/tokenizers|"
    r"^Disabling parallelism|^To disable this warning|^\s+- (Avoid using|Explicitly set)|^[IWE]\d{4} |^\[[WI]\d"
)
"""What libraries say about their own use: deprecations, defaults that they chose, weights that a head does not need."""

ERASED = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What moves a terminal's cursor or colours it."""


def readable(text: str) -> str:
    """The log's own lines. A traceback is kept whole: it is why somebody reads the log."""
    kept: list[str] = []
    in_traceback = skipping_source = False
    for whole in text.splitlines():
        # A bar is drawn over itself: what counts is what stands there last.
        line = ERASED.sub("", whole.rsplit("\r", 1)[-1]).rstrip()
        if line.startswith("Traceback "):
            in_traceback = True
        elif in_traceback and line and not line.startswith(" "):
            in_traceback = False
            kept.append(line)
            continue
        if in_traceback:
            kept.append(line)
            continue
        if skipping_source and line.startswith("  "):
            # The line of source that a warning quotes.
            skipping_source = False
            continue
        skipping_source = bool(re.search(r"\w*Warning: ", line))
        if line and not PROGRESS_BAR.search(line) and not ABOUT_LIBRARIES.search(line):
            kept.append(line)
    return "\n".join(kept)
