"""The formats by their names on the command line: how they are recognised, read and written.

A reader turns one record of a file into items. The native format exports a whole store and has no records or items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from storage.exchange import (
    arena,
    argilla,
    field_maps,
    helpsteer3,
    hh_rlhf,
    kto,
    labelstudio,
    mapped,
    oasst,
    plain,
    prompts_jsonl,
    sft,
    trees,
    trl,
    ultrafeedback,
)
from storage.exchange.files import Container
from storage.exchange.rows import Found, Record

Sign = tuple[str, ...]
"""Fields that a format's rows have together. `field=kind` asks for a kind of value, see `detect.KINDS`; `*` stands for any name."""

Signs = tuple[Sign, ...]


@dataclass(frozen=True, slots=True)
class Format:
    """A file format. `read` is None if it cannot be imported, `write` is None if it cannot be exported."""

    read: Callable[[Record], Iterable[Found]] | None
    write: Callable[..., int] | None
    unit: str
    """The name of what one exported row is."""
    container: Container | None = None
    """The container that the format requires; None if it is detected."""
    signs: Signs = ()
    """What its rows are recognised by, any of these."""
    only: tuple[str, ...] = ()
    """If not empty, a row with another field than these is not recognised: it may hold votes that the format knows nothing of."""
    ignored: tuple[str, ...] = ()
    """Fields that number a row or repeat others: they are not kept, and `--strict` lets them pass."""
    group: str | None = None
    """The field by which rows that follow each other are read together."""
    keeps: tuple[str, ...] = ()
    """What is read beside a prompt and which of two answers is better, in the words of `THINGS`."""


THINGS = {
    "system": "system message", "turns": "earlier turns", "ties": "ties", "several": "more than two answers", "models": "models",
    "annotator": "annotator", "time": "time", "reason": "reason", "strength": "strength", "ratings": "ratings", "sides": "sides",
}  # fmt: skip
"""What rows of some formats hold beside a prompt and which of two answers is better."""


def things_of(fields: field_maps.FieldMap) -> tuple[str, ...]:
    """The `THINGS` that rows of a map can hold."""
    listed = any("[]" in path and "+" not in path for path in fields.completions) or len(fields.rejected) > 0
    found = {
        "system": bool(fields.system), "turns": bool(fields.history) or fields.usual_prompt or not fields.prompt,
        "ties": bool(fields.scores or fields.ranks or len(fields.flags) > 2 or "tie" in fields.outcomes.values()), "several": listed,
        "models": bool(fields.models), "annotator": bool(fields.annotator) or fields.each, "time": bool(fields.created_at),
        "reason": bool(fields.rationale), "strength": bool(fields.strengths), "ratings": bool(fields.ratings), "sides": fields.sides_known,
    }  # fmt: skip
    return tuple(name for name, holds in found.items() if holds)


def _by_map(name: str, *signs: Sign, group: str | None = None) -> Format:
    fields = field_maps.MAPS[name]
    read = partial(mapped.read, fields)
    return Format(read, None, "", signs=signs, ignored=fields.ignored, group=group, keeps=things_of(fields))


def _pairs(*signs: Sign) -> Format:
    return Format(trl.read, None, "", signs=signs, ignored=field_maps.TRL.ignored, keeps=things_of(field_maps.TRL))


_PLAIN: Signs = (("prompt=text", "completions=texts"), ("messages=list", "completions=texts"))

