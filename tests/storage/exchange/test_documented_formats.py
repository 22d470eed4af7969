"""docs/reference/formats.md: its examples are what is written, and read; every format is in it."""

import re
from pathlib import Path

import pytest

from storage.exchange import imports
from storage.exchange.formats import FORMATS, READABLE, WRITABLE

TEXT = (Path(__file__).parents[3] / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```(?:json|csv)\n(.*?)```", TEXT, flags=re.S)
PSEUDONYM = "3f9a0c51d2e8"
SHOWN = [name for name, format in FORMATS.items() if format.write and name not in ("plain", "parquet")]

ROW = {
    "prompt": "Why is the sky blue?",
    "completions": ["Air scatters blue light most.", "It mirrors the sea."],
    "models": ["swift-7b", "heron-3b"],
    "tiers": [[0], [1]],
    "shown": [1, 0],
    "annotator": "Ann",
    "created_at": "2026-11-23T09:30:00Z",
    "strength": "better",
    "rationale": "The second is a myth.",
    "aspects": [{"honest": 5}, {"honest": 2}],
    "ideal": "Air scatters blue light more than red.",
    "active_ms": 8200,
    "kind": "science",
    "split": "train",
}


def test_every_format_has_its_section():
    headed = {name for heading in re.findall(r"^## (.+)$", TEXT, flags=re.M) for name in heading.split(", ")}
    assert {*READABLE, *WRITABLE} <= headed
    assert len(EXAMPLES) == len(SHOWN)


@pytest.mark.parametrize(("name", "example"), list(zip(SHOWN, EXAMPLES, strict=False)))
def test_the_example_is_what_is_written_and_reads_back(name, example, store, tmp_path):
    imports.import_rows(store, [ROW], "plain")
    path = tmp_path / "x"
    FORMATS[name].write(store, path)
    pseudonym = store.value("SELECT pseudonym FROM annotators")
    assert path.read_text(encoding="utf-8").strip() == example.strip().replace(PSEUDONYM, pseudonym)
    if FORMATS[name].read:
        path.write_text(example, encoding="utf-8")
        _, report = imports.import_file(store, path, name)
        assert report.wrong == 0 and (report.judgments, report.labels) == (name not in ("prompts", "kto"), 2 * (name == "kto"))
