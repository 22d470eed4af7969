"""Error rate and power of the sequential test: `python benchmarks/sequential_test.py`.

Simulated comparisons of a new version with the current one, looked at after each. Prints the tables of docs/research/sequential-test.md:
the share of wrong promotions where there is no difference, the same where the caller breaks the assumptions, and the comparisons
needed where there is one. A few seconds.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from jaxtyping import Float

from benchmarks.figures import verdict
from rlhf.analysis.sequential_test import log_wealth

ALPHA, MOST = 0.05, 200
PROMPTS = 100
TASTES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
"""Win rates of the new version under five annotators; their mean is 1/2."""
VOTES = 3
STRETCH = 20
"""Units in a row by one annotator, where annotators take turns."""

Runs = Float[np.ndarray, "runs units"]
World = Callable[[np.random.Generator, int, int], Runs]
"""(random numbers, runs, units) -> the outcomes."""


def coin(rng: np.random.Generator, runs: int, units: int, *, win_rate: float = 0.5, ties: float = 0.0) -> Runs:
    decided = (rng.random((runs, units)) < win_rate).astype(float)
    return np.where(rng.random((runs, units)) < ties, 0.5, decided)


def prompt_win_rates(rng: np.random.Generator, runs: int, prompts: int) -> Float[np.ndarray, "runs prompts"]:
    """The new version wins mostly or hardly ever, depending on the prompt; the mean over the prompts is exactly 1/2."""
    half = rng.beta(0.5, 0.5, (runs, prompts // 2))
    return rng.permuted(np.concatenate([half, 1 - half], axis=1), axis=1)


def drawn_win_rates(rng: np.random.Generator, runs: int, units: int) -> Runs:
    return np.take_along_axis(prompt_win_rates(rng, runs, PROMPTS), rng.integers(PROMPTS, size=(runs, units)), axis=1)


def prompts_with_replacement(rng: np.random.Generator, runs: int, units: int) -> Runs:
    return (rng.random((runs, units)) < drawn_win_rates(rng, runs, units)).astype(float)


def prompts_once(rng: np.random.Generator, runs: int, units: int) -> Runs:
    return (rng.random((runs, units)) < prompt_win_rates(rng, runs, units)).astype(float)


def annotators(rng: np.random.Generator, runs: int, units: int) -> Runs:
    return (rng.random((runs, units)) < rng.choice(TASTES, (runs, units))).astype(float)


def averaged_votes(rng: np.random.Generator, runs: int, units: int) -> Runs:
    rates = drawn_win_rates(rng, runs, units)
    return np.mean([rng.random((runs, units)) < rates for _ in range(VOTES)], axis=0)


def one_vote_of_each(rng: np.random.Generator, runs: int, units: int) -> Runs:
    return (rng.random((runs, units, len(TASTES))) < TASTES).mean(axis=-1)


def single_votes_of_a_prompt(rng: np.random.Generator, runs: int, units: int) -> Runs:
    rates = np.repeat(drawn_win_rates(rng, runs, math.ceil(units / VOTES)), VOTES, axis=1)[:, :units]
    return (rng.random((runs, units)) < rates).astype(float)


def annotators_in_turn(rng: np.random.Generator, runs: int, units: int) -> Runs:
    order = rng.permuted(np.tile(TASTES, (runs, 1)), axis=1)
    return (rng.random((runs, units)) < order[:, np.arange(units) // STRETCH % len(TASTES)]).astype(float)


WORLDS: dict[str, World] = {
    "a fair coin": coin,
    "30% ties": lambda rng, runs, units: coin(rng, runs, units, ties=0.3),
    f"{PROMPTS} prompts that differ, drawn with replacement": prompts_with_replacement,
    f"{MOST} prompts that differ, each once": prompts_once,
    f"{len(TASTES)} annotators who differ, in random order": annotators,
    f"prompts that differ, {VOTES} votes averaged in each unit": averaged_votes,
    f"{len(TASTES)} annotators who differ, one vote of each averaged in each unit": one_vote_of_each,
}
BROKEN: dict[str, World] = {
    f"prompts that differ, {VOTES} votes on each as {VOTES} units": single_votes_of_a_prompt,
    f"{len(TASTES)} annotators who differ, {STRETCH} units of each in a row": annotators_in_turn,
}
"""Worlds in which outcomes before an outcome foretell it, though there is no difference over all prompts and annotators."""


def first_promotion(x: Runs, most: int) -> Float[np.ndarray, " runs"]:
    """The unit after which each run promotes; infinite where it rejects first or never promotes."""
    firsts = []
    for side in (x, 1 - x):
        reached = log_wealth(side, alpha=ALPHA, most=most) >= -math.log(ALPHA)
        firsts.append(np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf))
    better, worse = firsts
    return np.where(better < worse, better, np.inf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    runs = parser.parse_args().runs
    rng = np.random.default_rng(0)
    print(f"No difference, {runs:,} runs each, a look after every unit up to {MOST}, alpha {ALPHA:.0%}\n")
    print("| units | wrong promotions |\n| --- | --- |")
    rates = {name: np.isfinite(first_promotion(world(rng, runs, MOST), MOST)).mean() for name, world in (WORLDS | BROKEN).items()}
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1%} |")
    print(f"\nat most {ALPHA:.0%} in each world that keeps the assumptions: {verdict(max(rates[name] for name in WORLDS) <= ALPHA)}")

    print("\n| true win rate | promoted within 200 | median comparisons | the same, 30% ties | promoted within 800 | median comparisons |")
    print("| --- | --- | --- | --- | --- | --- |")
    for win_rate in (0.55, 0.6, 0.65, 0.7, 0.8):
        cells = []
        for most, ties in ((MOST, 0.0), (MOST, 0.3), (4 * MOST, 0.0)):
            # With ties, the win rate is that of the votes that prefer one.
            when = first_promotion(coin(rng, runs // 4, most, win_rate=win_rate, ties=ties), most)
            median = np.median(when)
            cells.append((f"{np.isfinite(when).mean():.0%}", f"{median:.0f}" if math.isfinite(median) else f"over {most}"))
        (share, median), (tied_share, tied_median), (long_share, long_median) = cells
        print(f"| {win_rate:.0%} | {share} | {median} | {tied_share}, {tied_median} | {long_share} | {long_median} |")


if __name__ == "__main__":
    main()
