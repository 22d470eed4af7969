"""The formats by their names on the command line: how they are recognised, read and written.

A reader turns one record of a file into items. The native format exports a whole store and has no records or items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from storage.exchange import (
    arena,
    argilla,
    export,
    field_maps,
    helpsteer3,
    hh_rlhf,
    kto,
    labelstudio,
    map_writer,
    mapped,
    oasst,
    plain,
    prompts_jsonl,
    sft,
    sinks,
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
    write: export.Writer | Callable[..., export.Exported] | None
    unit: str
    """The name of what one exported row is."""
    container: Container | None = None
    """The container that the format requires; None if it is detected."""
    signs: Signs = ()
    """What its rows are recognised by, any of these."""
    beside: Callable[[Record], Sequence[str]] | None = None
    """The fields of a row that the format knows nothing of and that may hold votes. Such a row is not recognised."""
    ignored: tuple[str, ...] = ()
    """Fields that number a row or repeat others: they are not kept, and `--strict` lets them pass."""
    fields: field_maps.FieldMap | None = None
    """The map that its reader goes by, if any."""
    group: str | None = None
    """The field by which rows that follow each other are read together."""
    columns: tuple[str, ...] = ()
    """Names that its reader knows, beside those of its signs. Columns that are spelt otherwise get these names."""
    keeps: tuple[str, ...] = ()
    """What is read beside a prompt and which of two answers is better, in the words of `THINGS`. `written` holds what is written."""

    @property
    def names(self) -> frozenset[str]:
        """Every name of a column that its reader knows."""
        of_signs = {field.split("=")[0] for sign in self.signs for field in sign if "*" not in field}
        return frozenset({*of_signs, *self.columns, *(name for name in self.ignored if "." not in name and "[" not in name)})

    @property
    def suffix(self) -> str:
        """What the name of an exported file usually ends in."""
        sink = self.write.sink if isinstance(self.write, export.Writer) else sinks.lines
        if self.container == "csv" or (isinstance(sink, partial) and sink.func is sinks.csv_table):
            return ".csv"
        if self.container == "parquet":
            return ".parquet"
        return ".json" if sink is sinks.json_list else ".jsonl"

    @property
    def written(self) -> tuple[str, ...]:
        """What is written beside a prompt and which of two answers is better, in the words of `THINGS`."""
        return self.write.keeps if isinstance(self.write, export.Writer) else ()


def _by_map(name: str, *signs: Sign, group: str | None = None, unit: str = "", write: export.Writer | None = None) -> Format:
    fields = field_maps.MAPS[name]
    read = partial(mapped.read, fields)
    return Format(
        read, write, unit, signs=signs, ignored=fields.ignored, fields=fields, group=group, columns=fields.columns(),
        keeps=field_maps.things_of(fields),
    )  # fmt: skip


def _pairs(write: export.Writer, *signs: Sign) -> Format:
    fields = field_maps.TRL
    return Format(
        trl.read, write, "preference pairs", signs=signs, ignored=fields.ignored, columns=fields.columns(),
        keeps=field_maps.things_of(fields),
    )  # fmt: skip


def _pairwise(first: str, second: str) -> Iterator[Sign]:
    for answer, verdict in product(field_maps.ANSWERS, field_maps.VERDICTS):
        yield answer + first, answer + second, verdict


def _plain(
    write: export.Writer,
    container: Container | None,
    signs: Signs = (),
    beside: Callable[[Record], Sequence[str]] | None = None,
) -> Format:
    return Format(
        plain.read,
        write,
        "judgments",
        container,
        signs=signs,
        beside=beside,
        ignored=plain.DERIVED,
        columns=plain.COLUMNS,
        keeps=plain.KEEPS,
    )


_PLAIN: Signs = (("prompt=text", "completions=texts"), ("messages=list", "completions=texts"))

FORMATS: dict[str, Format] = {
    "prompts": Format(
        prompts_jsonl.read, prompts_jsonl.write, "prompts", signs=tuple((path.split("+")[0],) for path in prompts_jsonl.PROMPTS),
        beside=prompts_jsonl.beside, ignored=prompts_jsonl.IGNORED_FIELDS, columns=prompts_jsonl.COLUMNS,
    ),
    "lines": Format(prompts_jsonl.read, None, "", "lines"),
    "paragraphs": Format(prompts_jsonl.read, None, "", "paragraphs"),
    "trl": _pairs(
        trl.write, ("prompt", "chosen", "rejected"), ("chosen=messages", "rejected=messages"), ("query", "chosen", "rejected"),
        ("input=object", "preferred_output", "non_preferred_output"), ("prompt", "chosen_response", "rejected_response"),
        ("question", "chosen_response", "rejected_response"), ("prompt", "preferred_output", "non_preferred_output"),
    ),
    "trl-implicit": _pairs(trl.write_implicit),
    "llama-factory": _pairs(
        trl.write_sharegpt, ("conversations=list", "chosen", "rejected"), ("instruction", "chosen", "rejected"),
        ("chosen_messages=list", "rejected_messages=list"),
    ),
    "llama-factory-alpaca": _pairs(trl.write_alpaca),
    "axolotl": _pairs(
        trl.write_axolotl,
        ("messages=list", "chosen", "rejected"), ("question", "chosen", "rejected"), ("input=text", "chosen", "rejected"),
        ("instruction", "chosen_response", "rejected_response"), ("conversation=list", "chosen", "rejected"),
    ),
    "openrlhf": _pairs(trl.write_implicit, ("context=list", "chosen", "rejected"), ("context_messages=list", "chosen", "rejected")),
    "hh-rlhf": Format(
        hh_rlhf.read, hh_rlhf.write, "preference pairs", keeps=hh_rlhf.KEEPS, signs=(("chosen=dialogue", "rejected=dialogue"),)
    ),
    "oasst": Format(
        oasst.read, oasst.write, "trees", ignored=oasst.IGNORED_FIELDS, keeps=oasst.KEEPS,
        signs=(("prompt=object", "message_tree_id"), ("prompt=tree",)),
    ),
    "oasst-messages": Format(
        trees.read_oasst_messages, None, "", ignored=oasst.IGNORED_FIELDS, group="message_tree_id",
        keeps=oasst.KEEPS, signs=(("message_id", "message_tree_id", "text", "role"),),
    ),
    "open-webui": Format(
        trees.read_webui, None, "", ignored=trees.WEBUI_IGNORED_FIELDS,
        keeps=("system", "turns", "several", "models", "annotator", "time", "reason", "ratings"),
        signs=(("data=object", "snapshot=object", "meta=object"),),
    ),
    "librechat": Format(
        trees.read_librechat, None, "", ignored=trees.LIBRECHAT_IGNORED, keeps=("system", "turns", "models", "time", "reason"),
        signs=(("conversationId", "exportAt", "messages=list"), ("conversationId", "exportAt", "messagesTree=list")),
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
        keeps=ultrafeedback.KEEPS, columns=("annotator", "source"), ignored=("models",), signs=(("instruction", "completions=objects"),)),
    "helpsteer2": _by_map("helpsteer2", ("prompt", "response", "helpfulness", "correctness"), group="prompt"),
    "helpsteer2-preference": _by_map(
        "helpsteer2-preference", ("prompt", "response_1", "response_2", "preference_strength"),
        unit="judgments", write=map_writer.writer(field_maps.MAPS["helpsteer2-preference"], "prompt"),
    ),
    "helpsteer3": Format(
        helpsteer3.read, helpsteer3.write, "comparisons",
        keeps=helpsteer3.KEEPS, columns=("individual_preference", "model1", "model2", "domain"), ignored=("overall_preference",),
        signs=(("context=list", "response1", "response2", "overall_preference"),),
    ),
    "argilla": Format(
        argilla.read, argilla.write, "records", ignored=argilla.IGNORED_FIELDS,
        keeps=(*argilla.KEEPS, "time", "strength"),
        signs=(("fields=object", "responses"), ("fields=object", "suggestions"), ("fields=object", "status"),
               ("*.responses", "*.responses.users"), ("*-suggestion", "external_id"), ("*-suggestion", "*-suggestion-metadata")),
    ),
    "labelstudio": Format(
        labelstudio.read, labelstudio.write, "tasks", ignored=labelstudio.IGNORED_FIELDS, keeps=labelstudio.KEEPS,
        signs=(("data=object", "annotations=list"), ("annotation_id", "lead_time"), ("annotation_id", "annotator")),
    ),
    "arena": Format(
        arena.read, arena.write, "battles", keeps=arena.KEEPS, ignored=arena.IGNORED_FIELDS,
        signs=(("conversation_a=list", "conversation_b=list", "winner"),),
    ),
    "arena-55k": _by_map(
        "arena-55k", ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"),
        unit="battles", write=map_writer.writer(field_maps.MAPS["arena-55k"], "prompt[]", csv_columns=(
            "id", "model_a", "model_b", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie",
            field_maps.SIDES_KNOWN)),
    ),
    "comparia": _by_map(
        "comparia", ("conversation_a=list", "conversation_b=list", "model_a_name", "model_b_name", "chosen_model_name"),
        ("conversation_a=list", "conversation_b=list", "model_a_name", "model_b_name", "both_equal"),
    ),
    "scored": _by_map("scored", *(
        (f"{answer}s=texts", name) for answer in field_maps.ANSWERS for name in ("scores=list", "rewards=list", "ratings=list")
    )),
    "ranked": _by_map("ranked", *((f"{answer}s=texts", "ranks=list") for answer in field_maps.ANSWERS)),
    "pairwise": _by_map("pairwise", *_pairwise("_a", "_b")),
    "pairwise-numbered": _by_map("pairwise-numbered", *_pairwise("_1", "_2")),
    "alpacaeval": _by_map(
        "alpacaeval", ("instruction", "output_1", "output_2", "preference"), ("prompt", "output_1", "output_2", "preference"),
        unit="judgments", write=map_writer.writer(field_maps.MAPS["alpacaeval"], "instruction", sink=sinks.json_list),
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
        ("prompt", "generations=texts", "ratings"), ("instruction", "generations=texts", "ratings", "chosen", "rejected"),
        ("input", "generations=texts", "rating", "chosen", "rejected"), ("prompt", "generations=texts", "ratings", "chosen", "rejected"),
    ),
    "stack-exchange-paired": _by_map("stack-exchange-paired", ("question", "response_j", "response_k")),
    "kto": _by_map(
        "kto", ("prompt", "completion", "label=flag"), ("messages=list", "label=flag"), ("messages=list", "kto_tag=flag"),
        ("conversations=list", "kto_tag=flag"), ("conversations=list", "label=flag"), ("instruction", "output", "kto_tag=flag"),
        ("instruction", "output", "label=flag"), ("instruction", "completion", "label=flag"), ("question", "completion", "label=flag"),
        ("input", "output", "label=flag"), unit="labelled completions", write=kto.write,
    ),
    "anythingllm": _by_map("anythingllm", ("prompt", "response", "rating", "workspace"), ("prompt", "response", "feedbackScore")),
    "plain": _plain(plain.write, None, _PLAIN, plain.beside),
    "jsonl": _plain(plain.write_jsonl, "json"),
    "csv": _plain(plain.write_csv, "csv"),
    "parquet": _plain(plain.write_parquet, "parquet"),
    "sft": Format(None, sft.write, "demonstrations"),
}  # fmt: skip

PROMPTS_ALONE = ("prompts", "lines", "paragraphs")
"""Formats that hold prompts and no votes."""

NATIVE = "native"

READABLE = [*(name for name, format in FORMATS.items() if format.read), NATIVE]
WRITABLE = [*(name for name, format in FORMATS.items() if format.write), NATIVE]
