"""Shared code of the verbs: their parsers, the store, the model's weights, and progress bars."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from rlhf import model_files
from rlhf.config import DEFAULT_MODEL
from rlhf.runs.environment import engine_environment
from storage.analytics.stats import stats
from storage.content import prompts
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.exchange import interrupted


class UsageError(Exception):
    """The command line is not valid or cannot be carried out; the message says why and what to do."""


def data_option() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="folder of the store, runs, uploads and logs")
    return common


class Verbs:
    """Adds the parsers of verbs to a parser. `common` makes the parser of the options that all of them have."""

    def __init__(self, parser: argparse.ArgumentParser, title: str, one: str, common: Callable[[], argparse.ArgumentParser] = data_option):
        self._parsers = parser.add_subparsers(title=title, metavar=one, required=True)
        self._common = common

    def add(
        self,
        name: str,
        run: Callable[[argparse.Namespace], int],
        parents: Iterable[argparse.ArgumentParser] = (),
        *,
        common: Callable[[], argparse.ArgumentParser] | None = None,
    ) -> argparse.ArgumentParser:
        """The parser of a verb, for its options; the first line of the function's docstring is its help. `common` takes the place of the
        group's."""
        summary = (run.__doc__ or "").partition("\n")[0]
        added = self._parsers.add_parser(
            name,
            parents=[(common or self._common)(), *parents],
            help=summary,
            description=summary,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        added.set_defaults(verb=run)
        return added

    def group(self, name: str, summary: str, common: Callable[[], argparse.ArgumentParser] = data_option) -> Verbs:
        """A verb with subcommands, such as `account add`."""
        return Verbs(self._parsers.add_parser(name, help=summary, description=summary), "commands", "COMMAND", common)


def engine_options() -> argparse.ArgumentParser:
    """The options of every verb that loads a model itself."""
    engine = argparse.ArgumentParser(add_help=False)
    engine.add_argument(
        "--model",
        type=model_reference,
        default=DEFAULT_MODEL,
        help="`default` (packaged SmolLM2-135M-Instruct), a local folder, or a hub id",
    )
    engine.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="device of the model")
    engine.add_argument("--load-in-4bit", action="store_true", help="pack the base's weights in 4 bits; needs bitsandbytes")
    return engine


def model_reference(text: str) -> str:
    """The full path of a folder, so that a run can be resumed from anywhere; a hub id or `default` unchanged."""
    return str(Path(text).expanduser().resolve()) if Path(text).expanduser().is_dir() else text


def open_store(data: Path) -> tuple[DataFolder, Database]:
    """Opens the folder's store; adds the starter prompts if it has no prompt, and finishes imports and undos that were broken off."""
    folder = DataFolder(data.absolute())
    store = Database(folder.database)
    interrupted.finish(store)
    if not stats(store)["prompts"]:
        prompts.load_starter(store)
    return folder, store


def fetch_weights(model: str) -> None:
    """Downloads and converts the model's weights in a separate process, whose memory is freed at its end."""
    if model == DEFAULT_MODEL and model_files.is_intact(model_files.default_folder()):
        return
    # The umask lets other users read the files: a model is not secret, and the cache may be shared.
    if subprocess.run([sys.executable, "-m", "rlhf.model_files", model], env=engine_environment(), umask=0o022).returncode:
        raise UsageError("the model's weights could not be fetched: the line above says why")


@contextlib.contextmanager
def file_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time left, on a terminal only, after one second. A total of 0 means unknown: then no time left is shown."""
    with _bar(what, unit) as bar:
        yield partial(_show, bar)


@contextlib.contextmanager
def import_bar() -> Iterator[tuple[Callable[[int, int], None], Callable[[int, int], None]]]:
    """As `file_bar`, for the rows that are imported, and for those that are deleted again if the import does not finish."""
    with _bar("importing", "row") as bar:
        begun = False

        def roll_back(done: int, total: int) -> None:
            nonlocal begun
            if not begun:
                begun = True
                bar.reset()
                bar.set_description("rolling back", refresh=False)
            _show(bar, done, total)

        yield partial(_show, bar), roll_back


def _bar(what: str, unit: str) -> tqdm[NoReturn]:
    return tqdm(desc=what, unit=unit, unit_scale=True, leave=False, delay=1.0, disable=None)


def _show(bar: tqdm[NoReturn], done: int, total: int) -> None:
    bar.total = total or None
    bar.update(done - bar.n)


class round_bar:
    """A terminal bar over a whole round: stage, fraction, time left."""

    def __enter__(self) -> Callable[[str, float, float | None], None]:
        self.bar = tqdm(total=100, bar_format="{desc:<9}|{bar:30}| {n:3.0f}% [{elapsed}{postfix}]")
        return self.show

    def show(self, stage: str, fraction: float, eta_s: float | None) -> None:
        self.bar.set_description_str(stage, refresh=False)
        self.bar.set_postfix_str(f"about {eta_s / 60:.1f} min left" if eta_s is not None else "", refresh=False)
        self.bar.n = 100 * fraction
        self.bar.refresh()

    def __exit__(self, *error: object) -> None:
        self.bar.close()
