"""The verb `loop`: closed rounds over a tiny model, with real workers, also where they are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from learning import Judged
from round_play import Rounds

import launch
from rlhf.runs.jobs import Jobs
from storage.core import folder_lock
from storage.core.data_folder import DataFolder
from storage.core.records import ProjectSettings
from storage.judging import judgments
from storage.project import rounds, runs, settings

UNGUARDED = ["--guards-min-win-rate", "0", "--guards-max-kl", "1e6", "--guards-max-length-ratio", "1e6"]
UNGUARDED += [part for name in ("repetition", "unended", "empty", "phrase") for part in (f"--guards-max-{name}", "1")]
"""The tiny model's answers are noise, which guards would reject."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def world(store, model) -> Judged:
    """Prompts of both splits, and few comparisons to decide by."""
    judged = Judged(store, DataFolder(store.path.parent), model)
    for i in range(8):
        judged.prompt(f"Q{i}", "train" if i % 4 else "heldout")
    settings.change(store, ProjectSettings(deciding_most=10), by=None)
    return judged


def command(world, *more, rounds=1):
    return [
        "loop", "--data", str(world.folder.root), "--judge", "concise", "--rounds", str(rounds), "--votes", "12", "--preset", "tiny",
        "--model", str(world.model), "--device", "cpu", "--dtype", "float32", "--temperature", "1.2", "--max-new-tokens", "8",
        "--ppo-steps", "1", "--min-pairs", "2", *UNGUARDED, *more,
    ]  # fmt: skip


def votes(store):
    return judgments.ordinary(store, "simulated")


@pytest.mark.parametrize(
    "more, message",
    [
        (["--rounds", "0"], "--rounds and --votes must be at least 1"),
        (["--votes", "0"], "--rounds and --votes must be at least 1"),
        (["--annotators", "0"], "--annotators and --max-new-tokens must be at least 1"),
        (["--judge", "lexical"], "--words"),
        (["--ppo-kl-coef", "-1"], "--ppo-kl-coef -1.0"),
    ],
)
def test_an_invalid_loop_is_refused(capsys, world, more, message):
    assert launch.main(command(world, *more)) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_another_process_uses_is_refused(capsys, world):
    with folder_lock.exclusive(world.folder, "loop"):
        assert launch.main(command(world)) == 2
    assert "is in use by rankloop loop" in capsys.readouterr().err


def test_a_folder_in_which_people_judge_is_refused(capsys, world):
    play = Rounds(world.store)
    play.rank(play.ann, play.comparison(play.base, play.base, purpose="collect"), None)
    assert launch.main(command(world)) == 2
    assert "people have made 1 judgments in this folder" in capsys.readouterr().err


@pytest.mark.slow
def test_two_closed_rounds_end_with_decisions_and_one_table(capsys, world):
    assert launch.main(command(world, rounds=2)) == 0
    output = capsys.readouterr().out
    first, second = rounds.all_rounds(world.store)
    for found in (first, second):
        assert (found.trigger, found.judges, found.decision.decided_by) == ("loop", "simulated", "comparisons")
        assert found.version.name in output and f"run {found.run_id}" in output
    assert votes(world.store) == 24 and judgments.active(world.store) == []
    heads, *rows = output.splitlines()[-3:]
    assert heads.split("  ")[0] == "round" and "over the round before" in heads and "minutes" in heads
    assert [row.split()[:3] for row in rows] == [[str(f.id), f.version.name, f.decision.act] for f in (first, second)]
    assert all("12 + " in row and " by comparisons" in row and row.count("% to ") == 2 for row in rows)
    # The same command again finds everything done, and one with more rounds goes on.
    assert launch.main(command(world, rounds=2)) == 0
    assert capsys.readouterr().out.splitlines() == [heads, *rows] and len(rounds.all_rounds(world.store)) == 2
    # No person judged, and the verdict does not say so.
    assert launch.main(["runs", first.run_id, "--data", str(world.store.path.parent)]) == 0
    verdict = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("verdict"))
    assert "by simulated annotators' blind votes" in verdict


@pytest.mark.slow
def test_a_round_that_guards_reject_is_a_decision(capsys, world):
    assert launch.main(command(world, "--guards-max-kl", "0")) == 0
    (found,) = rounds.all_rounds(world.store)
    assert (found.decision.act, found.decision.decided_by) == ("rejected", "guards")
    assert "rejected by guards" in (output := capsys.readouterr().out) and "12 + 0" in output and "KL to the base" in output


@pytest.mark.slow
def test_a_loop_that_is_killed_at_each_step_loses_nothing_and_decides_nothing_twice(world):
    """Killed while votes come in, while the round trains, while its version is compared, and right after the decision."""

    def started():
        return subprocess.Popen([sys.executable, "-m", "launch", *command(world, "--votes", "160", rounds=1)], stdout=subprocess.DEVNULL)

    def kill_when(reached):
        process = started()
        deadline = time.monotonic() + 600
        while not reached():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def newest():
        return (rounds.all_rounds(world.store) or [None])[-1]

    kill_when(lambda: 0 < votes(world.store) < 160)
    before = votes(world.store)
    assert newest() is None
    kill_when(lambda: newest() and newest().status == "running")
    assert votes(world.store) == 160 and 0 < before < 160
    # The worker dies too, as when the machine is switched off.
    os.kill(runs.get(world.store, newest().run_id).pid, signal.SIGKILL)
    kill_when(lambda: newest().status == "done")
    assert len(rounds.all_rounds(world.store)) == 1, "the same run went on"
    assert started().wait(timeout=600) == 0
    (found,) = rounds.all_rounds(world.store)
    assert found.decision is not None and len(rounds.decisions(world.store)) == 1 and votes(world.store) == 160
    assert started().wait(timeout=600) == 0 and len(rounds.decisions(world.store)) == 1


@pytest.mark.slow
def test_a_run_that_failed_is_resumed_with_the_same_options_and_left_with_others(capsys, world, monkeypatch):
    monkeypatch.setattr(
        Jobs, "spawn", lambda self, run_id, reward=None, **_: runs.finish(self.store, run_id, "failed", error="out of luck")
    )
    assert launch.main(command(world)) == 2
    assert "out of luck" in capsys.readouterr().err
    assert launch.main(command(world)) == 2 and len(rounds.all_rounds(world.store)) == 1, "the same options: the same run"
    assert launch.main(command(world, "--seed", "1")) == 2 and len(rounds.all_rounds(world.store)) == 2
    monkeypatch.undo()
    assert launch.main(command(world, "--seed", "1")) == 0
    assert [one.decision is not None for one in rounds.all_rounds(world.store)] == [False, True]
