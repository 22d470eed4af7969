"""Writes the pages of docs/reference from the code: `python docs/reference/generate.py`.

Every fact comes from the code that holds it: options from `rlhf.config`, commands from the argument parser, tables from the
migrations, requests from the policy server's OpenAPI description, formats from `storage.exchange.formats`, metrics from
`rlhf.runs.metric_table`.
`--check` writes nothing, and exits with 1 if a page differs. tests/test_reference.py runs the same comparison.
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def page(title: str, introduction: str, *parts: str) -> str:
    made = "<!-- Written by docs/reference/generate.py. Change the code that it reads, then run it again. -->"
    return "\n\n".join([f"# {title}", made, introduction, *parts]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def code(value: Any) -> str:
    return f"`{value}`"


def options_page() -> str:
    from rlhf import config

    defaults, laptop, tiny = ({o.name: o for o in config.options(p)} for p in (config.RoundConfig(), *_presets("laptop", "tiny")))
    sections: dict[str, list[list[str]]] = {}
    for name, option in defaults.items():
        kind = ", ".join(map(code, option.choices)) or KINDS[option.type] + (" or off" if option.optional else "")
        kind += f", {option.bounds}" if option.bounds else ""
        values = [_value(found[name].default) for found in (defaults, laptop, tiny)]
        if laptop[name].default == tiny[name].default == option.default:
            values = [values[0], "", ""]
        sections.setdefault(option.section or "The round itself", []).append([code(f"--{name}"), kind, *values, option.help])
    head = ["option", "values", "default", "laptop", "tiny", "what it sets"]
    return page(
        "Options of a round",
        "Every option of `rankloop train`; the form of the Training page has the same ones. `--preset` chooses a column: `laptop` is the "
        "preset that is used without `--preset`, `tiny` is for trying out. An empty cell is the default. `train --help` prints the same.",
        *(f"## {title}\n\n{table(head, rows)}" for title, rows in sections.items()),
    )


KINDS = {str: "text", int: "whole number", float: "number", bool: "on or off"}


def _presets(*names: str) -> list[Any]:
    from rlhf.config import PRESETS

    return [PRESETS[name] for name in names]


def _value(value: Any) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def command_line_page() -> str:
    from launch import build_parser

    parts = []
    for name, parser in _verbs(build_parser()):
        rows = [row for action in parser._actions if (row := _argument(action, name))]
        usage = " ".join(["rankloop", name, *(_positional(a) for a in parser._actions if not a.option_strings)])
        more = "\n\nThen the [options of the round](options.md)." if name == "train" else ""
        listed = table(["argument", "default", "what it sets"], rows)
        parts.append(f"## {name}\n\n{parser.description or ''}\n\n```text\n{usage} [options]\n```\n\n{listed}{more}")
    return page(
        "Command line",
        "`rankloop` is the same as `python launch.py`. `rankloop` alone means `rankloop serve`. The exit status is 0 when the work is "
        "done, 1 when it is not well, 2 when it is refused, and 130 after Ctrl-C. Every verb takes `--help`.",
        *parts,
    )


def _verbs(parser: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, under in action.choices.items():
                inner = list(_verbs(under, f"{before}{name} "))
                yield from inner or [(before + name, under)]


def _positional(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest).upper()
    return f"[{name}]" if action.nargs in ("?", "*") else name


def _argument(action: argparse.Action, verb: str) -> list[str] | None:
    from rlhf.config import PRESETS, options

    round_options = {f"--{option.name}" for option in options(PRESETS["laptop"])}
    if (
        isinstance(action, argparse._HelpAction)
        or action.help is argparse.SUPPRESS
        or (verb == "train" and set(action.option_strings) & round_options)
    ):
        return None
    takes = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    name = code(", ".join(action.option_strings) + takes) if action.option_strings else code(_positional(action))
    nothing = action.nargs == 0 or action.default is None or action.default in ("", argparse.SUPPRESS, [])
    default = "" if nothing else code(action.default)
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    if action.choices is not None:
        text += f": {', '.join(map(code, action.choices))}" if text else ", ".join(map(code, action.choices))
    return [name, default, text]


def metrics_page() -> str:
    from rlhf.runs.metric_table import METRICS

    rooms: dict[str, list[list[str]]] = {}
    for metric in METRICS:
        rooms.setdefault(metric.name.split("/")[0], []).append([code(metric.name), metric.unit, metric.meaning])
    return page(
        "Metrics",
        "A metric is a number that a round logs at a step; it is a row of the table `metrics` in the [store](store-schema.md). The names "
        "are TRL's where TRL has the metric. RLOO and GRPO log under these names too; what only their trainer knows stands under "
        "`rloo/` or `grpo/`, and the metrics of DPO and SFT under `dpo/` and `sft/`, with TRL's names; "
        "those that the Training page draws are below.",
        *(f"## {room}/\n\n{table(['metric', 'unit', 'meaning'], rows)}" for room, rows in rooms.items()),
    )


def http_api_page() -> str:
    from rlhf.generation.http_guard import MAX_BODY_BYTES
    from rlhf.generation.policy_service import PolicyService
    from rlhf.generation.protocol import requests
    from rlhf.generation.server import build_server
    from rlhf.serving import limits

    # Without a model, which only a request would need.
    described = build_server(object.__new__(PolicyService), None, lora_folder=Path("adapters")).openapi()
    parts = []
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            heading = f"## {method.upper()} {path}"
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            parts.append(f"{heading}\n\n{ROUTES[path]}" + (f"\n\n{_fields(described, body, set())}" if body else ""))
    rows = [[code(name), f"{value:,}", _documented(limits, name)] for name, value in vars(limits).items() if name.isupper()]
    rows.append([code("MAX_BODY_BYTES"), f"{MAX_BODY_BYTES:,}", "Bytes of a request's body."])
    neutral = requests.NEUTRAL | requests.NEUTRAL_COMPLETION
    return page(
        "HTTP API of the policy server",
        "The policy server speaks OpenAI's protocol, so that other programs can ask the base model and every tuned version: "
        "[how to use it](../how-to/my-client.md). `rankloop serve --policy-port` fixes its port, which otherwise stands in "
        "`data/logs/policy-server.log`; `rankloop policy-server` runs it alone. The web application has no public API: its routes are for "
        "its own pages.",
        *parts,
        "## What is not supported\n\nEvery other field is refused with 400 and its name. Accepted with one value alone: "
        + ", ".join(f"{code(name)} as {' or '.join(code(json.dumps(one)) for one in values)}" for name, values in sorted(neutral.items()))
        + f". Accepted and without effect: {', '.join(map(code, sorted(requests.LABELS)))}.",
        f"## Errors\n\n{ERRORS}\n\n{table(['status', 'code', 'when'], STATUSES)}",
        f"## Limits\n\n{table(['limit', 'value', 'of what'], rows)}\n\nWhat the server does when a limit is passed: "
        "[guide for researchers](../guide/researcher.md#limits-of-the-policy-server).",
    )


ROUTES = {
    "/health": 'Says `{"status": "ok"}` while the server runs; needs no key.',
    "/metrics": "Counters in Prometheus' text format, by policy version: requests by how they ended, tokens of prompts and answers, the "
    "time to the first token and of the whole request; and how many answers are queued and running.",
    "/status": "Whether the server is ready, and what it is generating for the queue of comparisons. For rankloop's own pages.",
    "/v1/models": "The base model and every policy version of the store, as OpenAI lists models.",
    "/v1/models/{name}": "One of them.",
    "/v1/chat/completions": "Answers to a conversation; with `stream` as server-sent events, which end with `data: [DONE]`. The first one "
    "has the role, and with `stream_options.include_usage` the last one the usage. A stream that has nothing to say for 10 s sends a "
    "comment. The answer with index i has the seed `seed + i`. Reasoning is left out of the text and counted in "
    "`usage.completion_tokens_details.reasoning_tokens`. `max_completion_tokens` is the newer name of `max_tokens`.",
    "/v1/completions": "Continuations of texts, or of lists of token ids, without the chat template; control tokens in a text are read as "
    "such. `prompt` is a text, a list of token ids, or a list of either; `logprobs` is the number of likeliest tokens, as in the older "
    "protocol. With `return_token_ids` each choice has `token_ids`, as from vLLM: all that were sampled, with the token that ends the "
    "answer and is no part of its text. `stop_token_ids` end an answer beside the model's own end tokens. Log-probabilities are those of "
    "the model at temperature 1, or with `--logprobs-mode processed_logprobs` those of the distribution that is sampled from.",
    "/v1/load_lora_adapter": "Loads an adapter, which then answers under `lora_name` as a model; vLLM has the same call. The route is "
    "there with `rankloop policy-server --lora-folder DIR` alone, and `lora_path` must be a folder below DIR. `load_inplace` replaces the "
    "adapter of that name. [What it is for](../how-to/rollout-server.md).",
    "/v1/unload_lora_adapter": "Unloads it. Answers that are being sampled with it are completed.",
}
"""What each route is for: the server's handlers have no docstrings, because nobody publishes them."""

