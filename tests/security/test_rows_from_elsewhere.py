"""Rows that rankloop never writes are reported, lead to no file outside the folder, and do not break the rows beside them."""

import os

import gradio as gr
import pytest

from feedback_ui.server.auth import Auth
from feedback_ui.shared.i18n import Translator
from feedback_ui.training import run_view
from feedback_ui.training.page import TrainingPage
from launch import main
from rlhf.config import RoundConfig
from rlhf.runs.jobs import Jobs, RoundError
from storage.content import batches, comparisons, policies, prompts
from storage.core.data_folder import DataFolder
from storage.core.database import Database, StoreError
from storage.core.records import ProjectSettings
from storage.exchange import import_records, imports, undos
from storage.judging import gold, judgments, queue
from storage.people import accounts
from storage.project import runs, settings
from tests.storage.conftest import make_world

WORDS = Translator("en")

IDS = ("../../escape", "/etc", "..", ".", "", "a/b", "a\\b", "a\0b", "-rf", "r1\n", "r" * 65, "~root", ".hidden", "röd", 5, None)


@pytest.fixture
def folder(store):
    return DataFolder(store.path.parent)


@pytest.fixture
def world(store):
    return make_world(store)


def write_run(store, run_id="odd", **columns):
    """As somebody else may have written it, without asking this program."""
    values = {
        "id": run_id, "status": "done", "config": "{}", "seed": 0, "versions": "{}", "created_at": "2026-01-01T00:00:00.000+00:00",
        "result": '{"kl": 1.0}',
    } | columns  # fmt: skip
    names = ", ".join(values)
    store.connection.conn.execute("PRAGMA ignore_check_constraints=ON")
    with store.atomic() as connection:
        connection.conn.execute(f"INSERT INTO runs ({names}) VALUES ({', '.join(':' + name for name in values)})", values)


# ---- paths


@pytest.mark.parametrize("run_id", IDS, ids=repr)
def test_an_invalid_run_id_is_not_a_folder(folder, run_id):
    with pytest.raises(StoreError, match="is not a run's id"):
        folder.run(run_id)


@pytest.mark.parametrize("run_id", [i for i in IDS if isinstance(i, str)], ids=repr)
def test_a_run_whose_id_leads_elsewhere_is_shown_and_not_followed(store, folder, run_id, capsys):
    (folder.root.parent / "escape").mkdir()
    (folder.root.parent / "escape" / "log.txt").write_text("secret of the machine")
    write_run(store, run_id, status="failed", result=None)
    runs.create(store, "good", config={}, seed=0, versions={})
    runs.finish(store, "good", "done")
    jobs = Jobs(store, folder)
    assert "id of this run cannot be read" in runs.get(store, run_id).problem
    assert jobs.log_tail(run_id) == ""
    for act in (lambda: jobs.resume(run_id), lambda: jobs.requeue(run_id), lambda: jobs.spawn(run_id)):
        with pytest.raises((RoundError, StoreError), match="is not a run's id|cannot be read"):
            act()
    with pytest.raises(StoreError, match="is not a run's id"):
        runs.create(store, run_id, config={}, seed=0, versions={})
    assert sorted(p.name for p in folder.root.parent.iterdir()) == ["data", "escape"]
    assert main(["runs", "--data", str(folder.root)]) == 0
    output = capsys.readouterr().out
    assert "good" in output and "id of this run cannot be read" in output
    assert "secret" not in output


def test_a_run_folder_that_is_a_link_out_of_runs_is_not_followed(store, folder):
    (folder.root / "runs").mkdir()
    (folder.root / "runs" / "r1").symlink_to(folder.root.parent)
    (folder.root.parent / "log.txt").write_text("secret")
    write_run(store, "r1")
    with pytest.raises(StoreError, match="leads out of the folder runs"):
        folder.run("r1")
    assert Jobs(store, folder).log_tail("r1") == ""


