"""Demonstrations: the ideal answers that annotators wrote, as training data for SFT and PPO-ptx. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf.config import ConfigError, RoundConfig
from storage.core.database import Database
from storage.core.records import Message
from storage.judging import details, judgments

DEMONSTRATIONS_FILE = "demonstrations.jsonl"


class NoDemonstrations(ConfigError):
    """A run needs more demonstrations than there are; the message says how many and what to do."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt with the ideal answer that an annotator wrote."""

    prompt: tuple[Message, ...]
    text: str


def of_store(store: Database, *, include_simulated: bool = False) -> list[Demonstration]:
    """The ideal answers of the votes that count, on training prompts, in the order of the votes."""
    with store.snapshot():
        judged = judgments.active(store, kinds=("human", "simulated") if include_simulated else ("human",), for_training=True)
        details_of = details.of_judgments(store, [j.judgment.id for j in judged])
    return [
        Demonstration(j.prompt.messages, ideal.text)
        for j in judged
        if j.prompt.split == "train" and (ideal := details_of[j.judgment.id].ideal) is not None
    ]


def wanted(config: RoundConfig) -> bool:
    """Whether a run with this configuration trains on demonstrations."""
    return config.method == "sft" or (config.method == "ppo" and config.ppo.ptx_coef > 0)


def require(demonstrations: Sequence[Demonstration], config: RoundConfig) -> None:
    """Checks that there are enough demonstrations for the run.

    Raises:
        NoDemonstrations: there are too few; the message has both numbers and the remedy."""
    if config.method == "sft" and (found := len(demonstrations)) < config.sft.min_answers:
        raise NoDemonstrations(
            f"{found} ideal answers on training prompts, need {config.sft.min_answers}: let the project ask annotators for an "
            f"ideal answer, or choose another --method{f', or pass --sft-min-answers {found}' if found else ''}"
        )
    if not demonstrations:
        raise NoDemonstrations(
            "--ppo-ptx-coef: 0 ideal answers on training prompts, need 1: let the project ask annotators for an ideal answer, "
            "or set --ppo-ptx-coef 0"
        )


def write_snapshot(demonstrations: Sequence[Demonstration], folder: Path) -> None:
    """Writes the demonstrations that a run trains on; the file appears only once it is complete."""
    part = folder / (DEMONSTRATIONS_FILE + ".part")
    part.write_text("".join(json.dumps(asdict(d), ensure_ascii=False) + "\n" for d in demonstrations), encoding="utf-8")
    part.replace(folder / DEMONSTRATIONS_FILE)


def read_snapshot(folder: Path) -> list[Demonstration]:
    # Split at `\n` alone: `splitlines` also splits at characters that an answer may contain.
    lines = (folder / DEMONSTRATIONS_FILE).read_text(encoding="utf-8").split("\n")
    return [of_row(json.loads(line)) for line in lines if line]


def of_row(row: Mapping[str, Any]) -> Demonstration:
    """The demonstration whose fields a JSON object has."""
    return Demonstration(tuple(row["prompt"]), row["text"])
