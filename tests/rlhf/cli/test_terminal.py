"""No control sequence reaches a terminal, whatever a store, a file or a log contains. Every verb is run.

`VERBS` names all of them by hand: whoever adds one adds a line here, or the first test fails and names it.
"""

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import argon2
import pytest

import launch
from storage.content import policies
from storage.core.data_folder import DataFolder
from storage.people import accounts, annotators
from storage.project import queued_rounds, rounds, runs
from tests.rlhf.cli.test_statistics import votes

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\x7f\u202eevil\u2066\u200b\u2028\x00\U000e0041"
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
PASSWORD = "correct horse"
VERBS = {
    "serve", "policy-server", "import", "export", "prompts", "backup", "restore", "simulate", "train", "loop", "runs", "stats", "agreement",
    "leaderboard", "deploy", "doctor", "rounds", "round show", "round promote", "round reject", "round rollback", "round unqueue",
    "round trigger", "run name", "run metrics",
    "account add", "account list", "account password", "account roles", "account disable", "account enable",
    # Their output is looked at in test_projects.
    "project-server", "projects list", "projects create", "projects accounts", "projects add-account", "projects password",
    "projects disable", "projects enable", "projects roles", "projects remove",
}  # fmt: skip


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def hostile(store):
    """A store in which whatever can be named is named to command a terminal, and has a name that begins a line of its own."""
    # Names without blanks: `votes` splits at them. A file name holds no NUL.
    evil = re.sub(r"\s", "", EVIL)
    votes(store, *[(f"tuned{evil}", "base", f"Ann{evil}:1 Bob:{i % 2}") for i in range(3)])
    policies.ensure_external(store, f"x{EVIL}\nroot: all is well")
    accounts.create(store, "Lea", PASSWORD, ["lead"])
    annotator = annotators.ensure(store, f"Eve{EVIL}\nroot")
    values = {"annotator_id": annotator.id, "password_hash": "x", "roles": ["annotator"], "created_at": "2026-01-01T00:00:00.000+00:00"}
    store.insert("accounts", values)
    for run_id, status in (("r1", "failed"), ("r2", "done")):
        runs.create(store, run_id, config={"model": EVIL, "method": EVIL}, seed=1, versions={"torch": EVIL})
        rounds.create(store, run_id, trigger="hand", judges="people", baseline=policies.ensure_base(store, "m", name=f"base{EVIL}"))
        runs.describe(store, run_id, name=f"name{EVIL}\nroot", note=f"note{EVIL}\nroot")
        runs.mark_started(store, run_id, 1)
        runs.set_stage(store, run_id, f"stage{EVIL}", 0.5, None)
        runs.finish(store, run_id, status, error=f"Error: {EVIL}\nroot", result={"policy_version": f"v{EVIL}\nroot", "rule": EVIL})
    version = policies.register_tuned(store, name=f"t{EVIL}\nroot", base_model="m", adapter_path="runs/r2/policy", run_id="r2")
    rounds.decide(store, version, "rejected", decided_by="person", reason=f"It{EVIL}\nroot", by=annotator.id)
    queued_rounds.add(store, {"model": EVIL, "method": EVIL}, trigger="hand", by=annotator.id)
    queued_rounds.refuse(store, queued_rounds.add(store, {}, trigger="schedule").id, f"No{EVIL}\nroot")
    log = DataFolder(store.path.parent).run_log("r1")
    log.parent.mkdir(parents=True)
    log.write_text(f"loading{EVIL}\n", encoding="utf-8")
    store.insert("imports", {
        "format": "prompts", "source": f"file{EVIL}\nroot", "sha256": "x", "report": {}, "created_at": "2026-01-01T00:00:00.000+00:00",
    })  # fmt: skip
    return store


@pytest.fixture
def run(capsys, hostile, monkeypatch):
    def run(*arguments: str) -> tuple[str, str]:
        """What a verb prints on either stream. It may well refuse: then it says why."""
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSWORD}\n"))
        with contextlib.suppress(SystemExit):
            launch.main([*arguments, "--data", str(hostile.path.parent)])
        said = capsys.readouterr()
        assert not COMMANDS.search(said.out), ascii(said.out)
        assert not COMMANDS.search(said.err), ascii(said.err)
        return said

    return run


def every_verb(parser, before=()):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                deeper = list(every_verb(sub, (*before, name)))
                yield from deeper or [" ".join((*before, name))]


