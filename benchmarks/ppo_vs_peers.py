"""The same PPO step on this project's engine and on TRL 1.12.0, the last that had PPO, alternating in one run.

    python3 -m venv /tmp/trl && /tmp/trl/bin/pip install torch==2.13.0 trl==1.12.0 transformers==5.23.* peft==0.21.2
    python benchmarks/ppo_vs_peers.py --trl /tmp/trl/bin/python

On a machine with a GPU, random weights of the 1.5B shape, both sides in bfloat16:

    python benchmarks/ppo_vs_peers.py --trl /tmp/trl/bin/python --device cuda --shape 1.5b --prompt-tokens 256 --response-tokens 256

Every run is a process of its own, so that its peak memory is its own. Prints seconds by phase, tokens a second, memory,
their ratios, and the share of the machine's matrix-product rate that each phase reaches. `--only` runs one part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

import ppo_work as work
from figures import machine, verdict

from rlhf import model_files
from rlhf.runs.environment import engine_environment

HERE = Path(__file__).parent
PHASES = ("rollout", "scoring", "update")
PUBLISHED = {"TRL 1.12": (0.79, 1.56, 9.0), "trlX": (0.82, 1.45, 4.8)}
"""Published results of the vowel task on two cores: mean score at the start and the end, seconds per step."""


def run(python: str, script: str, *arguments: object, own: bool = True) -> dict:
    """The figures that one process prints; with `own`, the process has the allocator settings of this project's workers."""
    command = [python, str(HERE / script), *map(str, arguments)]
    print("  ", *command[1:], flush=True)
    environment = engine_environment() if own and python == sys.executable else None
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith(work.MARK)]
    if done.returncode or not lines:
        sys.exit(f"{script} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    result = json.loads(lines[-1].removeprefix(work.MARK))
    print("     ", {name: round(value, 2) for name, value in result.items() if isinstance(value, float)}, flush=True)
    return result


def steps(load: work.Workload, trl: str, rounds: int, model: str, top_layers: int, rate: float) -> None:
    """One PPO step with adapters everywhere and with adapters at the top, on both sides, in turns.

    At the top, the reward model's adapter is in the same layers as the policy's; it is measured in all layers too, as TRL's
    reward model uses all.
    """
    of: dict[tuple[str, int, int], list[dict]] = {}

    def ours(layers: int, reward_layers: int) -> None:
        arguments = ("--top-layers", layers, "--reward-layers", reward_layers, *load.arguments())
        result = run(sys.executable, "ppo_rankloop.py", "step", *arguments)
        of.setdefault(("rankloop", layers, reward_layers), []).append(result)

    def theirs(layers: int) -> None:
        result = run(trl, "ppo_trl.py", "step", "--model", model, "--top-layers", layers, *load.arguments())
        of.setdefault(("TRL 1.12", layers, 0), []).append(result)

    for _ in range(rounds):
        ours(0, 0)
        theirs(0)
        ours(0, 0)
        ours(top_layers, top_layers)
        ours(top_layers, 0)
        theirs(top_layers)
        ours(top_layers, 0)
        ours(top_layers, top_layers)

    def average(row: tuple[str, int, int], name: str) -> float:
        return mean(result[name] for result in of[row])

    print(
        f"\nOne PPO step, {load.shape} on {load.device}: {load.prompts} prompts of {load.prompt_tokens} tokens, "
        f"{load.response_tokens} new, {load.epochs} epochs\n"
        f"{'':9} {'adapters':30} {'rollout':>9} {'scoring':>9} {'update':>9} {'step':>9} {'new tok/s':>10} {'peak':>9}"
    )
    for row in of:
        seconds = {name: average(row, name) for name in (*PHASES, "step")}
        print(
            f"{row[0]:9} {place(row):30}"
            + "".join(f"{spent:8.1f} s" for spent in seconds.values())
            + f" {load.new_tokens / seconds['rollout']:10.0f} {average(row, 'peak_gib'):5.2f} GiB"
        )
    for row in of:
        if row[0] == "TRL 1.12":
            continue
        layers = row[1]
        everywhere, alike = ("TRL 1.12", 0, 0), ("TRL 1.12", layers, 0)
        asked_for = 9.0 if layers else 5.0
        ratio = average(everywhere, "step") / average(row, "step")
        print(f"\n{place(row)}: {ratio:.2f} times as fast as TRL's, all ({asked_for:.0f} asked: {verdict(ratio >= asked_for)})")
        print(f"  as TRL's, {place(alike)}: {average(alike, 'step') / average(row, 'step'):.2f} times as fast")
        share = average(row, "peak_gib") / average(alike, "peak_gib")
        print(f"  peak memory: {share:.2f} of TRL's, {place(alike)} (0.25 asked: {verdict(share <= 0.25)})")
        result = of[row][0]
        needed = work.flops_needed(load, work.Sizes(**result["sizes"]), adapted=result["adapted"], reward_adapted=result["reward_adapted"])
        for phase in ("prefill", *PHASES):
            reached = needed[phase] / average(row, phase) / rate
            print(f"  {phase}: {needed[phase] / 1e12:.2f} TFLOP needed, {reached:.0%} of the matrix-product rate")


def place(row: tuple[str, int, int]) -> str:
    """The layers with adapters; TRL's reward model has none and uses all layers."""
    side, layers, reward_layers = row
    if not layers:
        return "all"
    return f"top {layers}, reward in all" if side == "rankloop" and not reward_layers else f"top {layers}"


def profile(load: work.Workload, layers: int) -> None:
    """The time of this project's update by kind of operation, the largest first, without those below 1%."""
    spent = run(sys.executable, "ppo_rankloop.py", "profile", "--top-layers", layers, *load.arguments())
    del spent["peak_gib"]
    whole = sum(spent.values())
    print(f"\nUpdate, {f'top {layers}' if layers else 'all'}: {whole:.1f} s watched")
    for kind, seconds in spent.items():
        if seconds > whole / 100:
            print(f"{seconds:7.2f} s {seconds / whole:5.0%}  {kind}")


def generation(load: work.Workload) -> None:
    ours = run(sys.executable, "ppo_rankloop.py", "generate", *load.arguments())
    theirs = run(sys.executable, "ppo_rankloop.py", "transformers", *load.arguments(), own=False)
    for policy in ("base", "policy"):
        print(
            f"generation of {load.prompts} rows, {policy}: {ours[policy]:.0f} tokens/s, `model.generate` {theirs[policy]:.0f}: "
            f"{ours[policy] / theirs[policy]:.2f} times (2.5 asked: {verdict(ours[policy] >= 2.5 * theirs[policy])})"
        )


def vowels(trl: str | None, seeds: int) -> None:
    """Learning results: mean score of the first step and of the last three, and the KL at the end."""
    sides = {"rankloop": (sys.executable, "ppo_rankloop.py")} | ({"TRL 1.12": (trl, "ppo_trl.py")} if trl else {})
    print(f"\n{work.VOWEL_STEPS} PPO steps for vowels")
    print(f"{'':20} {'lambda':>6} {'seed':>4} {'first':>6} {'last 3':>6} {'KL':>6} {'s/step':>7}")
    for lam in work.VOWEL_LAMBDAS:
        for seed in range(seeds):
            for side, (python, script) in sides.items():
                result = run(python, script, "vowels", "--seed", seed, "--lam", lam)
                first, last = result["scores"][0], mean(result["scores"][-3:])
                print(f"{side:20} {lam:6} {seed:4} {first:6.2f} {last:6.2f} {result['kl'][-1]:6.1f} {result['step']:7.2f}", flush=True)
    for side, (first, last, seconds) in PUBLISHED.items():
        print(f"{side + ', elsewhere':20} {'':6} {'':4} {first:6.2f} {last:6.2f} {'':6} {seconds:7.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", help="the Python of an environment that has TRL 1.12.0; without it, only this project is timed")
    parser.add_argument("--rounds", type=int, default=1, help="how often the sides take turns at the step")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the vowel task")
    parser.add_argument("--top-layers", type=int, default=10, help="layers of the second arrangement")
    parser.add_argument("--only", choices=("step", "profile", "generate", "vowels"), help="one part alone")
    work.add_options(parser)
    args = parser.parse_args()
    load = work.chosen(args)
    args.top_layers = min(args.top_layers, work.SHAPES.get(load.shape, {}).get("num_hidden_layers", args.top_layers))
    print(machine())
    if args.only in (None, "generate"):
        generation(load)
    if args.only in (None, "step"):
        if not args.trl:
            parser.error("--trl is needed to compare steps")
        measured = run(sys.executable, "ppo_rankloop.py", "rate", *load.arguments())
        print(f"matrix products: {measured['rate'] / 1e9:.0f} GFLOPS in {measured['dtype']}")
        model = str(model_files.resolve("default")) if load.shape == work.PACKAGED else ""
        steps(load, args.trl, args.rounds, model, args.top_layers, measured["rate"])
    if args.only in (None, "profile"):
        for arrangement in (0, args.top_layers):
            profile(load, arrangement)
    if args.only in (None, "vowels"):
        vowels(args.trl, args.seeds)
    print(machine())
