"""The reward model on votes by people: `python benchmarks/reward_on_people.py --pairs FILE`.

FILE holds dialogues as Anthropic published them (hh-rlhf: a `.jsonl.gz` with `chosen` and `rejected`), which end in two answers
to the same conversation. Says what the probe alone and LoRA after it make of a few hundred of them, on dialogues that nothing
was learned from. Compare rows of one run: they share the votes and the held-out pairs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from figures import machine

from rlhf import evaluation, validation, weights
from rlhf.backbone import Backbone
from rlhf.config import RewardConfig
from rlhf.pairs import PreferencePair
from rlhf.reward import ADAPTER, RewardModel, fit

HELD_OUT = 400
LONGEST = 160
"""Tokens of a conversation with its longer answer; more than half of the dialogues are longer than what a laptop's round would sample."""
WAYS = {
    "probe at 40%": RewardConfig(epochs=0),
    "probe at 40%, last token": RewardConfig(epochs=0, pooling="last"),
    "probe at 70%": RewardConfig(epochs=0, depth=0.7),
    "probe at the top": RewardConfig(epochs=0, depth=1.0),
    "LoRA after the probe at 40%, one pass": RewardConfig(epochs=1),
    "LoRA after the probe at 40%, three passes": RewardConfig(epochs=3),
}


def dialogues(file: Path) -> Iterator[PreferencePair]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            chosen, rejected = (turns(json.loads(line)[side]) for side in ("chosen", "rejected"))
            # Some pairs part before their last answer, or end with the human: those are no comparison of two answers.
            if chosen[:-1] == rejected[:-1] and chosen[-1]["role"] == "assistant" == rejected[-1]["role"]:
                texts = chosen[-1]["content"], rejected[-1]["content"]
                if all(texts) and texts[0] != texts[1]:
                    yield PreferencePair(tuple(chosen[:-1]), *texts, 1.0, "train", "human", number)


def turns(text: str) -> list[dict[str, str]]:
    parts = re.split(r"\n\n(Human|Assistant): ?", text)[1:]
    return [
        {"role": "user" if who == "Human" else "assistant", "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def margins(backbone: Backbone, model: RewardModel, pairs: Sequence[PreferencePair]) -> np.ndarray:
    rows = [model.row(backbone.encode(p.prompt), backbone.encode_answer(text)) for p in pairs for text in (p.chosen, p.rejected)]
    scores = model.members(rows)[0].double().numpy()
    return scores[::2] - scores[1::2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="a file of hh-rlhf's dialogues")
    parser.add_argument("--budgets", type=int, nargs="+", default=[300, 600], help="pairs learned from")
    asked = parser.parse_args()
    print(machine())
    backbone = Backbone.load(weights.resolve("default"))
    every = [
        p for p in dialogues(asked.pairs)
        if len(backbone.encode(p.prompt)) + max(len(backbone.encode_answer(t)) for t in (p.chosen, p.rejected)) < LONGEST
    ]  # fmt: skip
    random.Random(0).shuffle(every)
    heldout, learned = every[:HELD_OUT], every[HELD_OUT:]
    print(f"{len(every)} dialogues below {LONGEST} tokens; {len(heldout)} held out")
    length = np.array([len(p.chosen) - len(p.rejected) for p in heldout])
    print(f"the longer answer was chosen in {np.mean(validation.credit(length)):.1%}")
    print(f"{'pairs':>5}  {'way':42} {'held-out accuracy, %':24} {'over the probe at 40%':24} {'ECE':>6} {'seconds':>8}")
    for budget in asked.budgets:
        if budget > len(learned):
            sys.exit(f"only {len(learned)} dialogues are left to learn from: ask for fewer than {budget}")
        first = None
        for name, config in WAYS.items():
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as scratch:
                model = fit(backbone, learned[:budget], config, seed=0, scratch=Path(scratch), report=lambda *_: None)
            took = time.monotonic() - started
            margin = margins(backbone, model, heldout)
            backbone.delete_adapter(ADAPTER)
            right = validation.credit(margin)
            first = right if first is None else first
            print(
                f"{budget:5}  {name:42} {percent(right):24} {percent(right - first):24} {validation.calibration(margin, seed=0).ece:6.3f}"
                f" {took:8.0f}",
                flush=True,
            )


def percent(values: np.ndarray) -> str:
    """With its interval; every dialogue is a prompt of its own."""
    estimate = evaluation.mean_by_prompt({i: [value] for i, value in enumerate(values.tolist())})
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


if __name__ == "__main__":
    main()