def test_every_verb_is_here():
    assert set(every_verb(launch.build_parser())) == VERBS


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs"], ["runs", "r1"], ["runs", "r2"], ["runs", EVIL], ["agreement"], ["leaderboard"], ["stats"], ["import", "--list"],
        ["account", "list"], ["account", "disable", f"Eve{EVIL}\nroot"], ["account", "enable", f"Eve{EVIL}\nroot"],
        ["account", "roles", f"Eve{EVIL}\nroot", "--role", "annotator"], ["account", "password", f"Eve{EVIL}\nroot", "--password-stdin"],
        ["account", "add", f"Mal{EVIL}", "--role", "annotator", "--password-stdin"], ["account", "disable", EVIL],
        ["train", "--resume", EVIL], ["train", "--resume", "r2"], ["train", "--reward", EVIL], [EVIL], ["stats", EVIL],
        ["restore", f"/tmp/{EVIL[:-2]}".replace("\0", "")], ["backup", f"/nowhere/{EVIL}".replace("\0", "")],
        ["export", f"/nowhere/{EVIL}".replace("\0", "")], ["serve", "--host", EVIL], ["serve", "--port", "1", "--endpoint", EVIL],
        ["doctor", "--model", EVIL], ["prompts"], ["prompts", "--search", EVIL], ["prompts", "--retire", EVIL], ["prompts", "--refused"],
        ["simulate", "--judge", "lexical", "--words", EVIL, "--label-noise", "9"], ["import", "--undo", "1"],
        ["loop", "--judge", "lexical", "--words", EVIL, "--rounds", "0"], ["loop", "--judge", EVIL],
        ["rounds"], ["rounds", "--judgment", "1"], ["round", "show", "1"], ["round", "show", "2"], ["round", "show", EVIL],
        ["round", "promote", "2", "--reason", EVIL], ["round", "reject", "1", "--reason", EVIL],
        ["round", "rollback", "--reason", EVIL, "--to", EVIL, "--model", "m"], ["round", "unqueue", "1"], ["round", "unqueue", "9"],
        ["round", "trigger"], ["round", "trigger", "--schedule", EVIL], ["round", "trigger", "--model", EVIL, "--after-judgments", "5"],
        ["round", "trigger", "--dry-run"], ["run", "name", "r1", "--name", EVIL, "--note", EVIL], ["run", "name", EVIL, "--note", "x"],
        ["run", "metrics", EVIL, "--out", EVIL], ["run", "metrics", "r1", "--out", "m.csv"],
    ],
    ids=lambda arguments: ascii(" ".join(arguments))[:40],
)  # fmt: skip
def test_no_output_has_control_characters(run, arguments):
    out, err = run(*arguments)
    assert out or err


def test_a_hostile_name_is_visible_and_begins_no_line(run):
    for arguments in (["agreement"], ["leaderboard"], ["runs"], ["account", "list"], ["import", "--list"]):
        out, _ = run(*arguments)
        assert r"\u001b]0;owned\u0007" in out and r"\u202eevil" in out
        assert not [line for line in out.splitlines() if line.startswith("root")]


def test_columns_are_aligned_with_escaped_names(run):
    lines = run("agreement")[0].splitlines()
    ends = {line.index("12.3 s") for line in lines if "12.3 s" in line}
    assert len(ends) == 1


def test_json_output_keeps_the_stores_texts(run):
    evil = re.sub(r"\s", "", EVIL)
    names = [row["name"] for row in json.loads(run("agreement", "--json")[0])["annotators"]]
    assert f"Ann{evil}" in names
    assert f"tuned{evil}" in [row["name"] for row in json.loads(run("leaderboard", "--json")[0])["policies"]]
    assert f"Eve{EVIL}\nroot" in [row["name"] for row in json.loads(run("account", "list", "--json")[0])]
    assert json.loads(run("stats", "--json")[0])["annotators"]["human"] == 4


def test_control_characters_in_wrong_rows_are_escaped(run, tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": 5}, {f"k{EVIL}\nroot": 1}, {"prompt": "x", "split": f"s{EVIL}\nroot"}, {"messages": [{"role": EVIL, "content": ""}]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\x9b\u202e\n", encoding="utf-8")
    out, err = run("import", "--format", "prompts", str(file))
    assert "wrong rows left out" in out and len(err.splitlines()) >= 4, err
    assert not [line for line in err.splitlines() if line.startswith("root")]


def test_an_unexpected_error_is_escaped_too(tmp_path):
    """The interpreter itself prints it, after the verb has ended."""
    code = (
        "import sys, launch\n"
        "def broken(given): raise RuntimeError(sys.argv[1] + chr(27) + chr(0x202e))\n"
        "launch.doctor = broken\nbroken.__doc__ = 'x'\nlaunch.main(['doctor', '--data', 'nowhere'])\n"
    )
    evil = EVIL.replace("\0", "")
    root = Path(launch.__file__).parent
    ended = subprocess.run([sys.executable, "-c", code, evil], cwd=root, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "RuntimeError" in ended.stderr and r"\u001b\u202e" in ended.stderr
    assert not COMMANDS.search(ended.stderr)
