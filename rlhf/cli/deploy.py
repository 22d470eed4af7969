"""The verb `deploy`: a policy version in a format that other programs read, checked against the policy."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from rlhf.cli.terminal import UsageError, Verbs, fetch_weights, model_reference, open_store
from rlhf.config import DEFAULT_MODEL
from rlhf.deploy.formats import FORMATS
from storage.content import policies
from storage.core.database import Database
from storage.core.records import PolicyVersion
from storage.project import rounds


def add(verbs: Verbs) -> None:
    p = verbs.add("deploy", deploy)
    p.add_argument("version", metavar="VERSION", help="name of a policy version, or `current`, or `base`")
    what = "; ".join(f"`{form.name}` {form.what}" for form in FORMATS.values())
    p.add_argument("--to", required=True, choices=list(FORMATS), metavar="FORMAT", help=what)
    p.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the export, which must not exist; DATA/exports/VERSION-FORMAT otherwise"
    )
    kinds = "; ".join(f"{form.name}: {', '.join(form.weights)}" for form in FORMATS.values() if len(form.weights) > 1)
    p.add_argument("--weights", metavar="TYPE", help=f"type of the weights, the first by default ({kinds})")
    p.add_argument("--model", type=model_reference, default=DEFAULT_MODEL, help="the base that `base` and `current` are of")


def deploy(args: argparse.Namespace) -> int:
    """Write a policy version in a format that other programs read, and compare its answers with the policy's."""
    form = FORMATS[args.to]
    weights = args.weights or form.weights[0]
    if weights not in form.weights:
        raise UsageError(f"--weights {weights}: {form.name} is written with {' or '.join(form.weights)}")
    folder, store = open_store(args.data)
    version = named(store, args.version, args.model)
    if version.kind == "external":
        raise UsageError(f"{version.name} is a model of another program: there are no weights of it here")
    fetch_weights(version.base_model)
    # These import torch, which takes seconds.
    from rlhf.deploy.export import ExportFailed, export
    from rlhf.deploy.packages import PackagesError

    out = args.out or folder.root / "exports" / f"{version.name}-{form.name}{'' if weights == form.weights[0] else f'-{weights}'}"
    try:
        with steps() as show:
            check = export(store, version, form, out.absolute(), weights=weights, say=show)
    except (ExportFailed, PackagesError) as error:
        raise UsageError(f"{version.name} could not be exported as {form.name}, and nothing is left of it:\n{error}") from error
    print(check.in_words())
    if not check.passed:
        print(f"it is in {out}.failed, with the differences in check.json")
        return 1
    print(f"{version.name} as {form.name}: {out}")
    return 0


@contextlib.contextmanager
def steps() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on a terminal; elsewhere a line for each step, which the Demo page reads."""
    if not sys.stderr.isatty():
        yield lambda what, done: print(f"{round(100 * done):3d}% {what}", flush=True)
        return
    with tqdm(total=100, unit="%", bar_format="{desc:<52}|{bar:24}| {n:3.0f}% [{elapsed}]", leave=True) as bar:

        def show(what: str, done: float) -> None:
            bar.set_description_str(what[:52], refresh=False)
            bar.n = round(100 * done)
            bar.refresh()

        yield show


def named(store: Database, name: str, base_model: str) -> PolicyVersion:
    """The version of this name; `current` is the one that new comparisons come from, and `base` the base without an adapter."""
    if name == "current":
        return rounds.current(store, base_model)
    if name == "base":
        return policies.ensure_base(store, base_model)
    return policies.by_name(store, name)
