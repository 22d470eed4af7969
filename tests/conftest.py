"""Fixtures that all tests share, the number of test processes, and the checks of tensor shapes."""

import gc
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before torch is imported: tiny models lose time to a second thread, sums in one order are the same bits every time, and
# tests that run side by side do not take each other's cores. Programs that a test starts inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

SHAPES_ARE_CHECKED = find_spec("beartype") is not None
if SHAPES_ARE_CHECKED:
    # Before the first of them is imported. Options (`rlhf.config`) are checked by pydantic with messages of their own.
    rooms = ("models", "generation", "reward", "ppo", "trl_methods", "evaluation", "analysis")
    install_import_hook([f"rlhf.{room}" for room in rooms], "shape_check.checked")

from storage.core.database import Database  # noqa: E402


def pytest_report_header() -> str | None:
    return None if SHAPES_ARE_CHECKED else "shapes of tensors are not checked: beartype is not installed: pip install -e '.[test]'"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files of slow tests alone come first, then those with some: no process begins a long file when the others are done.

    `make test` hands the files out in this order. Tests that install packages run only where the command asks for them.
    """
    if "packages" not in config.option.markexpr:
        unasked = [item for item in items if item.get_closest_marker("packages")]
        config.hook.pytest_deselected(items=unasked)
        items[:] = [item for item in items if item not in unasked]
    slow: dict[Path, list[bool]] = {}
    for item in items:
        slow.setdefault(item.path, []).append(item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: (not all(slow[item.path]), not any(slow[item.path])))


def pytest_collection_finish() -> None:
    """What was imported is there to stay. PEFT and TRL collect garbage at each end, which would look through all of it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means: a process for each core that this one may use. At least two: many tests wait for another process."""
    return max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store that was just made, to be copied: making one costs more than most tests."""
    path = tmp_path_factory.mktemp("empty") / "rankloop.db"
    Database(path).close()
    return path


@pytest.fixture
def store(tmp_path, empty_store):
    """A real, empty store in a data folder of its own."""
    path = tmp_path / "data" / "rankloop.db"
    path.parent.mkdir()
    shutil.copyfile(empty_store, path)
    database = Database(path)
    yield database
    database.close()