def test_runs_may_lie_on_another_disk(store, folder):
    (folder.root.parent / "disk").mkdir()
    (folder.root / "runs").symlink_to(folder.root.parent / "disk")
    assert folder.run("r1") == folder.root / "runs" / "r1"
    version = tuned(store, "runs/r1/policy")
    assert policies.adapter_folder(store, version) == folder.root / "runs/r1/policy"


def tuned(store, path):
    write_run(store, "r1")
    row = {"name": "t", "kind": "tuned", "base_model": "m", "adapter_path": path, "run_id": "r1", "created_at": "2026"}
    store.insert("policy_versions", row)
    return policies.by_name(store, "t")


@pytest.mark.parametrize(
    "path", ["/etc", "/", "../other/policy", "runs/../../other", "elsewhere/policy", "logs", "", ".", "runs/r1/link", "a\0b", b"runs/r1"],
    ids=repr,
)  # fmt: skip
def test_an_adapter_outside_runs_is_not_read(store, folder, path):
    (folder.root / "runs" / "r1").mkdir(parents=True)
    (folder.root / "runs" / "r1" / "link").symlink_to("/etc")
    version = tuned(store, path)
    with pytest.raises(StoreError, match="The adapter of t cannot be used"):
        policies.adapter_folder(store, version)


# ---- runs that say what no run says

ODD = {
    "a list": dict(config="[]"),
    "a number": dict(config="7"),
    "null": dict(config="null"),
    "no JSON": dict(config="{"),
    "bytes": dict(config=b"\xff\xfe"),
    "deep": dict(config="[" * 100_000),
    "versions": dict(versions="[]"),
    "snapshot": dict(snapshot="[1]"),
    "result": dict(result='"x"'),
    "validation": dict(validation="true"),
    "job": dict(job="[]"),
    "time": dict(started_at="yesterday", finished_at="2026-01-01T00:00:00+00:00"),
    "created": dict(created_at="long ago"),
    "naive time": dict(started_at="2026-01-01T00:00:00", finished_at="2026-01-01T00:00:00+00:00"),
    "progress": dict(progress="much", status="failed", result=None),
    "endless": dict(progress=float("inf"), status="failed", result=None),
    "stage": dict(stage=b"\x00", status="failed", result=None),
    "status": dict(status="paused"),
    "error": dict(error=b"\x00", status="failed", result=None),
}
"""Told in the row's problem."""

SHAPES = {
    "method": dict(config='{"method": ["ppo"]}'),
    "unknown method": dict(config='{"method": "magic"}'),
    "reward": dict(config='{"reward": []}'),
    "epochs": dict(config='{"reward": {"epochs": "many"}}'),
    "ppo": dict(config='{"ppo": 5}'),
    "kl": dict(result='{"kl": "x"}'),
    "kl none": dict(result='{"kl": null, "minutes": [], "peak_memory_gib": {}}'),
    "win rate": dict(result='{"win_rate": {"value": "x"}, "heldout_accuracy": []}'),
    "best of n": dict(result='{"best_of_n": 3}'),
    "best checkpoint": dict(result='{"best_checkpoint": [1], "stopped_by_kl": "x"}'),
    "job of nobody": dict(job='{"scheduler": "ray", "state": []}', status="running", result=None),
    "job elsewhere": dict(
        job='{"scheduler": "ray", "address": "http://127.0.0.1:1", "id": "../stop", "state": "pending", "since": "once"}', status="queued"
    ),
    "pairs": dict(snapshot='{"pairs": "many", "sha256": 7}'),
    "accuracy": dict(validation='{"accuracy": 5}'),
    "judgments": dict(validation='{"accuracy": null, "high_loss_judgments": 5, "by_kind": 1}'),
    "empty": dict(validation="{}"),
    "judgment": dict(validation='{"accuracy": {}, "high_loss_judgments": [{"comparison_id": "x"}]}'),
}
"""Shaped like a run, and wrong within."""


def shown(page, run_id):
    """What the Training page would show, by the name of the component."""
    names = {component: name for name, component in vars(page).items() if component in page.followed}
    return {names.get(component, "plot"): value for component, value in page.show(WORDS, run_id).items()}


