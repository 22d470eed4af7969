"""What an export says of itself."""

import time
from pathlib import Path

import pytest
from lead_page import EN, KO

from feedback_ui.lead import export_view
from feedback_ui.lead.running_exports import ExportStopped, RunningExport, Wanted
from storage.core.database import StoreError
from storage.exchange import formats
from storage.exchange.export import Exported

FILE = Path("/srv/data/downloads/1/00/rankloop-trl-2026-11-28.jsonl")


@pytest.mark.parametrize(
    "state, text, stop",
    [
        ({}, "rankloop-trl-2026-11-28.jsonl is being written.", True),
        ({"done": 5_000, "total": 10_000}, "written: 5,000 of 10,000 judgments, about 60 min left", True),
        ({"done": 5_000, "total": 10_000, "stop_requested": True}, "5,000 of 10,000", False),
    ],
)
def test_how_far_it_is(state, text, stop):
    html = export_view.status(EN, RunningExport(Wanted("trl"), FILE, started=time.monotonic() - 3_600, **state))
    assert text in html and ("data-act" in html) == stop and "/srv" not in html


def test_a_store_has_rows():
    html = export_view.status(EN, RunningExport(Wanted("native"), FILE.with_suffix(".zip"), done=1, total=2))
    assert "1 of 2 rows" in html


def test_the_file_and_what_is_not_in_it(tmp_path):
    path = tmp_path / FILE.name
    path.write_text("x")
    counts = Exported(12, 20, 8, {"ties": 8, "flags": 1}, {"rankings, as their pairs": 2}, {"simulated judgments (--include-simulated)": 3})
    running = RunningExport(Wanted("trl"), path, is_over=True, exported=counts, size=1_234_567)
    html = export_view.status(EN, running)
    assert f"{FILE.name}, 1.2 MB: 12 rows" in html
    assert f'href="download/{tmp_path.name}/{FILE.name}" download="" class="rl-small-button"' in html
    assert "8 of 20 judgments are not in it." in html and "Not kept, with the number of times: ties (8), flags (1)." in html
    assert "Kept in another form: rankings, as their pairs (2)." in html
    assert "Not exported: simulated judgments (“Simulated judgments too”) (3)." in html
    path.unlink()
    assert "was downloaded, and is deleted here" in export_view.status(EN, running) and "<a" not in export_view.status(EN, running)


@pytest.mark.parametrize("size, text", [(0, "1 kB"), (1_499, "1 kB"), (312_000, "312 kB"), (4_540_000, "4.5 MB")])
def test_sizes(size, text):
    assert export_view._size(size) == text


def test_why_there_is_none():
    def said(error):
        return export_view.status(EN, RunningExport(Wanted("trl"), FILE, is_over=True, error=error))

    strict = said(StoreError(f"{FILE}: this format cannot hold ties (3): nothing written (--strict). jsonl holds all of a judgment."))
    assert "cannot hold ties (3): nothing written (“Nothing if something would be lost”)" in strict and "/srv" not in strict
    assert "rl-bad" in strict and "rl-bad" not in said(ExportStopped("The export was stopped. Nothing of it is left."))
    assert "the server&#39;s log says why" in said(ZeroDivisionError("x"))
    assert export_view.status(EN, None) == ""


def test_what_a_format_holds():
    assert "Beside the prompt and which answer is better it holds: system messages, earlier turns" in export_view.holds(EN, "trl")
    assert "Passwords" in export_view.holds(EN, "native") and "비밀번호" in export_view.holds(KO, "native")
    assert all(export_view.holds(EN, format) is not None for format in formats.WRITABLE)
