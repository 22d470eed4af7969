"""The pages of docs/reference are those that docs/reference/generate.py writes from the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
AGAIN = "run `.venv/bin/python docs/reference/generate.py` and commit what it writes"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", REFERENCE / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()


@pytest.mark.parametrize("name", GENERATOR.PAGES)
def test_the_page_is_what_the_generator_writes(name):
    assert (REFERENCE / name).read_text(encoding="utf-8") == GENERATOR.PAGES[name](), AGAIN


def test_every_page_is_written_by_the_generator():
    # Trying the models takes minutes: that page is written, and its rows are compared, by rlhf/models/test_architectures.py.
    assert {page.name for page in REFERENCE.glob("*.md")} == {*GENERATOR.PAGES, "models.md"}


def test_a_page_that_was_edited_by_hand_is_named(tmp_path, monkeypatch):
    for name in GENERATOR.PAGES:
        (tmp_path / name).write_text((REFERENCE / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "options.md").write_text("by hand", encoding="utf-8")
    monkeypatch.setattr(GENERATOR, "HERE", tmp_path)
    assert GENERATOR.stale() == ["options.md"]
