"""Import, export, backup and restore as somebody at a terminal meets them, with real files where they are there."""

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import launch
from storage.content import prompts
from storage.core.database import Database
from storage.exchange import formats, imports
from tests.storage.exchange.test_import_slices import everything, many, seen

ROOT = Path(__file__).parents[3]

SHARED = Path(__file__).parents[4] / "shared" / "data"
HH, OASST = SHARED / "hh-rlhf_harmless-base_test.jsonl.gz", SHARED / "oasst_en_100_tree.jsonl"


@pytest.fixture
def data(tmp_path):
    return str(tmp_path / "data")


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    written = [
        {"prompt": "Why?", "completions": ["a", "b", "c"], "models": ["m", "n", "o"], "tiers": [[2], [0], [1]], "annotator": "Ann"},
        {"prompt": "Why?", "completions": ["b", "a", "c"], "models": ["n", "m", "o"], "choice": "tie", "annotator": "Bob"},
        {"prompt": "And?", "completions": ["x", "y"], "choice": 1},
    ]
    path.write_text("\n".join(map(json.dumps, written)) + "\n")
    return path


def run(capsys, verb, data, *arguments):
    status = launch.main([verb, "--data", data, *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out.strip(), captured.err.strip()


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_in_and_out(capsys, tmp_path, data, rows):
    status, out, err = run(capsys, "import", data, "--format", "plain", rows)
    assert (status, out, err) == (0, "import 1: 2 comparisons added, 3 judgments, 2 new prompts, 0 wrong rows left out", "")
    pairs = tmp_path / "pairs.jsonl"
    assert run(capsys, "export", data, pairs)[:2] == (
        0,
        f"4 preference pairs written to {pairs}; 1 of 3 judgments are not in it\nnot kept, with the number of times: ties (1)\n"
        "kept in another form: rankings of more than two answers, as their pairs (2)",
    )
    assert "Ann" not in pairs.read_text() and len(lines(pairs)) == 4
    assert run(capsys, "export", data, "--format", "csv", "--names", tmp_path / "x")[:2] == (0, f"3 judgments written to {tmp_path / 'x'}")
    assert ",Ann," in (tmp_path / "x").read_text()


def test_wrong_rows_by_line_and_strict(capsys, tmp_path, data, rows):
    rows.write_text(rows.read_text() + "nothing\n")
    status, out, err = run(capsys, "import", data, "--format", "plain", "--strict", rows)
    assert (status, out) == (2, "")
    assert err.splitlines() == [f"{rows}:4: not JSON", "rankloop: 1 wrong rows, nothing imported (--strict)"]
    status, out, err = run(capsys, "import", data, "--format", "plain", rows)
    assert (status, err) == (1, f"{rows}:4: not JSON") and "1 wrong rows left out" in out
    rows.write_text("nothing\n")
    assert run(capsys, "import", data, "--format", "plain", rows)[:2] == (
        1,
        "nothing imported, 1 wrong rows left out\ncorrect the rows that are listed, or describe its fields with --format or --map",
    )


def test_undo_list_and_the_same_file_again(capsys, tmp_path, data, rows):
    assert run(capsys, "import", data, "--list")[1] == "no imports yet"
    run(capsys, "import", data, "--format", "jsonl", rows)
    status, _, err = run(capsys, "import", data, "--format", "jsonl", rows)
    assert status == 2 and "was imported before: it is import 1 (rows.jsonl, 2" in err
    assert f"rankloop import --undo 1 --data {data}" in err
    expected = "import 1 undone: 3 judgments no longer count, 2 comparisons and 2 prompts retired"
    assert run(capsys, "import", data, "--undo", 1)[:2] == (0, expected)
    assert run(capsys, "export", data, tmp_path / "x")[1].startswith("0 preference pairs")
    assert run(capsys, "import", data, "--format", "jsonl", rows)[0] == 0
    listed = run(capsys, "import", data, "--list")[1].splitlines()
    assert listed[0].startswith("2  2") and "jsonl" in listed[0] and listed[0].endswith("rows.jsonl: 2 prompts, 2 comparisons, 3 judgments")
    assert "(undone 2" in listed[1]
    assert run(capsys, "export", data, tmp_path / "x")[1].startswith("4 preference pairs")


@pytest.mark.parametrize("arguments", [[], ["FILE", "--undo", "1"], ["FILE", "--list"], ["--undo", "1", "--list"]])
def test_import_wants_one_thing(capsys, data, rows, arguments):
    given = [rows if item == "FILE" else item for item in arguments]
    assert run(capsys, "import", data, *given)[::2] == (2, "rankloop: name a FILE to import, or use --undo ID or --list")


def test_simulated_judgments_stay_apart(capsys, tmp_path, data, rows):
    run(capsys, "import", data, "--format", "plain", "--simulated", "GPT-4", rows)
    assert run(capsys, "export", data, tmp_path / "x")[1].startswith("0 preference pairs")
    assert run(capsys, "export", data, "--include-simulated", tmp_path / "x")[1].startswith("4 preference pairs")
    assert {json.loads(line)["annotator_kind"] for line in lines(tmp_path / "x")} == {"simulated"}


def test_native_out_and_in(capsys, tmp_path, data, rows):
    run(capsys, "import", data, "--format", "plain", rows)
    status, out, _ = run(capsys, "export", data, "--format", "native", tmp_path / "out")
    assert status == 0 and out.endswith(f"rows written to the folder {tmp_path / 'out'}")
    copy = str(tmp_path / "copy")
    # A look at the new folder loads the starter prompts, which are no obstacle.
    run(capsys, "stats", copy)
    status, again, _ = run(capsys, "import", copy, "--format", "native", tmp_path / "out")
    assert status == 0 and again.split()[0] == out.split()[0]
    assert run(capsys, "stats", copy, "--json") == run(capsys, "stats", data, "--json")
    status, _, err = run(capsys, "import", copy, "--format", "native", tmp_path / "out")
    assert status == 2 and "is not empty (3 rows in judgments)" in err
    assert run(capsys, "import", copy, "--format", "native", tmp_path / "nowhere")[0] == 2
    assert run(capsys, "import", copy, "--format", "native", "--simulated", "x", tmp_path / "out")[0] == 2


def test_backup_and_restore(capsys, tmp_path, data, rows):
    run(capsys, "import", data, "--format", "plain", rows)
    copy = tmp_path / "copy.db"
    status, out, _ = run(capsys, "backup", data, copy)
    assert status == 0 and out.startswith(f"{copy}: ") and "checked" in out
    assert run(capsys, "backup", data, copy)[0] == 2 and run(capsys, "backup", data, copy, "--force")[0] == 0
    other = str(tmp_path / "other")
    assert run(capsys, "restore", other, copy)[:2] == (0, f"{Path(other) / 'rankloop.db'} is restored from {copy}")
    assert run(capsys, "stats", other, "--json") == run(capsys, "stats", data, "--json")
    assert run(capsys, "restore", other, copy)[0] == 2
    Database(Path(other) / "rankloop.db").close()


BAD_FILES = pytest.mark.parametrize(
    "content, messages",
    [
        (b"\x00\x01\x02" * 100, "is not text"),
        (gzip.compress(b'{"prompt": "x"}\n' * 500, mtime=0)[:-9], "damaged gzip"),
        ('{"prompt": "ß"}'.encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\xff\xfe\xfd", "UTF-16"),
        (b"\xfdnothing", "not UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": ["' + b"x" * 100_000, "not JSON"),
        (b'{"prompt": "\\ud83d", "completions": ["a", "b"]}', "surrogate"),
        (b'{"prompt": "a\\u0000b", "completions": ["a", "b"]}', "NUL"),
        (b'{"prompt": 1e999, "completions": NaN}', "needs completions"),
    ],
)


@BAD_FILES
def test_bad_files_are_told_in_words(capsys, tmp_path, data, content, messages):
    path = tmp_path / "bad"
    path.write_bytes(content)
    status, out, err = run(capsys, "import", data, "--format", "plain", path)
    assert status in (1, 2) and "Traceback" not in out + err
    assert any(part in err for part in messages.split("|"))


@pytest.mark.slow
@BAD_FILES
def test_bad_files_are_told_in_words_whatever_their_format_is_said_to_be(capsys, tmp_path, data, content, messages):
    path = tmp_path / "bad"
    path.write_bytes(content)
    # Any text is a prompt on each line, and in each paragraph.
    for format in {*formats.READABLE} - {"lines", "paragraphs"}:
        status, out, err = run(capsys, "import", data, "--format", format, path)
        assert status in (1, 2) and out + err and "Traceback" not in out + err, format


# Real files.


ARENA = """id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie
1,swift-7b,heron-3b,"[""Name a fruit""]","[""Pear""]","[""Plum""]",1,0,0
2,swift-7b,owl-2b,"[""Name a city""]","[""Riga""]","[null]",0,0,1
"""


def test_import_recognises_the_format_and_says_by_what(capsys, tmp_path, data):
    file = tmp_path / "arena.csv"
    file.write_text(ARENA)
    status, out, err = run(capsys, "import", data, file)
    assert (status, err, out.split("\n")) == (0, "", [
        "recognised as arena-55k, by its fields prompt, response_a, response_b, winner_model_a, winner_model_b, in 2 of 2 rows; --format "
        "NAME overrides this",
        "import 1: 2 comparisons added, 2 judgments, 2 new prompts, 0 wrong rows left out",
        "not kept, because these only number or repeat others, or are blank: id (2)",
    ])  # fmt: skip


def test_import_refuses_what_it_does_not_recognise(capsys, tmp_path, data):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "Name a fruit", "good": "Pear", "bad": "Plum", "note": "x"}\n')
    status, out, err = run(capsys, "import", data, file)
    assert status == 2 and out == "" and "cannot tell which format this is. Its fields: question, good, bad, note. Nearest: " in err
    mapped = ["--map", "prompt=question,chosen=good,rejected=bad"]
    status, out, err = run(capsys, "import", data, *mapped, "--strict", file)
    assert status == 2 and "not kept would be note (1): nothing imported (--strict)" in err
    status, out, _ = run(capsys, "import", data, *mapped, "--save-map", "ours", file)
    assert (
        status == 0 and "1 judgments" in out and "not kept, with the number of times: note (1)" in out and "use it with --map ours" in out
    )
    file.write_text('{"question": "Name a tree", "good": "Oak", "bad": "Fern"}\n')
    assert run(capsys, "import", data, "--map", "ours", file)[:2] == (
        0, "import 2: 1 comparisons added, 1 judgments, 1 new prompts, 0 wrong rows left out"
    )  # fmt: skip
    for words, reason in [
        (["--map", "ours", "--format", "trl"], "not both"),
        (["--save-map", "x"], "entries of a --map"),
        (["--map", "x"], "no map"),
    ]:
        assert reason in run(capsys, "import", data, *words, file)[2]


def test_import_reads_a_pipe(data):
    command = [sys.executable, "-m", "launch", "import", "--data", data, "-"]
    row = '{"prompt": "Name a fruit", "chosen": "Pear", "rejected": "Plum"}\n'
    done = subprocess.run(command, input=row, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stderr) == (0, "") and "1 comparisons added, 1 judgments" in done.stdout


def test_a_limit_is_named_with_the_option_that_raises_it(capsys, tmp_path, data):
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "x" * 100_001}) + "\n" + json.dumps({"prompt": "x" * 3_000_000}) + "\n")
    err = run(capsys, "import", data, long)[2]
    assert "long.jsonl:1: the prompt has 100,001 characters, at most 100,000 are taken" in err and "--max-text-chars" in err
    status, out, err = run(capsys, "import", data, "--max-text-chars", 5_000_000, "--max-row-mib", 2, long)
    assert (status, out) == (1, "import 1: 1 prompts added, 0 known already, 1 wrong rows left out")
    assert err.startswith(f"{long}:2: longer than 2 MiB: import with a larger --max-row-mib")
    packed = tmp_path / "long.jsonl.gz"
    packed.write_bytes(gzip.compress(long.read_bytes()))
    raised = ("--max-text-chars", 5_000_000, "--max-unpacked-mib")
    status, out, err = run(capsys, "import", data, *raised, 2, packed)
    assert (status, out) == (2, "") and "unpacks to more than 2 MiB: unpack it yourself if it is right" in err
    assert run(capsys, "import", data, *raised, 3, packed)[0] == 0
    for option in ("--max-text-chars", "--max-row-mib", "--max-unpacked-mib"):
        assert f"{option} must be at least 1, not 0" in run(capsys, "import", data, option, 0, long)[2]


@pytest.mark.parametrize(
    ("format", "said"),
    [
        ("arena", "1 battles written to {}; 1 of 2 judgments are not in it\n"
         "not kept, with the number of times: rankings of more than two answers (1)"),
        ("helpsteer3", "1 comparisons written to {}; 1 of 2 judgments are not in it\n"
         "not kept, with the number of times: times (2), rankings of more than two answers (1)"),
        ("trl", "3 preference pairs written to {}; 1 of 2 judgments are not in it\n"
         "not kept, with the number of times: ties (1)\nkept in another form: rankings of more than two answers, as their pairs (1)"),
        ("labelstudio", "2 tasks written to {}"),
        ("jsonl", "2 judgments written to {}"),
        ("kto", "6 labelled completions written to {}; 1 of 2 judgments are not in it\n"
         "not kept, with the number of times: ties (1)\nkept in another form: rankings of more than two answers, as their pairs (1)"),
    ],
)  # fmt: skip
def test_export_names_what_a_format_cannot_hold_and_strict_refuses(capsys, tmp_path, data, format, said):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out"
    ranking = {"prompt": "Q", "completions": ["x", "y", "z"], "tiers": [[0], [1], [2]], "annotator": "a", "split": "train"}
    tie = {"prompt": "R", "completions": ["x", "y"], "choice": "tie", "annotator": "a", "split": "train"}
    rows.write_text(f"{json.dumps(ranking)}\n{json.dumps(tie)}\n")
    run(capsys, "import", data, "--format", "plain", rows)
    assert run(capsys, "export", data, "--format", format, out)[:2] == (0, said.format(out))
    out.unlink()
    status, printed, err = run(capsys, "export", data, "--format", format, "--strict", out)
    if "not kept" in said:
        lost = said.split("number of times: ")[1].split("\n")[0]
        assert status == 2 and printed == "" and f"this format cannot hold {lost}: nothing written (--strict)" in err
        assert not out.exists()
    else:
        assert status == 0 and out.exists()


def test_formulas_are_neutralised_in_csv_unless_asked(capsys, tmp_path, data):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.csv"
    rows.write_text(json.dumps({"prompt": "Q", "completions": ["x", "y"], "choice": 0, "annotator": "=cmd|'/C calc'!A0", "ideal": "+1"}))
    run(capsys, "import", data, "--format", "plain", rows)
    run(capsys, "export", data, "--format", "csv", "--names", out)
    assert ",'+1,'=cmd|'/C calc'!A0," in out.read_text()
    run(capsys, "export", data, "--format", "plain", "--names", out)
    assert ",'+1,'=cmd|'/C calc'!A0," in out.read_text()
    run(capsys, "export", data, "--format", "csv", "--names", "--raw-cells", out)
    assert ",+1,=cmd|'/C calc'!A0," in out.read_text()
    assert "--raw-cells is for CSV: use --format csv" in run(capsys, "export", data, "--raw-cells", out)[2]


@pytest.mark.skipif(not HH.exists(), reason=f"{HH} is not here")
def test_hh_rlhf_harmless_base_gives_a_pair_for_each_row(capsys, tmp_path, data):
    out = run(capsys, "import", data, "--format", "hh-rlhf", HH)[1]
    assert out == "import 1: 2312 comparisons added, 2312 judgments, 2310 new prompts, 0 wrong rows left out"
    pairs = tmp_path / "pairs.jsonl"
    assert run(capsys, "export", data, "--format", "trl", pairs)[1].startswith("2312 preference pairs")
    again = tmp_path / "again.jsonl"
    run(capsys, "export", data, "--format", "hh-rlhf", again)
    # Every dialogue but for white space at the ends of its turns, and in the file's order.
    with gzip.open(HH, "rt", encoding="utf-8") as file:
        for line, written in zip(file, lines(again), strict=True):
            before, after = json.loads(line), json.loads(written)
            assert {side: text.split() for side, text in before.items()} == {side: text.split() for side, text in after.items()}


@pytest.mark.skipif(not OASST.exists(), reason=f"{OASST} is not here")
def test_open_assistant_trees_give_212_comparisons_and_754_pairs(capsys, tmp_path, data):
    out = run(capsys, "import", data, "--format", "oasst", OASST)[1]
    first, left = out.split("\n")[:2]
    assert first == "import 1: 212 comparisons added, 212 judgments, 212 new prompts, 0 wrong rows left out"
    assert left.startswith("not kept, with the number of times: ") and "replies without a rank (" in left and "prompt.lang (100)" in left
    pairs = tmp_path / "pairs.jsonl"
    assert run(capsys, "export", data, "--format", "trl", pairs)[1].startswith("754 preference pairs")
    rows = [json.loads(line) for line in lines(pairs)]
    assert {row["prompt"][-1]["role"] for row in rows} == {"user"} and max(len(row["prompt"]) for row in rows) >= 3
    store = Database(Path(data) / "rankloop.db")
    assert len(prompts.of_split(store)) == 212
    store.close()


def test_the_summary_says_that_labels_are_stored_and_not_used(data, tmp_path, capsys):
    file = tmp_path / "kto.jsonl"
    rows = [{"prompt": "Q", "completion": "a", "label": True}, {"prompt": "Q", "completion": "b", "label": False}]
    file.write_text("\n".join(map(json.dumps, rows)))
    status, said, _ = run(capsys, "import", data, file, "--strict")
    assert status == 0 and "recognised as kto" in said
    assert "0 judgments, 2 labels good or bad (kept, not used in training), 1 new prompts" in said
    assert "labels not used in training, good  1" in run(capsys, "stats", data)[1]
    assert "0 judgments, 2 labels" in run(capsys, "import", data, "--list")[1]
    assert "0 judgments and 2 labels no longer count" in run(capsys, "import", data, "--undo", 1)[1]


# ---- imports that are broken off


@pytest.fixture
def half_imported(store, tmp_path):
    """The store, and a real process that has imported a part of a file, with gold, votes, aspects and ideal answers."""
    # An import before it, which shares prompts, annotators and comparisons.
    imports.import_rows(store, many(60), "plain")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in many(20_000)))
    before = seen(store), everything(store)
    command = [sys.executable, "launch.py", "import", str(file), "--format", "plain", "--data", str(store.path.parent)]
    # Whoever runs the tests in the background of a script hands down an ignored Ctrl-C.
    importing = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not store.value("SELECT count(*) > 100 FROM judgments WHERE import_id = 2"):
        assert importing.poll() is None and time.monotonic() < deadline, importing.communicate()
        time.sleep(0.02)
    yield store, importing, before
    importing.kill()
    importing.communicate()


