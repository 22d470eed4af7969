"""The reward model on votes by people: `python benchmarks/reward_on_people.py --pairs FILE`.

FILE holds dialogues as Anthropic published them (hh-rlhf: a `.jsonl.gz` with `chosen` and `rejected`), which end in two answers
to the same conversation. Compares by cross-validation over all of them the layer that a probe should use, and then the
probe with LoRA fine-tuning at a few hundred pairs, on held-out dialogues. Rows of one part share the votes.
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
import torch
from figures import machine
from reward_model import of_all_layers

from rlhf import evaluation, model_files
from rlhf.analysis import validation
from rlhf.config import RewardConfig
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.reward.model import RewardModel, fit
from rlhf.reward.probe import fit_probe

HELD_OUT = 400
LAYERS = (1, 3, 6, 9, 12, 15, 18, 21, 24, 27, 29, 30)
FOLDS, REPEATS = 5, 4
MAX_TOKENS = 160
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


def by_layer(backbone: Backbone, pairs: Sequence[PreferencePair]) -> None:
    """Cross-validated accuracy of probes, by layer."""
    reader = RewardModel(backbone, RewardConfig(), seed=0)
    rows = [reader.row(backbone.encode(p.prompt), backbone.encode_answer(text)) for p in pairs for text in (p.chosen, p.rejected)]
    features = of_all_layers(backbone, reader, rows, LAYERS)
    folds = [np.random.default_rng(seed).permutation(len(pairs)) % FOLDS for seed in range(REPEATS)]

    def credit(name: str) -> np.ndarray:
        """Mean credit of each dialogue over the repeats."""
        chosen, rejected = features[name][::2], features[name][1::2]
        right = np.zeros(len(pairs))
        for fold in folds:
            for held in range(FOLDS):
                learned, measured = (torch.from_numpy(rows) for rows in (fold != held, fold == held))
                weight = fit_probe(chosen[learned], rejected[learned], l2=RewardConfig().probe_l2)
                right[fold == held] += validation.credit(((chosen - rejected)[measured] @ weight).numpy())
        return right / REPEATS

    first = credit("mean-12")
    print(f"{'layer':>5}  {'mean over the answer, %':24} {'over layer 12':24} {'last token, %':24} {'over the mean at 12':24}")
    for layer in LAYERS:
        mean, last = credit(f"mean-{layer}"), credit(f"last-{layer}")
        print(f"{layer:5}  {percent(mean):24} {percent(mean - first):24} {percent(last):24} {percent(last - first):24}", flush=True)


def margins(backbone: Backbone, model: RewardModel, pairs: Sequence[PreferencePair]) -> np.ndarray:
    rows = [model.row(backbone.encode(p.prompt), backbone.encode_answer(text)) for p in pairs for text in (p.chosen, p.rejected)]
    scores = model.members(rows)[0].double().numpy()
    return scores[::2] - scores[1::2]


def by_way(backbone: Backbone, every: Sequence[PreferencePair], budgets: Sequence[int]) -> None:
    """Held-out accuracy of each variant at each budget of pairs."""
    heldout, learned_from = every[:HELD_OUT], every[HELD_OUT:]
    print(f"{len(heldout)} held out")
    length = np.array([len(p.chosen) - len(p.rejected) for p in heldout])
    print(f"the longer answer was chosen in {np.mean(validation.credit(length)):.1%}")
    print(f"{'pairs':>5}  {'way':42} {'held-out accuracy, %':24} {'over the probe at 40%':24} {'ECE':>6} {'seconds':>8}")
    for budget in budgets:
        if budget > len(learned_from):
            sys.exit(f"only {len(learned_from)} dialogues are left for training: ask for fewer than {budget}")
        first = None
        for name, config in WAYS.items():
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as scratch:
                model = fit(backbone, learned_from[:budget], config, seed=0, scratch=Path(scratch), report=lambda *_: None)
            took = time.monotonic() - started
            margin = margins(backbone, model, heldout)
            if model.adapter:
                backbone.delete_adapter(model.adapter)
            right = validation.credit(margin)
            first = right if first is None else first
            print(
                f"{budget:5}  {name:42} {percent(right):24} {percent(right - first):24} {validation.calibration(margin, seed=0).ece:6.3f}"
                f" {took:8.0f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="a file of hh-rlhf's dialogues")
    parser.add_argument("--only", choices=("layers", "ways"), help="one part alone")
    parser.add_argument("--budgets", type=int, nargs="+", default=[300, 600], help="pairs learned from")
    args = parser.parse_args()
    print(machine())
    backbone = Backbone.load(model_files.resolve("default"))
    every = [
        p for p in dialogues(args.pairs)
        if len(backbone.encode(p.prompt)) + max(len(backbone.encode_answer(t)) for t in (p.chosen, p.rejected)) < MAX_TOKENS
    ]  # fmt: skip
    random.Random(0).shuffle(every)
    print(f"{len(every)} dialogues below {MAX_TOKENS} tokens")
    if args.only in (None, "layers"):
        by_layer(backbone, every)
    if args.only in (None, "ways"):
        by_way(backbone, every, args.budgets)


def percent(values: np.ndarray) -> str:
    """With its interval; every dialogue is a prompt of its own."""
    estimate = evaluation.mean_by_prompt({i: [value] for i, value in enumerate(values.tolist())})
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


if __name__ == "__main__":
    main()