ERRORS = (
    'An error is `{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}`: the message says what was found and what to do, '
    "and `param` names the field. A stream that has begun ends with such an object as its last event, without `[DONE]`."
)

STATUSES = [
    ["400", "`missing_required_parameter`, `invalid_value`, `invalid_json`", "a field is missing, or its value is wrong"],
    ["400", "`unsupported_parameter`, `unsupported_value`", "the server does not do what the field asks for"],
    ["400", "`context_length_exceeded`", "the prompt has too many tokens"],
    ["400", "`chat_template_error`, `no_chat_template`", "the model's chat template refuses the conversation, or there is none"],
    ["401", "`invalid_api_key`", "the server has a key, and the request has none or another"],
    ["403, 421", "", "a page of another site asks, or another machine while there is no key"],
    ["404", "`model_not_found`", "there is no such version"],
    ["408, 413, 415", "", "the body comes too slowly, is too large, or is no JSON"],
    ["429", "`too_many_streams`", "this client has too many answers in the queue; `Retry-After` says when to come back"],
    ["503", "`engine_busy`", "the queue is full; `Retry-After` says when to come back"],
    ["503", "`model_released`", "a training round has the server's accelerator; `Retry-After` says when to come back"],
    ["503", "`adapter_not_readable`", "the version's adapter is missing or damaged"],
    ["500", "`internal_error`", "a fault of the server, whose log says more"],
]


