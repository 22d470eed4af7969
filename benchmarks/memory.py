"""The web process's memory over page loads and judgments: `python benchmarks/memory.py`.

The real `launch.py serve` with accounts on. A page load is what a browser asks for when somebody opens the page: the page itself,
its two handlers under a session of its own, the first comparison, and a heartbeat that ends when the tab is closed. Then
annotators judge as fast as the app answers. The resident memory of the web process is sampled all the time; it must stay within 50 MiB
of its value after the first loads and judgments, which fill caches and start threads.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx2
import psutil

from benchmarks.annotating import LoadTest, Tally
from benchmarks.figures import machine, spread, verdict

FLAT_MIB = 50.0
WARM_LOADS, WARM_S = 200, 5.0
CONCURRENT_LOADS = 4
"""Tabs that open at the same time."""


class Memory:
    """The resident memory of one process over time."""

    def __init__(self, pid: int):
        self._process = psutil.Process(pid)
        self.start = 0.0
        self.highest = 0.0

    def begin(self) -> None:
        self.start = self.highest = self.mib()

    def mib(self) -> float:
        found = self._process.memory_info().rss / 2**20
        self.highest = max(self.highest, found)
        return found

    def report(self, after: str) -> None:
        print(f"{after:<20} {self.mib():7.1f} MiB", flush=True)


async def load(client: httpx2.AsyncClient, handlers: list[int], component: int, n: int, took_ms: list[float]) -> None:
    """One tab, from its opening to its end."""
    session = f"load{n}"
    began = time.perf_counter()
    (await client.get("/")).raise_for_status()
    for handler, data in zip(handlers, ([], [False]), strict=True):
        body = {"fn_index": handler, "data": data, "session_hash": session}
        (await client.post("/gradio_api/run/predict", json=body)).raise_for_status()
    call = {"data": {}, "component_id": component, "fn_name": "next_comparison", "session_hash": session}
    (await client.post("/gradio_api/component_server", json=call)).raise_for_status()
    took_ms.append(1000 * (time.perf_counter() - began))
    async with client.stream("GET", f"/gradio_api/heartbeat/{session}") as beats:
        async for _ in beats.aiter_lines():
            break


async def loads(room: LoadTest, number: int, memory: Memory, *, first: int, every: int) -> list[float]:
    took_ms: list[float] = []
    # Uncompressed: to compress the page takes longer than to make it, and keeps nothing.
    headers = {"cookie": room._people[1][1], "accept-encoding": "identity"}
    async with httpx2.AsyncClient(base_url=room.program.url, headers=headers, timeout=120) as client:
        config = (await client.get("/config")).json()
        handlers = [d["id"] for d in config["dependencies"] if any(event == "load" for _, event in d["targets"])]
        waiting = list(range(first + number - 1, first - 1, -1))

        done = 0

        async def tab() -> None:
            nonlocal done
            while waiting:
                await load(client, handlers, room.component_id, waiting.pop(), took_ms)
                done += 1
                if done % every == 0:
                    memory.report(f"{done:,} page loads")

        await asyncio.gather(*(tab() for _ in range(CONCURRENT_LOADS)))
    return took_ms


def judge(room: LoadTest, number: int, memory: Memory) -> Tally:
    together = Tally()
    while len(together.acknowledged) < number:
        before = len(together.acknowledged)
        together.add(room.judge(10.0))
        memory.report(f"{len(together.acknowledged):,} judgments")
        if len(together.acknowledged) == before:
            break
    return together


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=5000, help="page loads")
    parser.add_argument("--judgments", type=int, default=20_000, help="judgments")
    parser.add_argument("--people", type=int, default=10, help="number of concurrent annotators")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        room = LoadTest(Path(name), people=args.people, comparisons=args.judgments // 2, overlap=3)
        try:
            room.start()
            print(machine())
            memory = Memory(room.program.process.pid)
            memory.report("at the start")
            asyncio.run(loads(room, WARM_LOADS, memory, first=-WARM_LOADS, every=WARM_LOADS))
            room.judge(WARM_S)
            memory.begin()
            memory.report("warm")
            took_ms = asyncio.run(loads(room, args.loads, memory, first=0, every=max(1, args.loads // 10)))
            tally = judge(room, args.judgments, memory)
        finally:
            room.end()
    grown = memory.highest - memory.start
    met = grown <= FLAT_MIB and len(tally.acknowledged) >= args.judgments and len(took_ms) == args.loads
    print(f"page loads: {spread(took_ms)}")
    print(f"judgments:  {spread(tally.took_ms)}")
    for problem, times in tally.problems.most_common(5):
        print(f"{times} times: {problem}")
    done = f"{len(took_ms):,} page loads and {len(tally.acknowledged):,} judgments"
    print(f"{done}: at most {grown:.1f} MiB more ({FLAT_MIB:.0f} allowed: {verdict(met)})")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
