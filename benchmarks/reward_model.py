"""Compares reward models that are fitted to few noisy votes: `python benchmarks/reward_model.py --data FOLDER`.

Real answers of the packaged default model, judged by VADER's sentiment, with a label noise of one in five. Linear probes on every
layer, ensembles, and LoRA, at several budgets of pairs, are measured on held-out prompts. Each result is stored in FOLDER and not
computed again: stop it at any time, or pass `--minutes 9`, and start it again. Prints the tables of
docs/research/reward-model.md at the end; `--plots DIR` draws them too.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file

from benchmarks.figures import machine
from rlhf import evaluation, model_files
from rlhf.analysis import validation
from rlhf.config import AdapterConfig, RewardConfig
from rlhf.data.pairs import PreferencePair
from rlhf.generation.sampling import generator, sample
from rlhf.models.backbone import Backbone
from rlhf.models.padding import positions
from rlhf.reward import targets
from rlhf.reward.model import ADAPTER, RewardModel, TokenizedExample, fit, pooled
from rlhf.reward.probe import Features, fit_probe
from rlhf.simulation.judges import sentiment
from storage.core.records import Sampling

LABEL_NOISE = 0.2
"""Probability that a vote is reversed; accuracy against the votes cannot exceed 1 - LABEL_NOISE."""
SAMPLING = Sampling(temperature=0.7, max_new_tokens=48)
BATCH = 64
ANSWERS_PER_FILE = 320
"""Number of answers whose features are in one file."""
POOLINGS = ("mean", "last")
L2 = (0.1, 1.0, 10.0)
PACE_PAIRS = 48
BASELINE = RewardConfig()
"""The baseline of the variants: mean pooling after 40% of the layers, and one epoch of LoRA. The laptop preset is another."""
STARTER = Path(__file__).parents[1] / "storage" / "content" / "starter_prompts.jsonl"
TOKENS_READ, DECODE_COST = 95, 5
"""Tokens of a prompt and its answer, and the cost of a sampled token relative to one in a forward pass; for the time left."""


@dataclass(frozen=True)
class Lora:
    """A variant of fine-tuning, which starts from the probe."""

    key: str
    name: str
    config: RewardConfig
    budgets: tuple[int, ...]

    def cell(self, budget: int) -> str:
        return f"lora-{self.key}-{budget}"


@dataclass(frozen=True)
class Plan:
    train_prompts: int
    heldout_prompts: int
    train_answers: int
    heldout_answers: int
    budgets: tuple[int, ...]
    seeds: int
    layers: tuple[int, ...]
    lora: tuple[Lora, ...]


ALL = replace(BASELINE, depth=1.0)
FULL = Plan(
    160, 80, 8, 6, (150, 300, 600, 1200), 5, tuple(range(1, 31)),
    (
        Lora("forty", "LoRA after the probe at 40%", BASELINE, (150, 300, 600, 1200)),
        Lora("top", "LoRA on the top third", replace(ALL, adapter=AdapterConfig(top_layers=10)), (150, 300, 600, 1200)),
        Lora("all", "LoRA on all layers", ALL, (150, 300, 600, 1200)),
    ),
)  # fmt: skip
QUICK = Plan(16, 12, 6, 4, (20, 40), 2, (6, 12, 30), (Lora("forty", "LoRA after the probe at 40%", BASELINE, (20,)),))


class Stopped(Exception):
    """The minutes are over; the results so far are stored."""


class Clock:
    """Prints the progress and the estimated time left."""

    def __init__(self, minutes: float | None):
        self.started = time.monotonic()
        self.until = None if minutes is None else self.started + 60 * minutes
        self.total = self.done = 0.0

    def plan(self, cost: float) -> None:
        self.total += cost

    def check(self) -> None:
        if self.until is not None and time.monotonic() > self.until:
            raise Stopped

    def on_progress(self, what: str, cost: float) -> None:
        self.done += cost
        took = time.monotonic() - self.started
        left = took * (self.total - self.done) / self.done
        print(f"[{took / 60:5.1f} min, about {left / 60:4.1f} left] {what}", file=sys.stderr, flush=True)
        self.check()


@dataclass(frozen=True)
class Answer:
    prompt: int
    text: str


@torch.no_grad()
def of_all_layers(
    backbone: Backbone, reader: RewardModel, rows: Sequence[TokenizedExample], layers: Sequence[int]
) -> dict[str, Float[torch.Tensor, "b d"]]:
    """The features of each pooling and layer, by `pooling-layer`, from one forward pass of the frozen model."""
    found: dict[str, list[torch.Tensor]] = {}
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    for at in range(0, len(order), 32):
        ids, mask, starts = reader.batch([rows[i] for i in order[at : at + 32]])

        def keep(layer: int, hidden: torch.Tensor, mask=mask, starts=starts) -> None:
            for how in POOLINGS:
                found.setdefault(f"{how}-{layer}", []).append(pooled(hidden.float(), mask, starts, how=how).cpu())

        with ExitStack() as stack:
            for layer in layers:
                stack.enter_context(backbone.decoder.record_hidden(layer, lambda hidden, layer=layer: keep(layer, hidden)))
            backbone.decoder.forward(ids, mask, positions=positions(mask), adapter=None)
    back = torch.tensor(order).argsort()
    return {name: torch.cat(parts)[back].contiguous() for name, parts in found.items()}


class Study:
    def __init__(self, home: Path, plan: Plan, clock: Clock):
        self.home, self.plan, self.clock = home, plan, clock
        home.mkdir(parents=True, exist_ok=True)
        every = [json.loads(line)["text"] for line in STARTER.read_text(encoding="utf-8").splitlines() if line.strip()]
        random.Random(0).shuffle(every)
        self.prompts = every[: plan.train_prompts + plan.heldout_prompts]
        """The training prompts, then the held-out ones."""

    @cached_property
    def backbone(self) -> Backbone:
        return Backbone.load(model_files.resolve("default"))

    # ---- answers, once

    @property
    def wanted(self) -> list[int]:
        """The prompt of every answer; batches hold prompts of similar length."""
        first = self.plan.train_prompts
        asked = [
            i for i in range(len(self.prompts))
            for _ in range(self.plan.train_answers if i < first else self.plan.heldout_answers)
        ]  # fmt: skip
        return sorted(asked, key=lambda i: (len(self.prompts[i]), i))

    def written(self) -> list[Answer]:
        """The answers that are stored already."""
        file = self.home / "answers.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return [Answer(**json.loads(line)) for line in lines]

    @cached_property
    def answers(self) -> list[Answer]:
        return self.written()

    def write_answers(self) -> None:
        done = len(self.written())
        for start in range(done, len(self.wanted), BATCH):
            self.clock.check()
            asked = self.wanted[start : start + BATCH]
            drawn = sample(self.backbone, [self.encoded(i) for i in asked], SAMPLING, generator(self.backbone.device, 0, start))
            lines = [json.dumps({"prompt": i, "text": self.backbone.decode(s.ids)}) + "\n" for i, s in zip(asked, drawn, strict=True)]
            with (self.home / "answers.jsonl").open("a", encoding="utf-8") as file:
                file.write("".join(lines))
            self.clock.on_progress(f"answers {start + len(asked)} of {len(self.wanted)}", self.cost_of_answers(len(asked)))

    def encoded(self, prompt: int) -> list[int]:
        return self.backbone.encode(self.messages(prompt))

    def messages(self, prompt: int) -> tuple[dict[str, str], ...]:
        return ({"role": "user", "content": self.prompts[prompt]},)

    @staticmethod
    def cost_of_answers(n: int) -> float:
        return n * SAMPLING.max_new_tokens * DECODE_COST

    # ---- features, once: every layer in one pass

    def chunk(self, start: int) -> Path:
        return self.home / f"features-{start:05}.safetensors"

    def read_features(self) -> None:
        said = self.answers
        for start in range(0, len(said), ANSWERS_PER_FILE):
            if not self.chunk(start).is_file():
                self.clock.check()
                rows = [self.row(answer) for answer in said[start : start + ANSWERS_PER_FILE]]
                part = self.chunk(start).with_suffix(".part")
                save_file(of_all_layers(self.backbone, self.reader, rows, self.plan.layers), part)
                part.replace(self.chunk(start))
                self.clock.on_progress(f"features {start + len(rows)} of {len(said)}", len(rows) * TOKENS_READ)

    def row(self, answer: Answer) -> TokenizedExample:
        return self.reader.row(self.encoded(answer.prompt), self.backbone.encode_answer(answer.text))

    @cached_property
    def reader(self) -> RewardModel:
        return RewardModel(self.backbone, BASELINE, seed=0)

    def features(self, how: str, layer: int) -> Float[torch.Tensor, "answers d"]:
        return self._features[f"{how}-{layer}"]

    @cached_property
    def _features(self) -> dict[str, torch.Tensor]:
        parts = [load_file(self.chunk(start)) for start in range(0, len(self.answers), ANSWERS_PER_FILE)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    # ---- votes

    @cached_property
    def comparisons(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of answers to one prompt that the rule scores differently, the better one first.

        For training: pairs in which every answer is new, as in comparisons that people judge, then the others, which only the
        largest budget needs. For evaluation: all pairs of the held-out prompts.
        """
        values = np.array([sentiment(a.text, ()) for a in self.answers])
        by_prompt: dict[int, list[int]] = {}
        for i, answer in enumerate(self.answers):
            by_prompt.setdefault(answer.prompt, []).append(i)
        fresh, reused, measured = [], [], []
        for prompt, mine in sorted(by_prompt.items()):
            for i, j in combinations(range(len(mine)), 2):
                a, b = sorted((mine[i], mine[j]), key=lambda answer: -values[answer])
                kind = measured if prompt >= self.plan.train_prompts else fresh if i % 2 == 0 and j == i + 1 else reused
                if values[a] > values[b]:
                    kind.append((a, b))
        return np.array(fresh), np.array(reused), np.array(measured)

    def votes(self, budget: int, seed: int) -> np.ndarray:
        """Chosen and rejected answer of each vote: a smaller budget is a part of a larger one."""
        fresh, reused, _ = self.comparisons
        rng = np.random.default_rng([1, seed])
        drawn = np.concatenate([rng.permutation(fresh), rng.permutation(reused)])
        slip = rng.random(len(drawn)) < LABEL_NOISE
        return np.where(slip[:, None], drawn[:, ::-1], drawn)[:budget]

    @cached_property
    def slips(self) -> np.ndarray:
        """For each held-out pair, whether the vote contradicts the rule."""
        return np.random.default_rng(2).random(len(self.comparisons[2])) < LABEL_NOISE

    def measured(self, scores: np.ndarray) -> dict[str, Any]:
        """The accuracies of each held-out prompt, and the calibration against the votes."""
        *_, pairs = self.comparisons
        margin = scores[pairs[:, 0]] - scores[pairs[:, 1]]
        credit = validation.credit(margin)
        prompt = np.array([self.answers[a].prompt for a in pairs[:, 0]])
        known, at = np.unique(prompt, return_inverse=True)
        on_votes = np.where(self.slips, 1 - credit, credit)
        calibration = validation.calibration(np.where(self.slips, -margin, margin), seed=0)
        return {
            "prompts": known.tolist(),
            "rule": (np.bincount(at, credit) / np.bincount(at)).tolist(),
            "votes": (np.bincount(at, on_votes) / np.bincount(at)).tolist(),
            "ece": calibration.ece,
            "confidence": calibration.confidence,
            "bins": [[b.pairs, b.confidence, b.accuracy] for b in calibration.bins],
        }

    # ---- cells

    def cell(self, name: str) -> Path:
        return self.home / "cells" / f"{name}.json"

    def make(self, name: str, cost: float, work: Callable[[], Any]) -> None:
        """Computes and stores one result, unless it is stored already."""
        if self.cell(name).is_file():
            return
        self.clock.check()
        started = time.monotonic()
        found = {"results": work(), "seconds": time.monotonic() - started, "machine": machine()}
        self.cell(name).parent.mkdir(exist_ok=True)
        part = self.cell(name).with_suffix(".part")
        part.write_text(json.dumps(found))
        part.replace(self.cell(name))
        self.clock.on_progress(name, cost)

    def probe(self, how: str, layer: int, l2: float, budget: int, seed: int) -> dict[str, Any]:
        features, votes = self.features(how, layer), self.votes(budget, seed)
        started = time.monotonic()
        weight = fit_probe(features[votes[:, 0]], features[votes[:, 1]], l2=l2)
        seconds = time.monotonic() - started
        return {"l2": l2, "budget": budget, "seed": seed, "fit_s": seconds, **self.measured((features @ weight).numpy())}

    def probes(self, how: str, layer: int) -> list[dict[str, Any]]:
        return [
            self.probe(how, layer, l2, budget, seed)
            for budget in self.plan.budgets for seed in range(self.plan.seeds) for l2 in L2
        ]  # fmt: skip

    def ensembles(self, how: str, layer: int, members: int) -> list[dict[str, Any]]:
        """An ensemble whose members are fitted to bootstraps of the prompts, and its accuracy where the members agree."""
        found = []
        config = replace(BASELINE, ensemble=members)
        features = self.features(how, layer)
        for budget in self.plan.budgets:
            for seed in range(self.plan.seeds):
                votes = self.votes(budget, seed)
                said = targets.pair_targets(self.preferences(votes), config, seed=seed)
                two = Features(features[votes[:, 0]], features[votes[:, 1]])
                each = torch.stack([fit_probe(*two, l2=config.probe_l2, weights=said.weight[:, i]) for i in range(members)])
                scores = (features @ each.T).numpy()
                found.append({"budget": budget, "seed": seed, **self.measured(scores.mean(1)), **self.unanimity(scores)})
        return found

    def unanimity(self, scores: np.ndarray) -> dict[str, float]:
        *_, pairs = self.comparisons
        ahead = np.sign(scores[pairs[:, 0]] - scores[pairs[:, 1]])
        alike = np.abs(ahead.sum(1)) == ahead.shape[1]
        right = ahead.mean(1) > 0
        return {"alike": float(alike.mean()), "right_alike": float(right[alike].mean()), "right_apart": float(right[~alike].mean())}

    def lora(self, way: Lora, budget: int, seed: int) -> list[dict[str, Any]]:
        """The results after fine-tuning; those of its probe, on the same votes, are in `probes`."""
        heldout = sorted(set(self.comparisons[2].ravel().tolist()))

        def report(step: int, total: int, figures: dict[str, float], model: RewardModel) -> None:
            if step % max(1, total // 5) == 0:
                print(f"    {way.name}, {budget} pairs: update {step} of {total}", file=sys.stderr, flush=True)

        pairs = self.preferences(self.votes(budget, seed))
        model = fit(self.backbone, pairs, way.config, seed=seed, scratch=self.home / "scratch", report=report)
        scores = np.zeros(len(self.answers))
        # Not normalised: differences of raw scores are the log-odds of the loss.
        scores[heldout] = model.members([self.row(self.answers[i]) for i in heldout])[0].numpy()
        self.backbone.delete_adapter(ADAPTER)
        return [{"budget": budget, "seed": seed, **self.measured(scores)}]

    def pace(self, way: Lora) -> list[dict[str, float]]:
        """CPU seconds per pair, which other load on the machine does not affect."""
        pairs = self.preferences(self.votes(PACE_PAIRS, 0))
        started = time.process_time()
        fit(self.backbone, pairs, way.config, seed=0, scratch=self.home / "scratch", report=lambda *_: None)
        took = time.process_time() - started
        self.backbone.delete_adapter(ADAPTER)
        return [{"cpu_s": took / len(pairs)}]

    def preferences(self, votes: np.ndarray) -> list[PreferencePair]:
        return [
            PreferencePair(self.messages(self.answers[a].prompt), self.answers[a].text, self.answers[b].text, 1.0, "train", "simulated", i)
            for i, (a, b) in enumerate(votes.tolist())
        ]

    # ---- the whole

    @property
    def middle(self) -> int:
        """The layer of the baseline."""
        return round(BASELINE.depth * 30)

    def pieces(self) -> Iterator[tuple[str, float, Callable[[], Any]]]:
        for how in POOLINGS:
            for layer in self.plan.layers:
                yield f"probe-{how}-{layer:02}", 9000, lambda how=how, layer=layer: self.probes(how, layer)
        for members in (3, 5):
            yield f"ensemble-{members}", 3000 * members, lambda members=members: self.ensembles("mean", self.middle, members)
        for way in self.plan.lora:
            yield f"pace-{way.key}", TOKENS_READ * 8 * PACE_PAIRS * way.config.depth, lambda way=way: self.pace(way)
        # The cheapest first, so that a stopped study has most of its results.
        for budget, way in sorted(((b, w) for w in self.plan.lora for b in w.budgets), key=lambda piece: piece[0]):
            adapted = way.config.adapter.top_layers / 30 or way.config.depth
            # One forward pass for the probe, and one with a backward pass in every layer that has an adapter.
            cost = TOKENS_READ * (2 * budget * (2 * way.config.depth + 2 * adapted) + 500 * way.config.depth)
            yield way.cell(budget), cost, lambda way=way, budget=budget: self.lora(way, budget, 0)

    def run(self) -> None:
        missing = [piece for piece in self.pieces() if not self.cell(piece[0]).is_file()]
        self.clock.plan(self.cost_of_answers(len(self.wanted) - len(self.written())))
        chunks = range(0, len(self.wanted), ANSWERS_PER_FILE)
        self.clock.plan(sum(TOKENS_READ * min(ANSWERS_PER_FILE, len(self.wanted) - s) for s in chunks if not self.chunk(s).is_file()))
        self.clock.plan(sum(cost for _, cost, _ in missing))
        self.write_answers()
        self.read_features()
        for name, cost, work in missing:
            self.make(name, cost, work)


# ---- tables


def by_prompt(results: Sequence[dict[str, Any]], what: str) -> dict[int, list[float]]:
    """The results of each held-out prompt over the seeds."""
    found: dict[int, list[float]] = {}
    for result in results:
        for prompt, value in zip(result["prompts"], result[what], strict=True):
            found.setdefault(prompt, []).append(value)
    return found


def percent(results: Sequence[dict[str, Any]], what: str) -> str:
    """Mean over prompts and seeds, with an interval that resamples prompts."""
    e = evaluation.mean_by_prompt(by_prompt(results, what))
    return f"{100 * e.value:.1f} ({100 * e.low:.1f} to {100 * e.high:.1f})"


def gain(results: Sequence[dict[str, Any]], over: Sequence[dict[str, Any]], what: str = "rule") -> str:
    """Difference in points from another variant on the same prompts, pairs and seeds."""
    mine, theirs = by_prompt(results, what), by_prompt(over, what)
    e = evaluation.mean_by_prompt({p: [a - b for a, b in zip(mine[p], theirs[p], strict=True)] for p in mine})
    return f"{100 * e.value:+.1f} ({100 * e.low:+.1f} to {100 * e.high:+.1f})"


def spread(results: Sequence[dict[str, Any]]) -> str:
    """Standard deviation over seeds of the accuracy against the rule, in points."""
    return f"{100 * np.std([np.mean(r['rule']) for r in results], ddof=1):.1f}" if len(results) > 1 else ""


def ece(results: Sequence[dict[str, Any]]) -> str:
    return f"{np.mean([r['ece'] for r in results]):.3f}"


def picked(results: Sequence[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [r for r in results if all(r[k] == v for k, v in wanted.items())]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


class Report:
    def __init__(self, study: Study):
        self.study, self.plan = study, study.plan

    def results(self, name: str) -> list[dict[str, Any]]:
        file = self.study.cell(name)
        return json.loads(file.read_text())["results"] if file.is_file() else []

    def of_probe(self, how: str, layer: int) -> list[dict[str, Any]]:
        return self.results(f"probe-{how}-{layer:02}")

    def print(self) -> None:
        fresh, _, measured = self.study.comparisons
        print(f"{len(self.study.answers)} answers; {len(fresh)} training pairs of new answers, {len(measured)} on "
              f"{self.plan.heldout_prompts} held-out prompts; {machine()}\n")  # fmt: skip
        for part in (self.layers, self.depths, self.budgets, self.penalties, self.unanimity, self.fine_tuning):
            print(part())

    def layers(self) -> str:
        """Accuracy against the rule by layer, at the baseline's L2 penalty."""
        rows = []
        for how in POOLINGS:
            for budget in self.plan.budgets:
                cells = [picked(self.of_probe(how, layer), budget=budget, l2=BASELINE.probe_l2) for layer in self.plan.layers]
                rows.append([f"{how}, {budget}", *(f"{100 * np.mean([np.mean(r['rule']) for r in c]):.0f}" for c in cells)])
        return table(["pooling, pairs", *map(str, self.plan.layers)], rows)

    def depths(self) -> str:
        """Mean pooling after other layers, on the same votes and pairs as the baseline."""
        rows = []
        for layer in self.plan.layers:
            if layer == self.study.middle or (layer % 6 and layer not in (1, 29)):
                continue
            cells = [[picked(self.of_probe("mean", at), budget=budget, l2=BASELINE.probe_l2) for at in (layer, self.study.middle)]
                     for budget in self.plan.budgets]  # fmt: skip
            rows.append([layer, *(gain(mine, plain) for mine, plain in cells)])
        return table([f"layer, less layer {self.study.middle}", *(f"{budget} pairs" for budget in self.plan.budgets)], rows)

    def variants(self, budget: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        middle, top = self.study.middle, max(self.plan.layers)
        plain = {"budget": budget, "l2": BASELINE.probe_l2}
        yield f"probe, mean, layer {middle}", picked(self.of_probe("mean", middle), **plain)
        for members in (3, 5):
            yield f"ensemble of {members} on it", picked(self.results(f"ensemble-{members}"), budget=budget)
        yield f"probe, last token, layer {middle}", picked(self.of_probe("last", middle), **plain)
        yield f"probe, mean, layer {top}", picked(self.of_probe("mean", top), **plain)
        yield f"probe, last token, layer {top}", picked(self.of_probe("last", top), **plain)

    def budgets(self) -> str:
        rows = []
        for budget in self.plan.budgets:
            [(_, plain), *_] = variants = list(self.variants(budget))
            for name, cell in variants:
                seconds = f"{np.mean([r['fit_s'] for r in cell]):.2f}" if "fit_s" in cell[0] else ""
                against = "" if cell is plain else gain(cell, plain)
                rows.append([budget, name, percent(cell, "rule"), spread(cell), percent(cell, "votes"), ece(cell), against, seconds])
        head = ["pairs", "variant", "against the rule, %", "sd of seeds", "against the votes, %", "ECE", "less the first row", "fit, s"]
        return table(head, rows)

    def penalties(self) -> str:
        """The baseline's probe by L2 penalty: accuracy, calibration error, mean confidence."""
        cells = self.of_probe("mean", self.study.middle)
        rows = []
        for budget in self.plan.budgets:
            for l2 in L2:
                cell = picked(cells, budget=budget, l2=l2)
                rows.append([budget, l2, percent(cell, "rule"), gain(cell, picked(cells, budget=budget, l2=BASELINE.probe_l2)), ece(cell),
                             f"{np.mean([r['confidence'] for r in cell]):.3f}"])  # fmt: skip
        return table(["pairs", "L2", "against the rule, %", f"less L2 {BASELINE.probe_l2:g}", "ECE", "mean confidence"], rows)

    def unanimity(self) -> str:
        rows = []
        for members in (3, 5):
            for budget in self.plan.budgets:
                cell = picked(self.results(f"ensemble-{members}"), budget=budget)
                figures = [f"{100 * np.mean([r[k] for r in cell]):.1f}" for k in ("alike", "right_alike", "right_apart")]
                rows.append([members, budget, *figures])
        return table(["members", "pairs", "all prefer the same, % of pairs", "right then, %", "right otherwise, %"], rows)

    def fine_tuning(self) -> str:
        rows = []
        for way in self.plan.lora:
            for budget in way.budgets:
                after = self.results(way.cell(budget))
                pace = self.results(f"pace-{way.key}")
                if not after or not pace:
                    continue
                probes = self.of_probe(way.config.pooling, round(way.config.depth * 30))
                before = picked(probes, budget=budget, l2=way.config.probe_l2, seed=0)
                accuracies = (percent(before, "rule"), percent(after, "rule"), gain(after, before), percent(after, "votes"))
                rows.append([budget, way.name, *accuracies, f"{ece(before)}, {ece(after)}", f"{pace[0]['cpu_s'] * budget:.0f}"])
        head = ["pairs", "way", "its probe, %", "after LoRA, %", "difference", "against the votes, %", "ECE before, after", "CPU s"]
        return table(head, rows)

    # ---- plots

    def plots(self, folder: Path) -> None:
        draw({folder / "reward_model_layers.svg": self.plot_layers(), folder / "reward_model_reliability.svg": self.plot_reliability()})

    def plot_layers(self) -> go.Figure:
        figure = go.Figure()
        for how, dash in zip(POOLINGS, ("solid", "dot"), strict=True):
            for budget, colour in zip(self.plan.budgets, SHADES, strict=False):
                cells = [picked(self.of_probe(how, layer), budget=budget, l2=BASELINE.probe_l2) for layer in self.plan.layers]
                y = [np.mean([np.mean(r["rule"]) for r in c]) for c in cells]
                name = f"{how if how == 'mean' else 'last token'}, {budget} pairs"
                figure.add_scatter(x=list(self.plan.layers), y=y, name=name, line={"color": colour, "dash": dash, "width": 2})
        return styled(figure, "Layer that the probe reads after", "Held-out accuracy against the rule", [0.45, 0.75])

    def plot_reliability(self) -> go.Figure:
        figure = go.Figure()
        figure.add_scatter(x=[0.5, 1], y=[0.5, 1], name="calibrated", line={"color": "#85807a", "dash": "dot"}, mode="lines")
        budget = max(self.plan.lora[0].budgets)
        shown = [(f"probe, L2 {l2:g}", picked(self.of_probe("mean", self.study.middle), budget=budget, l2=l2)) for l2 in L2]
        shown.append(("ensemble of 5, L2 1", picked(self.results("ensemble-5"), budget=budget)))
        after = self.results(self.plan.lora[0].cell(budget))
        shown += [("LoRA after the probe", after)] if after else []
        for (name, cell), colour in zip(shown, (*SHADES, "#b5684f"), strict=False):
            pairs, sure, right = pooled_bins(cell)
            figure.add_scatter(x=sure, y=right, name=name, mode="lines+markers", line={"color": colour, "width": 2},
                               marker={"size": 4 + 14 * np.sqrt(pairs / pairs.sum())})  # fmt: skip
        return styled(figure, "Probability given to the answer it prefers", f"How often votes agree, {budget} pairs", [0.45, 0.9])


SHADES = ("#b9cfe3", "#8db3d6", "#4f83b5", "#254a6d")


def pooled_bins(cell: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs, mean probability and accuracy of each bin over all seeds; bins of less than 1% of the pairs are left out."""
    every = np.array([[[n, c or 0, a or 0] for n, c, a in r["bins"]] for r in cell])
    pairs = every[:, :, 0].sum(0)
    enough = pairs > 0.01 * pairs.sum()
    sure, right = ((every[:, :, 0] * every[:, :, k]).sum(0)[enough] / pairs[enough] for k in (1, 2))
    return pairs[enough], sure, right


def styled(figure: go.Figure, x: str, y: str, span: list[float]) -> go.Figure:
    axis = {"gridcolor": "#e4e1dc", "zeroline": False, "linecolor": "#85807a"}
    return figure.update_layout(
        width=760, height=420, margin={"l": 60, "r": 20, "t": 20, "b": 50}, paper_bgcolor="white", plot_bgcolor="white",
        font={"family": "sans-serif", "size": 13, "color": "#3a3733"}, xaxis={**axis, "title": x},
        yaxis={**axis, "title": y, "tickformat": ".0%", "range": span}, legend={"x": 1.02, "y": 1},
    )  # fmt: skip


def draw(figures: dict[Path, go.Figure]) -> None:
    """SVG by Plotly itself, in the Chromium of the tests: no other library is needed."""
    import plotly

    from tests.browser import chromium

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    with chromium.opened() as browser:
        page = browser.new_page()
        page.set_content("<div id='plot'></div>")
        page.add_script_tag(path=str(script))
        for file, figure in figures.items():
            svg = page.evaluate(
                "async f => { await Plotly.newPlot('plot', f.data, f.layout); return Plotly.toImage('plot', "
                "{format: 'svg', width: f.layout.width, height: f.layout.height, imageDataOnly: true}) }",
                json.loads(figure.to_json()),
            )
            file.write_text(svg)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/reward_model"), help="folder that keeps answers, features and results")
    parser.add_argument("--quick", action="store_true", help="use a few prompts and layers, for a test that takes minutes")
    parser.add_argument("--minutes", type=float, help="stop after this many minutes; the same command continues")
    parser.add_argument("--report", action="store_true", help="print the stored results and compute nothing")
    parser.add_argument("--plots", type=Path, help="draw SVG files into this folder")
    args = parser.parse_args()
    study = Study(args.data / ("quick" if args.quick else "full"), QUICK if args.quick else FULL, Clock(args.minutes))
    if not args.report:
        try:
            study.run()
        except Stopped:
            print(f"stopped after {args.minutes:g} minutes: the same command continues from here", file=sys.stderr)
            return
    report = Report(study)
    report.print()
    if args.plots:
        report.plots(args.plots)


if __name__ == "__main__":
    main()
