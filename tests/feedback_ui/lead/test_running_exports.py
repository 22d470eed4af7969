"""An export runs in a thread of its own: its file, its counts, what stops it and what refuses it."""

import gzip
import json
import zipfile

import pytest
from waiting import until

from feedback_ui.lead.running_exports import ExportStopped, RunningExport, RunningExports, Wanted
from storage.core.database import Database, StoreError
from storage.exchange import export, formats, native


@pytest.fixture
def exports():
    return RunningExports()


@pytest.fixture
def voted(store, waiting, people, judge):
    judge(people.ann)
    return judge(people.ann)


def over(exports, owner=1):
    until(lambda: exports.of(owner).is_over)
    return exports.of(owner)


def test_a_file_has_the_judgments_and_its_counts(store, voted, exports):
    assert exports.of(1) is None
    exports.start(store, 1, Wanted("trl"))
    done = over(exports)
    rows = [json.loads(line) for line in done.path.read_text(encoding="utf-8").splitlines()]
    assert [row["chosen"][-1]["content"] for row in rows] == ["good answer 1", "good answer 2"]
    assert (done.exported.written, done.exported.judgments, done.error) == (2, 2, None)
    assert done.exported.lost == {"sides": 2, "time taken": 2} and done.size == done.path.stat().st_size
    assert done.path.name.startswith("rankloop-trl-20") and done.path.suffix == ".jsonl"
    first = done.path
    exports.start(store, 1, Wanted("csv", packed=True, names=True))
    done = over(exports)
    assert not first.exists() and done.path.name.endswith(".csv.gz") and b",Ann," in gzip.decompress(done.path.read_bytes())


@pytest.mark.parametrize("format", formats.WRITABLE)
def test_every_format_is_written_with_the_ending_that_it_is_read_by(store, voted, exports, format):
    exports.start(store, 1, Wanted(format))
    done = over(exports)
    assert done.error is None and done.path.stat().st_size == done.size
    if format == "sft":
        # Nobody wrote a better answer.
        assert done.size == done.exported.written == 0 and done.path.suffix == ".jsonl"
        return
    start = done.path.read_bytes()[:4]
    ending = done.path.suffix
    assert {"[": ".json", "{": ".jsonl", "P": {b"PAR1": ".parquet", b"PK\x03\x04": ".zip"}.get(start)}.get(chr(start[0]), ".csv") == ending


def test_a_native_export_is_a_whole_store_in_one_file(store, voted, exports, tmp_path):
    exports.start(store, 1, Wanted("native"))
    done = over(exports)
    with zipfile.ZipFile(done.path) as packed:
        packed.extractall(tmp_path / "unpacked")
    (folder,) = (tmp_path / "unpacked").iterdir()
    other = Database(tmp_path / "other" / "rankloop.db")
    assert native.read(other, folder) == done.exported.written
    assert other.value("SELECT count(*) FROM judgments") == 2
    other.close()
    assert [path.name for path in done.path.parent.iterdir()] == [done.path.name]


def test_an_export_is_stopped_and_leaves_nothing(store, voted, exports, monkeypatch):
    monkeypatch.setattr(export, "PROGRESS_VOTES", 1)
    asked = []

    def stopping(running, done, total):
        asked.append((done, total))
        exports.stop(1)
        advance(running, done, total)

    advance = RunningExport.advance
    monkeypatch.setattr(RunningExport, "advance", stopping)
    exports.start(store, 1, Wanted("jsonl"))
    done = over(exports)
    assert isinstance(done.error, ExportStopped) and asked == [(1, 2)] and not done.path.parent.exists()
    exports.stop(2)


def test_one_at_a_time_for_each(store, voted, exports):
    exports._last[1] = RunningExport(Wanted("trl"), store.path.with_name("first.jsonl"))
    with pytest.raises(StoreError, match="first.jsonl is still being written"):
        exports.start(store, 1, Wanted("trl"))
    exports.start(store, 2, Wanted("trl"))
    assert over(exports, 2).error is None


@pytest.mark.parametrize(
    "wanted, why",
    [
        (Wanted("docx"), "docx cannot be exported: choose one of prompts, trl"),
        (Wanted("lines"), "lines cannot be exported"),
        (Wanted("trl", raw_cells=True), "--raw-cells is for CSV"),
        (Wanted("parquet", packed=True), "packed by itself"),
        (Wanted("native", packed=True), "packed by itself"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_deleted(store, exports, wanted, why):
    exports.start(store, 1, Wanted("jsonl"))
    before = over(exports)
    with pytest.raises(StoreError, match=why):
        exports.start(store, 1, wanted)
    assert before.path.exists() and exports.of(1) is before


def test_strict_writes_nothing(store, voted, exports):
    exports.start(store, 1, Wanted("trl", strict=True))
    done = over(exports)
    assert "cannot hold" in str(done.error) and not done.path.parent.exists()


def test_a_fault_is_no_end_without_word(store, voted, exports, monkeypatch, caplog):
    monkeypatch.setattr(export.Writer, "__call__", lambda *_, **__: 1 / 0)
    exports.start(store, 1, Wanted("trl"))
    assert isinstance(over(exports).error, ZeroDivisionError) and "an export failed" in caplog.text