def _fields(described: dict[str, Any], schema: dict[str, Any], shown: set[str]) -> str:
    """The table of an object's fields, and those of the objects inside it that are not shown yet."""
    name = _object(schema)
    shown.add(name)
    found = described["components"]["schemas"][name]
    rows, more = [], []
    for field, details in found["properties"].items():
        kinds = [kind for kind in details.get("anyOf", [details]) if kind.get("type") != "null"]
        more += [inner for kind in kinds for inner in (kind, kind.get("items", {})) if "$ref" in inner]
        limits = dict.fromkeys(f"{word} {_number(kind[key])}" for kind in kinds for key, word in BOUNDS.items() if key in kind)
        default = "required" if field in found.get("required", []) else code(json.dumps(details.get("default")))
        rows.append([code(field), " or ".join(dict.fromkeys(map(_kind, kinds))), ", ".join(limits), default])
    inner = [_fields(described, one, shown) for one in more if _object(one) not in shown]
    return "\n\n".join([f"`{name}`:\n\n{table(['field', 'type', 'bounds', 'default'], rows)}", *dict.fromkeys(inner)])


def _object(schema: dict[str, Any]) -> str:
    return str(schema["$ref"].rsplit("/", 1)[-1])


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _object(schema)
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return ", ".join(map(code, schema["enum"]))
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    return str(schema["type"])


def _number(value: float) -> str:
    """A large bound is one of the form 2^n, which a float holds exactly."""
    return f"2^{int(value).bit_length() - 1}" if value > 2**53 else f"{value:g}" if value < 1000 else f"{value:,.0f}"


BOUNDS = {
    "minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below",
    "minLength": "characters at least", "maxLength": "characters at most", "minItems": "items at least", "maxItems": "items at most",
}  # fmt: skip


def _documented(module: Any, name: str) -> str:
    """The docstring under a constant."""
    found = re.search(rf'^{name} = [^\n]*\n"""([^"]+)"""', Path(module.__file__).read_text(encoding="utf-8"), flags=re.M)
    return found[1] if found else name.replace("_", " ").capitalize() + "."


def store_schema_page() -> str:
    from storage.core import migrations
    from storage.core.database import Database

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rankloop.db"
        Database(path)
        with sqlite3.connect(path) as db:
            made = db.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY rowid"
            ).fetchall()
            parts = [_table(db, name, made) for kind, name, *_ in made if kind == "table" and name[0] != "_"]
            views = [[code(name), ", ".join(code(c[1]) for c in _columns(db, name))] for kind, name, *_ in made if kind == "view"]
        db.close()
    files = [[code(name), _first_comment(migrations, name)] for name in migrations.NAMES]
    return page(
        "Schema of the store",
        "The store is one SQLite file, `rankloop.db`, in the data folder. Ids are integers, lists and objects are JSON text, times are "
        "ISO 8601 text in UTC. What people did is append-only: a correction is a new row that `supersedes` an older one, and triggers "
        "refuse to change or delete the rest. This is the schema after every migration.",
        f"## Migrations\n\n{table(['migration', 'what it adds'], files)}",
        *parts,
        f"## Views\n\n{table(['view', 'columns'], views)}",
    )


