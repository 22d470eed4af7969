"""The formats by their names on the command line, with their readers and writers.

A reader turns one record of a file into items. The native format exports a whole store and has no records or items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from storage.exchange import arena, argilla, helpsteer3, hh_rlhf, labelstudio, oasst, plain, prompts_jsonl, sft, trl, ultrafeedback
from storage.exchange.files import Container
from storage.exchange.rows import Item, Record


@dataclass(frozen=True, slots=True)
class Format:
    """A file format. `read` is None if it cannot be imported, `write` is None if it cannot be exported."""

    read: Callable[[Record], Iterable[Item]] | None
    write: Callable[..., int] | None
    unit: str
    """The name of what one exported row is."""
    container: Container | None = None
    """The container that the format requires; None if it is detected."""


FORMATS: dict[str, Format] = {
    "prompts": Format(prompts_jsonl.read, prompts_jsonl.write, "prompts"),
    "trl": Format(trl.read, trl.write, "preference pairs"),
    "trl-implicit": Format(trl.read, trl.write_implicit, "preference pairs"),
    "hh-rlhf": Format(hh_rlhf.read, hh_rlhf.write, "preference pairs"),
    "oasst": Format(oasst.read, oasst.write, "trees"),
    "ultrafeedback": Format(ultrafeedback.read, ultrafeedback.write, "rankings"),
    "helpsteer3": Format(helpsteer3.read, helpsteer3.write, "comparisons"),
    "argilla": Format(argilla.read, argilla.write, "records"),
    "labelstudio": Format(labelstudio.read, labelstudio.write, "tasks"),
    "arena": Format(arena.read, arena.write, "battles"),
    "plain": Format(plain.read, plain.write, "judgments"),
    "jsonl": Format(plain.read, plain.write_jsonl, "judgments", "json"),
    "csv": Format(plain.read, plain.write_csv, "judgments", "csv"),
    "parquet": Format(plain.read, plain.write_parquet, "judgments", "parquet"),
    "sft": Format(None, sft.write, "demonstrations"),
}

NATIVE = "native"

READABLE = [*(name for name, format in FORMATS.items() if format.read), NATIVE]
WRITABLE = [*(name for name, format in FORMATS.items() if format.write), NATIVE]
