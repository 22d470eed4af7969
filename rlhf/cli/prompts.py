"""The verb `prompts`: lists prompts, changes which are in use, and lists those that a model refused."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from rlhf.cli import report
from rlhf.cli.terminal import UsageError, Verbs, open_store
from storage.content import prompt_list, prompts, refusals
from storage.core.database import Database
from storage.core.records import PromptFilter
from storage.judging import prompt_use


def add(verbs: Verbs) -> None:
    p = verbs.add("prompts", prompts_)
    p.add_argument("--search", default="", metavar="TEXT", help="only prompts with this text, ignoring case")
    p.add_argument("--json", action="store_true", help="machine-readable, with the whole conversations")
    p.add_argument("--retire", type=int, nargs="+", metavar="ID", help="retire prompts, which get no new comparisons then; judgments stay")
    p.add_argument("--restore", type=int, nargs="+", metavar="ID", help="bring retired prompts back")
    p.add_argument("--refused", action="store_true", help="only prompts that were set aside because a model refused them, with the reason")
    p.add_argument("--retry", type=int, nargs="*", metavar="ID", help="let models answer refused prompts again; without an ID, all of them")
    p.add_argument(
        "--starters",
        choices=("auto", "on", "off"),
        help="whether the packaged starter prompts are in use; auto uses them while the store has no other prompts",
    )


def prompts_(args: argparse.Namespace) -> int:
    """The prompts with their split, kind, source, comparisons and state; or a change to which of them are in use."""
    changes = [name for name in ("retire", "restore", "retry", "starters") if getattr(args, name) is not None]
    if len(changes) + args.refused > 1 or (changes and (args.search or args.json)):
        raise UsageError("--retire, --restore, --retry, --starters and --refused cannot be combined; --search and --json are for lists")
    _, store = open_store(args.data)
    if changes:
        print(_change(store, args))
    elif args.refused:
        _print_refused(store, args.search, as_json=args.json)
    else:
        _print_list(store, args.search, as_json=args.json)
    return 0


def _change(store: Database, args: argparse.Namespace) -> str:
    """Makes one change, and returns the message about it."""
    if args.starters is not None:
        return report.starters(prompt_use.use_starters(store, args.starters))
    if args.retire is not None:
        return f"{prompt_use.retire(store, args.retire)} prompts retired"
    if args.restore is not None:
        unused = "" if prompts.starters(store).in_use else _still_unused(store, args.restore)
        return f"{prompt_use.restore(store, args.restore)} prompts brought back{unused}"
    return f"{refusals.clear(store, args.retry or None)} refusals cleared: the models are asked again"


def _still_unused(store: Database, ids: Sequence[int]) -> str:
    starters = sum(found.prompt.id in ids and found.is_starter for found in prompt_list.search(store))
    return f"; {starters} of them are starter prompts, which are not in use: `rankloop prompts --starters on`" if starters else ""


def _print_list(store: Database, text: str, *, as_json: bool) -> None:
    found = prompt_list.search(store, PromptFilter(text))
    if as_json:
        print(json.dumps([_row(listed) for listed in found], indent=2, ensure_ascii=False))
        return
    print(report.prompts(found))
    print(report.starters(prompts.starters(store)))


def _row(listed: prompt_list.ListedPrompt) -> dict[str, object]:
    rest = {"source": listed.source, "state": listed.state, "comparisons": listed.comparisons}
    return asdict(listed.prompt) | rest


def _print_refused(store: Database, text: str, *, as_json: bool) -> None:
    found = {listed.prompt.id: listed.prompt for listed in prompt_list.search(store, PromptFilter(text))}
    refused = [refusal for refusal in refusals.all_refusals(store) if refusal.prompt_id in found]
    if as_json:
        rows = [asdict(refusal) | {"messages": found[refusal.prompt_id].messages} for refusal in refused]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    print(report.refusals([(refusal, found[refusal.prompt_id].text) for refusal in refused]))