@pytest.mark.slow
def test_ctrl_c_rolls_an_import_back_and_reports_it(half_imported):
    store, importing, (shown, before) = half_imported
    importing.send_signal(signal.SIGINT)
    out, err = importing.communicate(timeout=120)
    assert (importing.returncode, err) == (130, "")
    assert out == "\nstopped: nothing was imported, and the rows written so far were deleted again\n"
    assert everything(store) == before and seen(store) == shown


@pytest.mark.slow
def test_a_killed_import_is_invisible_and_rolled_back_when_the_store_is_opened(half_imported):
    store, importing, (shown, before) = half_imported
    importing.kill()
    importing.wait()
    assert store.value("SELECT count(*) FROM presentations p JOIN judgments j ON j.presentation_id = p.id WHERE j.import_id = 2") > 100
    assert seen(store) == shown and everything(store) != before
    Database(store.path).close()
    assert everything(store) == before and seen(store) == shown


def test_a_file_without_usable_rows_is_refused_with_a_remedy(data, tmp_path, capsys):
    file = tmp_path / "chats.jsonl"
    file.write_text('{"prompt": "Q", "response": "a", "rating": "--", "workspace": "w"}\n')
    status, said, _ = run(capsys, "import", data, file)
    assert (
        status == 1 and "nothing imported, 0 wrong rows left out\nnot kept, with the number of times: answers without a rating (1)" in said
    )
    assert said.endswith("the file has nothing that this format can hold, or describe its fields with --format or --map")
