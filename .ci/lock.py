"""Makes and checks the locks in `.ci/lock`: every package at one version, with the hashes of its files on PyPI.

    python .ci/lock.py            makes them anew; needs uv, which `make lock` sets up, and PyPI
    python .ci/lock.py --check    compares them with pyproject.toml and .ci/constraints.txt; needs neither

A lock holds the hashes of all files of a version, so one lock serves every platform and Python from 3.11 on. Versions
come from `.ci/constraints.txt`: to move one, change it there and in pyproject.toml, and run `make lock`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / ".ci" / "lock"

OLDEST_PYTHON = "3.11"
UV = "0.13.9"

BUILD = ("pip", "setuptools")
"""Installed before everything else, because they install it."""
TORCH = ("torch", "triton", "nvidia-", "cuda-")
"""torch as PyPI has it, and what it needs beside itself on Linux: CUDA, several GB."""

CPU_BUILDS = {
    "2.13.0+cpu": {
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    },
}
"""SHA-256 of torch's files that are not on PyPI but on PyTorch's own index: they compute on the processor alone."""

HEADERS = {
    "build": "What installs the rest.",
    "torch-cpu": "torch for the processor alone, where an index has it: installed if it can be, and torch.txt if not.",
    "torch": "torch as PyPI has it, with CUDA on Linux.",
    "run": "What the app and the engine need beside torch.",
    "test": "What the tests need beside that.",
    "tools": "What makes these files.",
}

Locked = Mapping[str, str]
"""Lines of a lock by the name of the package: `name==version ; marker \\` and one hash a line."""


class LockError(Exception):
    """The locks do not hold what they must; the message names each line and says what to do."""


def main(arguments: list[str]) -> int:
    try:
        if arguments == ["--check"]:
            check(project(), constraints(), {kind: (LOCKS / f"{kind}.txt").read_text() for kind in HEADERS})
        elif not arguments:
            make()
        else:
            raise LockError(f"{arguments}: no option but --check")
    except (LockError, OSError) as error:
        print(f"lock: {error}", file=sys.stderr)
        return 1
    return 0


def make() -> None:
    """Writes every lock. Fails, and writes nothing, if one cannot be made."""
    everything, running = compiled("--extra", "test"), compiled()
    kinds: dict[str, dict[str, str]] = {kind: {} for kind in HEADERS}
    for name, line in everything.items():
        kinds[kind_of(name, running)][name] = line
    kinds["tools"] = compiled(source=f"uv=={UV}")
    kinds["torch-cpu"] = {v: " \\\n    --hash=sha256:".join([f"torch=={v}", *files.values()]) for v, files in CPU_BUILDS.items()}
    for kind, lines in kinds.items():
        body = "\n".join(lines[name] for name in sorted(lines))
        (LOCKS / f"{kind}.txt").write_text(f"# {HEADERS[kind]} Made by `make lock`; do not edit.\n{body}\n")


def kind_of(name: str, running: Locked) -> str:
    if name in BUILD:
        return "build"
    if name.startswith(TORCH):
        return "torch"
    return "run" if name in running else "test"


def compiled(*options: str, source: str | None = None) -> dict[str, str]:
    """What uv finds for pyproject.toml, or for one requirement: for every platform, from PyPI alone."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "-" if source else str(ROOT / "pyproject.toml"),
        "--quiet", "--no-config", "--no-header", "--no-annotate", "--universal", "--generate-hashes",
        "--python-version", OLDEST_PYTHON, "--default-index", "https://pypi.org/simple",
        "--constraint", str(ROOT / ".ci" / "constraints.txt"), *options,
    ]  # fmt: skip
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    if done.returncode:
        raise LockError(done.stderr.strip())
    return entries(done.stdout)


def entries(text: str) -> dict[str, str]:
    """The lines of each package, by its normal name."""
    found: dict[str, str] = {}
    plain = re.sub(r"^#.*\n", "", text, flags=re.M)
    for entry in re.split(r"\n(?=\S)", plain.strip()):
        if entry:
            found[normal(re.split(r"[ =<>~!;\[]", entry)[0])] = entry
    return found


# ---- the check


def project() -> list[str]:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = about["project"]["optional-dependencies"]["test"]
    return [*about["project"]["dependencies"], *extras, *about["build-system"]["requires"]]


def constraints() -> list[str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / ".ci" / "constraints.txt").read_text().splitlines())
    return [line for line in lines if line]


def check(required: Iterable[str], constrained: Iterable[str], locks: Mapping[str, str]) -> None:
    """Every package that is asked for or constrained is locked, at that version alone, and every line has a hash.

    Raises:
        LockError: something is missing, differs or has no hash.
    """
    wrong: list[str] = []
    pins: dict[str, str] = {}
    for kind, text in locks.items():
        for name, entry in entries(text).items():
            first, *rest = (line.removesuffix("\\").strip() for line in entry.splitlines())
            if not (pinned := re.fullmatch(r"[\w.-]+==([\w.!+]+)(?: ; .+)?", first)):
                wrong.append(f"{kind}.txt: {first!r} is not pinned by == to one version")
            elif (public := pinned[1].split("+")[0]) != pins.setdefault(name, public):
                wrong.append(f"{kind}.txt: {name} is locked at {public} here and at {pins[name]} elsewhere")
            if not rest or not all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in rest):
                wrong.append(f"{kind}.txt: {first!r} has no sha256, or something that is none")
    for requirement in {*required, *constrained}:
        name, operator, version = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*(==|>=)?\s*([\w.]*)", requirement).groups()
        locked = pins.get(normal(name))
        if locked is None:
            wrong.append(f"{requirement} is in no lock")
        elif operator == "==" and locked != version:
            wrong.append(f"{requirement} is locked at {locked}")
    if wrong:
        raise LockError("\n  ".join([f"{len(wrong)} problems: run `make lock`, and look at what it changes", *sorted(wrong)]))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
