"""Votes needed where the next comparison is chosen: `python benchmarks/active_selection.py --data FOLDER`.

Answers of the packaged model and their features come from FOLDER (`reward_model.py` and `annotator_reliability.py` write the same ones).
Three rules that differ in kind judge, one vote in five is turned round, and the laptop preset's probe learns. Comparisons are asked 60 at a
time: at random, by the disagreement of three heads, or by expected information (`rlhf.data.selection`), each choosing which two of four
answers of a prompt to show. Prints the tables of docs/research/active-selection.md.
"""

from __future__ import annotations

import argparse
import sys
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from jaxtyping import Float, Int

from benchmarks.annotator_reliability import LAYER, PLAN, prepared
from benchmarks.figures import machine, verdict
from benchmarks.reward_model import Clock, Study
from rlhf.analysis import validation
from rlhf.data.selection import Knowledge, Rule, choose, information_of
from rlhf.reward.probe import fit_probe
from rlhf.simulation.judges import LabelRule

JUDGES = {
    "sentiment": LabelRule("sentiment"),
    "concise": LabelRule("concise"),
    "lexical (you, your)": LabelRule("lexical", ("you", "your", "yours")),
}
RULES: tuple[Rule, ...] = ("random", "disagreement", "information")
LABEL_NOISE = 0.2
VOTES, AT_ONCE, DRAWN, HEADS = 600, 60, 4, 3
L2 = 1.0
GOAL = 0.6


class Pool(NamedTuple):
    """The pairs of answers to one prompt that a judge prefers one of, the better one first."""

    train: Int[np.ndarray, "n 2"]
    heldout: Int[np.ndarray, "m 2"]


def pool_of(study: Study, judge: LabelRule) -> Pool:
    scores = np.array([judge.score(answer.text) for answer in study.answers])
    prompt = np.array([answer.prompt for answer in study.answers])
    sides: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for number in np.unique(prompt):
        for i, j in combinations(np.flatnonzero(prompt == number), 2):
            if scores[i] != scores[j]:
                sides[int(number >= PLAN.train_prompts)].append((i, j) if scores[i] > scores[j] else (j, i))
    return Pool(*map(np.array, sides))


def learned(features: torch.Tensor, votes: Int[np.ndarray, "n 2"], weights: Float[np.ndarray, " n"] | None = None) -> np.ndarray:
    told = None if weights is None else torch.tensor(weights, dtype=torch.float32)
    return fit_probe(features[votes[:, 0]], features[votes[:, 1]], l2=L2, weights=told).numpy()


def curve(study: Study, pool: Pool, rule: Rule, seed: int) -> list[float]:
    """Accuracy on the held-out pairs after every `AT_ONCE` votes."""
    rng = np.random.default_rng(seed)
    features = study.features("mean", LAYER)
    scale = features.std(0).numpy()
    standard = (features / features.std(0)).numpy()
    difference = standard[pool.train[:, 0]] - standard[pool.train[:, 1]]
    prompt_of_answer = np.array([answer.prompt for answer in study.answers])
    prompt = prompt_of_answer[pool.train[:, 0]]
    cast = np.where((rng.random(len(prompt)) < LABEL_NOISE)[:, None], pool.train[:, ::-1], pool.train)
    asked: list[int] = []
    knowledge, found = None, []
    while len(asked) < VOTES:
        shown = np.zeros(len(prompt_of_answer), dtype=bool)
        for number in np.unique(prompt):
            mine = np.flatnonzero(prompt_of_answer == number)
            shown[rng.choice(mine, min(DRAWN, len(mine)), replace=False)] = True
        # Prompts that were asked least come first, whatever the rule.
        times = np.bincount(prompt[asked], minlength=prompt.max() + 1)
        waiting = np.flatnonzero(shown[pool.train].all(axis=1) & ~np.isin(np.arange(len(prompt)), asked))
        if rule == "random":
            waiting = waiting[times[prompt[waiting]] <= np.sort(times[np.unique(prompt[waiting])])[AT_ONCE - 1]]
        chosen = choose(difference[waiting], prompt[waiting], AT_ONCE, rng, rule=rule, knowledge=knowledge)
        asked += waiting[[choice.candidate for choice in chosen]].tolist()
        votes = cast[asked]
        head = learned(features, votes)
        scores = (features @ torch.from_numpy(head)).numpy()
        found.append(float(validation.credit(scores[pool.heldout[:, 0]] - scores[pool.heldout[:, 1]]).mean()))
        if rule == "information":
            knowledge = Knowledge((head * scale)[None], information_of(difference[asked], head * scale, l2=L2))
        elif rule == "disagreement":
            knowledge = Knowledge(heads(features, votes, prompt[asked], rng) * scale, np.eye(1))
    return found


def heads(features: torch.Tensor, votes: Int[np.ndarray, "n 2"], prompt: Int[np.ndarray, " n"], rng: np.random.Generator) -> np.ndarray:
    """Probes on bootstraps of the prompts."""
    numbers, row = np.unique(prompt, return_inverse=True)
    samples = (np.bincount(rng.integers(len(numbers), size=len(numbers)), minlength=len(numbers))[row] for _ in range(HEADS))
    return np.stack([learned(features, votes, sample.astype(float)) for sample in samples])


def smoothed(means: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """The mean of three points each: five seeds leave a point of noise in one."""
    curve_of_means: Float[np.ndarray, " k"] = np.convolve(np.pad(means, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
    return curve_of_means


def votes_needed(means: Float[np.ndarray, " k"], goal: float) -> float:
    """Votes from which the smoothed curve stays at the goal or above; infinite where it does not."""
    below = np.flatnonzero(smoothed(means) < goal)
    at = int(below[-1]) + 1 if len(below) else 0
    return AT_ONCE * (at + 1) if at < len(means) else np.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the study")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--as-it-is", action="store_true", help="use the answers that are stored, and write no others")
    parser.add_argument("--judges", nargs="+", choices=JUDGES, default=list(JUDGES), help="these judges alone")
    arguments = parser.parse_args()
    study = Study(arguments.data, PLAN, Clock(None)) if arguments.as_it_is else prepared(arguments.data)
    print(f"{machine()}; {len(study.answers):,} answers, {arguments.seeds} seeds\n")
    points = (120, 240, 360, 480, 600)
    print(f"| judge | rule | {' | '.join(f'{n} votes' for n in points)} | votes for random's accuracy at {VOTES} |")
    print(f"|{' --- |' * (3 + len(points))}")
    shares = []
    for name in arguments.judges:
        pool = pool_of(study, JUDGES[name])
        goal = 0.0
        for rule in RULES:
            curves = np.array([curve(study, pool, rule, seed) for seed in range(arguments.seeds)])
            means = curves.mean(axis=0)
            goal = float(smoothed(means)[-1]) if rule == "random" else goal
            needed = votes_needed(means, goal)
            cells = " | ".join(f"{means[n // AT_ONCE - 1]:.1%}" for n in points)
            print(f"| {name} | {rule} | {cells} | {f'{needed:.0f}' if np.isfinite(needed) else f'over {VOTES}'} |", flush=True)
            if rule == "information":
                shares.append(needed / VOTES)
    print(f"\ninformation needs at most {GOAL:.0%} of random's votes for each judge: {verdict(max(shares) <= GOAL)}")


if __name__ == "__main__":
    main()
