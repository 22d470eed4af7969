"""Field maps of a user's own: as a text (`prompt=question,chosen=better,rejected=worse`), and saved under a name as TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from storage.core.database import StoreError
from storage.exchange import atomic_files
from storage.exchange.field_maps import FieldMap, Outcome

NAME = re.compile(r"[\w][\w.-]{0,63}")
MAX_MAP_BYTES = 64 * 1024

MAP_FIELDS = (
    "prompt", "system", "history", "chosen", "rejected", "completions", "winner", "flags", "scores", "ranks", "label", "models",
    "annotator", "created_at", "rationale", "kind", "split",
)  # fmt: skip
"""What a field of a row can be."""

WORDS: Mapping[str, Outcome] = {"first": 0, "second": 1, "third": 2, "tie": "tie", "both_bad": "both_bad"}
"""What a value of `winner` can mean. `good` and `bad` are those of `label`."""

HELP = (
    f"which field is what, as prompt=question,chosen=better,rejected=worse, or prompt=question alone: {', '.join(MAP_FIELDS)}; `+` joins "
    "fields, `a.b` goes into an object, `a[].b` through a list; first=, second=, tie= and both_bad= give the values of winner, "
    "good= and bad= those of label; `sides=known` says that the answers were shown in this order. Or the name or the "
    "TOML file of a saved map"
)


def parse(text: str) -> FieldMap:
    """A field map from its text.

    Raises:
        StoreError: the text is none, or says too little to read a row.
    """
    entries: dict[str, str] = {}
    for entry in text.split(","):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not equals or not value:
            raise StoreError(f"--map {text[:200]!r}: {entry[:80]!r} is not NAME=FIELD; fields with a comma go into a TOML file.")
        if name in entries:
            raise StoreError(f"--map {text[:200]!r}: {name} stands twice; join fields by +, as {name}=a+b.")
        entries[name] = value
    return of(entries)


def of(entries: Mapping[str, str]) -> FieldMap:
    """A field map from its entries.

    Raises:
        StoreError: an entry is unknown, or they say too little to read a row.
    """
    known = {*MAP_FIELDS, *WORDS, "good", "bad", "sides"}
    if unknown := [name for name in entries if name not in known]:
        choices = ", ".join([*MAP_FIELDS, *WORDS, "good", "bad", "sides"])
        raise StoreError(f"--map knows no {', '.join(unknown)[:80]}: choose from {choices}.")
    paths = {name: (tuple(value.split("+")) if name == "flags" else (value,)) for name, value in entries.items() if name in MAP_FIELDS}
    outcomes = {value.lower(): WORDS[name] for name, value in entries.items() if name in WORDS}
    found = FieldMap(outcomes=outcomes, sides_known=entries.get("sides") == "known", **cast(Any, paths))
    if entries.get("sides", "known") not in ("known", "unknown"):
        raise StoreError(f"--map sides= is known or unknown, not {entries['sides'][:40]!r}.")
    for name in ("good", "bad"):
        if name in entries:
            found = replace(found, **cast(Any, {name: (entries[name].lower(),)}))
    if bool(found.chosen) != bool(found.rejected):
        raise StoreError("--map needs both chosen and rejected.")
    if found.chosen and found.completions:
        raise StoreError("--map needs chosen and rejected, or completions, not both.")
    if not found.prompt and not found.chosen and not found.completions:
        raise StoreError("--map needs the prompt, or the answers: prompt=FIELD, chosen=FIELD,rejected=FIELD or completions=FIELD+FIELD.")
    verdicts = ("winner", "flags", "scores", "ranks", "label", "models")
    if not found.chosen and not found.completions and (said := [name for name in verdicts if name in entries]):
        raise StoreError(f"--map has {', '.join(said)} and no answers: chosen=FIELD,rejected=FIELD or completions=FIELD+FIELD.")
    if found.completions and not (found.winner or found.flags or found.scores or found.ranks or found.label):
        raise StoreError("--map needs the verdict beside completions: winner, flags, scores, ranks or label.")
    return found


def load(given: str, folder: Path) -> FieldMap:
    """The field map that `--map` names: entries, a TOML file, or a name under which one was saved in the folder.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    if "=" in given:
        return parse(given)
    path = Path(given) if given.endswith(".toml") else saved(folder, given)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_MAP_BYTES + 1)
        entries = tomllib.loads(content.decode()) if len(content) <= MAX_MAP_BYTES else None
    except OSError as error:
        there = ", ".join(names(folder)) or "none"
        raise StoreError(f"There is no map {given!r} ({error.strerror}): saved are {there}. Write one as --map prompt=FIELD,….") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not TOML: {str(error)[:200]}.") from error
    if entries is None or not all(isinstance(value, str) for value in entries.values()):
        raise StoreError(f'{path} is no map: each line must be NAME = "FIELD", and the file have at most 64 KiB.')
    return of(entries)


def given(text: str, folder: Path) -> FieldMap:
    """As `load`, of a text that a page took: entries, or a name under which a map was saved, but no path.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    return parse(text) if "=" in text else load(saved(folder, text).stem, folder)


def save(text: str, folder: Path, name: str) -> Path:
    """Saves the entries of a `--map` under a name.

    Raises:
        StoreError: the text is no map, or the file cannot be written.
    """
    parse(text)
    path = saved(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = (entry.partition("=") for entry in text.split(","))
    with atomic_files.atomic_write_text(path) as file:
        for key, _, value in pairs:
            file.write(f"{key.strip()} = {_quoted(value.strip())}\n")
    return path


def saved(folder: Path, name: str) -> Path:
    """Where the map of this name is.

    Raises:
        StoreError: it cannot be a file's name.
    """
    if not NAME.fullmatch(name):
        raise StoreError(f"{name[:80]!r} cannot be a map's name: take letters, digits, dots and hyphens, 64 at most.")
    return folder / "maps" / f"{name}.toml"


def names(folder: Path) -> list[str]:
    """The names of the saved maps."""
    return sorted(path.stem for path in (folder / "maps").glob("*.toml"))


def _quoted(text: str) -> str:
    escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else "\\" + c if c in '"\\' else c for c in text)
    return f'"{escaped}"'