FORMATS: dict[str, Format] = {
    "prompts": Format(
        prompts_jsonl.read, prompts_jsonl.write, "prompts", signs=tuple((path.split("+")[0],) for path in prompts_jsonl.PROMPTS),
        only=prompts_jsonl.KNOWN, ignored=prompts_jsonl.IGNORED,
    ),
    "trl": Format(
        trl.read, trl.write, "preference pairs", ignored=field_maps.TRL.ignored, keeps=things_of(field_maps.TRL),
        signs=(("prompt", "chosen", "rejected"), ("chosen=messages", "rejected=messages"), ("query", "chosen", "rejected"),
               ("input=object", "preferred_output", "non_preferred_output")),
    ),
    "trl-implicit": Format(
        trl.read, trl.write_implicit, "preference pairs", ignored=field_maps.TRL.ignored, keeps=things_of(field_maps.TRL)
    ),
    "llama-factory": _pairs(("conversations=list", "chosen", "rejected"), ("instruction", "chosen", "rejected")),
    "axolotl": _pairs(
        ("messages=list", "chosen", "rejected"), ("question", "chosen", "rejected"), ("input=text", "chosen", "rejected"),
        ("instruction", "chosen_response", "rejected_response"), ("conversation=list", "chosen", "rejected"),
    ),
    "openrlhf": _pairs(("context=list", "chosen", "rejected")),
    "hh-rlhf": Format(
        hh_rlhf.read, hh_rlhf.write, "preference pairs", keeps=("system", "turns"), signs=(("chosen=dialogue", "rejected=dialogue"),)
    ),
    "oasst": Format(
        oasst.read, oasst.write, "trees", ignored=oasst.IGNORED, keeps=("turns", "ties", "several", "models"),
        signs=(("prompt=object", "message_tree_id"), ("prompt=tree",)),
    ),
    "oasst-messages": Format(
        trees.read_oasst_messages, None, "", ignored=oasst.IGNORED, group="message_tree_id",
        keeps=("turns", "ties", "several", "models"), signs=(("message_id", "message_tree_id", "text", "role"),),
    ),
    "open-webui": Format(
        trees.read_webui, None, "", ignored=trees.WEBUI_IGNORED,
        keeps=("system", "turns", "several", "models", "annotator", "time", "reason", "ratings"),
        signs=(("data=object", "snapshot=object", "meta=object"),),
    ),
    "prism": Format(
        trees.read_prism, None, "", keeps=("turns", "ties", "several", "models", "annotator", "time"),
        ignored=("conversation_id", "conversation_history[].within_turn_id", "conversation_history[].model_provider", "opening_prompt",
                 "conversation_turns"),
        signs=(("conversation_history=list", "opening_prompt"), ("conversation_history=list", "conversation_id")),
    ),
    "prism-utterances": Format(
        trees.read_prism, None, "", keeps=("turns", "ties", "several", "models", "annotator"), group="conversation_id",
        ignored=tuple(f"rows[].{name}" for name in (
            "utterance_id", "interaction_id", "conversation_id", "within_turn_id", "model_provider", "conversation_type")),
        signs=(("utterance_id", "user_prompt", "model_response", "score"),),
    ),
    "ultrafeedback": Format(ultrafeedback.read, ultrafeedback.write, "rankings",
        keeps=("ties", "several", "models", "ratings"), signs=(("instruction", "completions=objects"),)),
    "helpsteer2": _by_map("helpsteer2", ("prompt", "response", "helpfulness", "correctness"), group="prompt"),
    "helpsteer2-preference": _by_map("helpsteer2-preference", ("prompt", "response_1", "response_2", "preference_strength")),
    "helpsteer3": Format(
        helpsteer3.read, helpsteer3.write, "comparisons",
        keeps=("system", "turns", "ties", "models", "annotator", "reason", "strength"),
        signs=(("context=list", "response1", "response2", "overall_preference"),),
    ),
    "argilla": Format(
        argilla.read, argilla.write, "records", ignored=argilla.IGNORED,
        keeps=("system", "turns", "ties", "several", "models", "annotator", "time", "reason", "strength"),
        signs=(("fields=object", "responses"), ("fields=object", "suggestions"), ("fields=object", "status"),
               ("*.responses", "*.responses.users"), ("*-suggestion", "external_id")),
    ),
    "labelstudio": Format(
        labelstudio.read, labelstudio.write, "tasks", ignored=labelstudio.IGNORED, keeps=tuple(THINGS),
        signs=(("data=object", "annotations=list"), ("annotation_id", "lead_time"), ("annotation_id", "annotator")),
    ),
    "arena": Format(
        arena.read, arena.write, "battles", keeps=("system", "turns", "ties", "models", "annotator", "time", "sides"),
        signs=(("conversation_a=list", "conversation_b=list", "winner"),),
    ),
    "arena-55k": _by_map("arena-55k", ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b")),
    "comparia": _by_map("comparia", ("conversation_a=list", "conversation_b=list", "model_a_name", "model_b_name")),
    "alpacaeval": _by_map(
        "alpacaeval", ("instruction", "output_1", "output_2", "preference"), ("prompt", "output_1", "output_2", "preference")
    ),
    "llmbar": _by_map("llmbar", ("input", "output_1", "output_2", "label"), ("instruction", "output_1", "output_2", "label")),
    "pandalm": _by_map("pandalm", ("instruction", "response1", "response2", "annotator1")),
    "pku-saferlhf": _by_map("pku-saferlhf", ("prompt", "response_0", "response_1", "better_response_id")),
    "shp": _by_map("shp", ("history", "human_ref_A", "human_ref_B", "labels")),
    "webgpt": _by_map("webgpt", ("question", "answer_0", "answer_1", "score_0", "score_1")),
    "summarize": _by_map("summarize", ("info=object", "summaries=objects", "choice")),
    "nectar": _by_map("nectar", ("prompt", "answers=objects")),
    "distilabel": _by_map(
        "distilabel", ("instruction", "generations=texts", "ratings"), ("input", "generations=texts", "rating"),
        ("prompt", "generations=texts", "ratings"),
    ),
    "stack-exchange-paired": _by_map("stack-exchange-paired", ("question", "response_j", "response_k")),
    "kto": replace(
        _by_map(
            "kto", ("prompt", "completion", "label=flag"), ("messages=list", "label=flag"), ("messages=list", "kto_tag=flag"),
            ("conversations=list", "kto_tag=flag"), ("conversations=list", "label=flag"), ("instruction", "output", "kto_tag=flag"),
            ("instruction", "output", "label=flag"),
        ),
        write=kto.write, unit="labelled completions",
    ),
    "anythingllm": _by_map("anythingllm", ("prompt", "response", "rating", "workspace"), ("prompt", "response", "feedbackScore")),
    "plain": Format(plain.read, plain.write, "judgments", signs=_PLAIN, ignored=plain.DERIVED, keeps=tuple(THINGS)),
    "jsonl": Format(plain.read, plain.write_jsonl, "judgments", "json", ignored=plain.DERIVED, keeps=tuple(THINGS)),
    "csv": Format(plain.read, plain.write_csv, "judgments", "csv", ignored=plain.DERIVED, keeps=tuple(THINGS)),
    "parquet": Format(plain.read, plain.write_parquet, "judgments", "parquet", ignored=plain.DERIVED, keeps=tuple(THINGS)),
    "sft": Format(None, sft.write, "demonstrations"),
}  # fmt: skip

NATIVE = "native"

READABLE = [*(name for name, format in FORMATS.items() if format.read), NATIVE]
WRITABLE = [*(name for name, format in FORMATS.items() if format.write), NATIVE]
