"""One export from beginning to end: the policy's own answers, the files, the check with the format's runtime, the manifest.

Everything is written in a temporary folder beside the wanted one, which is renamed when the check has passed; the manifest is its last
file. An export that fails its check is renamed to `OUT.failed`, so that nobody takes it for one that passed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf import model_files
from rlhf.analysis import model_card, version_card
from rlhf.analysis.model_card import Exported
from rlhf.analysis.version_card import VersionCard
from rlhf.deploy import gguf_file, packages, policy
from rlhf.deploy.formats import Format
from rlhf.deploy.policy import LoadedPolicy
from rlhf.safe_files import ModelError
from storage.content import prompts
from storage.core.database import Database, now
from storage.core.records import PolicyVersion, Prompt

MANIFEST = "rankloop_export.json"
"""The file that is written last: lineage, check, and the hash of every other file."""

REPORT = "check.json"

PROMPTS = 16
"""Prompts whose answers are compared."""

CLIENTS = Path(__file__).parent / "clients"
"""A short program for each format, which stands in the card and in docs/how-to/export.md."""

RUNTIMES = {
    "hf": "hf", "peft": "peft_adapter", "onnx": "onnx_graph", "openvino": "openvino_graph", "litert": "litert_model",
    "savedmodel": "tf_saved_model",
}  # fmt: skip
"""The module of `runtimes` that reads each format; GGUF has two."""

Say = Callable[[str, float], None]
"""Called with what is being done and the fraction of the whole that is done, 0 to 1."""


class ExportFailed(Exception):
    """The export could not be written; the message is the last line that the program printed."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One answer of the policy beside the export's."""

    tokens: int
    first_divergence: int | None
    """The first token, counted from 0, that the export would choose otherwise; None where all are the same."""
    max_difference: float
    """Largest absolute difference of a logit."""
    kl: float
    """Mean KL divergence from the policy's distribution to the export's, in nats a token."""


