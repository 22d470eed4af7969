"""What rankloop costs while nobody uses it: the processor time of the web process and of the policy server.

    python benchmarks/idle.py [--seconds 60]

Starts the app on an empty data folder, waits until the queue of comparisons is full, and reads the processor time of both processes
before and after. Nobody has a page open meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from figures import machine, verdict

from rlhf.serving.filler import QUEUE_TARGET
from rlhf.serving.supervisor import free_port
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.judging import queue

HERE = Path(__file__).parent
MOST_SHARE = 0.01
SETTLE_S = 10.0
"""After the queue is full, in seconds: the last answers are still being written."""


def processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        command = [sys.executable, str(HERE.parent / "launch.py"), "serve", "--data", str(data), "--port", str(free_port())]
        web = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            path = DataFolder(data).database
            while not path.exists():
                time.sleep(1.0)
            store = Database(path)
            while queue.least_waiting(store, at_most=QUEUE_TARGET) < QUEUE_TARGET:
                time.sleep(1.0)
            store.close()
            time.sleep(SETTLE_S)
            server = next(child for child in web.children() if "rlhf.generation.server" in child.cmdline())
            processes = {"web process": web, "policy server": server}
            before = {name: processor_seconds(process) for name, process in processes.items()}
            time.sleep(arguments.seconds)
            for name, process in processes.items():
                share = (processor_seconds(process) - before[name]) / arguments.seconds
                print(f"  {name:14} {share:6.2%} of a processor, asked 1%: {verdict(share <= MOST_SHARE)}")
        finally:
            web.terminate()
            web.wait(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
