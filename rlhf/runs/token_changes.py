"""What tuning changed in the shown answers of a run, token by token: a file in the run's folder, which the Demo page reads. No torch.

For each token, the log-probability under the tuned policy minus that under the base, given the same text before it, in nats. The evaluate
stage computes it (`rlhf.stages.token_changes`), so that no model has to run when somebody looks.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from rlhf.runs import typed_json
from rlhf.safe_files import ModelError, check_file, read_json

log = logging.getLogger(__name__)

TOKEN_CHANGES_FILE = "token_changes.json"

MAX_FILE_BYTES = 8 << 20
"""Bytes of a file that is read: a few hundred answers."""


@dataclass(frozen=True, slots=True)
class TokenChange:
    """One token of an answer. Tokens that are one character together are one entry, with the sum of their log-ratios."""

    text: str
    """Empty for the token that ends the answer."""
    log_ratio: float


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """One answer with the log-ratio of each token."""

    tokens: list[TokenChange] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The answer, without space around it, as the store has it."""
        return "".join(token.text for token in self.tokens).strip()

    @property
    def per_token(self) -> float:
        """The mean absolute log-ratio, in nats; 0 for an answer without tokens."""
        return sum(abs(token.log_ratio) for token in self.tokens) / len(self.tokens) if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class SampleChange:
    """The answers to one held-out prompt: the base's and the tuned policy's."""

    prompt_id: int
    before: AnswerChange
    after: AnswerChange


@dataclass(frozen=True, slots=True)
class TokenChanges:
    """The whole file."""

    temperature: float
    """The sampling temperature, which divides the logits of both."""
    samples: list[SampleChange] = field(default_factory=list)


def write(run_dir: Path, changes: TokenChanges) -> None:
    """Writes the file; it appears once it is complete."""
    part = run_dir / f"{TOKEN_CHANGES_FILE}.part"
    part.write_text(json.dumps(typed_json.to_json(changes), ensure_ascii=False), encoding="utf-8")
    part.replace(run_dir / TOKEN_CHANGES_FILE)


def read(run_dir: Path) -> TokenChanges | None:
    """The file of a run; None if it has none, or one that no round wrote, which the log names."""
    file = run_dir / TOKEN_CHANGES_FILE
    try:
        if not file.is_file():
            return None
        check_file(file, run_dir)
        return typed_json.from_json(TokenChanges, read_json(file, MAX_FILE_BYTES))
    except (ModelError, OSError, ValueError) as error:
        log.warning("%s is not read: %s", file, error)
        return None