@dataclass(frozen=True, slots=True)
class Check:
    """What the comparison of an export with its policy found."""

    runtime: str
    bound: str
    """What passes, in words."""
    passed: bool
    prompts: tuple[Comparison, ...]

    @property
    def same(self) -> int:
        """How many greedy answers are the same token for token."""
        return sum(of.first_divergence is None for of in self.prompts)

    @property
    def max_difference(self) -> float:
        return max(of.max_difference for of in self.prompts)

    @property
    def kl(self) -> float:
        """Mean over all tokens, in nats."""
        return sum(of.kl * of.tokens for of in self.prompts) / sum(of.tokens for of in self.prompts)

    def in_words(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        return (
            f"{self.same} of {len(self.prompts)} greedy answers are the same token for token; the largest difference of a logit is "
            f"{self.max_difference:.2g}, the mean KL {self.kl:.2g} nats a token. The check passes if {self.bound}: {verdict}."
        )


def export(store: Database, version: PolicyVersion, form: Format, out: Path, *, weights: str, say: Say) -> Check:
    """Writes a version to the folder `out`, which must not exist, and checks it.

    Args:
        weights: one of the format's types of weights.
        say: told about the progress.

    Raises:
        ExportFailed, ModelError, PackagesError: nothing is left at `out`.
    """
    if out.exists():
        raise ModelError(f"{out} exists already: name another folder, or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    say("loading the format's packages", 0.0)
    own = packages.install(form.packages, lambda line: say(line, 0.0))
    with _scratch(out) as scratch:
        made, reference = scratch / "export", scratch / "reference.npz"
        made.mkdir()
        say("loading the policy", 0.05)
        loaded = policy.load(store, version)
        say("writing the policy's own answers", 0.15)
        policy.write_reference(loaded, [prompt.messages for prompt in check_prompts(store)], reference)
        say(f"writing {form.name}", 0.3)
        card = version_card.of_version(store, version)
        base = loaded.base_folder
        _write(store, card, form, loaded, weights, made, scratch, own, say)
        # The merged weights are on the disk; a second copy of the model is about to be loaded.
        del loaded
        say(f"checking with {form.runtime}", 0.7)
        check = _check(form, weights, made, reference, scratch / "result.json", own, base, say)
        _finish(card, form, weights, made, check)
        target = out if check.passed else out.with_name(f"{out.name}.failed")
        if target != out:
            shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    say("done", 1.0)
    return check


def check_prompts(store: Database) -> list[Prompt]:
    """The prompts of the check: held out first, then others, oldest first."""
    return [*prompts.of_split(store, "heldout"), *prompts.of_split(store, "train")][:PROMPTS]


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A temporary folder on the same disk, so that the export can be renamed."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        yield Path(folder)


def _write(
    store: Database,
    card: VersionCard,
    form: Format,
    loaded: LoadedPolicy,
    weights: str,
    made: Path,
    scratch: Path,
    own: Path | None,
    say: Say,
) -> None:
    if form.name == "peft":
        policy.write_peft(store, card.version, made)
        return
    merged = made if form.name == "hf" else scratch / "merged"
    if form.name == "gguf" and (reason := gguf_file.refusal(loaded.base_folder)):
        raise ModelError(f"{card.base_name}: {reason}. Export it as hf and convert that with llama.cpp's convert_hf_to_gguf.py.")
    policy.write_hf(loaded, weights if form.name == "hf" else "float32", merged)
    if form.name == "gguf":
        gguf_file.write(
            merged, made / form.file, "q4_1" if weights == "q4_1" else "f16", name=card.version.name, licence=card.licence,
            progress=lambda done: say("writing gguf", 0.4 + 0.3 * done),
        )  # fmt: skip
    elif form.name != "hf":
        say(f"tracing the graph for {form.runtime}", 0.4)
        module = {"litert": "rlhf.deploy.litert_graph", "savedmodel": "rlhf.deploy.saved_model"}.get(form.name, "rlhf.deploy.graphs")
        _run([sys.executable, "-m", module, form.name, str(merged), str(made)], packages.environment_with(own))


def _check(form: Format, weights: str, made: Path, reference: Path, result: Path, own: Path | None, base: Path, say: Say) -> Check:
    module, runtime = runtime_of(form)
    total = PROMPTS

    def counted(line: str) -> None:
        if line.startswith("checked "):
            say(f"checking with {runtime}: {line.removeprefix('checked ')}", 0.7 + 0.28 * int(line.split()[1]) / total)

    environment = packages.environment_with(own) | {"BASE_MODEL": str(base)}
    _run([sys.executable, "-m", "rlhf.deploy.runtimes.check", module, str(made), str(reference), str(result)], environment, counted)
    compared = tuple(Comparison(**of) for of in json.loads(result.read_text(encoding="utf-8")))
    bound = form.bound_of(weights)
    unbounded = Check(runtime, bound.in_words(), False, compared)
    passed = (bound.max_difference is None or unbounded.max_difference <= bound.max_difference) and (
        bound.max_kl is None or unbounded.kl <= bound.max_kl
    )
    return Check(runtime, bound.in_words(), passed, compared)


def runtime_of(form: Format) -> tuple[str, str]:
    """The module of `runtimes` that reads the format here, and what it is called."""
    if form.name == "gguf":
        return ("gguf_llama", "llama.cpp") if find_spec("xllamacpp") else ("gguf_transformers", "transformers")
    return RUNTIMES[form.name], form.runtime


def _run(command: Sequence[str], environment: dict[str, str], heard: Callable[[str], None] = lambda line: None) -> None:
    """Runs a program to its end.

    Raises:
        ExportFailed: it failed.
    """
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        for line in process.stdout or ():
            heard(line.strip())
            lines = [*lines[-200:], line.rstrip()]
    if process.returncode:
        raise ExportFailed("\n".join(lines[-15:]) or f"the program ended with {process.returncode} and printed nothing")


def _finish(card: VersionCard, form: Format, weights: str, made: Path, check: Check) -> None:
    """Writes card, report and, last, the manifest."""
    (made / "README.md").write_text(model_card.text(card, described(card, form, weights, check)), encoding="utf-8")
    report = asdict(check) | {"same": check.same, "max_difference": check.max_difference, "kl": check.kl}
    (made / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    hashes = {str(file.relative_to(made)): model_files.sha256(file) for file in sorted(made.rglob("*")) if file.is_file()}
    manifest = {"format": form.name, "weights": weights, "created_at": now(), "passed": check.passed, **lineage(card), "sha256": hashes}
    part = made / f"{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    os.replace(part, made / MANIFEST)


def described(card: VersionCard, form: Format, weights: str, check: Check) -> Exported:
    """The export's own part of its card."""
    what = f"{card.version.name} of {card.base_name}" if card.version.kind == "tuned" else card.base_name
    summary = f"{what}, exported by rankloop as {form.name} ({weights}): {form.what}."
    client = (CLIENTS / f"{form.name}_client.py").read_text(encoding="utf-8")
    use = f"Needs `pip install {form.client_packages}`. Run it in this folder.\n\n```python\n{client}```"
    return Exported(
        form.library, summary, use, f"Compared with the policy on {len(check.prompts)} prompts with {check.runtime}: {check.in_words()}"
    )


def lineage(card: VersionCard) -> dict[str, Any]:
    """Where the version comes from, without anything of people or of folders of this machine."""
    run = card.run
    return {
        "version": card.version.name,
        "kind": card.version.kind,
        "base": card.base_id or card.base_name,
        "licence": card.licence,
        "run": run and {"id": run.id, "created_at": run.created_at, "seed": run.seed, "packages": run.versions},
        "snapshot_sha256": card.data.sha256 or None,
        "options": model_card.changed_options(card),
    }