def _columns(db: sqlite3.Connection, name: str) -> list[tuple[Any, ...]]:
    return db.execute(f'PRAGMA table_info("{name}")').fetchall()


def _table(db: sqlite3.Connection, name: str, made: list[tuple[str, str, str, str]]) -> str:
    to = {row[3]: f"`{row[2]}`" for row in db.execute(f'PRAGMA foreign_key_list("{name}")')}
    sql = next(text for kind, other, _, text in made if (kind, other) == ("table", name))
    one_of = {column: ", ".join(re.findall(r"'([^']*)'", values)) for column, values in re.findall(r"CHECK \((\w+) IN \(([^)]*)\)\)", sql)}
    rows = []
    for _, column, kind, required, default, key in _columns(db, name):
        rule = "key" if key else "required" if required else ""
        rows.append(
            [code(column), kind.lower(), rule, "" if default is None else code(default), one_of.get(column, ""), to.get(column, "")]
        )
    more = [
        f"{title}: {', '.join(found)}."
        for title, sort in (("Indexes", "index"), ("Triggers", "trigger"))
        if (found := [code(other) for kind, other, of, _ in made if kind == sort and of == name])
    ]
    return "\n\n".join([f"## {name}", table(["column", "type", "rule", "default", "one of", "row of"], rows), *more])


def _first_comment(package: Any, name: str) -> str:
    text = (Path(package.__file__).parent / f"{name}.sql").read_text(encoding="utf-8")
    lines = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return " ".join(lines)


FORMATS_BLOCK = re.compile(r"(<!-- formats: written by generate.py -->\n).*?(<!-- end -->)", flags=re.S)


def formats_page() -> str:
    """The page that people wrote, with the table of the formats in it written anew."""
    from storage.exchange.formats import FORMATS, NATIVE
    from storage.exchange.things import THINGS

    rows = []
    for name, found in FORMATS.items():
        container = found.container or "by the file's name and first bytes"
        rows.append([code(name), "yes" if found.read else "", "yes" if found.write else "", found.unit, container])
    rows.append([code(NATIVE), "yes", "yes", "rows of every table", "folder"])
    listed = table(["format", "read", "written", "what a written row is", "kind of file"], rows)
    of_votes = {name: found for name, found in FORMATS.items() if found.keeps or found.written}
    kept = [[code(name), *(_ways(thing, found.keeps, found.written) for thing in THINGS)] for name, found in of_votes.items()]
    kept.append([code(NATIVE), *("rw" for _ in THINGS)])
    signs = [[code(name), ", ".join(" ".join(map(code, sign)) for sign in found.signs)] for name, found in FORMATS.items() if found.signs]
    listed += (
        "\n\nWhat a format keeps beside the prompt and which of two answers is better: `r` is read, `w` is written, `rw` survives the way "
        "out and in. An empty cell is lost, and counted by this name in the summary of an export:\n\n"
        f"{table(['format', *THINGS.values()], kept)}\n\nWithout `--format` rows are recognised by their fields:\n\n"
        f"{table(['format', 'recognised by'], signs)}"
    )
    return FORMATS_BLOCK.sub(lambda found: f"{found[1]}\n{listed}\n\n{found[2]}", (HERE / "formats.md").read_text(encoding="utf-8"))


def _ways(thing: str, read: Sequence[str], written: Sequence[str]) -> str:
    return ("r" if thing in read else "") + ("w" if thing in written else "")


PAGES = {
    "options.md": options_page,
    "command-line.md": command_line_page,
    "metrics.md": metrics_page,
    "http-api.md": http_api_page,
    "store-schema.md": store_schema_page,
    "formats.md": formats_page,
}


def stale() -> list[str]:
    """The pages that are not what this script writes."""
    return [name for name, make in PAGES.items() if not (HERE / name).exists() or (HERE / name).read_text(encoding="utf-8") != make()]


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the pages of docs/reference from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page differs")
    if parser.parse_args().check:
        differing = stale()
        print("\n".join(f"docs/reference/{name} is not what generate.py writes" for name in differing), end="\n" if differing else "")
        return 1 if differing else 0
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
