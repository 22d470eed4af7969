"""How many answers a token limit cuts: `python benchmarks/answer_lengths.py`.

The packaged model answers starter prompts as the queue does, with a limit that hardly any answer reaches, and each shorter limit is
counted on the same answers. With `--first` it fills an empty queue from scratch instead, with one comparison of 96 tokens at first and with
two of 768, in turns, and prints the seconds until the first four comparisons are there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from figures import machine

from rlhf import model_files
from rlhf.config import DEFAULT_MODEL
from rlhf.generation.policy_service import PolicyService
from rlhf.models.backbone import Backbone
from rlhf.serving import filler
from rlhf.serving.completion_source import PromptRefused
from storage.content import prompts
from storage.core.database import Database
from storage.core.records import Sampling
from storage.judging import queue

LIMITS = (96, 128, 192, 256, 384, 512, 640, 768, 1024)
AT_ONCE, SHOWN, PATIENCE_S = 32, 4, 120.0


def new_store() -> Database:
    store = Database(Path(tempfile.mkdtemp()) / "rankloop.db")
    prompts.load_starter(store)
    return store


def lengths(backbone: Backbone, count: int) -> list[int]:
    """Tokens of one answer to each of so many prompts; the last limit for those that it cuts."""
    store = new_store()
    service, asked, found = PolicyService(store, DEFAULT_MODEL, backbone), prompts.of_split(store)[::2][:count], []
    service.start()
    for start in range(0, len(asked), AT_ONCE):
        requests = [(service.base, prompt) for prompt in asked[start : start + AT_ONCE]]
        for answer in service.generate(requests, Sampling(temperature=0.7, max_new_tokens=LIMITS[-1]), start):
            assert not isinstance(answer, PromptRefused)
            found.append(LIMITS[-1] if answer.finish_reason == "length" else len(backbone.tokenizer(answer.text).input_ids))
    service.close()
    return found


def first_comparisons(backbone: Backbone, limit: int, size: int) -> list[float]:
    """Seconds until the first comparisons of an empty queue are stored."""
    filler.COLLECTING, filler.FIRST_BATCH_SIZE = Sampling(temperature=0.7, max_new_tokens=limit), size
    store = new_store()
    service = PolicyService(store, DEFAULT_MODEL, backbone)
    service.start()
    filling = filler.ComparisonGenerator(store, service.generate, DEFAULT_MODEL)
    began, found = time.monotonic(), list[float]()
    filling.start()
    while len(found) < SHOWN and time.monotonic() - began < PATIENCE_S:
        found += [time.monotonic() - began] * (queue.depth(store) - len(found))
        time.sleep(0.05)
    filling.stop()
    service.close()
    return found[:SHOWN]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=96, help="prompts to answer")
    parser.add_argument("--first", type=int, default=0, metavar="STARTS", help="fill an empty queue so often, and answer nothing else")
    arguments = parser.parse_args()
    backbone = Backbone.load(model_files.ensure_default())
    print(machine())
    for _ in range(arguments.first):
        for limit, size in ((96, 1), (768, 2)):
            print(
                f"{size} at first, {limit} tokens: {', '.join(f'{s:.1f}' for s in first_comparisons(backbone, limit, size))} s", flush=True
            )
    if not arguments.first:
        found = lengths(backbone, arguments.prompts)
        for limit in LIMITS:
            mean = sum(min(length, limit) for length in found) / len(found)
            print(f"{limit:5} tokens cut {sum(length >= limit for length in found)} of {len(found)}; mean length {mean:.0f}")


if __name__ == "__main__":
    main()
