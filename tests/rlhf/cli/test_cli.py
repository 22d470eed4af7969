"""The command line, verb by verb, as somebody at a terminal meets it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from learning import Judged

import launch
from rlhf import model_files, worker
from rlhf.config import PRESETS, options
from rlhf.runs import doctor, jobs
from rlhf.runs.progress import Cancelled
from storage.content import prompts
from storage.core import migrations
from storage.core.data_folder import DataFolder
from storage.core.database import Database, now
from storage.people import annotators
from storage.project import queued_rounds, runs

VERBS = ["serve", "import", "export", "simulate", "train", "loop", "runs", "rounds", "round", "stats", "agreement", "leaderboard", "doctor"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def world(store, model) -> Judged:
    return Judged(store, DataFolder(store.path.parent), model)


@pytest.fixture
def data(store) -> str:
    return str(store.path.parent)


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        launch.main([*arguments, "--help"])
    assert caught.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_names_every_verb(capsys):
    text = help_of(capsys)
    assert all(f" {verb} " in text for verb in VERBS)


@pytest.mark.parametrize(
    "verb, parts",
    [
        ("serve", ["TCP port on 127.0.0.1", "(default: 7860)", "--endpoint URL"]),
        ("import", ["JSONL rows", "--strict", "--undo ID"]),
        ("export", ["file to write (gzipped", "marked as such", "by pseudonym otherwise"]),
        ("backup", ["replace the file"]),
        ("restore", ["a file that backup wrote"]),
        ("simulate", ["probability that a judgment is reversed, 0 to 0.5", "longest answer, in tokens", "{sentiment,concise,lexical}"]),
        ("train", ["Reward units per nat of KL to the reference. [", "in tokens. [", "in nats", "--no-include-simulated", "[off]"]),
        ("runs", ["one run in full"]),
        ("rounds", ["rounds that learned from this judgment"]),
        ("stats", ["machine-readable"]),
        ("doctor", ["TCP port"]),
    ],
)
def test_the_help_of_each_verb_names_units(capsys, verb, parts):
    text = help_of(capsys, verb)
    assert "folder of the store, runs, uploads and logs" in text
    for part in parts:
        assert part in text


def test_every_option_of_a_round_is_on_the_command_line_with_its_help(capsys):
    text = help_of(capsys, "train").replace("- ", "-")
    for option in options(PRESETS["laptop"]):
        assert f"--{option.name} " in text or f"--{option.name}," in text, option.name
        assert option.help.replace("`", "").replace(" ", "") in text.replace(" ", ""), option.name


def test_serve_is_the_default_verb(monkeypatch):
    served = []
    monkeypatch.setattr(launch, "serve", lambda given: served.append(given.port) or 0)
    launch.serve.__doc__ = "Serves."
    assert launch.main([]) == 0 and launch.main(["--port", "8001"]) == 0 and launch.main(["serve", "--port", "8002"]) == 0
    assert served == [7860, 8001, 8002]


def test_an_unknown_verb_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        launch.main(["dance"])
    assert caught.value.code == 2 and "dance" in capsys.readouterr().err


# What is in the store.


def test_stats_as_json(capsys, data, store, world):
    world.fill(2, 1)
    assert launch.main(["stats", "--data", data, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {
        "prompts", "prompts_in_use", "unused_starter_votes", "completions", "comparisons", "judgments", "annotators", "runs",
        "policy_versions", "queue_depth", "labels_not_used_in_training", "demo_votes",
    }  # fmt: skip
    assert figures["judgments"] == {"human": 0, "simulated": 3} and figures["prompts"] == 3


def test_stats_as_text(capsys, data, world):
    world.fill(2, 1)
    assert launch.main(["stats", "--data", data]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["judgments,", "simulated", "3"] in lines and ["queue", "depth", "3"] in lines


def test_a_new_folder_gets_the_starter_prompts(capsys, tmp_path):
    assert launch.main(["stats", "--data", str(tmp_path / "new"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] >= 200


def test_import_takes_the_good_rows_and_names_the_bad_ones(capsys, tmp_path, data, store, world):
    world.prompt("Known?", "train")
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "New?"}\nnot json\n\n{"prompt": "Known?"}\n{"prompt": ""}\n')
    assert launch.main(["import", "--data", data, str(file)]) == 1
    output = capsys.readouterr()
    assert output.err.splitlines() == [f"{file}:2: not JSON", f"{file}:5: a message is empty"]
    assert output.out.strip() == "import 1: 1 prompts added, 1 known already, 2 wrong rows left out"
    assert [p.text for p in prompts.of_split(store)] == ["Known?", "New?"]


def test_strict_import_takes_nothing_when_a_row_is_bad(capsys, tmp_path, data, store, world):
    world.prompt("Known?", "train")
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "New?"}\nnot json\n')
    assert launch.main(["import", "--data", data, "--strict", str(file)]) == 2
    assert f"{file}:2: not JSON" in capsys.readouterr().err
    assert [p.text for p in prompts.of_split(store)] == ["Known?"]
    file.write_text('{"prompt": "New?"}\n')
    assert launch.main(["import", "--data", data, "--strict", str(file)]) == 0


def test_import_of_a_file_that_is_not_there(capsys, tmp_path, data):
    assert launch.main(["import", "--data", data, str(tmp_path / "nowhere.jsonl")]) == 2
    assert "nowhere.jsonl cannot be read" in capsys.readouterr().err


def test_export_leaves_simulated_judgments_out_unless_asked(capsys, tmp_path, data, world):
    world.fill(2, 1)
    file = tmp_path / "pairs.jsonl"
    assert launch.main(["export", "--data", data, str(file)]) == 0
    assert "0 preference pairs" in capsys.readouterr().out and file.read_text() == ""
    assert launch.main(["export", "--data", data, "--include-simulated", str(file)]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 3 and {r["annotator_kind"] for r in rows} == {"simulated"}
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "good 0"}]


def test_a_store_of_a_newer_version_is_left_alone(capsys, data, store):
    with store.atomic() as connection:
        connection.conn.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('rankloop', 'm999_future', '')")
    assert launch.main(["stats", "--data", data]) == 2
    output = capsys.readouterr().err
    assert "written by a newer rankloop" in output and "m999_future" in output and "upgrade" in output


def test_a_file_that_is_not_a_store_is_refused(capsys, tmp_path):
    (tmp_path / "rankloop.db").write_bytes(b"something else entirely" * 100)
    assert launch.main(["stats", "--data", str(tmp_path)]) == 2
    assert "rankloop.db" in capsys.readouterr().err


# Simulated judgments and rounds.


def test_simulated_judgments_are_added_and_counted(capsys, data, store, model, world):
    for i in range(3):
        world.prompt(f"Q{i}", "train")
    command = [
        "simulate",
        "--data",
        data,
        "--model",
        str(model),
        "--judge",
        "concise",
        "--judgments",
        "5",
        "--max-new-tokens",
        "8",
        "--temperature",
        "1.2",
        "--device",
        "cpu",
    ]
    assert launch.main(command) == 0
    assert "5 simulated judgments by the rule 'concise' added" in capsys.readouterr().out
    assert launch.main([*command, "--label-noise", "0.3"]) == 2
    assert "--seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options_, message",
    [
        (["--judge", "lexical"], "--words"),
        (["--judge", "concise", "--label-noise", "0.7"], "--label-noise 0.7"),
        (["--judge", "concise", "--judgments", "0"], "at least 1"),
    ],
)
def test_an_invalid_simulation_is_refused(capsys, data, options_, message):
    assert launch.main(["simulate", "--data", data, *options_]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("old", "new"), [("ppo-temperature", "sampling-temperature"), ("group-size", "group-num-generations")])
def test_an_option_that_was_renamed_is_refused_with_its_new_name(capsys, data, old, new):
    for given in ([f"--{old}", "2"], [f"--{old}=2"], [f"--{old}"]):
        with pytest.raises(SystemExit, match="2"):
            launch.main(["train", "--data", data, *given])
        assert f"--{old} was renamed: use --{new}" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        launch.main(["train", "--help"])
    assert f"--{new} " in (shown := capsys.readouterr().out) and f"--{old}" not in shown
    with pytest.raises(SystemExit, match="2"):
        launch.main(["simulate", "--data", data, "--judge", "concise", "--flip", "0.1"])
    assert "--flip was renamed: use --label-noise" in capsys.readouterr().err


def train(data, model, *more):
    return launch.main(
        [
            "train",
            "--data",
            data,
            "--preset",
            "tiny",
            "--model",
            str(model),
            "--device",
            "cpu",
            "--dtype",
            "float32",
            "--include-simulated",
            *more,
        ]
    )


def test_a_round_in_this_process(capsys, data, store, model, world):
    world.fill()
    assert train(data, model, "--debug", "--ppo-steps", "1", "--ppo-batch-size", "8", "--min-pairs", "4", "--seed", "9") == 0
    output = capsys.readouterr().out
    run = runs.all_runs(store)[0]
    assert run.status == "done" and run.seed == 9 and run.config["ppo"]["steps"] == 1 and run.config["ppo"]["batch_size"] == 8
    assert f"run {run.id}" in output
    for part in (
        "preference pairs",
        "6 teach · 3 measure; 9 of them from simulated annotators",
        "under the reward model (a proxy)",
        "nats",
        "win rate over the base under the rule 'sentiment'",
        "policy version",
        f"tiny-{run.id}",
    ):
        assert part in output
    assert launch.main(["runs", "--data", data]) == 0
    assert run.id in (overview := capsys.readouterr().out) and "done" in overview and "100%" in overview
    assert launch.main(["runs", "--data", data, run.id]) == 0
    assert f"tiny-{run.id}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_round_in_a_process_of_its_own(capsys, data, store, model, world):
    world.fill()
    assert train(data, model, "--ppo-steps", "1") == 0
    assert runs.all_runs(store)[0].status == "done" and "policy version" in capsys.readouterr().out


def test_a_round_with_too_few_pairs_is_refused_with_numbers(capsys, data, store, model, world):
    world.fill(2, 1)
    assert train(data, model, "--min-pairs", "4") == 2
    assert "rankloop: 2 teach · 1 measure: a round needs 4 preference pairs that teach" in capsys.readouterr().err
    assert runs.all_runs(store) == []


def test_options_out_of_range_are_refused_by_name(capsys, data, model, world):
    world.fill()
    assert train(data, model, "--ppo-kl-coef", "-1") == 2
    assert "--ppo-kl-coef -1.0: must not be negative" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train(data, model, "--ppo-steps", "many")


def test_a_dry_run_says_what_a_round_would_do_and_starts_nothing(capsys, data, store, model, world):
    world.fill()
    assert train(data, model, "--dry-run") == 0
    assert "6 teach · 3 measure" in (output := capsys.readouterr().out) and "yes; nothing was started" in output
    assert train(data, model, "--dry-run", "--min-pairs", "10") == 2
    assert "no: 6 teach · 3 measure: a round needs 10 preference pairs that teach" in capsys.readouterr().out
    assert train(data, model, "--dry-run", "--resume", "r1") == 2 and "leave out --resume" in capsys.readouterr().err
    assert runs.all_runs(store) == []


def test_several_processes_need_a_launcher_and_several_hosts_get_their_command(capsys, data, store, model, world):
    world.fill()
    two = ("--launcher", "accelerate", "--processes", "2", "--min-pairs", "4")
    assert train(data, model, "--processes", "2") == 2 and "nothing starts them; add --launcher accelerate" in capsys.readouterr().err
    assert train(data, model, *two, "--debug") == 2 and "leave one of them out" in capsys.readouterr().err
    assert train(data, model, "--no-start", "--debug") == 2 and "leave out --resume and --debug" in capsys.readouterr().err
    assert runs.all_runs(store) == []
    assert train(data, model, *two, "--no-start") == 0
    (run,) = runs.all_runs(store)
    assert (run.status, run.pid, run.config["launcher"], run.config["processes"]) == ("queued", None, "accelerate", 2)
    said = capsys.readouterr().out
    assert "accelerate launch --multi_gpu --num_processes 2 --num_machines MACHINES" in said
    assert said.splitlines()[1].endswith(f"-m rlhf.worker --resume --data {data} --device cpu {run.id}")


def test_a_round_that_no_other_process_could_begin_is_refused_while_one_trains(capsys, data, store, model, world):
    world.fill()
    active = jobs.Jobs(store, world.folder).create(world.config())
    assert train(data, model, "--debug") == 2
    assert f"{active.id} is queued: wait for it" in capsys.readouterr().err
    assert queued_rounds.waiting(store) == []


def test_a_second_round_waits_for_its_turn(capsys, data, store, model, world, monkeypatch):
    world.fill()
    active = jobs.Jobs(store, world.folder).create(world.config())

    def ends(seconds):
        """The first round ends while the command waits; then so does the second, whose worker is not started here."""
        if (now := runs.active(store)) is not None:
            runs.finish(store, now.id, "done", result={})

    monkeypatch.setattr("rlhf.cli.rounds.time.sleep", ends)
    monkeypatch.setattr(jobs.Jobs, "spawn", lambda self, run_id, reward=None: None)
    assert train(data, model) == 0
    output = capsys.readouterr().out
    assert f"queued as 1: 0 wait before it, and {active.id} is queued (Ctrl-C takes it out of the queue)" in output
    assert f"run {queued_rounds.get(store, 1).run_id}" in output


def test_a_key_for_rollouts_is_read_before_a_row_is_written(capsys, data, store, model, world, tmp_path):
    world.fill()
    for more, said in (
        (["--rollouts", "http://127.0.0.1:1/v1", "--rollouts-key-env", "NO_SUCH_KEY"], "the environment variable NO_SUCH_KEY holds no key"),
        (["--rollouts", "http://127.0.0.1:1/v1", "--rollouts-key-file", str(tmp_path / "gone")], "the key's file"),
        (["--rollouts-key-env", "PATH_OF_KEY"], "a key for rollouts, which this process samples itself: add --rollouts URL"),
        (["--rollouts", "nowhere"], "--rollouts nowhere: is no address of a server"),
    ):
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("PATH_OF_KEY", "sk-1")
            assert train(data, model, *more) == 2
        assert said in capsys.readouterr().err
    assert runs.all_runs(store) == []


def test_ctrl_c_takes_a_waiting_round_out_of_the_queue(capsys, data, store, model, world, monkeypatch):
    world.fill()
    jobs.Jobs(store, world.folder).create(world.config())

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("rlhf.cli.rounds.time.sleep", interrupted)
    assert train(data, model) == 130
    assert queued_rounds.get(store, 1).state == "taken out"


def test_a_round_that_is_taken_out_elsewhere_ends_the_wait(capsys, data, store, model, world, monkeypatch):
    world.fill()
    jobs.Jobs(store, world.folder).create(world.config())
    monkeypatch.setattr("rlhf.cli.rounds.time.sleep", lambda seconds: launch.main(["round", "unqueue", "1", "--data", data]))
    assert train(data, model) == 2
    said = capsys.readouterr()
    assert "queued round 1 was taken out" in said.out and "queued round 1 was taken out" in said.err


def test_the_queue_is_listed_with_runs_and_with_rounds(capsys, data, store, world):
    world.fill()
    queue = jobs.Jobs(store, world.folder)
    queue.create(world.config())
    ann = annotators.ensure(store, "Ann")
    for by in (ann.id, None):
        queue.start(world.config(), by)
    refused = queued_rounds.add(store, {}, trigger="schedule")
    queued_rounds.refuse(store, refused.id, "3 preference pairs, need 20")
    for verb in ("runs", "rounds"):
        assert launch.main([verb, "--data", data]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[-4:]] == ["queued", "1", "2", "3"]
        assert "Ann" in lines[-3] and "hand" in lines[-2] and "waiting" in lines[-2]
        assert "schedule" in lines[-1] and "not started: 3 preference pairs, need 20" in lines[-1]


def test_a_scheduler_is_checked_before_a_run_is_written(capsys, data, store, model, world):
    world.fill()
    nobody = ("--scheduler", "ray", "--address", "http://127.0.0.1:1")
    assert train(data, model, "--scheduler", "ray") == 2 and "needs --address" in capsys.readouterr().err
    assert train(data, model, *nobody, "--debug") == 2 and "leave out --debug and --no-start" in capsys.readouterr().err
    assert train(data, model, *nobody, "--rollouts-key-env", "KEY") == 2 and "with --rollouts-key-file" in capsys.readouterr().err
    assert train(data, model, *nobody, "--min-pairs", "4") == 2
    assert "The Ray cluster at http://127.0.0.1:1 cannot be used: no connection" in capsys.readouterr().err
    assert runs.all_runs(store) == [] and queued_rounds.waiting(store) == []


def test_a_run_on_a_cluster_says_what_its_job_waits_for_and_where_it_is_resumed(capsys, data, store, world):
    world.fill()
    run_id = jobs.Jobs(store, world.folder).create(world.config()).id
    job = {"scheduler": "ray", "address": "http://127.0.0.1:1", "id": "rankloop-r1-ab12cd", "state": "pending", "since": now()}
    runs.set_job(store, run_id, job | {"message": "Wait."})
    assert launch.main(["runs", run_id, "--data", data]) == 0
    assert "job rankloop-r1-ab12cd waits on the Ray cluster at http://127.0.0.1:1: Wait." in capsys.readouterr().out
    assert launch.main(["runs", run_id, "--data", data, "--scheduler", "ray", "--address", "http://127.0.0.1:1"]) == 0
    assert "the Ray cluster at http://127.0.0.1:1 cannot be reached since" in capsys.readouterr().out
    runs.finish(store, run_id, "failed")
    assert launch.main(["runs", run_id, "--data", data]) == 0
    assert f"--resume {run_id} --scheduler ray --address http://127.0.0.1:1\n" in capsys.readouterr().out


def test_a_missing_run_is_an_error(capsys, data, world):
    world.fill(1, 0)
    assert launch.main(["runs", "--data", data, "r-nowhere"]) == 2
    assert "There is no run r-nowhere" in capsys.readouterr().err
    assert launch.main(["runs", "--data", data]) == 0
    assert "no runs yet" in capsys.readouterr().out


def test_a_failed_run_shows_its_error_and_how_to_resume(capsys, data, store, world):
    world.fill()
    run = jobs.Jobs(store, world.folder).create(world.config())
    runs.mark_started(store, run.id, os.getpid())
    runs.set_stage(store, run.id, "ppo", 0.4, None)
    runs.finish(store, run.id, "failed", error="RuntimeError: out of luck")
    log = world.folder.run_log(run.id)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("the last words\n")
    assert launch.main(["runs", "--data", data, run.id]) == 0
    output = capsys.readouterr().out
    assert f"{run.id}: failed in stage ppo" in output and "RuntimeError: out of luck" in output and "the last words" in output
    assert f"rankloop train --data {data} --resume {run.id}" in output


# Before anything runs.


@pytest.fixture
def busy_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_in_use_is_reported_with_another_one(data, busy_port):
    served = subprocess.run(
        [sys.executable, "launch.py", "serve", "--data", data, "--port", str(busy_port)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(launch.__file__).parent,
    )
    assert served.returncode == 2
    assert served.stderr.splitlines()[-1] == (
        f"rankloop: port {busy_port}: Address already in use: stop what uses it, or choose another: rankloop serve --port {busy_port + 1}"
    )


def checks(capsys, data, model, *more):
    status = launch.main(["doctor", "--data", data, "--model", str(model), *more])
    return status, capsys.readouterr().out


@pytest.fixture
def modest(monkeypatch):
    """Needs that this machine meets."""
    monkeypatch.setattr(doctor, "NEEDED_MEMORY_GIB", 0.0)
    monkeypatch.setattr(doctor, "NEEDED_DISK_GIB", 0.0)


def test_doctor_passes_on_a_complete_setup(capsys, data, model, modest):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    status, output = checks(capsys, data, model, "--port", str(free))
    assert status == 0, output
    assert [line.split(":")[0] for line in output.splitlines()] == [
        "ok   Python",
        "ok   torch",
        "ok   free memory",
        "ok   free disk",
        "ok   weights",
        "ok   store",
        "ok   port",
        # A model that is named is tried too.
        *(
            f"ok   {part}"
            for part in ("model", "chat template", "thinking", "end tokens", "padding", "context", "layers", "adapters", "memory", "speed")
        ),
    ]
    assert migrations.NAMES[-1] in output


def test_doctor_does_not_create_a_missing_folder(capsys, tmp_path, model, modest):
    status, output = checks(capsys, str(tmp_path / "not" / "yet"), model, "--port", "0")
    assert status == 0 and "does not exist yet" in output
    assert not (tmp_path / "not").exists()


def test_doctor_names_each_fault_and_what_to_do(capsys, tmp_path, store, data, model, busy_port, monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED_MEMORY_GIB", 10**6)
    monkeypatch.setattr(doctor, "NEEDED_DISK_GIB", 10**9)
    broken = shutil.copytree(model, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    store.close()
    file = Path(data) / "rankloop.db"
    whole = file.read_bytes()
    for page in range(3, len(whole) // 4096):
        whole = whole[: page * 4096] + b"Z" * 4096 + whole[(page + 1) * 4096 :]
    file.write_bytes(whole)
    status, output = checks(capsys, data, broken, "--port", str(busy_port))
    assert status == 1
    faults = [line for line in output.splitlines() if line.startswith("FIX")]
    assert [f.split(":")[0] for f in faults] == ["FIX  free memory", "FIX  free disk", "FIX  weights", "FIX  store", "FIX  port"]
    assert output.count("\n      -> ") == 5
    assert "close programs" in output and "no *.safetensors" in output and "malformed" in output


def test_doctor_finds_damage_inside_a_store_that_opens(store, data):
    prompts.add(store, [prompts.NewPrompt([{"role": "user", "content": f"Q{i} " * 200}], "test", "train") for i in range(200)], source="t")
    store.close()
    file = Path(data) / "rankloop.db"
    whole = file.read_bytes()
    assert len(whole) > 60 * 4096
    file.write_bytes(whole[: 50 * 4096] + b"Z" * 4096 * 6 + whole[56 * 4096 :])
    check = doctor.store(DataFolder(Path(data)))
    assert not check.ok and "restore a backup" in check.remedy


def test_doctor_names_a_device_that_torch_cannot_use(capsys, data, model, modest):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    status, said = checks(capsys, data, model, "--port", "0", "--device", "cuda")
    assert status == 1 and "FIX  torch" in said and "--device cuda: this torch is built for CPUs" in said
    assert "speed:" not in said, "a model is not tried on a device that is not there"


def test_doctor_without_a_model_tries_none(capsys, data, modest, monkeypatch):
    monkeypatch.setattr(doctor, "model_weights", lambda model: doctor.Check("weights", model))
    status = launch.main(["doctor", "--data", data, "--port", "0"])
    said = capsys.readouterr().out
    assert status == 0 and "weights: default" in said and "chat template" not in said


def test_doctor_refuses_an_invalid_port(capsys, data, model, modest):
    status, output = checks(capsys, data, model, "--port", "70000")
    assert status == 1 and "70000 is not a TCP port" in output


def test_doctor_distinguishes_missing_from_damaged_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKLOOP_CACHE", str(tmp_path))
    assert "not downloaded yet" in doctor.model_weights("default").found
    model_files.default_folder().mkdir(parents=True)
    assert "damaged" in doctor.model_weights("default").found
    assert not doctor.model_weights("default").ok


def test_doctor_fetches_nothing(monkeypatch):
    asked = {}

    def download(model, **options):
        asked.update(options)
        raise __import__("huggingface_hub").errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    check = doctor.model_weights("org/name")
    assert check.ok and "downloaded at the first use" in check.found
    assert asked["local_files_only"] is True


def test_doctor_examines_a_store_that_is_in_use(data):
    """Doctor opens the store while the program serves it."""
    other = Database(Path(data) / "rankloop.db")
    assert doctor.store(DataFolder(Path(data))).ok
    other.close()


def test_a_cancelled_debug_round_shows_how_to_resume(capsys, data, store, model, world, monkeypatch):
    world.fill()

    def cancelled(store, folder, run_id, show, reward, at_chance, rollouts_key):
        runs.mark_started(store, run_id, os.getpid())
        runs.finish(store, run_id, "cancelled")
        raise Cancelled(run_id)

    monkeypatch.setattr(worker, "work", cancelled)
    assert train(data, model, "--debug", "--min-pairs", "4") == 130
    assert "--resume" in capsys.readouterr().out


def test_a_model_that_cannot_be_fetched_leaves_no_queued_run(data, store, world):
    world.fill()
    assert train(data, "/nowhere/at-all", "--min-pairs", "4") == 2
    assert runs.all_runs(store) == []


def test_a_reward_function_runs_only_if_the_command_line_names_it(capsys, world, data):
    world.fill()
    start = ["train", "--data", data, "--model", str(world.model), "--preset", "tiny", "--include-simulated"]
    assert launch.main([*start, "--reward", "no_such_module:f"]) == 2
    assert "No module named 'no_such_module'" in capsys.readouterr().err
    assert runs.all_runs(world.store) == []
    config = replace(world.config(), reward_function="json:loads")
    runs.create(world.store, "r1", config=config.to_dict(), seed=0, versions={})
    runs.finish(world.store, "r1", "cancelled")
    for named, missing in (([], "add --reward json:loads"), (["--reward", "json:dumps"], "add --reward json:loads")):
        assert launch.main(["train", "--data", data, "--resume", "r1", *named]) == 2
        assert missing in capsys.readouterr().err
        assert runs.get(world.store, "r1").status == "cancelled"


@pytest.mark.slow
def test_a_round_is_paid_by_the_code_that_its_command_line_names(capsys, world, data, tmp_path, monkeypatch):
    (tmp_path / "rewards_on_the_side.py").write_text("def three(prompts, completions):\n    return [3.0] * len(completions)\n")
    monkeypatch.syspath_prepend(tmp_path)
    world.fill()
    options = {"ppo-steps": 1, "ppo-batch-size": 4, "ppo-minibatch-size": 4, "sampling-max-new-tokens": 4, "evaluation-max-new-tokens": 4}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert (
        launch.main(
            [
                "train",
                "--data",
                data,
                "--model",
                str(world.model),
                "--preset",
                "tiny",
                "--include-simulated",
                "--debug",
                *words,
                "--reward",
                "rewards_on_the_side:three",
            ]
        )
        == 0
    )
    assert "win rate over the base under the reward function" in capsys.readouterr().out
    (run,) = runs.all_runs(world.store)
    assert [m.value for m in runs.metrics(world.store, run.id) if m.name == "objective/scores"] == [3.0]