@pytest.mark.slow
def test_odd_runs_break_neither_page_nor_command_line(store, folder, capsys):
    odd = {name.replace(" ", "-"): columns for name, columns in (ODD | SHAPES).items()}
    for run_id, columns in odd.items():
        write_run(store, run_id, **columns)
    runs.create(store, "good", config=RoundConfig().to_dict(), seed=0, versions={})
    runs.finish(store, "good", "done", result={"kl": 1.25, "policy_version": "made-well"})
    with gr.Blocks():
        page = TrainingPage(store, Jobs(store, folder), Auth(store), default_config=RoundConfig())
    good = shown(page, "good")
    assert {value for _, value in good["picker"].choices} == {"good", *odd}
    assert "1.25" in good["rounds"] and "cannot be read" not in good["progress"] and "made-well" in good["result"]
    for run_id in odd:
        view = shown(page, run_id)
        assert ("run-unreadable" in view["progress"]) == bool(run_view.problem(runs.get(store, run_id)))
    Jobs(store, folder).reap()
    assert main(["runs", "--data", str(folder.root)]) == 0
    output = capsys.readouterr().out
    assert "made-well" in output
    unreadable = {run_id for run_id in odd if run_view.problem(runs.get(store, run_id))}
    named = {run_id for run_id in odd if any(run_id in line and "cannot be read" in line for line in output.splitlines())}
    assert unreadable >= {name.replace(" ", "-") for name in ODD} and named >= unreadable
    assert [main(["runs", run_id, "--data", str(folder.root)]) for run_id in odd].count(1) == 0
    assert main(["runs", "good", "--data", str(folder.root)]) == 0


@pytest.mark.parametrize("columns", ODD.values(), ids=list(ODD))
def test_what_cannot_be_read_says_so_and_is_not_resumed(store, folder, columns):
    write_run(store, **{"status": "failed"} | columns)
    assert runs.get(store, "odd").problem.endswith("of this run cannot be read: the values are invalid.")
    with pytest.raises(StoreError, match="cannot be read"):
        Jobs(store, folder).resume("odd")


@pytest.mark.parametrize(
    "columns", [dict(heartbeat_at="9999"), dict(heartbeat_at=b"x"), dict(heartbeat_at="zz"), dict(pid=-5), dict(pid=2**62), dict(pid="x")],
    ids=repr,
)  # fmt: skip
def test_a_run_with_a_false_status_running_blocks_rounds_only_for_a_while(store, folder, columns):
    write_run(store, "odd", status="running", result=None, started_at="2026-01-01T00:00:00.000+00:00", **columns)
    Jobs(store, folder).reap()
    assert runs.get(store, "odd").status == "lost"


# ---- other rows


def spoil(store, table, column, row_id, value):
    """Past the triggers, as a file from elsewhere comes."""
    with store.atomic() as connection:
        of_table = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
        triggers = connection.conn.execute(of_table, [table]).fetchall()
        for name, _ in triggers:
            connection.conn.execute(f"DROP TRIGGER {name}")
        connection.conn.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", [value, row_id])
        for _, sql in triggers:
            connection.conn.execute(sql)


BAD = ("", "[", "null", "5", '"x"', "{}", '[{"role": "user"}]', "[[]]", '[["x"]]', '{"temperature": "hot"}', '{"strange": 1}', b"\xff")


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_an_unreadable_prompt_is_skipped_in_the_queue(world, value):
    bad, good = world.comparison(prompt_id=world.prompt("Bad?")), world.comparison(prompt_id=world.prompt("Good?"))
    spoil(world.store, "prompts", "messages", comparisons.get(world.store, bad).prompt.id, value)
    assert world.next(world.ann) == good
    assert world.rank(world.ann).comparison_id == good
    assert world.next(world.ann) is None
    assert [prompt.text for prompt in prompts.of_split(world.store)] == ["Good?"]
    with pytest.raises(StoreError):
        comparisons.get(world.store, bad)


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_other_rows_that_cannot_be_read_are_left_out_or_default(world, value):
    store = world.store
    for text in ("One?", "Two?"):
        world.comparison(prompt_id=world.prompt(text))
    first, second = world.rank(world.ann), world.rank(world.ann)
    gold.set_answer(store, world.comparison(), tuple((c.id,) for c in comparisons.get(store, 3).completions), None)
    settings.change(store, ProjectSettings(overlap=2), None)
    imports.import_rows(store, [{"prompt": "From a file?"}], format="prompts", source="x")
    account = accounts.create(store, "mina", "correct horse battery", ["lead"])
    for table, column, row_id in (
        ("judgments", "tiers", first.id), ("gold_answers", "tiers", 1), ("settings", '"values"', 1), ("imports", "report", 1),
        ("accounts", "roles", account.id), ("completions", "sampling", 1),
    ):  # fmt: skip
        spoil(store, table, column, row_id, value)
    assert [judged.judgment.id for judged in judgments.active(store)] == [second.id]
    assert gold.answers(store) == {}
    assert settings.current(store) == ProjectSettings()
    assert [made.source for made in import_records.all_imports(store)] == ["x"]
    assert accounts.get(store, account.id).roles == frozenset()
    assert comparisons.get(store, 1).completions[0].text == "Answer 0"
    assert queue.depth(store) >= 0


def test_doctor_counts_what_it_cannot_read(world, capsys):
    world.comparison()
    write_run(world.store, config="[]")
    spoil(world.store, "prompts", "messages", 1, "5")
    world.store.close()
    main(["doctor", "--data", str(world.store.path.parent), "--model", "nowhere"])
    output = capsys.readouterr().out
    assert "1 in prompts.messages (the first is 1)" in output and "1 in runs.config (the first is 'odd')" in output


# ---- numbers that SQLite cannot hold

LARGE = (2**63, 2**64, 10**30, -(2**63) - 1)


@pytest.mark.parametrize("number", LARGE)
def test_an_id_out_of_range_is_reported_as_missing(world, number):
    store = world.store
    from storage.judging import exclusions, history, presentations
    from storage.people import annotators

    for get in (
        lambda: annotators.get(store, number), lambda: prompts.get(store, number), lambda: comparisons.get(store, number),
        lambda: judgments.get(store, number), lambda: batches.get(store, number), lambda: import_records.get(store, number),
        lambda: accounts.get(store, number), lambda: undos.undo(store, number), lambda: presentations.get(store, number),
        lambda: queue.next_presentation(store, number), lambda: judgments.undo(store, number), lambda: batches.cancel(store, number),
        lambda: judgments.save(store, number, world.ann.id, verdict="skip", skip_reason="x"), lambda: history.get(store, number, number),
        lambda: queue.renew(store, number, number), lambda: gold.set_answer(store, number, ((1,), (2,)), None),
        lambda: exclusions.lift(store, number, None, "x"),
    ):  # fmt: skip
        with pytest.raises((StoreError, TypeError, AttributeError), match=r"A number is too large|There is no|argument|attribute"):
            get()
    assert annotators.ensure(store, "after").name == "after"


def test_the_command_line_too(store, capsys):
    data = str(store.path.parent)
    assert main(["import", "--undo", str(2**63), "--data", data]) == 2
    assert "too large for an id" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["\ud800", {"a": 1}, [1], object()], ids=["surrogate", "mapping", "list", "object"])
def test_values_that_no_column_can_hold_match_no_row(store, wrong):
    with pytest.raises(StoreError, match="in the store|cannot be stored"):
        store.value("SELECT 1 FROM prompts WHERE id = ?", [wrong])
    with pytest.raises(StoreError, match="in the store|cannot be stored"):
        list(store.rows("SELECT 1 FROM prompts WHERE id = ?", [wrong]))


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_store_that_holds_these_opens_all_the_same(world):
    write_run(world.store, "../../escape", config="[]")
    world.store.close()
    again = Database(world.store.path)
    assert [run.id for run in runs.all_runs(again)] == ["../../escape"]
    again.close()
